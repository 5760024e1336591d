"""A model folder's signature in the OpenSSF Model Signing format (OMS 1.0), so that others' tools can check it.

A Sigstore bundle (v0.3, JSON) around a DSSE envelope around an in-toto Statement: the predicate lists every file with
its SHA-256, the one subject's digest is the SHA-256 of those digests one after another, by name. Signed by an ECDSA key
on P-256, P-384 or P-521, which is what the format's own tool takes. Format: docs of the OpenSSF model-transparency
project; `model_signing verify key` is the oracle in the tests.

Nothing is left out of the list, and ``ignore_paths`` is empty. The tool's default list (``.git``, ``.gitignore`` and
others) is a hole: whatever is added to an approved model under such a name verifies as clean. Whoever verifies must
switch it off likewise, with ``--no-ignore-git-paths``.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from assay.digests import Manifest
from assay.dsse import pae
from assay.errors import IntegrityError, InvalidInputError

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_SERIALIZATION = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []}
_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


def sign(manifest: Manifest, name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Signs every file of a folder.

    Args:
        manifest: what the folder holds.
        name: the model's name, the statement's subject; the folder's name by custom.
        key: of a curve that the format knows.

    Returns:
        The signature file's bytes; it lies beside the folder, not in it.

    Raises:
        InvalidInputError: ``MODEL_SIGNING_KEY`` for a key of another curve.
    """
    payload = json.dumps(_statement(manifest, name), sort_keys=True, separators=(",", ":")).encode()
    signature = key.sign(pae(PAYLOAD_TYPE, payload), ec.ECDSA(_hash_of(key.public_key())))
    bundle = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key_hint(key.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle, indent=2).encode() + b"\n"


def verify(signature: bytes, manifest: Manifest, key: ec.EllipticCurvePublicKey) -> str:
    """Checks that a signature is the key's and lists exactly the files of the folder; returns the model's name.

    Raises:
        IntegrityError: ``MODEL_SIGNATURE`` for bytes that are no such signature, one by another key, or a folder with a
            file more, less or changed.
    """
    try:
        envelope = json.loads(signature)["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        raw = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        if envelope["payloadType"] != PAYLOAD_TYPE or len(envelope["signatures"]) != 1:
            raise ValueError("another kind of envelope")
        key.verify(raw, pae(PAYLOAD_TYPE, payload), ec.ECDSA(_hash_of(key)))
        statement = json.loads(payload)
        name = str(statement["subject"][0]["name"])
    except (ValueError, KeyError, IndexError, TypeError, InvalidSignature) as error:
        raise IntegrityError("MODEL_SIGNATURE", "this is not a signature of that key") from error
    if statement != _statement(manifest, name):
        raise IntegrityError("MODEL_SIGNATURE", "the folder does not hold exactly the files that were signed")
    return name


def key_hint(key: ec.EllipticCurvePublicKey) -> str:
    """How the format names a key: hex SHA-256 of its PEM."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(encoding, form)).hexdigest()


def _statement(manifest: Manifest, name: str) -> dict[str, Any]:
    files = sorted(manifest.files, key=lambda f: f.path)
    root = hashlib.sha256(b"".join(bytes.fromhex(f.sha256) for f in files)).hexdigest()
    resources = [{"name": f.path, "algorithm": "sha256", "digest": f.sha256} for f in files]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"serialization": dict(_SERIALIZATION), "resources": resources},
    }


def _hash_of(key: ec.EllipticCurvePublicKey) -> hashes.HashAlgorithm:
    found = _HASHES.get(key.curve.name)
    if found is None:
        raise InvalidInputError("MODEL_SIGNING_KEY", f"the format knows no keys on {key.curve.name}")
    return found
