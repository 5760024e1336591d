"""Payloads outside the log, and what was ordered to be erased."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "log_payload",
        sa.Column("commitment", sa.String(length=64), nullable=False),
        sa.Column("unit", sa.String(length=31), nullable=False),
        sa.Column("scope", sa.String(length=160), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("commitment"),
    )
    op.create_index("log_payload_scope", "log_payload", ["unit", "scope"], unique=False)
    op.create_table(
        "erasure",
        sa.Column("resource", sa.String(length=160), nullable=False),
        sa.Column("unit", sa.String(length=31), nullable=False),
        sa.Column("reason_code", sa.String(length=32), nullable=False),
        sa.Column("order_index", sa.BigInteger(), nullable=False),
        sa.Column("executed_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("resource"),
    )
