"""What ``make bench-audits`` prints of its comparison with the plain way."""

from __future__ import annotations

import json

from benchmarks import audits


def test_the_ratio_is_a_number_and_its_rounds_stand_beside_it() -> None:
    told = json.loads(json.dumps(audits.ratios_of([8.5, 9.418, 8.9], [2.8, 2.7, 3.1])))
    assert told["ratio_plain"] == 8.9
    assert told["ratio_plain_distinct"] == 2.8
    assert told["ratio_plain_rounds"]["candidates"] == {"low": 8.5, "high": 9.42, "rounds": [8.5, 9.42, 8.9]}
    assert told["ratio_plain_rounds"]["distinct"]["low"] == 2.7
