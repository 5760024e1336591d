"""Attack 8 on PostgreSQL: what each role may not do to the ledger, what start-up says of it, and a writer cut off."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine

from assay.errors import IntegrityError, UnavailableError
from audit.ledger import dialect, fsck, postgres, schema
from audit.ledger.ledger import Ledger
from audit.ledger.note import Verifier
from audit.ledger.postgres_guards import TRIGGERS, check_guards
from tests.audit.ledger.ledger_world import ORIGIN, World, refused
from tests.audit.ledger.storage import PostgresStorage
from tests.postgres_server import AUDITOR, GATEWAY, MIGRATOR, Server

DENIED, GUARDED = "42501", "23514"
WRITER_LOCK_PID = (
    f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = {int.from_bytes(b'assa')} AND objid = 1 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@pytest.fixture(scope="module")
def server(postgres: Server) -> Server:
    return postgres


@pytest.fixture(scope="module")
def grown(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A ledger of two records and a running writer, for attacks that must change nothing."""
    folder = tmp_path_factory.mktemp("grown")
    PostgresStorage.create(folder, server.cluster)
    world = World(folder).start()
    world.append_one()
    world.append_one()
    yield world
    world.close()


@pytest.fixture
def own(server: Server, tmp_path: Path) -> Iterator[World]:
    """A ledger of two records on a database of this test's own."""
    storage = PostgresStorage.create(tmp_path, server.cluster)
    world = World(tmp_path).start()
    world.append_one()
    world.append_one()
    yield world
    world.close()
    storage.cluster.drop_database(storage.name)


def storage_of(world: World) -> PostgresStorage:
    assert isinstance(world.storage, PostgresStorage)
    return world.storage


def attempt(world: World, user: str, *statements: str) -> str:
    """Runs statements as a login, in one transaction; the SQLSTATE of the refusal, or an empty string."""
    store = storage_of(world)
    with psycopg.connect(store.cluster.dsn(store.name, user), options="-c search_path=assay,pg_temp") as connection:
        try:
            for statement in statements:
                connection.execute(statement)
        except psycopg.Error as error:
            return error.sqlstate or "?"
    return ""


def log_of(world: World) -> list[Any]:
    store = storage_of(world)
    return store.sql("SELECT * FROM log_record ORDER BY idx") + store.sql("SELECT * FROM log_checkpoint ORDER BY size")


def faults(world: World) -> list[str]:
    log = Verifier.of(ORIGIN, world.services["log"].public_key())
    return [fault.reason for fault in fsck.check(world.engine, log)]


WRITER_REFUSED = [
    "UPDATE log_record SET body = '' WHERE idx = 0",
    "UPDATE log_checkpoint SET note = ''",
    "UPDATE log_tile SET hashes = ''",
    "DELETE FROM log_record WHERE idx = 2",
    "DELETE FROM log_checkpoint",
    "TRUNCATE log_record",
    "TRUNCATE log_record, log_tile, log_checkpoint CASCADE",
    "INSERT INTO log_record SELECT * FROM log_record ON CONFLICT (idx) DO UPDATE SET body = ''",
    "MERGE INTO log_record r USING log_record s ON r.idx = s.idx WHEN MATCHED THEN UPDATE SET body = ''",
    "MERGE INTO log_record r USING log_record s ON r.idx = s.idx WHEN MATCHED THEN DELETE",
    "SELECT * FROM log_record FOR UPDATE",
    "SELECT * FROM log_record FOR KEY SHARE",
    "LOCK log_record IN ACCESS EXCLUSIVE MODE",
    "LOCK log_record IN EXCLUSIVE MODE",
    "DROP TABLE log_record",
    "DROP TRIGGER log_record_guard ON log_record",
    "DROP FUNCTION log_refuse() CASCADE",
    "DROP SCHEMA assay CASCADE",
    "DROP INDEX log_record_unit",
    "CREATE OR REPLACE FUNCTION assay.log_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "ALTER FUNCTION log_refuse() SET search_path = public",
    "ALTER TABLE log_record DISABLE TRIGGER ALL",
    "ALTER TABLE log_record ENABLE TRIGGER ALL",
    "ALTER TABLE log_record OWNER TO assay_gateway",
    "ALTER TABLE log_record ADD COLUMN x int",
    "ALTER TABLE log_record SET UNLOGGED",
    "ALTER TABLE log_record RENAME TO gone",
    "CREATE TRIGGER soft BEFORE INSERT ON log_record FOR EACH ROW EXECUTE FUNCTION log_refuse()",
    "CREATE RULE soft AS ON INSERT TO log_record DO INSTEAD NOTHING",
    "CREATE UNIQUE INDEX sly ON log_record (type)",
    "CREATE TABLE assay.other (idx int)",
    "CREATE TABLE public.log_record (idx int)",
    "CREATE TEMP TABLE log_record (idx int)",
    "CREATE VIEW public.log_record AS SELECT 1",
    "CREATE SCHEMA other",
    "SET ROLE assay_owner",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION assay_migrator",
    "SET session_replication_role = replica",
    "GRANT assay_owner TO assay_gateway",
    "ALTER ROLE assay_gateway SUPERUSER",
    "COPY log_record TO PROGRAM 'cat'",
    "COPY log_record FROM '/dev/null'",
]
_NEXT = (
    "INSERT INTO log_record SELECT idx + 1, {leaf}, {body}, {unit}, {tseq}, type, job, job_first "
    "FROM log_record WHERE idx = 2"
)
_HASH = "sha256('\\x00'::bytea || {})"


def next_record(body: str = "body", leaf: str = "", unit: str = "unit", tseq: str = "tseq + 1") -> str:
    return _NEXT.format(leaf=leaf or _HASH.format(body), body=body, unit=unit, tseq=tseq)


def renumbered(number: int) -> str:
    return f"convert_to(replace(convert_from(body, 'UTF8'), '\"tseq\":2,', '\"tseq\":{number},'), 'UTF8')"


WRITER_GUARDED = {
    "the same index again": "INSERT INTO log_record SELECT * FROM log_record",
    "a gap": "INSERT INTO log_record SELECT idx + 2, leaf, body, unit, tseq + 1, type, job, job_first FROM log_record",
    "a twin under the next number": next_record(),
    "a twin under its own number": next_record(tseq="tseq"),
    "another unit's column": next_record(body=renumbered(1), unit="'other'", tseq="1"),
    "a number left out": next_record(body=renumbered(4), tseq="4"),
    "a leaf that is not the body's": next_record(body=renumbered(3), leaf="decode(repeat('00', 32), 'hex')"),
    "a leaf of 31 bytes": next_record(body=renumbered(3), leaf="decode(repeat('00', 31), 'hex')"),
    "another type's column": next_record(body=renumbered(3)).replace(" type,", " 'permit.issued',"),
    "a body of nothing": next_record(body="''::bytea"),
    "a smaller checkpoint": "INSERT INTO log_checkpoint SELECT size - 1, note FROM log_checkpoint",
    "a checkpoint of nothing": "INSERT INTO log_checkpoint VALUES (0, '')",
    "a tile out of turn": "INSERT INTO log_tile VALUES (0, 1, decode(repeat('00', 16352), 'hex'))",
    "a short tile": "INSERT INTO log_tile VALUES (0, 0, decode(repeat('00', 16), 'hex'))",
    "an upsert that does nothing": "INSERT INTO log_record SELECT * FROM log_record ON CONFLICT DO NOTHING",
}


@pytest.mark.parametrize("statement", WRITER_REFUSED)
def test_the_gateways_login_is_denied(grown: World, statement: str) -> None:
    before = log_of(grown)
    assert attempt(grown, GATEWAY, statement) == DENIED
    assert log_of(grown) == before


@pytest.mark.parametrize("statement", WRITER_GUARDED.values(), ids=WRITER_GUARDED.keys())
def test_only_the_next_row_is_taken(grown: World, statement: str) -> None:
    before = log_of(grown)
    assert attempt(grown, GATEWAY, statement) == GUARDED
    assert log_of(grown) == before


def test_the_guard_takes_what_is_next(grown: World) -> None:
    """Else the refusals above would say nothing; rolled back by the division."""
    row = next_record(body=renumbered(3), tseq="3")
    assert attempt(grown, GATEWAY, row, "SELECT 1 / 0") == "22012"


def test_a_right_that_the_gateway_gives_itself_is_none(grown: World) -> None:
    """PostgreSQL answers a grant of what one may not grant with a warning."""
    assert attempt(grown, GATEWAY, "GRANT UPDATE ON log_record TO assay_gateway", WRITER_REFUSED[0]) == DENIED
    with grown.engine.connect() as connection:
        postgres.check_enforcement(connection)


def test_the_writer_goes_on_after_all_that(grown: World) -> None:
    grown.append_one()
    assert faults(grown) == []


@pytest.mark.parametrize("user", [MIGRATOR, "postgres"])
@pytest.mark.parametrize("replica", [False, True], ids=["", "as a replica"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log_record SET body = ''",
        "DELETE FROM log_checkpoint",
        "TRUNCATE log_record",
        "TRUNCATE log_record, log_tile, log_checkpoint",
        "MERGE INTO log_record r USING log_record s ON r.idx = s.idx WHEN MATCHED THEN DELETE",
    ],
)
def test_triggers_refuse_owner_and_superuser_too(grown: World, user: str, replica: bool, statement: str) -> None:
    before = log_of(grown)
    role = ["SET session_replication_role = replica"] if replica else []
    become = ["SET ROLE assay_owner"] if user == MIGRATOR else []
    assert attempt(grown, user, *role, *become, statement) == DENIED
    assert log_of(grown) == before


def test_a_reader_reads_and_does_nothing_else(grown: World) -> None:
    assert attempt(grown, AUDITOR, "SELECT * FROM log_record") == ""
    for statement in (WRITER_GUARDED["a gap"], "DELETE FROM log_record", "SET ROLE assay_writer"):
        assert attempt(grown, AUDITOR, statement) == DENIED


def test_superuser_who_disables_triggers_is_seen_afterwards(own: World) -> None:
    """What no trigger can stop: the visit itself. ENABLE TRIGGER ALL leaves 'O' where 'A' was; fsck finds the edit."""
    own.ledger.close()
    edit = (
        "ALTER TABLE log_record DISABLE TRIGGER ALL",
        "UPDATE log_record SET body = convert_to(replace(convert_from(body, 'UTF8'), '\"d\"', '\"e\"'), 'UTF8')",
        "ALTER TABLE log_record ENABLE TRIGGER ALL",
    )
    assert attempt(own, "postgres", *edit) == ""
    states = storage_of(own).sql(
        "SELECT tgenabled::text FROM pg_trigger WHERE tgrelid = 'log_record'::regclass AND NOT tgisinternal"
    )
    assert states == [("O",)] * 3
    refused("GUARD_DRIFT", own.open().start)
    assert {"GUARD_DRIFT", "LEAF_MISMATCH"} <= set(faults(own))
    for name, trigger in TRIGGERS.items():
        storage_of(own).sql(f"ALTER TABLE {trigger.table} ENABLE ALWAYS TRIGGER {name}")
    refused("LEAF_MISMATCH", own.open().start)


SOFT = "RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS 'BEGIN RETURN NEW; END'"
DRIFTS = [
    *(f"DROP TRIGGER {name} ON {trigger.table}" for name, trigger in TRIGGERS.items()),
    *(f"ALTER TABLE {trigger.table} DISABLE TRIGGER {name}" for name, trigger in TRIGGERS.items()),
    "ALTER TABLE log_tile ENABLE TRIGGER ALL",
    "ALTER TABLE log_record ENABLE REPLICA TRIGGER log_record_guard",
    f"CREATE OR REPLACE FUNCTION log_refuse() {SOFT}",
    f"CREATE OR REPLACE FUNCTION log_record_guard() {SOFT}",
    "ALTER FUNCTION log_tile_guard() RESET search_path",
    "ALTER FUNCTION log_checkpoint_guard() SECURITY DEFINER",
    "ALTER FUNCTION log_refuse() OWNER TO assay_gateway",
    "CREATE TRIGGER a_more BEFORE INSERT ON log_record FOR EACH ROW EXECUTE FUNCTION log_refuse()",
    "DROP TRIGGER log_record_no_change ON log_record; CREATE TRIGGER log_record_no_change BEFORE UPDATE OR DELETE "
    "ON log_record FOR EACH ROW WHEN (OLD.idx > 9) EXECUTE FUNCTION log_refuse(); "
    "ALTER TABLE log_record ENABLE ALWAYS TRIGGER log_record_no_change",
    "DROP TRIGGER log_record_no_change ON log_record; CREATE TRIGGER log_record_no_change BEFORE UPDATE OR DELETE "
    "ON log_record FOR EACH STATEMENT EXECUTE FUNCTION log_refuse(); "
    "ALTER TABLE log_record ENABLE ALWAYS TRIGGER log_record_no_change",
    "ALTER TABLE log_record OWNER TO assay_gateway",
    "ALTER TABLE log_checkpoint SET UNLOGGED",
    "CREATE RULE soft AS ON DELETE TO log_record DO INSTEAD NOTHING",
    "ALTER TABLE log_record ENABLE ROW LEVEL SECURITY",
    "CREATE TABLE child () INHERITS (log_record)",
    "DROP TABLE log_tile",
    "ALTER TABLE log_tile RENAME TO gone",
    "DROP INDEX log_record_unit",
    "DROP INDEX log_record_job_name",
    "CREATE UNIQUE INDEX sly ON log_record (unit, tseq)",
    "DROP INDEX log_record_job; CREATE INDEX log_record_job ON log_record (job_first) WHERE idx < 9",
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'log_record_job'::regclass",
]


@pytest.mark.parametrize("statement", DRIFTS)
def test_start_up_names_a_guard_or_index_that_drifted(grown: World, statement: str) -> None:
    as_gateway(grown, "GUARD_DRIFT", statement)


MISSING = {
    "may UPDATE": "GRANT UPDATE ON log_record TO assay_writer",
    "may UPDATE one column": "GRANT UPDATE (job) ON log_record TO assay_gateway",
    "may DELETE": "GRANT DELETE ON log_tile TO PUBLIC",
    "may TRUNCATE": "GRANT TRUNCATE ON log_checkpoint TO assay_writer",
    "may put triggers": "GRANT TRIGGER ON log_record TO assay_gateway",
    "can become the ledger's owner": "GRANT assay_owner TO assay_gateway",
    "is a superuser": "ALTER ROLE assay_gateway SUPERUSER",
    "may become a superuser": "GRANT postgres TO assay_gateway",
    "may make roles": "ALTER ROLE assay_gateway CREATEROLE",
    "has a power": "GRANT pg_write_all_data TO assay_gateway",
    "has a power over files": "GRANT pg_execute_server_program TO assay_writer",
    "owns the ledger's schema": "ALTER SCHEMA assay OWNER TO assay_gateway",
    "may make tables": "GRANT CREATE ON SCHEMA public TO PUBLIC",
    "may make temporary tables": "GRANT TEMP ON DATABASE {} TO assay_writer",
    "owns the database": "ALTER DATABASE {} OWNER TO assay_gateway",
    "may set session_replication_role": "GRANT SET ON PARAMETER session_replication_role TO assay_gateway",
    "synchronous_commit": "SET synchronous_commit = off",
    "synchronous_commit local": "SET synchronous_commit = local",
    "session_replication_role": "SET session_replication_role = replica",
    "transaction_read_only": "SET transaction_read_only = on",
}


@pytest.mark.parametrize("statement", MISSING.values(), ids=MISSING.keys())
def test_start_up_names_a_power_that_the_gateway_must_not_have(grown: World, statement: str) -> None:
    as_gateway(grown, "ENFORCEMENT_MISSING", statement)


def as_gateway(world: World, reason: str, statement: str) -> None:
    """What the start-up check says to the gateway's login after a statement of a superuser, which is then undone."""
    store = storage_of(world)
    engine = create_engine(store.cluster.url(store.name, "postgres"))
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SET LOCAL search_path = assay, pg_temp")
            connection.exec_driver_sql(statement.replace("{}", store.name))
            connection.exec_driver_sql(f"SET SESSION AUTHORIZATION {GATEWAY}")
            refused(reason, lambda: postgres.check_enforcement(connection))
            connection.rollback()
            connection.exec_driver_sql(f"SET SESSION AUTHORIZATION {GATEWAY}")
            postgres.check_enforcement(connection)
    finally:
        engine.dispose()


@pytest.mark.parametrize("user", ["postgres", MIGRATOR])
def test_a_ledger_does_not_start_as_owner_or_superuser(own: World, user: str) -> None:
    own.ledger.close()
    own.engine.dispose()
    own.engine = dialect.connect(storage_of(own).cluster.url(storage_of(own).name, user))
    refused("ENFORCEMENT_MISSING", own.open().start)


def test_a_ledger_does_not_start_without_a_guard(own: World) -> None:
    own.ledger.close()
    storage_of(own).sql("DROP TRIGGER log_record_no_truncate ON log_record")
    refused("GUARD_DRIFT", own.open().start)


def test_a_database_whose_commits_may_be_lost_is_refused(own: World) -> None:
    own.ledger.close()
    own.engine.dispose()
    storage_of(own).sql(f"ALTER DATABASE {storage_of(own).name} SET synchronous_commit = off")
    refused("ENFORCEMENT_MISSING", own.open().start)


@pytest.fixture(params=["fsync", "full_page_writes", "synchronous_commit"])
def lax(request: pytest.FixtureRequest, own: World) -> Iterator[Callable[[], str]]:
    """Turns a setting off for the whole server, as its administrator would, and back on after the test."""
    cluster = storage_of(own).cluster

    def put(statement: str, value: str) -> None:
        cluster.sql("postgres", statement)
        cluster.sql("postgres", "SELECT pg_reload_conf()")
        deadline = time.monotonic() + 10
        while cluster.sql("postgres", f"SHOW {request.param}") != [(value,)]:
            assert time.monotonic() < deadline, "the server did not read its settings"
            time.sleep(0.02)

    def turn_off() -> str:
        put(f"ALTER SYSTEM SET {request.param} = off", "off")
        return str(request.param)

    yield turn_off
    put(f"ALTER SYSTEM RESET {request.param}", "on")


def test_a_server_that_may_lose_commits_is_refused_at_start(own: World, lax: Callable[[], str]) -> None:
    own.ledger.close()
    own.engine.dispose()
    name = lax()
    with pytest.raises(IntegrityError, match=f"{name} is off") as caught:
        own.open().start()
    assert caught.value.reason == "ENFORCEMENT_MISSING"


def test_a_server_that_begins_to_lose_commits_stops_the_writer(own: World, lax: Callable[[], str]) -> None:
    size, name = own.ledger.size, lax()
    with pytest.raises(UnavailableError) as caught:
        for _ in range(40):
            own.append_one()
            size += 1
            time.sleep(0.05)
    assert caught.value.reason == "LEDGER_STOPPED" and own.ledger.stopped == "ENFORCEMENT_MISSING", name
    assert own.ledger.size == size


def test_durability_turned_off_under_the_writer_stops_it(own: World) -> None:
    """The setting stays with the session, whose next batch is refused before it writes."""
    own.ledger.run(lambda uow: uow.connection.exec_driver_sql("SET synchronous_commit = off"))
    with pytest.raises(UnavailableError) as caught:
        for _ in range(40):
            own.append_one()
    assert "ENFORCEMENT_MISSING" in caught.value.message
    size = own.ledger.size
    own.ledger.close()
    own.engine.dispose()
    own.ledger = own.open()
    own.ledger.start()
    assert own.append_one() == size
    assert faults(own) == []


def test_attack_6_the_locks_connection_ends(own: World) -> None:
    """Whoever lost the lock writes no more; another may start once the anchor is given up, too."""
    ((holder,),) = storage_of(own).sql(WRITER_LOCK_PID)
    storage_of(own).sql(f"SELECT pg_terminate_backend({holder}, 5000)")
    other = World(own.folder, clock=own.clock, nonces=own.nonces)
    refused("ANCHOR_IN_USE", other.start)
    before = log_of(own)
    refused("LEDGER_STOPPED", own.append_one)
    assert own.ledger.stopped == "LEDGER_LOCK_LOST"
    assert log_of(own) == before
    own.ledger.close()
    other.start()
    other.append_one()
    assert faults(other) == []
    other.close()


def test_attack_41_the_writers_connection_ends_in_a_batch(own: World) -> None:
    """Nothing was committed: the batch is refused, and the next one goes through."""
    size = own.ledger.size

    def cut(uow: Any) -> None:
        uow.append(draft_one())
        uow.connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    refused("LEDGER_WRITE_FAILED", lambda: own.ledger.run(cut))
    assert own.ledger.size == size
    assert own.append_one() == size
    assert faults(own) == []


def draft_one() -> Any:
    from audit.ledger.records import RecordDraft

    return RecordDraft("credit", "dataset.created", "dataset", {"dataset": "d"})


def test_a_password_is_read_from_a_file_and_never_said(own: World, server: Server, tmp_path: Path) -> None:
    store, secret = storage_of(own), "s3cret-word"
    store.sql(
        "DROP ROLE IF EXISTS secret_login; "
        f"CREATE ROLE secret_login LOGIN PASSWORD '{secret}' IN ROLE assay_writer; "
        f"GRANT CONNECT ON DATABASE {store.name} TO secret_login"
    )
    passfile = tmp_path / "pass"
    passfile.write_text(f"*:*:*:secret_login:{secret}\n")
    passfile.chmod(0o600)
    own.ledger.close()
    own.engine.dispose()
    own.engine = dialect.connect(f"{store.cluster.url(store.name, 'secret_login')}&passfile={passfile}")
    own.ledger = own.open()
    own.ledger.start()
    own.append_one()
    own.ledger.close()
    own.engine.dispose()
    passfile.write_text("*:*:*:secret_login:wrong\n")
    with pytest.raises(UnavailableError) as caught:
        own.open().start()
    assert caught.value.reason == "DATABASE_UNREACHABLE"
    assert secret not in str(caught.value.diagnostics())


@pytest.mark.parametrize(
    ("reason", "url"),
    [
        ("DATABASE_URL", "postgresql+psycopg://gateway:secret@host/assay"),
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "sqlite:///relative.db"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_UNKNOWN", "mysql://host/assay"),
    ],
)
def test_addresses_that_are_refused(reason: str, url: str) -> None:
    refused(reason, lambda: dialect.connect(url))
    refused(reason, lambda: dialect.connect_for_migration(url))


@pytest.mark.parametrize(
    ("rest", "safe"),
    [
        ("@db.example/assay", False),
        ("@db.example/assay?sslmode=disable", False),
        ("@db.example/assay?sslmode=require", False),
        ("@db.example/assay?sslmode=verify-ca", False),
        ("@db.example/assay?sslmode=verify-full&sslmode=disable", False),
        ("@/assay?host=db.example", False),
        ("@/assay?host=/run/postgresql,db.example", False),
        ("@/assay?host=/run/postgresql&host=10.0.0.7", False),
        ("@localhost/assay?hostaddr=10.0.0.7", False),
        ("@/assay?service=production", False),
        ("@db.example/assay?sslmode=verify-full&sslrootcert=ca.crt", True),
        ("@/assay", True),
        ("@/assay?host=/run/postgresql", True),
        ("@localhost:5433/assay", True),
        ("@127.0.0.1/assay", True),
        ("@[::1]/assay", True),
    ],
)
def test_a_network_is_crossed_only_to_a_server_that_proves_its_name(
    rest: str, safe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    url = f"postgresql+psycopg://assay_gateway{rest}"
    for connect in (dialect.connect, dialect.connect_for_migration):
        if safe:
            connect(url).dispose()
        else:
            refused("DATABASE_URL", lambda connect=connect: connect(url))  # type: ignore[misc]


def test_a_host_that_the_environment_names_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    refused("DATABASE_URL", lambda: dialect.connect("postgresql+psycopg://assay_gateway@/assay"))


def test_no_server_there(own: World, tmp_path: Path) -> None:
    engine = dialect.connect(f"postgresql+psycopg://{GATEWAY}@/assay?host={tmp_path}")
    refused("DATABASE_UNREACHABLE", Ledger(engine, ORIGIN, own.services["log"], own.anchor).start)
    engine.dispose()


def test_creating_twice_changes_nothing_and_softened_guards_are_not_mended(own: World) -> None:
    engine = dialect.connect_for_migration(storage_of(own).migration_url)
    schema.create(engine)
    with engine.connect() as connection:
        check_guards(connection)
    storage_of(own).sql(f"CREATE OR REPLACE FUNCTION log_refuse() {SOFT}")
    refused("GUARD_DRIFT", lambda: schema.create(engine))
    engine.dispose()


def test_a_host_that_says_nothing_is_not_waited_for(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reach = postgres._REACH | {"connect_timeout": 2}
    monkeypatch.setattr(postgres, "_REACH", reach)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://{GATEWAY}@127.0.0.1:{silent.getsockname()[1]}/assay"
        ledger = Ledger(dialect.connect(url), ORIGIN, own.services["log"], own.anchor)
        refused("DATABASE_UNREACHABLE", ledger.start)


@pytest.mark.parametrize(("query", "seconds"), [("", "10"), ("&connect_timeout=77", "77")])
def test_the_address_says_how_long_a_host_is_waited_for(grown: World, query: str, seconds: str) -> None:
    with dialect.connect(storage_of(grown).url + query).connect() as connection:
        session: Any = connection.connection.driver_connection
        found = {one.keyword.decode(): one.val.decode() for one in session.pgconn.info if one.val}
    assert found["connect_timeout"] == seconds and found["tcp_user_timeout"] == "60000"
