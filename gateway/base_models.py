"""Base models that this installation may tune: facts only, the weights lie with the workers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from assay.errors import InvalidInputError
from assay.v1 import policy_input_pb2


@dataclass(frozen=True)
class BaseModels:
    """Facts of base models by registry id."""

    by_id: Mapping[str, policy_input_pb2.BaseModelFacts]

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
        except (ValueError, TypeError, json_format.ParseError) as error:
            raise InvalidInputError("BASE_MODELS", f"{path.name} is not a list of base models") from error
        if any(not m.id or len(m.sha256) != 64 for m in found):
            raise InvalidInputError("BASE_MODELS", f"{path.name} names a base model without id or digest")
        return cls({m.id: m for m in found})

    def find(self, name: str) -> policy_input_pb2.BaseModelFacts | None:
        """A base model by its id or by a name that a hub has for it, such as ``Owner/SmolLM2-135M-Instruct``."""
        return self.by_id.get(name.rsplit("/", 1)[-1].lower())

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
