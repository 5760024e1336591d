"""Signatures of model folders, checked by the format's own tool as well as by ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from assay import model_signature
from assay.digests import folder_manifest
from assay.errors import IntegrityError, InvalidInputError

CURVES = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights" * 1000)
    (folder / "adapter_config.json").write_text('{"r": 16}')
    return folder


def signed(folder: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    signature, public = folder.parent / "adapter.sig", folder.parent / "key.pub"
    signature.write_bytes(model_signature.sign(folder_manifest(folder), "adapter", key))
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(encoding, form))
    return signature


def own_tool(folder: Path, *options: str) -> bool:
    """Whether the format's own tool accepts the folder."""
    pytest.importorskip("model_signing.signing")
    files = ["--signature", str(folder.parent / "adapter.sig"), "--public_key", str(folder.parent / "key.pub")]
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder), *files, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode == 0) == ("Verification succeeded" in done.stdout), done.stdout + done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_the_format_s_own_tool_verifies_what_we_sign(adapter: Path, curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    signature = signed(adapter, key)
    assert own_tool(adapter, "--no-ignore-git-paths")
    assert model_signature.verify(signature.read_bytes(), folder_manifest(adapter), key.public_key()) == "adapter"


@pytest.mark.parametrize("name", [".gitignore", ".git/hooks/payload", "extra.bin"])
def test_a_file_more_is_seen_under_any_name(adapter: Path, name: str) -> None:
    key = ec.generate_private_key(CURVES[0])
    signature = signed(adapter, key)
    (adapter / name).parent.mkdir(parents=True, exist_ok=True)
    (adapter / name).write_text("payload")
    assert not own_tool(adapter, "--no-ignore-git-paths")
    # The trap of the tool's own default, which the documentation warns of.
    assert own_tool(adapter) == name.startswith(".git")
    with pytest.raises(IntegrityError, match="exactly the files"):
        model_signature.verify(signature.read_bytes(), folder_manifest(adapter), key.public_key())


def test_a_changed_or_missing_file_or_another_key_is_refused(adapter: Path) -> None:
    key = ec.generate_private_key(CURVES[0])
    signature = signed(adapter, key)
    config = adapter / "adapter_config.json"
    config.write_text('{"r": 17}')
    assert not own_tool(adapter, "--no-ignore-git-paths")
    with pytest.raises(IntegrityError):
        model_signature.verify(signature.read_bytes(), folder_manifest(adapter), key.public_key())
    config.unlink()
    assert not own_tool(adapter, "--no-ignore-git-paths")
    config.write_text('{"r": 16}')
    other = ec.generate_private_key(CURVES[0]).public_key()
    with pytest.raises(IntegrityError, match="not a signature of that key"):
        model_signature.verify(signature.read_bytes(), folder_manifest(adapter), other)


def test_a_signature_by_a_second_signer_in_the_envelope_is_not_looked_past(adapter: Path) -> None:
    key = ec.generate_private_key(CURVES[0])
    bundle = json.loads(signed(adapter, key).read_bytes())
    bundle["dsseEnvelope"]["signatures"].append({"sig": "AAAA", "keyid": ""})
    with pytest.raises(IntegrityError):
        model_signature.verify(json.dumps(bundle).encode(), folder_manifest(adapter), key.public_key())


@pytest.mark.parametrize("junk", [b"", b"[]", b"{}", b'{"dsseEnvelope": {}}', b"\xff"])
def test_junk_is_no_signature(adapter: Path, junk: bytes) -> None:
    with pytest.raises(IntegrityError):
        model_signature.verify(junk, folder_manifest(adapter), ec.generate_private_key(CURVES[0]).public_key())


def test_a_curve_that_the_format_does_not_know_is_refused(adapter: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        model_signature.sign(folder_manifest(adapter), "adapter", ec.generate_private_key(ec.SECP256K1()))
    assert caught.value.reason == "MODEL_SIGNING_KEY"
