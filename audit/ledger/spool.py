"""The files of a bundle that is being made, on disk: memory holds their names alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

from audit.ledger import evidence


class Spool(Mapping[str, bytes]):
    """Files by name in one temporary file, each written once; a context manager, after which they are gone.

    Args:
        refuse: raises the refusal of a bundle that would hold more than its verifier opens, told what there is too
            much of.
    """

    def __init__(self, refuse: Callable[[str], NoReturn]) -> None:
        self._refuse = refuse
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0
        self._size = evidence.size_in_zip("", b"")  # More than the end of the directory takes.
        self._stream = tempfile.TemporaryFile()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __setitem__(self, path: str, data: bytes) -> None:
        self._size += evidence.size_in_zip(path, data)
        if len(self._places) >= evidence.MAX_ENTRIES:
            self._refuse(f"more than {evidence.MAX_ENTRIES} files")
        if self._size > evidence.MAX_BYTES:
            self._refuse(f"more than {evidence.MAX_BYTES} bytes")
        self._stream.seek(self._end)
        self._stream.write(data)
        self._places[path] = (self._end, len(data))
        self._end += len(data)

    def has_room(self, path: str, data: bytes) -> bool:
        """Tells whether a file fits, and the manifest after it."""
        size = self._size + evidence.size_in_zip(path, data) + evidence.MAX_MANIFEST_ROW * (len(self) + 3)
        return size <= evidence.MAX_BYTES and len(self) + 2 <= evidence.MAX_ENTRIES

    def __getitem__(self, path: str) -> bytes:
        start, size = self._places[path]
        self._stream.seek(start)
        return self._stream.read(size)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
