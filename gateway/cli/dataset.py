"""``assay dataset``: upload, import, get, list, lineage."""

from __future__ import annotations

import hashlib
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from assay.errors import InvalidInputError
from assay.v1 import dataset_pb2, lineage_pb2, tuning_job_pb2
from gateway.cli.errors import exit_on_error
from gateway.cli.files import field_names, parse_fault
from gateway.cli.output import Output, OutputOption, emit, more, progress_console, state_name, table
from gateway.cli.session import AddressOption, IdentityOption, open_session
from policies import yamlsource

app = typer.Typer()
CHUNK_BYTES = 256 * 1024
FORMATS: dict[str, dataset_pb2.DatasetFormat] = {
    name.removeprefix("DATASET_FORMAT_").lower().replace("_", "-"): getattr(dataset_pb2, name)
    for name, value in dataset_pb2.DatasetFormat.items()
    if value
}
FormatOption = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(FORMATS)}; default: chat-jsonl of .jsonl, decision-csv of .csv, decision-parquet of .parquet."
    ),
]


@app.command()
def upload(
    parent: Annotated[str, typer.Argument(help="The unit, such as units/support.")],
    dataset_id: Annotated[str, typer.Argument(help="Last part of the resource name.")],
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, readable=True, help="JSONL, CSV or Parquet; may be gzip or zip."),
    ],
    datasheet: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="YAML or JSON.")],
    format: FormatOption = None,
    request_id: Annotated[str | None, typer.Option(help="UUID; repeat it to retry safely.")] = None,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Upload a file of rows with its datasheet.

    The datasheet is YAML or JSON: purposes, legal_basis, licence, classification, residency, retention_days,
    provenance, pii_action (report, redact, pseudonymise or refuse), group_field (which says whom a row is about) and,
    for decision tables, label_column, favourable_label, sensitive_attributes, hidden_columns. docs/datasheet.md
    describes each.

    Example: assay dataset upload units/support replies-2026 replies.jsonl --datasheet replies.yaml
    """
    with exit_on_error(), open_session(identity, address) as session:
        header = dataset_pb2.UploadDatasetHeader(
            parent=parent, dataset_id=dataset_id, format=_format(file, format),
            datasheet=read_datasheet(datasheet), request_id=request_id or str(uuid.uuid4()),
        )  # fmt: skip
        columns = (TextColumn("upload"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=progress_console, transient=True) as progress:
            answer = session.datasets.UploadDataset(upload_parts(header, file, progress))
        emit(output, answer.dataset, _describe(answer.dataset))


@app.command("import")
def import_(
    parent: Annotated[str, typer.Argument(help="The unit, such as units/support.")],
    dataset_id: Annotated[str, typer.Argument(help="Last part of the resource name.")],
    source: Annotated[str, typer.Argument(help="https address below a store that the operator allows.")],
    sha256: Annotated[str, typer.Option(help="Hex digest that the file must have.")],
    datasheet: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="YAML or JSON.")],
    format: FormatOption = None,
    request_id: Annotated[str | None, typer.Option(help="UUID; repeat it to retry safely.")] = None,
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Let the gateway fetch a file from a store that the operator allows.

    The operator lists stores and their units under [[stores]] in assay.toml. Redirects are not followed; the record of
    the dataset names the address.

    Example: assay dataset import units/support q3 https://store.bank.example/exports/q3.jsonl --sha256 9f86... \
    --datasheet q3.yaml
    """
    with exit_on_error(), open_session(identity, address) as session:
        header = dataset_pb2.UploadDatasetHeader(
            parent=parent, dataset_id=dataset_id, format=_format(Path(source), format),
            datasheet=read_datasheet(datasheet), request_id=request_id or str(uuid.uuid4()),
        )  # fmt: skip
        request = dataset_pb2.ImportDatasetRequest(header=header, source=source, sha256=sha256)
        columns = (TextColumn("fetch"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=progress_console, transient=True) as progress:
            task = progress.add_task("fetch", total=None)
            for event in session.datasets.ImportDataset(request):
                seen = event.progress
                progress.update(task, completed=seen.received_bytes, total=seen.total_bytes or None)
        emit(output, event.dataset, _describe(event.dataset))


def upload_parts(
    header: dataset_pb2.UploadDatasetHeader, file: Path, progress: Progress | None = None
) -> Iterator[dataset_pb2.UploadDatasetRequest]:
    """The messages of an upload: header, chunks, trailer with the digest of what was really read."""
    task = progress.add_task("upload", total=file.stat().st_size) if progress else None
    yield dataset_pb2.UploadDatasetRequest(header=header)
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            yield dataset_pb2.UploadDatasetRequest(chunk=chunk)
            if progress is not None and task is not None:
                progress.advance(task, len(chunk))
    yield dataset_pb2.UploadDatasetRequest(trailer=dataset_pb2.UploadDatasetTrailer(sha256=digest.hexdigest()))


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="units/UNIT/datasets/ID")],
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show one dataset's metadata.

    Example: assay dataset get units/support/datasets/replies-2026
    """
    with exit_on_error(), open_session(identity, address) as session:
        answer = session.datasets.GetDataset(dataset_pb2.GetDatasetRequest(name=name))
        emit(output, answer.dataset, _describe(answer.dataset))


@app.command("list")
def list_(
    parent: Annotated[str, typer.Argument(help="The unit, such as units/support.")],
    page_size: Annotated[int, typer.Option(help="At most this many.")] = 50,
    page_token: Annotated[str, typer.Option(help="Token of the page before.")] = "",
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List a unit's datasets.

    Example: assay dataset list units/support
    """
    with exit_on_error(), open_session(identity, address) as session:
        request = dataset_pb2.ListDatasetsRequest(parent=parent, page_size=page_size, page_token=page_token)
        answer = session.datasets.ListDatasets(request)
        rows = [
            (d.name, dataset_pb2.DatasetFormat.Name(d.format), d.size_bytes, d.sha256[:16], _until(d))
            for d in answer.datasets
        ]
        emit(output, answer, [table(("name", "format", "bytes", "sha256", "kept until"), rows), *more(answer)])


@app.command()
def lineage(
    name: Annotated[str, typer.Argument(help="units/UNIT/datasets/ID, units/UNIT/dataSubjects/HANDLE or units/UNIT.")],
    subject: Annotated[
        str,
        typer.Option(help="With units/UNIT: a value of the rows' group_field; - reads it from standard input."),
    ] = "",
    identity: IdentityOption = None,
    address: AddressOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Follow a data subject or a dataset to rows, datasets, jobs, models and permits.

    Example: assay dataset lineage units/support --subject - < customer.txt
    """
    with exit_on_error(), open_session(identity, address) as session:
        value = _standard_input() if subject == "-" else subject
        request = lineage_pb2.GetLineageRequest(name=name, subject=value)
        found = session.lineage.GetLineage(request).lineage
        emit(output, found, describe_lineage(found))


def _standard_input() -> str:
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError as error:
        raise InvalidInputError("SUBJECT", "standard input is not UTF-8") from error


def describe_lineage(found: lineage_pb2.Lineage) -> Iterator[Any]:
    """A lineage for people: a table a link of the chain, and what was not searched."""
    yield found.name
    yield table(
        ("dataset", "how", "rows", "which"),
        [(d.name, _relation(d), d.row_count, _some(d.rows, d.row_count)) for d in found.datasets],
    )
    yield table(("job", "state", "dataset"), [(j.name, _state(j.state), j.dataset) for j in found.jobs])
    yield table(("model", "state", "goes on from"), [(m.name, _state(m.state), m.inherited_from) for m in found.models])
    yield table(
        ("permit in force", "model", "environment", "until"),
        [(p.name, p.model, p.environment, p.not_after.ToJsonString()) for p in found.permits],
    )
    for left in found.not_searched:
        why = lineage_pb2.NotSearchedReason.Name(left.reason).removeprefix("NOT_SEARCHED_REASON_")
        rows = f"{left.row_count} rows of " if left.row_count else ""
        yield f"not searched: {rows}{left.dataset} ({why.lower().replace('_', ' ')})"


def _relation(dataset: lineage_pb2.LineageDataset) -> str:
    word = lineage_pb2.LineageRelation.Name(dataset.relation).removeprefix("LINEAGE_RELATION_").lower()
    shared = f", {dataset.shared_subjects} in common" if dataset.shared_subjects else ""
    erased = f", erased by record {dataset.erased_index}" if dataset.HasField("erased_index") else ""
    return word.replace("_", " ") + shared + erased


def _some(numbers: Sequence[int], count: int) -> str:
    return ", ".join(map(str, numbers[:20])) + (" …" if numbers and count > 20 else "")


def _state(state: tuning_job_pb2.TuningJob.State) -> str:
    return state_name(tuning_job_pb2.TuningJob.State.Name(state))


def read_datasheet(path: Path) -> dataset_pb2.Datasheet:
    """Reads a datasheet file; short enum names such as ``internal`` are accepted.

    Raises:
        InvalidInputError: ``BAD_DATASHEET`` naming the field.
    """
    try:
        data = yamlsource.read(path).data
    except InvalidInputError as error:
        raise InvalidInputError(
            "BAD_DATASHEET", error.message, remedy="mend the file; see docs/datasheet.md"
        ) from error
    if not isinstance(data, dict):
        raise InvalidInputError("BAD_DATASHEET", f"{path.name} must hold a mapping of datasheet fields")
    try:
        return json_format.ParseDict(_long_enums(data, path.name), dataset_pb2.Datasheet())
    except (json_format.ParseError, TypeError, RecursionError) as error:
        raise InvalidInputError(
            "BAD_DATASHEET",
            f"{path.name}: {parse_fault(error)}",
            remedy=f"its fields are {field_names(dataset_pb2.Datasheet())}; docs/datasheet.md says of each what may "
            "stand there",
        ) from error


def _long_enums(data: dict[str, Any], file: str) -> dict[str, Any]:
    out = dict(data)
    for field in dataset_pb2.Datasheet.DESCRIPTOR.fields:
        value = out.get(field.name)
        if field.enum_type is None or not isinstance(value, str):
            continue
        prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
        name = prefix + value.removeprefix(prefix).upper().replace("-", "_").replace(" ", "_")
        if name not in field.enum_type.values_by_name:
            words = (v.name.removeprefix(prefix).lower().replace("_", "-") for v in field.enum_type.values[1:])
            raise InvalidInputError(
                "BAD_DATASHEET", f"{file}: {field.name}: {value[:60]!r} is none", remedy=f"one of: {', '.join(words)}"
            )
        out[field.name] = name
    return out


def _format(file: Path, given: str | None) -> dataset_pb2.DatasetFormat:
    suffixes = [s for s in file.suffixes if s.lower() not in (".gz", ".zip")]
    by_suffix = {".jsonl": "chat-jsonl", ".csv": "decision-csv", ".parquet": "decision-parquet"}
    word = given or by_suffix.get(suffixes[-1].lower() if suffixes else "", "")
    if word not in FORMATS:
        raise InvalidInputError(
            "UNKNOWN_FORMAT",
            f"cannot tell the format of {file.name}",
            remedy=f"pass --format with one of {', '.join(FORMATS)}",
        )
    return FORMATS[word]


def _describe(dataset: dataset_pb2.Dataset) -> list[str]:
    return [
        f"{dataset.name}",
        f"  {dataset_pb2.DatasetFormat.Name(dataset.format)}, {dataset.size_bytes} bytes, sha256 {dataset.sha256}",
        f"  recorded at ledger index {dataset.record_index}",
        f"  kept until: {_until(dataset)}",
    ]


def _until(dataset: dataset_pb2.Dataset) -> str:
    if dataset.HasField("erased_index"):
        if dataset.erased_index == dataset.record_index:
            return "erased as its datasheet orders, without a record: the log had ended"
        return f"erased by record {dataset.erased_index}"
    if dataset.HasField("retention_end_time"):
        return str(dataset.retention_end_time.ToJsonString())
    return "no end: retention_days is 0"
