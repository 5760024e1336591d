"""Plants the end of a process by SIGKILL at a commit.

A point is the type of a record and a moment: at ``training.ordered:before`` the process ends inside the transaction,
when the record and everything that goes with it has been written and not yet committed; at ``training.ordered:after``
it ends when the commit is there and whoever waits for it has not been told.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, TypeVar

from audit.ledger.writer import UnitOfWork
from gateway.store.database import Store

T = TypeVar("T")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    """Ends this process at the point, the first time that it comes there."""
    wanted, when = point.split(":")
    reached: list[UnitOfWork] = []
    append, commit = UnitOfWork.append, Store.commit

    def noted_append(self: UnitOfWork, draft: Any) -> int:
        if draft.type == wanted:
            reached.append(self)
        return append(self, draft)

    async def dying_commit(self: Store, work: Callable[[UnitOfWork], T]) -> T:
        units: list[UnitOfWork] = []

        def dying_work(uow: UnitOfWork) -> T:
            answer = work(uow)
            units.append(uow)
            if uow in reached and when == "before":
                die()
            return answer

        answer = await commit(self, dying_work)
        if set(map(id, units)) & set(map(id, reached)):
            die()
        return answer

    UnitOfWork.append = noted_append  # type: ignore[method-assign]
    Store.commit = dying_commit  # type: ignore[method-assign]
