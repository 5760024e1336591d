from __future__ import annotations

import dataclasses
import datetime as dt
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay import canonical, dsse
from assay.errors import AssayError, InvalidInputError
from audit.ledger import records
from audit.ledger.records import Place, RecordDraft
from tests.audit.ledger.ledger_world import JOB, ORIGIN, START, digest, refused

V: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data/vectors/note_vectors.json").read_text("utf-8"))
PLACE = Place(ORIGIN, 1, None, START, "0" * 32)
DRAFT = RecordDraft("credit", "job.preparing", "transition", {"job": JOB, "n": 1}, [("x", digest("x"))])
BODY = records.encode(DRAFT, PLACE)


def changed(**members: Any) -> bytes:
    return canonical.encode({**canonical.decode(BODY), **members})


def test_round_trip() -> None:
    record = records.read(BODY)
    assert (record.log, record.unit, record.sequence, record.previous) == (ORIGIN, "credit", 1, None)
    assert (record.time, record.type, record.job) == (START, "job.preparing", JOB)
    assert record.predicate == {"job": JOB, "n": 1}
    assert records.prepare(DRAFT).job == JOB


def test_attack_29_every_record_has_a_nonce_of_128_bits() -> None:
    for nonce in ("", "0" * 31, "0" * 33, "A" * 32, None, 0):
        refused("RECORD_MALFORMED", partial(records.read, changed(nonce=nonce)))
    assert records.encode(DRAFT, PLACE._replace(nonce="1" * 32)) != BODY


@pytest.mark.parametrize(
    "members",
    [
        {"v": 0},
        {"v": 2},
        {"v": True},
        {"v": "1"},
        {"extra": 1},
        {"log": ""},
        {"log": 1},
        {"tenant": "Credit"},
        {"tenant": ""},
        {"tenant": "a" * 40},
        {"tseq": 0},
        {"tseq": True},
        {"tseq": 2},
        {"tseq": "1"},
        {"tprev": "0" * 64},
        {"tseq": 2, "tprev": "0" * 63},
        {"tseq": 2, "tprev": "A" * 64},
        {"ts": "2026-11-24T12:00:00Z"},
        {"ts": "2026-11-24T12:00:00.000000+00:00"},
        {"ts": "2026-13-24T12:00:00.000000Z"},
        {"ts": "２026-11-24T12:00:00.000000Z"},
        {"ts": 1},
        {"type": "job.unknown"},
        {"type": "job.received"},
        {"type": 7},
        {"sigs": [{"keyid": "", "sig": "", "cert": ""}]},
        {"sigs": {}},
        {"statement": {}},
    ],
    ids=str,
)
def test_attack_44_frozen_schema(members: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        records.read(changed(**members))
    assert caught.value.reason in ("RECORD_MALFORMED", "STATEMENT_MALFORMED")


def test_a_missing_member_is_refused() -> None:
    for name in canonical.decode(BODY):
        value = canonical.decode(BODY)
        del value[name]
        refused("RECORD_MALFORMED", partial(records.read, canonical.encode(value)))


TEXT = BODY.decode()


@pytest.mark.parametrize(
    "body",
    [
        TEXT.replace('"n":1', '"n":1,"n":1'),
        TEXT.replace('"n":1', '"n":NaN'),
        TEXT.replace('"n":1', '"n":1e400'),
        TEXT.replace('"n":1', '"n":1.0'),
        TEXT.replace('"n":1', '"n":-0'),
        TEXT.replace('"n":1', '"n":9007199254740992'),
        TEXT.replace('"n":1', '"n":"\\ud800"'),
        TEXT.replace('"n":1', '"n":"\\u0061"'),
        TEXT.replace('"n":1', '"é":1'),
        TEXT.replace('"n":1', '"n": 1'),
        TEXT.replace('"n":1', '"n":' + "[" * 3000 + "]" * 3000),
        TEXT.replace('"log"', '"zlog"'),
        TEXT + "\n",
        "\ufeff" + TEXT,
        json.dumps(json.loads(TEXT)),
        json.dumps(dict(reversed(json.loads(TEXT).items())), separators=(",", ":")),
        "",
        "null",
        "{}",
        "[1]",
    ],
    ids=range(20),
)
def test_attack_17_canonicalisation_abuse(body: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        records.read(body.encode("utf-8", "surrogatepass"))
    assert caught.value.reason in ("NOT_CANONICAL", "RECORD_MALFORMED")


def test_record_of_60000_bytes_passes_and_one_more_is_refused() -> None:
    room = records.MAX_BODY - len(BODY) - len(',"t":""')
    predicate: dict[str, Any] = {"job": JOB, "n": 1, "t": "x" * room}
    encoded = records.encode(dataclasses.replace(DRAFT, predicate=predicate), PLACE)
    assert len(encoded) == records.MAX_BODY
    predicate["t"] += "x"
    refused("RECORD_TOO_LARGE", lambda: records.encode(dataclasses.replace(DRAFT, predicate=predicate), PLACE))
    refused("RECORD_TOO_LARGE", lambda: records.read(b"x" * 60_001))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"type": "job.unknown"}, "RECORD_MALFORMED"),
        ({"predicate_name": "card"}, "RECORD_MALFORMED"),
        ({"type": "approval.decided", "predicate_name": "approval"}, "RECORD_MALFORMED"),
        ({"unit": "Credit"}, "RECORD_MALFORMED"),
        ({"unit": "support"}, "RECORD_MALFORMED"),
        ({"job": "units/credit/tuningJobs/other"}, "RECORD_MALFORMED"),
        ({"predicate": {"job": "not a job"}}, "RECORD_MALFORMED"),
        ({"predicate": {"job": JOB, "rate": 0.5}}, "NOT_CANONICAL"),
        ({"predicate": {"job": JOB, "n": 2**53}}, "NOT_CANONICAL"),
        ({"predicate": {"job": JOB, "t": "\ud800"}}, "NOT_CANONICAL"),
        ({"subjects": [("x", "0")]}, "STATEMENT_MALFORMED"),
        ({"subjects": [(7, "0" * 64)]}, "STATEMENT_MALFORMED"),
        ({"subjects": [("\ud800", "0" * 64)]}, "NOT_CANONICAL"),
        ({"predicate": {7: 1}}, "NOT_CANONICAL"),
        ({"predicate": {"é": 1}}, "NOT_CANONICAL"),
        ({"predicate": {"x": {7: 1}}}, "NOT_CANONICAL"),
        ({"predicate": {"x": [0.5]}}, "NOT_CANONICAL"),
        ({"predicate": {"x": b"1"}}, "NOT_CANONICAL"),
        ({"envelope": {"payload": ""}}, "ENVELOPE_MALFORMED"),
    ],
    ids=str,
)
def test_drafts_that_cannot_be_recorded(change: dict[str, Any], reason: str) -> None:
    refused(reason, lambda: records.encode(dataclasses.replace(DRAFT, **change), PLACE))


def test_system_may_record_any_units_job() -> None:
    assert records.prepare(dataclasses.replace(DRAFT, unit="system")).job == JOB
    assert records.read(changed(tenant="system")).job == JOB


def test_no_job_is_read_in_another_units_chain() -> None:
    """No writer of ours makes such a record; the auditors of the job's own unit would never see it."""
    refused("RECORD_MALFORMED", lambda: records.read(changed(tenant="claims")))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_whatever_is_too_deep_to_read_is_refused_when_written() -> None:
    depth = 0
    while depth < 100:
        draft = dataclasses.replace(DRAFT, predicate={"job": JOB, "x": nested(depth)})
        try:
            body = records.encode(draft, PLACE)
        except InvalidInputError as error:
            assert error.reason == "NOT_CANONICAL"
            break
        records.read(body)
        depth += 1
    assert 50 < depth < 64
    refused("NOT_CANONICAL", lambda: records.read(changed(statement=nested(64))))


@pytest.mark.parametrize("case", V["jcs"], ids=lambda c: c["name"])
def test_rfc_8785_vectors(case: dict[str, Any]) -> None:
    """Inside the subset the bytes are those of RFC 8785; outside it there is a refusal, never other bytes."""
    value = json.loads(case["input_utf8"])
    try:
        assert canonical.encode(value).hex() == case["output_hex"]
    except InvalidInputError as error:
        assert error.reason == "NOT_CANONICAL"


def test_rfc_8785_vectors_are_not_all_refused() -> None:
    passed = 0
    for case in V["jcs"]:
        try:
            passed += canonical.encode(json.loads(case["input_utf8"])).hex() == case["output_hex"]
        except InvalidInputError:
            continue
    assert passed >= 2


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_reader_refuses_noise_by_name(data: bytes) -> None:
    with pytest.raises(AssayError):
        records.read(data)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(codec="utf-8"), max_size=12),
    lambda v: (
        st.lists(v, max_size=4) | st.dictionaries(st.text(st.characters(codec="ascii"), max_size=6), v, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), values))
def test_whatever_encodes_reads_back_the_same(predicate: dict[str, Any]) -> None:
    body = records.encode(dataclasses.replace(DRAFT, predicate=predicate), PLACE)
    assert records.read(body).predicate == json.loads(json.dumps(predicate))


@settings(max_examples=150)
@given(
    st.dictionaries(st.sampled_from(["a", "b"]), values), st.lists(st.text(st.characters(codec="utf-8")), max_size=2)
)
def test_a_draft_is_written_as_its_statement_would_be(predicate: dict[str, Any], names: list[str]) -> None:
    subjects = [(name, digest(name)) for name in names]
    content = {"sigs": [], "statement": dsse.statement("transition", predicate, subjects), "tenant": "credit"}
    draft = RecordDraft("credit", "job.preparing", "transition", predicate, subjects)
    assert b"{" + records.prepare(draft).content + b"}" == canonical.encode(content)


@settings(max_examples=200)
@given(st.integers(0, len(BODY) - 1), st.integers(0, 7))
def test_a_flipped_bit_never_reads_as_the_same_record(position: int, bit: int) -> None:
    data = bytearray(BODY)
    data[position] ^= 1 << bit
    try:
        assert records.read(bytes(data)) != records.read(BODY)
    except AssayError:
        pass


@given(st.datetimes(timezones=st.just(dt.UTC)))
def test_times_have_one_spelling(time: dt.datetime) -> None:
    text = records.format_time(time)
    assert records.parse_time(text) == time
    assert records.format_time(records.parse_time(text)) == text
