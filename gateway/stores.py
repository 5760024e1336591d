"""Files from stores that the operator allows, fetched without becoming a way into the network.

An address is compared with the operator's list as parsed parts, never as text. Its host is resolved once; each address
that it resolves to must be one that the store may have, and the connection goes to one of those, so that a name which
changes between the look and the call changes nothing. Redirects are not followed, proxies not asked, and TLS is
demanded with the name that the operator wrote. What comes is bounded in bytes and in time.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from assay.errors import AssayError, ExhaustedError, PermissionDeniedError, UnavailableError
from assay.identity import read_private
from gateway.settings import StoreSettings

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

CHUNK_BYTES = 256 * 1024
_READ_SECONDS = 30.0
# Plain segments: what is percent-encoded or dotted is read differently by different servers.
_PATH = re.compile(r"(?:/[A-Za-z0-9_~+=@,:-][A-Za-z0-9._~+=@,:-]*)+")
# Nothing that a parser of addresses would strip, such as line ends.
_VISIBLE = re.compile(r"[!-~]+")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Address:
    """A file's address that is on the list: the store it belongs to, and its parts."""

    store: StoreSettings
    host: str
    port: int
    path: str


def allowed(stores: Sequence[StoreSettings], unit: str, source: str) -> Address:
    """Finds the store that an address belongs to.

    Raises:
        PermissionDeniedError: ``STORE_NOT_ALLOWED`` where no store of the unit covers it; the words are the same for a
            store of another unit and for none.
    """
    try:
        parts = urlsplit(source)
        port = parts.port or 443
    except ValueError:
        raise _not_allowed() from None
    plain = parts.scheme == "https" and "@" not in parts.netloc and not parts.query and not parts.fragment
    if not plain or not parts.hostname or not _PATH.fullmatch(parts.path) or not _VISIBLE.fullmatch(source):
        raise _not_allowed()
    for store in stores:
        prefix = urlsplit(store.prefix)
        same_host = (prefix.hostname, prefix.port or 443) == (parts.hostname, port)
        if unit in store.units and same_host and parts.path.startswith(prefix.path):
            return Address(store, parts.hostname, port, parts.path)
    raise _not_allowed()


def reachable(store: StoreSettings, found: Sequence[str]) -> list[IpAddress]:
    """The addresses that a store's name resolved to, if the store may have each of them.

    Where the operator named networks, these and no other; else public addresses only. One wrong address among several
    refuses all: a name that also points inside is no accident.

    Raises:
        PermissionDeniedError: ``STORE_NETWORK``.
    """
    out = [ipaddress.ip_address(text.partition("%")[0]) for text in found]
    for address in out:
        for one in (address, *_embedded(address)):
            if not (any(one in network for network in store.networks) if store.networks else _public(one)):
                raise PermissionDeniedError(
                    "STORE_NETWORK",
                    "the store's name leads to a network that it may not lie in",
                    remedy="ask the operator to correct the name, or to name the network under [[stores]]",
                )
    return out


class Download:
    """A file that is coming in; blocks, so use it in a thread, and close it.

    Args:
        address: from :func:`allowed`.
        folder: the gateway's own folder, where the store's ``ca_file`` and ``token_file`` lie.
        max_bytes: a file that is announced as larger is not fetched.
        seconds: time for all of it.

    Attributes:
        total: bytes that the store announced; 0 where it did not say.

    Raises:
        PermissionDeniedError: ``STORE_NETWORK``.
        UnavailableError: ``STORE_UNREACHABLE``, ``STORE_ANSWER``.
        ExhaustedError: ``DATASET_TOO_LARGE``.
    """

    def __init__(self, address: Address, folder: Path, *, max_bytes: int, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        try:
            self._connection = _Pinned(address, folder)
            self._connection.request("GET", address.path, headers=_headers(address.store, folder))
            self._answer = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(
                "STORE_UNREACHABLE",
                f"the store cannot be reached: {type(error).__name__}",
                remedy="try again; if it lasts, ask the operator to look at the store, its certificate and its network",
            ) from error
        try:
            self.total = _announced(self._answer, max_bytes)
        except AssayError:
            self.close()
            raise

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def chunks(self) -> Iterator[bytes]:
        """The bytes, at most :data:`CHUNK_BYTES` at a time.

        Raises:
            UnavailableError: ``STORE_ANSWER`` when the connection breaks, ``STORE_SLOW`` past the deadline.
        """
        received = 0
        while True:
            if time.monotonic() > self._deadline:
                raise UnavailableError("STORE_SLOW", "the store took too long", remedy="try again, or split the file")
            try:
                data = self._answer.read1(CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise _broken(type(error).__name__) from error
            if not data:
                break
            received += len(data)
            yield data
        if self.total and received != self.total:
            raise _broken(f"{received} of {self.total} bytes came")


class _Pinned(http.client.HTTPSConnection):
    """Connects to an address that was looked at, and to no other; TLS is checked against the operator's name."""

    def __init__(self, address: Address, folder: Path) -> None:
        store = address.store
        trusted = str(folder / store.ca_file) if store.ca_file else None
        self._tls = ssl.create_default_context(cafile=trusted)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        super().__init__(address.host, address.port, timeout=_READ_SECONDS, context=self._tls)
        self._address = address

    def connect(self) -> None:
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        first = reachable(self._address.store, [str(entry[4][0]) for entry in found])[0]
        plain = socket.create_connection((str(first), self.port), self.timeout)
        try:
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def _announced(answer: http.client.HTTPResponse, max_bytes: int) -> int:
    """The length of a file that will be taken; 0 where the store does not say."""
    if answer.status != 200:
        hint = "; redirects are not followed" if 300 <= answer.status < 400 else ""
        raise _broken(f"status {answer.status}{hint}")
    if answer.getheader("Content-Encoding", "identity").lower() != "identity":
        raise _broken("the body is encoded, which was not asked for")
    total = answer.length or 0
    if total > max_bytes:
        raise ExhaustedError(
            "DATASET_TOO_LARGE", f"the file has more than {max_bytes} bytes", remedy="split it in the store"
        )
    return total


def _headers(store: StoreSettings, folder: Path) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity", "User-Agent": "assay"}
    if store.token_file:
        headers["Authorization"] = f"Bearer {read_private(folder / store.token_file).decode().strip()}"
    return headers


def _public(address: IpAddress) -> bool:
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _embedded(address: IpAddress) -> list[IpAddress]:
    """IPv4 addresses that an IPv6 address stands for, by which a gateway on the way would go on."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[IpAddress | None] = [address.ipv4_mapped, address.sixtofour]
    if address.teredo:
        found += address.teredo
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]


def _not_allowed() -> PermissionDeniedError:
    return PermissionDeniedError(
        "STORE_NOT_ALLOWED",
        "the unit may not fetch from this address",
        remedy="https, plain path segments, no query; the operator lists stores and their units under [[stores]]",
    )


def _broken(why: str) -> UnavailableError:
    return UnavailableError("STORE_ANSWER", f"the store did not give the file: {why}", remedy="check the address")
