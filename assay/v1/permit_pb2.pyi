import datetime

from assay.v1 import approval_pb2 as _approval_pb2
from assay.v1 import audit_pb2 as _audit_pb2
from assay.v1._vendor.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Permit(_message.Message):
    __slots__ = ("name", "model", "adapter_sha256", "base_sha256", "purpose", "environment", "not_before", "not_after", "evidence_root", "statement", "signature", "approvals", "proofs", "checkpoint", "revoke_time", "consistency")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SHA256_FIELD_NUMBER: _ClassVar[int]
    BASE_SHA256_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_ROOT_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    PROOFS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    REVOKE_TIME_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: str
    adapter_sha256: str
    base_sha256: str
    purpose: str
    environment: str
    not_before: _timestamp_pb2.Timestamp
    not_after: _timestamp_pb2.Timestamp
    evidence_root: str
    statement: bytes
    signature: bytes
    approvals: _containers.RepeatedCompositeFieldContainer[_approval_pb2.Approval]
    proofs: _containers.RepeatedCompositeFieldContainer[_audit_pb2.RecordProof]
    checkpoint: bytes
    revoke_time: _timestamp_pb2.Timestamp
    consistency: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., adapter_sha256: _Optional[str] = ..., base_sha256: _Optional[str] = ..., purpose: _Optional[str] = ..., environment: _Optional[str] = ..., not_before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., not_after: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., evidence_root: _Optional[str] = ..., statement: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., approvals: _Optional[_Iterable[_Union[_approval_pb2.Approval, _Mapping]]] = ..., proofs: _Optional[_Iterable[_Union[_audit_pb2.RecordProof, _Mapping]]] = ..., checkpoint: _Optional[bytes] = ..., revoke_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., consistency: _Optional[_Iterable[bytes]] = ...) -> None: ...

class IssuePermitRequest(_message.Message):
    __slots__ = ("model", "purpose", "environment", "valid_seconds", "request_id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    VALID_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    purpose: str
    environment: str
    valid_seconds: int
    request_id: str
    def __init__(self, model: _Optional[str] = ..., purpose: _Optional[str] = ..., environment: _Optional[str] = ..., valid_seconds: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class IssuePermitResponse(_message.Message):
    __slots__ = ("permit",)
    PERMIT_FIELD_NUMBER: _ClassVar[int]
    permit: Permit
    def __init__(self, permit: _Optional[_Union[Permit, _Mapping]] = ...) -> None: ...

class CheckPermitRequest(_message.Message):
    __slots__ = ("name", "adapter_sha256", "base_sha256", "purpose", "environment", "place")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SHA256_FIELD_NUMBER: _ClassVar[int]
    BASE_SHA256_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    name: str
    adapter_sha256: str
    base_sha256: str
    purpose: str
    environment: str
    place: str
    def __init__(self, name: _Optional[str] = ..., adapter_sha256: _Optional[str] = ..., base_sha256: _Optional[str] = ..., purpose: _Optional[str] = ..., environment: _Optional[str] = ..., place: _Optional[str] = ...) -> None: ...

class CheckPermitResponse(_message.Message):
    __slots__ = ("allowed", "reason", "permit")
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PERMIT_FIELD_NUMBER: _ClassVar[int]
    allowed: bool
    reason: str
    permit: Permit
    def __init__(self, allowed: _Optional[bool] = ..., reason: _Optional[str] = ..., permit: _Optional[_Union[Permit, _Mapping]] = ...) -> None: ...

class RevokePermitRequest(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RevokePermitResponse(_message.Message):
    __slots__ = ("permit",)
    PERMIT_FIELD_NUMBER: _ClassVar[int]
    permit: Permit
    def __init__(self, permit: _Optional[_Union[Permit, _Mapping]] = ...) -> None: ...
