"""Types of the generated service code; made by assay.protogen."""

from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio
import assay.v1.worker_pb2

class WorkerServiceStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> WorkerServiceStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> WorkerServiceAsyncStub: ...
    DescribeWorker: grpc.UnaryUnaryMultiCallable[assay.v1.worker_pb2.DescribeWorkerRequest, assay.v1.worker_pb2.DescribeWorkerResponse]
    SubmitTask: grpc.StreamUnaryMultiCallable[assay.v1.worker_pb2.SubmitTaskRequest, assay.v1.worker_pb2.SubmitTaskResponse]
    WatchTask: grpc.UnaryStreamMultiCallable[assay.v1.worker_pb2.WatchTaskRequest, assay.v1.worker_pb2.WatchTaskResponse]
    FetchResult: grpc.UnaryStreamMultiCallable[assay.v1.worker_pb2.FetchResultRequest, assay.v1.worker_pb2.FetchResultResponse]
    PauseTask: grpc.UnaryUnaryMultiCallable[assay.v1.worker_pb2.PauseTaskRequest, assay.v1.worker_pb2.PauseTaskResponse]
    ResumeTask: grpc.UnaryUnaryMultiCallable[assay.v1.worker_pb2.ResumeTaskRequest, assay.v1.worker_pb2.ResumeTaskResponse]
    CancelTask: grpc.UnaryUnaryMultiCallable[assay.v1.worker_pb2.CancelTaskRequest, assay.v1.worker_pb2.CancelTaskResponse]
    ReleaseTask: grpc.UnaryUnaryMultiCallable[assay.v1.worker_pb2.ReleaseTaskRequest, assay.v1.worker_pb2.ReleaseTaskResponse]

class WorkerServiceAsyncStub(WorkerServiceStub):
    """What ``WorkerServiceStub`` is on an asyncio channel; exists for types only."""

    DescribeWorker: grpc.aio.UnaryUnaryMultiCallable[assay.v1.worker_pb2.DescribeWorkerRequest, assay.v1.worker_pb2.DescribeWorkerResponse]
    SubmitTask: grpc.aio.StreamUnaryMultiCallable[assay.v1.worker_pb2.SubmitTaskRequest, assay.v1.worker_pb2.SubmitTaskResponse]
    WatchTask: grpc.aio.UnaryStreamMultiCallable[assay.v1.worker_pb2.WatchTaskRequest, assay.v1.worker_pb2.WatchTaskResponse]
    FetchResult: grpc.aio.UnaryStreamMultiCallable[assay.v1.worker_pb2.FetchResultRequest, assay.v1.worker_pb2.FetchResultResponse]
    PauseTask: grpc.aio.UnaryUnaryMultiCallable[assay.v1.worker_pb2.PauseTaskRequest, assay.v1.worker_pb2.PauseTaskResponse]
    ResumeTask: grpc.aio.UnaryUnaryMultiCallable[assay.v1.worker_pb2.ResumeTaskRequest, assay.v1.worker_pb2.ResumeTaskResponse]
    CancelTask: grpc.aio.UnaryUnaryMultiCallable[assay.v1.worker_pb2.CancelTaskRequest, assay.v1.worker_pb2.CancelTaskResponse]
    ReleaseTask: grpc.aio.UnaryUnaryMultiCallable[assay.v1.worker_pb2.ReleaseTaskRequest, assay.v1.worker_pb2.ReleaseTaskResponse]

class WorkerServiceServicer:
    async def DescribeWorker(self, request: assay.v1.worker_pb2.DescribeWorkerRequest, context: grpc.aio.ServicerContext[assay.v1.worker_pb2.DescribeWorkerRequest, assay.v1.worker_pb2.DescribeWorkerResponse]) -> assay.v1.worker_pb2.DescribeWorkerResponse: ...
    async def SubmitTask(self, request: AsyncIterator[assay.v1.worker_pb2.SubmitTaskRequest], context: grpc.aio.ServicerContext[assay.v1.worker_pb2.SubmitTaskRequest, assay.v1.worker_pb2.SubmitTaskResponse]) -> assay.v1.worker_pb2.SubmitTaskResponse: ...
    def WatchTask(self, request: assay.v1.worker_pb2.WatchTaskRequest, context: grpc.aio.ServicerContext[assay.v1.worker_pb2.WatchTaskRequest, assay.v1.worker_pb2.WatchTaskResponse]) -> AsyncIterator[assay.v1.worker_pb2.WatchTaskResponse]: ...
    def FetchResult(self, request: assay.v1.worker_pb2.FetchResultRequest, context: grpc.aio.ServicerContext[assay.v1.worker_pb2.FetchResultRequest, assay.v1.worker_pb2.FetchResultResponse]) -> AsyncIterator[assay.v1.worker_pb2.FetchResultResponse]: ...
    async def PauseTask(self, request: assay.v1.worker_pb2.PauseTaskRequest, context: grpc.aio.ServicerContext[assay.v1.worker_pb2.PauseTaskRequest, assay.v1.worker_pb2.PauseTaskResponse]) -> assay.v1.worker_pb2.PauseTaskResponse: ...
    async def ResumeTask(self, request: assay.v1.worker_pb2.ResumeTaskRequest, context: grpc.aio.ServicerContext[assay.v1.worker_pb2.ResumeTaskRequest, assay.v1.worker_pb2.ResumeTaskResponse]) -> assay.v1.worker_pb2.ResumeTaskResponse: ...
    async def CancelTask(self, request: assay.v1.worker_pb2.CancelTaskRequest, context: grpc.aio.ServicerContext[assay.v1.worker_pb2.CancelTaskRequest, assay.v1.worker_pb2.CancelTaskResponse]) -> assay.v1.worker_pb2.CancelTaskResponse: ...
    async def ReleaseTask(self, request: assay.v1.worker_pb2.ReleaseTaskRequest, context: grpc.aio.ServicerContext[assay.v1.worker_pb2.ReleaseTaskRequest, assay.v1.worker_pb2.ReleaseTaskResponse]) -> assay.v1.worker_pb2.ReleaseTaskResponse: ...

def add_WorkerServiceServicer_to_server(
    servicer: WorkerServiceServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
