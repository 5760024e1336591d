"""Folders that a task wrote: walked and removed, however deep or closed they are, and though it may still change them.

A task makes folders from where it stands, so they may lie deeper than any path can name, and than Python's own walks
can go, which call themselves once a level. Here each step leads from an open folder to an entry of it, through no link.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from assay.errors import ExhaustedError

MAX_DEPTH = 64
"""Levels of folders that a task may have below ``work`` or ``out``; one descriptor is open for each while walking."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Entry:
    """What lies in a folder.

    Attributes:
        folder: descriptor of the folder that holds it; open until the next entry is asked for.
        above: path of that folder from the top, with a slash at its end; empty for the top.
        name: its name there.
        status: of itself, never of what it links to.
    """

    folder: int
    above: str
    name: str
    status: os.stat_result

    @property
    def path(self) -> str:
        """Its path from the top."""
        return self.above + self.name


def walk(top: Path, onerror: Callable[[OSError], None] = lambda error: None) -> Iterator[Entry]:
    """Every entry below a folder, folders before what they hold.

    Args:
        top: the folder; a link is not followed.
        onerror: told of what vanished meanwhile or cannot be read; what it raises ends the walk.

    Raises:
        ExhaustedError: ``TASK_DISK`` where folders are nested deeper than :data:`MAX_DEPTH`.
    """
    levels: list[tuple[int, str, list[str]]] = []

    def enter(name: str | Path, folder: int | None, path: str) -> None:
        with _reported(onerror):
            inside = os.open(name, _FOLDER, dir_fd=folder)
            levels.append((inside, path, []))
            levels[-1][2].extend(os.listdir(inside))

    try:
        enter(top, None, "")
        while levels:
            folder, above, names = levels[-1]
            if not names:
                os.close(folder)
                levels.pop()
                continue
            name = names.pop()
            with _reported(onerror):
                entry = Entry(folder, above, name, os.stat(name, dir_fd=folder, follow_symlinks=False))
                yield entry
                if stat.S_ISDIR(entry.status.st_mode):
                    if len(levels) > MAX_DEPTH:
                        raise ExhaustedError("TASK_DISK", f"the task nested folders more than {MAX_DEPTH} deep")
                    enter(name, folder, f"{entry.path}/")
    finally:
        for folder, *_ in levels:
            os.close(folder)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that it holds, also what is closed to its owner; nothing where none is.

    Every folder is moved up to the top one before it is emptied, so that each is one step from there, however deep it
    was. Safe beside another call for the same path.

    Raises:
        OSError: something cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        if _unlinked(path):
            return
        top = _opened(path)
        try:
            while names := os.listdir(top):
                for name in names:
                    if not _unlinked(name, top):
                        with contextlib.suppress(FileNotFoundError):
                            _level(name, top)
                            os.rmdir(name, dir_fd=top)
        finally:
            os.close(top)
        os.rmdir(path)


def _level(name: str, top: int) -> None:
    """Empties a folder of the top one: files are removed, folders are moved up."""
    folder = _opened(name, top)
    try:
        for inner in os.listdir(folder):
            if not _unlinked(inner, folder):
                # Only who may write to a folder can give it another parent.
                os.close(_opened(inner, folder))
                os.rename(inner, secrets.token_hex(16), src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)


def _unlinked(name: str | Path, folder: int | None = None) -> bool:
    """Removes what is no folder; true where it is gone."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    return True


def _opened(name: str | Path, folder: int | None = None) -> int:
    """Opens a folder that is to go, whatever its mode."""
    place = os.open(name, _FOLDER | os.O_PATH, dir_fd=folder)
    try:
        # Of somebody else's, opening it tells whether it may be emptied.
        with contextlib.suppress(PermissionError):
            os.chmod(f"/proc/self/fd/{place}", 0o700)
        return os.open(".", _FOLDER, dir_fd=place)
    finally:
        os.close(place)


@contextlib.contextmanager
def _reported(onerror: Callable[[OSError], None]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        onerror(error)
