"""Our bootstrap of group metrics beside fairlearn's: ``python -m benchmarks.bootstrap`` prints one JSON object.

Both resample the same 400 decisions in four groups and give the quantiles of selection, true and false positive rates
by group, and of their ratios and differences. They run alternately, so that other load meets both; a time is that of
one resample, and ``bootstrap_ratio`` the median over the rounds of fairlearn's over ours. ``largest_difference`` is
between the quantiles that the two give on *fairlearn's own draws*: 0 up to rounding.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import numpy as np

from audit.probes import bootstrap

ROWS, GROUPS, QUANTILES = 400, ("a", "b", "c", "d"), (0.05, 0.95)
THEIRS, OURS = 40, 4000


def decisions(seed: int = 0) -> tuple[list[str], list[bool], list[bool]]:
    """Groups, whether each row deserved the favourable decision, and whether it got it."""
    rng = np.random.default_rng(seed)
    groups = rng.choice(GROUPS, ROWS).tolist()
    deserved = rng.random(ROWS) < 0.5
    decided = rng.random(ROWS) < np.where(deserved, 0.8, 0.3)
    return groups, deserved.tolist(), decided.tolist()


def fairlearn_frame(groups: list[str], deserved: list[bool], decided: list[bool], resamples: int, seed: int) -> Any:
    """Fairlearn's MetricFrame with its own bootstrap."""
    from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate

    return MetricFrame(
        metrics={"selection": selection_rate, "tpr": true_positive_rate, "fpr": false_positive_rate},
        y_true=np.array(deserved).astype(int),
        y_pred=np.array(decided).astype(int),
        sensitive_features=np.array(groups),
        n_boot=resamples,
        ci_quantiles=list(QUANTILES),
        random_state=seed,
    )


def fairlearn_draws(kinds: Any, kind_count: int, resamples: int, seed: int) -> Any:
    """How often each kind of row is in each of fairlearn's resamples, drawn as fairlearn and pandas draw them."""
    seeds = np.random.default_rng(seed=seed).integers(0, np.iinfo(np.uint32).max, size=resamples, dtype=np.uint32)
    drawn = [np.random.RandomState(s).choice(len(kinds), len(kinds), replace=True) for s in seeds]
    return np.array([np.bincount(kinds[rows], minlength=kind_count) for rows in drawn])


def quantiles(found: bootstrap.GroupMetrics) -> dict[str, Any]:
    """Quantiles of each metric by group, of its lowest over highest value and of its largest difference."""
    metrics = {
        "selection": found.selection_rate,
        "tpr": found.true_positive_rate,
        "fpr": found.false_positive_rate,
    }
    out: dict[str, Any] = {}
    for name, values in metrics.items():
        out[name] = np.quantile(values, QUANTILES, axis=0)
        out[f"{name} ratio"] = np.quantile(bootstrap.ratio(values), QUANTILES)
        out[f"{name} difference"] = np.quantile(bootstrap.spread(values), QUANTILES)
    return out


def theirs(frame: Any) -> dict[str, Any]:
    """The same numbers of a fairlearn frame."""
    out: dict[str, Any] = {}
    for name in ("selection", "tpr", "fpr"):
        out[name] = np.array([q[name].to_numpy() for q in frame.by_group_ci])
        out[f"{name} ratio"] = np.array([q[name] for q in frame.ratio_ci()])
        out[f"{name} difference"] = np.array([q[name] for q in frame.difference_ci()])
    return out


def largest_difference(resamples: int = THEIRS, seed: int = 5) -> float:
    """Largest difference between our quantiles and fairlearn's on the same draws."""
    rows = decisions()
    names, kinds = bootstrap.row_kinds(*rows)
    ours = quantiles(bootstrap.metrics_of(names, fairlearn_draws(kinds, 4 * len(names), resamples, seed)))
    expected = theirs(fairlearn_frame(*rows, resamples, seed))
    return max(float(np.abs(ours[name] - expected[name]).max()) for name in ours)


def measure(rounds: int = 3) -> dict[str, Any]:
    """Times both, alternately."""
    rows = decisions()
    ratios = []
    for turn in range(rounds):
        start = time.perf_counter()
        fairlearn_frame(*rows, THEIRS, turn)
        slow = (time.perf_counter() - start) / THEIRS
        start = time.perf_counter()
        quantiles(bootstrap.group_metrics(*rows, OURS, np.random.default_rng(turn)))
        ratios.append(slow / ((time.perf_counter() - start) / OURS))
    return {
        "bootstrap_ratio": round(statistics.median(ratios), 1),
        "bootstrap_ratio_low": round(min(ratios), 1),
        "bootstrap_ratio_high": round(max(ratios), 1),
        "bootstrap_largest_difference": largest_difference(),
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
