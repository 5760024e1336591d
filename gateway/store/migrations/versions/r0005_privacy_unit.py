"""What a reserved epsilon is of: a row, as all were before, or a user."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; what was reserved before was of rows."""
    op.add_column("budget_entry", sa.Column("privacy_unit", sa.String(length=16), nullable=False, server_default=""))
    table = sa.table("budget_entry", sa.column("epsilon_micros", sa.BigInteger), sa.column("privacy_unit", sa.String))
    op.execute(table.update().where(table.c.epsilon_micros > 0).values(privacy_unit="row"))
