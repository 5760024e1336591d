"""Rules on a card: what each said, on which source, with every doubt about that source; and who waived what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from audit.cards import blocks
from audit.cards.blocks import facts, paragraph, section, table

Record = Mapping[str, Any]

_DECLARED = "DECLARED: "
"""How policy begins what it says of a rule that rests on documents of which only the digests are known."""
_GATE, _NO_CONDITION = "GATE-", "its conditions do not hold for this request"
"""How the ids of gates begin, and how policy says that a rule was not asked; both are policy's words."""
_NAMED = re.compile(r"([A-Z][A-Z0-9-]*) \([^()]*\), SHA-256 ([0-9a-f]{64}(?:, [0-9a-f]{64})*)")


def answered(id_: str, title: str, answer: Record, profile: str = "") -> dict[str, Any]:
    """The outcomes of one stage, rule by rule in the pack's order; ``profile`` is that of the planned audit."""
    record = "intake.decided" if id_ == "intake" else "release.decided"
    bundle = facts(
        [
            ("Rules as of", answer.get("as_of"), record),
            ("Rules, SHA-256", answer.get("bundle_sha256"), "policy.published"),
            ("Limits, SHA-256", answer.get("limits_sha256"), "policy.published"),
            ("Input judged, SHA-256", answer.get("input_sha256"), record),
            ("Engine", answer.get("engine"), record),
        ]
    )
    rows = [_row(o, profile) for o in answer.get("outcomes", [])]
    if not rows:
        return section(f"rules-{id_}", title, paragraph(f"{blocks.GAP}: no outcome is recorded."), bundle)
    lead = paragraph(
        "Binding quotes law, guidance an authority, internal the institution's own choice, never to be read as law. "
        "A caveat marks a doubt about the source."
    )
    return section(
        f"rules-{id_}", title, lead, table(("Rule", "Outcome", "Why", "Source"), (21, 14, 32, 33), rows, 1), bundle
    )


def open_rules(answer: Record) -> list[list[Any]]:
    """Rules that stand in the way: id, outcome, why."""
    rows = [_row(o)[:3] for o in answer.get("outcomes", [])]
    return [row for row in rows if row[1] not in ("PASS", "NOT_APPLICABLE", "WARN")]


def by_digest_alone(*answers: Record) -> list[list[Any]]:
    """Documents that nobody but the requester has seen: kind, digest, and the rules that rest on them."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for o in (o for answer in answers for o in answer.get("outcomes", [])):
        said = str(o.get("message", ""))
        for kind, digests in _NAMED.findall(said) if said.startswith(_DECLARED) else ():
            for sha256 in digests.split(", "):
                found.setdefault((kind, sha256), {})[str(o.get("rule_id", ""))] = None
    return [[kind, sha256, list(rules)] for (kind, sha256), rules in sorted(found.items())]


def counted(answer: Record) -> str:
    """How many rules said what."""
    counts: dict[str, int] = {}
    for o in answer.get("outcomes", []):
        said = blocks.word(o.get("outcome"), "OUTCOME_")
        counts[said] = counts.get(said, 0) + 1
    return ", ".join(f"{n} {said.replace('_', ' ')}" for said, n in sorted(counts.items()))


def waived(known: Record) -> int:
    """How many rules were passed over by signed waivers, each counted once."""
    return len({str(rule) for w in known.get("waivers", []) for rule in w.get("rules") or []})


def waivers(known: Record) -> list[dict[str, Any]]:
    """The section of signed waivers; none where nothing was waived."""
    names = ("rules", "reason", "compensating_control", "expires", "subject", "index")
    rows = [[w.get(n) for n in names] for w in known.get("waivers", [])]
    if not rows:
        return []
    columns = ("Rules", "Reason", "Compensating control", "Expires", "Signed by", "Ledger index")
    lead = paragraph("A named person signed that these rules may be passed over in this job, until the day given.")
    return [section("waivers", "Waivers", lead, table(columns, (18, 24, 24, 12, 14, 8), rows))]


def _row(o: Record, profile: str = "") -> list[Any]:
    why = [str(o.get("title", "")), str(o.get("message", ""))]
    if profile and _unasked(o):
        why.append(f"not asked of this model in profile {profile}")
    if o.get("row_count"):
        why.append(f"Rows: {blocks.text(o.get('rows'))} ({o['row_count']} in all).")
    if o.get("n_required"):
        why.append(f"n that would decide: {o['n_required']}.")
    if o.get("fix"):
        # A warning stops nothing, so what it asks for makes nothing pass.
        why.append(f"{'To do' if o.get('outcome') == 'OUTCOME_WARN' else 'To pass'}: {o['fix']}")
    status = blocks.word(o.get("status"), "RULE_STATUS_").lower() if o.get("status") else blocks.GAP
    source = f"{status}: {o.get('citation') or blocks.GAP}"
    if o.get("caveat"):
        source += f" – Caveat: {o['caveat']}"
    return [o.get("rule_id"), blocks.word(o.get("outcome"), "OUTCOME_"), " – ".join(filter(None, why)), source]


def _unasked(o: Record) -> bool:
    """Whether it is a gate that the plan lacks: silence that must not be read as a PASS."""
    not_applicable = o.get("outcome") == "OUTCOME_NOT_APPLICABLE" and o.get("message") == _NO_CONDITION
    return not_applicable and str(o.get("rule_id", "")).startswith(_GATE)
