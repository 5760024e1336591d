"""Types of the generated service code; made by assay.protogen."""

from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio
import assay.v1.dataset_pb2

class DatasetServiceStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> DatasetServiceStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> DatasetServiceAsyncStub: ...
    UploadDataset: grpc.StreamUnaryMultiCallable[assay.v1.dataset_pb2.UploadDatasetRequest, assay.v1.dataset_pb2.UploadDatasetResponse]
    ImportDataset: grpc.UnaryStreamMultiCallable[assay.v1.dataset_pb2.ImportDatasetRequest, assay.v1.dataset_pb2.ImportDatasetResponse]
    GetDataset: grpc.UnaryUnaryMultiCallable[assay.v1.dataset_pb2.GetDatasetRequest, assay.v1.dataset_pb2.GetDatasetResponse]
    ListDatasets: grpc.UnaryUnaryMultiCallable[assay.v1.dataset_pb2.ListDatasetsRequest, assay.v1.dataset_pb2.ListDatasetsResponse]

class DatasetServiceAsyncStub(DatasetServiceStub):
    """What ``DatasetServiceStub`` is on an asyncio channel; exists for types only."""

    UploadDataset: grpc.aio.StreamUnaryMultiCallable[assay.v1.dataset_pb2.UploadDatasetRequest, assay.v1.dataset_pb2.UploadDatasetResponse]
    ImportDataset: grpc.aio.UnaryStreamMultiCallable[assay.v1.dataset_pb2.ImportDatasetRequest, assay.v1.dataset_pb2.ImportDatasetResponse]
    GetDataset: grpc.aio.UnaryUnaryMultiCallable[assay.v1.dataset_pb2.GetDatasetRequest, assay.v1.dataset_pb2.GetDatasetResponse]
    ListDatasets: grpc.aio.UnaryUnaryMultiCallable[assay.v1.dataset_pb2.ListDatasetsRequest, assay.v1.dataset_pb2.ListDatasetsResponse]

class DatasetServiceServicer:
    async def UploadDataset(self, request: AsyncIterator[assay.v1.dataset_pb2.UploadDatasetRequest], context: grpc.aio.ServicerContext[assay.v1.dataset_pb2.UploadDatasetRequest, assay.v1.dataset_pb2.UploadDatasetResponse]) -> assay.v1.dataset_pb2.UploadDatasetResponse: ...
    def ImportDataset(self, request: assay.v1.dataset_pb2.ImportDatasetRequest, context: grpc.aio.ServicerContext[assay.v1.dataset_pb2.ImportDatasetRequest, assay.v1.dataset_pb2.ImportDatasetResponse]) -> AsyncIterator[assay.v1.dataset_pb2.ImportDatasetResponse]: ...
    async def GetDataset(self, request: assay.v1.dataset_pb2.GetDatasetRequest, context: grpc.aio.ServicerContext[assay.v1.dataset_pb2.GetDatasetRequest, assay.v1.dataset_pb2.GetDatasetResponse]) -> assay.v1.dataset_pb2.GetDatasetResponse: ...
    async def ListDatasets(self, request: assay.v1.dataset_pb2.ListDatasetsRequest, context: grpc.aio.ServicerContext[assay.v1.dataset_pb2.ListDatasetsRequest, assay.v1.dataset_pb2.ListDatasetsResponse]) -> assay.v1.dataset_pb2.ListDatasetsResponse: ...

def add_DatasetServiceServicer_to_server(
    servicer: DatasetServiceServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
