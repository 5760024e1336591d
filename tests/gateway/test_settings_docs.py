"""docs/settings.md has a row for every key of every settings file, with its default and what `assay init` writes."""

from __future__ import annotations

import re
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel

from assay import installation
from assay.worker import settings as worker
from audit.ledger.witness.settings import WitnessSettings
from audit.ledger.witness.settings import toml as witness_toml
from gateway import settings as gateway
from gateway.install import _worker_toml

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
UNITS = ("support", "credit", "clinical")
REFUSED = "refused"

PLAN = installation.Plan(installation.DEFAULT_PEOPLE, "oscar")
ASSAY = tomllib.loads(gateway.default_toml(units=UNITS, log_http="127.0.0.1:7447"))
WORKER = tomllib.loads(_worker_toml("train-worker", PLAN, "127.0.0.1:7444", '"train"', Path("/m"), 7443))
WITNESS = tomllib.loads(
    witness_toml(
        installation.witness_name(PLAN.trust_domain), "127.0.0.1:7448", ["log+0+0"], "mtls",
        [installation.service_subject(PLAN.trust_domain, "gateway")],
    )
)  # fmt: skip
TABLES: dict[str, tuple[Any, dict[str, Any]]] = {
    "## assay.toml": (gateway.Settings, ASSAY),
    "### [workers.train] and [workers.audit]": (gateway.WorkerSettings, ASSAY["workers"]["train"]),
    "### [limits]": (gateway.Limits, ASSAY["limits"]),
    "### [[stores]]": (gateway.StoreSettings, {}),
    "### [price_book]": (gateway.PriceBook, ASSAY["price_book"]),
    "## worker.toml": (worker.WorkerSettings, WORKER),
    "### [limits] of a worker": (worker.LimitSettings, {}),
    "### [ray]": (worker.RaySettings, {}),
    "## witness.toml": (WitnessSettings, WITNESS),
}
ELSEWHERE = {"directory", "folder"}
"""Where the file lies; no key of it."""


def tables(kind: Any) -> dict[str, list[Any]]:
    """Keys that hold tables, by their types, and of what kind these are."""

    def within(hint: Any) -> list[Any]:
        if isinstance(hint, type) and issubclass(hint, BaseModel):
            return [hint]
        return [model for part in get_args(hint) for model in within(part)]

    found = {name: within(hint) for name, hint in get_type_hints(kind).items()}
    return {name: models for name, models in found.items() if models}


def keys(kind: Any) -> dict[str, Any]:
    """Every key that holds no table of its own, with defaults as TOML has them; REFUSED for one that must be there."""
    if issubclass(kind, BaseModel):
        known = kind.model_fields.items()
        found = {name: REFUSED if f.is_required() else f.get_default(call_default_factory=True) for name, f in known}
    else:
        found = {f.name: REFUSED if f.default is MISSING else f.default for f in fields(kind)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in found.items()
        if name not in tables(kind).keys() | ELSEWHERE
    }


def rows(heading: str) -> dict[str, tuple[str, str, str]]:
    """The cells of the table below a heading, by key."""
    text = re.split(r"^#", PAGE.read_text().split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"^\| `(\w+)` \| (.*?) ?\| (.*?) ?\| (.*) \|$", text, re.MULTILINE)
    return {name: (left_out, written, meaning) for name, left_out, written, meaning in found}


def value(cell: str) -> Any:
    return tomllib.loads(f"x = {cell.strip('`')}")["x"]


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_has_its_row_with_its_default_and_no_other_row_is_there(heading: str) -> None:
    known, said = keys(TABLES[heading][0]), rows(heading)
    assert list(said) == list(known)
    for name, (left_out, _, meaning) in said.items():
        default = known[name]
        if default is None or default == REFUSED:
            assert left_out == ("none" if default is None else REFUSED), name
        else:
            assert value(left_out) == default, name
        assert len(meaning) > 15, name


@pytest.mark.parametrize("heading", TABLES)
def test_what_is_written_is_what_init_writes(heading: str) -> None:
    written = TABLES[heading][1]
    for name, (_, cell, _) in rows(heading).items():
        assert bool(cell) == (name in written), name
        if cell.startswith("`"):
            assert value(cell) == written[name], name


def test_every_table_of_the_files_has_its_heading() -> None:
    headings = {kind: heading for heading, (kind, _) in TABLES.items()}
    found = [(name, model) for kind in headings for name, models in tables(kind).items() for model in models]
    assert len(found) == len(headings) - 3  # as many are whole files
    for name, model in found:
        assert re.match(rf"### \[+{name}\b", headings.get(model, "")), name
