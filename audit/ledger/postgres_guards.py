"""The guards that keep the ledger's tables append-only in PostgreSQL: triggers, and whose tables they are.

The tables lie in the schema ``assay`` and belong to the role ``assay_owner``, as which nobody can log in.
``assay_writer`` may SELECT and INSERT, ``assay_reader`` SELECT; ``postgres_roles.sql`` makes the roles. The triggers
refuse the owner too, and are ENABLE ALWAYS, since an ordinary one sleeps under ``session_replication_role = replica``;
TRUNCATE fires no row trigger and has its own. A superuser can disable a trigger, and ``ENABLE TRIGGER ALL`` afterwards
does not make it ALWAYS again: :func:`check_guards` names what such a visit leaves behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from assay.errors import IntegrityError

SCHEMA = "assay"
OWNER, WRITER, READER = "assay_owner", "assay_writer", "assay_reader"
LOG_TABLES = ("log_record", "log_tile", "log_checkpoint")

_REFUSE = """
BEGIN
  RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only', ERRCODE = 'insufficient_privilege';
END
"""


def _guard(condition: str, message: str, declare: str = "") -> str:
    return f"""{declare}
BEGIN
  IF {condition} THEN
    RAISE EXCEPTION '{message}' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END
"""


# Besides the next index and the unit's next number: the job's first record is the one that is there, the leaf is the
# body's hash, and the body names the row's unit, number and type, so that neither a twin nor a lying column gets in.
FUNCTIONS = {
    "log_refuse": _REFUSE,
    "log_record_guard": _guard(
        """NEW.idx IS DISTINCT FROM COALESCE((SELECT idx + 1 FROM assay.log_record ORDER BY idx DESC LIMIT 1), 0)
    OR NEW.tseq IS DISTINCT FROM COALESCE((
      SELECT tseq + 1 FROM assay.log_record WHERE unit = NEW.unit ORDER BY tseq DESC LIMIT 1), 1)
    OR NEW.job_first IS DISTINCT FROM (CASE WHEN NEW.job <> '' THEN
      COALESCE((SELECT idx FROM assay.log_record WHERE job = NEW.job AND job_first = idx), NEW.idx) END)
    OR NEW.leaf IS DISTINCT FROM sha256('\\x00'::bytea || NEW.body)
    OR position(convert_to(',"tenant":"' || NEW.unit || '","tprev":', 'UTF8') IN NEW.body) = 0
    OR substring(NEW.body FROM length(NEW.body) - length(tail) + 1) IS DISTINCT FROM tail""",
        "log_record takes only the next leaf",
        """
DECLARE
  tail bytea := convert_to(',"tseq":' || NEW.tseq || ',"type":"' || NEW.type || '","v":1}', 'UTF8');""",
    ),
    "log_tile_guard": _guard(
        "NEW.n IS DISTINCT FROM (SELECT COALESCE(MAX(n) + 1, 0) FROM assay.log_tile WHERE level = NEW.level)\n"
        "    OR length(NEW.hashes) IS DISTINCT FROM 16352",
        "log_tile takes only the next tile",
    ),
    "log_checkpoint_guard": _guard(
        "NEW.size < 1 OR NEW.size <= (SELECT COALESCE(MAX(size), 0) FROM assay.log_checkpoint)",
        "log_checkpoint takes only a larger tree",
    ),
}

INDEXES = {
    "log_record_pkey": "CREATE UNIQUE INDEX log_record_pkey ON assay.log_record USING btree (idx)",
    "log_record_unit": "CREATE INDEX log_record_unit ON assay.log_record USING btree (unit, tseq)",
    "log_record_job": "CREATE INDEX log_record_job ON assay.log_record USING btree (job_first)",
    "log_record_job_name": "CREATE INDEX log_record_job_name ON assay.log_record USING btree (job) "
    "WHERE (job_first = idx)",
    "log_tile_pkey": "CREATE UNIQUE INDEX log_tile_pkey ON assay.log_tile USING btree (level, n)",
    "log_checkpoint_pkey": "CREATE UNIQUE INDEX log_checkpoint_pkey ON assay.log_checkpoint USING btree (size)",
}


@dataclass(frozen=True)
class Trigger:
    """A trigger: when it fires, in SQL and as ``pg_trigger.tgtype`` has it, and the function it calls."""

    table: str
    fires: str
    bits: int
    function: str


# Bits of pg_trigger.tgtype: 1 for each row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate.
TRIGGERS = {
    name: trigger
    for table in LOG_TABLES
    for name, trigger in (
        (f"{table}_guard", Trigger(table, "INSERT ON {} FOR EACH ROW", 1 | 2 | 4, f"{table}_guard")),
        (f"{table}_no_change", Trigger(table, "UPDATE OR DELETE ON {} FOR EACH ROW", 1 | 2 | 8 | 16, "log_refuse")),
        (f"{table}_no_truncate", Trigger(table, "TRUNCATE ON {} FOR EACH STATEMENT", 2 | 32, "log_refuse")),
    )
}


def create_guards(connection: Connection) -> None:
    """Makes the guards that are absent and says who may do what; run as a role that may become ``assay_owner``."""
    functions, triggers = _functions(connection), _triggers(connection)
    for name, body in FUNCTIONS.items():
        if name not in functions:
            connection.exec_driver_sql(
                f"CREATE FUNCTION {SCHEMA}.{name}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog "
                f"AS $guard${body}$guard$"
            )
    for name, trigger in TRIGGERS.items():
        if name not in triggers:
            table = f"{SCHEMA}.{trigger.table}"
            fires = trigger.fires.format(table)
            connection.exec_driver_sql(
                f"CREATE TRIGGER {name} BEFORE {fires} EXECUTE FUNCTION {SCHEMA}.{trigger.function}()"
            )
            connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")
    tables = ", ".join(f"{SCHEMA}.{table}" for table in LOG_TABLES)
    connection.exec_driver_sql(f"REVOKE ALL ON {tables} FROM PUBLIC, {WRITER}, {READER}")
    connection.exec_driver_sql(f"GRANT SELECT, INSERT ON {tables} TO {WRITER}")
    connection.exec_driver_sql(f"GRANT SELECT ON {tables} TO {READER}")


def check_guards(connection: Connection) -> None:
    """Demands that tables are ordinary, durable and the owner's, their indexes ours, and our triggers fire, always.

    Raises:
        IntegrityError: ``GUARD_DRIFT`` naming the table, function, trigger or index.
    """
    check_triggers(connection, FUNCTIONS)
    indexes = _indexes(connection)
    for name in sorted(indexes.keys() | INDEXES.keys()):
        if indexes.get(name) != INDEXES.get(name):
            raise IntegrityError("GUARD_DRIFT", f"index {name} is missing, invalid, foreign or has another definition")


def check_triggers(connection: Connection, bodies: Mapping[str, str]) -> None:
    """The same but for the indexes, where the triggers' functions have these texts.

    Raises:
        IntegrityError: ``GUARD_DRIFT``.
    """
    tables = _tables(connection)
    for table in LOG_TABLES:
        if tables.get(table) != (OWNER, "r", "p", False, False, False):
            raise IntegrityError(
                "GUARD_DRIFT",
                f"table {SCHEMA}.{table} is missing, not {OWNER}'s, unlogged, or has rules, row policies or children",
            )
    functions = _functions(connection)
    for name, body in bodies.items():
        if functions.get(name) != (OWNER, "plpgsql", body, False, ("search_path=pg_catalog",)):
            raise IntegrityError("GUARD_DRIFT", f"function {SCHEMA}.{name} is missing or has another text")
    triggers = _triggers(connection)
    for name in sorted(triggers.keys() | TRIGGERS.keys()):
        wanted, found = TRIGGERS.get(name), triggers.get(name)
        if wanted is None or found is None or found[:-1] != (wanted.table, wanted.bits, f"{SCHEMA}.{wanted.function}"):
            raise IntegrityError("GUARD_DRIFT", f"trigger {name} is missing, foreign or has another definition")
        if found[-1] != "A":
            state = {"D": "disabled", "O": "enabled, but not ALWAYS", "R": "enabled for replicas only"}[str(found[-1])]
            raise IntegrityError(
                "GUARD_DRIFT",
                f"trigger {name} is {state}",
                remedy=f"find out who changed it and run fsck; then ALTER TABLE … ENABLE ALWAYS TRIGGER {name}",
            )


def _tables(connection: Connection) -> dict[str, tuple[object, ...]]:
    query = text(
        "SELECT c.relname, pg_get_userbyid(c.relowner), c.relkind::text, c.relpersistence::text, c.relhasrules, "
        "c.relrowsecurity, EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhparent = c.oid OR i.inhrelid = c.oid) "
        "FROM pg_class c WHERE c.relnamespace = to_regnamespace(:schema) AND c.relname = ANY(:tables)"
    )
    rows = connection.execute(query, {"schema": SCHEMA, "tables": list(LOG_TABLES)})
    return {str(row[0]): tuple(row[1:]) for row in rows}


def _indexes(connection: Connection) -> dict[str, str]:
    """Definition of every index on the ledger's tables; of one that is not valid, nothing."""
    query = text(
        "SELECT i.relname, CASE WHEN x.indisvalid AND x.indisready THEN pg_get_indexdef(i.oid) ELSE '' END "
        "FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid "
        "WHERE c.relnamespace = to_regnamespace(:schema) AND c.relname = ANY(:tables)"
    )
    rows = connection.execute(query, {"schema": SCHEMA, "tables": list(LOG_TABLES)})
    return {str(row[0]): str(row[1]) for row in rows}


def _functions(connection: Connection) -> dict[str, tuple[object, ...]]:
    query = text(
        "SELECT p.proname, pg_get_userbyid(p.proowner), l.lanname, p.prosrc, p.prosecdef, p.proconfig "
        "FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang "
        "WHERE p.pronamespace = to_regnamespace(:schema) AND p.pronargs = 0 AND p.proname = ANY(:names)"
    )
    rows = connection.execute(query, {"schema": SCHEMA, "names": list(FUNCTIONS)})
    return {str(row[0]): (*row[1:5], tuple(row[5] or ())) for row in rows}


def _triggers(connection: Connection) -> dict[str, tuple[object, ...]]:
    """Table, bits, function and state of every trigger on the ledger's tables; a condition or argument is a drift."""
    query = text(
        "SELECT t.tgname, c.relname, CASE WHEN t.tgqual IS NULL AND t.tgnargs = 0 AND cardinality(t.tgattr) = 0 "
        "AND NOT t.tgdeferrable THEN t.tgtype ELSE -1 END, n.nspname || '.' || p.proname, t.tgenabled::text "
        "FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid "
        "JOIN pg_namespace n ON n.oid = p.pronamespace "
        "WHERE NOT t.tgisinternal AND c.relnamespace = to_regnamespace(:schema) AND c.relname = ANY(:tables)"
    )
    rows = connection.execute(query, {"schema": SCHEMA, "tables": list(LOG_TABLES)})
    return {str(row[0]): tuple(row[1:]) for row in rows}
