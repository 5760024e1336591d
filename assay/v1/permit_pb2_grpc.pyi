"""Types of the generated service code; made by assay.protogen."""

from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio
import assay.v1.permit_pb2

class PermitServiceStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> PermitServiceStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> PermitServiceAsyncStub: ...
    IssuePermit: grpc.UnaryUnaryMultiCallable[assay.v1.permit_pb2.IssuePermitRequest, assay.v1.permit_pb2.IssuePermitResponse]
    CheckPermit: grpc.UnaryUnaryMultiCallable[assay.v1.permit_pb2.CheckPermitRequest, assay.v1.permit_pb2.CheckPermitResponse]
    RevokePermit: grpc.UnaryUnaryMultiCallable[assay.v1.permit_pb2.RevokePermitRequest, assay.v1.permit_pb2.RevokePermitResponse]

class PermitServiceAsyncStub(PermitServiceStub):
    """What ``PermitServiceStub`` is on an asyncio channel; exists for types only."""

    IssuePermit: grpc.aio.UnaryUnaryMultiCallable[assay.v1.permit_pb2.IssuePermitRequest, assay.v1.permit_pb2.IssuePermitResponse]
    CheckPermit: grpc.aio.UnaryUnaryMultiCallable[assay.v1.permit_pb2.CheckPermitRequest, assay.v1.permit_pb2.CheckPermitResponse]
    RevokePermit: grpc.aio.UnaryUnaryMultiCallable[assay.v1.permit_pb2.RevokePermitRequest, assay.v1.permit_pb2.RevokePermitResponse]

class PermitServiceServicer:
    async def IssuePermit(self, request: assay.v1.permit_pb2.IssuePermitRequest, context: grpc.aio.ServicerContext[assay.v1.permit_pb2.IssuePermitRequest, assay.v1.permit_pb2.IssuePermitResponse]) -> assay.v1.permit_pb2.IssuePermitResponse: ...
    async def CheckPermit(self, request: assay.v1.permit_pb2.CheckPermitRequest, context: grpc.aio.ServicerContext[assay.v1.permit_pb2.CheckPermitRequest, assay.v1.permit_pb2.CheckPermitResponse]) -> assay.v1.permit_pb2.CheckPermitResponse: ...
    async def RevokePermit(self, request: assay.v1.permit_pb2.RevokePermitRequest, context: grpc.aio.ServicerContext[assay.v1.permit_pb2.RevokePermitRequest, assay.v1.permit_pb2.RevokePermitResponse]) -> assay.v1.permit_pb2.RevokePermitResponse: ...

def add_PermitServiceServicer_to_server(
    servicer: PermitServiceServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
