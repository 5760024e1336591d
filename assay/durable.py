"""Files that are there whole or not at all: written beside their place, forced to the disk, and renamed into it.

After a failure or a crash the old file is there or the new one. A process that is killed in between leaves a file
``.NAME.*.part`` behind, which nobody reads.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Puts ``data`` at ``path``; once this returns, no crash takes it away.

    Args:
        path: of the file, new or to be replaced; its folder is there.
        data: all that it will hold.
        mode: its permissions, before the umask takes some away.

    Raises:
        OSError: it could not be written.
    """
    with replacing(path, mode=mode) as stream:
        stream.write(data)
    sync(path.parent)


@contextmanager
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of ``path`` once the body has ended; if the body fails, it is gone.

    What a crash may still take is the change of place: :func:`sync` the folder where that matters.
    """
    staging = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            flush(stream)
        os.replace(staging, path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


def flush(stream: BinaryIO) -> None:
    """Forces what was written to an open file to the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def sync(path: Path) -> None:
    """Forces a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
