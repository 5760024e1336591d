"""The money that a job may cost, which a signed raise changes; the request keeps what was asked for."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column and fills it from the requests."""
    op.add_column("tuning_job", sa.Column("cap_usd_micros", sa.BigInteger(), nullable=False, server_default="0"))
    table = sa.table(
        "tuning_job",
        sa.column("name", sa.String),
        sa.column("request", sa.Text),
        sa.column("cap_usd_micros", sa.BigInteger),
    )
    connection = op.get_bind()
    for name, request in connection.execute(sa.select(table.c.name, table.c.request)).all():
        cap = int(json.loads(request).get("budget", {}).get("max_usd_micros", 0))
        connection.execute(table.update().where(table.c.name == name).values(cap_usd_micros=cap))
