from assay.v1 import dataset_pb2 as _dataset_pb2
from assay.v1 import measurement_pb2 as _measurement_pb2
from assay.v1._vendor.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RowFinding(_message.Message):
    __slots__ = ("row", "field", "code", "reason")
    ROW_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    row: int
    field: str
    code: str
    reason: str
    def __init__(self, row: _Optional[int] = ..., field: _Optional[str] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PiiFinding(_message.Message):
    __slots__ = ("entity_type", "count", "rows", "row_numbers")
    ENTITY_TYPE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROW_NUMBERS_FIELD_NUMBER: _ClassVar[int]
    entity_type: str
    count: int
    rows: int
    row_numbers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, entity_type: _Optional[str] = ..., count: _Optional[int] = ..., rows: _Optional[int] = ..., row_numbers: _Optional[_Iterable[int]] = ...) -> None: ...

class ScreenFinding(_message.Message):
    __slots__ = ("screen", "method", "rows", "row_numbers", "reason")
    SCREEN_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROW_NUMBERS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    screen: str
    method: str
    rows: int
    row_numbers: _containers.RepeatedScalarFieldContainer[int]
    reason: str
    def __init__(self, screen: _Optional[str] = ..., method: _Optional[str] = ..., rows: _Optional[int] = ..., row_numbers: _Optional[_Iterable[int]] = ..., reason: _Optional[str] = ...) -> None: ...

class ScreenQuality(_message.Message):
    __slots__ = ("screen", "answers", "n", "hits", "lower", "upper")
    SCREEN_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    screen: str
    answers: str
    n: int
    hits: int
    lower: float
    upper: float
    def __init__(self, screen: _Optional[str] = ..., answers: _Optional[str] = ..., n: _Optional[int] = ..., hits: _Optional[int] = ..., lower: _Optional[float] = ..., upper: _Optional[float] = ...) -> None: ...

class LengthStatistics(_message.Message):
    __slots__ = ("minimum", "median", "p95", "maximum")
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_FIELD_NUMBER: _ClassVar[int]
    P95_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    minimum: int
    median: int
    p95: int
    maximum: int
    def __init__(self, minimum: _Optional[int] = ..., median: _Optional[int] = ..., p95: _Optional[int] = ..., maximum: _Optional[int] = ...) -> None: ...

class GroupLabels(_message.Message):
    __slots__ = ("attribute", "value", "rows", "inconclusive", "reference", "favourable", "rate", "rate_lower", "rate_upper", "class_imbalance", "label_difference", "label_difference_lower", "label_difference_upper", "impact_ratio", "impact_ratio_lower", "impact_ratio_upper")
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    INCONCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    FAVOURABLE_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    RATE_LOWER_FIELD_NUMBER: _ClassVar[int]
    RATE_UPPER_FIELD_NUMBER: _ClassVar[int]
    CLASS_IMBALANCE_FIELD_NUMBER: _ClassVar[int]
    LABEL_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    LABEL_DIFFERENCE_LOWER_FIELD_NUMBER: _ClassVar[int]
    LABEL_DIFFERENCE_UPPER_FIELD_NUMBER: _ClassVar[int]
    IMPACT_RATIO_FIELD_NUMBER: _ClassVar[int]
    IMPACT_RATIO_LOWER_FIELD_NUMBER: _ClassVar[int]
    IMPACT_RATIO_UPPER_FIELD_NUMBER: _ClassVar[int]
    attribute: str
    value: str
    rows: int
    inconclusive: str
    reference: bool
    favourable: int
    rate: float
    rate_lower: float
    rate_upper: float
    class_imbalance: float
    label_difference: float
    label_difference_lower: float
    label_difference_upper: float
    impact_ratio: float
    impact_ratio_lower: float
    impact_ratio_upper: float
    def __init__(self, attribute: _Optional[str] = ..., value: _Optional[str] = ..., rows: _Optional[int] = ..., inconclusive: _Optional[str] = ..., reference: _Optional[bool] = ..., favourable: _Optional[int] = ..., rate: _Optional[float] = ..., rate_lower: _Optional[float] = ..., rate_upper: _Optional[float] = ..., class_imbalance: _Optional[float] = ..., label_difference: _Optional[float] = ..., label_difference_lower: _Optional[float] = ..., label_difference_upper: _Optional[float] = ..., impact_ratio: _Optional[float] = ..., impact_ratio_lower: _Optional[float] = ..., impact_ratio_upper: _Optional[float] = ...) -> None: ...

class DetectorQuality(_message.Message):
    __slots__ = ("labelled", "recall", "recall_lower", "recall_upper", "detections", "precision", "precision_lower", "precision_upper")
    LABELLED_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    RECALL_LOWER_FIELD_NUMBER: _ClassVar[int]
    RECALL_UPPER_FIELD_NUMBER: _ClassVar[int]
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    PRECISION_LOWER_FIELD_NUMBER: _ClassVar[int]
    PRECISION_UPPER_FIELD_NUMBER: _ClassVar[int]
    labelled: int
    recall: float
    recall_lower: float
    recall_upper: float
    detections: int
    precision: float
    precision_lower: float
    precision_upper: float
    def __init__(self, labelled: _Optional[int] = ..., recall: _Optional[float] = ..., recall_lower: _Optional[float] = ..., recall_upper: _Optional[float] = ..., detections: _Optional[int] = ..., precision: _Optional[float] = ..., precision_lower: _Optional[float] = ..., precision_upper: _Optional[float] = ...) -> None: ...

class DataFacts(_message.Message):
    __slots__ = ("rows", "valid_rows", "findings", "invalid_rows", "pii", "pii_row_share", "pii_rows", "train_rows", "validation_rows", "selection_rows", "test_rows", "duplicate_rows", "train_tokens", "canaries_inserted", "canaries_held_out", "single_canaries_inserted", "single_canaries_held_out", "canary_manifest_sha256", "split_sha256", "columns", "label_counts", "group_counts", "pii_detector", "longest_row_tokens", "train_pii_spans", "canary_rows", "identifier_classes", "labels", "rejected_tokens", "screens", "screened", "screen_quality", "lengths", "label_balance", "smallest_group_rows", "split_units", "train_users", "rows_without_group", "test_rows_left_out", "test_group_counts", "untested_groups", "parent_rows", "unread_parents", "train_pii_units", "compared_groups", "split_shares", "favourable_label", "group_labels", "pii_quality", "pii_action", "pii_replaced", "pii_found_row_share")
    class SplitSha256Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class LabelCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class GroupCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class IdentifierClassesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: IdentifierClass
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[IdentifierClass, _Mapping]] = ...) -> None: ...
    class ScreenedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class TestGroupCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class UntestedGroupsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class SplitSharesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class PiiQualityEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: DetectorQuality
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[DetectorQuality, _Mapping]] = ...) -> None: ...
    ROWS_FIELD_NUMBER: _ClassVar[int]
    VALID_ROWS_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    INVALID_ROWS_FIELD_NUMBER: _ClassVar[int]
    PII_FIELD_NUMBER: _ClassVar[int]
    PII_ROW_SHARE_FIELD_NUMBER: _ClassVar[int]
    PII_ROWS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_ROWS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_ROWS_FIELD_NUMBER: _ClassVar[int]
    SELECTION_ROWS_FIELD_NUMBER: _ClassVar[int]
    TEST_ROWS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_ROWS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CANARIES_INSERTED_FIELD_NUMBER: _ClassVar[int]
    CANARIES_HELD_OUT_FIELD_NUMBER: _ClassVar[int]
    SINGLE_CANARIES_INSERTED_FIELD_NUMBER: _ClassVar[int]
    SINGLE_CANARIES_HELD_OUT_FIELD_NUMBER: _ClassVar[int]
    CANARY_MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    SPLIT_SHA256_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    LABEL_COUNTS_FIELD_NUMBER: _ClassVar[int]
    GROUP_COUNTS_FIELD_NUMBER: _ClassVar[int]
    PII_DETECTOR_FIELD_NUMBER: _ClassVar[int]
    LONGEST_ROW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_PII_SPANS_FIELD_NUMBER: _ClassVar[int]
    CANARY_ROWS_FIELD_NUMBER: _ClassVar[int]
    IDENTIFIER_CLASSES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SCREENS_FIELD_NUMBER: _ClassVar[int]
    SCREENED_FIELD_NUMBER: _ClassVar[int]
    SCREEN_QUALITY_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    LABEL_BALANCE_FIELD_NUMBER: _ClassVar[int]
    SMALLEST_GROUP_ROWS_FIELD_NUMBER: _ClassVar[int]
    SPLIT_UNITS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_USERS_FIELD_NUMBER: _ClassVar[int]
    ROWS_WITHOUT_GROUP_FIELD_NUMBER: _ClassVar[int]
    TEST_ROWS_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    TEST_GROUP_COUNTS_FIELD_NUMBER: _ClassVar[int]
    UNTESTED_GROUPS_FIELD_NUMBER: _ClassVar[int]
    PARENT_ROWS_FIELD_NUMBER: _ClassVar[int]
    UNREAD_PARENTS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_PII_UNITS_FIELD_NUMBER: _ClassVar[int]
    COMPARED_GROUPS_FIELD_NUMBER: _ClassVar[int]
    SPLIT_SHARES_FIELD_NUMBER: _ClassVar[int]
    FAVOURABLE_LABEL_FIELD_NUMBER: _ClassVar[int]
    GROUP_LABELS_FIELD_NUMBER: _ClassVar[int]
    PII_QUALITY_FIELD_NUMBER: _ClassVar[int]
    PII_ACTION_FIELD_NUMBER: _ClassVar[int]
    PII_REPLACED_FIELD_NUMBER: _ClassVar[int]
    PII_FOUND_ROW_SHARE_FIELD_NUMBER: _ClassVar[int]
    rows: int
    valid_rows: int
    findings: _containers.RepeatedCompositeFieldContainer[RowFinding]
    invalid_rows: int
    pii: _containers.RepeatedCompositeFieldContainer[PiiFinding]
    pii_row_share: float
    pii_rows: _containers.RepeatedScalarFieldContainer[int]
    train_rows: int
    validation_rows: int
    selection_rows: int
    test_rows: int
    duplicate_rows: int
    train_tokens: int
    canaries_inserted: int
    canaries_held_out: int
    single_canaries_inserted: int
    single_canaries_held_out: int
    canary_manifest_sha256: str
    split_sha256: _containers.ScalarMap[str, str]
    columns: _containers.RepeatedScalarFieldContainer[str]
    label_counts: _containers.ScalarMap[str, int]
    group_counts: _containers.ScalarMap[str, int]
    pii_detector: str
    longest_row_tokens: int
    train_pii_spans: int
    canary_rows: int
    identifier_classes: _containers.MessageMap[str, IdentifierClass]
    labels: _containers.RepeatedScalarFieldContainer[str]
    rejected_tokens: int
    screens: _containers.RepeatedCompositeFieldContainer[ScreenFinding]
    screened: _containers.ScalarMap[str, str]
    screen_quality: _containers.RepeatedCompositeFieldContainer[ScreenQuality]
    lengths: LengthStatistics
    label_balance: float
    smallest_group_rows: int
    split_units: int
    train_users: int
    rows_without_group: int
    test_rows_left_out: int
    test_group_counts: _containers.ScalarMap[str, int]
    untested_groups: _containers.ScalarMap[str, int]
    parent_rows: int
    unread_parents: int
    train_pii_units: int
    compared_groups: _containers.RepeatedScalarFieldContainer[str]
    split_shares: _containers.ScalarMap[str, float]
    favourable_label: str
    group_labels: _containers.RepeatedCompositeFieldContainer[GroupLabels]
    pii_quality: _containers.MessageMap[str, DetectorQuality]
    pii_action: _dataset_pb2.PiiAction
    pii_replaced: int
    pii_found_row_share: float
    def __init__(self, rows: _Optional[int] = ..., valid_rows: _Optional[int] = ..., findings: _Optional[_Iterable[_Union[RowFinding, _Mapping]]] = ..., invalid_rows: _Optional[int] = ..., pii: _Optional[_Iterable[_Union[PiiFinding, _Mapping]]] = ..., pii_row_share: _Optional[float] = ..., pii_rows: _Optional[_Iterable[int]] = ..., train_rows: _Optional[int] = ..., validation_rows: _Optional[int] = ..., selection_rows: _Optional[int] = ..., test_rows: _Optional[int] = ..., duplicate_rows: _Optional[int] = ..., train_tokens: _Optional[int] = ..., canaries_inserted: _Optional[int] = ..., canaries_held_out: _Optional[int] = ..., single_canaries_inserted: _Optional[int] = ..., single_canaries_held_out: _Optional[int] = ..., canary_manifest_sha256: _Optional[str] = ..., split_sha256: _Optional[_Mapping[str, str]] = ..., columns: _Optional[_Iterable[str]] = ..., label_counts: _Optional[_Mapping[str, int]] = ..., group_counts: _Optional[_Mapping[str, int]] = ..., pii_detector: _Optional[str] = ..., longest_row_tokens: _Optional[int] = ..., train_pii_spans: _Optional[int] = ..., canary_rows: _Optional[int] = ..., identifier_classes: _Optional[_Mapping[str, IdentifierClass]] = ..., labels: _Optional[_Iterable[str]] = ..., rejected_tokens: _Optional[int] = ..., screens: _Optional[_Iterable[_Union[ScreenFinding, _Mapping]]] = ..., screened: _Optional[_Mapping[str, str]] = ..., screen_quality: _Optional[_Iterable[_Union[ScreenQuality, _Mapping]]] = ..., lengths: _Optional[_Union[LengthStatistics, _Mapping]] = ..., label_balance: _Optional[float] = ..., smallest_group_rows: _Optional[int] = ..., split_units: _Optional[int] = ..., train_users: _Optional[int] = ..., rows_without_group: _Optional[int] = ..., test_rows_left_out: _Optional[int] = ..., test_group_counts: _Optional[_Mapping[str, int]] = ..., untested_groups: _Optional[_Mapping[str, int]] = ..., parent_rows: _Optional[int] = ..., unread_parents: _Optional[int] = ..., train_pii_units: _Optional[int] = ..., compared_groups: _Optional[_Iterable[str]] = ..., split_shares: _Optional[_Mapping[str, float]] = ..., favourable_label: _Optional[str] = ..., group_labels: _Optional[_Iterable[_Union[GroupLabels, _Mapping]]] = ..., pii_quality: _Optional[_Mapping[str, DetectorQuality]] = ..., pii_action: _Optional[_Union[_dataset_pb2.PiiAction, str]] = ..., pii_replaced: _Optional[int] = ..., pii_found_row_share: _Optional[float] = ...) -> None: ...

class BaseModelFacts(_message.Message):
    __slots__ = ("id", "licence", "sha256", "parameters", "provenance", "training_flop", "scan_sha256")
    ID_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FLOP_FIELD_NUMBER: _ClassVar[int]
    SCAN_SHA256_FIELD_NUMBER: _ClassVar[int]
    id: str
    licence: str
    sha256: str
    parameters: int
    provenance: str
    training_flop: float
    scan_sha256: str
    def __init__(self, id: _Optional[str] = ..., licence: _Optional[str] = ..., sha256: _Optional[str] = ..., parameters: _Optional[int] = ..., provenance: _Optional[str] = ..., training_flop: _Optional[float] = ..., scan_sha256: _Optional[str] = ...) -> None: ...

class DifferentialPrivacy(_message.Message):
    __slots__ = ("epsilon", "delta", "noise_multiplier", "unit")
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    NOISE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    epsilon: float
    delta: float
    noise_multiplier: float
    unit: str
    def __init__(self, epsilon: _Optional[float] = ..., delta: _Optional[float] = ..., noise_multiplier: _Optional[float] = ..., unit: _Optional[str] = ...) -> None: ...

class Search(_message.Message):
    __slots__ = ("lora_ranks", "learning_rates")
    LORA_RANKS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATES_FIELD_NUMBER: _ClassVar[int]
    lora_ranks: _containers.RepeatedScalarFieldContainer[int]
    learning_rates: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, lora_ranks: _Optional[_Iterable[int]] = ..., learning_rates: _Optional[_Iterable[float]] = ...) -> None: ...

class Artefact(_message.Message):
    __slots__ = ("kind", "sha256", "title", "issuer", "date")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    DATE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    sha256: str
    title: str
    issuer: str
    date: str
    def __init__(self, kind: _Optional[str] = ..., sha256: _Optional[str] = ..., title: _Optional[str] = ..., issuer: _Optional[str] = ..., date: _Optional[str] = ...) -> None: ...

class UseDeclaration(_message.Message):
    __slots__ = ("jurisdictions", "domain", "risk_tier", "deidentification", "own_brand", "substantial_modification", "purpose_becomes_high_risk", "special_categories", "decides_about_people", "meets_people", "solely_automated", "artefacts")
    JURISDICTIONS_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    RISK_TIER_FIELD_NUMBER: _ClassVar[int]
    DEIDENTIFICATION_FIELD_NUMBER: _ClassVar[int]
    OWN_BRAND_FIELD_NUMBER: _ClassVar[int]
    SUBSTANTIAL_MODIFICATION_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_BECOMES_HIGH_RISK_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    DECIDES_ABOUT_PEOPLE_FIELD_NUMBER: _ClassVar[int]
    MEETS_PEOPLE_FIELD_NUMBER: _ClassVar[int]
    SOLELY_AUTOMATED_FIELD_NUMBER: _ClassVar[int]
    ARTEFACTS_FIELD_NUMBER: _ClassVar[int]
    jurisdictions: _containers.RepeatedScalarFieldContainer[str]
    domain: str
    risk_tier: str
    deidentification: str
    own_brand: bool
    substantial_modification: bool
    purpose_becomes_high_risk: bool
    special_categories: bool
    decides_about_people: bool
    meets_people: bool
    solely_automated: bool
    artefacts: _containers.RepeatedCompositeFieldContainer[Artefact]
    def __init__(self, jurisdictions: _Optional[_Iterable[str]] = ..., domain: _Optional[str] = ..., risk_tier: _Optional[str] = ..., deidentification: _Optional[str] = ..., own_brand: _Optional[bool] = ..., substantial_modification: _Optional[bool] = ..., purpose_becomes_high_risk: _Optional[bool] = ..., special_categories: _Optional[bool] = ..., decides_about_people: _Optional[bool] = ..., meets_people: _Optional[bool] = ..., solely_automated: _Optional[bool] = ..., artefacts: _Optional[_Iterable[_Union[Artefact, _Mapping]]] = ...) -> None: ...

class BudgetEntry(_message.Message):
    __slots__ = ("job", "epsilon_micros", "usd_micros", "day", "record_index", "privacy_unit")
    JOB_FIELD_NUMBER: _ClassVar[int]
    EPSILON_MICROS_FIELD_NUMBER: _ClassVar[int]
    USD_MICROS_FIELD_NUMBER: _ClassVar[int]
    DAY_FIELD_NUMBER: _ClassVar[int]
    RECORD_INDEX_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_UNIT_FIELD_NUMBER: _ClassVar[int]
    job: str
    epsilon_micros: int
    usd_micros: int
    day: str
    record_index: int
    privacy_unit: str
    def __init__(self, job: _Optional[str] = ..., epsilon_micros: _Optional[int] = ..., usd_micros: _Optional[int] = ..., day: _Optional[str] = ..., record_index: _Optional[int] = ..., privacy_unit: _Optional[str] = ...) -> None: ...

class CountedJob(_message.Message):
    __slots__ = ("job", "day", "state", "record_index")
    JOB_FIELD_NUMBER: _ClassVar[int]
    DAY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RECORD_INDEX_FIELD_NUMBER: _ClassVar[int]
    job: str
    day: str
    state: str
    record_index: int
    def __init__(self, job: _Optional[str] = ..., day: _Optional[str] = ..., state: _Optional[str] = ..., record_index: _Optional[int] = ...) -> None: ...

class AccountFacts(_message.Message):
    __slots__ = ("dataset_epsilon_micros", "unit_usd_micros", "unit_jobs_today", "unit_jobs_under_way", "dataset_entries", "unit_entries", "dataset_privacy_units", "unit_jobs", "dataset_jobs_judged", "dataset_jobs_held_back")
    DATASET_EPSILON_MICROS_FIELD_NUMBER: _ClassVar[int]
    UNIT_USD_MICROS_FIELD_NUMBER: _ClassVar[int]
    UNIT_JOBS_TODAY_FIELD_NUMBER: _ClassVar[int]
    UNIT_JOBS_UNDER_WAY_FIELD_NUMBER: _ClassVar[int]
    DATASET_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    UNIT_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    DATASET_PRIVACY_UNITS_FIELD_NUMBER: _ClassVar[int]
    UNIT_JOBS_FIELD_NUMBER: _ClassVar[int]
    DATASET_JOBS_JUDGED_FIELD_NUMBER: _ClassVar[int]
    DATASET_JOBS_HELD_BACK_FIELD_NUMBER: _ClassVar[int]
    dataset_epsilon_micros: int
    unit_usd_micros: int
    unit_jobs_today: int
    unit_jobs_under_way: int
    dataset_entries: _containers.RepeatedCompositeFieldContainer[BudgetEntry]
    unit_entries: _containers.RepeatedCompositeFieldContainer[BudgetEntry]
    dataset_privacy_units: _containers.RepeatedScalarFieldContainer[str]
    unit_jobs: _containers.RepeatedCompositeFieldContainer[CountedJob]
    dataset_jobs_judged: int
    dataset_jobs_held_back: int
    def __init__(self, dataset_epsilon_micros: _Optional[int] = ..., unit_usd_micros: _Optional[int] = ..., unit_jobs_today: _Optional[int] = ..., unit_jobs_under_way: _Optional[int] = ..., dataset_entries: _Optional[_Iterable[_Union[BudgetEntry, _Mapping]]] = ..., unit_entries: _Optional[_Iterable[_Union[BudgetEntry, _Mapping]]] = ..., dataset_privacy_units: _Optional[_Iterable[str]] = ..., unit_jobs: _Optional[_Iterable[_Union[CountedJob, _Mapping]]] = ..., dataset_jobs_judged: _Optional[int] = ..., dataset_jobs_held_back: _Optional[int] = ...) -> None: ...

class IdentifierClass(_message.Message):
    __slots__ = ("detector", "alternative", "recall_lower", "n", "title", "found", "removed", "recall")
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVE_FIELD_NUMBER: _ClassVar[int]
    RECALL_LOWER_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    detector: str
    alternative: str
    recall_lower: float
    n: int
    title: str
    found: int
    removed: bool
    recall: float
    def __init__(self, detector: _Optional[str] = ..., alternative: _Optional[str] = ..., recall_lower: _Optional[float] = ..., n: _Optional[int] = ..., title: _Optional[str] = ..., found: _Optional[int] = ..., removed: _Optional[bool] = ..., recall: _Optional[float] = ...) -> None: ...

class RequestFacts(_message.Message):
    __slots__ = ("unit", "purpose", "requester", "method", "region", "budget_usd_micros", "quote_usd_micros", "max_train_tokens", "planned_train_tokens", "differential_privacy", "audit_profile", "epochs", "use", "parent", "teacher", "search", "batch_size", "max_row_tokens")
    UNIT_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    REQUESTER_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    BUDGET_USD_MICROS_FIELD_NUMBER: _ClassVar[int]
    QUOTE_USD_MICROS_FIELD_NUMBER: _ClassVar[int]
    MAX_TRAIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PLANNED_TRAIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DIFFERENTIAL_PRIVACY_FIELD_NUMBER: _ClassVar[int]
    AUDIT_PROFILE_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    USE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    TEACHER_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_ROW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    unit: str
    purpose: str
    requester: str
    method: str
    region: str
    budget_usd_micros: int
    quote_usd_micros: int
    max_train_tokens: int
    planned_train_tokens: int
    differential_privacy: DifferentialPrivacy
    audit_profile: str
    epochs: float
    use: UseDeclaration
    parent: ParentModel
    teacher: TeacherFacts
    search: Search
    batch_size: int
    max_row_tokens: int
    def __init__(self, unit: _Optional[str] = ..., purpose: _Optional[str] = ..., requester: _Optional[str] = ..., method: _Optional[str] = ..., region: _Optional[str] = ..., budget_usd_micros: _Optional[int] = ..., quote_usd_micros: _Optional[int] = ..., max_train_tokens: _Optional[int] = ..., planned_train_tokens: _Optional[int] = ..., differential_privacy: _Optional[_Union[DifferentialPrivacy, _Mapping]] = ..., audit_profile: _Optional[str] = ..., epochs: _Optional[float] = ..., use: _Optional[_Union[UseDeclaration, _Mapping]] = ..., parent: _Optional[_Union[ParentModel, _Mapping]] = ..., teacher: _Optional[_Union[TeacherFacts, _Mapping]] = ..., search: _Optional[_Union[Search, _Mapping]] = ..., batch_size: _Optional[int] = ..., max_row_tokens: _Optional[int] = ...) -> None: ...

class ParentModel(_message.Message):
    __slots__ = ("name", "adapter_sha256", "base_sha256", "state", "differentially_private", "method", "train_tokens")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SHA256_FIELD_NUMBER: _ClassVar[int]
    BASE_SHA256_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DIFFERENTIALLY_PRIVATE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TRAIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    name: str
    adapter_sha256: str
    base_sha256: str
    state: str
    differentially_private: bool
    method: str
    train_tokens: int
    def __init__(self, name: _Optional[str] = ..., adapter_sha256: _Optional[str] = ..., base_sha256: _Optional[str] = ..., state: _Optional[str] = ..., differentially_private: _Optional[bool] = ..., method: _Optional[str] = ..., train_tokens: _Optional[int] = ...) -> None: ...

class TeacherFacts(_message.Message):
    __slots__ = ("name", "licence", "licence_source", "state", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    LICENCE_SOURCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    licence: str
    licence_source: str
    state: str
    sha256: str
    def __init__(self, name: _Optional[str] = ..., licence: _Optional[str] = ..., licence_source: _Optional[str] = ..., state: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class IntakeInput(_message.Message):
    __slots__ = ("request", "datasheet", "format", "data", "base_model", "as_of", "account")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    DATASHEET_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    request: RequestFacts
    datasheet: _dataset_pb2.Datasheet
    format: _dataset_pb2.DatasetFormat
    data: DataFacts
    base_model: BaseModelFacts
    as_of: str
    account: AccountFacts
    def __init__(self, request: _Optional[_Union[RequestFacts, _Mapping]] = ..., datasheet: _Optional[_Union[_dataset_pb2.Datasheet, _Mapping]] = ..., format: _Optional[_Union[_dataset_pb2.DatasetFormat, str]] = ..., data: _Optional[_Union[DataFacts, _Mapping]] = ..., base_model: _Optional[_Union[BaseModelFacts, _Mapping]] = ..., as_of: _Optional[str] = ..., account: _Optional[_Union[AccountFacts, _Mapping]] = ...) -> None: ...

class ReleaseInput(_message.Message):
    __slots__ = ("request", "datasheet", "format", "plan", "measurements", "run", "as_of", "live")
    class MeasurementsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _measurement_pb2.Measurement
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_measurement_pb2.Measurement, _Mapping]] = ...) -> None: ...
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    DATASHEET_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENTS_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    request: RequestFacts
    datasheet: _dataset_pb2.Datasheet
    format: _dataset_pb2.DatasetFormat
    plan: _measurement_pb2.AuditPlan
    measurements: _containers.MessageMap[str, _measurement_pb2.Measurement]
    run: RunFacts
    as_of: str
    live: LiveFacts
    def __init__(self, request: _Optional[_Union[RequestFacts, _Mapping]] = ..., datasheet: _Optional[_Union[_dataset_pb2.Datasheet, _Mapping]] = ..., format: _Optional[_Union[_dataset_pb2.DatasetFormat, str]] = ..., plan: _Optional[_Union[_measurement_pb2.AuditPlan, _Mapping]] = ..., measurements: _Optional[_Mapping[str, _measurement_pb2.Measurement]] = ..., run: _Optional[_Union[RunFacts, _Mapping]] = ..., as_of: _Optional[str] = ..., live: _Optional[_Union[LiveFacts, _Mapping]] = ...) -> None: ...

class LiveFacts(_message.Message):
    __slots__ = ("days_since_audit", "days_since_approval", "environment")
    DAYS_SINCE_AUDIT_FIELD_NUMBER: _ClassVar[int]
    DAYS_SINCE_APPROVAL_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    days_since_audit: int
    days_since_approval: int
    environment: str
    def __init__(self, days_since_audit: _Optional[int] = ..., days_since_approval: _Optional[int] = ..., environment: _Optional[str] = ...) -> None: ...

class RunFacts(_message.Message):
    __slots__ = ("isolation", "cut_off_proven", "adapter_sane", "trained_tokens", "cost_usd_micros", "statement_verified", "audit_verified")
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    CUT_OFF_PROVEN_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SANE_FIELD_NUMBER: _ClassVar[int]
    TRAINED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COST_USD_MICROS_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_VERIFIED_FIELD_NUMBER: _ClassVar[int]
    AUDIT_VERIFIED_FIELD_NUMBER: _ClassVar[int]
    isolation: str
    cut_off_proven: bool
    adapter_sane: bool
    trained_tokens: int
    cost_usd_micros: int
    statement_verified: bool
    audit_verified: bool
    def __init__(self, isolation: _Optional[str] = ..., cut_off_proven: _Optional[bool] = ..., adapter_sane: _Optional[bool] = ..., trained_tokens: _Optional[int] = ..., cost_usd_micros: _Optional[int] = ..., statement_verified: _Optional[bool] = ..., audit_verified: _Optional[bool] = ...) -> None: ...
