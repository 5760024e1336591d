from assay.v1 import dataset_pb2 as _dataset_pb2
from assay.v1._vendor.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LimitSide(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIMIT_SIDE_UNSPECIFIED: _ClassVar[LimitSide]
    LIMIT_SIDE_AT_MOST: _ClassVar[LimitSide]
    LIMIT_SIDE_AT_LEAST: _ClassVar[LimitSide]
LIMIT_SIDE_UNSPECIFIED: LimitSide
LIMIT_SIDE_AT_MOST: LimitSide
LIMIT_SIDE_AT_LEAST: LimitSide

class Interval(_message.Message):
    __slots__ = ("confidence", "lower", "upper")
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    confidence: float
    lower: float
    upper: float
    def __init__(self, confidence: _Optional[float] = ..., lower: _Optional[float] = ..., upper: _Optional[float] = ...) -> None: ...

class Measurement(_message.Message):
    __slots__ = ("name", "value", "intervals", "n", "successes", "unit", "method", "computed_from", "control", "control_kind", "slice", "unavailable", "exploratory")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    INTERVALS_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    SUCCESSES_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_FROM_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    CONTROL_KIND_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    EXPLORATORY_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    intervals: _containers.RepeatedCompositeFieldContainer[Interval]
    n: int
    successes: int
    unit: str
    method: str
    computed_from: str
    control: float
    control_kind: str
    slice: str
    unavailable: str
    exploratory: bool
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., intervals: _Optional[_Iterable[_Union[Interval, _Mapping]]] = ..., n: _Optional[int] = ..., successes: _Optional[int] = ..., unit: _Optional[str] = ..., method: _Optional[str] = ..., computed_from: _Optional[str] = ..., control: _Optional[float] = ..., control_kind: _Optional[str] = ..., slice: _Optional[str] = ..., unavailable: _Optional[str] = ..., exploratory: _Optional[bool] = ...) -> None: ...

class PlannedGate(_message.Message):
    __slots__ = ("rule_id", "measurement", "side", "limit", "alpha", "n")
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENT_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    rule_id: str
    measurement: str
    side: LimitSide
    limit: float
    alpha: float
    n: int
    def __init__(self, rule_id: _Optional[str] = ..., measurement: _Optional[str] = ..., side: _Optional[_Union[LimitSide, str]] = ..., limit: _Optional[float] = ..., alpha: _Optional[float] = ..., n: _Optional[int] = ...) -> None: ...

class AuditPlan(_message.Message):
    __slots__ = ("profile", "probes", "gates", "confidences", "sample_sizes", "seed", "sensitive_attributes", "canary_manifest_sha256", "sealed_test_sha256", "time_limit_seconds", "task", "metrics", "batch_plan", "groups")
    class SampleSizesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class BatchPlanEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    PROBES_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCES_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_SIZES_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SENSITIVE_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    CANARY_MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    SEALED_TEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    TIME_LIMIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    BATCH_PLAN_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    profile: str
    probes: _containers.RepeatedScalarFieldContainer[str]
    gates: _containers.RepeatedCompositeFieldContainer[PlannedGate]
    confidences: _containers.RepeatedScalarFieldContainer[float]
    sample_sizes: _containers.ScalarMap[str, int]
    seed: int
    sensitive_attributes: _containers.RepeatedScalarFieldContainer[str]
    canary_manifest_sha256: str
    sealed_test_sha256: str
    time_limit_seconds: int
    task: _dataset_pb2.DatasetFormat
    metrics: _containers.RepeatedScalarFieldContainer[str]
    batch_plan: _containers.ScalarMap[str, int]
    groups: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, profile: _Optional[str] = ..., probes: _Optional[_Iterable[str]] = ..., gates: _Optional[_Iterable[_Union[PlannedGate, _Mapping]]] = ..., confidences: _Optional[_Iterable[float]] = ..., sample_sizes: _Optional[_Mapping[str, int]] = ..., seed: _Optional[int] = ..., sensitive_attributes: _Optional[_Iterable[str]] = ..., canary_manifest_sha256: _Optional[str] = ..., sealed_test_sha256: _Optional[str] = ..., time_limit_seconds: _Optional[int] = ..., task: _Optional[_Union[_dataset_pb2.DatasetFormat, str]] = ..., metrics: _Optional[_Iterable[str]] = ..., batch_plan: _Optional[_Mapping[str, int]] = ..., groups: _Optional[_Iterable[str]] = ...) -> None: ...

class Series(_message.Message):
    __slots__ = ("name", "axes", "points")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AXES_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    axes: _containers.RepeatedScalarFieldContainer[str]
    points: _containers.RepeatedCompositeFieldContainer[Point]
    def __init__(self, name: _Optional[str] = ..., axes: _Optional[_Iterable[str]] = ..., points: _Optional[_Iterable[_Union[Point, _Mapping]]] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("label", "values")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    label: str
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, label: _Optional[str] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class AuditReport(_message.Message):
    __slots__ = ("measurements", "series", "not_tested", "probe_seconds", "environment")
    class ProbeSecondsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class EnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MEASUREMENTS_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    NOT_TESTED_FIELD_NUMBER: _ClassVar[int]
    PROBE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    measurements: _containers.RepeatedCompositeFieldContainer[Measurement]
    series: _containers.RepeatedCompositeFieldContainer[Series]
    not_tested: _containers.RepeatedScalarFieldContainer[str]
    probe_seconds: _containers.ScalarMap[str, float]
    environment: _containers.ScalarMap[str, str]
    def __init__(self, measurements: _Optional[_Iterable[_Union[Measurement, _Mapping]]] = ..., series: _Optional[_Iterable[_Union[Series, _Mapping]]] = ..., not_tested: _Optional[_Iterable[str]] = ..., probe_seconds: _Optional[_Mapping[str, float]] = ..., environment: _Optional[_Mapping[str, str]] = ...) -> None: ...
