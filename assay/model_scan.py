"""What a base model from elsewhere may consist of, looked through before anything loads it. No torch, no pickle.

Only plain files by known names get in: safetensors with a bounded, checked header, JSON, and text. A configuration that
names code (``auto_map``) is refused; every other file is left out and named in the report. Finite weights are checked
as well, since a NaN in a base model would be found only after a run was paid for.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.digests import sha256_file
from assay.errors import AssayError, IntegrityError, InvalidInputError, PreconditionError
from assay.modelfiles import BaseManifest, tensors_are_finite
from assay.safetensors_header import SafetensorsHeader, read_header

INDEX = "model.safetensors.index.json"
SCAN_FILE = "scan.json"
WANTED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "model.safetensors",
    "model-*.safetensors",
    INDEX,
)
_NAMES = re.compile("|".join(re.escape(name).replace(r"\*", r"\d{5}-of-\d{5}") for name in WANTED))
_NEEDED = ("config.json", "tokenizer.json")
_MAX_TEXT = 64 << 20
_CODE_KEYS = ("auto_map", "custom_pipelines")


@dataclass(frozen=True)
class Scan:
    """What was found.

    Attributes:
        files: names that get in, sorted.
        left_out: names that do not, sorted; none of them was opened.
        parameters: elements of all tensors, each tensor once.
        report: the same with digests and sizes, for ``scan.json`` beside the manifest.
    """

    files: tuple[str, ...]
    left_out: tuple[str, ...]
    parameters: int
    report: dict[str, Any]


def scan(folder: Path, *, left_out: Sequence[str] = ()) -> Scan:
    """Looks through a folder that holds a base model.

    Args:
        folder: what was fetched or handed over; folders inside are not entered.
        left_out: names that whoever fetched it did not even fetch.

    Raises:
        InvalidInputError: ``BASE_MODEL_FILES`` when configuration, tokenizer or safetensors weights are missing or the
            index does not name exactly their tensors; ``BASE_MODEL_REMOTE_CODE``; ``BASE_MODEL_CONFIG``;
            ``BASE_MODEL_NOT_FINITE``; or a ``SAFETENSORS_`` reason.
        IntegrityError: ``FOLDER_NOT_PLAIN`` for a link, device or pipe.
    """
    names = sorted(path.name for path in folder.iterdir())
    files = [name for name in names if _NAMES.fullmatch(name)]
    for name in files:
        if not stat.S_ISREG((folder / name).lstat().st_mode):
            raise IntegrityError("FOLDER_NOT_PLAIN", f"{name} is not a plain file")
    for name in _NEEDED:
        if name not in files:
            raise InvalidInputError("BASE_MODEL_FILES", f"{name} is missing")
    for name in files:
        if name.endswith(".json"):
            _check_json(folder / name)
    headers = {name: read_header(folder / name) for name in files if name.endswith(".safetensors")}
    parameters = _check_weights(folder, headers)
    outside = tuple(sorted({*left_out, *(name for name in names if name not in files)}))
    rows = [{"path": n, "sha256": sha256_file(folder / n), "size": (folder / n).stat().st_size} for n in files]
    report = {
        "files": rows,
        "left_out": list(outside),
        "tensors": sum(len(h.tensors) for h in headers.values()),
        "parameters": parameters,
        "checks": ["plain files", "known names", "no code named", "safetensors headers", "finite weights"],
    }
    return Scan(tuple(files), outside, parameters, report)


def read_report(folder: Path, manifest: BaseManifest) -> dict[str, Any]:
    """The report of the scan by which an installed model got in.

    Raises:
        PreconditionError: ``BASE_MODEL_NOT_SCANNED`` when the manifest names no report.
        IntegrityError: ``SCAN_REPORT`` when the report is missing, is not the one that the manifest names, or is of
            other files than the manifest's.
    """
    if not manifest.scan_sha256:
        raise PreconditionError(
            "BASE_MODEL_NOT_SCANNED",
            f"the manifest of {manifest.id} names no scan report",
            remedy="install it again; an import after its folder was removed",
        )
    path = folder / SCAN_FILE
    if not path.is_file() or sha256_file(path) != manifest.scan_sha256:
        raise IntegrityError("SCAN_REPORT", f"{SCAN_FILE} of {manifest.id} is not the one that its manifest names")
    try:
        report: dict[str, Any] = json.loads(path.read_bytes())
        files, _ = report["files"], list(report["left_out"])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError("SCAN_REPORT", f"{SCAN_FILE} of {manifest.id} is no report of a scan") from error
    if files != [{"path": f.path, "sha256": f.sha256, "size": f.size} for f in manifest.files]:
        raise IntegrityError("SCAN_REPORT", f"{SCAN_FILE} of {manifest.id} is of other files than its manifest")
    return report


def scan_words(folder: Path, manifest: BaseManifest) -> str:
    """``clean`` where the report is the manifest's, with what was left out; else the reason why it does not count."""
    try:
        left_out = read_report(folder, manifest)["left_out"]
    except AssayError as error:
        return error.reason
    return f"clean, {len(left_out)} files left out" if left_out else "clean"


def _check_json(path: Path) -> None:
    if path.stat().st_size > _MAX_TEXT:
        raise InvalidInputError("BASE_MODEL_CONFIG", f"{path.name} is larger than {_MAX_TEXT} bytes")
    try:
        value = json.loads(path.read_bytes().decode("utf-8", "strict"))
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("BASE_MODEL_CONFIG", f"{path.name} is not JSON") from error
    if not isinstance(value, dict):
        raise InvalidInputError("BASE_MODEL_CONFIG", f"{path.name} must hold an object")
    named = [key for key in _CODE_KEYS if value.get(key)]
    if named:
        raise InvalidInputError(
            "BASE_MODEL_REMOTE_CODE",
            f"{path.name} names code to run ({named[0]}); Assay runs no code that came with a model",
            remedy="choose a model whose architecture the transformers library has itself",
        )


def _check_weights(folder: Path, headers: dict[str, SafetensorsHeader]) -> int:
    if not headers:
        raise InvalidInputError(
            "BASE_MODEL_FILES",
            "there are no safetensors weights; pickled weights are never opened",
            remedy="choose a revision with model.safetensors",
        )
    where = {tensor.name: name for name, header in headers.items() for tensor in header.tensors}
    count = sum(len(header.tensors) for header in headers.values())
    if len(where) != count:
        raise InvalidInputError("BASE_MODEL_FILES", "a tensor lies in two weight files")
    if set(headers) != {"model.safetensors"}:
        index = json.loads((folder / INDEX).read_text()) if (folder / INDEX).exists() else {}
        if index.get("weight_map") != where:
            raise InvalidInputError(
                "BASE_MODEL_FILES", f"{INDEX} does not name exactly the tensors of the weight files"
            )
    for name, header in headers.items():
        if not tensors_are_finite(folder / name, header):
            raise InvalidInputError("BASE_MODEL_NOT_FINITE", f"{name} holds a number that is not finite")
    return sum(tensor.elements for header in headers.values() for tensor in header.tensors)
