"""Builds the card from what the gateway recorded. Nothing is asserted that no record, statement or measurement says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assay import canonical
from audit.cards import blocks, measured
from audit.cards.blocks import facts, paragraph, section, table

SCHEMA = "https://assay.dev/card/v1"
Facts = Mapping[str, Any]


def build_card(known: Facts) -> dict[str, Any]:
    """Builds the card.

    Args:
        known: ``job``, ``dataset``, ``base_model``, ``data``, ``decision``, ``audit``, ``verdict``, ``model`` as JSON
            of the contract's messages with proto field names; ``training``, ``preparation`` and ``auditing``, the
            predicates of the workers' statements; ``ledger`` with ``origin`` and ``records`` (index and type of the
            job's records so far); ``quorum`` (role names). A missing part becomes GAP.

    Returns:
        Float-free data; the SHA-256 of its canonical JSON is the card's digest.
    """
    job = known.get("job", {})
    verdict = known.get("verdict", {})
    card = {
        "schema": SCHEMA,
        "title": "Model card",
        "job": job.get("name", ""),
        "model": known.get("model", {}).get("name", ""),
        "unit": job.get("name", "//").split("/")[1],
        "purpose": job.get("purpose", ""),
        "verdict": _word(verdict.get("outcome"), "OUTCOME_"),
        "measurements": known.get("audit", {}).get("measurements", []),
        "rules": [*known.get("decision", {}).get("outcomes", []), *verdict.get("outcomes", [])],
        "sections": [
            _summary(known),
            _intended_use(known),
            _base_model(known),
            _data(known),
            _training(known),
            *measured.sections(known),
            _rules("intake", "Intake rules and their outcomes", known.get("decision", {})),
            _rules("release", "Release rules and their outcomes", verdict),
            _not_tested(known),
            _cost(known),
            _isolation(known),
            _evidence(known),
        ],
    }
    return dict(canonical.float_free(card))


def _summary(known: Facts) -> dict[str, Any]:
    verdict, model = known.get("verdict", {}), known.get("model", {})
    outcomes = verdict.get("outcomes", [])
    counts: dict[str, int] = {}
    for outcome in outcomes:
        word = _word(outcome.get("outcome"), "OUTCOME_")
        counts[word] = counts.get(word, 0) + 1
    open_rules = [o for o in outcomes if _word(o.get("outcome"), "OUTCOME_") not in ("PASS", "NOT_APPLICABLE")]
    rows = [[o.get("rule_id"), _word(o.get("outcome"), "OUTCOME_"), o.get("message")] for o in open_rules]
    parts = [
        facts(
            [
                ("Release verdict", _word(verdict.get("outcome"), "OUTCOME_"), "release.decided"),
                ("Rules by outcome", ", ".join(f"{n} {w}" for w, n in sorted(counts.items())), "release.decided"),
                ("Adapter SHA-256", model.get("adapter_sha256"), "training.completed"),
                ("Purpose", known.get("job", {}).get("purpose"), "job.received"),
            ]
        )
    ]
    if rows:
        parts.append(table(("Rule", "Outcome", "Why"), (20, 16, 64), rows, status=1))
    return section("summary", "Summary", *parts)


def _intended_use(known: Facts) -> dict[str, Any]:
    job, sheet = known.get("job", {}), known.get("dataset", {}).get("datasheet", {})
    return section(
        "intended-use",
        "Intended use",
        facts(
            [
                ("Purpose asked for", job.get("purpose"), "job.received"),
                ("Purposes that the data allows", sheet.get("purposes"), "datasheet"),
                ("Business unit", job.get("name", "//").split("/")[1], "job.received"),
                ("Requested by", job.get("creator"), "job.received"),
                ("Not intended", "any purpose, environment or base model that no permit names", "permit rules"),
                ("Instructions for deployers", None, "not recorded"),
                ("Human oversight in use", None, "not recorded"),
            ]
        ),
    )


def _base_model(known: Facts) -> dict[str, Any]:
    base = known.get("base_model", {})
    return section(
        "base-model",
        "Base model and licence",
        facts(
            [
                ("Base model", base.get("id"), "base model registry"),
                ("Licence", base.get("licence"), "base model registry"),
                ("Parameters", base.get("parameters"), "base model registry"),
                ("Origin of the weights", base.get("provenance"), "base model registry"),
                ("SHA-256 of its files", base.get("sha256"), "hashed by the train worker"),
            ]
        ),
    )


def _data(known: Facts) -> dict[str, Any]:
    dataset, data = known.get("dataset", {}), known.get("data", {})
    sheet = dataset.get("datasheet", {})
    pii = [[p.get("entity_type"), p.get("count", 0), p.get("rows", 0)] for p in data.get("pii", [])]
    splits = data.get("split_sha256", {})
    parts = [
        facts(
            [
                ("Dataset", dataset.get("name"), "dataset.created"),
                ("SHA-256", dataset.get("sha256"), "dataset.created"),
                ("Provenance", sheet.get("provenance"), "datasheet"),
                ("Licence", sheet.get("licence"), "datasheet"),
                ("Legal basis", _word(sheet.get("legal_basis"), "LEGAL_BASIS_"), "datasheet"),
                ("Classification", _word(sheet.get("classification"), "CLASSIFICATION_"), "datasheet"),
                ("Residency", sheet.get("residency"), "datasheet"),
                ("Retention, days", sheet.get("retention_days"), "datasheet"),
                ("Protected attributes", sheet.get("sensitive_attributes"), "datasheet"),
                (
                    "Rows: file, valid, duplicates",
                    _joined(data, "rows", "valid_rows", "duplicate_rows"),
                    "intake.decided",
                ),
                (
                    "Rows: train, validation, selection, sealed test",
                    _joined(data, "train_rows", "validation_rows", "selection_rows", "test_rows"),
                    "intake.decided",
                ),
                (
                    "Canaries: inserted, held out",
                    _joined(data, "canaries_inserted", "canaries_held_out"),
                    "intake.decided",
                ),
                ("Canary manifest, committed before training", data.get("canary_manifest_sha256"), "intake.decided"),
                ("PII detector", data.get("pii_detector"), "intake.decided"),
                ("Share of rows with direct identifiers", data.get("pii_row_share"), "intake.decided"),
            ]
        )
    ]
    if pii:
        parts.append(table(("PII found in the rows", "Spans", "Rows"), (60, 20, 20), pii))
    if splits:
        parts.append(table(("Split", "SHA-256"), (20, 80), sorted(splits.items())))
    return section("data", "Data", *parts)


def _training(known: Facts) -> dict[str, Any]:
    training = known.get("training", {})
    claim = training.get("claim", {})
    shown = (
        "method",
        "dtype",
        "device",
        "seed",
        "trained_tokens",
        "steps",
        "rows",
        "cut_rows",
        "validation_loss",
        "flop",
    )
    rows = [(k.replace("_", " "), claim.get(k), "training statement") for k in shown]
    hyper = claim.get("hyperparameters", {}) or known.get("job", {}).get("hyperparameters", {})
    rows += [(f"hyperparameter {k.replace('_', ' ')}", v, "training statement") for k, v in sorted(hyper.items())]
    environment = training.get("environment", {})
    rows += [
        (f"environment {k}", v, "training statement") for k, v in sorted(environment.items()) if isinstance(v, str)
    ]
    parts = [facts(rows)]
    curve = measured.loss_curve(known)
    if curve:
        parts.append(curve)
    return section("training", "Training", *parts)


def _rules(id_: str, title: str, answer: Facts) -> dict[str, Any]:
    rows = []
    for o in answer.get("outcomes", []):
        source = " ".join(filter(None, (o.get("citation"), f"[{o['caveat']}]" if o.get("caveat") else "")))
        status = _word(o.get("status"), "RULE_STATUS_").lower()
        why = o.get("message", "")
        if o.get("n_required"):
            why += f" n that would decide: {o['n_required']}."
        if o.get("fix"):
            why += f" To pass: {o['fix']}"
        rows.append([o.get("rule_id"), _word(o.get("outcome"), "OUTCOME_"), why, f"{status}: {source}"])
    bundle = facts(
        [
            ("Rules SHA-256", answer.get("bundle_sha256"), "policy.published"),
            ("Limits SHA-256", answer.get("limits_sha256"), "policy.published"),
            ("Input SHA-256", answer.get("input_sha256"), f"{id_} record"),
            ("Rules as of", answer.get("as_of"), f"{id_} record"),
            ("Engine", answer.get("engine"), f"{id_} record"),
        ]
    )
    if not rows:
        return section(f"rules-{id_}", title, bundle)
    return section(
        f"rules-{id_}", title, table(("Rule", "Outcome", "Why", "Source"), (18, 13, 41, 28), rows, 1), bundle
    )


def _not_tested(known: Facts) -> dict[str, Any]:
    untested = known.get("audit", {}).get("not_tested", [])
    unavailable = [
        [measured.label(m), m["unavailable"]]
        for m in known.get("audit", {}).get("measurements", [])
        if m.get("unavailable")
    ]
    parts = [
        paragraph("A card that lists only what passed misleads. This was not measured, and nothing follows from it.")
    ]
    parts.append(table(("Not tested",), (100,), [[t] for t in untested] or [[blocks.GAP]]))
    if unavailable:
        parts.append(table(("Planned, but no number", "Reason"), (40, 60), unavailable))
    return section("not-tested", "What was not tested", *parts)


def _cost(known: Facts) -> dict[str, Any]:
    rows = []
    for m in known.get("audit", {}).get("measurements", []):
        if m.get("name", "").startswith("cost."):
            rows.append([measured.label(m), blocks.number(m.get("value"), 6), m.get("unit"), m.get("method")])
    job = known.get("job", {})
    quote, cost = job.get("quote_usd_micros"), job.get("cost_usd_micros")
    money = facts(
        [
            ("Quoted, USD", blocks.number(int(quote) / 1e6, 6) if quote else None, "intake.decided"),
            ("Spent so far, USD", blocks.number(int(cost) / 1e6, 6) if cost else None, "audit.completed"),
        ]
    )
    parts = [money]
    if rows:
        parts.append(table(("Quantity", "Value", "Unit", "Method"), (28, 16, 12, 44), rows))
    return section("cost", "Cost and energy", *parts)


def _isolation(known: Facts) -> dict[str, Any]:
    rows = []
    for name in ("preparation", "training", "auditing"):
        statement = known.get(name, {})
        isolation, meter = statement.get("isolation", {}), statement.get("meter", {})
        probes = isolation.get("probes", {})
        wall = meter.get("wall_ms")
        rows.append(
            [
                name,
                isolation.get("method"),
                isolation.get("proven"),
                len(probes) if probes else None,
                meter.get("attempts"),
                blocks.number(int(wall) / 1000) if wall else None,
            ]
        )
    return section(
        "isolation",
        "Isolation of each task, as attested",
        paragraph(
            "Before data was opened each sandbox proved its own cut-off; a probe that got through stops the task."
        ),
        table(("Task", "Method", "Cut-off proven", "Probes", "Starts", "Seconds"), (18, 28, 18, 12, 12, 12), rows),
    )


def _evidence(known: Facts) -> dict[str, Any]:
    ledger = known.get("ledger", {})
    rows = [[r.get("index"), r.get("type")] for r in ledger.get("records", [])]
    who = facts(
        [
            ("Ledger", ledger.get("origin"), "signed checkpoints"),
            ("Trace", known.get("job", {}).get("trace_id"), "job.received"),
            ("Signatures needed", [_word(r, "ROLE_").lower() for r in known.get("quorum", [])], "policy"),
        ]
    )
    parts = [who]
    if rows:
        parts.append(table(("Ledger index", "Record"), (30, 70), rows))
    return section("evidence", "Evidence", *parts)


def _joined(data: Facts, *names: str) -> str | None:
    values: Sequence[Any] = [data.get(n) for n in names]
    return ", ".join(str(v if v is not None else 0) for v in values) if data else None


def _word(value: Any, prefix: str) -> str:
    return str(value or "").removeprefix(prefix) or blocks.GAP
