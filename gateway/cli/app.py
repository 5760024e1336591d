"""Assembles the commands."""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from gateway.cli import audit, erase, setup

NOUNS = {
    "dataset": "Datasets: upload, import, get, list, lineage.",
    "job": "Tuning jobs: create, get, list, watch, cancel, pause, resume, appeal, replay.",
    "policy": "Policies: list, explain, publish, precedents, evaluate, copy, lint, test, diff, replay.",
    "approval": "Approvals: list, decide, waive, dismiss, raise, revoke.",
    "permit": "Deployment permits: issue, check, revoke.",
    "base-model": "Base models that jobs may name: add, list.",
    "model": "Tuned models: get, list, card, check-card, adapter.",
    "audit": (
        "Evidence: records, checkpoint, inclusion, consistency, export, compare, timestamp, verify, kit-key, kit, "
        "reperform."
    ),
    "role": "Roles: whoami, list, grant, revoke.",
    "identity": "Certificates of services and people: list, enrol, renew.",
    "ledger": "The record database: migrate, fsck, backup, restore, freeze.",
    "key": "Keys: list, rotate, compromised, sign.",
    "witness": "A witness, which cosigns a log that has never gone back, yours and not the log's: init, serve.",
}
"""What ``--help`` says of each noun, with the commands of the module of its name, which is not imported for that."""


class Noun(TyperGroup):
    """A noun whose module is imported once one of its commands is asked for: some stand on the gateway's libraries."""

    def __init__(self, name: str, says: str) -> None:
        super().__init__(name=name, help=says, no_args_is_help=True)
        self.module = name.replace("-", "_")

    @cached_property
    def _loaded(self) -> TyperGroup:
        return typer.main.get_group(import_module(f"gateway.cli.{self.module}").app)

    @property
    def commands(self) -> Any:
        """Commands by name."""
        return self._loaded.commands

    @commands.setter
    def commands(self, given: Any) -> None:
        """The parent class sets an empty table; the module has the true one."""


class _Root(TyperGroup):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, says in NOUNS.items():
            self.add_command(Noun(name, says))


app = typer.Typer(
    cls=_Root,
    name="assay",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Governance-first compliance gateway for fine-tuning language models.",
    epilog=(
        "Exit codes: 0 done; 1 our fault, a job FAILED, or doctor or reperform found a fault; 2 usage; 3 invalid "
        "input; 4 not found; 5 not allowed; 6 refused by policy or state; 7 conflict; 8 a cap was reached; "
        "9 unreachable or too slow; 10 bytes or proofs do not agree. `assay verify`: 0 valid, 1 invalid, 2 usage, "
        "3 stale, 4 incomplete, 5 suspect."
    ),
)
app.command("init")(setup.init)
app.command("serve")(setup.serve)
app.command("doctor")(setup.doctor)
app.command("erase")(erase.erase)
app.command("verify")(audit.verify)


def main() -> None:
    """Entry point of ``assay``."""
    app()
