import datetime

from assay.v1 import measurement_pb2 as _measurement_pb2
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

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNSPECIFIED: _ClassVar[Stage]
    STAGE_INTAKE: _ClassVar[Stage]
    STAGE_PRE_DEPLOY: _ClassVar[Stage]
    STAGE_PRE_TRAIN: _ClassVar[Stage]
    STAGE_POST_TRAIN: _ClassVar[Stage]
    STAGE_LIVE: _ClassVar[Stage]

class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEVERITY_UNSPECIFIED: _ClassVar[Severity]
    SEVERITY_DENY: _ClassVar[Severity]
    SEVERITY_WARN: _ClassVar[Severity]
    SEVERITY_AUDIT: _ClassVar[Severity]

class RuleStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RULE_STATUS_UNSPECIFIED: _ClassVar[RuleStatus]
    RULE_STATUS_BINDING: _ClassVar[RuleStatus]
    RULE_STATUS_GUIDANCE: _ClassVar[RuleStatus]
    RULE_STATUS_INTERNAL: _ClassVar[RuleStatus]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_PASS: _ClassVar[Outcome]
    OUTCOME_FAIL: _ClassVar[Outcome]
    OUTCOME_INCONCLUSIVE: _ClassVar[Outcome]
    OUTCOME_ERROR: _ClassVar[Outcome]
    OUTCOME_NOT_APPLICABLE: _ClassVar[Outcome]
    OUTCOME_WARN: _ClassVar[Outcome]
STAGE_UNSPECIFIED: Stage
STAGE_INTAKE: Stage
STAGE_PRE_DEPLOY: Stage
STAGE_PRE_TRAIN: Stage
STAGE_POST_TRAIN: Stage
STAGE_LIVE: Stage
SEVERITY_UNSPECIFIED: Severity
SEVERITY_DENY: Severity
SEVERITY_WARN: Severity
SEVERITY_AUDIT: Severity
RULE_STATUS_UNSPECIFIED: RuleStatus
RULE_STATUS_BINDING: RuleStatus
RULE_STATUS_GUIDANCE: RuleStatus
RULE_STATUS_INTERNAL: RuleStatus
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_PASS: Outcome
OUTCOME_FAIL: Outcome
OUTCOME_INCONCLUSIVE: Outcome
OUTCOME_ERROR: Outcome
OUTCOME_NOT_APPLICABLE: Outcome
OUTCOME_WARN: Outcome

class Rule(_message.Message):
    __slots__ = ("id", "title", "stage", "status", "citation", "expression", "effective_from", "effective_to", "appealable", "waivable_by", "caveat", "instrument", "reference", "jurisdictions", "severity", "artefacts", "waiver_days", "pack", "applies")
    ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CITATION_FIELD_NUMBER: _ClassVar[int]
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_FROM_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_TO_FIELD_NUMBER: _ClassVar[int]
    APPEALABLE_FIELD_NUMBER: _ClassVar[int]
    WAIVABLE_BY_FIELD_NUMBER: _ClassVar[int]
    CAVEAT_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    JURISDICTIONS_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    ARTEFACTS_FIELD_NUMBER: _ClassVar[int]
    WAIVER_DAYS_FIELD_NUMBER: _ClassVar[int]
    PACK_FIELD_NUMBER: _ClassVar[int]
    APPLIES_FIELD_NUMBER: _ClassVar[int]
    id: str
    title: str
    stage: Stage
    status: RuleStatus
    citation: str
    expression: str
    effective_from: str
    effective_to: str
    appealable: bool
    waivable_by: str
    caveat: str
    instrument: str
    reference: str
    jurisdictions: _containers.RepeatedScalarFieldContainer[str]
    severity: Severity
    artefacts: _containers.RepeatedScalarFieldContainer[str]
    waiver_days: int
    pack: str
    applies: str
    def __init__(self, id: _Optional[str] = ..., title: _Optional[str] = ..., stage: _Optional[_Union[Stage, str]] = ..., status: _Optional[_Union[RuleStatus, str]] = ..., citation: _Optional[str] = ..., expression: _Optional[str] = ..., effective_from: _Optional[str] = ..., effective_to: _Optional[str] = ..., appealable: _Optional[bool] = ..., waivable_by: _Optional[str] = ..., caveat: _Optional[str] = ..., instrument: _Optional[str] = ..., reference: _Optional[str] = ..., jurisdictions: _Optional[_Iterable[str]] = ..., severity: _Optional[_Union[Severity, str]] = ..., artefacts: _Optional[_Iterable[str]] = ..., waiver_days: _Optional[int] = ..., pack: _Optional[str] = ..., applies: _Optional[str] = ...) -> None: ...

class RuleOutcome(_message.Message):
    __slots__ = ("rule_id", "title", "outcome", "message", "citation", "status", "rows", "row_count", "fix", "measurement", "n_required", "limit", "side", "waivable_by", "caveat", "waiver_days", "artefacts_missing", "appealable")
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CITATION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    FIX_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENT_FIELD_NUMBER: _ClassVar[int]
    N_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    WAIVABLE_BY_FIELD_NUMBER: _ClassVar[int]
    CAVEAT_FIELD_NUMBER: _ClassVar[int]
    WAIVER_DAYS_FIELD_NUMBER: _ClassVar[int]
    ARTEFACTS_MISSING_FIELD_NUMBER: _ClassVar[int]
    APPEALABLE_FIELD_NUMBER: _ClassVar[int]
    rule_id: str
    title: str
    outcome: Outcome
    message: str
    citation: str
    status: RuleStatus
    rows: _containers.RepeatedScalarFieldContainer[int]
    row_count: int
    fix: str
    measurement: str
    n_required: int
    limit: float
    side: _measurement_pb2.LimitSide
    waivable_by: str
    caveat: str
    waiver_days: int
    artefacts_missing: _containers.RepeatedScalarFieldContainer[str]
    appealable: bool
    def __init__(self, rule_id: _Optional[str] = ..., title: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., message: _Optional[str] = ..., citation: _Optional[str] = ..., status: _Optional[_Union[RuleStatus, str]] = ..., rows: _Optional[_Iterable[int]] = ..., row_count: _Optional[int] = ..., fix: _Optional[str] = ..., measurement: _Optional[str] = ..., n_required: _Optional[int] = ..., limit: _Optional[float] = ..., side: _Optional[_Union[_measurement_pb2.LimitSide, str]] = ..., waivable_by: _Optional[str] = ..., caveat: _Optional[str] = ..., waiver_days: _Optional[int] = ..., artefacts_missing: _Optional[_Iterable[str]] = ..., appealable: _Optional[bool] = ...) -> None: ...

class FixStep(_message.Message):
    __slots__ = ("kind", "field", "before", "after", "rows", "words", "rule_ids")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[FixStep.Kind]
        KIND_DROP_ROWS: _ClassVar[FixStep.Kind]
        KIND_REDACT_SPANS: _ClassVar[FixStep.Kind]
        KIND_LOWER_NUMBER: _ClassVar[FixStep.Kind]
        KIND_RAISE_NUMBER: _ClassVar[FixStep.Kind]
        KIND_ADD_ARTEFACT: _ClassVar[FixStep.Kind]
        KIND_DECLARE: _ClassVar[FixStep.Kind]
        KIND_ADD_ROWS: _ClassVar[FixStep.Kind]
    KIND_UNSPECIFIED: FixStep.Kind
    KIND_DROP_ROWS: FixStep.Kind
    KIND_REDACT_SPANS: FixStep.Kind
    KIND_LOWER_NUMBER: FixStep.Kind
    KIND_RAISE_NUMBER: FixStep.Kind
    KIND_ADD_ARTEFACT: FixStep.Kind
    KIND_DECLARE: FixStep.Kind
    KIND_ADD_ROWS: FixStep.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    RULE_IDS_FIELD_NUMBER: _ClassVar[int]
    kind: FixStep.Kind
    field: str
    before: str
    after: str
    rows: _containers.RepeatedScalarFieldContainer[int]
    words: str
    rule_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kind: _Optional[_Union[FixStep.Kind, str]] = ..., field: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ..., rows: _Optional[_Iterable[int]] = ..., words: _Optional[str] = ..., rule_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class MinimalFix(_message.Message):
    __slots__ = ("steps", "left", "questions")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[FixStep]
    left: _containers.RepeatedScalarFieldContainer[str]
    questions: int
    def __init__(self, steps: _Optional[_Iterable[_Union[FixStep, _Mapping]]] = ..., left: _Optional[_Iterable[str]] = ..., questions: _Optional[int] = ...) -> None: ...

class UseReading(_message.Message):
    __slots__ = ("places", "unknown_places", "uses", "decides", "high_risk_by", "packs", "packs_not_chosen")
    PLACES_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_PLACES_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    DECIDES_FIELD_NUMBER: _ClassVar[int]
    HIGH_RISK_BY_FIELD_NUMBER: _ClassVar[int]
    PACKS_FIELD_NUMBER: _ClassVar[int]
    PACKS_NOT_CHOSEN_FIELD_NUMBER: _ClassVar[int]
    places: _containers.RepeatedScalarFieldContainer[str]
    unknown_places: _containers.RepeatedScalarFieldContainer[str]
    uses: _containers.RepeatedScalarFieldContainer[str]
    decides: bool
    high_risk_by: str
    packs: _containers.RepeatedScalarFieldContainer[str]
    packs_not_chosen: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, places: _Optional[_Iterable[str]] = ..., unknown_places: _Optional[_Iterable[str]] = ..., uses: _Optional[_Iterable[str]] = ..., decides: _Optional[bool] = ..., high_risk_by: _Optional[str] = ..., packs: _Optional[_Iterable[str]] = ..., packs_not_chosen: _Optional[_Iterable[str]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("allowed", "outcomes", "bundle_sha256", "limits_sha256", "input_sha256", "engine", "audit_plan", "as_of", "minimal_fix", "use_reading")
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_SHA256_FIELD_NUMBER: _ClassVar[int]
    LIMITS_SHA256_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHA256_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    AUDIT_PLAN_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    MINIMAL_FIX_FIELD_NUMBER: _ClassVar[int]
    USE_READING_FIELD_NUMBER: _ClassVar[int]
    allowed: bool
    outcomes: _containers.RepeatedCompositeFieldContainer[RuleOutcome]
    bundle_sha256: str
    limits_sha256: str
    input_sha256: str
    engine: str
    audit_plan: _measurement_pb2.AuditPlan
    as_of: str
    minimal_fix: MinimalFix
    use_reading: UseReading
    def __init__(self, allowed: _Optional[bool] = ..., outcomes: _Optional[_Iterable[_Union[RuleOutcome, _Mapping]]] = ..., bundle_sha256: _Optional[str] = ..., limits_sha256: _Optional[str] = ..., input_sha256: _Optional[str] = ..., engine: _Optional[str] = ..., audit_plan: _Optional[_Union[_measurement_pb2.AuditPlan, _Mapping]] = ..., as_of: _Optional[str] = ..., minimal_fix: _Optional[_Union[MinimalFix, _Mapping]] = ..., use_reading: _Optional[_Union[UseReading, _Mapping]] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("outcome", "outcomes", "bundle_sha256", "limits_sha256", "input_sha256", "engine", "as_of")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_SHA256_FIELD_NUMBER: _ClassVar[int]
    LIMITS_SHA256_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHA256_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    outcome: Outcome
    outcomes: _containers.RepeatedCompositeFieldContainer[RuleOutcome]
    bundle_sha256: str
    limits_sha256: str
    input_sha256: str
    engine: str
    as_of: str
    def __init__(self, outcome: _Optional[_Union[Outcome, str]] = ..., outcomes: _Optional[_Iterable[_Union[RuleOutcome, _Mapping]]] = ..., bundle_sha256: _Optional[str] = ..., limits_sha256: _Optional[str] = ..., input_sha256: _Optional[str] = ..., engine: _Optional[str] = ..., as_of: _Optional[str] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("name", "version", "bundle_sha256", "limits_sha256", "rules", "publish_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_SHA256_FIELD_NUMBER: _ClassVar[int]
    LIMITS_SHA256_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    bundle_sha256: str
    limits_sha256: str
    rules: _containers.RepeatedCompositeFieldContainer[Rule]
    publish_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., bundle_sha256: _Optional[str] = ..., limits_sha256: _Optional[str] = ..., rules: _Optional[_Iterable[_Union[Rule, _Mapping]]] = ..., publish_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("policies", "next_page_token")
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    next_page_token: str
    def __init__(self, policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class EvaluatePolicyRequest(_message.Message):
    __slots__ = ("intake", "release")
    INTAKE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    intake: _policy_input_pb2.IntakeInput
    release: _policy_input_pb2.ReleaseInput
    def __init__(self, intake: _Optional[_Union[_policy_input_pb2.IntakeInput, _Mapping]] = ..., release: _Optional[_Union[_policy_input_pb2.ReleaseInput, _Mapping]] = ...) -> None: ...

class EvaluatePolicyResponse(_message.Message):
    __slots__ = ("decision", "verdict")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    verdict: Verdict
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ...) -> None: ...

class ExplainPolicyRequest(_message.Message):
    __slots__ = ("rule_id",)
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    rule_id: str
    def __init__(self, rule_id: _Optional[str] = ...) -> None: ...

class ExplainPolicyResponse(_message.Message):
    __slots__ = ("rule", "limits", "explanation")
    class LimitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RULE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    rule: Rule
    limits: _containers.ScalarMap[str, str]
    explanation: str
    def __init__(self, rule: _Optional[_Union[Rule, _Mapping]] = ..., limits: _Optional[_Mapping[str, str]] = ..., explanation: _Optional[str] = ...) -> None: ...

class ListPrecedentsRequest(_message.Message):
    __slots__ = ("parent", "rule_id", "text", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    rule_id: str
    text: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., rule_id: _Optional[str] = ..., text: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class Precedent(_message.Message):
    __slots__ = ("tuning_job", "purpose", "moment", "rule_id", "outcome", "message", "waived", "appeals", "state", "as_of", "bundle_sha256")
    TUNING_JOB_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    MOMENT_FIELD_NUMBER: _ClassVar[int]
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WAIVED_FIELD_NUMBER: _ClassVar[int]
    APPEALS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_SHA256_FIELD_NUMBER: _ClassVar[int]
    tuning_job: str
    purpose: str
    moment: str
    rule_id: str
    outcome: Outcome
    message: str
    waived: bool
    appeals: int
    state: str
    as_of: str
    bundle_sha256: str
    def __init__(self, tuning_job: _Optional[str] = ..., purpose: _Optional[str] = ..., moment: _Optional[str] = ..., rule_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., message: _Optional[str] = ..., waived: _Optional[bool] = ..., appeals: _Optional[int] = ..., state: _Optional[str] = ..., as_of: _Optional[str] = ..., bundle_sha256: _Optional[str] = ...) -> None: ...

class ListPrecedentsResponse(_message.Message):
    __slots__ = ("precedents", "next_page_token")
    PRECEDENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    precedents: _containers.RepeatedCompositeFieldContainer[Precedent]
    next_page_token: str
    def __init__(self, precedents: _Optional[_Iterable[_Union[Precedent, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
