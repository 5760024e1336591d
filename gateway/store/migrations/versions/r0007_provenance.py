"""A dataset's provenance leaves its row, and what policy was asked: from copies the words were read when erased."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_DATASETS = sa.table("dataset", *map(sa.column, ("name", "datasheet", "provenance", "record_index")))
_FACTS = sa.table("job_fact", *map(sa.column, ("job", "key", "value")))
_RECORDS = sa.table("log_record", *map(sa.column, ("idx", "body")))


def upgrade() -> None:
    """Adds the column, refers to the words that lie sealed already, and masks them wherever else they stand."""
    op.add_column("dataset", sa.Column("provenance", sa.Text(), nullable=False, server_default=""))
    connection = op.get_bind()
    _refer(connection)
    _mask_questions(connection)


def _refer(connection: sa.Connection) -> None:
    """A record without a commitment is of a release that recorded the words themselves: they stay as they are."""
    of = _RECORDS.c.idx == _DATASETS.c.record_index
    query = sa.select(_DATASETS.c.name, _DATASETS.c.datasheet, _RECORDS.c.body).where(of)
    for name, datasheet, body in connection.execute(query).all():
        sheet = json.loads(datasheet)
        commitment = json.loads(bytes(body))["statement"]["predicate"].get("provenance_commitment")
        if commitment and _mask(sheet):
            values = {"datasheet": json.dumps(sheet, sort_keys=True), "provenance": f"words:{commitment}"}
            connection.execute(_DATASETS.update().where(_DATASETS.c.name == name).values(**values))


def _mask_questions(connection: sa.Connection) -> None:
    asked = _FACTS.c.key.in_(("question.intake", "question.release"))
    for job, key, value in connection.execute(sa.select(_FACTS).where(asked)).all():
        question = json.loads(value)
        if _mask(question.get("datasheet", {})):
            one = (_FACTS.c.job == job) & (_FACTS.c.key == key)
            connection.execute(_FACTS.update().where(one).values(value=json.dumps(question, sort_keys=True)))


def _mask(datasheet: dict[str, Any]) -> bool:
    """Puts as many stars in the place of the words; False where there are none."""
    words = datasheet.get("provenance", "")
    if words:
        datasheet["provenance"] = "*" * len(words)
    return bool(words)
