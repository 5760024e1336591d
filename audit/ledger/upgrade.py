"""Brings the tables of an earlier release up to date in place: records keep their places, bytes and hashes.

Run before start as who may change the tables, by the gateway's migrations and by a restore from an older backup. A log
is taken only as that release left it, guards included, else a visit that the next start would have named were covered
up by new ones. What is changed stands in no record: the checks at start and fsck read the result like any other log.
"""

from __future__ import annotations

from sqlalchemy import Connection, Engine, inspect

from audit.ledger import postgres_guards, schema


def is_needed(connection: Connection) -> bool:
    """Whether the tables are of an earlier release."""
    return "job_first" not in {column["name"] for column in inspect(connection).get_columns("log_record")}


def upgrade(engine: Engine) -> None:
    """As :func:`upgrade_on`, in a transaction of its own. Needs an engine for migrations.

    Raises:
        IntegrityError: ``GUARD_DRIFT``.
    """
    with engine.connect().execution_options(begin="IMMEDIATE") as connection, connection.begin():
        upgrade_on(connection)


def upgrade_on(connection: Connection) -> None:
    """Adds ``job_first`` to records that have none; does nothing to a log that is up to date.

    Raises:
        IntegrityError: ``GUARD_DRIFT`` when the guards are not those of the release that made the tables.
    """
    if not is_needed(connection):
        return
    on_postgres = connection.dialect.name == "postgresql"
    if on_postgres:
        guard = {"log_record_guard": _POSTGRES_GUARD}
        postgres_guards.check_triggers(connection, postgres_guards.FUNCTIONS | guard)
    else:
        schema.check_triggers(connection, schema.TRIGGERS | {"log_record_guard": _SQLITE_GUARD})
    for statement in (*(_POSTGRES_OPENS if on_postgres else _SQLITE_OPENS), *_FILLS):
        connection.exec_driver_sql(statement)
    schema.create_on(connection)


_SQLITE_GUARD = (
    "CREATE TRIGGER log_record_guard BEFORE INSERT ON log_record WHEN "
    "NEW.idx IS NOT (SELECT COALESCE(MAX(idx) + 1, 0) FROM log_record) OR length(NEW.leaf) IS NOT 32 "
    "OR NEW.tseq IS NOT (SELECT COALESCE(MAX(tseq) + 1, 1) FROM log_record WHERE unit = NEW.unit) "
    """OR NOT instr(NEW.body, CAST(',"tenant":"' || NEW.unit || '","tprev":' AS BLOB)) """
    """OR substr(NEW.body, -length(',"tseq":' || NEW.tseq || ',"type":"' || NEW.type || '","v":1}')) IS NOT """
    """CAST(',"tseq":' || NEW.tseq || ',"type":"' || NEW.type || '","v":1}' AS BLOB) """
    "BEGIN SELECT RAISE(ABORT, 'log_record takes only the next leaf'); END"
)

_POSTGRES_GUARD = """
DECLARE
  tail bytea := convert_to(',"tseq":' || NEW.tseq || ',"type":"' || NEW.type || '","v":1}', 'UTF8');
BEGIN
  IF NEW.idx IS DISTINCT FROM (SELECT COALESCE(MAX(idx) + 1, 0) FROM assay.log_record)
    OR NEW.tseq IS DISTINCT FROM (SELECT COALESCE(MAX(tseq) + 1, 1) FROM assay.log_record WHERE unit = NEW.unit)
    OR NEW.leaf IS DISTINCT FROM sha256('\\x00'::bytea || NEW.body)
    OR position(convert_to(',"tenant":"' || NEW.unit || '","tprev":', 'UTF8') IN NEW.body) = 0
    OR substring(NEW.body FROM length(NEW.body) - length(tail) + 1) IS DISTINCT FROM tail THEN
    RAISE EXCEPTION 'log_record takes only the next leaf' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END
"""

# Dropped are the guards that would refuse the change or are made anew by schema.create_on.
_SQLITE_OPENS = (
    "DROP TRIGGER log_record_guard",
    "DROP TRIGGER log_record_no_update",
    "ALTER TABLE log_record ADD COLUMN job_first INTEGER",
)
_POSTGRES_OPENS = (
    "DROP TRIGGER log_record_guard ON log_record",
    "DROP FUNCTION log_record_guard()",
    "DROP TRIGGER log_record_no_change ON log_record",
    "ALTER TABLE log_record ADD COLUMN job_first bigint",
)
# By the old index, which has the names: it goes when it has served.
_FILLS = (
    "UPDATE log_record SET job_first = (SELECT MIN(first.idx) FROM log_record AS first "
    "WHERE first.job = log_record.job AND first.job <> '') WHERE job <> ''",
    "DROP INDEX log_record_job",
)
