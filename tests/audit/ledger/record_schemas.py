"""The published JSON schemas of docs/schemas, as a check of a record's exact bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from audit.ledger.records import TYPES

FOLDER = Path(__file__).parents[3] / "docs/schemas"
SCHEMAS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))
}
_REGISTRY: Registry = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values()
)
_VALIDATORS = {name: Draft202012Validator(schema, registry=_REGISTRY) for name, schema in SCHEMAS.items()}


def schema_faults(body: bytes) -> list[str]:
    """What the schemas of the record and of its type's predicate have against a record; nothing when it holds."""
    value = json.loads(body)
    rule = TYPES.get(value.get("type", ""))
    faults = [f"{e.json_path}: {e.message}" for e in _VALIDATORS["record.v1"].iter_errors(value)]
    if rule is None:
        return [*faults, "an unknown type"]
    statement = value.get("statement", {})
    kind, version = statement.get("predicateType", "").split("/")[-2:] if statement else ("", "")
    if kind != rule.predicate or f"{kind}.{version}" not in _VALIDATORS:
        return [*faults, "another predicate than the type's"]
    found = _VALIDATORS[f"{kind}.{version}"].iter_errors(statement["predicate"])
    return [*faults, *(f"{value['type']} {e.json_path}: {e.message}" for e in found)]
