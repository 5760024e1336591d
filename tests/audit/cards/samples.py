"""What the gateway would know of jobs: small, rich and hostile."""

from __future__ import annotations

import math
from typing import Any

JOB = "units/credit/tuningJobs/loans-2"


def small() -> dict[str, Any]:
    """A clean chat job with one gate."""
    return {
        "job": {"name": JOB, "purpose": "credit-decision", "creator": "spiffe://assay.local/people/rita"},
        "dataset": {"name": "units/credit/datasets/loans", "sha256": "a" * 64, "format": "DATASET_FORMAT_CHAT_JSONL"},
        "decision": {
            "outcomes": [outcome("BASE-PURPOSE", "PASS")],
            "audit_plan": {"gates": [gate("privacy.canary_auc", 0.7)]},
        },
        "audit": {"measurements": [measurement("privacy.canary_auc", 0.52)], "not_tested": ["refusal safety"]},
        "verdict": {
            "outcome": "OUTCOME_PASS",
            "outcomes": [{**outcome("AUC", "PASS"), "measurement": "privacy.canary_auc"}],
        },
        "model": {"name": "units/credit/models/loans-2", "adapter_sha256": "b" * 64},
    }


def rich(measurements: int = 0, rules: int = 0) -> dict[str, Any]:
    """A decision job with everything that a card can show; more measurements and rules on demand."""
    known = small()
    known["job"] |= {
        "create_time": "2026-11-02T08:00:00Z", "update_time": "2026-11-02T08:09:30.5Z", "quote_usd_micros": "52000",
        "cost_usd_micros": "41000", "trace_id": "c" * 32,
        "use": {
            "jurisdictions": ["US-NYC"], "domain": "credit", "risk_tier": "limited", "own_brand": False,
            "artefacts": [{"kind": "DPIA", "sha256": "5" * 64, "title": "assessment.pdf"},
                          {"kind": "TECHNICAL_FILE", "sha256": "6" * 64}],
        },
    }  # fmt: skip
    known["decision"]["use_reading"] = {
        "places": ["US-NYC", "US-NY", "US"], "uses": ["credit"], "decides": True,
        "high_risk_by": "credit (Annex III(5)(b))", "packs": ["baseline", "fair-lending"],
        "packs_not_chosen": ["eu-ai-act", "gdpr"],
    }  # fmt: skip
    known["quote"] = [
        {"name": "train_seconds", "unit": "seconds", "quoted": 304.0, "actual": 200.5, "method": "supervisors' clocks"},
        {"name": "energy", "unit": "Wh", "actual": 12.1, "method": "RAPL"},
        {"name": "hosting_usd", "unit": "usd", "quoted": 24.0, "forecast": 441.5, "method": "forecast, not spent"},
        {"name": "hosting_time", "unit": "months", "quoted": 6.0, "method": "time under permits so far"},
    ]
    known["dataset"] |= {
        "format": "DATASET_FORMAT_DECISION_CSV",
        "datasheet": {
            "purposes": ["credit-decision"], "licence": "MIT", "classification": "CLASSIFICATION_CONFIDENTIAL",
            "legal_basis": "LEGAL_BASIS_CONTRACT", "residency": "eu", "retention_days": 365,
            "provenance": "Mortgage applications of one city, 1990, as published.", "sensitive_attributes": ["race"],
        },
    }  # fmt: skip
    known["base_model"] = {
        "id": "smollm2-135m-instruct", "licence": "Apache-2.0", "sha256": "d" * 64, "parameters": "134515008",
        "provenance": "dequantised from a Q4_1 GGUF, not the publisher's digest", "scan_sha256": "f" * 64,
    }  # fmt: skip
    known["data"] = {
        "rows": "1989", "valid_rows": "1986", "invalid_rows": "3", "train_rows": "1390", "validation_rows": "199",
        "selection_rows": "99", "test_rows": "298", "train_tokens": "91000", "canaries_inserted": "128",
        "canaries_held_out": "128", "canary_manifest_sha256": "e" * 64, "pii_row_share": 0.0015,
        "pii": [{"entity_type": "PERSON", "count": "3", "rows": "2"}], "pii_detector": "presidio 2.2, en_core_web_sm",
        "label_counts": {"approve": "1714", "deny": "272"},
        "group_counts": {"race=asian": "9", "race=black": "197", "race=hispanic": "100", "race=white": "1680"},
        "split_sha256": {"train": "1" * 64, "test": "2" * 64}, "pii_action": "PII_ACTION_REPORT",
        "pii_quality": {"PERSON": {"labelled": "731", "recall": 0.999, "recall_lower": 0.992, "recall_upper": 1.0,
                                   "detections": "881", "precision": 0.829, "precision_lower": 0.802,
                                   "precision_upper": 0.853}},
        "identifier_classes": {"A": {"title": "names", "detector": "PERSON", "recall_lower": 0.992, "n": "731",
                                     "found": "3"}},
        "screened": {"TRIGGER_PHRASE": "binomial test", "REPEATED_ROW": "count"},
        "screens": [{"screen": "TRIGGER_PHRASE", "rows": "14", "row_numbers": [str(i) for i in range(2, 16)],
                     "reason": "a rare phrase"}],
        "screen_quality": [{"screen": "HARMFUL_ANSWER", "answers": "harmful answers in English that name the act",
                            "n": "107", "hits": "41", "lower": 0.291, "upper": 0.482},
                           {"screen": "HARMFUL_ANSWER", "answers": "harmless answers", "n": "104", "upper": 0.0348}],
        "findings": [{"row": "4", "code": "LABEL_NAN", "field": "decision", "reason": "the label is a mark"}],
        "lengths": {"minimum": "40", "median": "81", "p95": "96", "maximum": "120"}, "label_balance": 0.159,
        "smallest_group_rows": "9", "favourable_label": "approve",
        "group_labels": [
            {"attribute": "race", "value": "asian", "rows": "9", "inconclusive": "fewer than 10 rows"},
            {"attribute": "race", "value": "black", "rows": "197", "favourable": "121", "rate": 0.614,
             "rate_lower": 0.545, "rate_upper": 0.679, "class_imbalance": 0.79, "label_difference": 0.283,
             "label_difference_lower": 0.216, "label_difference_upper": 0.353, "impact_ratio": 0.685,
             "impact_ratio_lower": 0.608, "impact_ratio_upper": 0.758},
            {"attribute": "race", "value": "hispanic", "rows": "100", "favourable": "80", "rate": 0.8,
             "rate_lower": 0.711, "rate_upper": 0.867, "class_imbalance": 0.888, "label_difference": 0.097,
             "label_difference_lower": 0.02, "label_difference_upper": 0.193, "impact_ratio": 0.892,
             "impact_ratio_lower": 0.785, "impact_ratio_upper": 0.978},
            {"attribute": "race", "value": "white", "rows": "1680", "favourable": "1507", "rate": 0.897,
             "rate_lower": 0.882, "rate_upper": 0.911, "reference": True},
        ],
    }  # fmt: skip
    known["decision"]["audit_plan"]["gates"] += [
        gate("fairness.impact_ratio[race]", 0.8, "AT_LEAST"), gate("quality.test_loss_delta", 0.05),
        gate("privacy.pii_extraction_rate", 0.02),
    ]  # fmt: skip
    known["decision"]["audit_plan"] |= {"profile": "quick", "confidences": [0.9, 0.95, 29 / 30], "seed": "20261102"}
    known["verdict"] = {
        "outcome": "OUTCOME_INCONCLUSIVE",
        "outcomes": [
            {**outcome("REL-CANARY-AUC", "PASS"), "measurement": "privacy.canary_auc"},
            {
                **outcome("REL-IMPACT-RATIO", "INCONCLUSIVE"), "measurement": "fairness.impact_ratio[race]",
                "n_required": "1210", "fix": "Measure on more rows.", "caveat": "withdrawn for credit since 2026",
            },
            {**outcome("REL-LOSS", "PASS"), "measurement": "quality.test_loss_delta"},
            {**outcome("REL-PII", "FAIL"), "measurement": "privacy.pii_extraction_rate"},
        ],
        "as_of": "2026-11-02", "engine": "cel-expr 0.1.3", "bundle_sha256": "3" * 64,
    }  # fmt: skip
    known["audit"]["measurements"] += [
        {**measurement("privacy.canary_exposure_bits", 0.4, 1.2), "unit": "bits", "slice": "stratum=A"},
        {**measurement("privacy.pii_extraction_rate", 0.09, 0.05), "control": 0.005, "control_kind": "base model"},
        {"name": "privacy.epsilon_lower_bound", "unit": "nats", "value": 0.3, "n": "256", "method": "one run",
         "intervals": [{"confidence": 0.95, "lower": 0.1}]},
        {**measurement("fairness.impact_ratio", 0.79, 0.13), "slice": "race"},
        {**measurement("quality.test_loss_delta", -0.31, 0.04), "unit": "nats"},
        {**measurement("quality.test_accuracy", 0.89, 0.03), "control": 0.71, "control_kind": "base model"},
        {**measurement("overfitting.loss_gap", 0.04, 0.05), "unit": "nats"},
        {"name": "fairness.tpr_difference", "slice": "race", "unavailable": "a group has no favourable row"},
        {"name": "cost.energy_kwh", "unit": "kwh", "value": 0.0012, "n": "1", "method": "CPU seconds times 4 W"},
    ]  # fmt: skip
    known["audit"]["measurements"] += [
        {**measurement("privacy.pii_generation_rate", i / 1000), "slice": f"type={i}"} for i in range(measurements)
    ]
    known["verdict"]["outcomes"] += [outcome(f"EXTRA-{i}", "PASS") for i in range(rules)]
    known["audit"]["series"] = series()
    known["audit"]["not_tested"] = ["jailbreaks: no probe exists", "languages other than English"]
    for name in ("preparation", "training", "auditing"):
        known[name] = statement()
    known["training"]["claim"] = {
        "method": "lora", "device": "cpu", "dtype": "bf16", "seed": 7, "trained_tokens": 182000, "steps": 60,
        "hyperparameters": {"epochs": "2.0", "lora_rank": 8}, "validation_losses": [[30, "1.2"], [60, "1.1"]],
    }  # fmt: skip
    known["ledger"] = {"origin": "assay.local/log", "records": [{"index": i, "type": "job.received"} for i in (3, 9)]}
    known["quorum"] = ["ROLE_COMPLIANCE_OFFICER", "ROLE_VALIDATOR"]
    return known


def series() -> list[dict[str, Any]]:
    """One series of every name that the probes give."""
    exposures = (
        [("A x1", 1, 1 + 0.5 * math.sin(i)) for i in range(40)]
        + [("B x4", 4, 6 + math.sin(i)) for i in range(16)]
        + [("held out", 0, math.cos(i)) for i in range(20)]
    )
    return [
        {"name": "loss_curve", "axes": ["step", "loss, nats per token"],
         "points": [{"label": "train", "values": [i, 1 + 2 / (1 + i / 9)]} for i in range(60)]},
        {"name": "exposure_by_repeats", "axes": ["repeats", "exposure, bits"],
         "points": [{"label": g, "values": [r, v]} for g, r, v in exposures]},
        {"name": "canary_scores", "axes": ["NLL base - NLL tuned, nats"],
         "points": [{"label": g, "values": [v]} for g, _, v in exposures]},
        {"name": "row_losses", "axes": ["nats per answer token"],
         "points": [{"label": g, "values": [1 + math.cos(i) / 3]} for g in ("train", "test") for i in range(90)]},
        {"name": "log_odds", "axes": ["log-odds of the favourable decision, nats"],
         "points": [{"label": g, "values": [math.cos(i)]} for g in ("approve", "deny") for i in range(50)]},
        {"name": "calibration", "axes": ["probability of the likeliest label", "share that is right"],
         "points": [{"label": g, "values": [x / 10, x / 10 - d]} for g, d in (("tuned", 0.05), ("perfect", 0.0))
                    for x in range(5, 10)]},
        {"name": "counterfactual_shifts[race]", "axes": ["change of the favourable log-odds, nats"],
         "points": [{"label": g, "values": [math.sin(i) / 9]} for g in ("black", "placebo") for i in range(40)]},
        {"name": "alternatives[race]", "axes": ["accuracy", "impact ratio on the selection split"],
         "points": [{"label": g, "values": [0.8, v]} for g, v in (("adapter", 0.7), ("rank 4", 0.8))]},
        {"name": "selection_rates[race]", "axes": ["selection rate", "lower", "upper", "rows"],
         "points": [{"label": "race=black", "values": [0.70, 0.52, 0.84, 33.0]},
                    {"label": "race=white", "values": [0.89, 0.84, 0.93, 231.0]}]},
    ]  # fmt: skip


def outcome(rule: str, said: str) -> dict[str, Any]:
    """A rule's outcome."""
    return {
        "rule_id": rule, "title": f"Title of {rule}", "outcome": f"OUTCOME_{said}", "message": f"because of {rule}",
        "citation": "GDPR Art. 5(1)(b)", "status": "RULE_STATUS_BINDING",
    }  # fmt: skip


def gate(name: str, limit: float, side: str = "AT_MOST") -> dict[str, Any]:
    """A planned gate."""
    return {"measurement": name, "side": f"LIMIT_SIDE_{side}", "limit": limit, "alpha": 0.05, "n": "128"}


def measurement(name: str, value: float, half: float = 0.1) -> dict[str, Any]:
    """A measurement with intervals at two levels; the judged one is the second."""
    return {
        "name": name, "value": value, "n": "128", "unit": "ratio", "method": f"method of {name}",
        "intervals": [
            {"confidence": 0.9, "lower": value - half / 2, "upper": value + half / 2},
            {"confidence": 0.95, "lower": value - half, "upper": value + half},
        ],
    }  # fmt: skip


def statement() -> dict[str, Any]:
    """A worker's statement predicate."""
    return {
        "order_sha256": "4" * 64,
        "isolation": {"method": "bwrap", "proven": True, "probes": {"no_route": True, "keys_unreadable": True}},
        "meter": {
            "wall_ms": 61000, "cpu_ms": 118000, "max_rss_bytes": 1 << 30, "attempts": 1, "energy_uwh": 131000,
            "energy_method": "CPU seconds times 4 W, an assumption",
        },
        "environment": {"torch": "2.13.0", "cpu": "avx512"},
    }  # fmt: skip


def approvals() -> dict[str, Any]:
    """What the page of approvals shows."""
    return {
        "approvals": [
            {"subject": "spiffe://assay.local/people/cora", "role": "ROLE_COMPLIANCE_OFFICER", "decision": "grant",
             "reason": "evidence read", "time": "2026-11-02T09:00:00Z", "record_index": 15, "keyid": "5" * 64},
        ],
        "card_sha256": "6" * 64, "card_record_index": 14, "evidence_root": "7" * 64, "evidence_size": 15,
        "checkpoint": "assay.local/log\n15\nBw==\n\n— assay.local/log abcd\n",
    }  # fmt: skip
