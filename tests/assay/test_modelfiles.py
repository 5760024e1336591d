"""Model files from elsewhere: each attack meets its named refusal before anything is loaded."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay import digests, modelfiles
from assay.errors import AssayError, IntegrityError, InvalidInputError
from assay.modelfiles import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter_folder
from assay.safetensors_header import MAX_HEADER_BYTES, MAX_RANK, MAX_TENSORS, read_header

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{MODULE}.lora_A.weight", f"{MODULE}.lora_B.weight"
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "tiny",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
    "bias": "none",
}


def entry(dtype: str, shape: list[Any], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def raw(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensors(**arrays: np.ndarray) -> bytes:
    """A well-formed file of fp32 tensors, laid out in order."""
    header, data = {}, b""
    for name, array in arrays.items():
        blob = array.astype("<f4").tobytes()
        header[name] = entry("F32", list(array.shape), len(data), len(data) + len(blob))
        data += blob
    return raw(header, data)


def weights(**changes: np.ndarray) -> bytes:
    return tensors(**({A: np.ones((2, 3)), B: np.ones((3, 2))} | changes))


def adapter(folder: Path, content: bytes | None = None, **config: Any) -> Path:
    folder.mkdir()
    (folder / ADAPTER_WEIGHTS).write_bytes(weights() if content is None else content)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(CONFIG | config))
    return folder


def reason(call: Callable[[], object]) -> str:
    with pytest.raises(AssayError) as caught:
        call()
    assert caught.value.code in ("INVALID_ARGUMENT", "DATA_LOSS")
    return caught.value.reason


def zipped() -> bytes:
    """What torch.save writes today."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    return out.getvalue()


F = entry("F32", [2], 0, 8)
HUGE = 2**62
HEADERS = {
    "empty": (b"", "SAFETENSORS_TOO_SHORT"),
    "seven-bytes": (b"\x02\0\0\0\0\0\0", "SAFETENSORS_TOO_SHORT"),
    "header-cut-short": (raw({"a": F}, b"")[:-4], "SAFETENSORS_TOO_SHORT"),
    "pickle-protocol-2": (pickle.dumps({"weights": [1.0] * 9}, 2), "SAFETENSORS_IS_PICKLE"),
    "pickle-protocol-4": (pickle.dumps({"weights": [1.0] * 9}, 4), "SAFETENSORS_IS_PICKLE"),
    "pickle-protocol-5": (pickle.dumps({"weights": [1.0] * 9}, 5), "SAFETENSORS_IS_PICKLE"),
    "torch-save-zip": (zipped(), "SAFETENSORS_IS_PICKLE"),
    # Signature and version of a 7z archive, as its format description says; what is packed is never looked at.
    "7z": (b"7z\xbc\xaf\x27\x1c\x00\x04" + pickle.dumps({"a": 1}), "SAFETENSORS_IS_PICKLE"),
    "header-of-8-EiB": (raw({}, length=2**63 - 1), "SAFETENSORS_HEADER_TOO_LARGE"),
    "header-just-over": (raw({}, length=MAX_HEADER_BYTES + 1), "SAFETENSORS_HEADER_TOO_LARGE"),
    "header-of-one-byte": (raw(b"1"), "SAFETENSORS_HEADER_TOO_LARGE"),
    "header-longer-than-file": (raw({}, length=4096), "SAFETENSORS_TOO_SHORT"),
    "not-json": (raw(b"{{"), "SAFETENSORS_HEADER_NOT_JSON"),
    "not-utf-8": (raw(b'{"\xff": 1}'), "SAFETENSORS_HEADER_NOT_JSON"),
    "a-list": (raw([1]), "SAFETENSORS_HEADER_NOT_JSON"),
    "nested-too-deep": (raw(b"[" * 200_000), "SAFETENSORS_HEADER_NOT_JSON"),
    "same-tensor-twice": (raw(b'{"a":1,"a":2}'), "SAFETENSORS_DUPLICATE_KEY"),
    "same-member-twice": (raw(b'{"a":{"dtype":"F32","dtype":"F16"}}'), "SAFETENSORS_DUPLICATE_KEY"),
    "metadata-not-text": (raw({"__metadata__": {"a": 1}}), "SAFETENSORS_ENTRY"),
    "entry-not-an-object": (raw({"a": 1}), "SAFETENSORS_ENTRY"),
    "unknown-member": (raw({"a": F | {"code": "x"}}, bytes(8)), "SAFETENSORS_ENTRY"),
    "missing-member": (raw({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "SAFETENSORS_ENTRY"),
    "unknown-dtype": (raw({"a": entry("PYOBJ", [2], 0, 8)}, bytes(8)), "SAFETENSORS_UNKNOWN_DTYPE"),
    "shape-negative": (raw({"a": entry("F32", [-2], 0, 8)}, bytes(8)), "SAFETENSORS_SHAPE"),
    "shape-fraction": (raw({"a": entry("F32", [2.0], 0, 8)}, bytes(8)), "SAFETENSORS_SHAPE"),
    "shape-boolean": (raw({"a": entry("F32", [True, 2], 0, 8)}, bytes(8)), "SAFETENSORS_SHAPE"),
    "shape-overflows-64-bit": (raw({"a": entry("F32", [HUGE, HUGE, 0], 0, 8)}, bytes(8)), "SAFETENSORS_SHAPE"),
    "shape-wraps-to-its-size": (raw({"a": entry("F32", [HUGE, 2**4 + 0, 1], 0, 0)}), "SAFETENSORS_SHAPE"),
    "shape-size-over-63-bit": (raw({"a": entry("F32", [2**63], 0, 8)}, bytes(8)), "SAFETENSORS_SHAPE"),
    "too-many-axes": (raw({"a": entry("F32", [1] * MAX_RANK + [2], 0, 8)}, bytes(8)), "SAFETENSORS_SHAPE"),
    "shape-larger-than-range": (raw({"a": entry("F32", [3], 0, 8)}, bytes(8)), "SAFETENSORS_SHAPE"),
    "offsets-reversed": (raw({"a": entry("F32", [2], 8, 0)}, bytes(8)), "SAFETENSORS_OFFSETS"),
    "offsets-negative": (raw({"a": entry("F32", [2], -8, 0)}, bytes(8)), "SAFETENSORS_OFFSETS"),
    "offsets-of-three": (raw({"a": F | {"data_offsets": [0, 4, 8]}}, bytes(8)), "SAFETENSORS_OFFSETS"),
    "beyond-the-file": (raw({"a": F}, bytes(7)), "SAFETENSORS_OFFSETS"),
    "overlapping": (raw({"a": F, "b": entry("F32", [2], 4, 12)}, bytes(12)), "SAFETENSORS_OVERLAP"),
    "same-range-twice": (raw({"a": F, "b": F}, bytes(8)), "SAFETENSORS_OVERLAP"),
    "hole-at-the-start": (raw({"a": entry("F32", [2], 4, 12)}, bytes(12)), "SAFETENSORS_HOLE"),
    "hole-between": (raw({"a": F, "b": entry("F32", [1], 12, 16)}, bytes(16)), "SAFETENSORS_HOLE"),
    "trailing-byte": (raw({"a": F}, bytes(9)), "SAFETENSORS_TRAILING_BYTES"),
    "trailing-zip": (raw({"a": F}, bytes(8) + zipped()), "SAFETENSORS_TRAILING_BYTES"),
}


@pytest.mark.parametrize(("content", "expected"), HEADERS.values(), ids=HEADERS)
def test_a_hostile_file_is_refused_by_its_header(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / ADAPTER_WEIGHTS
    path.write_bytes(content)
    assert reason(lambda: read_header(path)) == expected


@pytest.mark.parametrize(("content", "expected"), HEADERS.values(), ids=HEADERS)
def test_and_so_is_the_adapter_that_holds_it(tmp_path: Path, content: bytes, expected: str) -> None:
    folder = adapter(tmp_path / "adapter", content)
    assert reason(lambda: check_adapter_folder(folder)) == expected


def test_more_tensors_than_allowed(tmp_path: Path) -> None:
    path = tmp_path / ADAPTER_WEIGHTS
    path.write_bytes(raw({str(i): entry("F32", [0], 0, 0) for i in range(MAX_TENSORS + 1)}))
    assert reason(lambda: read_header(path)) == "SAFETENSORS_ENTRY"


def test_a_declared_size_allocates_nothing(tmp_path: Path) -> None:
    """A sparse file of 8 GiB with a header of 16 MiB of blanks: refused for what it says, without reading the data."""
    path = tmp_path / ADAPTER_WEIGHTS
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", 2) + b"{}")
        stream.truncate(8 << 30)
    assert reason(lambda: read_header(path)) == "SAFETENSORS_TRAILING_BYTES"


@pytest.mark.parametrize("kind", ["missing", "folder", "symlink", "dangling"])
def test_what_is_no_plain_file(tmp_path: Path, kind: str) -> None:
    path, real = tmp_path / "x.safetensors", tmp_path / "real"
    real.write_bytes(weights())
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.symlink_to(real if kind == "symlink" else tmp_path / "nowhere")
    assert reason(lambda: read_header(path)) == "SAFETENSORS_NOT_A_FILE"


def test_a_sound_file_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "w.safetensors"
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, dtype=np.float16), "e": np.zeros(0)}
    safetensors.save_file(arrays, path, metadata={"format": "np"})
    header = read_header(path)
    assert {t.name: t.shape for t in header.tensors} == {"a": (2, 3), "b": (4,), "e": (0,)}
    assert header.metadata == (("format", "np"),)
    for tensor in header.tensors:
        chunks = [c for c in modelfiles.read_tensor_chunks(path, header, tensor)]
        assert np.array_equal(np.concatenate([np.zeros(0), *chunks]), arrays[tensor.name].ravel())


def test_a_sound_adapter_is_described(tmp_path: Path) -> None:
    facts = check_adapter_folder(adapter(tmp_path / "adapter"))
    assert (facts.base_model, facts.rank, facts.alpha, facts.target_modules) == ("tiny", 2, 4, ("q_proj",))
    assert facts.parameters == 12
    assert facts.sha256 == digests.folder_manifest(tmp_path / "adapter").sha256


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling.py", ".hidden", "sub/adapter_model.safetensors"])
def test_an_extra_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = adapter(tmp_path / "adapter")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x")
    assert reason(lambda: check_adapter_folder(folder)) == "ADAPTER_FILES"


@pytest.mark.parametrize("name", ["Adapter_Model.safetensors", "ADAPTER_CONFIG.JSON"])
def test_a_twin_in_other_case_is_refused(tmp_path: Path, name: str) -> None:
    """On a file system that folds case the twin would take the place of the file that was checked."""
    folder = adapter(tmp_path / "adapter")
    (folder / name).write_bytes(b"x")
    assert reason(lambda: check_adapter_folder(folder)) == "FOLDER_NOT_PLAIN"


@pytest.mark.parametrize("name", [ADAPTER_WEIGHTS, ADAPTER_CONFIG])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = adapter(tmp_path / "adapter")
    (folder / name).unlink()
    assert reason(lambda: check_adapter_folder(folder)) == "ADAPTER_FILES"


@pytest.mark.parametrize("name", [ADAPTER_WEIGHTS, ADAPTER_CONFIG])
def test_a_symlink_in_place_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = adapter(tmp_path / "adapter")
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert reason(lambda: check_adapter_folder(folder)) == "FOLDER_NOT_PLAIN"


CONFIGS: dict[str, dict[str, Any]] = {
    "another-method": {"peft_type": "IA3"},
    "another-task": {"task_type": "SEQ_CLS"},
    "trains-biases": {"bias": "all"},
    "code-from-elsewhere": {"auto_mapping": {"parent_library": "evil"}},
    "whole-modules-saved": {"modules_to_save": ["lm_head"]},
    "layers-repeated": {"layer_replication": [[0, 4]]},
    "weights-drawn-anew": {"init_lora_weights": "pissa"},
    "revision-of-a-hub": {"revision": "main"},
    "base-is-a-path": {"base_model_name_or_path": "/etc/passwd"},
    "base-is-a-hub-name": {"base_model_name_or_path": "somebody/model"},
    "base-climbs-out": {"base_model_name_or_path": "..\\x"},
    "base-is-nothing": {"base_model_name_or_path": ""},
    "rank-zero": {"r": 0},
    "rank-true": {"r": True},
    "rank-huge": {"r": 5000},
    "alpha-text": {"lora_alpha": "4"},
    "targets-a-pattern": {"target_modules": "all-linear"},
    "targets-none": {"target_modules": []},
    "targets-odd": {"target_modules": ["q proj"]},
}


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_a_configuration_that_is_not_plain_lora_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = adapter(tmp_path / "adapter", **changes)
    assert reason(lambda: check_adapter_folder(folder)) == "ADAPTER_CONFIG"


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff{}", b'{"r":1,"r":2}', b"[" * 100_000, b" " * (5 << 20)])
def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path, text: bytes) -> None:
    folder = adapter(tmp_path / "adapter")
    (folder / ADAPTER_CONFIG).write_bytes(text)
    assert reason(lambda: check_adapter_folder(folder)) == "ADAPTER_CONFIG"


TENSORS: dict[str, bytes] = {
    "none": raw({}),
    "no-partner": tensors(**{A: np.ones((2, 3))}),
    "wrong-rank": weights(**{A: np.ones((4, 3))}),
    "wrong-rank-of-b": weights(**{B: np.ones((3, 4))}),
    "not-a-matrix": weights(**{A: np.ones(2)}),
    "a-module-not-named": weights(**{"x.k_proj.lora_A.weight": np.ones((2, 3))}),
    "a-base-weight": weights(**{f"{MODULE}.weight": np.ones((3, 3))}),
    "an-embedding": weights(**{"base_model.model.lm_head.weight": np.ones((2, 3))}),
    "integers": raw({A: entry("I32", [2, 3], 0, 24), B: entry("I32", [3, 2], 24, 48)}, bytes(48)),
}


@pytest.mark.parametrize("content", TENSORS.values(), ids=TENSORS)
def test_tensors_that_do_not_fit_the_configuration_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = adapter(tmp_path / "adapter", content)
    assert reason(lambda: check_adapter_folder(folder)) == "ADAPTER_TENSORS"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F32", "F16", "F64", "BF16"])
def test_one_element_that_is_no_number_is_found(tmp_path: Path, value: float, dtype: str) -> None:
    plain = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
    numbers = np.ones(6, dtype="<f4")
    for position, finite in ((None, True), (5, False)):
        if position is not None:
            numbers[position] = value
        wide = numbers.view("<u4") >> np.uint32(16)
        one = wide.astype("<u2").tobytes() if dtype == "BF16" else numbers.astype(plain[dtype]).tobytes()
        header = {A: entry(dtype, [2, 3], 0, len(one)), B: entry(dtype, [3, 2], len(one), 2 * len(one))}
        folder = adapter(tmp_path / f"adapter-{finite}", raw(header, one + one))
        assert check_adapter_folder(folder).parameters == 12
        assert modelfiles.adapter_is_finite(folder) is finite


def test_an_adapter_that_was_never_trained_is_told_apart(tmp_path: Path) -> None:
    assert modelfiles.lora_b_moved(adapter(tmp_path / "trained"))
    assert not modelfiles.lora_b_moved(adapter(tmp_path / "fresh", weights(**{B: np.zeros((3, 2))})))


# --- whole modules ---

BLOCK = "base_model.model.model.layers"
WHOLE: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "tiny",
    "bias": "none",
    "target_modules": "dummy-target-modules",
    "modules_to_save": ["input_layernorm", "q_proj"],
}


def block(number: object) -> dict[str, np.ndarray]:
    return {
        f"{BLOCK}.{number}.self_attn.q_proj.weight": np.ones((3, 2)),
        f"{BLOCK}.{number}.input_layernorm.weight": np.ones(3),
    }


def whole(folder: Path, content: bytes | None = None, **config: Any) -> Path:
    folder.mkdir()
    (folder / ADAPTER_WEIGHTS).write_bytes(tensors(**block(0), **block(1)) if content is None else content)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(WHOLE | config))
    return folder


def test_an_adapter_of_whole_modules_is_described(tmp_path: Path) -> None:
    facts = check_adapter_folder(whole(tmp_path / "adapter"))
    assert facts.whole and (facts.rank, facts.alpha) == (0, 0)
    assert facts.target_modules == ("input_layernorm", "q_proj") and facts.parameters == 18
    assert not check_adapter_folder(adapter(tmp_path / "lora")).whole


WHOLE_CONFIGS: dict[str, dict[str, Any]] = {
    "a-rank": {"r": 2},
    "an-alpha": {"lora_alpha": 4},
    "a-dropout": {"lora_dropout": 0.0},
    "modules-none": {"modules_to_save": []},
    "modules-a-word": {"modules_to_save": "q_proj"},
    "modules-missing": {"modules_to_save": None},
    "modules-odd": {"modules_to_save": ["q proj"]},
    "targets-beside": {"target_modules": ["q_proj"]},
    "another-method": {"peft_type": "LN_TUNING"},
    "code-from-elsewhere": {"auto_mapping": {"parent_library": "evil"}},
    "embeddings-tied": {"ensure_weight_tying": True},
    "base-is-a-path": {"base_model_name_or_path": "/etc/passwd"},
}


@pytest.mark.parametrize("changes", WHOLE_CONFIGS.values(), ids=WHOLE_CONFIGS)
def test_a_configuration_that_is_not_of_whole_modules_alone_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = whole(tmp_path / "adapter", **changes)
    assert reason(lambda: check_adapter_folder(folder)) == "ADAPTER_CONFIG"


def without(name: str) -> dict[str, np.ndarray]:
    return {n: a for n, a in (block(0) | block(1)).items() if n != f"{BLOCK}.{name}.weight"}


WHOLE_TENSORS: dict[str, bytes] = {
    "none": raw({}),
    "a-tensor-missing": tensors(**without("1.self_attn.q_proj")),
    "a-module-missing": tensors(**without("1.self_attn.q_proj") | {f"{BLOCK}.0.self_attn.q_proj.weight": np.ones(1)}),
    "a-block-missing": tensors(**block(0), **block(2)),
    "no-first-block": tensors(**block(1)),
    "a-block-written-twice": tensors(**block(0), **block("00")),
    "another-shape": tensors(**block(0), **(block(1) | {f"{BLOCK}.1.self_attn.q_proj.weight": np.ones((2, 2))})),
    "turned-round": tensors(**block(0), **(block(1) | {f"{BLOCK}.1.self_attn.q_proj.weight": np.ones((2, 3))})),
    "a-module-not-named": tensors(**block(0), **{f"{BLOCK}.0.mlp.up_proj.weight": np.ones((3, 2))}),
    "a-bias-in-one": tensors(**block(0), **block(1), **{f"{BLOCK}.1.self_attn.q_proj.bias": np.ones(3)}),
    "an-embedding": tensors(**block(0), **{"base_model.model.lm_head.weight": np.ones((3, 2))}),
    "of-another-stack": tensors(**block(0), **{n.replace("model.layers", "v.layers"): a for n, a in block(1).items()}),
    "low-rank": tensors(**block(0), **{f"{BLOCK}.0.self_attn.q_proj.lora_A.weight": np.ones((2, 3))}),
    "no-prefix": tensors(**{n.removeprefix("base_model."): a for n, a in block(0).items()}),
    "empty": tensors(**{n: a[:0] for n, a in block(0).items()}),
    "a-name-of-dots": tensors(**block(0), **{"." * 5000: np.ones(1)}),
    "integers": raw(
        {n: entry("I32", [3, 1], 12 * i, 12 * i + 12) for i, n in enumerate(block(0))}, bytes(24)
    ),
}  # fmt: skip


@pytest.mark.parametrize("content", WHOLE_TENSORS.values(), ids=WHOLE_TENSORS)
def test_whole_modules_that_are_not_every_block_alike_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = whole(tmp_path / "adapter", content)
    assert reason(lambda: check_adapter_folder(folder)) == "ADAPTER_TENSORS"


def test_a_lora_configuration_over_whole_weights_is_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", tensors(**block(0), **block(1)))
    assert reason(lambda: check_adapter_folder(folder)) == "ADAPTER_TENSORS"


def test_one_element_of_a_whole_module_that_is_no_number_is_found(tmp_path: Path) -> None:
    assert modelfiles.adapter_is_finite(whole(tmp_path / "sound"))
    bad = block(0)
    bad[f"{BLOCK}.0.input_layernorm.weight"] = np.array([1.0, np.nan, 1.0])
    assert not modelfiles.adapter_is_finite(whole(tmp_path / "bad", tensors(**bad, **block(1))))


BASE_FILES: dict[str, dict[str, np.ndarray]] = {
    "another-shape": {"model.layers.1.self_attn.q_proj.weight": np.ones((4, 2))},
    "one-more-block": {"model.layers.2.input_layernorm.weight": np.ones(3)},
    "one-more-weight": {"model.layers.0.self_attn.q_proj.bias": np.ones(3)},
}


def test_whole_modules_are_compared_with_the_base_models_own(tmp_path: Path) -> None:
    facts = check_adapter_folder(whole(tmp_path / "adapter"))
    own = {n.removeprefix("base_model.model."): a for n, a in (block(0) | block(1)).items()}
    outside = {"model.embed_tokens.weight": np.ones((5, 3)), "model.norm.weight": np.ones(3)}
    for name, change in {"same": {}, **BASE_FILES}.items():
        files = tmp_path / name
        files.mkdir()
        # As a large model comes: in more files than one.
        (files / "model-1.safetensors").write_bytes(tensors(**outside))
        (files / "model-2.safetensors").write_bytes(tensors(**(own | change)))
        if change:
            assert reason(lambda files=files: modelfiles.check_fits_base(facts, files)) == "ADAPTER_OTHER_BASE"
        else:
            modelfiles.check_fits_base(facts, files)


def base(folder: Path) -> Path:
    files = folder / "files"
    files.mkdir(parents=True)
    (files / "config.json").write_text("{}")
    (files / "model.safetensors").write_bytes(weights())
    found = digests.folder_manifest(files)
    manifest = {
        "id": "tiny",
        "licence": "Apache-2.0",
        "provenance": "made for a test",
        "parameters": 12,
        "files": [{"path": f.path, "sha256": f.sha256, "size": f.size} for f in found.files],
        "sha256": found.sha256,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_base_model_is_what_its_manifest_says(tmp_path: Path) -> None:
    folder = base(tmp_path / "tiny")
    manifest = modelfiles.read_base_manifest(folder)
    modelfiles.verify_base_files(folder, manifest)
    assert manifest.id == "tiny" and len(manifest.files) == 2


def flip(folder: Path) -> None:
    path = folder / "files" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (flip, "BASE_FILES_DIGEST"),
    "missing": (lambda f: (f / "files" / "config.json").unlink(), "BASE_FILES_DIGEST"),
    "extra": (lambda f: (f / "files" / "modeling.py").write_text("import os"), "BASE_FILES_DIGEST"),
    "twin": (lambda f: (f / "files" / "CONFIG.json").write_text("{}"), "FOLDER_NOT_PLAIN"),
    "symlink": (lambda f: (f / "files" / "link").symlink_to("/etc/passwd"), "FOLDER_NOT_PLAIN"),
    "no-files": (lambda f: (f / "files").rename(f / "gone"), "BASE_FILES_DIGEST"),
}


@pytest.mark.parametrize(("change", "expected"), FILES.values(), ids=FILES)
def test_a_changed_base_model_is_refused(tmp_path: Path, change: Callable[[Path], object], expected: str) -> None:
    folder = base(tmp_path / "tiny")
    manifest = modelfiles.read_base_manifest(folder)
    change(folder)
    assert reason(lambda: modelfiles.verify_base_files(folder, manifest)) == expected


def rewritten(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


MANIFESTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda f: (f / "manifest.json").unlink(), "BASE_MANIFEST_MISSING"),
    "not-json": (lambda f: (f / "manifest.json").write_text("{"), "BASE_MANIFEST_MALFORMED"),
    "symlink": (lambda f: (f / "manifest.json").rename(f / "m") and (f / "manifest.json").symlink_to(f / "m"),
                "BASE_MANIFEST_MALFORMED"),
    "no-licence": (rewritten(licence=""), "BASE_MANIFEST_MALFORMED"),
    "negative-size": (rewritten(parameters=-1), "BASE_MANIFEST_MALFORMED"),
    "files-not-a-list": (rewritten(files=7), "BASE_MANIFEST_MALFORMED"),
    "other-digest": (rewritten(sha256="0" * 64), "BASE_MANIFEST_DIGEST"),
    "no-files": (rewritten(files=[]), "BASE_MANIFEST_DIGEST"),
    "source-a-list": (rewritten(source=["hub"]), "BASE_MANIFEST_MALFORMED"),
    "source-not-text": (rewritten(source={"repository": 7}), "BASE_MANIFEST_MALFORMED"),
    "scan-digest-not-text": (rewritten(scan_sha256=""), "BASE_MANIFEST_MALFORMED"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_malformed_manifest_is_refused(tmp_path: Path, change: Callable[[Path], object], expected: str) -> None:
    folder = base(tmp_path / "tiny")
    change(folder)
    assert reason(lambda: modelfiles.read_base_manifest(folder)) == expected


def test_errors_name_what_is_wrong_and_not_what_is_inside(tmp_path: Path) -> None:
    path = tmp_path / ADAPTER_WEIGHTS
    path.write_bytes(raw({"secret" * 100: entry("F32", [3], 0, 8)}, bytes(8)))
    with pytest.raises(InvalidInputError) as caught:
        read_header(path)
    assert len(caught.value.message) < 300
    folder = adapter(tmp_path / "adapter", r=0)
    with pytest.raises(InvalidInputError) as config:
        check_adapter_folder(folder)
    assert "r must be a whole number" in config.value.message
    (folder / "x").write_text("")
    with pytest.raises(IntegrityError) as extra:
        check_adapter_folder(folder)
    assert "'x'" in extra.value.message
