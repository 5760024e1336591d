"""Small and broken packs for tests, made from the baseline pack."""

from __future__ import annotations

import shutil
from pathlib import Path

from policies.pack import BASELINE, ENGINE_LIMITS
from policies.yamlsource import read


def copy_baseline(folder: Path) -> Path:
    """A copy of the baseline pack that a test may break."""
    out = folder / "pack"
    shutil.copytree(BASELINE, out)
    return out


def replace(path: Path, old: str, new: str) -> None:
    """Replaces text that must be there."""
    text = path.read_text("utf-8")
    assert old in text, f"{old!r} is not in {path.name}"
    path.write_text(text.replace(old, new, 1), "utf-8")


def one_rule_pack(folder: Path, body: str, message: str = "It is not so.") -> Path:
    """A pack with one intake rule of the given lines, and the limits that the planner reads."""
    out = folder / "one"
    out.mkdir()
    source = read(BASELINE / "limits.yaml")
    lines = (BASELINE / "limits.yaml").read_text("utf-8").splitlines()
    starts = sorted(source.positions[("limits", name)].line for name in source.data["limits"])
    keep = ["apiVersion: policies.assay.dev/v1", "kind: Limits", "limits:"]
    for name in source.data["limits"]:
        if name in ENGINE_LIMITS:
            first = source.positions[("limits", name)].line - 2
            after = [s for s in starts if s > first + 2]
            keep += lines[first : after[0] - 2 if after else None]
    (out / "limits.yaml").write_text("\n".join(keep) + "\n", "utf-8")
    (out / "tests.yaml").write_text("apiVersion: policies.assay.dev/v1\nkind: PolicyTests\n", "utf-8")
    (out / "rules.yaml").write_text(
        f"""apiVersion: policies.assay.dev/v1
kind: PolicyPack
metadata: {{name: one, version: '1', owner: tests, description: one rule}}
rules:
  - id: ONE
    title: One fact
    stage: pre_train
    status: internal
    severity: deny
    instrument: Internal standard
    jurisdictions: [ANY]
    citation: Internal standard
    effective_from: 2026-01-01
    message: {message}
    fix: Make it so.
    why: Because.
    {body}
""",
        "utf-8",
    )
    return out
