"""Types of the generated service code; made by assay.protogen."""

from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio
import assay.v1.model_pb2

class ModelServiceStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> ModelServiceStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> ModelServiceAsyncStub: ...
    GetModel: grpc.UnaryUnaryMultiCallable[assay.v1.model_pb2.GetModelRequest, assay.v1.model_pb2.GetModelResponse]
    ListModels: grpc.UnaryUnaryMultiCallable[assay.v1.model_pb2.ListModelsRequest, assay.v1.model_pb2.ListModelsResponse]
    DownloadCard: grpc.UnaryStreamMultiCallable[assay.v1.model_pb2.DownloadCardRequest, assay.v1.model_pb2.DownloadCardResponse]
    DownloadAdapter: grpc.UnaryStreamMultiCallable[assay.v1.model_pb2.DownloadAdapterRequest, assay.v1.model_pb2.DownloadAdapterResponse]

class ModelServiceAsyncStub(ModelServiceStub):
    """What ``ModelServiceStub`` is on an asyncio channel; exists for types only."""

    GetModel: grpc.aio.UnaryUnaryMultiCallable[assay.v1.model_pb2.GetModelRequest, assay.v1.model_pb2.GetModelResponse]
    ListModels: grpc.aio.UnaryUnaryMultiCallable[assay.v1.model_pb2.ListModelsRequest, assay.v1.model_pb2.ListModelsResponse]
    DownloadCard: grpc.aio.UnaryStreamMultiCallable[assay.v1.model_pb2.DownloadCardRequest, assay.v1.model_pb2.DownloadCardResponse]
    DownloadAdapter: grpc.aio.UnaryStreamMultiCallable[assay.v1.model_pb2.DownloadAdapterRequest, assay.v1.model_pb2.DownloadAdapterResponse]

class ModelServiceServicer:
    async def GetModel(self, request: assay.v1.model_pb2.GetModelRequest, context: grpc.aio.ServicerContext[assay.v1.model_pb2.GetModelRequest, assay.v1.model_pb2.GetModelResponse]) -> assay.v1.model_pb2.GetModelResponse: ...
    async def ListModels(self, request: assay.v1.model_pb2.ListModelsRequest, context: grpc.aio.ServicerContext[assay.v1.model_pb2.ListModelsRequest, assay.v1.model_pb2.ListModelsResponse]) -> assay.v1.model_pb2.ListModelsResponse: ...
    def DownloadCard(self, request: assay.v1.model_pb2.DownloadCardRequest, context: grpc.aio.ServicerContext[assay.v1.model_pb2.DownloadCardRequest, assay.v1.model_pb2.DownloadCardResponse]) -> AsyncIterator[assay.v1.model_pb2.DownloadCardResponse]: ...
    def DownloadAdapter(self, request: assay.v1.model_pb2.DownloadAdapterRequest, context: grpc.aio.ServicerContext[assay.v1.model_pb2.DownloadAdapterRequest, assay.v1.model_pb2.DownloadAdapterResponse]) -> AsyncIterator[assay.v1.model_pb2.DownloadAdapterResponse]: ...

def add_ModelServiceServicer_to_server(
    servicer: ModelServiceServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
