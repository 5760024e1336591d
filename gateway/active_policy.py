"""Which policy an installation runs under: its own folder ``policies/``, else the packaged one; or the last good one.

A pack that does not load must not take the gateway's policy away. So the bundle that was put into force last is kept
beside the gateway's rows; when the installed one is malformed, the gateway says where and why, and stays with the kept
one. A bundle that loads and that nobody published is another matter: then nothing starts. Those that were in force
before lie beside it under their digests, for kits, for evidence and for asking again by the rules of the time.
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
from policies.bundle import BUNDLE, Text, demand_units
from policies.engine import PolicyEngine
from policies.pack import LIMITS, PACKS, RULES, TESTS, texts
from policies.pack import load as read_pack
from policies.rule import Pack

HELD, ROOT = "tests-held", "root"
_LOG = logging.getLogger(__name__)


def folder(layout: Layout) -> Path:
    """Where the installation's rules lie: its own folder where there is one."""
    own = layout.root / "policies"
    return own if own.is_dir() else PACKS


def load(settings: Settings) -> PolicyEngine:
    """Loads what is installed, or, where that is malformed, what was in force before.

    The tests of a bundle take seconds; those of the one that was in force last are not run again for the same engine.

    Raises:
        InvalidInputError: ``PACK_*`` with file, line, column and rule, when nothing was in force before. What is in
            force stays so when a unit that it names is retired.
    """
    try:
        engine = PolicyEngine.load(folder(settings.layout), held=_held(settings))
        demand_units(engine.pack.folder, settings.units)
        return engine
    except InvalidInputError as fault:
        if not _kept(settings).is_dir():
            raise
        _LOG.error("the installed policy does not load, the one before it stays in force: %s", fault.diagnostics())
        return PolicyEngine.load(_root(_kept(settings)), held=_held(settings))


def keep(settings: Settings, pack: Pack) -> None:
    """Keeps a bundle that is in force, so that a malformed one after it cannot take its place.

    What it replaces stays under its digests: records name those for ten years, and somebody will ask what they say.
    """
    target = _kept(settings)
    standing = testing.standing(pack)
    if _held(settings) == standing:
        return
    staging = target.with_name("staging")
    shutil.rmtree(staging, ignore_errors=True)
    root, files = files_of(pack)
    for path, source in files.items():
        (staging / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, staging / path)
    (staging / ROOT).write_text(root, "utf-8")
    (staging / HELD).write_text(standing, "utf-8")
    if target.is_dir():
        _put_away(settings, target, pack)
    os.replace(staging, target)


def text_of(settings: Settings, bundle_sha256: str, limits_sha256: str) -> tuple[Text, Text] | None:
    """What rules and limits of these digests say, installed or kept from before; None when they lie here no more."""
    found = _find(settings, bundle_sha256, limits_sha256)
    return None if found is None else found[1]


def of_verdict(settings: Settings, verdict: policy_pb2.Verdict) -> tuple[str, dict[str, Path]] | None:
    """A copy of the bundle that a verdict names; None when it lies here no more, or this engine cannot load it.

    Returns:
        As :func:`files_of`.
    """
    found = _find(settings, verdict.bundle_sha256, verdict.limits_sha256)
    try:
        return None if found is None else files_of(read_pack(found[0]))
    except InvalidInputError:
        return None


def is_of(pack: Pack, verdict: policy_pb2.Verdict) -> bool:
    """Tells whether a verdict was made by these rules and limits."""
    return (pack.bundle_sha256, pack.limits_sha256) == (verdict.bundle_sha256, verdict.limits_sha256)


def files_of(pack: Pack) -> tuple[str, dict[str, Path]]:
    """What a bundle consists of.

    Returns:
        The folder to load a copy from, and the files of the copy by their paths in it.
    """
    named = {part.folder.name: part.folder for part in pack.parts}
    files = {f"{name}/{file}": source / file for name, source in named.items() for file in (RULES, LIMITS, TESTS)}
    if (pack.folder / BUNDLE).is_file():
        return "", {**files, BUNDLE: pack.folder / BUNDLE}
    return pack.parts[-1].folder.name, files


def _find(settings: Settings, bundle_sha256: str, limits_sha256: str) -> tuple[Path, tuple[Text, Text]] | None:
    """The folder of a bundle by its digests, and what they are of."""
    earlier = _earlier(settings, bundle_sha256, limits_sha256)
    for place in (_root(earlier), folder(settings.layout), _root(_kept(settings))):
        try:
            rules, limits = texts(place)
        except InvalidInputError:
            continue
        if (rules.sha256, limits.sha256) == (bundle_sha256, limits_sha256):
            return place, (rules, limits)
    return None


def _put_away(settings: Settings, kept: Path, follows: Pack) -> None:
    """Moves a bundle that another one replaces under its digests, where those are others and no copy lies there."""
    target = kept
    try:
        target = _earlier(settings, *(text.sha256 for text in texts(_root(kept))))
    except InvalidInputError as fault:
        _LOG.error("the policy that was in force before cannot be read, and is not kept: %s", fault.diagnostics())
    if target.is_dir() or target == _earlier(settings, follows.bundle_sha256, follows.limits_sha256):
        shutil.rmtree(kept)
    else:
        target.parent.mkdir(exist_ok=True)
        os.replace(kept, target)


def _root(kept: Path) -> Path:
    """The folder to load a kept bundle from; one that was kept before this was noted is loaded from where it lies."""
    marker = kept / ROOT
    return kept / marker.read_text("utf-8") if marker.is_file() else kept


def _earlier(settings: Settings, bundle_sha256: str, limits_sha256: str) -> Path:
    return settings.data / "policy" / "earlier" / f"{bundle_sha256}.{limits_sha256}"


def _held(settings: Settings) -> str:
    """What the tests of the kept bundle held for; empty where none is kept."""
    marker = _kept(settings) / HELD
    return marker.read_text("utf-8") if marker.is_file() else ""


def _kept(settings: Settings) -> Path:
    return settings.data / "policy" / "in-force"
