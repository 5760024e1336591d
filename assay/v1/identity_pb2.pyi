import datetime

from assay.v1._vendor.buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_REQUESTER: _ClassVar[Role]
    ROLE_COMPLIANCE_OFFICER: _ClassVar[Role]
    ROLE_VALIDATOR: _ClassVar[Role]
    ROLE_DEPLOYER: _ClassVar[Role]
    ROLE_AUDITOR: _ClassVar[Role]
    ROLE_OPERATOR: _ClassVar[Role]
ROLE_UNSPECIFIED: Role
ROLE_REQUESTER: Role
ROLE_COMPLIANCE_OFFICER: Role
ROLE_VALIDATOR: Role
ROLE_DEPLOYER: Role
ROLE_AUDITOR: Role
ROLE_OPERATOR: Role

class Signature(_message.Message):
    __slots__ = ("keyid", "sig", "certificate", "scheme", "authenticator_data", "client_data")
    KEYID_FIELD_NUMBER: _ClassVar[int]
    SIG_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATOR_DATA_FIELD_NUMBER: _ClassVar[int]
    CLIENT_DATA_FIELD_NUMBER: _ClassVar[int]
    keyid: str
    sig: bytes
    certificate: bytes
    scheme: str
    authenticator_data: bytes
    client_data: bytes
    def __init__(self, keyid: _Optional[str] = ..., sig: _Optional[bytes] = ..., certificate: _Optional[bytes] = ..., scheme: _Optional[str] = ..., authenticator_data: _Optional[bytes] = ..., client_data: _Optional[bytes] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("payload_type", "payload", "signatures")
    PAYLOAD_TYPE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    payload_type: str
    payload: bytes
    signatures: _containers.RepeatedCompositeFieldContainer[Signature]
    def __init__(self, payload_type: _Optional[str] = ..., payload: _Optional[bytes] = ..., signatures: _Optional[_Iterable[_Union[Signature, _Mapping]]] = ...) -> None: ...

class Opening(_message.Message):
    __slots__ = ("salt", "text")
    SALT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    salt: bytes
    text: str
    def __init__(self, salt: _Optional[bytes] = ..., text: _Optional[str] = ...) -> None: ...

class RoleGrant(_message.Message):
    __slots__ = ("name", "subject", "role", "unit", "grant_time", "revoke_time", "record_index")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    GRANT_TIME_FIELD_NUMBER: _ClassVar[int]
    REVOKE_TIME_FIELD_NUMBER: _ClassVar[int]
    RECORD_INDEX_FIELD_NUMBER: _ClassVar[int]
    name: str
    subject: str
    role: Role
    unit: str
    grant_time: _timestamp_pb2.Timestamp
    revoke_time: _timestamp_pb2.Timestamp
    record_index: int
    def __init__(self, name: _Optional[str] = ..., subject: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., unit: _Optional[str] = ..., grant_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revoke_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., record_index: _Optional[int] = ...) -> None: ...

class WhoAmIRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WhoAmIResponse(_message.Message):
    __slots__ = ("subject", "grants")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    subject: str
    grants: _containers.RepeatedCompositeFieldContainer[RoleGrant]
    def __init__(self, subject: _Optional[str] = ..., grants: _Optional[_Iterable[_Union[RoleGrant, _Mapping]]] = ...) -> None: ...

class ListRoleGrantsRequest(_message.Message):
    __slots__ = ("include_revoked", "page_size", "page_token")
    INCLUDE_REVOKED_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    include_revoked: bool
    page_size: int
    page_token: str
    def __init__(self, include_revoked: _Optional[bool] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRoleGrantsResponse(_message.Message):
    __slots__ = ("role_grants", "next_page_token")
    ROLE_GRANTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    role_grants: _containers.RepeatedCompositeFieldContainer[RoleGrant]
    next_page_token: str
    def __init__(self, role_grants: _Optional[_Iterable[_Union[RoleGrant, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GrantRoleRequest(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: Envelope
    def __init__(self, envelope: _Optional[_Union[Envelope, _Mapping]] = ...) -> None: ...

class GrantRoleResponse(_message.Message):
    __slots__ = ("role_grant",)
    ROLE_GRANT_FIELD_NUMBER: _ClassVar[int]
    role_grant: RoleGrant
    def __init__(self, role_grant: _Optional[_Union[RoleGrant, _Mapping]] = ...) -> None: ...

class RevokeRoleRequest(_message.Message):
    __slots__ = ("name", "envelope")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    envelope: Envelope
    def __init__(self, name: _Optional[str] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ...) -> None: ...

class RevokeRoleResponse(_message.Message):
    __slots__ = ("role_grant",)
    ROLE_GRANT_FIELD_NUMBER: _ClassVar[int]
    role_grant: RoleGrant
    def __init__(self, role_grant: _Optional[_Union[RoleGrant, _Mapping]] = ...) -> None: ...
