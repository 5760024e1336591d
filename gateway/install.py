"""Makes a whole installation: identities (:mod:`assay.installation`), then each service's and person's settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from assay import installation
from assay.errors import AssayError, InvalidInputError, PreconditionError
from assay.identity import LOOPBACK, Layout, check_name, host_of, load_ed25519
from assay.installation import Plan
from assay.modelfiles import read_base_manifest
from assay.pinned import assay_home
from audit.ledger.note import Verifier
from audit.ledger.note import check_name as check_origin
from audit.ledger.postgres import check_url
from audit.ledger.witness.settings import toml as witness_toml
from audit.verify.trust import TrustFile
from gateway import base_models
from gateway.caller import ALL_UNITS
from gateway.freezing import sign_continuation
from gateway.publications import PUBLISHERS, publish
from gateway.settings import Settings, default_toml
from gateway.statements import role_name
from policies.engine import PolicyEngine

_HERE = "127.0.0.1"
_KINDS = {"train-worker": '"train"', "audit-worker": '"prepare", "audit"'}
PORTS = 5
"""Ports after the gateway's: two workers, metrics, the log over HTTP, the witness."""


def install(
    root: Path,
    plan: Plan,
    *,
    units: Sequence[str],
    port: int,
    models: Path | None = None,
    postgres_url: str = "",
    continues: tuple[bytes, TrustFile] | None = None,
) -> Layout:
    """Creates the installation in ``root``.

    The gateway listens on ``port``, the workers on the next two, then metrics, the log's HTTP and the witness: each on
    its host of ``plan.hosts``, else on the loopback, and metrics always there.

    The operator's key signs the first grants, and with a second person's the publication of the packaged policy; where
    the plan has no second operator or compliance officer, somebody else signs it later, before the first start.

    Raises:
        AlreadyExistsError: ``INSTALLATION_EXISTS``.
        InvalidInputError: ``DATABASE_URL`` when ``postgres_url`` is not one; ``BAD_HOST``, ``BAD_NAME``,
            ``BAD_PERSON``, ``NO_OPERATOR``, ``ORIGIN``, ``PORT``, ``ROLE``, ``TRUST_DOMAIN``, ``UNIT`` or ``SETTINGS``;
            or what :func:`gateway.freezing.sign_continuation` says.
        PreconditionError: ``NO_BASE_MODEL`` when ``models`` holds none.
    """
    _check(plan, units, port)
    if postgres_url:
        check_url(postgres_url)
    models = (models or assay_home() / "models").absolute()
    manifests = [dataclasses.asdict(read_base_manifest(p.parent)) for p in sorted(models.glob("*/manifest.json"))]
    if not manifests:
        raise PreconditionError(
            "NO_BASE_MODEL",
            f"{models} holds no base model",
            remedy="python -m trainer.base_models install smollm2-135m-instruct, which needs torch; or pass --models: "
            "a folder with a copy of a worker's ID/manifest.json is enough here",
        )
    listen, witness = _at(plan, "gateway", port), f"https://{_at(plan, 'witness', port + PORTS)}"
    plan = dataclasses.replace(plan, witness_url=plan.witness_url or witness)

    def finish(layout: Layout) -> None:
        layout.settings.write_text(
            default_toml(
                trust_domain=plan.trust_domain,
                origin=plan.origin,
                listen=listen,
                train=_at(plan, "train-worker", port + 1),
                audit=_at(plan, "audit-worker", port + 2),
                metrics=f"{_HERE}:{port + 3}",
                log_http=_at(plan, "gateway", port + 4),
                postgres_url=postgres_url,
                units=tuple(units),
                post_quantum=plan.post_quantum,
            )
        )
        base_models.write(layout.service("gateway") / base_models.FILE, manifests)
        _configure_beside(layout, plan, port, models)
        if continues is not None:
            sign_continuation(layout, layout.person(plan.operator), plan.origin, *continues)
        rules = PolicyEngine.load().policy()
        for name in _publishers(plan):
            publish(layout, layout.person(name), rules)
        for name in plan.names:
            installation.write_client(layout.person(name), listen)
        # What the gateway would refuse at its start is refused now.
        Settings.load(layout.root)

    return installation.create(root.absolute(), plan, finish)


def _check(plan: Plan, units: Sequence[str], port: int) -> None:
    """Refuses, before anything is made, what only a later start would."""
    if not 1 <= port <= 65_535 - PORTS:
        raise InvalidInputError("PORT", f"{port} and the {PORTS} after it are no ports", remedy="pass --port 7443")
    try:
        check_origin(plan.origin)
    except AssayError as error:
        raise InvalidInputError("ORIGIN", f"--origin {plan.origin!r}: {error.message}") from error
    for unit in units:
        check_name(unit)
    for person in plan.people:
        role_name(person.role)
        if person.unit not in (ALL_UNITS, *units):
            raise InvalidInputError(
                "UNIT",
                f"{person.name} is to have a role in {person.unit[:40]!r}, which is no unit",
                remedy=f"one of: {ALL_UNITS}, {', '.join(units)}; or pass --unit {person.unit[:40]}",
            )


def _configure_beside(layout: Layout, plan: Plan, port: int, models: Path) -> None:
    """Writes the settings of the workers and of the witness."""
    for offset, (name, kinds) in enumerate(_KINDS.items(), 1):
        # A gateway that is not on the worker's own loopback is refused there anyway: the probe would prove nothing.
        beside = all(host_of(_at(plan, one, port)) in LOOPBACK for one in ("gateway", name))
        text = _worker_toml(name, plan, _at(plan, name, port + offset), kinds, models, port if beside else 0)
        (layout.service(name) / "worker.toml").write_text(text)
    log = Verifier.of(plan.origin, load_ed25519(layout.service("gateway") / "log.key").public_key())
    clients = [installation.service_subject(plan.trust_domain, "gateway")]
    name, listen = installation.witness_name(plan.trust_domain), _at(plan, "witness", port + PORTS)
    (layout.witness / "witness.toml").write_text(witness_toml(name, listen, [log.vkey()], "mtls", clients))


def _publishers(plan: Plan) -> list[str]:
    """The founding operator, and the first other person who may publish."""
    others = [p.name for p in plan.people if p.name != plan.operator and p.role in PUBLISHERS and p.unit == ALL_UNITS]
    return [plan.operator, *others[:1]]


def _at(plan: Plan, service: str, port: int) -> str:
    """Where a service listens, which is where the others ask for it."""
    host = plan.hosts.get(service, _HERE)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _worker_toml(name: str, plan: Plan, listen: str, kinds: str, models: Path, gateway_port: int) -> str:
    return f"""\
listen = "{listen}"
subject = "{installation.service_subject(plan.trust_domain, name)}"
kinds = [{kinds}]
slots = 1
slot_file = "../device.slot"        # shared by all workers of this machine: one task computes at a time
models_dir = {json.dumps(str(models))}
gateway_port = {gateway_port}       # the cut-off probe must find it refused; 0: not on this loopback
"""
