"""A method that the train worker has no library for is refused before anything is stored."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from assay.errors import PreconditionError, UnavailableError
from assay.v1 import worker_pb2
from gateway.admission import capabilities


@dataclass
class Worker:
    """A train worker that says what it has, or does not answer."""

    environment: dict[str, str] | None
    asked: list[str] = field(default_factory=list)

    async def describe(self) -> worker_pb2.Worker:
        self.asked.append("describe")
        if self.environment is None:
            raise UnavailableError("WORKER_UNREACHABLE", "the worker does not answer")
        return worker_pb2.Worker(environment=self.environment)


async def test_a_method_whose_library_the_worker_lacks_is_refused_with_a_remedy() -> None:
    with pytest.raises(PreconditionError) as caught:
        await capabilities.demand("qlora", Worker({"bitsandbytes": "none", "torch": "2.13.0"}))
    assert caught.value.reason == "METHOD_UNAVAILABLE" and "method lora" in caught.value.remedy
    assert [v.field for v in caught.value.violations] == ["method"]


@pytest.mark.parametrize("environment", [{"bitsandbytes": "0.50.2"}, {"torch": "2.13.0"}, None])
async def test_it_is_let_through_where_the_library_is_or_nobody_can_say(environment: dict[str, str] | None) -> None:
    worker = Worker(environment)
    await capabilities.demand("qlora", worker)
    assert worker.asked == ["describe"]


async def test_no_worker_is_asked_for_a_method_that_needs_nothing_more() -> None:
    worker = Worker({"bitsandbytes": "none"})
    for method in ("lora", "full", "dpo"):
        await capabilities.demand(method, worker)
    assert worker.asked == []
