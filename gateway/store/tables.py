"""The gateway's rows. Times are whole microseconds since 1970 UTC; big messages are protobuf JSON.

They live beside the ledger's tables in one database, so that a row and the record of its change commit together.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, LargeBinary, Text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class Row(SQLModel, registry=registry()):
    """Base of every table here, with its own metadata: the ledger owns its tables itself."""


class DatasetRow(Row, table=True):
    """A stored dataset. The datasheet's provenance is masked in ``datasheet``; ``provenance`` refers to its words.

    ``retention_end_us`` is when the datasheet's days are over; 0 for no end.
    """

    __tablename__ = "dataset"
    __table_args__ = (
        Index("dataset_unit", "unit", "created_us", "name"),
        Index("dataset_retention", "retention_end_us"),
    )

    name: str = Field(primary_key=True, max_length=128)
    unit: str = Field(max_length=31)
    format: int
    datasheet: str = Field(sa_type=Text)
    provenance: str = Field(default="", sa_type=Text)
    sha256: str = Field(max_length=64)
    size_bytes: int = Field(sa_type=BigInteger)
    creator: str = Field(max_length=256)
    created_us: int = Field(sa_type=BigInteger)
    record_index: int = Field(sa_type=BigInteger)
    retention_end_us: int = Field(default=0, sa_type=BigInteger)


class JobRow(Row, table=True):
    """A tuning job: its state, what is known of it, and the lease under which the pipeline works on it."""

    __tablename__ = "tuning_job"
    __table_args__ = (
        Index("tuning_job_claim", "needs_work", "next_us"),
        Index("tuning_job_unit", "unit", "created_us", "name", "state"),
        Index("tuning_job_created", "created_us", "name", "unit"),
        Index("tuning_job_state", "state", "approved_until_us"),
        Index("tuning_job_waiting", "state", "needs_work", "updated_us", "name"),
    )

    name: str = Field(primary_key=True, max_length=128)
    unit: str = Field(max_length=31)
    creator: str = Field(max_length=256)
    state: str = Field(max_length=32)
    version: int
    request: str = Field(sa_type=Text)
    trace_id: str = Field(default="", max_length=64)
    created_us: int = Field(sa_type=BigInteger)
    updated_us: int = Field(sa_type=BigInteger)
    reason: str = Field(default="", sa_type=Text)
    resume_to: str = Field(default="", max_length=32)
    data: str = Field(default="", sa_type=Text)
    decision: str = Field(default="", sa_type=Text)
    audit: str = Field(default="", sa_type=Text)
    verdict: str = Field(default="", sa_type=Text)
    model: str = Field(default="", max_length=128)
    stage_seconds: str = Field(default="{}", sa_type=Text)
    quote_usd_micros: int = Field(default=0, sa_type=BigInteger)
    cost_usd_micros: int = Field(default=0, sa_type=BigInteger)
    cap_usd_micros: int = Field(default=0, sa_type=BigInteger)
    approved_until_us: int = Field(default=0, sa_type=BigInteger)
    needs_work: bool = True
    next_us: int = Field(default=0, sa_type=BigInteger)
    lease_owner: str = Field(default="", max_length=64)
    lease_until_us: int = Field(default=0, sa_type=BigInteger)
    attempts: int = 0


class TransitionRow(Row, table=True):
    """One change of a job's state; ``version`` is the job's after it."""

    __tablename__ = "job_transition"

    job: str = Field(primary_key=True, max_length=128)
    version: int = Field(primary_key=True)
    event: str = Field(max_length=32)
    from_state: str = Field(max_length=32)
    to_state: str = Field(max_length=32)
    actor: str = Field(max_length=256)
    reason: str = Field(default="", sa_type=Text)
    time_us: int = Field(sa_type=BigInteger)
    record_index: int = Field(sa_type=BigInteger)


class FactRow(Row, table=True):
    """Something established about a job, once: a digest, an index, a signed envelope."""

    __tablename__ = "job_fact"

    job: str = Field(primary_key=True, max_length=128)
    key: str = Field(primary_key=True, max_length=64)
    value: str = Field(sa_type=Text)


class ModelRow(Row, table=True):
    """A tuned model; ``files`` is the JSON list of path, digest and size.

    ``card_version`` and ``issued_version`` are the job's versions that the newest rendered and issued cards show; 0
    for none.
    """

    __tablename__ = "model"
    __table_args__ = (Index("model_unit", "unit", "created_us", "name"),)

    name: str = Field(primary_key=True, max_length=128)
    unit: str = Field(max_length=31)
    job: str = Field(max_length=128)
    files: str = Field(sa_type=Text)
    adapter_sha256: str = Field(max_length=64)
    base_model: str = Field(max_length=128)
    base_sha256: str = Field(max_length=64)
    created_us: int = Field(sa_type=BigInteger)
    card_version: int = 0
    card_sha256: str = Field(default="", max_length=64)
    card_pdf_sha256: str = Field(default="", max_length=64)
    card_index: int = Field(default=-1, sa_type=BigInteger)
    issued_version: int = 0
    issued_pdf_sha256: str = Field(default="", max_length=64)
    issued_index: int = Field(default=-1, sa_type=BigInteger)


class ApprovalRow(Row, table=True):
    """One person's recorded decision on one rendered card."""

    __tablename__ = "approval"

    job: str = Field(primary_key=True, max_length=128)
    card_sha256: str = Field(primary_key=True, max_length=64)
    subject: str = Field(primary_key=True, max_length=256)
    keyid: str = Field(max_length=64)
    role: str = Field(max_length=32)
    granted: bool
    reason: str = Field(sa_type=Text)
    time_us: int = Field(sa_type=BigInteger)
    record_index: int = Field(sa_type=BigInteger)
    envelope: str = Field(sa_type=Text)


class PermitRow(Row, table=True):
    """A deployment permit as signed."""

    __tablename__ = "permit"

    name: str = Field(primary_key=True, max_length=128)
    unit: str = Field(index=True, max_length=31)
    model: str = Field(max_length=128)
    job: str = Field(index=True, max_length=128)
    adapter_sha256: str = Field(max_length=64)
    base_sha256: str = Field(max_length=64)
    purpose: str = Field(max_length=64)
    environment: str = Field(max_length=64)
    not_before_us: int = Field(sa_type=BigInteger)
    not_after_us: int = Field(sa_type=BigInteger)
    evidence_root: str = Field(max_length=64)
    statement: bytes = Field(sa_type=LargeBinary)
    signature: bytes = Field(sa_type=LargeBinary)
    record_index: int = Field(sa_type=BigInteger)
    revoked_us: int = Field(default=0, sa_type=BigInteger)
    revoke_reason: str = Field(default="", sa_type=Text)


class GrantRow(Row, table=True):
    """A role grant; ``revoked_us`` 0 means that it holds."""

    __tablename__ = "role_grant"
    __table_args__ = (Index("role_grant_granted", "granted_us", "grant_id"),)

    grant_id: str = Field(primary_key=True, max_length=64)
    subject: str = Field(index=True, max_length=256)
    role: str = Field(max_length=32)
    unit: str = Field(max_length=31)
    granted_us: int = Field(sa_type=BigInteger)
    revoked_us: int = Field(default=0, sa_type=BigInteger)
    record_index: int = Field(sa_type=BigInteger)


class ErasureRow(Row, table=True):
    """An erasure that was ordered; ``executed_index`` -1: no record says yet that it was done, -2: none ever will."""

    __tablename__ = "erasure"
    __table_args__ = (
        Index("erasure_unit", "unit", "order_index"),
        Index("erasure_owed", "executed_index", "order_index"),
    )

    resource: str = Field(primary_key=True, max_length=160)
    unit: str = Field(max_length=31)
    reason_code: str = Field(max_length=32)
    order_index: int = Field(sa_type=BigInteger)
    executed_index: int = Field(default=-1, sa_type=BigInteger)


class BudgetRow(Row, table=True):
    """What was reserved for a job when it was let train; never taken back.

    ``privacy_unit`` says what the epsilon is of, ``row`` or ``user``; empty without one.
    """

    __tablename__ = "budget_entry"
    __table_args__ = (
        Index("budget_entry_dataset", "dataset", "reserved_us"),
        Index("budget_entry_unit", "unit", "reserved_us"),
    )

    job: str = Field(primary_key=True, max_length=128)
    unit: str = Field(max_length=31)
    dataset: str = Field(max_length=128)
    epsilon_micros: int = Field(sa_type=BigInteger)
    privacy_unit: str = Field(default="", max_length=16)
    usd_micros: int = Field(sa_type=BigInteger)
    reserved_us: int = Field(sa_type=BigInteger)
    record_index: int = Field(sa_type=BigInteger)


class RequestRow(Row, table=True):
    """A request that was answered: the same subject, method and id again gets the same resource, or a refusal."""

    __tablename__ = "answered_request"

    subject: str = Field(primary_key=True, max_length=256)
    method: str = Field(primary_key=True, max_length=64)
    request_id: str = Field(primary_key=True, max_length=64)
    digest: str = Field(max_length=64)
    resource: str = Field(max_length=128)
