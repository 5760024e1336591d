"""Settings of the gateway: one ``assay.toml`` in the installation directory, everything else by the layout's law."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    StringConstraints,
    field_validator,
    model_validator,
)

from assay import toml_file
from assay.certificates import TRUST_DOMAIN
from assay.errors import InvalidInputError
from assay.identity import Layout
from assay.toml_file import Address
from audit.ledger.postgres import check_url
from audit.ledger.records import OWN_UNITS

Unit = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_][A-Za-z0-9._-]*)?$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WorkerSettings(_Frozen):
    """Where a worker listens and, of the train worker, how many jobs the gateway has on it at once."""

    address: Address
    slots: int = Field(default=1, ge=1, le=64)


class Limits(_Frozen):
    """Caps of this installation."""

    max_dataset_bytes: int = Field(default=4 << 30, ge=1)
    max_unit_bytes: int = Field(default=1 << 40, ge=1)
    max_result_bytes: int = Field(default=16 << 30, ge=1)
    refusals_per_minute: int = Field(default=30, ge=1)
    all_refusals_per_minute: int = Field(default=120, ge=1)
    calls_at_once: int = Field(default=32, ge=1, le=256)
    subject_searches_per_day: int = Field(default=200, ge=1)
    approval_days: int = Field(default=365, ge=1)
    permit_seconds: int = Field(default=86_400, ge=1, le=86_400)
    signature_age_seconds: int = Field(default=900, ge=1)
    quorum_seconds: int = Field(default=20, ge=1, le=300)
    worker_silence_seconds: int = Field(default=900, ge=1)
    store_seconds: int = Field(default=3600, ge=1)


class StoreSettings(_Frozen):
    """A store that datasets may be fetched from.

    Attributes:
        prefix: what addresses begin with: https, a host, and a path that ends in a slash.
        units: units that may fetch from it.
        networks: where the host may lie; empty for public addresses only, never for inside ones.
        ca_file: certificate authorities to trust instead of the system's; a name in the gateway's folder.
        token_file: a bearer token to send; a name in the gateway's folder, readable by the gateway alone.
    """

    prefix: Annotated[str, StringConstraints(pattern=r"^https://[A-Za-z0-9.:\[\]-]+/([A-Za-z0-9._~+=@,:-]+/)*$")]
    units: tuple[Unit, ...] = Field(min_length=1)
    networks: tuple[IPvAnyNetwork, ...] = ()
    ca_file: FileName = ""
    token_file: FileName = ""


class PriceBook(_Frozen):
    """What a run costs, as of a day. Money is in millionths of a US dollar.

    What a run cost is its supervisors' seconds times the price; the fields after that only serve the quote, but for
    ``audit_seconds``, of which a training also leaves to the audit what preparation did not take.

    Attributes:
        as_of: day of the prices.
        source: where they come from.
        device: what the workers of this installation compute on.
        usd_micros_per_device_second: price by device.
        train_tokens_per_second: tokens that a train worker does in a second.
        audit_seconds: seconds that preparation and audit take together.
        grid_gco2_per_kwh: grams of CO2 equivalent for a kilowatt hour where the workers stand; 0 where nobody said.
        grid_source: where that figure comes from.
        device_watts: what a device draws while it works; 0 where nobody said, and then no energy is quoted.
        hosting_usd_micros_per_month: what it costs to serve an adapter for a month; 0 where nobody said.
        hosting_months: months of serving that a quote covers.
    """

    as_of: dt.date
    source: str = Field(min_length=1)
    device: str = Field(min_length=1)
    usd_micros_per_device_second: dict[str, Annotated[int, Field(ge=0)]]
    train_tokens_per_second: int = Field(ge=1)
    audit_seconds: int = Field(ge=0)
    grid_gco2_per_kwh: int = Field(default=0, ge=0, le=5000)
    grid_source: str = ""
    device_watts: int = Field(default=0, ge=0, le=100_000)
    hosting_usd_micros_per_month: int = Field(default=0, ge=0)
    hosting_months: int = Field(default=12, ge=1, le=120)

    @model_validator(mode="after")
    def _priced(self) -> PriceBook:
        if self.device not in self.usd_micros_per_device_second:
            raise ValueError(f"usd_micros_per_device_second names no price for {self.device!r}")
        return self

    @property
    def price(self) -> int:
        """A second of this installation's device."""
        return self.usd_micros_per_device_second[self.device]


class Settings(_Frozen):
    """Everything that an operator may set; see :func:`default_toml` for the defaults."""

    directory: Path
    trust_domain: str = Field(pattern=f"^{TRUST_DOMAIN}$")
    origin: str = Field(min_length=1)
    region: str = Field(pattern=r"^[a-z0-9-]{1,32}$")
    listen: Address
    metrics: Address
    log_http: Address | None = None
    postgres_url: str = ""
    units: tuple[Unit, ...] = Field(min_length=1)
    reflection: bool = False
    post_quantum: bool = False
    workers: dict[str, WorkerSettings]
    stores: tuple[StoreSettings, ...] = ()
    limits: Limits = Limits()
    price_book: PriceBook

    @field_validator("units")
    @classmethod
    def _no_system_unit(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if OWN_UNITS.intersection(value) or len(set(value)) != len(value):
            own = " and ".join(repr(name) for name in sorted(OWN_UNITS))
            raise ValueError(f"units must be distinct, and {own} are the installation's own")
        return value

    @field_validator("metrics")
    @classmethod
    def _loopback(cls, value: str) -> str:
        try:
            inside = ipaddress.ip_address(value.rpartition(":")[0].strip("[]")).is_loopback
        except ValueError:
            inside = False
        if not inside:
            raise ValueError(
                "metrics ask nobody who they are, so they are served on this machine's loopback only, such as "
                "127.0.0.1:7446; let an agent on this machine scrape them, or a proxy that asks"
            )
        return value

    @field_validator("postgres_url")
    @classmethod
    def _postgres(cls, value: str) -> str:
        if value:
            try:
                check_url(value)
            except InvalidInputError as error:
                raise ValueError(f"{error.message}; {error.remedy}") from error
        return value

    @field_validator("workers")
    @classmethod
    def _both_workers(cls, value: dict[str, WorkerSettings]) -> dict[str, WorkerSettings]:
        if set(value) != {"train", "audit"}:
            raise ValueError("exactly the workers 'train' and 'audit' must be named")
        return value

    @classmethod
    def load(cls, directory: Path) -> Settings:
        """Reads ``directory/assay.toml``.

        Raises:
            InvalidInputError: ``SETTINGS_MISSING``, or ``SETTINGS`` naming each field at fault.
        """
        remedy = "run `assay init DIR`, or pass the right directory"
        return toml_file.read(cls, Layout(directory).settings, remedy, directory=directory)

    @property
    def layout(self) -> Layout:
        """Where keys and services lie."""
        return Layout(self.directory)

    @property
    def folder(self) -> Path:
        """The gateway's own folder."""
        return self.layout.service("gateway")

    @property
    def data(self) -> Path:
        """Rows and blobs."""
        return self.folder / "data"

    @property
    def database(self) -> Path:
        """The SQLite file; absent where ``postgres_url`` is set."""
        return self.data / "assay.db"

    @property
    def published(self) -> Path:
        """What witnesses have cosigned: a SQLite file of its own."""
        return self.data / "published.db"

    @property
    def database_url(self) -> str:
        """Where rows and ledger lie: PostgreSQL where it is named, else the file."""
        return self.postgres_url or f"sqlite:///{self.database.absolute()}"

    @property
    def witness_policy(self) -> Path:
        """Which witnesses must cosign, and where they are asked: a policy file of c2sp.org/tlog-policy."""
        return self.layout.witness_policy

    @property
    def forks(self) -> Path:
        """Evidence that the log was rolled back or has forked."""
        return self.folder / "forks"

    @property
    def subject(self) -> str:
        """The gateway's own subject, the actor of what it does by itself."""
        return f"spiffe://{self.trust_domain}/services/gateway"

    @property
    def people_prefix(self) -> str:
        """What the subjects of people begin with."""
        return f"spiffe://{self.trust_domain}/people/"


def default_toml(
    *,
    trust_domain: str = "assay.local",
    origin: str = "assay.local/log",
    listen: str = "127.0.0.1:7443",
    metrics: str = "127.0.0.1:7446",
    log_http: str = "",
    postgres_url: str = "",
    train: str = "127.0.0.1:7444",
    audit: str = "127.0.0.1:7445",
    units: tuple[str, ...] = ("credit", "claims", "clinical", "support"),
    post_quantum: bool = False,
) -> str:
    """The text of ``assay.toml`` for a new installation."""
    names = ", ".join(f'"{u}"' for u in units)
    monitors = f'log_http = "{log_http}"       # the log for monitors, over HTTPS\n' if log_http else ""
    database = (
        f"postgres_url = {json.dumps(postgres_url)}   # rows and ledger; no password stands here\n"
        if postgres_url
        else ""
    )
    return f"""\
# Assay gateway. Paths follow from this file's directory; keys never stand here.
trust_domain = "{trust_domain}"
origin = {json.dumps(origin, ensure_ascii=False)}          # name of the ledger; part of every signed checkpoint
region = "eu"                             # where training runs, compared with each dataset's residency
listen = "{listen}"
metrics = "{metrics}"        # Prometheus; an address of the loopback, nothing else is taken
{monitors}{database}units = [{names}]
reflection = false                  # gRPC reflection
post_quantum = {str(post_quantum).lower()}                # sign checkpoints with log-mldsa44.key too

[workers.train]
address = "{train}"
slots = 1                           # tasks under way at once

[workers.audit]
address = "{audit}"

[limits]
max_dataset_bytes = 4294967296
max_unit_bytes = 1099511627776      # files of rows that one unit may have stored, all together
max_result_bytes = 17179869184
refusals_per_minute = 30            # ledger records of refusals for one subject; the surplus is counted
all_refusals_per_minute = 120       # the same for all subjects together
calls_at_once = 32                  # calls that may be open by one key
subject_searches_per_day = 200      # searches of one caller for data subjects
approval_days = 365                 # an approval lapses after this
permit_seconds = 86400              # longest permit
signature_age_seconds = 900         # how old a person's signature may be when it is handed in
quorum_seconds = 20                 # how long an answer waits for the witnesses
worker_silence_seconds = 900        # a job pauses when its train worker has not answered for so long
store_seconds = 3600                # longest fetch from a store

# Stores that datasets may be fetched from (`assay dataset import`); none by default.
# [[stores]]
# prefix = "https://store.bank.example/exports/"
# units = ["support"]
# networks = ["10.2.0.0/16"]        # where the host may lie; without it public addresses only
# ca_file = "store-ca.pem"          # in services/gateway; without it the system's authorities
# token_file = "store.token"        # bearer token, in services/gateway

[price_book]                        # what runs cost, as of a day; money in millionths of a US dollar
as_of = 2026-01-01
source = "assumed: 0.10 USD an hour for two cores, 4.00 USD an hour for one GPU"
device = "cpu"                      # what the workers compute on
train_tokens_per_second = 400       # for quotes only
audit_seconds = 120                 # preparation and audit together: for quotes, and kept from the training's budget
grid_gco2_per_kwh = 450             # grams of CO2 equivalent for a kilowatt hour
grid_source = "assumed: about the world's average; set your own grid's"

[price_book.usd_micros_per_device_second]
cpu = 28
cuda = 1111
"""
