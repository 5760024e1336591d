"""``assay base-model``: the base models that an installation may tune; for whoever runs it, on its own machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from assay.identity import Layout
from assay.modelfiles import source_line
from assay.pinned import assay_home
from assay.worker.settings import WorkerSettings
from gateway import base_models
from gateway.cli.errors import exit_on_error
from gateway.cli.output import Output, OutputOption, emit, table
from gateway.settings import Settings

app = typer.Typer()
DirectoryArgument = Annotated[Path, typer.Argument(help="Directory of the installation.")]


@app.command()
def add(
    directory: DirectoryArgument,
    name: Annotated[str, typer.Argument(help="Registry id, which is the name of the model's folder.")],
    models: Annotated[
        Path | None, typer.Option(help="Folder of base models; default: the train worker's models_dir.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Add an installed base model to those that the gateway knows, after checking its files. The gateway may run.

    Its manifest, every file and the scan report are hashed and compared. The gateway knows it from its next start on;
    jobs may name it once the officers' limits allow it.

    Example: assay base-model add ./bank mistral-7b

    Example: assay base-model add ./bank mistral-7b --models /srv/models --output json
    """
    with exit_on_error():
        settings = Settings.load(directory)
        folder = (models or _models(settings.layout)) / name
        manifest, changed = base_models.add(settings.folder / base_models.FILE, folder)
        data = {**dataclasses.asdict(manifest), "changed": changed}
        lines = [f"{manifest.id}  {manifest.licence}  sha256 {manifest.sha256}"]
        lines += [
            "next: start the gateway again, which reads the list then",
            f"and let the limits name it: base_models with {manifest.licence}, context_tokens; assay policy publish",
        ]
        emit(output, data, lines if changed else [*lines[:1], "it is on the list already; nothing was changed"])


@app.command("list")
def list_(directory: DirectoryArgument, output: OutputOption = Output.TEXT) -> None:
    """List the base models that the gateway knows from its next start on.

    Digests of manifest and scan report are shortened here, and whole in JSON.

    Example: assay base-model list ./bank
    """
    with exit_on_error():
        listed = base_models.read(Settings.load(directory).folder / base_models.FILE)
        rows = [
            (m["id"], m.get("licence"), f"{sum(f['size'] for f in m.get('files', ())) / 2**20:.0f}",
             source_line(m.get("source", {})), m.get("scan_sha256", "")[:12], m["sha256"][:12])
            for m in listed
        ]  # fmt: skip
        emit(output, listed, [table(("id", "licence", "MiB", "source", "scan", "sha256"), rows)])


def _models(layout: Layout) -> Path:
    """Where the train worker of this machine finds base models, or else where they are installed."""
    worker = layout.service("train-worker")
    if not (worker / "worker.toml").exists():
        return assay_home() / "models"
    return WorkerSettings.load(worker).models_dir
