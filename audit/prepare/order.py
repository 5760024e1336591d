"""What the gateway asks of a prepare task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NoReturn

from assay.dp_sgd import ROW, USER
from assay.errors import FieldViolation, InvalidInputError
from audit.prepare.actions import PiiAction
from audit.prepare.canaries import CanaryNumbers
from audit.prepare.parse_table import TableColumns
from audit.prepare.splits import SplitPlan

CHAT = "DATASET_FORMAT_CHAT_JSONL"
TABLE = "DATASET_FORMAT_DECISION_CSV"
PARQUET = "DATASET_FORMAT_DECISION_PARQUET"
COMPLETION = "DATASET_FORMAT_PROMPT_COMPLETION_JSONL"
PREFERENCE = "DATASET_FORMAT_PREFERENCE_JSONL"
TABLES = frozenset({TABLE, PARQUET})
TABLE_TEST_SHARE = Fraction(1, 4)
"""A table's test split is larger: the fairness audit is only as good as its smallest group."""

_PREFIX = "DATASET_FORMAT_"
_FORMATS = {name.removeprefix(_PREFIX): name for name in (CHAT, TABLE, PARQUET, COMPLETION, PREFERENCE)}


@dataclass(frozen=True)
class PrepareOrder:
    """The order of a prepare task.

    Attributes:
        format: enum name of ``assay.v1.DatasetFormat``.
        columns: what the datasheet says of a table's columns.
        base_model: whose tokenizer counts.
        seed: of the splits.
        canaries: how many.
        splits: shares.
        pii_action: what becomes of personal data.
        group_field: what says that rows belong together; empty for nothing.
        privacy_unit: ``user`` where the trainer must know which rows are one user's; else ``row``.
        parents: train files of models of before that are among the inputs.
        unread_parents: such models whose rows are not kept any more.
    """

    format: str
    columns: TableColumns
    base_model: str
    seed: int
    canaries: CanaryNumbers
    splits: SplitPlan
    pii_action: PiiAction = PiiAction.REPORT
    group_field: str = ""
    privacy_unit: str = ROW
    parents: int = 0
    unread_parents: int = 0

    @classmethod
    def parse(cls, order: Mapping[str, Any]) -> PrepareOrder:
        """Reads the order's JSON.

        Raises:
            InvalidInputError: ``PREPARE_ORDER`` naming the field.
        """
        kind = _FORMATS.get(str(order.get("format")).removeprefix(_PREFIX))
        if kind is None:
            _refuse("format", f"must be one of {', '.join(_FORMATS)}")
        base_model = order.get("base_model")
        if not isinstance(base_model, str) or not base_model or "/" in base_model or base_model.startswith("."):
            _refuse("base_model", "must be a registry id")
        wanted = order.get("canaries") or {}
        numbers = CanaryNumbers(
            *(_whole(wanted, name, default) for name, default in (("a", 0), ("b", 0), ("b_repeats", 1)))
        )
        plan = SplitPlan(test=TABLE_TEST_SHARE) if kind in TABLES else SplitPlan()
        sheet = order.get("datasheet") or {}
        if not isinstance(sheet, Mapping):
            _refuse("datasheet", "must be an object")
        unit = order.get("privacy_unit", ROW)
        if unit not in (ROW, USER):
            _refuse("privacy_unit", f"must be {ROW} or {USER}")
        return cls(
            kind,
            _columns(sheet),
            base_model,
            _whole(order, "seed", 0),
            numbers,
            plan,
            _action(sheet),
            str(sheet.get("group_field", sheet.get("groupField", "")) or ""),
            unit,
            *(max(0, _whole(order, name, 0)) for name in ("parents", "unread_parents")),
        )


def _action(sheet: Mapping[str, Any]) -> PiiAction:
    name = str(sheet.get("pii_action", sheet.get("piiAction", "")) or "").removeprefix("PII_ACTION_")
    if name in ("", "UNSPECIFIED"):
        return PiiAction.REPORT
    if name not in PiiAction.__members__:
        _refuse("datasheet.pii_action", f"must be one of {', '.join(PiiAction)}")
    return PiiAction[name]


def _columns(sheet: Mapping[str, Any]) -> TableColumns:
    def text(name: str, camel: str) -> str:
        return str(sheet.get(name, sheet.get(camel, "")) or "")

    def texts(name: str, camel: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(v) for v in sheet.get(name, sheet.get(camel, ())) or ()))

    return TableColumns(
        label=text("label_column", "labelColumn"),
        sensitive=texts("sensitive_attributes", "sensitiveAttributes"),
        hidden=texts("hidden_columns", "hiddenColumns"),
        favourable=text("favourable_label", "favourableLabel"),
        group=text("group_field", "groupField"),
    )


def _whole(value: Any, name: str, default: int) -> int:
    number = value.get(name, default) if isinstance(value, Mapping) else None
    if isinstance(number, str) and number.lstrip("-").isdigit() and len(number) < 20:
        number = int(number)
    if not isinstance(number, int) or isinstance(number, bool) or abs(number) >= 2**63:
        _refuse(name, "must be a whole number")
    return number


def _refuse(field: str, why: str) -> NoReturn:
    message = f"{field} {why}"
    raise InvalidInputError("PREPARE_ORDER", message, violations=(FieldViolation(f"order.{field}", why),))
