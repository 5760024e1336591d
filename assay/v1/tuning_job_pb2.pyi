import datetime

from assay.v1 import measurement_pb2 as _measurement_pb2
from assay.v1 import policy_pb2 as _policy_pb2
from assay.v1 import policy_input_pb2 as _policy_input_pb2
from assay.v1._vendor.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Hyperparameters(_message.Message):
    __slots__ = ("epochs", "learning_rate", "batch_size", "lora_rank", "lora_alpha", "lora_dropout", "seed", "early_stopping", "auto", "max_row_tokens")
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LORA_RANK_FIELD_NUMBER: _ClassVar[int]
    LORA_ALPHA_FIELD_NUMBER: _ClassVar[int]
    LORA_DROPOUT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOPPING_FIELD_NUMBER: _ClassVar[int]
    AUTO_FIELD_NUMBER: _ClassVar[int]
    MAX_ROW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    epochs: float
    learning_rate: float
    batch_size: int
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    seed: int
    early_stopping: bool
    auto: bool
    max_row_tokens: int
    def __init__(self, epochs: _Optional[float] = ..., learning_rate: _Optional[float] = ..., batch_size: _Optional[int] = ..., lora_rank: _Optional[int] = ..., lora_alpha: _Optional[int] = ..., lora_dropout: _Optional[float] = ..., seed: _Optional[int] = ..., early_stopping: _Optional[bool] = ..., auto: _Optional[bool] = ..., max_row_tokens: _Optional[int] = ...) -> None: ...

class Teacher(_message.Message):
    __slots__ = ("name", "licence")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    licence: str
    def __init__(self, name: _Optional[str] = ..., licence: _Optional[str] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("max_usd_micros", "max_train_tokens")
    MAX_USD_MICROS_FIELD_NUMBER: _ClassVar[int]
    MAX_TRAIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    max_usd_micros: int
    max_train_tokens: int
    def __init__(self, max_usd_micros: _Optional[int] = ..., max_train_tokens: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("stage", "step", "steps", "metrics", "seconds_left", "message", "meter", "flop")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    METER_FIELD_NUMBER: _ClassVar[int]
    FLOP_FIELD_NUMBER: _ClassVar[int]
    stage: str
    step: int
    steps: int
    metrics: _containers.ScalarMap[str, float]
    seconds_left: float
    message: str
    meter: Meter
    flop: float
    def __init__(self, stage: _Optional[str] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., seconds_left: _Optional[float] = ..., message: _Optional[str] = ..., meter: _Optional[_Union[Meter, _Mapping]] = ..., flop: _Optional[float] = ...) -> None: ...

class Meter(_message.Message):
    __slots__ = ("wall_ms", "cpu_ms", "max_rss_bytes", "energy_uwh", "energy_method")
    WALL_MS_FIELD_NUMBER: _ClassVar[int]
    CPU_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENERGY_UWH_FIELD_NUMBER: _ClassVar[int]
    ENERGY_METHOD_FIELD_NUMBER: _ClassVar[int]
    wall_ms: int
    cpu_ms: int
    max_rss_bytes: int
    energy_uwh: int
    energy_method: str
    def __init__(self, wall_ms: _Optional[int] = ..., cpu_ms: _Optional[int] = ..., max_rss_bytes: _Optional[int] = ..., energy_uwh: _Optional[int] = ..., energy_method: _Optional[str] = ...) -> None: ...

class Transition(_message.Message):
    __slots__ = ("event", "from_state", "to_state", "actor", "reason", "time", "record_index", "version")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    FROM_STATE_FIELD_NUMBER: _ClassVar[int]
    TO_STATE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    RECORD_INDEX_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    event: str
    from_state: TuningJob.State
    to_state: TuningJob.State
    actor: str
    reason: str
    time: _timestamp_pb2.Timestamp
    record_index: int
    version: int
    def __init__(self, event: _Optional[str] = ..., from_state: _Optional[_Union[TuningJob.State, str]] = ..., to_state: _Optional[_Union[TuningJob.State, str]] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., record_index: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class TuningJob(_message.Message):
    __slots__ = ("name", "state", "etag", "dataset", "base_model", "purpose", "method", "hyperparameters", "budget", "audit_profile", "differential_privacy", "creator", "create_time", "update_time", "transitions", "data", "decision", "progress", "audit", "verdict", "model", "reason", "stage_seconds", "quote_usd_micros", "cost_usd_micros", "trace_id", "appeal_due_time", "parent_model", "quote", "teacher", "search", "trials", "use")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[TuningJob.State]
        STATE_RECEIVED: _ClassVar[TuningJob.State]
        STATE_PREPARING: _ClassVar[TuningJob.State]
        STATE_DENIED: _ClassVar[TuningJob.State]
        STATE_QUEUED: _ClassVar[TuningJob.State]
        STATE_TRAINING: _ClassVar[TuningJob.State]
        STATE_AUDITING: _ClassVar[TuningJob.State]
        STATE_QUARANTINED: _ClassVar[TuningJob.State]
        STATE_AWAITING_APPROVAL: _ClassVar[TuningJob.State]
        STATE_REJECTED: _ClassVar[TuningJob.State]
        STATE_APPROVED: _ClassVar[TuningJob.State]
        STATE_REVOKED: _ClassVar[TuningJob.State]
        STATE_EXPIRED: _ClassVar[TuningJob.State]
        STATE_PAUSED: _ClassVar[TuningJob.State]
        STATE_CANCELLED: _ClassVar[TuningJob.State]
        STATE_FAILED: _ClassVar[TuningJob.State]
    STATE_UNSPECIFIED: TuningJob.State
    STATE_RECEIVED: TuningJob.State
    STATE_PREPARING: TuningJob.State
    STATE_DENIED: TuningJob.State
    STATE_QUEUED: TuningJob.State
    STATE_TRAINING: TuningJob.State
    STATE_AUDITING: TuningJob.State
    STATE_QUARANTINED: TuningJob.State
    STATE_AWAITING_APPROVAL: TuningJob.State
    STATE_REJECTED: TuningJob.State
    STATE_APPROVED: TuningJob.State
    STATE_REVOKED: TuningJob.State
    STATE_EXPIRED: TuningJob.State
    STATE_PAUSED: TuningJob.State
    STATE_CANCELLED: TuningJob.State
    STATE_FAILED: TuningJob.State
    class StageSecondsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    AUDIT_PROFILE_FIELD_NUMBER: _ClassVar[int]
    DIFFERENTIAL_PRIVACY_FIELD_NUMBER: _ClassVar[int]
    CREATOR_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    TRANSITIONS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STAGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    QUOTE_USD_MICROS_FIELD_NUMBER: _ClassVar[int]
    COST_USD_MICROS_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    APPEAL_DUE_TIME_FIELD_NUMBER: _ClassVar[int]
    PARENT_MODEL_FIELD_NUMBER: _ClassVar[int]
    QUOTE_FIELD_NUMBER: _ClassVar[int]
    TEACHER_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    TRIALS_FIELD_NUMBER: _ClassVar[int]
    USE_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: TuningJob.State
    etag: str
    dataset: str
    base_model: str
    purpose: str
    method: str
    hyperparameters: Hyperparameters
    budget: Budget
    audit_profile: str
    differential_privacy: _policy_input_pb2.DifferentialPrivacy
    creator: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    transitions: _containers.RepeatedCompositeFieldContainer[Transition]
    data: _policy_input_pb2.DataFacts
    decision: _policy_pb2.Decision
    progress: Progress
    audit: _measurement_pb2.AuditReport
    verdict: _policy_pb2.Verdict
    model: str
    reason: str
    stage_seconds: _containers.ScalarMap[str, float]
    quote_usd_micros: int
    cost_usd_micros: int
    trace_id: str
    appeal_due_time: _timestamp_pb2.Timestamp
    parent_model: str
    quote: _containers.RepeatedCompositeFieldContainer[QuotedFigure]
    teacher: Teacher
    search: _policy_input_pb2.Search
    trials: _containers.RepeatedCompositeFieldContainer[Trial]
    use: _policy_input_pb2.UseDeclaration
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[TuningJob.State, str]] = ..., etag: _Optional[str] = ..., dataset: _Optional[str] = ..., base_model: _Optional[str] = ..., purpose: _Optional[str] = ..., method: _Optional[str] = ..., hyperparameters: _Optional[_Union[Hyperparameters, _Mapping]] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ..., audit_profile: _Optional[str] = ..., differential_privacy: _Optional[_Union[_policy_input_pb2.DifferentialPrivacy, _Mapping]] = ..., creator: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., transitions: _Optional[_Iterable[_Union[Transition, _Mapping]]] = ..., data: _Optional[_Union[_policy_input_pb2.DataFacts, _Mapping]] = ..., decision: _Optional[_Union[_policy_pb2.Decision, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., audit: _Optional[_Union[_measurement_pb2.AuditReport, _Mapping]] = ..., verdict: _Optional[_Union[_policy_pb2.Verdict, _Mapping]] = ..., model: _Optional[str] = ..., reason: _Optional[str] = ..., stage_seconds: _Optional[_Mapping[str, float]] = ..., quote_usd_micros: _Optional[int] = ..., cost_usd_micros: _Optional[int] = ..., trace_id: _Optional[str] = ..., appeal_due_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., parent_model: _Optional[str] = ..., quote: _Optional[_Iterable[_Union[QuotedFigure, _Mapping]]] = ..., teacher: _Optional[_Union[Teacher, _Mapping]] = ..., search: _Optional[_Union[_policy_input_pb2.Search, _Mapping]] = ..., trials: _Optional[_Iterable[_Union[Trial, _Mapping]]] = ..., use: _Optional[_Union[_policy_input_pb2.UseDeclaration, _Mapping]] = ...) -> None: ...

class Trial(_message.Message):
    __slots__ = ("lora_rank", "learning_rate", "tokens", "steps", "selection_loss", "validation_loss", "chosen", "failed")
    LORA_RANK_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SELECTION_LOSS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    lora_rank: int
    learning_rate: float
    tokens: int
    steps: int
    selection_loss: float
    validation_loss: float
    chosen: bool
    failed: str
    def __init__(self, lora_rank: _Optional[int] = ..., learning_rate: _Optional[float] = ..., tokens: _Optional[int] = ..., steps: _Optional[int] = ..., selection_loss: _Optional[float] = ..., validation_loss: _Optional[float] = ..., chosen: _Optional[bool] = ..., failed: _Optional[str] = ...) -> None: ...

class QuotedFigure(_message.Message):
    __slots__ = ("name", "unit", "quoted", "actual", "forecast", "method")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    QUOTED_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_FIELD_NUMBER: _ClassVar[int]
    FORECAST_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    name: str
    unit: str
    quoted: float
    actual: float
    forecast: float
    method: str
    def __init__(self, name: _Optional[str] = ..., unit: _Optional[str] = ..., quoted: _Optional[float] = ..., actual: _Optional[float] = ..., forecast: _Optional[float] = ..., method: _Optional[str] = ...) -> None: ...

class CreateTuningJobRequest(_message.Message):
    __slots__ = ("parent", "tuning_job_id", "dataset", "base_model", "purpose", "method", "hyperparameters", "budget", "audit_profile", "differential_privacy", "request_id", "validate_only", "use", "parent_model", "teacher", "search")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    TUNING_JOB_ID_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    AUDIT_PROFILE_FIELD_NUMBER: _ClassVar[int]
    DIFFERENTIAL_PRIVACY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    USE_FIELD_NUMBER: _ClassVar[int]
    PARENT_MODEL_FIELD_NUMBER: _ClassVar[int]
    TEACHER_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    parent: str
    tuning_job_id: str
    dataset: str
    base_model: str
    purpose: str
    method: str
    hyperparameters: Hyperparameters
    budget: Budget
    audit_profile: str
    differential_privacy: _policy_input_pb2.DifferentialPrivacy
    request_id: str
    validate_only: bool
    use: _policy_input_pb2.UseDeclaration
    parent_model: str
    teacher: Teacher
    search: _policy_input_pb2.Search
    def __init__(self, parent: _Optional[str] = ..., tuning_job_id: _Optional[str] = ..., dataset: _Optional[str] = ..., base_model: _Optional[str] = ..., purpose: _Optional[str] = ..., method: _Optional[str] = ..., hyperparameters: _Optional[_Union[Hyperparameters, _Mapping]] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ..., audit_profile: _Optional[str] = ..., differential_privacy: _Optional[_Union[_policy_input_pb2.DifferentialPrivacy, _Mapping]] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ..., use: _Optional[_Union[_policy_input_pb2.UseDeclaration, _Mapping]] = ..., parent_model: _Optional[str] = ..., teacher: _Optional[_Union[Teacher, _Mapping]] = ..., search: _Optional[_Union[_policy_input_pb2.Search, _Mapping]] = ...) -> None: ...

class CreateTuningJobResponse(_message.Message):
    __slots__ = ("tuning_job",)
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    tuning_job: TuningJob
    def __init__(self, tuning_job: _Optional[_Union[TuningJob, _Mapping]] = ...) -> None: ...

class GetTuningJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetTuningJobResponse(_message.Message):
    __slots__ = ("tuning_job",)
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    tuning_job: TuningJob
    def __init__(self, tuning_job: _Optional[_Union[TuningJob, _Mapping]] = ...) -> None: ...

class ListTuningJobsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListTuningJobsResponse(_message.Message):
    __slots__ = ("tuning_jobs", "next_page_token")
    TUNING_JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tuning_jobs: _containers.RepeatedCompositeFieldContainer[TuningJob]
    next_page_token: str
    def __init__(self, tuning_jobs: _Optional[_Iterable[_Union[TuningJob, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CancelTuningJobRequest(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelTuningJobResponse(_message.Message):
    __slots__ = ("tuning_job",)
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    tuning_job: TuningJob
    def __init__(self, tuning_job: _Optional[_Union[TuningJob, _Mapping]] = ...) -> None: ...

class PauseTuningJobRequest(_message.Message):
    __slots__ = ("name", "reason", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    etag: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class PauseTuningJobResponse(_message.Message):
    __slots__ = ("tuning_job",)
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    tuning_job: TuningJob
    def __init__(self, tuning_job: _Optional[_Union[TuningJob, _Mapping]] = ...) -> None: ...

class ResumeTuningJobRequest(_message.Message):
    __slots__ = ("name", "reason", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    etag: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class ResumeTuningJobResponse(_message.Message):
    __slots__ = ("tuning_job",)
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    tuning_job: TuningJob
    def __init__(self, tuning_job: _Optional[_Union[TuningJob, _Mapping]] = ...) -> None: ...

class AppealTuningJobRequest(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class AppealTuningJobResponse(_message.Message):
    __slots__ = ("tuning_job",)
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    tuning_job: TuningJob
    def __init__(self, tuning_job: _Optional[_Union[TuningJob, _Mapping]] = ...) -> None: ...

class WatchTuningJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class WatchTuningJobResponse(_message.Message):
    __slots__ = ("tuning_job", "resting")
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    RESTING_FIELD_NUMBER: _ClassVar[int]
    tuning_job: TuningJob
    resting: bool
    def __init__(self, tuning_job: _Optional[_Union[TuningJob, _Mapping]] = ..., resting: _Optional[bool] = ...) -> None: ...

class EnvironmentDifference(_message.Message):
    __slots__ = ("name", "recorded", "now")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    name: str
    recorded: str
    now: str
    def __init__(self, name: _Optional[str] = ..., recorded: _Optional[str] = ..., now: _Optional[str] = ...) -> None: ...

class Replay(_message.Message):
    __slots__ = ("tuning_job", "number", "verdict", "reason", "adapter_sha256", "replayed_sha256", "differences", "validation_loss", "replayed_validation_loss", "record_index", "tolerance", "within_tolerance")
    class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VERDICT_UNSPECIFIED: _ClassVar[Replay.Verdict]
        VERDICT_REPRODUCED: _ClassVar[Replay.Verdict]
        VERDICT_DIFFERS: _ClassVar[Replay.Verdict]
        VERDICT_NOT_REPLAYABLE: _ClassVar[Replay.Verdict]
    VERDICT_UNSPECIFIED: Replay.Verdict
    VERDICT_REPRODUCED: Replay.Verdict
    VERDICT_DIFFERS: Replay.Verdict
    VERDICT_NOT_REPLAYABLE: Replay.Verdict
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SHA256_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_SHA256_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    RECORD_INDEX_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    WITHIN_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    tuning_job: str
    number: int
    verdict: Replay.Verdict
    reason: str
    adapter_sha256: str
    replayed_sha256: str
    differences: _containers.RepeatedCompositeFieldContainer[EnvironmentDifference]
    validation_loss: str
    replayed_validation_loss: str
    record_index: int
    tolerance: str
    within_tolerance: bool
    def __init__(self, tuning_job: _Optional[str] = ..., number: _Optional[int] = ..., verdict: _Optional[_Union[Replay.Verdict, str]] = ..., reason: _Optional[str] = ..., adapter_sha256: _Optional[str] = ..., replayed_sha256: _Optional[str] = ..., differences: _Optional[_Iterable[_Union[EnvironmentDifference, _Mapping]]] = ..., validation_loss: _Optional[str] = ..., replayed_validation_loss: _Optional[str] = ..., record_index: _Optional[int] = ..., tolerance: _Optional[str] = ..., within_tolerance: _Optional[bool] = ...) -> None: ...

class ReplayTuningJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ReplayTuningJobResponse(_message.Message):
    __slots__ = ("progress", "replay")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    replay: Replay
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., replay: _Optional[_Union[Replay, _Mapping]] = ...) -> None: ...
