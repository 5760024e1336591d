"""Data-parallel training: several processes of one sandbox, the *ranks*, share out the rows of every batch.

Each rank holds the whole model and follows the same plan; of a batch it computes its own rows' part of the loss, the
ranks add up losses and gradients, and each takes the same step with the sum. What one process computes from a mean over
all rows is thus computed from the same sum in another order: the numbers are equal within rounding, and with the same
number of ranks they are the same bits every time.

The gradients are added up here and not by ``torch.nn.parallel.DistributedDataParallel``, which takes the mean of the
ranks' means (wrong for shares of different size unless the loss is bent to undo it), waits for ever where a share is
empty, reduces in the model's format before the masters are widened to fp32, and hooks one forward pass of one module,
where an objective here runs a backbone and a head, some of them more than once a step. What it would gain, an exchange
that overlaps the backward pass, is little for an adapter's few tensors.

Ranks talk over the sandbox's own loopback (gloo) or the GPUs of the machine (NCCL); they find each other by a file.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import IntegrityError, PreconditionError, UnavailableError
from assay.worker.task import RANK_LOST
from trainer.device import Device

if TYPE_CHECKING:
    import torch

_PATIENCE = timedelta(days=7)
"""Longer than a task may run: one rank may measure or write for long, and what stands still is the supervisor's to end
(``TASK_SILENT``, ``TASK_TIMEOUT``)."""
_BUCKET = 1 << 23
"""Numbers that are added up at once: few exchanges for an adapter, little memory beside whole modules."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run as one of them sees them; all of them call the same methods in the same order.

    Attributes:
        count: processes that share out the rows.
        number: this one, from 0; the first writes checkpoints, measures validation rows and speaks for all.
        backend: of torch.distributed, ``gloo`` or ``nccl``; empty where there is one process.
        why: why there are fewer processes than the worker is configured for; empty where there are not.
    """

    count: int = 1
    number: int = 0
    backend: str = ""
    why: str = ""

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.number == 0

    @property
    def mine(self) -> slice:
        """This process's rows of a batch, maybe none: dealt out in turn, since a batch is sorted by length."""
        return slice(self.number, None, self.count)

    def join(self, meeting: Path) -> None:
        """Finds the other processes, once, before anything is computed.

        Args:
            meeting: absolute path of a file that does not exist yet, the same for all.
        """
        import torch
        import torch.distributed as dist

        # Neither library may look for another interface, nor for the name of the machine.
        os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1"}
        torch.set_num_threads(max(1, torch.get_num_threads() // self.count))
        if self.backend == "nccl":
            torch.cuda.set_device(self.number)
        place = f"file://{meeting}"
        with _others_may_be_gone():
            dist.init_process_group(self.backend, place, rank=self.number, world_size=self.count, timeout=_PATIENCE)

    def leave(self) -> None:
        """Waits for the others and parts from them."""
        import torch.distributed as dist

        self.meet()
        dist.destroy_process_group()

    def meet(self) -> None:
        """Waits until every process is here."""
        self.decided(0.0)

    @contextmanager
    def first_before_the_others(self) -> Iterator[None]:
        """Lets the first process do what is inside, then all others."""
        if not self.first:
            self.meet()
        yield
        if self.first:
            self.meet()

    def decided(self, value: float) -> float:
        """The first process's value, whatever the others have: what is measured or asked once must bind all alike."""
        import torch

        if self.count == 1:
            return value
        mine = torch.tensor([value if self.first else 0.0], dtype=torch.float64, device=self._where())
        return float(self._sum(mine))

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """Sum of a number over all processes."""
        return value if self.count == 1 else self._sum(value.clone())

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Puts the sum of all processes' gradients in the place of each; one that had no rows adds nothing."""
        import torch

        if self.count == 1:
            return
        for bucket in _buckets(parameters):
            parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = self._sum(torch.cat([part.flatten() for part in parts]))
            for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                parameter.grad = part.view_as(parameter)

    def reseed(self, seed: int, step: int) -> None:
        """Gives each process a dropout of its own in every step, the same one after a resume."""
        import torch

        if self.count > 1:
            torch.manual_seed(random.Random(f"{seed}/{step}/{self.number}").getrandbits(63))

    def demand_one_adapter(self, step: int, masters: Mapping[str, torch.Tensor]) -> None:
        """Demands that every process holds the same bits, as the same steps from the same start must leave them.

        Raises:
            IntegrityError: ``RANKS_DIVERGED``, in a process that holds others than the first.
        """
        if self.count == 1:
            return
        digest = hashlib.sha256(str(step).encode())
        for _, master in sorted(masters.items()):
            digest.update(master.detach().contiguous().cpu().numpy().data)
        mine = float(int.from_bytes(digest.digest()[:6], "big"))
        if self.decided(mine) != mine:
            raise IntegrityError(
                "RANKS_DIVERGED",
                f"process {self.number + 1} of {self.count} holds another adapter than the first after step {step}",
                remedy="let the job go on from its checkpoint; if it happens again, look at the machine's memory",
            )

    def demand_same_count(self, before: int) -> None:
        """Refuses a checkpoint of another number of processes, whose sums were rounded in another order.

        Raises:
            PreconditionError: ``CHECKPOINT_PROCESSES``; nothing is lost.
        """
        if before != self.count:
            raise PreconditionError(
                "CHECKPOINT_PROCESSES",
                f"the checkpoint is of {before} processes, and the worker now trains in {self.count}",
                remedy=f"set processes = {before} in the worker's worker.toml again, start it anew and let the job go "
                "on; or cancel the job and ask for a new one",
            )

    def _sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Adds a tensor up over all processes, in place; afterwards its bits are the same in each."""
        import torch.distributed as dist

        with _others_may_be_gone():
            dist.all_reduce(tensor)
        return tensor

    def _where(self) -> str:
        return "cuda" if self.backend == "nccl" else "cpu"


ALONE = Ranks()


def ranks_of(asked: int, batch_size: int, device: Device, *, private: bool) -> Ranks:
    """The processes that a run is to have, as its first one sees them.

    Args:
        asked: what the worker is configured for.
        batch_size: rows of a full batch; a process more would never have any.
        device: of the run.
        private: whether the run keeps a guarantee of privacy.
    """
    if asked == 1:
        return ALONE
    if private:
        return Ranks(why="a private run draws its rows and its noise in one process, so that each is accounted once")
    if device.kind == "cuda":
        import torch

        here = torch.cuda.device_count()
        if here < asked:
            return Ranks(why=f"{asked} processes want a GPU each, and there are {here}")
    count = min(asked, batch_size)
    why = f"a batch has {batch_size} rows for {asked} processes" if count < asked else ""
    return Ranks(count, backend=("nccl" if device.kind == "cuda" else "gloo") if count > 1 else "", why=why)


@contextmanager
def _others_may_be_gone() -> Iterator[None]:
    """Names the fault of an exchange: its words are a library's, and the cause is with another process."""
    try:
        yield
    except RuntimeError as error:
        raise UnavailableError(RANK_LOST, "another process of the training did not answer") from error


def _buckets(parameters: Iterable[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Tensors in order, some together, each bucket full or the last."""
    bucket: list[torch.nn.Parameter] = []
    for parameter in parameters:
        bucket.append(parameter)
        if sum(p.numel() for p in bucket) >= _BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
