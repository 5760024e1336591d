import datetime

from assay.v1._vendor.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DatasetFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATASET_FORMAT_UNSPECIFIED: _ClassVar[DatasetFormat]
    DATASET_FORMAT_CHAT_JSONL: _ClassVar[DatasetFormat]
    DATASET_FORMAT_DECISION_CSV: _ClassVar[DatasetFormat]
    DATASET_FORMAT_PROMPT_COMPLETION_JSONL: _ClassVar[DatasetFormat]
    DATASET_FORMAT_PREFERENCE_JSONL: _ClassVar[DatasetFormat]
    DATASET_FORMAT_DECISION_PARQUET: _ClassVar[DatasetFormat]

class Classification(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLASSIFICATION_UNSPECIFIED: _ClassVar[Classification]
    CLASSIFICATION_PUBLIC: _ClassVar[Classification]
    CLASSIFICATION_INTERNAL: _ClassVar[Classification]
    CLASSIFICATION_CONFIDENTIAL: _ClassVar[Classification]
    CLASSIFICATION_RESTRICTED: _ClassVar[Classification]

class LegalBasis(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEGAL_BASIS_UNSPECIFIED: _ClassVar[LegalBasis]
    LEGAL_BASIS_CONSENT: _ClassVar[LegalBasis]
    LEGAL_BASIS_CONTRACT: _ClassVar[LegalBasis]
    LEGAL_BASIS_LEGAL_OBLIGATION: _ClassVar[LegalBasis]
    LEGAL_BASIS_VITAL_INTERESTS: _ClassVar[LegalBasis]
    LEGAL_BASIS_PUBLIC_TASK: _ClassVar[LegalBasis]
    LEGAL_BASIS_LEGITIMATE_INTERESTS: _ClassVar[LegalBasis]
    LEGAL_BASIS_NO_PERSONAL_DATA: _ClassVar[LegalBasis]

class PiiAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PII_ACTION_UNSPECIFIED: _ClassVar[PiiAction]
    PII_ACTION_REPORT: _ClassVar[PiiAction]
    PII_ACTION_REDACT: _ClassVar[PiiAction]
    PII_ACTION_PSEUDONYMISE: _ClassVar[PiiAction]
    PII_ACTION_REFUSE: _ClassVar[PiiAction]
DATASET_FORMAT_UNSPECIFIED: DatasetFormat
DATASET_FORMAT_CHAT_JSONL: DatasetFormat
DATASET_FORMAT_DECISION_CSV: DatasetFormat
DATASET_FORMAT_PROMPT_COMPLETION_JSONL: DatasetFormat
DATASET_FORMAT_PREFERENCE_JSONL: DatasetFormat
DATASET_FORMAT_DECISION_PARQUET: DatasetFormat
CLASSIFICATION_UNSPECIFIED: Classification
CLASSIFICATION_PUBLIC: Classification
CLASSIFICATION_INTERNAL: Classification
CLASSIFICATION_CONFIDENTIAL: Classification
CLASSIFICATION_RESTRICTED: Classification
LEGAL_BASIS_UNSPECIFIED: LegalBasis
LEGAL_BASIS_CONSENT: LegalBasis
LEGAL_BASIS_CONTRACT: LegalBasis
LEGAL_BASIS_LEGAL_OBLIGATION: LegalBasis
LEGAL_BASIS_VITAL_INTERESTS: LegalBasis
LEGAL_BASIS_PUBLIC_TASK: LegalBasis
LEGAL_BASIS_LEGITIMATE_INTERESTS: LegalBasis
LEGAL_BASIS_NO_PERSONAL_DATA: LegalBasis
PII_ACTION_UNSPECIFIED: PiiAction
PII_ACTION_REPORT: PiiAction
PII_ACTION_REDACT: PiiAction
PII_ACTION_PSEUDONYMISE: PiiAction
PII_ACTION_REFUSE: PiiAction

class Datasheet(_message.Message):
    __slots__ = ("purposes", "legal_basis", "licence", "classification", "residency", "retention_days", "provenance", "sensitive_attributes", "label_column", "favourable_label", "hidden_columns", "pii_action", "group_field")
    PURPOSES_FIELD_NUMBER: _ClassVar[int]
    LEGAL_BASIS_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    RESIDENCY_FIELD_NUMBER: _ClassVar[int]
    RETENTION_DAYS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    SENSITIVE_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    LABEL_COLUMN_FIELD_NUMBER: _ClassVar[int]
    FAVOURABLE_LABEL_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    PII_ACTION_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_FIELD_NUMBER: _ClassVar[int]
    purposes: _containers.RepeatedScalarFieldContainer[str]
    legal_basis: LegalBasis
    licence: str
    classification: Classification
    residency: str
    retention_days: int
    provenance: str
    sensitive_attributes: _containers.RepeatedScalarFieldContainer[str]
    label_column: str
    favourable_label: str
    hidden_columns: _containers.RepeatedScalarFieldContainer[str]
    pii_action: PiiAction
    group_field: str
    def __init__(self, purposes: _Optional[_Iterable[str]] = ..., legal_basis: _Optional[_Union[LegalBasis, str]] = ..., licence: _Optional[str] = ..., classification: _Optional[_Union[Classification, str]] = ..., residency: _Optional[str] = ..., retention_days: _Optional[int] = ..., provenance: _Optional[str] = ..., sensitive_attributes: _Optional[_Iterable[str]] = ..., label_column: _Optional[str] = ..., favourable_label: _Optional[str] = ..., hidden_columns: _Optional[_Iterable[str]] = ..., pii_action: _Optional[_Union[PiiAction, str]] = ..., group_field: _Optional[str] = ...) -> None: ...

class Dataset(_message.Message):
    __slots__ = ("name", "format", "datasheet", "sha256", "size_bytes", "creator", "create_time", "record_index", "retention_end_time", "erased_index")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    DATASHEET_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATOR_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    RECORD_INDEX_FIELD_NUMBER: _ClassVar[int]
    RETENTION_END_TIME_FIELD_NUMBER: _ClassVar[int]
    ERASED_INDEX_FIELD_NUMBER: _ClassVar[int]
    name: str
    format: DatasetFormat
    datasheet: Datasheet
    sha256: str
    size_bytes: int
    creator: str
    create_time: _timestamp_pb2.Timestamp
    record_index: int
    retention_end_time: _timestamp_pb2.Timestamp
    erased_index: int
    def __init__(self, name: _Optional[str] = ..., format: _Optional[_Union[DatasetFormat, str]] = ..., datasheet: _Optional[_Union[Datasheet, _Mapping]] = ..., sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ..., creator: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., record_index: _Optional[int] = ..., retention_end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., erased_index: _Optional[int] = ...) -> None: ...

class UploadDatasetHeader(_message.Message):
    __slots__ = ("parent", "dataset_id", "format", "datasheet", "request_id")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    DATASHEET_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    parent: str
    dataset_id: str
    format: DatasetFormat
    datasheet: Datasheet
    request_id: str
    def __init__(self, parent: _Optional[str] = ..., dataset_id: _Optional[str] = ..., format: _Optional[_Union[DatasetFormat, str]] = ..., datasheet: _Optional[_Union[Datasheet, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class UploadDatasetTrailer(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    def __init__(self, sha256: _Optional[str] = ...) -> None: ...

class UploadDatasetRequest(_message.Message):
    __slots__ = ("header", "chunk", "trailer")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    TRAILER_FIELD_NUMBER: _ClassVar[int]
    header: UploadDatasetHeader
    chunk: bytes
    trailer: UploadDatasetTrailer
    def __init__(self, header: _Optional[_Union[UploadDatasetHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ..., trailer: _Optional[_Union[UploadDatasetTrailer, _Mapping]] = ...) -> None: ...

class UploadDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: Dataset
    def __init__(self, dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class ImportDatasetRequest(_message.Message):
    __slots__ = ("header", "source", "sha256")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    header: UploadDatasetHeader
    source: str
    sha256: str
    def __init__(self, header: _Optional[_Union[UploadDatasetHeader, _Mapping]] = ..., source: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class ImportProgress(_message.Message):
    __slots__ = ("received_bytes", "total_bytes")
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    total_bytes: int
    def __init__(self, received_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class ImportDatasetResponse(_message.Message):
    __slots__ = ("progress", "dataset")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    progress: ImportProgress
    dataset: Dataset
    def __init__(self, progress: _Optional[_Union[ImportProgress, _Mapping]] = ..., dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: Dataset
    def __init__(self, dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDatasetsResponse(_message.Message):
    __slots__ = ("datasets", "next_page_token")
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[Dataset]
    next_page_token: str
    def __init__(self, datasets: _Optional[_Iterable[_Union[Dataset, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
