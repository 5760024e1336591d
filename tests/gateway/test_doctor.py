"""`assay doctor` on each machine of docs/installation.md, and of a log that takes nothing more."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from google.protobuf import timestamp_pb2

from assay.v1 import dataset_pb2
from gateway import doctor
from gateway.cli import dataset
from gateway.settings import default_toml
from tests.gateway.conftest import House
from tests.gateway.test_cli_faults import play, run
from tests.gateway.test_erasures import erase
from tests.gateway.test_keys import Closed, call, closed, ran
from tests.gateway.test_retention import upload
from tests.gateway.test_several_machines import homes, port

__all__ = ["closed", "homes", "port", "ran"]  # fixtures


def missing(directory: Path) -> set[str]:
    return {f.name for f in doctor.run(directory) if f.required and not f.ok}


@pytest.fixture(autouse=True)
def without_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that can make none."""
    monkeypatch.setattr(doctor, "diagnose", lambda: [("bubblewrap", False, "not found", "apt-get install bubblewrap")])


def test_each_machine_is_asked_for_what_lies_there_alone(homes: dict[str, Path]) -> None:
    lacks = {name: missing(home) for name, home in homes.items()}
    workers = {"train worker", "audit worker"}
    assert len(lacks) == 6 and all(lacks[name] == {"bubblewrap"} for name in workers), lacks
    assert not any(found for name, found in lacks.items() if name not in workers), lacks
    looked = {name: {f.name for f in doctor.run(home)} for name, home in homes.items()}
    assert {"train-worker", "base models of train-worker"} <= looked["train worker"]
    assert {"settings", "quorum", "database"} <= looked["gateway"] and "witness" in looked["witness"]
    assert "quorum" not in looked["the authority's, offline"]


def test_the_folder_of_one_service_is_looked_at_too(homes: dict[str, Path]) -> None:
    folder = homes["train worker"] / "services/train-worker"
    assert missing(folder) == {"bubblewrap"} and missing(homes["witness"] / "witness") == set()
    (folder / "statement.key").unlink()
    (homes["witness"] / "witness/witness.toml").write_text("listen = 1\n")
    assert missing(folder) == {"bubblewrap", "train-worker"}
    assert missing(homes["witness"] / "witness") == missing(homes["witness"]) == {"witness"}


def test_a_worker_without_its_base_models_or_with_bad_settings(homes: dict[str, Path], tmp_path: Path) -> None:
    home = homes["audit worker"]
    (tmp_path / "models/tiny/manifest.json").unlink()
    assert missing(home) == {"bubblewrap", "base models of audit-worker"}
    toml = home / "services/audit-worker/worker.toml"
    toml.write_text(toml.read_text().replace("slots = 1", "slots = 0"))
    (told,) = (f for f in doctor.run(home) if f.name == "audit-worker")
    assert not told.ok and "slots" in told.detail


def test_a_directory_of_nothing_is_no_installation(tmp_path: Path) -> None:
    assert missing(tmp_path) == {"certificates"}


async def test_datasets_that_no_retention_ends_in_time_are_named(house: House) -> None:
    """Policy is asked when a job asks; a file that nobody tunes on would lie there unnoticed."""
    for name, days in (("endless", 0), ("long", 3651), ("kept", 3650)):
        sheet = dataset_pb2.Datasheet(licence="CC0-1.0", retention_days=days)
        await upload(house, name, name.encode(), sheet)

    def told() -> list[str]:
        return [f.detail for f in doctor.run(house.layout.root) if f.name == "retention" and not f.required]

    names = [f"units/credit/datasets/{name}" for name in ("endless", "long", "kept")]
    assert [name in told()[0] for name in names] == [True, True, False] and "3650 days" in told()[0]
    for name in names[:2]:
        await erase(house, name)
    assert told() == []


def test_a_dataset_says_until_when_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    end = timestamp_pb2.Timestamp(seconds=86_400)
    found = [dataset_pb2.Dataset(name="a"), dataset_pb2.Dataset(name="b", retention_end_time=end)]
    found.append(dataset_pb2.Dataset(name="c", retention_end_time=end, erased_index=7))
    answer = dataset_pb2.ListDatasetsResponse(datasets=found)
    play(monkeypatch, dataset, datasets=SimpleNamespace(ListDatasets=lambda _: answer))
    said = run("dataset", "list", "units/support", code=0)
    assert all(words in said for words in ("no end: retention_days is 0", "1970-01-02T00:00:00Z", "erased by record 7"))


def test_a_frozen_log_and_a_database_that_is_not_there(closed: Closed, tmp_path: Path) -> None:
    root = closed.layout.root
    assert "database" not in missing(root)
    call("ledger", "freeze", root, "--as", closed.layout.person("oscar"))
    (told,) = (f for f in doctor.run(root) if f.name == "database")
    assert not told.ok and "frozen" in told.detail
    url = f"postgresql+psycopg://assay_gateway@/assay?host={tmp_path}"
    closed.layout.settings.write_text(default_toml(postgres_url=url))
    (told,) = (f for f in doctor.run(root) if f.name == "database")
    assert not told.ok and "does not let us in" in told.detail


@pytest.mark.parametrize("member", ["statement_key", "sealing_key"])
def test_who_trains_and_who_audits_have_not_one_key(closed: Closed, member: str) -> None:
    """By the key that reads its sealed rows, or signs its audits, a trainer would judge itself."""
    layout = closed.layout
    assert "separate keys" not in missing(layout.root)
    train, audit = (layout.service("gateway") / f"{name}-worker.pub" for name in ("train", "audit"))
    audit.write_text(json.dumps({**json.loads(audit.read_text()), member: json.loads(train.read_text())[member]}))
    (told,) = (f for f in doctor.run(layout.root) if f.name == "separate keys")
    assert not told.ok and "train-worker" in told.detail and "audit-worker" in told.detail and told.remedy


def test_a_trust_file_that_names_one_key_twice(closed: Closed) -> None:
    trust = closed.layout.trust
    keys = dict(line.split(" ", 1) for line in trust.read_text().splitlines() if line.startswith(("train", "audit")))
    trust.write_text(trust.read_text().replace(keys["audit-worker"], keys["train-worker"]))
    (told,) = (f for f in doctor.run(closed.layout.root) if f.name == "quorum")
    assert not told.ok and "train-worker and audit-worker have one and the same key" in told.detail


def test_a_trust_file_from_before_it_named_the_operator(closed: Closed) -> None:
    trust = closed.layout.trust
    (told,) = (f for f in doctor.run(closed.layout.root) if f.name == "operator")
    assert told.ok and told.detail.endswith("/people/oscar")
    trust.write_text("".join(line for line in trust.open() if not line.startswith("operator ")))
    (told,) = (f for f in doctor.run(closed.layout.root) if f.name == "operator")
    assert not told.ok and not told.required and "operator SUBJECT" in told.remedy


def test_a_trust_file_that_names_another_operator_than_founded_the_log(closed: Closed) -> None:
    trust = closed.layout.trust
    trust.write_text(trust.read_text().replace("/people/oscar", "/people/otto"))
    (told,) = (f for f in doctor.run(closed.layout.root) if f.name == "operator")
    assert not told.ok and "/people/otto" in told.detail and "/people/oscar signed" in told.detail
    assert "operator SUBJECT" in told.remedy and "trust.txt" in told.remedy
