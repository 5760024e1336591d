"""Types of the generated service code; made by assay.protogen."""

from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio
import assay.v1.identity_pb2

class IdentityServiceStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> IdentityServiceStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> IdentityServiceAsyncStub: ...
    WhoAmI: grpc.UnaryUnaryMultiCallable[assay.v1.identity_pb2.WhoAmIRequest, assay.v1.identity_pb2.WhoAmIResponse]
    ListRoleGrants: grpc.UnaryUnaryMultiCallable[assay.v1.identity_pb2.ListRoleGrantsRequest, assay.v1.identity_pb2.ListRoleGrantsResponse]
    GrantRole: grpc.UnaryUnaryMultiCallable[assay.v1.identity_pb2.GrantRoleRequest, assay.v1.identity_pb2.GrantRoleResponse]
    RevokeRole: grpc.UnaryUnaryMultiCallable[assay.v1.identity_pb2.RevokeRoleRequest, assay.v1.identity_pb2.RevokeRoleResponse]

class IdentityServiceAsyncStub(IdentityServiceStub):
    """What ``IdentityServiceStub`` is on an asyncio channel; exists for types only."""

    WhoAmI: grpc.aio.UnaryUnaryMultiCallable[assay.v1.identity_pb2.WhoAmIRequest, assay.v1.identity_pb2.WhoAmIResponse]
    ListRoleGrants: grpc.aio.UnaryUnaryMultiCallable[assay.v1.identity_pb2.ListRoleGrantsRequest, assay.v1.identity_pb2.ListRoleGrantsResponse]
    GrantRole: grpc.aio.UnaryUnaryMultiCallable[assay.v1.identity_pb2.GrantRoleRequest, assay.v1.identity_pb2.GrantRoleResponse]
    RevokeRole: grpc.aio.UnaryUnaryMultiCallable[assay.v1.identity_pb2.RevokeRoleRequest, assay.v1.identity_pb2.RevokeRoleResponse]

class IdentityServiceServicer:
    async def WhoAmI(self, request: assay.v1.identity_pb2.WhoAmIRequest, context: grpc.aio.ServicerContext[assay.v1.identity_pb2.WhoAmIRequest, assay.v1.identity_pb2.WhoAmIResponse]) -> assay.v1.identity_pb2.WhoAmIResponse: ...
    async def ListRoleGrants(self, request: assay.v1.identity_pb2.ListRoleGrantsRequest, context: grpc.aio.ServicerContext[assay.v1.identity_pb2.ListRoleGrantsRequest, assay.v1.identity_pb2.ListRoleGrantsResponse]) -> assay.v1.identity_pb2.ListRoleGrantsResponse: ...
    async def GrantRole(self, request: assay.v1.identity_pb2.GrantRoleRequest, context: grpc.aio.ServicerContext[assay.v1.identity_pb2.GrantRoleRequest, assay.v1.identity_pb2.GrantRoleResponse]) -> assay.v1.identity_pb2.GrantRoleResponse: ...
    async def RevokeRole(self, request: assay.v1.identity_pb2.RevokeRoleRequest, context: grpc.aio.ServicerContext[assay.v1.identity_pb2.RevokeRoleRequest, assay.v1.identity_pb2.RevokeRoleResponse]) -> assay.v1.identity_pb2.RevokeRoleResponse: ...

def add_IdentityServiceServicer_to_server(
    servicer: IdentityServiceServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
