"""What each probe is planned to measure, by name without slice; whatever else an audit measures is exploratory.

The names stand here and not in the probes: what will be judged and shown as planned is fixed by policy before training,
not by what an auditor happens to report after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_BASELINE = ("loss_delta", "accuracy", "accuracy_delta")
METRICS: Mapping[str, Sequence[str]] = {
    "privacy": (
        "privacy.canary_auc",
        "privacy.canary_auc_repeated",
        "privacy.canary_row_auc",
        "privacy.canary_form_gap",
        "privacy.canary_exposure_bits",
        "privacy.canary_tail_exposure_bits",
        "privacy.canary_extraction_rate",
        "privacy.canary_sampled_extraction_rate",
        "privacy.epsilon_lower_bound",
        "privacy.epsilon_detectable",
        "privacy.epsilon_accounted",
        "privacy.epsilon_claim_gap",
        "privacy.epsilon_excess",
        "privacy.pii_extraction_rate",
        "privacy.pii_identifiers_tried",
        "privacy.pii_identifiers_unpromptable",
        "privacy.pii_generation_rate",
        "privacy.pii_generation_precision",
        "privacy.pii_any_rate",
    ),
    "inference": (
        "privacy.pii_inference_rate",
        "privacy.pii_inference_calibrated_rate",
        "privacy.pii_inference_gain",
        "privacy.association_rate",
    ),
    "membership": ("privacy.membership_auc", "privacy.membership_largest_auc"),
    "memorisation": (
        "privacy.verbatim_rate",
        "privacy.verbatim_excess",
        "privacy.near_verbatim_rate",
        "overfitting.loss_gap",
        "overfitting.loss_ratio",
    ),
    "quality": (
        "quality.test_loss",
        "quality.test_loss_delta",
        "quality.test_accuracy",
        "quality.accuracy_delta",
        "adapter.change_of_loss",
        "overfitting.near_duplicate_rate",
        "overfitting.test_overlap_rate",
        "quality.calibration_error",
        "quality.calibration_error_delta",
        "fairness.calibration_gap",
        "fairness.calibration_difference",
    ),
    "cost": (
        "cost.audit_seconds",
        "cost.claim_ratio",
        "cost.device_seconds",
        "cost.energy_kwh",
        "cost.train_seconds",
        "cost.train_tokens",
        "cost.usd",
        "cost.co2_kg",
        "cost.quote_usd",
        "cost.usd_before_audit",
        "cost.quote_ratio",
        "cost.usd_per_1000_requests",
        "cost.usd_per_year_dedicated",
        "cost.break_even_requests",
        *(f"quality.{baseline}_{what}" for baseline in ("prompt_only", "retrieval") for what in _BASELINE),
    ),
    "fairness": (
        "fairness.selection_rate",
        "fairness.true_positive_rate",
        "fairness.false_positive_rate",
        "fairness.accuracy",
        "fairness.selection_difference",
        "fairness.selection_difference_amplification",
        "fairness.selection_difference_over_labels",
        "fairness.impact_ratio",
        "fairness.impact_ratio_p",
        "fairness.label_impact_ratio",
        "fairness.tpr_difference",
        "fairness.fpr_difference",
        "fairness.equalized_odds_difference",
        "fairness.left_out_share",
    ),
    "counterfactual": (
        "fairness.counterfactual_shift",
        "fairness.counterfactual_probability_shift",
        "fairness.counterfactual_excess",
        "fairness.counterfactual_shift_amplification",
        "fairness.counterfactual_flip_rate",
        "fairness.answer_likelihood_shift",
        "fairness.generation_divergence",
        "fairness.generation_length_shift",
        "fairness.generation_refusal_flip_rate",
    ),
    "robustness": (
        "fairness.label_order_flip_rate",
        "fairness.label_spelling_flip_rate",
        "fairness.impact_ratio_both_orders",
    ),
    "proxies": ("fairness.proxy_auc",),
    "reasons": ("fairness.reason_faithfulness",),
    "alternatives": (
        "fairness.alternative_impact_ratio",
        "fairness.alternative_gain",
        "fairness.alternative_accuracy_delta",
    ),
    "regression": (
        "regression.forgetting_delta",
        "regression.capability_accuracy",
        "regression.capability_accuracy_delta",
        "regression.capability_delta",
        "regression.factual_accuracy",
        "regression.factual_accuracy_delta",
        "regression.context_gain",
        "regression.context_gain_delta",
        "regression.unknown_margin_delta",
        "safety.refusal_margin_delta",
        "safety.refusal_preference",
        "safety.refusal_preference_delta",
        "safety.refusal_rate",
        "safety.refusal_rate_delta",
    ),
    "stereotypes": ("fairness.stereotype_preference", "fairness.stereotype_preference_delta"),
}


def metrics_of(probes: Sequence[str], gates: Sequence[str]) -> list[str]:
    """Names that probes are planned to measure, and those of the gates, once each.

    Args:
        probes: of the plan.
        gates: measurement keys of the gates, which may carry a slice.
    """
    named = [name for probe in probes for name in METRICS.get(probe, ())]
    return list(dict.fromkeys([*named, *(gate.partition("[")[0] for gate in gates)]))
