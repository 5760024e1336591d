"""`assay doctor` on each machine of docs/installation.md, and of a log that takes nothing more."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import doctor
from gateway.settings import default_toml
from tests.gateway.test_keys import Closed, call, closed, ran
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


def test_a_trust_file_from_before_it_named_the_operator(closed: Closed) -> None:
    trust = closed.layout.trust
    (told,) = (f for f in doctor.run(closed.layout.root) if f.name == "operator")
    assert told.ok and told.detail.endswith("/people/oscar")
    trust.write_text("".join(line for line in trust.open() if not line.startswith("operator ")))
    (told,) = (f for f in doctor.run(closed.layout.root) if f.name == "operator")
    assert not told.ok and not told.required and "operator SUBJECT" in told.remedy
