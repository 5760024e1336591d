"""How a log asks a witness: one connection kept open, bounded answers, one deadline."""

from __future__ import annotations

import base64
import hashlib
import http.client
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from assay.errors import InvalidInputError, UnavailableError
from audit.ledger.note import MAX_NOTE
from audit.ledger.quorum import Witness
from audit.ledger.witness.service import ADD_CHECKPOINT, SIZE_TYPE

ANSWER_SECONDS = 5.0
MAX_ANSWER = 4 * MAX_NOTE


@dataclass(frozen=True)
class Reply:
    """A witness's answer."""

    status: int
    body: bytes
    content_type: str

    @property
    def seen_size(self) -> int:
        """The size that the witness cosigned last, by a 409; -1 when it does not say.

        transparency-dev/witness also answers 409 for another root at the same size, without a size.
        """
        text = self.body.strip().decode("ascii", "replace")
        said = self.status == 409 and self.content_type == SIZE_TYPE and text.isascii() and text.isdigit()
        return int(text) if said and len(text) < 20 else -1


class WitnessClient:
    """Asks one witness of a policy; for one thread.

    Args:
        witness: of the policy, with its address.
        tls: what its certificate must lie under, and our own; unused for ``http``.
        seconds: how long each step of a request may take.

    Raises:
        InvalidInputError: ``WITNESS_ADDRESS`` when the policy names no address.
    """

    def __init__(self, witness: Witness, tls: ssl.SSLContext | None, seconds: float = ANSWER_SECONDS) -> None:
        self.witness = witness
        url = urlsplit(witness.url)
        if not url.hostname or url.scheme not in ("http", "https") or url.query or url.fragment:
            raise InvalidInputError(
                "WITNESS_ADDRESS",
                f"witness {witness.name} has no address to ask it at",
                remedy="add its URL to the `witness` line of witness-policy.txt",
            )
        self._prefix = url.path.rstrip("/")
        self._connection: http.client.HTTPConnection
        if url.scheme == "https":
            self._connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=seconds, context=tls)
        else:
            self._connection = http.client.HTTPConnection(url.hostname, url.port, timeout=seconds)

    def add_checkpoint(self, old: int, proof: Sequence[bytes], note: bytes) -> Reply:
        """Submits a checkpoint.

        Raises:
            UnavailableError: ``WITNESS_UNREACHABLE``.
        """
        lines = [f"old {old}", *(base64.b64encode(value).decode() for value in proof), "", ""]
        return self._request("POST", ADD_CHECKPOINT, "\n".join(lines).encode() + note)

    def newest(self, origin: str) -> bytes:
        """The note that the witness cosigned last; empty when it shows none.

        Raises:
            UnavailableError: ``WITNESS_UNREACHABLE``.
        """
        return self._get(origin, "checkpoint")

    def fork(self, origin: str) -> bytes:
        """The evidence that the witness holds of a fork; empty when it shows none.

        Raises:
            UnavailableError: ``WITNESS_UNREACHABLE``.
        """
        return self._get(origin, "fork")

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def _get(self, origin: str, what: str) -> bytes:
        reply = self._request("GET", f"/{hashlib.sha256(origin.encode()).hexdigest()}/{what}", b"")
        return reply.body if reply.status == 200 else b""

    def _request(self, method: str, path: str, body: bytes) -> Reply:
        fresh = self._connection.sock is None
        try:
            return self._once(method, path, body)
        except (http.client.HTTPException, OSError) as error:
            self.close()
            # A kept connection may have been closed meanwhile; every request here may be repeated.
            if not fresh and not isinstance(error, socket.timeout):
                try:
                    return self._once(method, path, body)
                except (http.client.HTTPException, OSError) as again:
                    self.close()
                    raise self._unreachable(again) from again
            raise self._unreachable(error) from error

    def _once(self, method: str, path: str, body: bytes) -> Reply:
        self._connection.request(method, self._prefix + path, body or None)
        response = self._connection.getresponse()
        data = response.read(MAX_ANSWER + 1)
        if len(data) > MAX_ANSWER:
            raise http.client.HTTPException("the answer is too long")
        return Reply(response.status, data, response.headers.get("Content-Type", ""))

    def _unreachable(self, error: BaseException) -> UnavailableError:
        return UnavailableError(
            "WITNESS_UNREACHABLE",
            f"witness {self.witness.name} does not answer: {type(error).__name__}",
            remedy="is it running, and is its address in witness-policy.txt right?",
        )
