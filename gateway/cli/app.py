"""Assembles the commands."""

from __future__ import annotations

import typer

from gateway.cli import (
    approval,
    audit,
    dataset,
    erase,
    job,
    key,
    ledger,
    model,
    permit,
    policy,
    replay,
    role,
    setup,
    witness,
)

app = typer.Typer(
    name="assay",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Governance-first compliance gateway for fine-tuning language models.",
    epilog=(
        "Exit codes: 0 done; 1 our fault, or a job FAILED; 2 usage; 3 invalid input; 4 not found; 5 not allowed; "
        "6 refused by policy or state; 7 conflict; 8 a cap was reached; 9 unreachable or too slow; 10 bytes or proofs "
        "do not agree. `assay verify`: 0 valid, 1 invalid, 3 stale, 4 incomplete, 5 suspect."
    ),
)
for name, noun in (
    ("dataset", dataset), ("job", job), ("policy", policy), ("approval", approval),
    ("permit", permit), ("model", model), ("audit", audit), ("role", role), ("ledger", ledger),
    ("key", key), ("witness", witness),
):  # fmt: skip
    app.add_typer(noun.app, name=name)
replay.add_to(job.app)
app.command("init")(setup.init)
app.command("serve")(setup.serve)
app.command("doctor")(setup.doctor)
app.command("erase")(erase.erase)
app.command("verify")(audit.verify)


def main() -> None:
    """Entry point of ``assay``."""
    app()
