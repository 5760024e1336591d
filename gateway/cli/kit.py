"""``assay audit kit``, ``kit-key`` and ``reperform``: an audit done again by somebody else, number by number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from assay.errors import InvalidInputError
from assay.identity import raw_public, write_key
from assay.reperformance import FAIL, Line, counts
from gateway.cli.errors import exit_on_error
from gateway.cli.output import Output, OutputOption, emit


def kit_key(
    path: Annotated[Path, typer.Argument(help="File to write your private key to; it must not exist.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Make a key that kits can be sealed for; prints its public half, which you give to who makes the kit.

    Example: assay audit kit-key ./auditor.key
    """
    with exit_on_error():
        key = X25519PrivateKey.generate()
        if path.exists():
            raise InvalidInputError("KEY_EXISTS", f"{path.name} exists already", remedy="choose another name")
        write_key(path, key)
        public = raw_public(key).hex()
        emit(output, {"path": str(path), "public": public}, [f"public key for --recipient: {public}"])


def kit(
    directory: Annotated[Path, typer.Argument(help="Directory of the installation, with the audit worker's folder.")],
    job: Annotated[str, typer.Argument(help="units/UNIT/tuningJobs/ID of an audited job.")],
    recipient: Annotated[str, typer.Option(help="The auditor's public key, 64 hex digits.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Seal what a job's audit read and reported for one auditor. It holds personal rows. The gateway may run.

    Example: assay audit kit ./bank units/support/tuningJobs/clean --recipient 3f… --out clean.kit
    """
    # The gateway's own libraries, which other commands need not wait for.
    from gateway import kits
    from gateway.settings import Settings

    with exit_on_error():
        try:
            key = X25519PublicKey.from_public_bytes(bytes.fromhex(recipient))
        except ValueError as error:
            raise InvalidInputError(
                "RECIPIENT_KEY", "--recipient is not 64 hex digits", remedy="take what assay audit kit-key printed"
            ) from error
        sha256 = kits.make_kit(Settings.load(directory), job, key, out)
        emit(output, {"path": str(out), "sha256": sha256}, [f"{out}  sha256 {sha256}"])


def reperform(
    kit_file: Annotated[Path, typer.Argument(metavar="KIT", exists=True, dir_okay=False, help="The sealed kit.")],
    key: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Your private key, from kit-key.")],
    trust: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Trust file: who may have signed the kit.")],
    evidence: Annotated[
        Path | None,
        typer.Option("--bundle", exists=True, dir_okay=False, help="Evidence bundle that names it."),
    ] = None,
    models: Annotated[Path | None, typer.Option(help="Folder of installed base models.")] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Do an audit again from its kit: PASS, CAVEAT or FAIL for each number and decision. Exit 0 none failed, 1 one did.

    Example: assay audit reperform clean.kit --key auditor.key --trust trust.txt --bundle evidence.bundle.zip
    """
    # The policy engine, which other commands need not wait for.
    from gateway import rejudging

    with tempfile.TemporaryDirectory() as scratch, exit_on_error():
        numbers = _numbers([str(kit_file), "--key", str(key), "--trust", str(trust)], evidence, models, Path(scratch))
        decisions = rejudging.rejudge(Path(scratch))
    every = [*numbers, *decisions]
    found = counts(every)
    text = [f"{r.answer:<7}{r.name}  {r.recorded} | {r.again}  ({r.reason})" for r in every]
    text.append("  ".join(f"{answer} {count}" for answer, count in found.items()))
    said = {"numbers": [asdict(r) for r in numbers], "decisions": [asdict(r) for r in decisions]}
    emit(output, {"counts": found, **said}, text)
    if found[FAIL]:
        raise typer.Exit(1)


def _numbers(arguments: list[str], evidence: Path | None, models: Path | None, work: Path) -> list[Line]:
    """The audit done again in a process of its own, since the command line knows no model library."""
    command = [sys.executable, "-m", "audit.probes.reperform", *arguments, "--work", str(work), "--output", "json"]
    command += ["--bundle", str(evidence)] if evidence else []
    command += ["--models", str(models)] if models else []
    done = subprocess.run(command, check=False, env=dict(os.environ), stdout=subprocess.PIPE)
    if done.returncode not in (0, 1) or not done.stdout:
        raise typer.Exit(done.returncode or 1)
    return [Line(**line) for line in json.loads(done.stdout)["numbers"]]


def add_to(app: typer.Typer) -> None:
    """Puts the commands under ``assay audit``."""
    app.command("kit-key")(kit_key)
    app.command("kit")(kit)
    app.command("reperform")(reperform)
