import datetime

from assay.v1 import tuning_job_pb2 as _tuning_job_pb2
from assay.v1._vendor.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LineageRelation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LINEAGE_RELATION_UNSPECIFIED: _ClassVar[LineageRelation]
    LINEAGE_RELATION_ASKED: _ClassVar[LineageRelation]
    LINEAGE_RELATION_HOLDS_SUBJECT: _ClassVar[LineageRelation]
    LINEAGE_RELATION_SAME_BYTES: _ClassVar[LineageRelation]
    LINEAGE_RELATION_SHARES_SUBJECTS: _ClassVar[LineageRelation]

class NotSearchedReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOT_SEARCHED_REASON_UNSPECIFIED: _ClassVar[NotSearchedReason]
    NOT_SEARCHED_REASON_NO_GROUP_FIELD: _ClassVar[NotSearchedReason]
    NOT_SEARCHED_REASON_ROWS_NOT_READ: _ClassVar[NotSearchedReason]
    NOT_SEARCHED_REASON_ERASED: _ClassVar[NotSearchedReason]
    NOT_SEARCHED_REASON_ROWS_NOT_READABLE: _ClassVar[NotSearchedReason]
LINEAGE_RELATION_UNSPECIFIED: LineageRelation
LINEAGE_RELATION_ASKED: LineageRelation
LINEAGE_RELATION_HOLDS_SUBJECT: LineageRelation
LINEAGE_RELATION_SAME_BYTES: LineageRelation
LINEAGE_RELATION_SHARES_SUBJECTS: LineageRelation
NOT_SEARCHED_REASON_UNSPECIFIED: NotSearchedReason
NOT_SEARCHED_REASON_NO_GROUP_FIELD: NotSearchedReason
NOT_SEARCHED_REASON_ROWS_NOT_READ: NotSearchedReason
NOT_SEARCHED_REASON_ERASED: NotSearchedReason
NOT_SEARCHED_REASON_ROWS_NOT_READABLE: NotSearchedReason

class LineageDataset(_message.Message):
    __slots__ = ("name", "relation", "sha256", "row_count", "rows", "shared_subjects", "erased_index")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RELATION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SHARED_SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    ERASED_INDEX_FIELD_NUMBER: _ClassVar[int]
    name: str
    relation: LineageRelation
    sha256: str
    row_count: int
    rows: _containers.RepeatedScalarFieldContainer[int]
    shared_subjects: int
    erased_index: int
    def __init__(self, name: _Optional[str] = ..., relation: _Optional[_Union[LineageRelation, str]] = ..., sha256: _Optional[str] = ..., row_count: _Optional[int] = ..., rows: _Optional[_Iterable[int]] = ..., shared_subjects: _Optional[int] = ..., erased_index: _Optional[int] = ...) -> None: ...

class LineageJob(_message.Message):
    __slots__ = ("name", "dataset", "state")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    dataset: str
    state: _tuning_job_pb2.TuningJob.State
    def __init__(self, name: _Optional[str] = ..., dataset: _Optional[str] = ..., state: _Optional[_Union[_tuning_job_pb2.TuningJob.State, str]] = ...) -> None: ...

class LineageModel(_message.Message):
    __slots__ = ("name", "job", "state", "adapter_sha256", "inherited_from")
    NAME_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SHA256_FIELD_NUMBER: _ClassVar[int]
    INHERITED_FROM_FIELD_NUMBER: _ClassVar[int]
    name: str
    job: str
    state: _tuning_job_pb2.TuningJob.State
    adapter_sha256: str
    inherited_from: str
    def __init__(self, name: _Optional[str] = ..., job: _Optional[str] = ..., state: _Optional[_Union[_tuning_job_pb2.TuningJob.State, str]] = ..., adapter_sha256: _Optional[str] = ..., inherited_from: _Optional[str] = ...) -> None: ...

class LineagePermit(_message.Message):
    __slots__ = ("name", "model", "environment", "purpose", "not_after")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: str
    environment: str
    purpose: str
    not_after: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., environment: _Optional[str] = ..., purpose: _Optional[str] = ..., not_after: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class NotSearched(_message.Message):
    __slots__ = ("dataset", "reason", "row_count")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    reason: NotSearchedReason
    row_count: int
    def __init__(self, dataset: _Optional[str] = ..., reason: _Optional[_Union[NotSearchedReason, str]] = ..., row_count: _Optional[int] = ...) -> None: ...

class Lineage(_message.Message):
    __slots__ = ("name", "datasets", "jobs", "models", "permits", "not_searched")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    PERMITS_FIELD_NUMBER: _ClassVar[int]
    NOT_SEARCHED_FIELD_NUMBER: _ClassVar[int]
    name: str
    datasets: _containers.RepeatedCompositeFieldContainer[LineageDataset]
    jobs: _containers.RepeatedCompositeFieldContainer[LineageJob]
    models: _containers.RepeatedCompositeFieldContainer[LineageModel]
    permits: _containers.RepeatedCompositeFieldContainer[LineagePermit]
    not_searched: _containers.RepeatedCompositeFieldContainer[NotSearched]
    def __init__(self, name: _Optional[str] = ..., datasets: _Optional[_Iterable[_Union[LineageDataset, _Mapping]]] = ..., jobs: _Optional[_Iterable[_Union[LineageJob, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[LineageModel, _Mapping]]] = ..., permits: _Optional[_Iterable[_Union[LineagePermit, _Mapping]]] = ..., not_searched: _Optional[_Iterable[_Union[NotSearched, _Mapping]]] = ...) -> None: ...

class GetLineageRequest(_message.Message):
    __slots__ = ("name", "subject")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    name: str
    subject: str
    def __init__(self, name: _Optional[str] = ..., subject: _Optional[str] = ...) -> None: ...

class GetLineageResponse(_message.Message):
    __slots__ = ("lineage",)
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    lineage: Lineage
    def __init__(self, lineage: _Optional[_Union[Lineage, _Mapping]] = ...) -> None: ...
