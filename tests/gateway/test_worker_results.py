"""What the gateway believes of a worker's result: bundles sealed here, by a worker that says what it likes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from assay import bundle, canonical, dsse
from assay.digests import folder_manifest, sha256_bytes
from assay.errors import AssayError
from gateway.admission.exchange import Exchange, Peer, Result, Task

JOB = "units/credit/tuningJobs/first"
GATEWAY, WORKER, STRANGER = X25519PrivateKey.generate(), Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
ORDER = {"seed": 7, "plan": "p"}
OTHER = "0b" * 32


def task(kind: str) -> Task:
    return Task("first-1", kind, JOB, "credit", {"as": "it travels"}, ORDER, {})


@dataclass
class Told:
    """A result: what is in it, and what its statement says of that; the defaults are true."""

    kind: str = "audit"
    name: str = "audit"
    manifest: Mapping[str, Any] = field(default_factory=dict)
    predicate: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=lambda: {"report.json": b"{}", "more/plot.json": b"[]"})
    subjects: Sequence[tuple[str, str]] | None = None
    statement: bytes | None = None
    signed_by: Ed25519PrivateKey = WORKER
    sealed_by: Ed25519PrivateKey = WORKER

    def sealed(self, path: Path) -> Path:
        said = {
            "task_id": "first-1",
            "job": JOB,
            "kind": self.kind,
            "order_sha256": sha256_bytes(canonical.encode(ORDER)),
            **self.predicate,
        }
        named = [(n, sha256_bytes(data)) for n, data in self.files.items()] if self.subjects is None else self.subjects
        envelope = dsse.sign_service(canonical.encode(dsse.statement(self.name, said, named)), self.signed_by)
        statement = json.dumps(envelope).encode() if self.statement is None else self.statement
        files = {**self.files, **({"statement.json": statement} if statement else {})}
        manifest = {"task_id": "first-1", "job": JOB, "unit": "credit", "kind": "result", **self.manifest}
        with path.open("xb") as out:
            bundle.seal(cast(Any, files), manifest, GATEWAY.public_key(), self.sealed_by, out)
        return path

    def opened(self, folder: Path) -> Result:
        exchange = Exchange(cast(Any, None), GATEWAY, Ed25519PrivateKey.generate(), 1 << 20, lambda _: None)
        peer = Peer(cast(Any, None), X25519PrivateKey.generate().public_key(), WORKER.public_key())
        return exchange._open(peer, task(self.kind), self.sealed(folder / "sealed.bin"), folder / "files")


def adapter(folder: Path) -> tuple[dict[str, bytes], list[tuple[str, str]]]:
    """An adapter's files, and the subjects that a true statement names of them."""
    (folder / "adapter").mkdir()
    (folder / "adapter" / "weights").write_bytes(b"w")
    manifest = folder_manifest(folder / "adapter")
    return {"adapter/weights": b"w"}, [("adapter/weights", sha256_bytes(b"w")), ("adapter", manifest.sha256)]


@pytest.mark.parametrize(
    ("kind", "name"), [("audit", "audit"), ("prepare", "preparation"), ("train", "training")], ids=str
)
def test_a_true_result_is_believed(tmp_path: Path, kind: str, name: str) -> None:
    files, subjects = adapter(tmp_path)
    found = Told(kind, name, files=files, subjects=subjects).opened(tmp_path)
    assert dict(found.files) == {"adapter/weights": sha256_bytes(b"w")}
    assert found.predicate["order_sha256"] == sha256_bytes(canonical.encode(ORDER))


REPORT = ("report.json", sha256_bytes(b"{}"))
PLOT = ("more/plot.json", sha256_bytes(b"[]"))
OF_ANOTHER_TASK = {
    "another task": Told(manifest={"task_id": "first-2"}),
    "another job": Told(manifest={"job": f"{JOB}-2"}),
    "another unit": Told(manifest={"unit": "claims"}),
    "no result": Told(manifest={"kind": "audit"}),
}
STATED = {
    "another task": Told(predicate={"task_id": "first-2"}),
    "another job": Told(predicate={"job": f"{JOB}-2"}),
    "another kind": Told(predicate={"kind": "prepare"}),
    "another order": Told(predicate={"order_sha256": OTHER}),
    "the order as it travels": Told(predicate={"order_sha256": sha256_bytes(canonical.encode({"as": "it travels"}))}),
    "another statement": Told(name="preparation"),
    "an audit for a preparation": Told(kind="prepare", name="audit"),
    "an audit for a training": Told(kind="train", name="audit"),
    "a training for an audit": Told(name="training"),
}
FILES = {
    "one that is not named": Told(subjects=[REPORT]),
    "one that is named and not there": Told(files={"report.json": b"{}"}, subjects=[REPORT, PLOT]),
    "a changed one": Told(subjects=[REPORT, ("more/plot.json", OTHER)]),
    "one named twice": Told(subjects=[REPORT, PLOT, PLOT]),
    "a second statement": Told(files={"report.json": b"{}", "more/statement.json": b"{}"}, subjects=[REPORT]),
    "an adapter without its digest": Told("train", "training", files={"adapter/weights": b"w"}),
    "no statement": Told(statement=b""),
    "a statement that is no JSON": Told(statement=b"{"),
}


@pytest.mark.parametrize("told", OF_ANOTHER_TASK.values(), ids=OF_ANOTHER_TASK)
def test_a_result_of_another_task(tmp_path: Path, told: Told) -> None:
    refused(tmp_path, told, "STATEMENT_BINDING", "the result belongs to another task")


@pytest.mark.parametrize("told", STATED.values(), ids=STATED)
def test_a_statement_about_something_else(tmp_path: Path, told: Told) -> None:
    refused(tmp_path, told, "STATEMENT_BINDING", "statement is about another task or order")


@pytest.mark.parametrize("told", FILES.values(), ids=FILES)
def test_files_that_the_statement_does_not_name(tmp_path: Path, told: Told) -> None:
    refused(tmp_path, told, "STATEMENT_FILES", "")


def test_signed_by_somebody_else(tmp_path: Path) -> None:
    refused(tmp_path, Told(signed_by=STRANGER), "SIGNATURE_BAD", "")


def test_sealed_by_somebody_else(tmp_path: Path) -> None:
    refused(tmp_path, Told(sealed_by=STRANGER), "BUNDLE_SIGNATURE", "")


def refused(folder: Path, told: Told, reason: str, words: str) -> None:
    with pytest.raises(AssayError) as caught:
        told.opened(folder)
    assert caught.value.reason == reason and words in caught.value.message, caught.value.diagnostics()
