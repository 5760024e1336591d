"""Base models that this installation may tune: facts only, the weights lie with the workers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from assay.errors import InvalidInputError
from assay.v1 import policy_input_pb2


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
        """Reads the list of manifests that the operator put beside the gateway's keys; a missing file is an empty list.

        Raises:
            InvalidInputError: ``BASE_MODELS``.
        """
        if not path.exists():
            return cls({})
        try:
            listed = json.loads(path.read_text("utf-8"))
            found = [
                json_format.ParseDict(m, policy_input_pb2.BaseModelFacts(), ignore_unknown_fields=True) for m in listed
            ]
            sources = {str(m["id"]): _repository(m) for m in listed}
        except (ValueError, TypeError, KeyError, AttributeError, json_format.ParseError) as error:
            raise InvalidInputError("BASE_MODELS", f"{path.name} is not a list of base models") from error
        if any(not m.id or len(m.sha256) != 64 for m in found):
            raise InvalidInputError("BASE_MODELS", f"{path.name} names a base model without id or digest")
        by_repository: dict[str, list[str]] = {}
        for model_id, repository in sources.items():
            by_repository.setdefault(repository, []).append(model_id)
        by_repository.pop("", None)
        return cls({m.id: m for m in found}, by_repository)

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

    def get(self, model_id: str) -> policy_input_pb2.BaseModelFacts:
        """The facts of one base model.

        Raises:
            InvalidInputError: ``BASE_MODEL_UNKNOWN``.
        """
        found = self.by_id.get(model_id)
        if found is None:
            raise InvalidInputError(
                "BASE_MODEL_UNKNOWN",
                f"base model {model_id!r} is not installed here",
                remedy=f"choose one of: {', '.join(sorted(self.by_id)) or 'none is installed'}",
            )
        return found


def _repository(manifest: Mapping[str, Any]) -> str:
    """Owner and name on a hub; empty where the manifest names none."""
    return str(manifest.get("source", {}).get("repository", "")).lower()
