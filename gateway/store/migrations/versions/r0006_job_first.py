"""A job's records are found by the index of its first one: the ledger's tables of an earlier release."""

from __future__ import annotations

from alembic import op

from audit.ledger import upgrade as ledger

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Changes the ledger's tables where an earlier release made them; 0001 makes them as they are now."""
    ledger.upgrade_on(op.get_bind())
