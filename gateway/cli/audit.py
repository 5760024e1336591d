"""``assay audit``: records, checkpoint, proofs, export, compare, timestamp, verify; kits: :mod:`gateway.cli.kit`."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.errors import IntegrityError, InvalidInputError, UnavailableError
from assay.v1 import audit_pb2
from audit.ledger import evidence, fork, tree
from audit.ledger.fork import Evidence
from audit.ledger.note import MAX_NOTE, Checkpoint, SignedNote, read_hash
from audit.verify import EXIT_CODES, timestamp, verify_bundle
from audit.verify.archive import read_file
from audit.verify.checkpoint import open_trusted
from audit.verify.report import EXIT_USAGE
from audit.verify.trust import TrustFile
from gateway.cli import kit
from gateway.cli.errors import exit_on_error
from gateway.cli.files import written
from gateway.cli.output import Output, OutputOption, console, emit, more, safe, table
from gateway.cli.session import AddressOption, IdentityOption, Session, open_session

app = typer.Typer()
TrustOption = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Trust file, to check the checkpoint's signatures and quorum by."),
]


@app.command()
def records(
    parent: Annotated[str, typer.Argument(help="units/UNIT; auditors: units/-, units/system-refusals.")],
    job: Annotated[str, typer.Option(help="Only this job.")] = "",
    page_size: Annotated[int, typer.Option(help="At most this many.")] = 50,
    page_token: Annotated[str, typer.Option(help="Token of the page before.")] = "",
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List ledger records.

    Example: assay audit records units/support --job units/support/tuningJobs/replies
    """
    with exit_on_error(), open_session(identity, address) as session:
        request = audit_pb2.ListRecordsRequest(
            parent=parent, tuning_job=job, page_size=page_size, page_token=page_token
        )
        answer = session.audit.ListRecords(request)
        rows = [(r.index, r.unit, r.unit_sequence, r.type, json.loads(r.body)["ts"]) for r in answer.records]
        data = {
            "records": [json.loads(r.body) | {"index": r.index} for r in answer.records],
            "next_page_token": answer.next_page_token,
        }
        emit(output, data, [table(("index", "unit", "seq", "type", "time"), rows), *more(answer)])


@app.command()
def checkpoint(
    identity: IdentityOption = None, address: AddressOption = None, output: OutputOption = Output.TEXT
) -> None:
    """Print the newest signed checkpoint.

    Example: assay audit checkpoint
    """
    with exit_on_error(), open_session(identity, address) as session:
        note = session.audit.GetCheckpoint(audit_pb2.GetCheckpointRequest()).note.decode()
        # Printing ends the line; with a second newline a file of it would be no note.
        emit(output, {"checkpoint": note}, [note.removesuffix("\n")])


@app.command()
def inclusion(
    index: Annotated[int, typer.Argument(help="0-based index.")],
    tree_size: Annotated[int, typer.Option(help="0 means the newest checkpoint's.")] = 0,
    trust: TrustOption = None,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print a record, its inclusion proof and the checkpoint, and check what can be checked of them.

    Example: assay audit inclusion 12 --trust trust.txt
    """
    with exit_on_error(), open_session(identity, address) as session:
        request = audit_pb2.GetInclusionProofRequest(index=index, tree_size=tree_size)
        answer = session.audit.GetInclusionProof(request)
        size, hashes = answer.proof.tree_size, list(answer.proof.hashes)
        head, left = _head(answer.checkpoint, size, trust)
        if head is not None and answer.proof.body:
            tree.verify_inclusion(index, size, tree.leaf_hash(answer.proof.body), hashes, head.root)
        elif head is not None:
            left.append("the proof: the record's bytes do not come with it, since you may not list its unit's records")
        data = {"index": index, "tree_size": size, "body": answer.proof.body.decode()}
        _show(output, f"index {index} in a tree of {size}", data, hashes, answer.checkpoint, left)


@app.command()
def consistency(
    from_size: Annotated[int, typer.Argument(help="Older size.")],
    to_size: Annotated[int, typer.Option(help="0 means the newest checkpoint's.")] = 0,
    older: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Checkpoint of the older size, as you once got it.")
    ] = None,
    trust: TrustOption = None,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print a consistency proof and the newer checkpoint, and check them by the older checkpoint that you hold.

    Example: assay audit consistency 10 --older mine.note --trust trust.txt
    """
    with exit_on_error(), open_session(identity, address) as session:
        request = audit_pb2.GetConsistencyProofRequest(from_size=from_size, to_size=to_size)
        answer = session.audit.GetConsistencyProof(request)
        size, hashes = answer.to_size, list(answer.hashes)
        head, left = _head(answer.checkpoint, size, trust)
        if older is None:
            left.append(f"the proof: pass --older with a checkpoint of {from_size} that you hold")
        elif head is not None:
            known = _of_size(_held(older, trust), from_size)
            tree.verify_consistency(from_size, size, known.root, head.root, hashes)
        data = {"from_size": from_size, "to_size": size}
        _show(output, f"{from_size} is a prefix of {size}", data, hashes, answer.checkpoint, left)


def _head(note: bytes, size: int, trust: Path | None) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint that came with a proof, None where none did; and what of it is not checked.

    Raises:
        InvalidInputError: the note or the trust file is malformed.
        IntegrityError: ``CHECKPOINT_SIZE`` for one of another size, or what :func:`open_trusted` says.
    """
    if not note:
        return None, [f"the proof: no checkpoint of {size} was signed"]
    if trust is None:
        return _of_size(fork.head_of(SignedNote.parse(note).text), size), ["the checkpoint's signature: pass --trust"]
    head, left = open_trusted(note, TrustFile.load(trust), dt.datetime.now(dt.UTC))
    return _of_size(head, size), left


def _held(path: Path, trust: Path | None) -> Checkpoint:
    """The older checkpoint, as somebody once got it."""
    note = read_note(path)
    # No quorum is asked of it: the proof shows its tree to be a prefix of the newer one, which the quorum has seen.
    return fork.read_head(note, [TrustFile.load(trust).log]) if trust else fork.head_of(SignedNote.parse(note).text)


def _of_size(head: Checkpoint, size: int) -> Checkpoint:
    if head.size != size:
        raise IntegrityError("CHECKPOINT_SIZE", f"the checkpoint is of {head.size} records, not of {size}")
    return head


def _show(output: Output, claim: str, data: dict[str, Any], hashes: list[bytes], note: bytes, left: list[str]) -> None:
    """Prints a proof with what it is about; the claim is qualified where anything was left unchecked."""
    hexes, checkpoint = [value.hex() for value in hashes], note.decode()
    head = f"{claim}, if what is not checked holds" if left else claim
    lines = [head, *(f"  not checked: {what}" for what in left), *filter(None, [data.get("body")]), *hexes]
    emit(
        output,
        {**data, "hashes": hexes, "checkpoint": checkpoint, "not_checked": left},
        [*lines, checkpoint.removesuffix("\n")],
    )


@app.command()
def export(
    parent: Annotated[str, typer.Argument(help="units/UNIT; auditors: units/-, units/system-refusals.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    job: Annotated[list[str] | None, typer.Option(help="Only these jobs.")] = None,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Export an evidence bundle that can be verified offline.

    Example: assay audit export units/- --out evidence.bundle.zip
    """
    with exit_on_error(), open_session(identity, address) as session:
        sha256, absent = export_bundle(session, parent, job or [], out)
        lines = [f"{out}  sha256 {sha256}", *(f"without {name}: {reason}" for name, reason in sorted(absent.items()))]
        emit(output, {"path": str(out), "sha256": sha256, "absent_attachments": absent}, lines)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A checkpoint note.")],
    second: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Another, as somebody else got it.")],
    trust: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Trust file, for the log's key.")],
    proof: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Consistency proof, one base64 hash a line.")
    ] = None,
    evidence: Annotated[Path, typer.Option(help="Folder for evidence of a contradiction.")] = Path("evidence"),
    output: OutputOption = Output.TEXT,
) -> None:
    """Compare two checkpoints of one log, as two people got them. Exit 0 they agree, 10 the log told two stories.

    Example: assay audit compare mine.note theirs.note --trust trust.txt
    """
    with exit_on_error():
        log = TrustFile.load(trust).log
        notes = (read_note(first), read_note(second))
        hashes = None
        if proof is not None:
            lines = proof.read_text("ascii", "replace").splitlines()
            hashes = [read_hash(line, "PROOF_MALFORMED") for line in lines[:64]]
        verdict = fork.compare(*notes, [log], hashes)
        if verdict in (fork.SPLIT_VIEW, fork.INCONSISTENT):
            found = Evidence(verdict, log.name, dt.datetime.now(dt.UTC), notes, tuple(hashes or ()))
            path = found.write(evidence)
            remedy = f"keep {path}: it convinces everybody who knows the log's key"
            raise IntegrityError(verdict, "the log has signed two histories", remedy=remedy)
        words = {fork.SAME: "one size, one root", fork.PREFIX: "the smaller log is a prefix of the larger"}
        emit(output, {"verdict": verdict}, [f"{verdict}: {words[verdict]}"])


def read_note(path: Path) -> bytes:
    """Reads a file that may hold a note: no more of it than a note can have, without blank lines at its end."""
    with path.open("rb") as stream:
        return stream.read(MAX_NOTE + 1).rstrip(b"\n") + b"\n"


def export_bundle(session: Session, parent: str, jobs: list[str], out: Path) -> tuple[str, dict[str, str]]:
    """Streams the bundle to ``out``; returns its SHA-256, checked against the gateway's, and what it had to lack.

    Raises:
        IntegrityError: ``BUNDLE_MISMATCH``.
    """
    claimed = ""
    absent: dict[str, str] = {}
    digest = hashlib.sha256()
    with written(out) as stream:
        for part in session.audit.ExportBundle(audit_pb2.ExportBundleRequest(parent=parent, tuning_jobs=jobs)):
            stream.write(part.chunk)
            digest.update(part.chunk)
            claimed = part.sha256 or claimed
            absent |= part.absent_attachments
        if digest.hexdigest() != claimed:
            raise IntegrityError("BUNDLE_MISMATCH", "the bundle was changed on its way", remedy="export it again")
    return claimed, absent


@app.command("timestamp")
def add_timestamp(
    bundle: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Evidence bundle.")],
    tsa: Annotated[str, typer.Option(help="Address of an RFC 3161 time-stamping authority.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    name: Annotated[str, typer.Option(help="Name of the time stamp in the bundle.")] = "tsa",
    output: OutputOption = Output.TEXT,
) -> None:
    """Have an authority stamp a bundle's checkpoint, and write the bundle with the time stamp in it.

    Example: assay audit timestamp evidence.bundle.zip --tsa https://tsa.example/rfc3161 --out stamped.bundle.zip
    """
    with exit_on_error():
        data = read_file(bundle)
        with written(out) as stream:
            response = _ask(tsa, timestamp.request(evidence.checkpoint_of(data)))
            stream.write(timestamp.attach(data, name, response))
        time = timestamp.open_response(response).time.isoformat()
        emit(output, {"path": str(out), "time": time}, [f"{out}  stamped {time}; verify it with `tsa` in a trust file"])


def _ask(address: str, request: bytes) -> bytes:
    """Posts a time-stamp request; over plain HTTP as well, since the answer is signed."""
    if not address.startswith(("https://", "http://")):
        raise InvalidInputError("TSA_ADDRESS", "--tsa is not an http or https address")
    question = urllib.request.Request(address, request, {"Content-Type": "application/timestamp-query"})  # noqa: S310
    try:
        with urllib.request.urlopen(question, timeout=30) as answer:  # noqa: S310
            response: bytes = answer.read(evidence.MAX_TIMESTAMP + 1)
    except (OSError, ValueError) as error:
        raise UnavailableError(
            "TSA_UNREACHABLE", f"the authority gave no answer: {type(error).__name__}", remedy="check --tsa, try again"
        ) from error
    return response


def verify(
    bundle: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Evidence bundle.")],
    trust: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Trust file, from outside the bundle.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Verify an evidence bundle offline. Exit 0 valid, 1 invalid, 2 usage, 3 stale, 4 incomplete, 5 suspect.

    Example: assay verify evidence.bundle.zip --trust trust.txt
    """
    with exit_on_error(EXIT_USAGE):  # its 3 would say of evidence that it holds
        report = verify_bundle(bundle, TrustFile.load(trust), dt.datetime.now(dt.UTC))
        if output is Output.JSON:
            emit(output, report.as_dict())
        else:
            console.print(safe(report.text()))
    if EXIT_CODES[report.verdict]:
        raise typer.Exit(EXIT_CODES[report.verdict])


app.command("verify")(verify)
kit.add_to(app)
