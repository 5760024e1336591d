"""Canonical JSON: equal to RFC 8785 inside the subset, refused outside it."""

import json
import math
import struct
from typing import Any

import pytest
import rfc8785
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from assay import canonical
from assay.errors import InvalidInputError
from assay.v1 import measurement_pb2, policy_input_pb2, tuning_job_pb2

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_KEY = st.text(st.characters(max_codepoint=127), max_size=12)
_INTEGER = st.integers(-(2**53) + 1, 2**53 - 1)
_VALUE = st.recursive(
    st.none() | st.booleans() | _INTEGER | _TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_KEY, inner, max_size=5),
    max_leaves=25,
)


@given(_VALUE)
def test_encode_equals_rfc_8785_and_decode_inverts_it(value: Any) -> None:
    data = canonical.encode(value)
    assert data == rfc8785.dumps(value)
    assert canonical.decode(data) == value


@given(st.binary(max_size=60) | _VALUE.map(lambda v: json.dumps(v).encode()))
def test_decode_accepts_only_what_re_encodes_to_the_same_bytes(data: bytes) -> None:
    try:
        value = canonical.decode(data)
    except InvalidInputError as error:
        assert error.reason == "NOT_CANONICAL"
    else:
        assert rfc8785.dumps(value) == data


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"a":1,"a":1}', id="duplicate key"),
        pytest.param(b'{"a":1,"\\u0061":1}', id="duplicate key behind an escape"),
        pytest.param(b'{"b":1,"a":2}', id="reordered keys"),
        pytest.param(b'{"a": 1}', id="space"),
        pytest.param(b'{"a":1}\n', id="newline at the end"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', id="byte order mark"),
        pytest.param(b"NaN", id="NaN"),
        pytest.param(b"[Infinity]", id="infinity"),
        pytest.param(b"1e400", id="1e400"),
        pytest.param(b"1.0", id="integral float"),
        pytest.param(b"1e3", id="integral exponent"),
        pytest.param(b"-0", id="minus zero"),
        pytest.param(b"9007199254740992", id="2**53"),
        pytest.param(b"-9007199254740992", id="-(2**53)"),
        pytest.param(b"1" * 5000, id="longer than Python reads"),
        pytest.param(b'"\\ud800"', id="lone surrogate"),
        pytest.param(b'"\xed\xa0\x80"', id="surrogate in UTF-8"),
        pytest.param(b'"\\u0041"', id="needless escape"),
        pytest.param(b'"\\/"', id="escaped slash"),
        pytest.param('{"é":1}'.encode(), id="key that is not ASCII"),
        pytest.param(b"[" * 100_000, id="deep and unfinished"),
        pytest.param(b"[" * 102 + b"]" * 102, id="deep"),
        pytest.param(b"", id="empty"),
        pytest.param(b"{}{}", id="two values"),
        pytest.param(b"{'a':1}", id="not JSON"),
    ],
)
def test_decode_refuses(data: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        canonical.decode(data)
    assert caught.value.reason == "NOT_CANONICAL"


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (1.5, "$"),
        (math.nan, "$"),
        (2**53, "$"),
        ({"a": [0, -(2**53)]}, "$.a[1]"),
        ("\ud800", "$"),
        ({"é": 1}, "$"),
        ({1: "a"}, "$"),
        (b"bytes", "$"),
        ({"a": {1, 2}}, "$.a"),
    ],
)
def test_encode_refuses_and_names_the_place(value: Any, where: str) -> None:
    with pytest.raises(InvalidInputError, match="does not allow") as caught:
        canonical.encode(value)
    assert caught.value.reason == "NOT_CANONICAL"
    assert caught.value.message.startswith(f"{where} holds")


def test_encode_refuses_a_value_that_holds_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidInputError, match="more than 100 levels"):
        canonical.encode(loop)


def test_a_hundred_levels_are_allowed() -> None:
    data = b"[" * 100 + b"]" * 100
    assert canonical.encode(canonical.decode(data)) == data
    with pytest.raises(InvalidInputError, match="more than 100 levels"):
        canonical.decode(b"[" + data + b"]")


def test_a_refusal_never_quotes_the_value() -> None:
    with pytest.raises(InvalidInputError) as caught:
        canonical.decode(b'{"secret":"hunter2","secret":"hunter2"}')
    assert "hunter2" not in caught.value.diagnostics()


@given(st.floats())
def test_decimal_reads_back_to_the_same_double(value: float) -> None:
    text = canonical.decimal(value)
    back = float(text)
    assert struct.pack(">d", back) == struct.pack(">d", value) or (math.isnan(back) and math.isnan(value))


@given(
    st.recursive(st.floats() | st.integers() | _TEXT | st.booleans(), lambda v: st.lists(v) | st.dictionaries(_KEY, v))
)
def test_float_free_data_is_always_canonical(value: Any) -> None:
    canonical.encode(canonical.float_free(value))


def test_a_message_maps_field_by_field_and_unset_fields_stay_out() -> None:
    job = tuning_job_pb2.TuningJob(
        name="units/credit/tuningJobs/a",
        state=tuning_job_pb2.TuningJob.STATE_QUEUED,
        create_time=Timestamp(seconds=1, nanos=500_000_000),
        stage_seconds={"train": 1.5, "audit": math.inf},
        quote_usd_micros=2**60,
        hyperparameters=tuning_job_pb2.Hyperparameters(epochs=0.1, seed=0),
    )
    assert canonical.from_message(job) == {
        "name": "units/credit/tuningJobs/a",
        "state": "STATE_QUEUED",
        "create_time": "1970-01-01T00:00:01.500Z",
        "stage_seconds": {"train": "1.5", "audit": "Infinity"},
        "quote_usd_micros": str(2**60),
        "hyperparameters": {"epochs": "0.1", "seed": 0},
    }
    canonical.encode(canonical.from_message(job))


def test_a_message_keeps_an_enum_number_that_is_newer_than_the_stub() -> None:
    job = tuning_job_pb2.TuningJob.FromString(tuning_job_pb2.TuningJob(state=77).SerializeToString())  # type: ignore[arg-type]
    assert canonical.from_message(job) == {"state": 77}


def test_repeated_and_map_of_messages() -> None:
    one = measurement_pb2.Measurement(name="privacy.canary_auc", value=math.nan, n=3)
    two = measurement_pb2.Measurement(intervals=[measurement_pb2.Interval(confidence=0.95, lower=-0.0)])
    release = policy_input_pb2.ReleaseInput(measurements={"a": one, "b": two})
    assert canonical.from_message(release) == {
        "measurements": {
            "a": {"name": "privacy.canary_auc", "value": "NaN", "n": 3},
            "b": {"intervals": [{"confidence": "0.95", "lower": "-0.0"}]},
        }
    }
