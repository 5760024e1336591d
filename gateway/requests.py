"""Requests that may be sent twice: the same caller, method and id is answered once, and with the same content only."""

from __future__ import annotations

from google.protobuf.message import Message
from sqlalchemy import Connection

from assay import canonical
from assay.digests import sha256_bytes
from assay.errors import AlreadyExistsError
from gateway.store import rows
from gateway.store.tables import RequestRow


def digest(message: Message, extra: str = "") -> str:
    """Digest of a request's content: the message without its id, and what else belongs to it."""
    copy = type(message)()
    copy.CopyFrom(message)
    if "request_id" in copy.DESCRIPTOR.fields_by_name:
        copy.ClearField("request_id")
    return sha256_bytes(canonical.encode({"request": canonical.from_message(copy), "extra": extra}))


def answered(connection: Connection, subject: str, method: str, request_id: str, content: str) -> str:
    """The resource that this request made before; empty when it is new.

    Raises:
        AlreadyExistsError: ``REQUEST_ID`` when the id was used with another content.
    """
    found = rows.get(connection, RequestRow, subject=subject, method=method, request_id=request_id)
    if found is None:
        return ""
    if found.digest != content:
        raise AlreadyExistsError(
            "REQUEST_ID",
            "this request_id was used for another request",
            remedy="take a new request_id for a new request",
        )
    return found.resource


def remember(connection: Connection, subject: str, method: str, request_id: str, content: str, resource: str) -> None:
    """Notes the answer, in the unit of work that makes it."""
    rows.insert(
        connection,
        RequestRow(subject=subject, method=method, request_id=request_id, digest=content, resource=resource),
    )
