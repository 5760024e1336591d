"""``assay model``: get, list, card, check-card, adapter."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.serialization import Encoding

from assay import digests
from assay.errors import AlreadyExistsError, IntegrityError
from assay.v1 import model_pb2
from audit.verify.archive import read_file
from audit.verify.replay import issued_under
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bytes
from gateway.cli.errors import exit_on_error
from gateway.cli.files import written
from gateway.cli.output import Output, OutputOption, emit, every_page, table
from gateway.cli.session import AddressOption, IdentityOption, Session, open_session

app = typer.Typer()
ModelArgument = Annotated[str, typer.Argument(help="units/UNIT/models/ID")]


@app.command()
def get(
    name: ModelArgument,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show a model's digests.

    Example: assay model get units/support/models/replies
    """
    with exit_on_error(), open_session(identity, address) as session:
        model = session.models.GetModel(model_pb2.GetModelRequest(name=name)).model
        lines = [model.name, f"  adapter {model.adapter_sha256}", f"  base {model.base_model} {model.base_sha256}"]
        emit(output, model, lines)


@app.command("list")
def list_(
    parent: Annotated[str, typer.Argument(help="The unit, such as units/support.")],
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List a unit's models.

    Example: assay model list units/support
    """
    with exit_on_error(), open_session(identity, address) as session:
        answer = every_page(session.models.ListModels, model_pb2.ListModelsRequest(parent=parent, page_size=200))
        rows = [(m.name, m.base_model, m.adapter_sha256[:16]) for m in answer.models]
        emit(output, answer, [table(("name", "base", "adapter"), rows)])


@app.command()
def card(
    name: ModelArgument,
    out: Annotated[Path, typer.Option(help="File to write; .json gives the JSON twin.")],
    trust: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Trust file, to check the PDF's signature by.")
    ] = None,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Download the model card, PDF or JSON; with a trust file, refuse a PDF whose signature does not hold.

    Example: assay model card units/support/models/replies --out card.pdf --trust trust.txt
    """
    with exit_on_error(), open_session(identity, address) as session:
        sha256, signature = download_card(session, name, out, trust)
        facts = {"path": str(out), "sha256": sha256, "signature": signature}
        emit(output, facts, [f"{out}  sha256 {sha256}", f"  signature: {signature}"])


@app.command("check-card")
def check_card(
    card_file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="PDF", help="An issued card.")],
    trust: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Trust file, from outside.")],
    evidence: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Evidence bundle with the card's record, once the key rotated."),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Check offline that a card is as it was issued: one signature, over the whole file, by the trust file's key.

    With an evidence bundle it is the key that the log says held when the card was issued; a bundle in which a word
    against that key may be left out is refused, and the answer says up to which record there is none.

    Example: assay model check-card card.pdf --trust trust.txt --evidence evidence.bundle.zip
    """
    with exit_on_error():
        signature = check_signature(card_file.read_bytes(), trust, evidence)
        emit(output, {"path": str(card_file), "signature": signature}, [f"{card_file}  signature: {signature}"])


@app.command()
def adapter(
    name: ModelArgument,
    out: Annotated[Path, typer.Option(help="New folder to write.")],
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Download an approved model's adapter and check its digest; its OpenSSF signature goes beside it, OUT.sig.

    The signature is by the gateway's PDF key, whose certificate is the line pdf of the trust file until that key is
    rotated. What may run is said by a permit, not by this signature.

    Example: assay model adapter units/support/models/replies --out ./adapter
    """
    with exit_on_error(), open_session(identity, address) as session:
        sha256 = download_adapter(session, name, out)
        answer = {"path": str(out), "sha256": sha256, "signature": str(signature_path(out))}
        emit(output, answer, [f"{out}  adapter {sha256}"])


def check_signature(card: bytes, trust: Path, evidence: Path | None = None) -> str:
    """Checks a PDF's signature by the trust file, or by the key that the log names; returns what may be said of it.

    Raises:
        InvalidInputError: ``TRUST_MALFORMED``, or what is wrong with the bundle.
        IntegrityError: ``CARD_SIGNATURE`` for a card that was changed, is unsigned, or is signed by another key;
            ``EVIDENCE`` for a bundle that does not hold, or leaves records out among which a key event may be;
            ``CARD_SUSPECT`` when a thief may have signed.
        NotFoundError: ``CARD_NOT_ISSUED`` when no record in the bundle issued it.
    """
    from audit.cards import seal

    trusted = TrustFile.load(trust)
    if evidence is None:
        seal.verify(card, trusted.pdf.public_bytes(Encoding.DER))
        return "holds over the whole file, by the trust file's certificate; what the log says of that key was not asked"
    bundle = read_file(evidence)
    report = verify_bytes(bundle, trusted, datetime.now(UTC))
    if report.verdict in ("invalid", "incomplete"):
        raise IntegrityError("EVIDENCE", f"the bundle is {report.verdict}", remedy="see `assay verify`")
    issued = issued_under(bundle, trusted, digests.sha256_bytes(card))
    index, seen = issued.index, issued.seen
    if issued.term.doubtful(index):
        raise IntegrityError("CARD_SUSPECT", f"the key that signed record {index}'s card was compromised later")
    if seen is None:
        raise IntegrityError(
            "EVIDENCE",
            "the bundle leaves out system records, and one may say that the card's key was compromised",
            remedy="ask for the bundle as `assay audit export` writes it, best of the whole log; where it left out "
            "refused calls of an earlier build every bundle has that gap: check by the trust file alone (leave out "
            "--evidence), and read key events with `assay audit records units/-`",
        )
    seal.verify(card, issued.term.public.material)
    known = f"nothing speaks against its key up to record {seen.index} of {seen.record.time:%Y-%m-%dT%H:%M:%SZ}"
    return (
        f"holds over the whole file, by the certificate that held at record {index}; {known}; "
        "what the log says later is not in this bundle"
    )


def download_card(session: Session, name: str, out: Path, trust: Path | None = None) -> tuple[str, str]:
    """Writes the card to ``out``: its JSON twin where that ends in ``.json``, else the PDF.

    Returns:
        Its SHA-256, checked against the gateway's, and what may be said of its signature.

    Raises:
        IntegrityError: ``CARD_MISMATCH``, or with a trust file what :func:`check_signature` says; nothing is written.
    """
    kind = model_pb2.CARD_FORMAT_JSON if out.suffix == ".json" else model_pb2.CARD_FORMAT_PDF
    signature = "not checked"
    with written(out) as stream:
        parts = list(session.models.DownloadCard(model_pb2.DownloadCardRequest(name=name, format=kind)))
        data = b"".join(part.chunk for part in parts)
        sha256 = digests.sha256_bytes(data)
        if sha256 != next((part.sha256 for part in reversed(parts) if part.sha256), ""):
            raise IntegrityError("CARD_MISMATCH", "the card was changed on its way", remedy="download it again")
        if trust is not None and kind == model_pb2.CARD_FORMAT_PDF:
            signature = check_signature(data, trust)
        stream.write(data)
    return sha256, signature


def download_adapter(session: Session, name: str, out: Path) -> str:
    """Writes the adapter's files into the new folder ``out``; returns the manifest digest after checking it.

    Raises:
        AlreadyExistsError: ``FOLDER_EXISTS``.
        IntegrityError: ``ADAPTER_MISMATCH``; there is no folder then, so it can be downloaded again.
    """
    if out.exists():
        raise AlreadyExistsError("FOLDER_EXISTS", f"{out} exists", remedy="choose a new folder")
    model = session.models.GetModel(model_pb2.GetModelRequest(name=name)).model
    known = {f.path for f in model.files}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.", dir=out.parent) as scratch:
        folder = Path(scratch) / out.name  # made as any folder is, where the one around it is for nobody else
        folder.mkdir()
        for part in session.models.DownloadAdapter(model_pb2.DownloadAdapterRequest(name=name)):
            if part.signature:
                signature_path(folder).write_bytes(part.signature)
                continue
            if part.path not in known or part.path != Path(part.path).name:
                raise IntegrityError("ADAPTER_MISMATCH", "the gateway sent a file that the model does not list")
            with (folder / part.path).open("ab") as stream:
                stream.write(part.chunk)
        sha256 = digests.folder_manifest(folder).sha256
        if sha256 != model.adapter_sha256:
            raise IntegrityError(
                "ADAPTER_MISMATCH", "the files are not the registered adapter", remedy="download again"
            )
        folder.rename(out)
        if signature_path(folder).exists():
            signature_path(folder).replace(signature_path(out))
    return sha256


def signature_path(folder: Path) -> Path:
    """Where an adapter folder's OpenSSF signature lies: beside it, since everything inside is signed."""
    return folder.with_name(folder.name + ".sig")
