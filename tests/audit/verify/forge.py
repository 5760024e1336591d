"""Bundles out of raw record bodies, by somebody who holds the log's key and knows the format: no database.

What the verifier refuses of such a bundle it refuses for what the records say, not for how they are packed.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from assay import canonical
from assay.errors import AssayError
from assay.key_events import ED25519_NAMES
from audit.ledger import evidence, records, tree
from audit.ledger.evidence import Entry, Header
from audit.ledger.note import Checkpoint, ProofFile, Verifier, sign_note

ORIGIN = "assay.local/log"
LOG_KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"log").digest())


def entries_of(bodies: Sequence[bytes]) -> list[Entry]:
    """Those bodies that read as records."""
    entries = []
    for index, body in enumerate(bodies):
        try:
            entries.append(Entry(index, body, tree.leaf_hash(body), records.read(body)))
        except AssayError:
            continue
    return entries


def forge(
    bodies: Sequence[bytes],
    key: Ed25519PrivateKey = LOG_KEY,
    *,
    attachments: Mapping[str, bytes] | None = None,
    scope: str = "log",
) -> bytes:
    """A bundle of the whole log of these leaves, with true proofs under a checkpoint that ``key`` signed."""
    leaves = [tree.leaf_hash(body) for body in bodies]

    def read(nodes: Sequence[tree.Node]) -> list[bytes]:
        return [tree.root_of(leaves[i << level : (i + 1) << level]) for level, i in nodes]

    checkpoint = Checkpoint(ORIGIN, len(leaves), tree.root_of(leaves))
    note = sign_note(checkpoint.text(), ORIGIN, key)
    entries = entries_of(bodies)
    policy = f"log {Verifier.of(ORIGIN, key.public_key()).vkey()}\nquorum none\n"
    files = {evidence.POLICY: policy.encode(), evidence.CHECKPOINT: note, **evidence.derived_files(entries)}
    for index, body in enumerate(bodies):
        files[evidence.record_path(index)] = body
        proof = tree.inclusion_proof(index, len(leaves), read)
        files[evidence.proof_path(index)] = ProofFile(index, tuple(proof), note).encode()
    for size in evidence.evidence_sizes(entries, len(leaves)):
        proof = tree.consistency_proof(size, len(leaves), read)
        files[evidence.consistency_path(size, len(leaves))] = evidence.consistency_text(proof)
    files |= {evidence.attachment_path(name): data for name, data in (attachments or {}).items()}
    header = Header(ORIGIN, len(leaves), checkpoint.root, scope, "", "none")
    files[evidence.MANIFEST] = evidence.manifest(header, files)
    return pack(files)


def pack(files: Mapping[str, bytes]) -> bytes:
    """The ZIP of these files."""
    out = io.BytesIO()
    evidence.write_zip(files, out)
    return out.getvalue()


def plain_trust() -> str:
    """A trust file of the log's key, beside keys that sign nothing: one self-signed certificate is every root."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(name, name, LOG_KEY.public_key(), 1, begin, begin + dt.timedelta(days=3650))
    der = builder.sign(LOG_KEY, None).public_bytes(serialization.Encoding.DER)
    root = base64.b64encode(der).decode()
    others = {
        name: Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()) for name in ED25519_NAMES
    }
    keys = "".join(f"{name} {key.public_key().public_bytes_raw().hex()}\n" for name, key in others.items())
    roots = "".join(f"{name} {root}\n" for name in ("people-root", "services-root", "pdf"))
    return f"origin {ORIGIN}\nlog {Verifier.of(ORIGIN, LOG_KEY.public_key()).vkey()}\nquorum none\n{keys}{roots}"


def edited(body: bytes, **members: Any) -> bytes:
    """A record with members of its outer object replaced, in canonical bytes."""
    return canonical.encode({**canonical.decode(body), **members})
