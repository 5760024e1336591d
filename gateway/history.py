"""Past questions and answers of an installation, read from its own rows: what replays and searches go through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from google.protobuf import json_format

from assay.errors import InvalidInputError
from assay.v1 import policy_input_pb2, policy_pb2
from audit.ledger import dialect
from gateway import database_file
from gateway.settings import Settings
from gateway.store import rows
from gateway.store.tables import FactRow, JobRow
from policies.replay import Decided

INTAKE_QUESTION, RELEASE_QUESTION = "question.intake", "question.release"
"""Facts of a job under which the question is kept as policy was asked it, as protobuf JSON."""


def decided(directory: Path) -> Iterator[Decided]:
    """Every stored question of an installation with its answer, oldest first; the database is only read.

    Raises:
        InvalidInputError: ``SETTINGS_MISSING`` when there is no installation, ``HISTORY`` when its rows cannot be read.
        PreconditionError: ``DATABASE_LOST``.
    """
    settings = Settings.load(directory)
    database_file.demand_not_lost(settings)
    if not database_file.is_there(settings):
        raise InvalidInputError("HISTORY", f"{directory} has decided nothing yet", remedy="start its gateway first")
    engine = reader(settings)
    job, fact = rows.table(JobRow).c, rows.table(FactRow).c
    query = (
        sa.select(job.name, fact.key, fact.value, job.decision, job.verdict)
        .where(fact.job == job.name, fact.key.in_((INTAKE_QUESTION, RELEASE_QUESTION)))
        .order_by(job.created_us, job.name, fact.key)
    )
    try:
        with engine.connect() as connection:
            names = connection.execute(sa.select(job.name).order_by(job.created_us, job.name)).scalars().all()
            for row in rows.by_name(connection, query, job.name, names):
                answer = row.decision if row.key == INTAKE_QUESTION else row.verdict
                yield _decided(row.name, row.key, row.value, answer)
    except (sa.exc.SQLAlchemyError, json_format.ParseError) as error:
        why = getattr(error, "orig", error)
        raise InvalidInputError("HISTORY", f"the rows of {directory} cannot be read: {why}") from error
    finally:
        engine.dispose()


def reader(settings: Settings) -> sa.Engine:
    """The file opened so that nothing can be written; PostgreSQL as the gateway reads it."""
    if settings.postgres_url:
        return dialect.connect(settings.postgres_url)
    url = f"sqlite:///file:{settings.database.absolute()}?mode=ro&uri=true"
    return sa.create_engine(url, poolclass=sa.NullPool, hide_parameters=True)


def _decided(name: str, key: str, text: str, answer: str) -> Decided:
    if key == INTAKE_QUESTION:
        decision = json_format.Parse(answer, policy_pb2.Decision())
        return Decided.of(name, json_format.Parse(text, policy_input_pb2.IntakeInput()), decision)
    verdict = json_format.Parse(answer, policy_pb2.Verdict())
    return Decided.of(name, json_format.Parse(text, policy_input_pb2.ReleaseInput()), verdict)
