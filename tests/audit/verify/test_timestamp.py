"""RFC 3161 time stamps over the checkpoint, by an authority that we did not write: pyHanko's."""

from __future__ import annotations

import base64
import datetime as dt
import http.server
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from asn1crypto import keys, tsp
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from pyhanko.sign.timestamps import DummyTimeStamper
from typer.testing import CliRunner, Result

from assay.errors import AssayError
from audit.ledger import evidence
from audit.verify import Report, timestamp, verify_bundle
from audit.verify.der import INTEGER, SEQUENCE, read, write
from audit.verify.trust import TrustFile
from gateway.cli.app import app
from tests.audit.ledger.ledger_world import START, refused

Told = tuple[bytes, TrustFile, Path]
DER = serialization.Encoding.DER
LATER = START + dt.timedelta(minutes=1)
NOTE = b"any note\n"


class Authority:
    """A root and a time-stamping certificate under it."""

    def __init__(self, name: str, *, days: int = 30, usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.TIME_STAMPING):
        self.root_key = rsa.generate_private_key(65537, 2048)
        self.key = rsa.generate_private_key(65537, 2048)
        self.root = self._certificate(f"{name} root", f"{name} root", self.root_key, 3650, ca=True)
        self.leaf = self._certificate(name, f"{name} root", self.key, days, usage=usage)

    def _certificate(
        self,
        name: str,
        issuer: str,
        key: rsa.RSAPrivateKey,
        days: int,
        *,
        ca: bool = False,
        usage: x509.ObjectIdentifier | None = None,
    ) -> x509.Certificate:
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer)]
        begin = START - dt.timedelta(days=1)
        builder = x509.CertificateBuilder(
            names[1], names[0], key.public_key(), x509.random_serial_number(), begin, begin + dt.timedelta(days=days)
        ).add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
        return builder.sign(self.root_key, hashes.SHA256())

    def answer(self, request: bytes, at: dt.datetime = LATER) -> bytes:
        """What the authority answers to a request in DER."""
        key = self.key.private_bytes(DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        stamper = DummyTimeStamper(
            asn1.Certificate.load(self.leaf.public_bytes(DER)), keys.PrivateKeyInfo.load(key), fixed_dt=at
        )
        answer: bytes = stamper.request_tsa_response(tsp.TimeStampReq.load(request)).dump()
        return answer


@pytest.fixture(scope="module")
def tsa() -> Authority:
    return Authority("tsa")


@pytest.fixture(scope="module")
def response(tsa: Authority) -> bytes:
    return tsa.answer(timestamp.request(NOTE))


def trust_of(told: Told, certificate: x509.Certificate) -> TrustFile:
    line = f"tsa {base64.b64encode(certificate.public_bytes(DER)).decode()}\n"
    return TrustFile.parse((told[2] / "trust.txt").read_text() + line)


def judge(folder: Path, data: bytes, trust: TrustFile) -> Report:
    (folder / "b.zip").write_bytes(data)
    return verify_bundle(folder / "b.zip", trust, LATER)


def stamped(told: Told, tsa: Authority, at: dt.datetime = LATER) -> bytes:
    checkpoint = evidence.read_zip(told[0])["checkpoint"]
    return timestamp.attach(told[0], "tsa", tsa.answer(timestamp.request(checkpoint), at))


def failing(report: Report) -> list[str]:
    return [c.detail for c in report.checks if c.outcome != "passed"]


def test_the_request_is_what_others_read() -> None:
    said = tsp.TimeStampReq.load(timestamp.request(NOTE, 7)).native
    assert (said["version"], said["nonce"], said["cert_req"]) == ("v1", 7, True)
    assert said["message_imprint"]["hash_algorithm"]["algorithm"] == "sha256"


@pytest.mark.parametrize("which", ["leaf", "root"])
def test_a_stamp_of_the_trusted_authority_is_checked(told: Told, tsa: Authority, tmp_path: Path, which: str) -> None:
    report = judge(tmp_path, stamped(told, tsa), trust_of(told, getattr(tsa, which)))
    assert report.verdict == "valid", failing(report)
    assert any(c.detail == f"tsa: it existed by {LATER.isoformat()}" for c in report.checks)


def test_without_an_authority_in_the_trust_file_it_is_named_as_not_checked(
    told: Told, tsa: Authority, tmp_path: Path
) -> None:
    report = judge(tmp_path, stamped(told, tsa), told[1])
    assert report.verdict == "valid"
    assert any(line.startswith("1 time stamps: the trust file names no authority") for line in report.not_checked)


def test_no_stamp_where_the_trust_file_names_an_authority(told: Told, tsa: Authority, tmp_path: Path) -> None:
    assert judge(tmp_path, told[0], trust_of(told, tsa.root)).verdict == "incomplete"


def test_records_younger_than_the_stamp(told: Told, tsa: Authority, tmp_path: Path) -> None:
    report = judge(tmp_path, stamped(told, tsa, START - dt.timedelta(hours=1)), trust_of(told, tsa.root))
    assert (report.verdict, failing(report)[0][:23]) == ("invalid", "TIMESTAMP_BEFORE_RECORD")


def test_a_stamp_of_another_checkpoint_in_a_bundle(told: Told, tsa: Authority, tmp_path: Path) -> None:
    files = evidence.read_zip(stamped(told, tsa))
    other = tsa.answer(timestamp.request(b"another checkpoint"))
    refused("TIMESTAMP_IMPRINT", lambda: timestamp.attach(told[0], "tsa", other))
    files["timestamps/tsa.tsr"] = other
    manifest = files.pop("manifest.json")
    rebuilt = _again(files, manifest)
    report = judge(tmp_path, rebuilt, trust_of(told, tsa.root))
    assert (report.verdict, failing(report)[0][:17]) == ("invalid", "TIMESTAMP_IMPRINT")


def _again(files: dict[str, bytes], manifest: bytes) -> bytes:
    import json

    said = json.loads(manifest)
    root = bytes.fromhex(said["root"])
    header = evidence.Header(said["log"], said["size"], root, said["scope"], said["unit"], said["quorum"])
    return evidence.zip_bytes({**files, evidence.MANIFEST: evidence.manifest(header, files)})


def test_wrong_imprint(tsa: Authority, response: bytes) -> None:
    assert timestamp.verify(response, NOTE, tsa.root) == LATER
    refused("TIMESTAMP_IMPRINT", lambda: timestamp.verify(response, NOTE + b"x", tsa.root))


@pytest.mark.parametrize("which", ["leaf", "root"])
def test_wrong_authority(response: bytes, which: str) -> None:
    other = Authority("tsa")
    refused("TIMESTAMP_AUTHORITY", lambda: timestamp.verify(response, NOTE, getattr(other, which)))


def test_expired_chain() -> None:
    """The authority's certificate had ended at the time that it stamped; its root had not."""
    short = Authority("short", days=2)
    answer = short.answer(timestamp.request(NOTE), START + dt.timedelta(days=5))
    refused("TIMESTAMP_EXPIRED", lambda: timestamp.verify(answer, NOTE, short.root))
    early = short.answer(timestamp.request(NOTE), START - dt.timedelta(days=5))
    refused("TIMESTAMP_EXPIRED", lambda: timestamp.verify(early, NOTE, short.leaf))


def test_a_certificate_that_is_not_for_time_stamps() -> None:
    server = Authority("server", usage=ExtendedKeyUsageOID.SERVER_AUTH)
    answer = server.answer(timestamp.request(NOTE))
    refused("TIMESTAMP_AUTHORITY", lambda: timestamp.verify(answer, NOTE, server.root))


def test_a_changed_time_is_refused(tsa: Authority, response: bytes) -> None:
    """What the signature covers only by way of the digest attribute."""
    text = LATER.strftime("%Y%m%d%H%M").encode()
    assert text in response
    changed = response.replace(text, str(int(text) - 100).encode())
    refused("TIMESTAMP_SIGNATURE", lambda: timestamp.verify(changed, NOTE, tsa.root))


def test_a_refusal_of_the_authority() -> None:
    refusal = write(SEQUENCE, write(SEQUENCE, write(INTEGER, b"\2")))
    refused("TIMESTAMP_REFUSED", lambda: timestamp.open_response(refusal))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"0",
        b"0\x80\0\0",
        b"0\x81\x01\0",
        b"0\x84\xff\xff\xff\xff",
        b"0\0",
        b"0\x03\x02\x01\0",
        b"1\0",
        b"x" * 70_000,
    ],
    ids=range(9),
)
def test_malformed_responses(data: bytes) -> None:
    with pytest.raises(AssayError) as caught:
        timestamp.open_response(data)
    assert caught.value.reason in ("TIMESTAMP_MALFORMED", "TIMESTAMP_REFUSED")


def test_bytes_after_the_end(response: bytes) -> None:
    refused("TIMESTAMP_MALFORMED", lambda: timestamp.open_response(response + b"x"))


EDITS: list[Callable[[bytearray, int], None]] = [
    lambda d, i: d.__setitem__(i, d[i] ^ 1),
    lambda d, i: d.__delitem__(i),
    lambda d, i: d.insert(i, 0x30),
]


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_responses_are_refused_by_name_or_say_the_same(
    tsa: Authority, response: bytes, data: st.DataObject
) -> None:
    """Unsigned parts (a version, a nonce that nobody asked about) may change; what is believed may not."""
    changed = bytearray(response)
    at = data.draw(st.integers(0, len(response) - 1))
    data.draw(st.sampled_from(EDITS))(changed, at)
    try:
        assert timestamp.verify(bytes(changed), NOTE, tsa.root) == LATER
    except AssayError as error:
        assert error.reason.startswith("TIMESTAMP_")


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_the_der_reader_refuses_by_name_or_reads_what_is_there(data: bytes) -> None:
    try:
        node = read(data)
    except AssayError as error:
        assert error.reason == "TIMESTAMP_MALFORMED"
        return
    assert node.whole == data and data.endswith(node.body)


class _Server(http.server.BaseHTTPRequestHandler):
    """An authority over HTTP."""

    authority: Authority

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = self.headers["Content-Type"] == "application/timestamp-query" and self.path == "/tsa"
        answer = self.authority.answer(body) if asked else b"no"
        self.send_response(200 if asked else 404)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        pass


def test_the_command_asks_an_authority_and_writes_the_bundle(told: Told, tsa: Authority, tmp_path: Path) -> None:
    _Server.authority = tsa
    server = http.server.HTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    bundle, out = tmp_path / "b.zip", tmp_path / "out.zip"
    bundle.write_bytes(told[0])

    def run(address: str) -> Result:
        return CliRunner().invoke(app, ["audit", "timestamp", str(bundle), "--tsa", address, "--out", str(out)])

    at = f"http://127.0.0.1:{server.server_port}"
    try:
        for address, code in ((f"{at}/other", 9), ("file:///etc/passwd", 3), ("http://127.0.0.1:9/tsa", 9)):
            assert run(address).exit_code == code
            assert not out.exists() and not out.with_name("out.zip.part").exists()
        assert run(f"{at}/tsa").exit_code == 0
    finally:
        server.shutdown()
        server.server_close()
    assert judge(tmp_path, out.read_bytes(), trust_of(told, tsa.root)).verdict == "valid"


@pytest.mark.parametrize("text", ["tsa x\n", "tsa AAAA\n"])
def test_trust_lines_that_are_refused(told: Told, text: str) -> None:
    refused("TRUST_MALFORMED", lambda: TrustFile.parse((told[2] / "trust.txt").read_text() + text))
