"""From request to decision: the audit worker's prepare task, then intake policy."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from google.protobuf import json_format
from sqlalchemy import Connection

from assay import canonical
from assay.digests import sha256_bytes
from assay.dp_sgd import USER
from assay.errors import AbortedError, IntegrityError, NotFoundError, PreconditionError
from assay.subjects import INDEX_FILE, KEY_FILE, SubjectIndex
from assay.v1 import dataset_pb2, measurement_pb2, policy_input_pb2, policy_pb2, tuning_job_pb2
from audit.ledger.writer import UnitOfWork
from gateway import lineage
from gateway.admission import account, facts, quotes
from gateway.admission.exchange import PRIVATE_FILE, Result, Task
from gateway.admission.fixes import minimal_fix
from gateway.admission.office import Known, Office, failed, make_task, task_id
from gateway.admission.quotes import quote_record
from gateway.base_models import DIGEST
from gateway.erasures import demand_usable
from gateway.history import INTAKE_QUESTION
from gateway.jobs import views
from gateway.jobs.transitions import Event
from gateway.store import jobs
from gateway.store.blobs import Blob
from gateway.store.tables import JobRow
from gateway.subjects import Erased, erased_in
from policies.rule import GOOD

SPLITS = ("train.jsonl", "validation.jsonl", "selection.jsonl")
FACTS_FILE = "facts.json"
_CANARIES = "prepare.canaries"
"""The fact of a job that holds how many canaries its prepare task derives."""
_PARENTS = "parents"
_TRAINED = "prepare.train.jsonl"
_FULL_WORDS = 20
"""With more rules that fired than this, their words are cut in the record; the job shows them whole."""
_SHORT = 160
_HELD = (policy_pb2.OUTCOME_PASS, policy_pb2.OUTCOME_NOT_APPLICABLE)
FILE_RULE = "INTAKE-FILE"
FILE_FAULTS = frozenset({
    "ARCHIVE_BROKEN", "ARCHIVE_ENCRYPTED", "ARCHIVE_MANY_FILES", "ARCHIVE_NESTED", "ARCHIVE_PATH", "ARCHIVE_TOO_LARGE",
    "GROUP_COLUMN_MISSING", "MALFORMED_PARQUET", "PARQUET_NESTED", "PARQUET_TOO_LARGE",
    "BAD_COLUMN_NAME", "DUPLICATE_COLUMN", "EMPTY_COLUMN_NAME", "EMPTY_FILE", "FAVOURABLE_LABEL_ABSENT",
    "HIDDEN_COLUMN_MISSING", "LABEL_COLUMN_MISSING", "LABEL_COLUMN_UNDECLARED", "LABEL_IS_SENSITIVE",
    "MALFORMED_CSV", "NO_VISIBLE_COLUMN", "ONE_LABEL", "ROW_TOO_LONG", "SENSITIVE_COLUMN_MISSING",
    "TOO_MANY_COLUMNS", "TOO_MANY_GROUPS", "TOO_MANY_LABELS", "TOO_MANY_ROWS", "UNCLOSED_QUOTE",
    "UNREADABLE_ENCODING",
})  # fmt: skip
"""What the prepare task says of a file that is no dataset: the customer's fault, so a denial, not a failure."""


async def begin(office: Office, job: JobRow) -> None:
    """RECEIVED to PREPARING; what policy wants planted then stands, so that a new bundle changes no task under way.

    So does which rows of parents the task is given: from then on no erasure takes them before it has ended.
    """
    known = await office.known(job)
    now = dt.datetime.now(dt.UTC)
    parents = await office.store.fetch(lambda c: _parents(office, job, c, now))
    ordered = {_CANARIES: json.dumps(_canaries(office, job, known), sort_keys=True)}
    if parents:
        ordered[lineage.ROWS] = json.dumps(parents, sort_keys=True)
    await office.change(
        job,
        Event.PREPARE,
        predicate={"task_id": task_id(job, "prepare", known.facts)},
        facts=ordered,
        before=partial(_demand_same_parents, office, job, parents),
    )


def _parents(office: Office, job: JobRow, c: Connection, now: dt.datetime) -> dict[str, Any]:
    """The train file by job of the models that the job's model comes of, and how many are not to be had any more.

    A dataset that was erased takes its splits along; one with rows of an erased subject, or whose time is over, is read
    by nothing new, and so not for this. Empty for a job that comes of no own model.
    """
    files: dict[str, str] = {}
    unread = 0
    for before in lineage.jobs_before(c, views.request_of(job)):
        digest = jobs.facts(c, before.name).get(_TRAINED, "")
        try:
            demand_usable(c, views.request_of(before).dataset, now)
        except (NotFoundError, PreconditionError):
            digest = ""
        if digest and office.blobs.exists(job.unit, digest):
            files[before.name] = digest
        else:
            unread += 1
    return {"files": files, "unread": unread} if files or unread else {}


def _demand_same_parents(office: Office, job: JobRow, parents: Mapping[str, Any], uow: UnitOfWork) -> None:
    """What was erased meanwhile is in no task.

    Raises:
        AbortedError: ``STALE``; the job is begun again.
    """
    if _parents(office, job, uow.connection, uow.now) != parents:
        raise AbortedError("STALE", "rows of a parent were erased meanwhile", remedy="it is begun again")


async def prepare(office: Office, job: JobRow) -> None:
    """PREPARING to DENIED or QUEUED.

    Raises:
        TaskFailedError: the worker's own fault.
        PreconditionError: its machine had no room; it is done again.
        UnavailableError: the worker cannot be reached.
        InvalidInputError: ``BASE_MODEL_UNKNOWN`` when the job's base model or teacher is not installed any more;
            ``BASE_MODEL_AMBIGUOUS`` for the teacher of a job of before its id was kept.
        IntegrityError: its result does not hold; ``BASE_MODEL_CHANGED`` when the base model's id stands for other
            files than when it was asked for.
    """
    known = await office.known(job)
    task = prepare_task(office, job, known)
    peer = office.peer("prepare")
    look = partial(office.look, job, "prepare")
    ended = await office.exchange.follow(peer, task, look)
    if not ended.done:
        await office.demand_room_there(job, task, ended)
        error = failed("prepare", ended.task.reason)
        if error.reason not in FILE_FAULTS:
            raise error
        spent = office.spent(job, office.settings.price_book, "prepare", ended.seconds)
        await _deny_file(office, job, known, error.reason, error.message, spent)
        return
    async with office.exchange.result(peer, task, ended, look) as result:
        await _decide(office, job, known, result)


def prepare_task(office: Office, job: JobRow, known: Known) -> Task:
    """The prepare task of a job, with the train files of the models that its own comes of; the same for ever."""
    request = views.request_of(job)
    kind = dataset_pb2.DatasetFormat.Name(known.dataset.format)
    sheet = views.from_json(known.dataset.datasheet, dataset_pb2.Datasheet)
    order = {
        "format": kind.removeprefix("DATASET_FORMAT_"),
        "datasheet": canonical.from_message(sheet),
        "base_model": request.base_model,
        "seed": seed_of(job.name),
        "canaries": _canaries(office, job, known),
        "job": job.name,
    }
    if request.differential_privacy.unit == USER:
        order["privacy_unit"] = USER
    # In the order of their names; of a job that began before this was kept, the rows of no parent.
    none: dict[str, Any] = {"files": {}, "unread": 0}
    parents = known.json(lineage.ROWS) if lineage.ROWS in known.facts else none
    files = [sha256 for _, sha256 in sorted(parents["files"].items())]
    order |= {name: n for name, n in ((_PARENTS, len(files)), ("unread_parents", parents["unread"])) if n}
    blobs = {f"{_PARENTS}/{number}.jsonl": sha256 for number, sha256 in enumerate(files, 1)}
    secrets = {KEY_FILE: office.blobs.unit_keys(job.unit, create=True).subject_key} if sheet.group_field else {}
    return make_task(job, known, "prepare", order, {"dataset": known.dataset.sha256, **blobs}, secrets=secrets)


def _canaries(office: Office, job: JobRow, known: Known) -> dict[str, int]:
    """How many canaries a job's prepare task derives; what policy wants by now for a job of before that was kept."""
    if _CANARIES in known.facts:
        kept: dict[str, int] = known.json(_CANARIES)
        return kept
    return office.policy.preparation(views.request_of(job).audit_profile)


def seed_of(name: str) -> int:
    """A seed that follows from a name, below 2**31."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) & 0x7FFFFFFF


async def _decide(office: Office, job: JobRow, known: Known, result: Result) -> None:
    data = _read_facts(result)
    index = await asyncio.to_thread(_read_index, known, result)
    if index is not None:
        erased = await office.store.fetch(lambda c: erased_in(c, job.unit, index))
        if erased:
            async with office.keeping(job, result, (INDEX_FILE,)) as kept:
                spent = office.spent(job, office.settings.price_book, "prepare", result.seconds)
                await _deny_file(office, job, known, "SUBJECT_ERASED", _erased_words(erased), spent, _named(kept))
            return
    request = views.request_of(job)
    base = office.base_models.get(request.base_model, known.facts.get(DIGEST, ""))
    parent = await office.store.fetch(lambda c: lineage.parent_of(c, request))
    taught_by = known.facts.get(lineage.TEACHER)
    teacher = await office.store.fetch(lambda c: lineage.teacher_of(c, request, office.base_models, taught_by))
    question = facts.intake_input(office.settings, request, job.creator, known.dataset, data, base, parent, teacher)
    now = dt.datetime.now(dt.UTC)
    by_others, told = await office.store.fetch(lambda c: (account.reserved(c, job, now), account.read(c, job, now)))
    question.account.CopyFrom(told)
    decision = await asyncio.to_thread(_answer, office, question)
    book = office.settings.price_book
    quote = quote_record(book, question)
    established = {
        "prepare.predicate": json.dumps(result.predicate, sort_keys=True),
        INTAKE_QUESTION: views.to_json(question),
        quotes.FACT: json.dumps(quote, sort_keys=True),
        quotes.PRICES: book.model_dump_json(),
    }
    predicate = {
        **decision_predicate(decision),
        "data_facts_sha256": result.files[FACTS_FILE],
        "statement": result.envelope,
        **_by_rule(request, data, base.parameters),
        **_privacy(question.request),
        "quote_usd_micros": question.request.quote_usd_micros,
        "quote": quote,
    }
    subjects = [("dataset", known.dataset.sha256), *sorted(result.files.items())]
    names = (*SPLITS, PRIVATE_FILE) if _may_train(decision) else ()
    index_file = () if index is None else (INDEX_FILE,)
    reserve = partial(account.reserve, job=job, question=question, by_others=by_others)
    async with office.keeping(job, result, (*names, *index_file)) as kept:
        await office.change(
            job,
            Event.QUEUE if decision.allowed else Event.DENY,
            reason="" if decision.allowed else reason_of(decision),
            predicate=predicate,
            subjects=subjects,
            values={
                "data": views.to_json(data),
                "decision": views.to_json(decision),
                "quote_usd_micros": question.request.quote_usd_micros,
                **office.spent(job, book, "prepare", result.seconds),
            },
            facts={**_named(kept), **established},
            before=partial(_demand_nobody_erased, job, index),
            after=reserve if decision.allowed else None,
        )


def _demand_nobody_erased(job: JobRow, index: SubjectIndex | None, uow: UnitOfWork) -> None:
    """An order that came while the job was decided and stored found no rows here: its index is named from now on only.

    Raises:
        AbortedError: ``STALE``; the job is decided again.
    """
    if index is not None and erased_in(uow.connection, job.unit, index):
        raise AbortedError("STALE", "an erasure was ordered meanwhile", remedy="it is decided again")


def _may_train(decision: policy_pb2.Decision) -> bool:
    """Whether the rows may still be needed: it is allowed, or people may waive all that stands in its way.

    What can only be refused leaves no copy of its rows, or refused jobs would fill the disk.
    """
    return decision.allowed or all(o.waivable_by for o in decision.outcomes if o.outcome not in GOOD)


def _named(kept: Mapping[str, Blob]) -> dict[str, str]:
    """The facts by which a job names the files of its preparation."""
    return {f"prepare.{name}": blob.sha256 for name, blob in kept.items()}


def _by_rule(
    request: tuning_job_pb2.CreateTuningJobRequest, data: policy_input_pb2.DataFacts, parameters: int
) -> dict[str, Any]:
    """What rules chose for a request that asked for it, each with its reason."""
    chosen = facts.hyperparameters(request, data, parameters)
    if not chosen.reasons:
        return {}
    values = canonical.from_message(chosen.values)
    named = [
        {"name": name, "value": str(values.get(name, "")), "why": why} for name, why in sorted(chosen.reasons.items())
    ]
    return {"hyperparameters": named}


def _privacy(asked: policy_input_pb2.RequestFacts) -> dict[str, Any]:
    """The differential privacy that was decided on; its epsilon is what a job that is let train reserves."""
    if not asked.HasField("differential_privacy"):
        return {}
    return {"differential_privacy": canonical.from_message(asked.differential_privacy)}


def _answer(office: Office, question: policy_input_pb2.IntakeInput) -> policy_pb2.Decision:
    """Policy's answer, with the use as it was read; a denial says what would change it."""
    decision = office.policy.decide(question)
    decision.use_reading.CopyFrom(office.policy.read_use(question))
    if not decision.allowed:
        fix = minimal_fix(office.policy, office.settings, office.base_models, question)
        decision.minimal_fix.CopyFrom(fix)
    return decision


async def _deny_file(
    office: Office,
    job: JobRow,
    known: Known,
    code: str,
    words: str,
    spent: Mapping[str, Any],
    established: Mapping[str, str] | None = None,
) -> None:
    """Denies a file that could not be read as what it claims to be, or may not be; the outcome names the fault."""
    rules = office.policy.policy()
    outcome = policy_pb2.RuleOutcome(
        rule_id=FILE_RULE,
        title="The file can be read as what it claims to be, and may be",
        outcome=policy_pb2.OUTCOME_FAIL,
        message=f"{code}: {words}",
        citation="Assay's own intake: a file that cannot be parsed cannot be judged",
        status=policy_pb2.RULE_STATUS_INTERNAL,
        fix="mend the file as the message says, upload it again and ask for a new job",
    )
    decision = policy_pb2.Decision(
        allowed=False,
        outcomes=[outcome],
        bundle_sha256=rules.bundle_sha256,
        limits_sha256=rules.limits_sha256,
        engine="assay-intake",
    )
    await office.change(
        job,
        Event.DENY,
        reason=reason_of(decision),
        predicate=decision_predicate(decision),
        subjects=[("dataset", known.dataset.sha256)],
        values={"decision": views.to_json(decision), **spent},
        facts=established,
    )


def _erased_words(erased: Sequence[Erased]) -> str:
    """Which rows must go, by number and order; no handle, which would be one word more than is needed."""
    said = [
        f"order {e.order_index}: rows {', '.join(map(str, e.rows[:20]))}{' and more' if len(e.rows) > 20 else ''}"
        for e in erased[:20]
    ]
    return f"it holds rows of data subjects whose erasure was ordered ({'; '.join(said)})"


def decision_predicate(decision: policy_pb2.Decision) -> dict[str, Any]:
    """A decision and its plan as they are recorded; the plan's digest is what the work order binds."""
    bare = policy_pb2.Decision()
    bare.CopyFrom(decision)
    bare.ClearField("audit_plan")
    _shorten(bare.outcomes)
    predicate = {"decision": canonical.from_message(bare)}
    if decision.HasField("audit_plan"):
        predicate["audit_plan"] = canonical.from_message(decision.audit_plan)
        predicate["audit_plan_sha256"] = plan_digest(decision.audit_plan)
    return predicate


def shortened(verdict: policy_pb2.Verdict) -> policy_pb2.Verdict:
    """A verdict as it is recorded."""
    bare = policy_pb2.Verdict()
    bare.CopyFrom(verdict)
    _shorten(bare.outcomes)
    return bare


def _shorten(outcomes: Sequence[policy_pb2.RuleOutcome]) -> None:
    """Keeps a record within its size: what a bundle says of a rule that held is left to the bundle's digest."""
    fired = [outcome for outcome in outcomes if outcome.outcome not in _HELD]
    for outcome in outcomes:
        if outcome.outcome in _HELD:
            for name in ("title", "citation", "caveat", "fix", "message"):
                outcome.ClearField(name)
        elif len(fired) > _FULL_WORDS:
            for name in ("message", "fix", "caveat", "citation"):
                setattr(outcome, name, getattr(outcome, name)[:_SHORT])


def plan_digest(plan: measurement_pb2.AuditPlan) -> str:
    """Hex SHA-256 of a plan's canonical JSON."""
    return sha256_bytes(canonical.encode(canonical.from_message(plan)))


def reason_of(answer: policy_pb2.Decision | policy_pb2.Verdict) -> str:
    """The rules that stood in the way, as one line."""
    fired = [o for o in answer.outcomes if o.outcome not in GOOD]
    return "; ".join(f"{o.rule_id}: {o.message}" for o in fired)[:2000]


def _read_facts(result: Result) -> policy_input_pb2.DataFacts:
    try:
        data = json_format.Parse((result.folder / FACTS_FILE).read_text("utf-8"), policy_input_pb2.DataFacts())
    except (OSError, ValueError, json_format.ParseError) as error:
        raise IntegrityError("RESULT_FACTS", "the prepare task left no readable facts") from error
    for name in SPLITS:
        split = name.removesuffix(".jsonl")
        if result.files.get(name) != data.split_sha256.get(split):
            raise IntegrityError("RESULT_FACTS", f"the facts name another {split} split than the result holds")
    if PRIVATE_FILE not in result.files:
        raise IntegrityError("RESULT_FACTS", "the prepare task left no private part")
    return data


def _read_index(known: Known, result: Result) -> SubjectIndex | None:
    """Whom the rows are about, by keyed handle; None where the datasheet names no group field."""
    if not views.from_json(known.dataset.datasheet, dataset_pb2.Datasheet).group_field:
        return None
    if INDEX_FILE not in result.files:
        raise IntegrityError("RESULT_FACTS", "the prepare task left no index of data subjects")
    index = SubjectIndex.parse((result.folder / INDEX_FILE).read_bytes())
    index.demand_ordered()
    return index
