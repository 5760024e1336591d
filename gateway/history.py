"""Past questions and answers of an installation, read from its own rows: what replays and searches go through."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from google.protobuf import json_format

from assay.errors import InvalidInputError
from assay.v1 import policy_input_pb2, policy_pb2
from gateway.settings import Settings
from policies.replay import Decided

INTAKE_QUESTION, RELEASE_QUESTION = "question.intake", "question.release"
"""Facts of a job under which the question is kept as policy was asked it, as protobuf JSON."""

_QUERY = """
    SELECT job.name, fact.key, fact.value, job.decision, job.verdict
    FROM job_fact AS fact JOIN tuning_job AS job ON job.name = fact.job
    WHERE fact.key IN (?, ?) ORDER BY job.created_us, job.name, fact.key
"""


def decided(directory: Path) -> Iterator[Decided]:
    """Every stored question of an installation with its answer, oldest first; the database is only read.

    Raises:
        InvalidInputError: ``SETTINGS_MISSING`` when there is no installation, ``HISTORY`` when its rows cannot be read.
    """
    database = Settings.load(directory).database
    if not database.is_file():
        raise InvalidInputError("HISTORY", f"{directory} has decided nothing yet", remedy="start its gateway first")
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            for name, key, text, decision, verdict in connection.execute(_QUERY, (INTAKE_QUESTION, RELEASE_QUESTION)):
                yield _decided(name, key, text, decision if key == INTAKE_QUESTION else verdict)
    except (sqlite3.Error, json_format.ParseError) as error:
        raise InvalidInputError("HISTORY", f"the rows of {directory} cannot be read: {error}") from error


def _decided(name: str, key: str, text: str, answer: str) -> Decided:
    if key == INTAKE_QUESTION:
        decision = json_format.Parse(answer, policy_pb2.Decision())
        return Decided.of(name, json_format.Parse(text, policy_input_pb2.IntakeInput()), decision)
    verdict = json_format.Parse(answer, policy_pb2.Verdict())
    return Decided.of(name, json_format.Parse(text, policy_input_pb2.ReleaseInput()), verdict)
