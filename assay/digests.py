"""Digests of files and folders: what permits, statements and records bind.

A folder's digest is the SHA-256 of the canonical JSON of its manifest, the list of ``{path, sha256, size}`` sorted by
path. There is no ignore list: an extra file, a symlink, a device or a path that climbs out is refused, since each is a
way to run something that was not approved.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from assay import canonical
from assay.errors import IntegrityError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class FileDigest:
    """One file of a manifest; ``path`` is relative, with forward slashes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The files of a folder, sorted by path."""

    files: tuple[FileDigest, ...]

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the canonical JSON of the file list: the folder's digest."""
        rows = [{"path": f.path, "sha256": f.sha256, "size": f.size} for f in self.files]
        return sha256_bytes(canonical.encode(rows))


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_stream(stream: BinaryIO) -> tuple[str, int]:
    """Hex SHA-256 and length of what remains in a stream, in bounded memory."""
    digest, size = hashlib.sha256(), 0
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, in bounded memory."""
    with path.open("rb") as stream:
        return sha256_stream(stream)[0]


def folder_manifest(folder: Path) -> Manifest:
    """Hashes every file under ``folder``.

    Raises:
        IntegrityError: ``FOLDER_NOT_PLAIN`` for a symlink, device, socket, empty folder or twin names that differ in
            case, and for a path that is no folder or holds one that cannot be read.
    """
    if not folder.is_dir():
        raise IntegrityError("FOLDER_NOT_PLAIN", f"{folder.name!r} is not a folder")
    files: list[FileDigest] = []
    seen: set[str] = set()
    for root, dirs, names in os.walk(folder, onerror=_refuse):
        dirs.sort()
        if not dirs and not names and Path(root) != folder:
            raise IntegrityError("FOLDER_NOT_PLAIN", f"empty folder {os.path.relpath(root, folder)!r}")
        for name in [*dirs, *names]:
            path = Path(root, name)
            relative = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise IntegrityError("FOLDER_NOT_PLAIN", f"{relative!r} is neither a plain file nor a folder")
            if relative.casefold() in seen:
                raise IntegrityError("FOLDER_NOT_PLAIN", f"{relative!r} has a twin that differs only in case")
            seen.add(relative.casefold())
            if stat.S_ISREG(mode):
                files.append(FileDigest(relative, sha256_file(path), path.stat().st_size))
    return Manifest(tuple(sorted(files, key=lambda f: f.path)))


def _refuse(error: OSError) -> None:
    """Stops a walk that would otherwise pass over a folder it cannot read, and with it over the files inside."""
    raise IntegrityError("FOLDER_NOT_PLAIN", f"a folder cannot be read: {error.strerror}") from error
