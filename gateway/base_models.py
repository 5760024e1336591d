"""Base models that this installation may tune: facts only, the weights lie with the workers.

The list, ``base_models.json``, is the manifests of the models without more; the gateway reads it when it starts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from assay import durable
from assay.errors import AlreadyExistsError, IntegrityError, InvalidInputError, NotFoundError
from assay.model_scan import read_report
from assay.modelfiles import BaseManifest, read_base_manifest, verify_base_files
from assay.v1 import policy_input_pb2

FILE = "base_models.json"
"""The list in the gateway's own folder."""
DIGEST = "base.sha256"
"""The fact of a job that holds the digest of its base model as it was asked for."""


@dataclass(frozen=True)
class BaseModels:
    """The base models of one installation.

    Attributes:
        by_id: their facts by registry id.
        by_repository: registry ids by the repository that the manifest says they are from, in lower case; more than one
            where two revisions of it are installed.
    """

    by_id: Mapping[str, policy_input_pb2.BaseModelFacts]
    by_repository: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> BaseModels:
        """Reads the list that the operator put beside the gateway's keys; a missing file is an empty list.

        Raises:
            InvalidInputError: ``BASE_MODELS``.
        """
        listed = read(path)
        by_repository: dict[str, list[str]] = {}
        for entry in listed:
            repository = entry.get("source", {}).get("repository", "").lower()
            by_repository.setdefault(repository, []).append(entry["id"])
        by_repository.pop("", None)
        return cls({m.id: m for m in map(_facts, listed)}, by_repository)

    def find(self, name: str) -> policy_input_pb2.BaseModelFacts | None:
        """A base model by its id or by the repository that it is from, such as ``Owner/SmolLM2-135M-Instruct``.

        Owner and name must both be those that the manifest records, in any case of letters: somebody else's model may
        have the same name.

        Raises:
            InvalidInputError: ``BASE_MODEL_AMBIGUOUS`` when several revisions of the repository are installed.
        """
        found = self.by_id.get(name.lower())
        if found is not None:
            return found
        ids = self.by_repository.get(name.lower(), ())
        if len(ids) > 1:
            raise InvalidInputError(
                "BASE_MODEL_AMBIGUOUS",
                f"{name} is installed here in {len(ids)} revisions",
                remedy=f"name one of: {', '.join(sorted(ids))}",
            )
        return self.by_id[ids[0]] if ids else None

    def get(self, model_id: str, sha256: str = "") -> policy_input_pb2.BaseModelFacts:
        """The facts of one base model.

        Args:
            model_id: its registry id.
            sha256: digest that the id stood for before; empty where nobody asked before.

        Raises:
            InvalidInputError: ``BASE_MODEL_UNKNOWN``.
            IntegrityError: ``BASE_MODEL_CHANGED`` when the id stands for other files by now.
        """
        found = self.by_id.get(model_id)
        if found is None:
            raise InvalidInputError(
                "BASE_MODEL_UNKNOWN",
                f"base model {model_id!r} is not installed here",
                remedy=f"choose one of: {', '.join(sorted(self.by_id)) or 'none is installed'}",
            )
        if sha256 and found.sha256 != sha256:
            raise IntegrityError(
                "BASE_MODEL_CHANGED",
                f"base model {model_id} has the digest {found.sha256} by now; asked for and decided on was {sha256}",
                remedy="ask for a new job once the list names the files that are meant",
            )
        return found


def read(path: Path) -> list[dict[str, Any]]:
    """The entries of the list; none where there is no file.

    Raises:
        InvalidInputError: ``BASE_MODELS``.
    """
    if not path.exists():
        return []
    try:
        listed: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
        found = [_facts(entry) for entry in listed]
        texts = [value for entry in listed for value in entry.get("source", {}).values()]
    except (ValueError, TypeError, AttributeError, json_format.ParseError) as error:
        raise InvalidInputError("BASE_MODELS", f"{path.name} is not a list of base models") from error
    if any(not m.id or len(m.sha256) != 64 for m in found) or not all(isinstance(t, str) for t in texts):
        raise InvalidInputError("BASE_MODELS", f"{path.name} names a base model without id, digest or proper source")
    return listed


def _facts(entry: dict[str, Any]) -> policy_input_pb2.BaseModelFacts:
    return json_format.ParseDict(entry, policy_input_pb2.BaseModelFacts(), ignore_unknown_fields=True)


def write(path: Path, manifests: Sequence[Mapping[str, Any]]) -> None:
    """Writes the list by one rename, so that a gateway that starts meanwhile reads the old one or the new one."""
    durable.write(path, f"{json.dumps(manifests, indent=1)}\n".encode())


def add(path: Path, folder: Path) -> tuple[BaseManifest, bool]:
    """Puts an installed model on the list, once its files and its scan report are what its manifest says.

    Of one that is on it already with the same digest, the entry is written anew: licence, source and report may have
    been mended.

    Args:
        path: of the list.
        folder: of the model, named as its registry id.

    Returns:
        Its manifest, and whether the list changed.

    Raises:
        NotFoundError: ``UNKNOWN_BASE_MODEL`` when there is no such folder.
        AlreadyExistsError: ``BASE_MODEL_EXISTS`` when the id stands for other files: jobs were decided on those.
        InvalidInputError: ``BASE_MODEL_ID`` when the manifest has another id, ``BASE_MODELS`` when the list is
            malformed, or what :func:`assay.modelfiles.read_base_manifest` refuses.
        AssayError: what :func:`assay.modelfiles.verify_base_files` and :func:`assay.model_scan.read_report` refuse.
    """
    if not folder.is_dir():
        raise NotFoundError(
            "UNKNOWN_BASE_MODEL",
            f"{folder.parent} holds no base model {folder.name!r}",
            remedy="python -m trainer.base_models list says what is installed, --help how another gets in",
        )
    manifest = read_base_manifest(folder)
    if manifest.id != folder.name:
        raise InvalidInputError("BASE_MODEL_ID", f"the manifest in {folder.name} is of {manifest.id!r}")
    verify_base_files(folder, manifest)
    read_report(folder, manifest)
    listed = read(path)
    old = {m["id"]: m for m in listed}.get(manifest.id)
    if old is not None and old["sha256"] != manifest.sha256:
        raise AlreadyExistsError(
            "BASE_MODEL_EXISTS",
            f"{manifest.id} is on the list with other files, sha256 {old['sha256']}",
            remedy="import the other files under an id of their own",
        )
    # As it is read back: lists for tuples.
    entry = json.loads(json.dumps(dataclasses.asdict(manifest)))
    if old != entry:
        write(path, [entry if m is old else m for m in listed] + ([] if old else [entry]))
    return manifest, old != entry
