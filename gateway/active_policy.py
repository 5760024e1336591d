"""Which policy an installation runs under: its own folder ``policies/``, else the packaged one; or the last good one.

A pack that does not load must not take the gateway's policy away. So the bundle that was put into force last is kept
beside the gateway's rows; when the installed one is malformed, the gateway says where and why, and stays with the kept
one. A bundle that loads and that nobody published is another matter: then nothing starts.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from assay.errors import InvalidInputError
from assay.identity import Layout
from assay.v1 import policy_pb2
from gateway.settings import Settings
from policies import testing
from policies.bundle import BUNDLE
from policies.engine import PolicyEngine
from policies.pack import LIMITS, PACKS, RULES, TESTS
from policies.pack import load as read_pack
from policies.rule import Pack

HELD = "tests-held"
_LOG = logging.getLogger(__name__)


def folder(layout: Layout) -> Path:
    """Where the installation's rules lie: its own folder where there is one."""
    own = layout.root / "policies"
    return own if own.is_dir() else PACKS


def load(settings: Settings) -> PolicyEngine:
    """Loads what is installed, or, where that is malformed, what was in force before.

    The tests of a bundle take seconds; those of the one that was in force last are not run again for the same engine.

    Raises:
        InvalidInputError: ``PACK_*`` with file, line, column and rule, when nothing was in force before.
    """
    try:
        return PolicyEngine.load(folder(settings.layout), held=_held(settings))
    except InvalidInputError as fault:
        if not _kept(settings).is_dir():
            raise
        _LOG.error("the installed policy does not load, the one before it stays in force: %s", fault.diagnostics())
        return PolicyEngine.load(_kept(settings), held=_held(settings))


def keep(settings: Settings, pack: Pack) -> None:
    """Keeps a bundle that is in force, so that a malformed one after it cannot take its place."""
    target = _kept(settings)
    standing = testing.standing(pack)
    if _held(settings) == standing:
        return
    staging, old = target.with_name("staging"), target.with_name("replaced")
    for leftover in (staging, old):
        shutil.rmtree(leftover, ignore_errors=True)
    staging.mkdir(parents=True)
    root = pack.parts[0].folder.parent
    if (root / BUNDLE).is_file() and len(pack.parts) > 1:
        shutil.copy(root / BUNDLE, staging / BUNDLE)
        for part in pack.parts:
            _copy(part.folder, staging / part.folder.name)
    else:
        for part in pack.parts:
            _copy(part.folder, staging)
    (staging / HELD).write_text(standing, "utf-8")
    if target.is_dir():
        os.replace(target, old)
    os.replace(staging, target)
    shutil.rmtree(old, ignore_errors=True)


def of_verdict(settings: Settings, verdict: policy_pb2.Verdict) -> tuple[str, dict[str, Path]] | None:
    """A copy of the bundle that a verdict names, installed or kept from before; None when it lies here no more.

    Returns:
        As :func:`files_of`.
    """
    for place in (folder(settings.layout), _kept(settings)):
        try:
            pack = read_pack(place)
        except (InvalidInputError, OSError):
            continue
        if is_of(pack, verdict):
            return files_of(place, pack)
    return None


def is_of(pack: Pack, verdict: policy_pb2.Verdict) -> bool:
    """Tells whether a verdict was made by these rules and limits."""
    return (pack.bundle_sha256, pack.limits_sha256) == (verdict.bundle_sha256, verdict.limits_sha256)


def files_of(place: Path, pack: Pack) -> tuple[str, dict[str, Path]]:
    """What a bundle consists of.

    Args:
        place: folder that it was loaded from.
        pack: as loaded.

    Returns:
        The folder to load a copy from, and the files of the copy by their paths in it.
    """
    named = {part.folder.name: part.folder for part in pack.parts}
    files = {f"{name}/{file}": source / file for name, source in named.items() for file in (RULES, LIMITS, TESTS)}
    if (place / BUNDLE).is_file():
        return "", {**files, BUNDLE: place / BUNDLE}
    return pack.parts[-1].folder.name, files


def _copy(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for name in (RULES, LIMITS, TESTS):
        shutil.copy(source / name, target / name)


def _held(settings: Settings) -> str:
    """What the tests of the kept bundle held for; empty where none is kept."""
    marker = _kept(settings) / HELD
    return marker.read_text("utf-8") if marker.is_file() else ""


def _kept(settings: Settings) -> Path:
    return settings.data / "policy" / "in-force"
