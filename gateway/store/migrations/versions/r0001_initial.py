"""Everything at first: the gateway's rows, and the ledger's tables with their guards."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from audit.ledger import schema

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    schema.create_on(op.get_bind())
    op.create_table(
        "answered_request",
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.Column("method", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("resource", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("subject", "method", "request_id"),
    )
    op.create_table(
        "approval",
        sa.Column("job", sa.String(length=128), nullable=False),
        sa.Column("card_sha256", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.Column("keyid", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("granted", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("record_index", sa.BigInteger(), nullable=False),
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job", "card_sha256", "subject"),
    )
    op.create_table(
        "dataset",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("unit", sa.String(length=31), nullable=False),
        sa.Column("format", sa.Integer(), nullable=False),
        sa.Column("datasheet", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("creator", sa.String(length=256), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("record_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("ix_dataset_unit", "dataset", ["unit"], unique=False)
    op.create_table(
        "job_fact",
        sa.Column("job", sa.String(length=128), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job", "key"),
    )
    op.create_table(
        "job_transition",
        sa.Column("job", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(length=32), nullable=False),
        sa.Column("from_state", sa.String(length=32), nullable=False),
        sa.Column("to_state", sa.String(length=32), nullable=False),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("record_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job", "version"),
    )
    op.create_table(
        "model",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("unit", sa.String(length=31), nullable=False),
        sa.Column("job", sa.String(length=128), nullable=False),
        sa.Column("files", sa.Text(), nullable=False),
        sa.Column("adapter_sha256", sa.String(length=64), nullable=False),
        sa.Column("base_model", sa.String(length=128), nullable=False),
        sa.Column("base_sha256", sa.String(length=64), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("card_version", sa.Integer(), nullable=False),
        sa.Column("card_sha256", sa.String(length=64), nullable=False),
        sa.Column("card_pdf_sha256", sa.String(length=64), nullable=False),
        sa.Column("card_index", sa.BigInteger(), nullable=False),
        sa.Column("issued_version", sa.Integer(), nullable=False),
        sa.Column("issued_pdf_sha256", sa.String(length=64), nullable=False),
        sa.Column("issued_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("ix_model_unit", "model", ["unit"], unique=False)
    op.create_table(
        "permit",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("unit", sa.String(length=31), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("job", sa.String(length=128), nullable=False),
        sa.Column("adapter_sha256", sa.String(length=64), nullable=False),
        sa.Column("base_sha256", sa.String(length=64), nullable=False),
        sa.Column("purpose", sa.String(length=64), nullable=False),
        sa.Column("environment", sa.String(length=64), nullable=False),
        sa.Column("not_before_us", sa.BigInteger(), nullable=False),
        sa.Column("not_after_us", sa.BigInteger(), nullable=False),
        sa.Column("evidence_root", sa.String(length=64), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("record_index", sa.BigInteger(), nullable=False),
        sa.Column("revoked_us", sa.BigInteger(), nullable=False),
        sa.Column("revoke_reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("ix_permit_job", "permit", ["job"], unique=False)
    op.create_index("ix_permit_unit", "permit", ["unit"], unique=False)
    op.create_table(
        "role_grant",
        sa.Column("grant_id", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("unit", sa.String(length=31), nullable=False),
        sa.Column("granted_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked_us", sa.BigInteger(), nullable=False),
        sa.Column("record_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("grant_id"),
    )
    op.create_index("ix_role_grant_subject", "role_grant", ["subject"], unique=False)
    op.create_table(
        "tuning_job",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("unit", sa.String(length=31), nullable=False),
        sa.Column("creator", sa.String(length=256), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("trace_id", sa.String(length=64), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("resume_to", sa.String(length=32), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("audit", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("stage_seconds", sa.Text(), nullable=False),
        sa.Column("quote_usd_micros", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd_micros", sa.BigInteger(), nullable=False),
        sa.Column("approved_until_us", sa.BigInteger(), nullable=False),
        sa.Column("needs_work", sa.Boolean(), nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.String(length=64), nullable=False),
        sa.Column("lease_until_us", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("ix_tuning_job_unit", "tuning_job", ["unit"], unique=False)
    op.create_index("tuning_job_claim", "tuning_job", ["needs_work", "next_us"], unique=False)
