"""What was reserved for jobs: privacy budget of datasets, money of units."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "budget_entry",
        sa.Column("job", sa.String(length=128), nullable=False),
        sa.Column("unit", sa.String(length=31), nullable=False),
        sa.Column("dataset", sa.String(length=128), nullable=False),
        sa.Column("epsilon_micros", sa.BigInteger(), nullable=False),
        sa.Column("usd_micros", sa.BigInteger(), nullable=False),
        sa.Column("reserved_us", sa.BigInteger(), nullable=False),
        sa.Column("record_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job"),
    )
    op.create_index("budget_entry_dataset", "budget_entry", ["dataset", "reserved_us"], unique=False)
    op.create_index("budget_entry_unit", "budget_entry", ["unit", "reserved_us"], unique=False)
