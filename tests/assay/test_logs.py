"""A log line about a fault: where it came from, never what was being read."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from assay.errors import InvalidInputError, origin
from assay.logs import JsonLines

ROW = "jane@example.com owes 4000"


def read(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidInputError("ROW", f"{text} is no number") from error


def test_the_text_of_an_exception_stays_out_of_the_log_and_its_places_are_in_it() -> None:
    with pytest.raises(InvalidInputError) as caught:
        read(ROW)
    error = caught.value
    record = logging.LogRecord(
        "gateway", logging.ERROR, __file__, 1, "unexpected fault", (), (type(error), error, None)
    )
    record.rpc, record.row = "X", ROW
    line = json.loads(JsonLines().format(record))
    assert ROW not in json.dumps(line)
    assert (line["rpc"], line["message"], line["level"]) == ("X", "unexpected fault", "ERROR")
    found = line["exception"]
    assert found[-1] == "caused by ValueError" and "InvalidInputError ROW" in found
    assert any("tests/assay/test_logs.py" in place and place.endswith(" read") for place in found)


def test_a_ring_of_causes_ends_and_a_silenced_one_is_not_told() -> None:
    first, second = ValueError(ROW), KeyError(ROW)
    first.__cause__, second.__cause__ = second, first
    assert origin(first) == ["ValueError", "caused by KeyError"]
    try:
        try:
            int(ROW)
        except ValueError:
            raise OSError(ROW) from None
    except OSError as error:
        assert [line for line in origin(error) if "Error" in line] == ["OSError"]


def test_a_record_without_an_exception_has_none() -> None:
    record = logging.LogRecord("gateway", logging.INFO, __file__, 1, "served %d", (3,), sys.exc_info())
    assert "exception" not in json.loads(JsonLines().format(record))
