"""Builds the card from what the gateway recorded. Nothing is asserted that no record, statement or measurement says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay import canonical
from assay.errors import InvalidInputError
from assay.v1.policy_input_pb2 import UseDeclaration
from audit.cards import blocks, detection, measured, operations, rows, rules, small_groups
from audit.cards.blocks import facts, paragraph, section, table, word

SCHEMA = "https://assay.dev/card/v1"
ADAPTER, BASE = "Adapter, SHA-256", "Manifest that was tuned, SHA-256"
Facts = Mapping[str, Any]


def build_card(known: Facts) -> dict[str, Any]:
    """Builds the card.

    Args:
        known: ``job``, ``dataset``, ``base_model``, ``data``, ``decision``, ``audit``, ``verdict``, ``model`` as JSON
            of the contract's messages with proto field names; ``training``, ``preparation`` and ``auditing``, the
            predicates of the workers' statements; ``ledger`` with ``origin``, ``witnesses`` and ``records`` (index
            and type of the job's records so far); ``quorum`` (role names); ``waivers`` (predicates with ``subject``
            and ``index``); ``tries``, the earlier jobs of the unit on files of the same bytes that release policy has
            ``judged`` and of those how many it ``held_back``. A missing part becomes GAP; without ``tries`` nothing is
            said of them.

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
        "unit": _unit(job),
        "purpose": job.get("purpose", ""),
        "as_of": job.get("update_time", ""),
        "verdict": word(verdict.get("outcome"), "OUTCOME_"),
        "verdict_counts": rules.counted(verdict),
        "audit_profile": _plan(known).get("profile", ""),
        "rules_waived": rules.waived(known),
        "use": job.get("use", {}),
        "use_reading": known.get("decision", {}).get("use_reading", {}),
        "measurements": known.get("audit", {}).get("measurements", []),
        "rules": [*known.get("decision", {}).get("outcomes", []), *verdict.get("outcomes", [])],
        "sections": [
            _summary(known),
            _reading(),
            _intended_use(known),
            _declared_use(known),
            _base_model(known),
            _data(known),
            _training(known),
            *measured.sections(known),
            rules.answered("intake", "Intake rules and their outcomes", known.get("decision", {})),
            rules.answered(
                "release", "Release rules and their outcomes", verdict, str(_plan(known).get("profile", ""))
            ),
            *rules.waivers(known),
            operations.not_tested(known),
            detection.missed(detection.counted(), detection.noted()),
            operations.cost(known),
            operations.isolation(known),
            operations.evidence(known),
        ],
    }
    return dict(canonical.float_free(card))


def about(card: Any) -> dict[str, Any]:
    """What a reader of a card takes it to be of: ``job``, ``model``, ``purpose``, ``adapter_sha256``, ``base_sha256``.

    Digests are those of the rows that show them, one after another where there is more than one such row, so that two
    that differ are no digest.

    Raises:
        InvalidInputError: ``CARD_MALFORMED``.
    """
    try:
        facts_ = [block for part in card["sections"] for block in part["blocks"] if block["kind"] == "facts"]
        rows_ = [(str(row["label"]), str(row["value"])) for block in facts_ for row in block["rows"]]
        head = {name: card[name] for name in ("job", "model", "purpose")}
    except (KeyError, TypeError) as error:
        raise InvalidInputError("CARD_MALFORMED", "it has not the members of a card") from error
    shown = {"adapter_sha256": ADAPTER, "base_sha256": BASE}
    return head | {name: " ".join(value for label, value in rows_ if label == row) for name, row in shown.items()}


def _summary(known: Facts) -> dict[str, Any]:
    verdict, model, job = known.get("verdict", {}), known.get("model", {}), known.get("job", {})
    parts = [
        facts(
            [
                ("Model", model.get("name"), "training.completed"),
                (ADAPTER, model.get("adapter_sha256"), "training.completed"),
                ("Base model", known.get("base_model", {}).get("id") or job.get("base_model"), "job.received"),
                ("Dataset", known.get("dataset", {}).get("name"), "dataset.created"),
                ("Purpose", job.get("purpose"), "job.received"),
                ("Requested by", job.get("creator"), "job.received"),
                ("Requested at", job.get("create_time"), "job.received"),
                ("State as of", job.get("update_time"), "newest record of the job"),
                *_asked(known),
                ("Release rules by outcome", rules.counted(verdict), "release.decided"),
                ("Intake rules by outcome", rules.counted(known.get("decision", {})), "intake.decided"),
            ]
        )
    ]
    standing = rules.open_rules(verdict)
    if standing:
        parts.append(table(("Rule that did not pass", "Outcome", "Why"), (20, 16, 64), standing, status=1))
    unseen = rules.by_digest_alone(known.get("decision", {}), verdict)
    if unseen:
        parts.append(table(("Documents known by digest alone", "SHA-256", "Rules"), (20, 54, 26), unseen))
    return section("summary", "Summary", *parts)


def _plan(known: Facts) -> Facts:
    plan: Facts = known.get("decision", {}).get("audit_plan", {})
    return plan


def _asked(known: Facts) -> list[tuple[str, Any, str]]:
    """How much the audit was asked for: a PASS of another profile is another statement; and the tries before it."""
    plan, tries, source = _plan(known), known.get("tries") or {}, "intake.decided"
    found = [("Audit profile", plan.get("profile"), source)]
    if plan.get("confidences"):
        levels = [f"{100 * float(level):.4g} %" for level in plan["confidences"]]
        found.append(("Planned confidence levels of intervals", levels, source))
    if plan.get("groups"):
        found.append(("Groups planned to be compared", "; ".join(plan["groups"]), source))
    if plan.get("seed"):
        found.append(("Seed of the audit's random choices", plan["seed"], source))
    if tries:
        said = ", ".join(f"{blocks.number(tries.get(n, 0))} {n.replace('_', ' ')}" for n in ("judged", "held_back"))
        found.append(("Earlier jobs on these rows", said, "records of those jobs"))
    return found


def _reading() -> dict[str, Any]:
    return section(
        "reading",
        "How to read this card",
        paragraph(
            "Every value names its source: a record of the ledger, a signed statement of a worker, or the datasheet, "
            "which is what the data's owner declares and nobody measured. A measurement is an estimate from n cases; "
            "its interval covers the true value in the given share of repetitions; where it says at least or at most, "
            "only that end is claimed. The control, named by its kind, is to be set beside it: in most cases the same "
            "statistic where tuning can have had no effect (the base model, cases that were held out), or what chance "
            "alone gives, which for an AUC is 0.5."
        ),
        paragraph(
            "A rule with a limit (a gate) judges the interval of one measurement; limit, level and n were fixed "
            "before training. PASS: the whole interval lies on the acceptable side, and n is at least what was "
            "planned. FAIL: the whole interval lies on the other side, also at the level that Holm's correction for "
            "the number of gates asks for. INCONCLUSIVE: neither. The interval holds the limit, or lies on the "
            "acceptable side with an n below the plan, or on the other side at the gate's own level and not at the "
            "corrected one. Every other rule is a plain condition on what was recorded or measured: PASS where it "
            "holds, FAIL where it does not, INCONCLUSIVE where it needs a measurement whose own gate is. ERROR: what "
            "was to be judged is missing or cannot be judged. NOT APPLICABLE: the rule does not concern this model, "
            "its audit profile or this day; nothing follows from it. A model with a FAIL, an ERROR or an INCONCLUSIVE"
            " goes no further, unless every such rule was waived by a named person; the first page then says how many"
            " were."
        ),
        paragraph(
            "GAP: nothing is recorded where something belongs; a GAP is never filled by prose and never counts in the "
            "model's favour. "
            "WARN: it stops nothing and is to be looked at; where it says DECLARED, the rule rests on a document known "
            "by its digest alone, and whoever approves has it shown and compares its SHA-256 with the summary's. "
            "A passed card does not say that the model is free of risk, only that the tests named here found no more."
        ),
    )


def _intended_use(known: Facts) -> dict[str, Any]:
    job, sheet = known.get("job", {}), known.get("dataset", {}).get("datasheet", {})
    return section(
        "intended-use",
        "Intended use",
        facts(
            [
                ("Purpose asked for", job.get("purpose"), "job.received"),
                ("Purposes that the data allows", sheet.get("purposes"), "datasheet"),
                ("Business unit", _unit(job), "job.received"),
                ("Not intended", "any purpose, environment or base model that no permit names", "permit rules"),
                ("Instructions for deployers", None, "not recorded"),
                ("Human oversight in use", None, "not recorded"),
            ]
        ),
    )


def _declared_use(known: Facts) -> dict[str, Any]:
    """Every member of the declaration, whether it was declared or not, and which law was asked about it."""
    use, read = known.get("job", {}).get("use", {}), known.get("decision", {}).get("use_reading", {})
    members = [field.name for field in UseDeclaration.DESCRIPTOR.fields]
    said = [(f"Declared: {name.replace('_', ' ')}", _member(use.get(name)), "job.received") for name in members]
    # Nothing that was read is an answer too, once something was read.
    worked_out = {
        "Places, with those that they lie in": read.get("places") or "none: no law was asked by its place",
        "Places that nobody knows": read.get("unknown_places") or "none",
        "Used for": read.get("uses") or "nothing that was declared or that the purpose names",
        "Decides about people": bool(read.get("decides")),
        "High-risk in the words of the AI Act, by": read.get("high_risk_by") or "nothing",
        "Packs of rules that were asked": read.get("packs"),
        "Packs here that this unit had not chosen, not asked": read.get("packs_not_chosen") or "none",
    }
    return section(
        "declared-use",
        "Declared use",
        paragraph(
            "Where and for what the model is to be used is what the requester declares; nobody measured it. A law is "
            "asked where the unit has chosen its pack and the places and uses below concern it; of what they do not "
            "name, no law was asked."
        ),
        facts(said),
        facts([(name, value if read else None, "intake.decided") for name, value in worked_out.items()]),
    )


def _member(value: Any) -> Any:
    """A member of the declaration; documents one after another."""
    documents = isinstance(value, list) and any(isinstance(item, Mapping) for item in value)
    return "; ".join(map(blocks.text, value)) if documents else value


def _base_model(known: Facts) -> dict[str, Any]:
    base, model = known.get("base_model", {}), known.get("model", {})
    parameters = base.get("parameters")
    return section(
        "base-model",
        "Base model and licence",
        facts(
            [
                ("Base model", base.get("id"), "base model registry"),
                ("Licence", base.get("licence"), "base model registry"),
                ("Parameters", blocks.number(parameters) if parameters else None, "base model registry"),
                ("Origin of the weights", base.get("provenance"), "base model registry"),
                ("Manifest, SHA-256", base.get("sha256"), "base model registry"),
                ("Scan report of its import, SHA-256", base.get("scan_sha256"), "base model registry"),
                (BASE, model.get("base_sha256"), "training.completed"),
            ]
        ),
    )


def _data(known: Facts) -> dict[str, Any]:
    dataset, facts_of = known.get("dataset", {}), known.get("data", {})
    data, back = small_groups.shown(facts_of), small_groups.kept_back(facts_of)
    sheet = dataset.get("datasheet", {})
    counted = "intake.decided"
    splits = ("train_rows", "validation_rows", "selection_rows", "test_rows")
    parts = [
        facts(
            [
                ("Dataset", dataset.get("name"), "dataset.created"),
                ("File, SHA-256", dataset.get("sha256"), "dataset.created"),
                ("Format", word(dataset.get("format"), "DATASET_FORMAT_"), "dataset.created"),
                ("Provenance", sheet.get("provenance"), "datasheet"),
                ("Licence", sheet.get("licence"), "datasheet"),
                ("Legal basis", word(sheet.get("legal_basis"), "LEGAL_BASIS_"), "datasheet"),
                ("Classification", word(sheet.get("classification"), "CLASSIFICATION_"), "datasheet"),
                ("Residency", sheet.get("residency"), "datasheet"),
                ("Retention, days", sheet.get("retention_days"), "datasheet"),
                ("Protected attributes", sheet.get("sensitive_attributes"), "datasheet"),
                ("Rows", _counts(data, "rows", "valid_rows", "invalid_rows", "duplicate_rows"), counted),
                ("Splits", _counts(data, *splits), counted),
                ("Train tokens", _counts(data, "train_tokens"), counted),
                ("Canaries", _counts(data, "canaries_inserted", "canaries_held_out"), counted),
                ("Canary manifest, before training", data.get("canary_manifest_sha256"), counted),
                ("PII detector", data.get("pii_detector"), counted),
                ("Rows with direct identifiers", _share(data), counted),
                ("Personal data: action", word(data.get("pii_action"), "PII_ACTION_"), counted),
                *(
                    (name, value, counted)
                    for name, value in (*_shape(data, back), *_parents(data))
                    if value is not None
                ),
            ]
        )
    ]
    parts += rows.parts_of(data)
    counts = [sorted(data.get(n, {}).items()) for n in ("label_counts", "group_counts")]
    groups = [[name, back.get(name) or blocks.number(n)] for part in counts for name, n in part]
    if groups:
        parts.append(table(("Label or group", "Rows"), (70, 30), groups))
    digests = data.get("split_sha256", {})
    if digests:
        parts.append(table(("Split", "SHA-256"), (26, 74), sorted(digests.items())))
    return section("data", "Data", *parts)


def _training(known: Facts) -> dict[str, Any]:
    training, job = known.get("training", {}), known.get("job", {})
    claim, environment = training.get("claim", {}), training.get("environment", {})
    source = "training statement"
    first = ("method", "device", "dtype", "seed", "trained_tokens", "steps")
    rest = sorted(k for k, v in claim.items() if k not in first and isinstance(v, str | int | float | bool))
    found = [(k.replace("_", " ").capitalize(), claim.get(k), source) for k in (*first, *rest)]
    found += _teacher(claim.get("teacher") or {})
    found += _quantisation(claim.get("quantisation") or {})
    found += _privacy(claim.get("differential_privacy") or {})
    hyper, where = claim.get("hyperparameters"), source
    if not hyper:
        hyper, where = job.get("hyperparameters", {}), "job.received"
    found += [(f"Hyperparameter: {k.replace('_', ' ')}", v, where) for k, v in sorted(hyper.items())]
    found += [
        (f"Environment: {k.replace('_', ' ')}", v, source)
        for k, v in sorted(environment.items())
        if isinstance(v, str | int | float)
    ]
    tuned, base = claim.get("watched") or {}, claim.get("watched_base") or {}
    beside = "base model" + (" in four bits" if claim.get("quantisation") else "")
    found += [
        (f"Validation rows: {name}", f"{value}; {beside} {base.get(name, blocks.GAP)}", source)
        for name, value in sorted(tuned.items())
    ]
    parts = [facts(found), *_trials(claim.get("search") or {})]
    curve = measured.loss_curve(known)
    parts.append(curve or paragraph(f"Loss during training: {blocks.GAP}."))
    return section("training", "Training", *parts)


def _privacy(claim: Facts) -> list[tuple[str, Any, str]]:
    """The differential privacy that the run claims, the unit first; nothing where it claims none."""
    if not claim:
        return []
    said = (
        f"epsilon {claim.get('epsilon', blocks.GAP)} at delta {claim.get('delta', blocks.GAP)}, of one "
        f"{claim.get('unit', blocks.GAP)}, by {claim.get('accountant', blocks.GAP)}"
    )
    names = sorted(claim.keys() - {"epsilon", "delta", "unit", "accountant"})
    source = "training statement"
    rest = [(f"Differential privacy: {name.replace('_', ' ')}", claim[name], source) for name in names]
    return [("Differential privacy", said, source), *rest]


def _trials(search: Facts) -> list[blocks.Block]:
    """Every trial of a search, and why one was kept; nothing where rank and rate were given."""
    names = ("lora_rank", "learning_rate", "tokens", "steps", "selection_loss", "validation_loss")
    rows = [
        [str(number), *(str(trial.get(name, trial.get("failed", "–"))) for name in names),
         "kept" if number == search.get("chosen") else "–"]
        for number, trial in enumerate(search.get("trials") or [], 1)
    ]  # fmt: skip
    if not rows:
        return []
    columns = ("Trial", "Rank", "Learning rate", "Tokens", "Steps", "Selection loss", "Validation loss", "Kept")
    said = (
        f"Search over rank and learning rate: trial {search.get('chosen')} was kept: {search.get('why', blocks.GAP)}."
    )
    return [table(columns, (7, 7, 14, 13, 9, 20, 20, 10), rows), paragraph(said)]


def _teacher(teacher: Facts) -> list[tuple[str, Any, str]]:
    """Who wrote the answers that were distilled; nothing for every other method."""
    if not teacher:
        return []
    said = {"registry": "base model registry", "own-model": "base model of the unit's own model"}
    where = said.get(str(teacher.get("licence_source")), "what the requester says")
    return [
        ("Teacher that wrote the answers", teacher.get("name"), "training statement"),
        ("Licence of the teacher's answers", teacher.get("licence"), where),
        ("Teacher, SHA-256", teacher.get("sha256") or "not here: a model that this installation does not hold", where),
    ]


def _quantisation(done: Facts) -> list[tuple[str, Any, str]]:
    """How the base weights were rounded while the adapter was trained; nothing where they were not."""
    if not done:
        return []
    named = {name: done.get(name, blocks.GAP) for name in ("format", "block", "scale_block", "layers", "library")}
    twice = ", their magnitudes in blocks of {scale_block}" if done.get("double") is True else ""
    said = ("{layers} linear layers in {format}, blocks of {block}" + twice + " ({library})").format(**named)
    return [
        ("Base weights while it was trained", said, "training statement"),
        ("Base weights that it is audited and permitted on", "as published, not rounded", "training.ordered"),
    ]


def _unit(job: Facts) -> str:
    parts = str(job.get("name", "")).split("/")
    return parts[1] if len(parts) > 1 else ""


def _counts(data: Facts, *names: str) -> str | None:
    """Counts by name; a count that the contract leaves out is zero, unless nothing at all is known."""
    if not data:
        return None
    return ", ".join(f"{n.replace('_', ' ')} {blocks.number(data.get(n, 0))}" for n in names)


def _shape(data: Facts, back: Facts) -> list[tuple[str, Any]]:
    """Lengths, balance and coverage, where the kind of dataset has them."""
    return [
        ("Row lengths in tokens", ", ".join(f"{k} {v}" for k, v in data.get("lengths", {}).items()) or None),
        ("Rarest label over commonest", data.get("label_balance")),
        ("Favourable label", data.get("favourable_label") or None),
        ("Smallest protected group, rows", small_groups.FEW if back else data.get("smallest_group_rows")),
    ]


def _parents(data: Facts) -> list[tuple[str, Any]]:
    """Rows that models before this one were trained on: in the sealed test they would not be new to it."""
    kept, unread = data.get("parent_rows"), data.get("unread_parents")
    lost = f"{blocks.number(unread)}: nobody can say whether the sealed test holds such rows" if unread else None
    return [
        ("Rows that a parent model was trained on, all kept in train", blocks.number(kept) if kept else None),
        ("Parent models whose training rows are not kept any more", lost),
    ]


def _share(data: Facts) -> str | None:
    return f"{100 * float(data.get('pii_row_share', 0.0)):.3g} %" if data else None
