"""The detector on several cores: forked copies share the loaded model, and each scans a part of every block."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from assay.errors import UnavailableError
from assay.pii import PiiScanner, Span


class ScannerPool:
    """Scans like the scanner it is made of, in this process and in ``processes - 1`` forks of it.

    A context manager; the forks end with it. Leave it before starting threads: a fork copies none of them.
    """

    def __init__(self, scanner: PiiScanner, processes: int | None = None) -> None:
        self._scanner = scanner
        self._forks: list[tuple[multiprocessing.process.BaseProcess, Connection]] = []
        scanner.warm_up()
        context = multiprocessing.get_context("fork")
        for _ in range((processes or usable_cores()) - 1):
            here, there = context.Pipe()
            fork = context.Process(target=_serve, args=(scanner, there), daemon=True)
            try:
                fork.start()
            except OSError:
                # A sandbox that allows no further process: this one does the work.
                here.close()
                break
            finally:
                there.close()
            self._forks.append((fork, here))

    @property
    def identity(self) -> str:
        """Names the detector."""
        return self._scanner.identity

    def scan(self, texts: Iterable[str]) -> Iterator[list[Span]]:
        """Yields each text's spans in order; all texts are held at once, so hand in blocks.

        Raises:
            UnavailableError: ``PII_WORKER_DIED``, for one when memory ran out.
        """
        parts = _parts(list(texts), len(self._forks) + 1)
        try:
            for (_, pipe), part in zip(self._forks, parts[1:], strict=True):
                pipe.send(part)
            yield from self._scanner.scan(parts[0])
            for _, pipe in self._forks:
                yield from pipe.recv()
        except (EOFError, OSError) as error:
            raise UnavailableError("PII_WORKER_DIED", "a process of the detector ended early") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fork, pipe in self._forks:
            pipe.close()
            fork.terminate()
            fork.join()


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def _serve(scanner: PiiScanner, pipe: Connection) -> None:
    while True:
        try:
            texts = pipe.recv()
        except EOFError:
            return
        pipe.send(list(scanner.scan(texts)))


def _parts(texts: Sequence[str], count: int) -> list[list[str]]:
    """Cuts a list into so many runs of about equal length in characters; some may be empty."""
    share = sum(map(len, texts)) / count
    parts: list[list[str]] = [[]]
    done = 0
    for text in texts:
        if done >= share * len(parts) and len(parts) < count:
            parts.append([])
        parts[-1].append(text)
        done += len(text)
    return parts + [[] for _ in range(count - len(parts))]
