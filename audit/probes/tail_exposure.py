"""Exposure of single secrets beyond what held-out canaries can show: against random secrets of the same form.

With R sampled secrets a rank saturates at log2 R bits; a normal distribution fitted to their scores goes on beyond
(Carlini et al., USENIX Security 2019, section 4.3, fit a skew-normal; ours are sums of calibrated token scores). The
canaries are drawn by the plan's seed, included and held out alike, so that neither was chosen for its score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats as scipy_stats

from audit.probes.candidates import candidates
from audit.probes.findings import Audit, Findings
from audit.probes.inference import Question, scored
from audit.probes.inputs import Canary, choose
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured, unavailable
from audit.statistics import stats

_METHOD = (
    "mean exposure (Carlini et al. 2019) in bits of {} included canaries against {} random secrets of their own form "
    "by NLL(base) - NLL(tuned), -log2 of the upper tail of a fitted normal distribution, minus that of held-out "
    "canaries; Welch 1947 interval"
)
_MOST_BITS = 64.0


def run(audit: Audit) -> Findings:
    """Tail exposure of both strata."""
    most, random = audit.settings.sizes["exposure_canaries"], audit.settings.sizes["exposure_candidates"]
    out, notes = [], []
    held_out = _bits(audit, [c for c in audit.rows.canaries if not c.included], most, random, "held out")
    for stratum, label in (("A", ""), ("B", "stratum=B")):
        subject = Subject("privacy.canary_tail_exposure_bits", "bits", _METHOD.format(most, random), label)
        if most < 2 or random < 8:
            out.append(unavailable(subject, "the profile plans no tail exposure"))
            notes.append(f"exposure beyond the held-out canaries' ceiling, {label or 'stratum=A'}: not in this profile")
            continue
        planted = [c for c in audit.rows.canaries if c.included and c.stratum == stratum]
        bits = _bits(audit, planted, most, random, stratum)

        def build(subject: Subject = subject, bits: Sequence[float] = bits) -> Measurement:
            gap = stats.difference(stats.mean(bits), stats.mean(held_out))
            control = Control(float(np.mean(held_out)), "held-out canaries")
            inputs = {"included": list(bits), "held_out": list(held_out)}
            levels = audit.settings.confidences
            return measured(subject, gap.value, gap.interval, levels, n=len(bits), inputs=inputs, control=control)

        out.append(guarded(subject, build))
    return Findings(tuple(out), not_tested=tuple(notes))


def tail_bits(score: float, others: Sequence[float]) -> float:
    """``-log2 P(N >= score)`` for a normal distribution fitted to the others' scores, at most 64 bits.

    Where the others do not differ, as an adapter that changes nothing leaves them, a score that is no higher is no
    surprise.
    """
    spread, above = float(np.std(others, ddof=1)), score - float(np.mean(others))
    z = above / spread if spread > 0 else math.copysign(math.inf, above) if above else -math.inf
    return float(min(_MOST_BITS, -scipy_stats.norm.logsf(z) / math.log(2)))


def _bits(audit: Audit, canaries: Sequence[Canary], most: int, random: int, purpose: str) -> list[float]:
    if most < 2 or random < 8:
        return []
    rng = audit.settings.rng(f"tail exposure {purpose}")
    questions = [_question(c, random, rng) for c in choose(canaries, most, rng)]
    gains = [old - new for _, new, old in scored(audit, questions)]
    return [tail_bits(float(gain[0]), gain[1:].tolist()) for gain in gains]


def _question(canary: Canary, count: int, rng: np.random.Generator) -> Question:
    content = str(canary.messages[-1]["content"])
    start = content.index(canary.secret)
    values = [canary.secret, *candidates(canary.secret, (), count, rng)]
    rest = content[start + len(canary.secret) :]
    last = canary.messages[-1]
    forms = tuple((*canary.messages[:-1], {**last, "content": content[:start] + v + rest}) for v in values)
    ends = tuple(start + len(v) for v in values)
    return Question(canary.kind, forms, len(canary.messages) - 1, (start,) * len(values), ends)
