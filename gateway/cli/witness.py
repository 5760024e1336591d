"""``assay witness``: another party's eye on a log."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from assay.identity import load_ed25519
from audit.ledger.cosignature import CosignatureVerifier
from audit.ledger.note import Verifier
from audit.ledger.witness.settings import WitnessSettings, create
from gateway.cli.errors import exit_on_error
from gateway.cli.output import Output, OutputOption, emit

app = typer.Typer()

FolderArgument = Annotated[Path, typer.Argument(help="Folder of the witness.")]


@app.command()
def init(
    folder: FolderArgument,
    name: Annotated[str, typer.Option(help="What its cosignatures carry, such as regulator.example/w1.")],
    log: Annotated[list[str], typer.Option(help="Verifier key of a log to follow; repeat for more.")],
    listen: Annotated[str, typer.Option(help="host:port.")] = "127.0.0.1:7448",
    host: Annotated[list[str] | None, typer.Option(help="Name or address by which logs reach it.")] = None,
    transport: Annotated[str, typer.Option(help="mtls, tls (any client) or http (behind a proxy).")] = "mtls",
    client: Annotated[list[str] | None, typer.Option(help="Subject that may ask; default: any under the root.")] = None,
    clients_root: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="PEM root of clients' certificates.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make a witness: a key, a server certificate, settings. Prints what the log's operator and verifiers need.

    Example: assay witness init ./w --name regulator.example/w1 --log "$(grep ^log trust.txt | cut -d' ' -f2)" \
--clients-root services-ca.crt --host witness.regulator.example --listen 0.0.0.0:7448
    """
    with exit_on_error():
        settings = create(
            folder,
            name=name,
            listen=listen,
            logs=[Verifier.parse(vkey) for vkey in log],
            transport=transport,
            clients=client or [],
            clients_root=clients_root.read_bytes() if clients_root else b"",
            hosts=host or [],
        )
        key = CosignatureVerifier.of(name, load_ed25519(settings.key).public_key()).vkey()
        scheme = "http" if transport == "http" else "https"
        url = f"{scheme}://{(host or ['127.0.0.1'])[0]}:{listen.rpartition(':')[2]}"
        root = "" if transport == "http" else str(folder / "witness-ca.crt")
        data = {"folder": str(folder), "vkey": key, "url": url, "root": root}
        emit(output, data, [
            f"witness in {folder}",
            f"for the log's witness-policy.txt:  witness NAME {key} {url}",
            f"for trust files:                   witness NAME {key}",
            *([f"for the log's witnesses-ca.crt:    {root}"] if root else []),
            f"next: assay witness serve {folder}",
        ])  # fmt: skip


@app.command()
def serve(folder: FolderArgument) -> None:
    """Run a witness; stop with Ctrl-C. The process holds no more than the witness needs.

    Example: assay witness serve ./w
    """
    with exit_on_error():
        WitnessSettings.load(folder)
    os.execv(sys.executable, [sys.executable, "-m", "audit.ledger.witness", str(folder)])  # noqa: S606
