"""Who may do what: Cedar decides, deny by default. A unit that the caller has no role in does not exist for it."""

from __future__ import annotations

import re

from google.protobuf.message import Message

from assay.errors import PermissionDeniedError
from gateway.caller import ALL_UNITS, Caller, not_found
from policies.authorization import Authorizer

_UNIT = re.compile(r"^units/(-|[a-z][a-z0-9-]{0,30})(?:/|$)")
_NAMES = ("parent", "name", "model", "tuning_job")


def require(caller: Caller, action: str, request: Message, authorizer: Authorizer) -> None:
    """Refuses what no policy permits.

    Raises:
        NotFoundError: when the caller holds no role at all in the unit.
        PermissionDeniedError: ``NOT_PERMITTED`` otherwise.
    """
    unit = unit_of(request)
    if caller.may(action, unit, authorizer):
        return
    if unit != ALL_UNITS and not caller.sees(unit):
        raise not_found(name_of(request))
    raise PermissionDeniedError(
        "NOT_PERMITTED", f"none of your roles permits {action} here", remedy="see `assay role whoami`; ask an operator"
    )


def name_of(request: Message) -> str:
    """The resource name that a request is about, or an empty string."""
    fields = request.DESCRIPTOR.fields_by_name
    for name in _NAMES:
        value = getattr(request, name, "") if name in fields else ""
        if value:
            return str(value)
    if "header" in fields and request.HasField("header"):
        return name_of(request.header)  # type: ignore[attr-defined]
    return ""


def unit_of(request: Message) -> str:
    """The unit that a request is about; ``-`` when it is about none or all."""
    match = _UNIT.match(name_of(request))
    return match.group(1) if match else ALL_UNITS
