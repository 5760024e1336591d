"""What grows is found by an index and in order: listings, housekeeping, past decisions, erasures."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_DAY_US = 24 * 3600 * 1_000_000
_DATASETS = sa.table("dataset", *map(sa.column, ("name", "datasheet", "created_us", "retention_end_us")))
_INDEXES = {
    "dataset_unit": ("dataset", ["unit", "created_us", "name"]),
    "dataset_retention": ("dataset", ["retention_end_us"]),
    "tuning_job_unit": ("tuning_job", ["unit", "created_us", "name", "state"]),
    "tuning_job_created": ("tuning_job", ["created_us", "name", "unit"]),
    "tuning_job_state": ("tuning_job", ["state", "approved_until_us"]),
    "tuning_job_waiting": ("tuning_job", ["state", "needs_work", "updated_us", "name"]),
    "model_unit": ("model", ["unit", "created_us", "name"]),
    "erasure_unit": ("erasure", ["unit", "order_index"]),
    "erasure_owed": ("erasure", ["executed_index", "order_index"]),
    "role_grant_granted": ("role_grant", ["granted_us", "grant_id"]),
}


def upgrade() -> None:
    """Adds the end of a dataset's retention, from its datasheet; longer indexes replace those of units."""
    op.add_column("dataset", sa.Column("retention_end_us", sa.BigInteger(), nullable=False, server_default="0"))
    connection = op.get_bind()
    kept = sa.select(_DATASETS.c.name, _DATASETS.c.datasheet, _DATASETS.c.created_us)
    for name, datasheet, created_us in connection.execute(kept).all():
        if days := json.loads(datasheet).get("retention_days", 0):
            end = created_us + days * _DAY_US
            connection.execute(_DATASETS.update().where(_DATASETS.c.name == name).values(retention_end_us=end))
    for table in ("dataset", "tuning_job", "model"):
        op.drop_index(f"ix_{table}_unit", table)
    for index, (table, columns) in _INDEXES.items():
        op.create_index(index, table, columns)
