"""Model files that came from elsewhere, checked before anything loads them. No torch, no pickle, bounded memory.

Two kinds of folder are read here. A *base model* lies under ``<models>/<id>/`` as ``manifest.json`` and ``files/``
(:func:`read_base_manifest`, :func:`verify_base_files`). An *adapter* is exactly ``adapter_model.safetensors`` and
``adapter_config.json`` (:func:`check_adapter_folder`): a configuration that could make a loader import code, fetch a
file or touch the base weights is refused.

There are two kinds of adapter. *LoRA* holds two narrow matrices for each module that it adapts. A *whole* one holds the
modules themselves, every weight of the base model's blocks, in the way that peft keeps whole modules beside their
originals (``modules_to_save``): switched off, it leaves the base model as it is.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from assay import digests
from assay.errors import IntegrityError, InvalidInputError
from assay.safetensors_header import SafetensorsHeader, TensorInfo, read_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
BASE_MANIFEST = "manifest.json"
BASE_FILES = "files"
NO_TARGETS = "dummy-target-modules"
"""peft's word for an adapter that has no low-rank matrices."""

_MAX_JSON = 4 << 20
_CHUNK_ELEMENTS = 1 << 22
_FLOAT_DTYPES = frozenset({"BF16", "F16", "F32", "F64"})
_PREFIX = "base_model.model."
_KNOWN_CONFIG = frozenset(
    {
        "peft_type",
        "task_type",
        "base_model_name_or_path",
        "r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "bias",
        "inference_mode",
        "init_lora_weights",
        "peft_version",
        "fan_in_fan_out",
        "use_rslora",
        "revision",
        "modules_to_save",
    }
)


@dataclass(frozen=True)
class BaseManifest:
    """What an installed base model is. ``sha256`` is the folder digest of its ``files/``.

    Attributes:
        id: registry id.
        licence: SPDX identifier.
        provenance: where the weights came from, in one sentence.
        parameters: number of parameters.
        files: every file under ``files/``.
        sha256: digest of that list, see :class:`assay.digests.Manifest`.
        source: what it was installed from: ``kind`` (``wheel``, ``hub`` or ``folder``) and what that kind has, such as
            ``repository``, owner and name on a hub. By whoever installed it; not part of the digest.
        scan_sha256: digest of the report of :func:`assay.model_scan.scan` beside the manifest; empty for a model of an
            older release, which wrote none or did not name it.
    """

    id: str
    licence: str
    provenance: str
    parameters: int
    files: tuple[digests.FileDigest, ...]
    sha256: str
    source: Mapping[str, str] = field(default_factory=dict)
    scan_sha256: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(f.size for f in self.files)


@dataclass(frozen=True)
class AdapterFacts:
    """What an adapter folder holds.

    Attributes:
        base_model: base model that the configuration names.
        rank: LoRA rank; 0 for a whole adapter, which has none.
        alpha: LoRA scale numerator; 0 for a whole adapter.
        target_modules: names of the adapted modules, sorted; of a whole adapter, those that it holds.
        tensors: every tensor of the weights file, sorted by name.
        parameters: number of elements in all tensors.
        sha256: folder digest, what permits bind.
    """

    base_model: str
    rank: int
    alpha: int
    target_modules: tuple[str, ...]
    tensors: tuple[TensorInfo, ...]
    parameters: int
    sha256: str

    @property
    def whole(self) -> bool:
        """Whether it holds modules themselves and not low-rank matrices."""
        return self.rank == 0


def read_base_manifest(folder: Path) -> BaseManifest:
    """Reads and checks ``manifest.json`` of an installed base model; the files themselves are not hashed.

    Raises:
        InvalidInputError: ``BASE_MANIFEST_MISSING`` or ``BASE_MANIFEST_MALFORMED``.
        IntegrityError: ``BASE_MANIFEST_DIGEST`` when the digest is not that of the file list.
    """
    value = _read_json(folder / BASE_MANIFEST, "BASE_MANIFEST_MISSING", "BASE_MANIFEST_MALFORMED")
    try:
        files = tuple(
            digests.FileDigest(_text(f, "path"), _text(f, "sha256"), _count(f, "size")) for f in value["files"]
        )
        manifest = BaseManifest(
            id=_text(value, "id"),
            licence=_text(value, "licence"),
            provenance=_text(value, "provenance"),
            parameters=_count(value, "parameters"),
            files=files,
            sha256=_text(value, "sha256"),
            source=_texts(value.get("source", {}), "source"),
            scan_sha256=_text(value, "scan_sha256") if "scan_sha256" in value else "",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError("BASE_MANIFEST_MALFORMED", f"{BASE_MANIFEST}: {error}") from error
    if not files or digests.Manifest(files).sha256 != manifest.sha256:
        raise IntegrityError(
            "BASE_MANIFEST_DIGEST", f"{BASE_MANIFEST} names a digest that is not the one of its file list"
        )
    return manifest


def source_line(source: Mapping[str, str]) -> str:
    """The source of a :class:`BaseManifest` in a few words."""
    members = ("kind", "requirement", "repository", "revision")
    return " ".join(source[m] for m in members if source.get(m))


def verify_base_files(folder: Path, manifest: BaseManifest) -> None:
    """Hashes ``files/`` and compares it with the manifest.

    Raises:
        IntegrityError: ``BASE_FILES_DIGEST`` for any missing, extra or changed file, ``FOLDER_NOT_PLAIN`` for a
            symlink.
    """
    if not (folder / BASE_FILES).is_dir():
        raise IntegrityError("BASE_FILES_DIGEST", f"the folder {BASE_FILES!r} of {manifest.id} is missing")
    actual = digests.folder_manifest(folder / BASE_FILES)
    if actual.sha256 != manifest.sha256:
        wrong = sorted({f.path for f in set(actual.files) ^ set(manifest.files)})
        raise IntegrityError(
            "BASE_FILES_DIGEST", f"files of {manifest.id} differ from its manifest: {', '.join(wrong[:10])}"
        )


def check_adapter_folder(folder: Path) -> AdapterFacts:
    """Checks an adapter folder from outside to inside: names, kinds of file, configuration, weights header, shapes.

    Raises:
        IntegrityError: ``ADAPTER_FILES`` for a missing or extra file, ``FOLDER_NOT_PLAIN`` for a symlink.
        InvalidInputError: ``ADAPTER_CONFIG`` for a configuration that is neither plain LoRA nor of whole modules,
            ``ADAPTER_TENSORS`` when the tensors do not fit it, or a ``SAFETENSORS_*`` reason.
    """
    manifest = digests.folder_manifest(folder)
    names = {f.path for f in manifest.files}
    if names != {ADAPTER_WEIGHTS, ADAPTER_CONFIG}:
        raise IntegrityError(
            "ADAPTER_FILES", f"an adapter is exactly {ADAPTER_WEIGHTS} and {ADAPTER_CONFIG}, found {sorted(names)}"
        )
    config = _read_json(folder / ADAPTER_CONFIG, "ADAPTER_CONFIG", "ADAPTER_CONFIG")
    rank, alpha, targets = _check_config(config)
    header = read_header(folder / ADAPTER_WEIGHTS)
    if rank:
        _check_tensors(header, rank, targets)
    else:
        _check_blocks(header, targets)
    return AdapterFacts(
        base_model=config["base_model_name_or_path"],
        rank=rank,
        alpha=alpha,
        target_modules=targets,
        tensors=header.tensors,
        parameters=sum(t.elements for t in header.tensors),
        sha256=manifest.sha256,
    )


def adapter_is_finite(folder: Path) -> bool:
    """Tells whether no element of any tensor is NaN or infinite."""
    path = folder / ADAPTER_WEIGHTS
    return tensors_are_finite(path, read_header(path))


def check_fits_base(facts: AdapterFacts, files: Path) -> None:
    """Demands that a whole adapter holds every weight of the base model's blocks in its shapes, and nothing else.

    Args:
        facts: of the adapter.
        files: ``files/`` of the base model, already verified.

    Raises:
        InvalidInputError: ``ADAPTER_OTHER_BASE``, or a ``SAFETENSORS_*`` reason.
    """
    held = {t.name: t.shape for t in facts.tensors}
    if facts.whole and held != {_PREFIX + t.name: t.shape for t in _block_weights(files)}:
        raise InvalidInputError("ADAPTER_OTHER_BASE", "the adapter's tensors are not those of this base model's blocks")


def lora_b_moved(folder: Path) -> bool:
    """Tells whether training changed anything: LoRA starts with B = 0, so some element of some B must be non-zero."""
    import numpy as np

    path = folder / ADAPTER_WEIGHTS
    header = read_header(path)
    chosen = [t for t in header.tensors if ".lora_B." in t.name and t.dtype in _FLOAT_DTYPES]
    return any(bool(np.any(chunk != 0)) for t in chosen for chunk in read_tensor_chunks(path, header, t))


def tensors_are_finite(path: Path, header: SafetensorsHeader) -> bool:
    """Tells whether every element of every floating tensor is finite; integer tensors always are."""
    import numpy as np

    floats = [t for t in header.tensors if t.dtype in _FLOAT_DTYPES]
    return all(bool(np.isfinite(chunk).all()) for t in floats for chunk in read_tensor_chunks(path, header, t))


def read_tensor_chunks(
    path: Path, header: SafetensorsHeader, tensor: TensorInfo
) -> Iterator[NDArray[np.floating[Any]]]:
    """Yields a floating tensor's elements in order, flat, at most 4 Mi elements at a time.

    bf16 is widened to fp32 by its bits, which is exact and keeps NaN and infinity.
    """
    import numpy as np

    plain: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
    stored: np.dtype[Any] = np.dtype("<u2") if tensor.dtype == "BF16" else plain[tensor.dtype]
    with path.open("rb") as stream:
        stream.seek(header.data_start + tensor.begin)
        left = tensor.elements
        while left:
            take = min(left, _CHUNK_ELEMENTS)
            raw = np.frombuffer(stream.read(take * stored.itemsize), dtype=stored)
            if raw.size != take:
                raise IntegrityError("SAFETENSORS_OFFSETS", f"{path.name} ends inside a tensor")
            yield (raw.astype(np.uint32) << np.uint32(16)).view(np.float32) if tensor.dtype == "BF16" else raw
            left -= take


def _check_config(config: Mapping[str, Any]) -> tuple[int, int, tuple[str, ...]]:
    """Demands plain LoRA or whole modules; every option that is not known here must be switched off."""
    fixed = {"peft_type": ("LORA",), "task_type": ("CAUSAL_LM",), "bias": ("none",), "fan_in_fan_out": (False, None)}
    for key, allowed in fixed.items():
        if config.get(key) not in allowed:
            _refuse_config(key, f"must be {allowed[0]!r}")
    for key in sorted(set(config) - _KNOWN_CONFIG):
        if config[key] not in (None, False, "", 0, 0.0) and config[key] != {} and config[key] != []:
            _refuse_config(key, "is an option that Assay does not allow")
    if config.get("init_lora_weights", True) is not True or config.get("use_rslora", False) or config.get("revision"):
        _refuse_config("init_lora_weights, use_rslora, revision", "must be left at their defaults")
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base or "/" in base or "\\" in base or base.startswith("."):
        _refuse_config("base_model_name_or_path", "must be a registry id, not a path or a hub name")
    if config.get("target_modules") == NO_TARGETS:
        return 0, 0, _check_whole(config)
    if config.get("modules_to_save"):
        _refuse_config("modules_to_save", f"goes with target_modules {NO_TARGETS!r} alone")
    for key in ("r", "lora_alpha"):
        value = config.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
            _refuse_config(key, "must be a whole number from 1 to 4096")
    return config["r"], config["lora_alpha"], _module_names(config, "target_modules")


def _check_whole(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules that a whole adapter holds; it has no rank, so that none may be stated."""
    for key in ("r", "lora_alpha", "lora_dropout"):
        if config.get(key) is not None:
            _refuse_config(key, "says nothing of whole modules")
    return _module_names(config, "modules_to_save")


def _module_names(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    names = config.get(key)
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n.isidentifier() for n in names):
        _refuse_config(key, "must be a list of module names")
    return tuple(sorted(names))


def _check_blocks(header: SafetensorsHeader, modules: Sequence[str]) -> None:
    """Demands the named modules' weights of blocks 0, 1, ... without a gap, every block's alike; nothing else.

    Without the base model at hand this is what can be said; :func:`check_fits_base` compares with it.
    """
    blocks: dict[str, dict[str, tuple[int, ...]]] = {}
    stems, found = set(), set()
    for tensor in header.tensors:
        stem, number, weight = _place_in_block(tensor.name.removeprefix(_PREFIX))
        module = weight.split(".")[-2] if weight else ""
        known = tensor.name.startswith(_PREFIX) and module in modules
        if not known or tensor.dtype not in _FLOAT_DTYPES or not tensor.elements:
            raise InvalidInputError("ADAPTER_TENSORS", f"tensor {tensor.name[:120]!r} does not fit the configuration")
        blocks.setdefault(number, {})[weight] = tensor.shape
        stems.add(stem)
        found.add(module)
    if found != set(modules) or len(stems) != 1 or set(blocks) != {str(n) for n in range(len(blocks))}:
        raise InvalidInputError("ADAPTER_TENSORS", "every module of modules_to_save needs its weights, of all blocks")
    for number, block in blocks.items():
        if block != blocks["0"]:
            raise InvalidInputError("ADAPTER_TENSORS", f"block {number} holds other tensors or shapes than block 0")


def _place_in_block(name: str) -> tuple[str, str, str]:
    """Takes ``model.layers.3.mlp.up_proj.weight`` apart: what comes before the number, the number, and the rest.

    Three empty texts for what is no weight or bias of a module in a block.
    """
    parts = name.split(".")
    at = parts.index("layers") + 1 if "layers" in parts else 0
    if not at or len(parts) < at + 3 or not parts[at].isdecimal() or parts[-1] not in ("weight", "bias"):
        return "", "", ""
    return ".".join(parts[:at]), parts[at], ".".join(parts[at + 1 :])


def _block_weights(files: Path) -> list[TensorInfo]:
    """Every weight of the blocks in a base model's safetensors files, by their headers alone."""
    tensors = [t for path in sorted(files.glob("*.safetensors")) for t in read_header(path).tensors]
    return [t for t in tensors if _place_in_block(t.name)[2]]


def _check_tensors(header: SafetensorsHeader, rank: int, targets: Sequence[str]) -> None:
    """Demands A of shape (rank, in) and B of shape (out, rank) in pairs, for adapted modules only."""
    pairs: dict[str, set[str]] = {}
    for tensor in header.tensors:
        stem, side = tensor.name.removesuffix(".weight").rpartition(".")[::2]
        known = tensor.name.endswith(".weight") and side in ("lora_A", "lora_B") and stem.rpartition(".")[2] in targets
        rank_axis = 0 if side == "lora_A" else -1
        if not known or tensor.dtype not in _FLOAT_DTYPES or len(tensor.shape) != 2 or tensor.shape[rank_axis] != rank:
            raise InvalidInputError("ADAPTER_TENSORS", f"tensor {tensor.name[:120]!r} does not fit the configuration")
        pairs.setdefault(stem, set()).add(side)
    if not pairs or any(len(sides) != 2 for sides in pairs.values()):
        raise InvalidInputError("ADAPTER_TENSORS", "every adapted module needs both lora_A and lora_B")


def _refuse_config(key: str, why: str) -> NoReturn:
    raise InvalidInputError("ADAPTER_CONFIG", f"{ADAPTER_CONFIG}: {key} {why}")


def _read_json(path: Path, missing: str, malformed: str) -> dict[str, Any]:
    try:
        facts = path.lstat()
    except OSError as error:
        raise InvalidInputError(missing, f"{path.name} is missing") from error
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > _MAX_JSON:
        raise InvalidInputError(malformed, f"{path.name} is not a plain file of at most {_MAX_JSON} bytes")
    try:
        value = json.loads(path.read_bytes().decode("utf-8", "strict"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(malformed, f"{path.name} is not JSON: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise InvalidInputError(malformed, f"{path.name} must hold an object")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("duplicate key")
    return dict(pairs)


def _text(value: Mapping[str, Any], key: str) -> str:
    if not isinstance(value[key], str) or not value[key]:
        raise ValueError(f"{key} must be text")
    return str(value[key])


def _texts(value: object, name: str) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError(f"{name} must hold text by name")
    return value


def _count(value: Mapping[str, Any], key: str) -> int:
    if not isinstance(value[key], int) or isinstance(value[key], bool) or value[key] < 0:
        raise ValueError(f"{key} must be a whole number")
    return int(value[key])
