"""Whether the train worker has what a method needs, asked before anything of a request is stored."""

from __future__ import annotations

from typing import Protocol

from assay.errors import FieldViolation, PreconditionError, UnavailableError
from assay.v1 import worker_pb2

NEEDS = {"qlora": "bitsandbytes"}
"""Libraries that methods need beyond what every train worker has."""
_ABSENT = "none"


class Describes(Protocol):
    """What is asked of :class:`assay.worker.client.WorkerClient`."""

    async def describe(self) -> worker_pb2.Worker:
        """Who the worker is and what it holds."""


async def demand(method: str, worker: Describes) -> None:
    """Refuses a method whose library the train worker says it lacks.

    A worker that does not answer, or whose attempts run on machines that it cannot speak for, refuses nothing here: its
    trainer does, by ``QUANTISATION_MISSING``, before the first step.

    Raises:
        PreconditionError: ``METHOD_UNAVAILABLE``.
    """
    library = NEEDS.get(method)
    if library is None:
        return
    try:
        found = await worker.describe()
    except UnavailableError:
        return
    if found.environment.get(library) == _ABSENT:
        raise PreconditionError(
            "METHOD_UNAVAILABLE",
            f"the train worker cannot train with the method {method}",
            violations=[FieldViolation("method", f"needs {library}, which the train worker does not have")],
            remedy="use the method lora, or have pip install -c constraints.txt '.[qlora]' run on the train worker and "
            "start it again",
        )
