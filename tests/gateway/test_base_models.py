"""A base model that is installed later is put on the gateway's list by a command, once it is what it says it is."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from assay.identity import Layout
from assay.model_scan import SCAN_FILE
from gateway.base_models import FILE, BaseModels
from gateway.cli.app import app
from tests.gateway.conftest import BASE, House
from tests.trainer.tiny_models import word_tokenizer
from trainer.base_sources import Described, from_folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The folder of installed models, with a tiny one."""
    published = tmp_path / "published"
    published.mkdir()
    shape = dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size"), 8)
    (published / "config.json").write_text(
        json.dumps({"model_type": "llama", "num_attention_heads": 1, "num_hidden_layers": 1} | shape)
    )
    word_tokenizer(published, 8)
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (published / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    from_folder(published, Described("tiny", "MIT", repository="bank/Tiny"), tmp_path)
    return tmp_path / "models"


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    shutil.copytree(pristine, tmp_path / "dir")
    return tmp_path / "dir"


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["base-model", *map(str, words)])


def known(root: Path) -> BaseModels:
    return BaseModels.load(Layout(root).service("gateway") / FILE)


async def test_a_model_that_was_added_is_known_from_the_next_start_on(opened: Any, models: Path) -> None:
    before: House = opened()
    root = before.layout.root
    done = run("add", root, "tiny", "--models", models)
    assert done.exit_code == 0 and "start the gateway again" in done.output, done.output
    assert "tiny" not in before.app.base_models.by_id
    await before.app.close()
    house: House = opened()
    tiny = house.app.base_models.get("tiny")
    report = json.loads((models / "tiny" / "manifest.json").read_text())
    assert (tiny.licence, tiny.sha256, tiny.scan_sha256) == ("MIT", report["sha256"], report["scan_sha256"])
    assert house.app.base_models.find("bank/tiny") == tiny and BASE["id"] in house.app.base_models.by_id
    await house.app.close()
    listed = run("list", root, "--output", "json")
    assert [m["id"] for m in json.loads(listed.output)] == [BASE["id"], "tiny"]
    assert "bank/Tiny" in run("list", root).output


def test_adding_again_changes_nothing_and_a_mended_entry_is_renewed(root: Path, models: Path) -> None:
    assert json.loads(run("add", root, "tiny", "--models", models, "--output", "json").output)["changed"]
    again = run("add", root, "tiny", "--models", models)
    assert again.exit_code == 0 and "nothing was changed" in again.output
    manifest = models / "tiny" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"licence": "Apache-2.0"}))
    assert json.loads(run("add", root, "tiny", "--models", models, "--output", "json").output)["changed"]
    assert known(root).get("tiny").licence == "Apache-2.0" and len(known(root).by_id) == 2


def test_the_train_workers_folder_is_where_models_are(root: Path, models: Path) -> None:
    lines = (
        'listen = "127.0.0.1:1"\nsubject = "spiffe://assay.local/services/train-worker"\nkinds = ["train"]\n'
        f'slot_file = "slot"\nmodels_dir = {json.dumps(str(models))}\n'
    )
    (Layout(root).service("train-worker") / "worker.toml").write_text(lines)
    done = run("add", root, "tiny")
    assert done.exit_code == 0 and "tiny" in known(root).by_id, done.output


def spoil_weights(model: Path) -> None:
    weights = model / "files" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")


def rewrite(model: Path, **changes: Any) -> None:
    path = model / "manifest.json"
    path.write_text(json.dumps({k: v for k, v in (json.loads(path.read_text()) | changes).items() if v is not None}))


BAD: dict[str, tuple[Any, str, int]] = {
    "not installed": (lambda m: m.rename(m.with_name("other")), "UNKNOWN_BASE_MODEL", 4),
    "of another id": (lambda m: rewrite(m, id="other"), "BASE_MODEL_ID", 3),
    "changed weights": (spoil_weights, "BASE_FILES_DIGEST", 10),
    "manifest of other files": (lambda m: rewrite(m, sha256="0" * 64), "BASE_MANIFEST_DIGEST", 10),
    "changed report": (lambda m: (m / SCAN_FILE).write_text("{}"), "SCAN_REPORT", 10),
    "no report": (lambda m: rewrite(m, scan_sha256=None), "BASE_MODEL_NOT_SCANNED", 6),
}


@pytest.mark.parametrize("case", BAD)
def test_a_model_that_is_not_what_it_says_is_not_added(case: str, root: Path, models: Path) -> None:
    spoil, reason, code = BAD[case]
    spoil(models / "tiny")
    before = (Layout(root).service("gateway") / FILE).read_bytes()
    done = run("add", root, "tiny", "--models", models)
    assert (done.exit_code, reason in done.output) == (code, True), done.output
    assert (Layout(root).service("gateway") / FILE).read_bytes() == before


def test_an_id_never_stands_for_other_files(root: Path, models: Path, tmp_path: Path) -> None:
    path = Layout(root).service("gateway") / FILE
    path.write_text(json.dumps([{"id": "tiny", "sha256": "a" * 64}]))
    done = run("add", root, "tiny", "--models", models)
    assert done.exit_code == 7 and "BASE_MODEL_EXISTS" in done.output
    assert known(root).get("tiny").sha256 == "a" * 64
