"""Who may call what: Cedar decides, deny by default.

The policies are ``packs/access/access.cedar``, checked against ``schema.cedarschema`` when loaded, so a misspelt
action or attribute is an error at start and never a rule that silently does not apply.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cedarpy

from assay.errors import InvalidInputError

ACCESS = Path(__file__).parent / "packs" / "access"
ALL_UNITS = "-"


@dataclass(frozen=True)
class Principal:
    """An authenticated caller.

    Attributes:
        subject: URI of its certificate.
        grants: pairs of role and unit that hold now; the role as enum name or as word, ``-`` for every unit.
    """

    subject: str
    grants: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Authorization:
    """The answer: whether, and the ids of the policies that decided; none when nothing permitted it."""

    allowed: bool
    reasons: tuple[str, ...]


class Authorizer(Protocol):
    """Decides whether a caller may do something in a unit."""

    def authorize(self, principal: Principal, action: str, unit: str) -> Authorization:
        """Answers; an unknown action is refused like any other that nothing permits.

        Args:
            principal: the caller.
            action: RPC method name, such as ``DecideApproval``.
            unit: name of the unit, or ``-`` for calls about none or all.
        """
        ...


class CedarAuthorizer:
    """Cedar through its Rust engine; policies and schema are parsed once."""

    def __init__(self, policies: cedarpy.PolicySet, schema: cedarpy.Schema) -> None:
        self._policies = policies
        self._schema = schema

    @classmethod
    def load(cls, folder: Path = ACCESS) -> CedarAuthorizer:
        """Reads and validates policies.

        Raises:
            InvalidInputError: ``ACCESS_POLICY`` when they are missing, do not parse or do not fit the schema.
        """
        try:
            text = (folder / "access.cedar").read_text("utf-8")
            schema_text = (folder / "schema.cedarschema").read_text("utf-8")
            answer = cedarpy.validate_policies(text, schema_text)
            if not answer.validation_passed:
                raise ValueError("; ".join(str(error) for error in answer.errors))
            policies, schema = cedarpy.PolicySet.from_str(text), cedarpy.Schema.from_str(schema_text)
        except (OSError, ValueError) as error:
            raise InvalidInputError("ACCESS_POLICY", f"{folder.name}: {error}") from error
        return cls(policies, schema)

    def authorize(self, principal: Principal, action: str, unit: str) -> Authorization:
        """Answers; see :meth:`Authorizer.authorize`. Whatever the engine cannot decide is refused."""
        caller, where = {"type": "Subject", "id": principal.subject}, {"type": "Unit", "id": unit}
        grants = sorted((_word(role), held) for role, held in principal.grants)
        entities: list[dict[Any, Any]] = [
            {
                "uid": caller,
                "attrs": {
                    "subject": principal.subject,
                    "grants": [{"role": role, "unit": held} for role, held in grants],
                    "roles": sorted({role for role, _ in grants}),
                },
                "parents": [],
            },
            {"uid": where, "attrs": {"name": unit}, "parents": []},
        ]
        request = {
            "principal": caller,
            "action": {"type": "Action", "id": action},
            "resource": where,
            "context": {},
        }
        result = cedarpy.is_authorized(request, self._policies, entities, self._schema)
        names = result.diagnostics.id_annotations_by_reason
        reasons = tuple(sorted(names.get(reason, reason) for reason in result.diagnostics.reasons))
        # A policy whose evaluation failed was left out of the answer; were it a forbid, that would be a hole.
        return Authorization(result.allowed and not result.diagnostics.errors, reasons)


def _word(role: str) -> str:
    return role.removeprefix("ROLE_").lower()
