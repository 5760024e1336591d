"""Types of the generated service code; made by assay.protogen."""

from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio
import assay.v1.erasure_pb2

class ErasureServiceStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> ErasureServiceStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> ErasureServiceAsyncStub: ...
    EraseResource: grpc.UnaryUnaryMultiCallable[assay.v1.erasure_pb2.EraseResourceRequest, assay.v1.erasure_pb2.EraseResourceResponse]

class ErasureServiceAsyncStub(ErasureServiceStub):
    """What ``ErasureServiceStub`` is on an asyncio channel; exists for types only."""

    EraseResource: grpc.aio.UnaryUnaryMultiCallable[assay.v1.erasure_pb2.EraseResourceRequest, assay.v1.erasure_pb2.EraseResourceResponse]

class ErasureServiceServicer:
    async def EraseResource(self, request: assay.v1.erasure_pb2.EraseResourceRequest, context: grpc.aio.ServicerContext[assay.v1.erasure_pb2.EraseResourceRequest, assay.v1.erasure_pb2.EraseResourceResponse]) -> assay.v1.erasure_pb2.EraseResourceResponse: ...

def add_ErasureServiceServicer_to_server(
    servicer: ErasureServiceServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
