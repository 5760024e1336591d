"""The engine that a decision names: which code is in its digest, and that it moves with that code and no other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import policies
from assay.v1 import policy_input_pb2
from policies import cel, deciding
from policies.engine import PolicyEngine

FOLDER = Path(policies.__file__).parent
OTHERS = {
    # The name itself, and what loads, checks, publishes, compares, tests, explains or grants.
    *("__init__", "authorization", "bounds", "bundle", "cel_ast", "deciding", "diffing", "fixing", "guards", "lint"),
    *("pack", "replay", "template", "testing", "yamlsource"),
}


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for file in FOLDER.glob("*.py"):
        shutil.copy(file, tmp_path)
    return tmp_path


def test_every_module_is_said_to_decide_or_not_to() -> None:
    assert {file.stem for file in FOLDER.glob("*.py")} == {*deciding.MODULES, *OTHERS}
    assert not OTHERS & set(deciding.MODULES)


@pytest.mark.parametrize("name", deciding.MODULES)
def test_a_byte_of_what_decides_is_another_engine(copied: Path, name: str) -> None:
    assert deciding.ENGINE == f"{cel.ENGINE}, assay {deciding.digest_of(copied)}"
    with (copied / f"{name}.py").open("a") as file:
        file.write("#")
    assert deciding.digest_of(copied) != deciding.digest_of(FOLDER)


def test_what_does_not_decide_is_no_other_engine(copied: Path) -> None:
    for name in OTHERS:
        (copied / f"{name}.py").write_text("")
    assert deciding.digest_of(copied) == deciding.digest_of(FOLDER)


def test_decisions_and_verdicts_name_it(
    engine: PolicyEngine, chat: policy_input_pb2.IntakeInput, release: policy_input_pb2.ReleaseInput
) -> None:
    assert engine.decide(chat).engine == engine.judge(release).engine == deciding.ENGINE
