import datetime

from assay.v1 import identity_pb2 as _identity_pb2
from assay.v1 import policy_pb2 as _policy_pb2
from assay.v1 import policy_input_pb2 as _policy_input_pb2
from assay.v1 import tuning_job_pb2 as _tuning_job_pb2
from assay.v1._vendor.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PendingApproval(_message.Message):
    __slots__ = ("tuning_job", "etag", "creator", "verdict", "card_sha256", "card_record_index", "evidence_root", "evidence_size", "adapter_sha256", "base_sha256", "purpose", "missing_roles", "approvals", "audit_profile", "use", "use_reading")
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    CREATOR_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    CARD_SHA256_FIELD_NUMBER: _ClassVar[int]
    CARD_RECORD_INDEX_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_ROOT_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_SIZE_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SHA256_FIELD_NUMBER: _ClassVar[int]
    BASE_SHA256_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    MISSING_ROLES_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_PROFILE_FIELD_NUMBER: _ClassVar[int]
    USE_FIELD_NUMBER: _ClassVar[int]
    USE_READING_FIELD_NUMBER: _ClassVar[int]
    tuning_job: str
    etag: str
    creator: str
    verdict: _policy_pb2.Verdict
    card_sha256: str
    card_record_index: int
    evidence_root: str
    evidence_size: int
    adapter_sha256: str
    base_sha256: str
    purpose: str
    missing_roles: _containers.RepeatedScalarFieldContainer[_identity_pb2.Role]
    approvals: _containers.RepeatedCompositeFieldContainer[Approval]
    audit_profile: str
    use: _policy_input_pb2.UseDeclaration
    use_reading: _policy_pb2.UseReading
    def __init__(self, tuning_job: _Optional[str] = ..., etag: _Optional[str] = ..., creator: _Optional[str] = ..., verdict: _Optional[_Union[_policy_pb2.Verdict, _Mapping]] = ..., card_sha256: _Optional[str] = ..., card_record_index: _Optional[int] = ..., evidence_root: _Optional[str] = ..., evidence_size: _Optional[int] = ..., adapter_sha256: _Optional[str] = ..., base_sha256: _Optional[str] = ..., purpose: _Optional[str] = ..., missing_roles: _Optional[_Iterable[_Union[_identity_pb2.Role, str]]] = ..., approvals: _Optional[_Iterable[_Union[Approval, _Mapping]]] = ..., audit_profile: _Optional[str] = ..., use: _Optional[_Union[_policy_input_pb2.UseDeclaration, _Mapping]] = ..., use_reading: _Optional[_Union[_policy_pb2.UseReading, _Mapping]] = ...) -> None: ...

class Approval(_message.Message):
    __slots__ = ("subject", "role", "granted", "reason", "time", "record_index", "envelope")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    RECORD_INDEX_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    subject: str
    role: _identity_pb2.Role
    granted: bool
    reason: str
    time: _timestamp_pb2.Timestamp
    record_index: int
    envelope: _identity_pb2.Envelope
    def __init__(self, subject: _Optional[str] = ..., role: _Optional[_Union[_identity_pb2.Role, str]] = ..., granted: _Optional[bool] = ..., reason: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., record_index: _Optional[int] = ..., envelope: _Optional[_Union[_identity_pb2.Envelope, _Mapping]] = ...) -> None: ...

class ListPendingApprovalsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPendingApprovalsResponse(_message.Message):
    __slots__ = ("pending_approvals", "next_page_token")
    PENDING_APPROVALS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    pending_approvals: _containers.RepeatedCompositeFieldContainer[PendingApproval]
    next_page_token: str
    def __init__(self, pending_approvals: _Optional[_Iterable[_Union[PendingApproval, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DecideApprovalRequest(_message.Message):
    __slots__ = ("name", "etag", "envelope", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    envelope: _identity_pb2.Envelope
    reason: _identity_pb2.Opening
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., envelope: _Optional[_Union[_identity_pb2.Envelope, _Mapping]] = ..., reason: _Optional[_Union[_identity_pb2.Opening, _Mapping]] = ...) -> None: ...

class DecideApprovalResponse(_message.Message):
    __slots__ = ("approval", "tuning_job")
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    approval: Approval
    tuning_job: _tuning_job_pb2.TuningJob
    def __init__(self, approval: _Optional[_Union[Approval, _Mapping]] = ..., tuning_job: _Optional[_Union[_tuning_job_pb2.TuningJob, _Mapping]] = ...) -> None: ...

class WaiveRulesRequest(_message.Message):
    __slots__ = ("name", "etag", "envelope", "reason", "compensating_control")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COMPENSATING_CONTROL_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    envelope: _identity_pb2.Envelope
    reason: _identity_pb2.Opening
    compensating_control: _identity_pb2.Opening
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., envelope: _Optional[_Union[_identity_pb2.Envelope, _Mapping]] = ..., reason: _Optional[_Union[_identity_pb2.Opening, _Mapping]] = ..., compensating_control: _Optional[_Union[_identity_pb2.Opening, _Mapping]] = ...) -> None: ...

class WaiveRulesResponse(_message.Message):
    __slots__ = ("tuning_job",)
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    tuning_job: _tuning_job_pb2.TuningJob
    def __init__(self, tuning_job: _Optional[_Union[_tuning_job_pb2.TuningJob, _Mapping]] = ...) -> None: ...

class RaiseBudgetRequest(_message.Message):
    __slots__ = ("name", "etag", "envelope", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    envelope: _identity_pb2.Envelope
    reason: _identity_pb2.Opening
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., envelope: _Optional[_Union[_identity_pb2.Envelope, _Mapping]] = ..., reason: _Optional[_Union[_identity_pb2.Opening, _Mapping]] = ...) -> None: ...

class RaiseBudgetResponse(_message.Message):
    __slots__ = ("tuning_job",)
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    tuning_job: _tuning_job_pb2.TuningJob
    def __init__(self, tuning_job: _Optional[_Union[_tuning_job_pb2.TuningJob, _Mapping]] = ...) -> None: ...

class DismissAppealRequest(_message.Message):
    __slots__ = ("name", "etag", "envelope", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    envelope: _identity_pb2.Envelope
    reason: _identity_pb2.Opening
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., envelope: _Optional[_Union[_identity_pb2.Envelope, _Mapping]] = ..., reason: _Optional[_Union[_identity_pb2.Opening, _Mapping]] = ...) -> None: ...

class DismissAppealResponse(_message.Message):
    __slots__ = ("tuning_job",)
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    tuning_job: _tuning_job_pb2.TuningJob
    def __init__(self, tuning_job: _Optional[_Union[_tuning_job_pb2.TuningJob, _Mapping]] = ...) -> None: ...

class RevokeApprovalRequest(_message.Message):
    __slots__ = ("name", "etag", "envelope")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    envelope: _identity_pb2.Envelope
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., envelope: _Optional[_Union[_identity_pb2.Envelope, _Mapping]] = ...) -> None: ...

class RevokeApprovalResponse(_message.Message):
    __slots__ = ("tuning_job",)
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    tuning_job: _tuning_job_pb2.TuningJob
    def __init__(self, tuning_job: _Optional[_Union[_tuning_job_pb2.TuningJob, _Mapping]] = ...) -> None: ...
