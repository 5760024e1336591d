"""The training statement as SLSA provenance, read back; and the lock that it carries."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from assay import canonical, dsse, provenance
from assay.errors import InvalidInputError, PreconditionError
from assay.worker import lock
from audit.ledger.records import MAX_BODY

HASH = "ab" * 32
ORDER = {
    "job": "units/credit/tuningJobs/a", "base_model": "tiny", "base_sha256": HASH, "train_sha256": HASH,
    "validation_sha256": HASH, "seed": 7,
}  # fmt: skip
PACKAGES = {"torch": "2.13.0+cpu", "peft": "0.21.2"}


def statement(order: dict[str, Any] = ORDER, packages: Mapping[str, str] = PACKAGES) -> dict[str, Any]:
    """As a supervisor builds it."""
    run = provenance.Run(
        builder="spiffe://assay.local/services/train-worker", version="0.1.0", task_id="credit.a.train.1", order=order,
        order_sha256=HASH, environment={"threads": "2", "cpu": "x"}, packages=packages,
        sources={"trainer": HASH}, claim={"steps": 3}, isolation={"proven": True},
        meter={"wall_ms": 5, "started": "2026-01-01T00:00:00.000Z", "ended": "2026-01-01T00:01:00.000Z"},
        byproducts={"training.json": HASH, "checkpoint": HASH},
    )  # fmt: skip
    made = dsse.statement(provenance.NAME, canonical.float_free(provenance.predicate(run)), [("adapter", HASH)])
    return dsse.read_statement(canonical.encode(made))


def test_the_statement_has_the_members_of_slsa_provenance() -> None:
    """SLSA 1.0: required members, and a resource descriptor has a name with a digest or a URI."""
    made = statement()
    assert made["predicateType"] == "https://slsa.dev/provenance/v1"
    built, ran = made["predicate"]["buildDefinition"], made["predicate"]["runDetails"]
    assert set(built) == {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"}
    assert built["externalParameters"]["order"] == ORDER and ran["builder"]["id"].startswith("spiffe://")
    assert set(ran["metadata"]) == {"invocationId", "startedOn", "finishedOn"}
    assert {b["name"] for b in ran["byproducts"]} == {"training.json", "checkpoint"}
    for item in [*built["resolvedDependencies"], *ran["byproducts"]]:
        assert item.get("uri", "").startswith("pkg:pypi/") or item["digest"]["sha256"] == HASH
    names = [d.get("name") or d["uri"] for d in built["resolvedDependencies"]]
    assert names == [
        "tiny", "train.jsonl", "validation.jsonl", "source trainer", "pkg:pypi/peft@0.21.2",
        "pkg:pypi/torch@2.13.0+cpu",
    ]  # fmt: skip


def test_what_a_run_went_on_from_is_a_dependency() -> None:
    made = statement({**ORDER, "parent": {"model": "units/a/models/before", "adapter_sha256": HASH}})
    [found] = [
        d for d in made["predicate"]["buildDefinition"]["resolvedDependencies"] if "models/" in d.get("name", "")
    ]
    assert found == {"name": "units/a/models/before", "digest": {"sha256": HASH}}


def test_both_forms_give_the_same_members() -> None:
    flat = provenance.read_training(statement())
    assert flat["job"] == ORDER["job"] and flat["claim"] == {"steps": 3} and flat["kind"] == "train"
    assert provenance.read_training(dsse.statement("training", flat, [("adapter", HASH)])) == flat


def test_what_is_no_training_statement_is_refused() -> None:
    broken = statement()
    del broken["predicate"]["runDetails"]["assay_claim"]
    foreign = {**statement(), "predicateType": "https://assay.dev/predicate/provenance/v1"}
    for wrong in (broken, foreign, dsse.statement("audit", {}, [])):
        with pytest.raises(InvalidInputError) as raised:
            provenance.read_training(wrong)
        assert raised.value.reason == "PROVENANCE"


def test_locks_differ_by_name() -> None:
    before = statement()
    after = copy.deepcopy(before)
    built = after["predicate"]["buildDefinition"]
    built["internalParameters"]["environment"]["threads"] = "4"
    built["resolvedDependencies"][-1]["uri"] = "pkg:pypi/torch@2.14.0"
    built["resolvedDependencies"][3]["digest"]["sha256"] = "cd" * 32
    del built["resolvedDependencies"][4]
    found = provenance.differences(provenance.lock_of(before), provenance.lock_of(after))
    assert [(d["name"], d["recorded"], d["now"]) for d in found] == [
        ("package peft", "0.21.2", "absent"),
        ("package torch", "2.13.0+cpu", "2.14.0"),
        ("source trainer", HASH, "cd" * 32),
        ("threads", "2", "4"),
    ]
    assert provenance.differences(provenance.lock_of(before), provenance.lock_of(before)) == []


def test_the_lock_holds_what_decides_the_bits(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("vendor_id\t: GenuineIntel\nflags\t\t: b a\n\nvendor_id\t: other\n")
    found = lock.environment(2, "AVX2", info)
    assert found["threads"] == found["OMP_NUM_THREADS"] == "2" and found["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert found["MKL_CBWR"] == "default" and found["cpu_vendor"] == "GenuineIntel"
    assert found["processes"] == "1" and lock.environment(2, "AVX2", info, processes=4) == found | {"processes": "4"}
    info.write_text("vendor_id\t: GenuineIntel\nflags\t\t: a b\n")
    assert lock.environment(2, "AVX2", info) == found
    info.write_text("flags\t\t: a b amx_bf16\n")
    assert lock.environment(2, "AVX2", info)["cpu_flags_sha256"] != found["cpu_flags_sha256"]
    assert len(lock.environment(2)["torch_git_version"]) == 40
    assert {"torch", "peft", "assay"} <= set(lock.packages())


def test_a_changed_source_file_changes_the_lock(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "a.py").write_text("1")
    first = lock.sources([tmp_path / "pack"])
    (tmp_path / "pack" / "notes.txt").write_text("no source")
    assert lock.sources([tmp_path / "pack"]) == first and set(first) == {"pack"}
    (tmp_path / "pack" / "a.py").write_text("2")
    assert lock.sources([tmp_path / "pack"]) != first


def test_packages_that_would_not_fit_into_a_record_are_refused_before_a_training() -> None:
    many = {f"package-of-some-length-{number:03d}": "1.2.3" for number in range(600)}
    with pytest.raises(PreconditionError) as refused:
        provenance.demand_room(many)
    assert refused.value.reason == "ENVIRONMENT_TOO_LARGE" and "600 packages" in refused.value.message
    fitting = dict(list(many.items())[:320])
    provenance.demand_room(fitting)
    key = Ed25519PrivateKey.generate()
    sizes = [
        len(canonical.encode(dsse.sign_service(canonical.encode(statement(packages=p)), key))) for p in ({}, fitting)
    ]
    assert 0.35 * MAX_BODY < sizes[1] - sizes[0] <= 0.4 * MAX_BODY
