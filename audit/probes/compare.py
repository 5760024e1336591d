"""Two reports of one audit, number by number: PASS, CAVEAT or FAIL, each with its reason.

Under the batch plan, number format, processor, libraries and evaluation sets of the record every number must come out
bit for bit, and every series, and what was not tested. Where one of those differs, floating point sums in another
order, and a number may differ by the tolerance of its unit; that is a CAVEAT, which names what differs. Whether a
gate's interval lies inside, outside or across its limit must never change; nor may what release policy answers, which
``gateway.rejudging`` asks again. Where other code measures otherwise, as the methods say, that is a CAVEAT too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from assay.reperformance import CAVEAT, FAIL, PASS, Line
from assay.v1 import measurement_pb2
from audit.probes.instruments import SOURCES

Measurement = measurement_pb2.Measurement

CLOCKED = ("cost.audit_seconds", "cost.usd_per_1000_requests", "cost.break_even_requests")
"""Measured by a clock: another number each time, on any machine."""
TOLERANCE: Mapping[str, float] = {"nats": 0.05, "bits": 0.5, "ratio": 0.02, "count": 0.5}
"""Largest difference in another environment, by unit; bf16 against fp32 moves a mean loss by 0.015 nats."""
_IDENTITIES = ("adapter_sha256", "base_sha256")
_FREE = ("python",)
_AXIS_SHARE = 0.1


def key_of(m: Measurement) -> str:
    """Name and slice, as limits name it."""
    return f"{m.name}[{m.slice}]" if m.slice else m.name


def differing(recorded: Mapping[str, str], again: Mapping[str, str]) -> list[str]:
    """What of the environment differs, in words; empty where bits must be equal."""
    names = sorted((set(recorded) | set(again)) - set(_FREE))
    return [f"{n} {recorded.get(n, '-')} -> {again.get(n, '-')}" for n in names if recorded.get(n) != again.get(n)]


def compare(
    plan: measurement_pb2.AuditPlan, recorded: measurement_pb2.AuditReport, again: measurement_pb2.AuditReport
) -> list[Line]:
    """Compares every measurement and series of either report, what was left out, and every gate of the plan."""
    first = {key_of(m): m for m in recorded.measurements}
    second = {key_of(m): m for m in again.measurements}
    changes = differing(recorded.environment, again.environment)
    lines = [_identity(n, recorded.environment.get(n, ""), again.environment.get(n, "")) for n in _IDENTITIES]
    lines += [_number(name, first.get(name), second.get(name), changes) for name in sorted(first | second)]
    plots, others = ({s.name: s for s in report.series} for report in (recorded, again))
    lines += [_series(name, plots.get(name), others.get(name), changes) for name in sorted(plots | others)]
    lines.append(_not_tested(set(recorded.not_tested), set(again.not_tested), changes))
    return [*lines, *_gates(plan, first, second)]


def _identity(name: str, recorded: str, again: str) -> Line:
    same = recorded == again and bool(recorded)
    reason = "the same files" if same else "other files than those that were audited"
    return Line(name, PASS if same else FAIL, reason, recorded[:16], again[:16])


def _number(name: str, first: Measurement | None, second: Measurement | None, changes: Sequence[str]) -> Line:
    shown = (_shown(first), _shown(second))
    if first is None or second is None:
        return Line(name, FAIL, "; ".join(("only one of the reports holds it", *changes)), *shown)
    if first.name in CLOCKED:
        return Line(name, CAVEAT, "measured by a clock", *shown)
    if first == second:
        return Line(name, PASS, "bit for bit", *shown)
    if first.method != second.method and any(c.startswith(f"{SOURCES} ") for c in changes):
        # As the recorded method says. A gate on it must read the same all the same.
        return Line(name, CAVEAT, f"measured another way since: {second.method}", *shown)
    if not changes:
        why = "another number under the same batch plan, processor, libraries and evaluation sets"
        return Line(name, FAIL, why, *shown)
    if first.HasField("value") != second.HasField("value") or first.n != second.n:
        why = f"measured on one side only, or on another number of rows; {'; '.join(changes)}"
        return Line(name, FAIL, why, *shown)
    room = max(TOLERANCE.get(first.unit, 0.0), 2 / first.n if first.HasField("successes") and first.n else 0.0)
    apart = _apart(first, second)
    if apart <= room:
        return Line(name, CAVEAT, f"within {room:g} {first.unit}; {'; '.join(changes)}", *shown)
    return Line(name, FAIL, f"{apart:.3g} {first.unit} apart, more than {room:g}; {'; '.join(changes)}", *shown)


def _apart(first: Measurement, second: Measurement) -> float:
    """Largest difference of value, control and interval ends; infinite where one side lacks one."""
    ends = [[(i.confidence, i.HasField("lower"), i.HasField("upper")) for i in m.intervals] for m in (first, second)]
    if ends[0] != ends[1] or first.HasField("control") != second.HasField("control"):
        return math.inf
    pairs = [(first.value, second.value), (first.control, second.control)]
    for a, b in zip(first.intervals, second.intervals, strict=True):
        pairs += [(a.lower, b.lower), (a.upper, b.upper)]
    return max(abs(a - b) for a, b in pairs)


def _series(
    name: str, first: measurement_pb2.Series | None, second: measurement_pb2.Series | None, changes: Sequence[str]
) -> Line:
    """A plot's points: in another environment each within a tenth of what its axis spans."""
    shown = tuple("absent" if s is None else f"{len(s.points)} points" for s in (first, second))
    if first == second:
        return Line(f"series {name}", PASS, "bit for bit", *shown)
    if first is None or second is None or not changes or not _near(first, second):
        why = "; ".join(("other points", *changes))
        return Line(f"series {name}", FAIL, why, *shown)
    return Line(f"series {name}", CAVEAT, f"within a tenth of each axis; {'; '.join(changes)}", *shown)


def _near(first: measurement_pb2.Series, second: measurement_pb2.Series) -> bool:
    points, others = (sorted((p.label, tuple(p.values)) for p in s.points) for s in (first, second))
    if [(label, len(at)) for label, at in points] != [(label, len(at)) for label, at in others]:
        return False
    for axis in range(max((len(at) for _, at in points), default=0)):
        pairs = [(a[axis], b[axis]) for (_, a), (_, b) in zip(points, others, strict=True) if len(a) > axis]
        spanned = max(a for a, _ in pairs) - min(a for a, _ in pairs)
        if any(abs(a - b) > _AXIS_SHARE * max(spanned, 1.0) for a, b in pairs):
            return False
    return True


def _not_tested(first: set[str], second: set[str], changes: Sequence[str]) -> Line:
    shown = (f"{len(first)} notes", f"{len(second)} notes")
    if first == second:
        return Line("not tested", PASS, "the same", *shown)
    only = "; ".join(sorted(first ^ second))
    return Line("not tested", CAVEAT if changes else FAIL, f"on one side only: {only}", *shown)


def _gates(
    plan: measurement_pb2.AuditPlan, first: Mapping[str, Measurement], second: Mapping[str, Measurement]
) -> Iterator[Line]:
    for gate in plan.gates:
        readings = [reading(gate, found.get(gate.measurement)) for found in (first, second)]
        same = readings[0] == readings[1]
        reason = "the same decision" if same else "the interval lies elsewhere now"
        yield Line(f"gate {gate.rule_id} on {gate.measurement}", PASS if same else FAIL, reason, *readings)


def reading(gate: measurement_pb2.PlannedGate, m: Measurement | None) -> str:
    """Where the interval at the gate's level lies: ``inside``, ``outside`` or ``across`` its limit, or ``missing``."""
    level = 1 - gate.alpha
    at = next((i for i in (m.intervals if m is not None else ()) if abs(i.confidence - level) < 1e-9), None)
    if at is None:
        return "missing"
    lower = at.lower if at.HasField("lower") else -math.inf
    upper = at.upper if at.HasField("upper") else math.inf
    if gate.side == measurement_pb2.LIMIT_SIDE_AT_MOST:
        lower, upper, limit = -upper, -lower, -gate.limit
    else:
        limit = gate.limit
    return "inside" if lower >= limit else "outside" if upper < limit else "across"


def _shown(m: Measurement | None) -> str:
    if m is None:
        return "absent"
    return f"unavailable: {m.unavailable[:60]}" if m.unavailable else f"{m.value:.6g}"
