from assay.v1 import identity_pb2 as _identity_pb2
from assay.v1._vendor.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Erasure(_message.Message):
    __slots__ = ("name", "reason_code", "order_index", "executed_index", "commitments", "payloads", "blobs", "affected_models", "affected_datasets")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_CODE_FIELD_NUMBER: _ClassVar[int]
    ORDER_INDEX_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_INDEX_FIELD_NUMBER: _ClassVar[int]
    COMMITMENTS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    AFFECTED_MODELS_FIELD_NUMBER: _ClassVar[int]
    AFFECTED_DATASETS_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason_code: str
    order_index: int
    executed_index: int
    commitments: _containers.RepeatedScalarFieldContainer[str]
    payloads: int
    blobs: int
    affected_models: _containers.RepeatedScalarFieldContainer[str]
    affected_datasets: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., reason_code: _Optional[str] = ..., order_index: _Optional[int] = ..., executed_index: _Optional[int] = ..., commitments: _Optional[_Iterable[str]] = ..., payloads: _Optional[int] = ..., blobs: _Optional[int] = ..., affected_models: _Optional[_Iterable[str]] = ..., affected_datasets: _Optional[_Iterable[str]] = ...) -> None: ...

class EraseResourceRequest(_message.Message):
    __slots__ = ("name", "envelope")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    envelope: _identity_pb2.Envelope
    def __init__(self, name: _Optional[str] = ..., envelope: _Optional[_Union[_identity_pb2.Envelope, _Mapping]] = ...) -> None: ...

class EraseResourceResponse(_message.Message):
    __slots__ = ("erasure",)
    ERASURE_FIELD_NUMBER: _ClassVar[int]
    erasure: Erasure
    def __init__(self, erasure: _Optional[_Union[Erasure, _Mapping]] = ...) -> None: ...
