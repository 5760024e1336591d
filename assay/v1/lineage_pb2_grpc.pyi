"""Types of the generated service code; made by assay.protogen."""

from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio
import assay.v1.lineage_pb2

class LineageServiceStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> LineageServiceStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> LineageServiceAsyncStub: ...
    GetLineage: grpc.UnaryUnaryMultiCallable[assay.v1.lineage_pb2.GetLineageRequest, assay.v1.lineage_pb2.GetLineageResponse]

class LineageServiceAsyncStub(LineageServiceStub):
    """What ``LineageServiceStub`` is on an asyncio channel; exists for types only."""

    GetLineage: grpc.aio.UnaryUnaryMultiCallable[assay.v1.lineage_pb2.GetLineageRequest, assay.v1.lineage_pb2.GetLineageResponse]

class LineageServiceServicer:
    async def GetLineage(self, request: assay.v1.lineage_pb2.GetLineageRequest, context: grpc.aio.ServicerContext[assay.v1.lineage_pb2.GetLineageRequest, assay.v1.lineage_pb2.GetLineageResponse]) -> assay.v1.lineage_pb2.GetLineageResponse: ...

def add_LineageServiceServicer_to_server(
    servicer: LineageServiceServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
