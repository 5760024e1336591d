"""The files that docs/datasheet.md shows are accepted by the upload and by intake policy, and it leaves nothing out."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from assay import contract
from assay.v1 import dataset_pb2, policy_input_pb2
from gateway.cli.dataset import read_datasheet
from gateway.cli.job import declare
from tests.gateway.conftest import House, messages

PAGE = Path(__file__).parents[2] / "docs" / "datasheet.md"
ENUMS = {
    "legal_basis": dataset_pb2.LegalBasis,
    "classification": dataset_pb2.Classification,
    "pii_action": dataset_pb2.PiiAction,
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def rows(first: str) -> list[str]:
    """First cells of the table whose heading begins so."""
    table = re.split(rf"^\| {first} \| .*\n\|---", PAGE.read_text(), maxsplit=1, flags=re.MULTILINE)[1]
    return re.findall(r"^\| `([\w-]+)` \|", table.split("\n\n", 1)[0], re.MULTILINE)


@pytest.mark.parametrize(
    ("block", "unit", "purpose", "form"),
    [
        (0, "support", "support-replies", dataset_pb2.DATASET_FORMAT_CHAT_JSONL),
        (1, "credit", "credit-decision", dataset_pb2.DATASET_FORMAT_DECISION_CSV),
    ],
)
async def test_a_datasheet_of_the_page_is_accepted_by_the_upload_and_by_intake(
    house: House, tmp_path: Path, block: int, unit: str, purpose: str, form: Any
) -> None:
    (tmp_path / "replies.yaml").write_text(blocks("yaml")[block])
    header = dataset_pb2.UploadDatasetHeader(
        parent=f"units/{unit}", dataset_id="rows", format=form, datasheet=read_datasheet(tmp_path / "replies.yaml"),
        request_id=str(uuid.uuid4()),
    )  # fmt: skip
    contract.check(dataset_pb2.UploadDatasetRequest(header=header))
    rita = await house.caller("rita")
    await house.app.datasets.upload_dataset(rita, messages(header, [b"rows"]))
    request = house.request(unit, purpose=purpose, validate_only=True)
    job = (await house.app.jobs.create_tuning_job(rita, request)).tuning_job
    assert job.decision.allowed, [o.rule_id for o in job.decision.outcomes]
    assert any(o.rule_id == "BASE-RETENTION" for o in job.decision.outcomes)


def test_every_field_and_value_of_a_datasheet_has_its_row() -> None:
    assert sorted(rows("Field")) == sorted(f.name for f in dataset_pb2.Datasheet.DESCRIPTOR.fields)
    for field, kind in ENUMS.items():
        prefix = f"{field.upper()}_"
        words = [name.removeprefix(prefix).lower().replace("_", "-") for name in kind.keys()]
        assert rows(f"`{field}`") == [word for word in words if word != "unspecified"]


def test_the_declaration_of_the_page_is_read_and_names_every_member(tmp_path: Path) -> None:
    (tmp_path / "use.json").write_text(blocks("json")[0])
    use = policy_input_pb2.UseDeclaration()
    declare(use, tmp_path / "use.json", ())
    contract.check(use)
    members = [f.name for f in use.DESCRIPTOR.fields]
    assert rows("Member") == members
    assert sorted(json_format.MessageToDict(use, preserving_proto_field_name=True)) == sorted(members)
