"""Types of the generated service code; made by assay.protogen."""

from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio
import assay.v1.tuning_job_pb2

class TuningJobServiceStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> TuningJobServiceStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> TuningJobServiceAsyncStub: ...
    CreateTuningJob: grpc.UnaryUnaryMultiCallable[assay.v1.tuning_job_pb2.CreateTuningJobRequest, assay.v1.tuning_job_pb2.CreateTuningJobResponse]
    GetTuningJob: grpc.UnaryUnaryMultiCallable[assay.v1.tuning_job_pb2.GetTuningJobRequest, assay.v1.tuning_job_pb2.GetTuningJobResponse]
    ListTuningJobs: grpc.UnaryUnaryMultiCallable[assay.v1.tuning_job_pb2.ListTuningJobsRequest, assay.v1.tuning_job_pb2.ListTuningJobsResponse]
    CancelTuningJob: grpc.UnaryUnaryMultiCallable[assay.v1.tuning_job_pb2.CancelTuningJobRequest, assay.v1.tuning_job_pb2.CancelTuningJobResponse]
    PauseTuningJob: grpc.UnaryUnaryMultiCallable[assay.v1.tuning_job_pb2.PauseTuningJobRequest, assay.v1.tuning_job_pb2.PauseTuningJobResponse]
    ResumeTuningJob: grpc.UnaryUnaryMultiCallable[assay.v1.tuning_job_pb2.ResumeTuningJobRequest, assay.v1.tuning_job_pb2.ResumeTuningJobResponse]
    AppealTuningJob: grpc.UnaryUnaryMultiCallable[assay.v1.tuning_job_pb2.AppealTuningJobRequest, assay.v1.tuning_job_pb2.AppealTuningJobResponse]
    WatchTuningJob: grpc.UnaryStreamMultiCallable[assay.v1.tuning_job_pb2.WatchTuningJobRequest, assay.v1.tuning_job_pb2.WatchTuningJobResponse]
    ReplayTuningJob: grpc.UnaryStreamMultiCallable[assay.v1.tuning_job_pb2.ReplayTuningJobRequest, assay.v1.tuning_job_pb2.ReplayTuningJobResponse]

class TuningJobServiceAsyncStub(TuningJobServiceStub):
    """What ``TuningJobServiceStub`` is on an asyncio channel; exists for types only."""

    CreateTuningJob: grpc.aio.UnaryUnaryMultiCallable[assay.v1.tuning_job_pb2.CreateTuningJobRequest, assay.v1.tuning_job_pb2.CreateTuningJobResponse]
    GetTuningJob: grpc.aio.UnaryUnaryMultiCallable[assay.v1.tuning_job_pb2.GetTuningJobRequest, assay.v1.tuning_job_pb2.GetTuningJobResponse]
    ListTuningJobs: grpc.aio.UnaryUnaryMultiCallable[assay.v1.tuning_job_pb2.ListTuningJobsRequest, assay.v1.tuning_job_pb2.ListTuningJobsResponse]
    CancelTuningJob: grpc.aio.UnaryUnaryMultiCallable[assay.v1.tuning_job_pb2.CancelTuningJobRequest, assay.v1.tuning_job_pb2.CancelTuningJobResponse]
    PauseTuningJob: grpc.aio.UnaryUnaryMultiCallable[assay.v1.tuning_job_pb2.PauseTuningJobRequest, assay.v1.tuning_job_pb2.PauseTuningJobResponse]
    ResumeTuningJob: grpc.aio.UnaryUnaryMultiCallable[assay.v1.tuning_job_pb2.ResumeTuningJobRequest, assay.v1.tuning_job_pb2.ResumeTuningJobResponse]
    AppealTuningJob: grpc.aio.UnaryUnaryMultiCallable[assay.v1.tuning_job_pb2.AppealTuningJobRequest, assay.v1.tuning_job_pb2.AppealTuningJobResponse]
    WatchTuningJob: grpc.aio.UnaryStreamMultiCallable[assay.v1.tuning_job_pb2.WatchTuningJobRequest, assay.v1.tuning_job_pb2.WatchTuningJobResponse]
    ReplayTuningJob: grpc.aio.UnaryStreamMultiCallable[assay.v1.tuning_job_pb2.ReplayTuningJobRequest, assay.v1.tuning_job_pb2.ReplayTuningJobResponse]

class TuningJobServiceServicer:
    async def CreateTuningJob(self, request: assay.v1.tuning_job_pb2.CreateTuningJobRequest, context: grpc.aio.ServicerContext[assay.v1.tuning_job_pb2.CreateTuningJobRequest, assay.v1.tuning_job_pb2.CreateTuningJobResponse]) -> assay.v1.tuning_job_pb2.CreateTuningJobResponse: ...
    async def GetTuningJob(self, request: assay.v1.tuning_job_pb2.GetTuningJobRequest, context: grpc.aio.ServicerContext[assay.v1.tuning_job_pb2.GetTuningJobRequest, assay.v1.tuning_job_pb2.GetTuningJobResponse]) -> assay.v1.tuning_job_pb2.GetTuningJobResponse: ...
    async def ListTuningJobs(self, request: assay.v1.tuning_job_pb2.ListTuningJobsRequest, context: grpc.aio.ServicerContext[assay.v1.tuning_job_pb2.ListTuningJobsRequest, assay.v1.tuning_job_pb2.ListTuningJobsResponse]) -> assay.v1.tuning_job_pb2.ListTuningJobsResponse: ...
    async def CancelTuningJob(self, request: assay.v1.tuning_job_pb2.CancelTuningJobRequest, context: grpc.aio.ServicerContext[assay.v1.tuning_job_pb2.CancelTuningJobRequest, assay.v1.tuning_job_pb2.CancelTuningJobResponse]) -> assay.v1.tuning_job_pb2.CancelTuningJobResponse: ...
    async def PauseTuningJob(self, request: assay.v1.tuning_job_pb2.PauseTuningJobRequest, context: grpc.aio.ServicerContext[assay.v1.tuning_job_pb2.PauseTuningJobRequest, assay.v1.tuning_job_pb2.PauseTuningJobResponse]) -> assay.v1.tuning_job_pb2.PauseTuningJobResponse: ...
    async def ResumeTuningJob(self, request: assay.v1.tuning_job_pb2.ResumeTuningJobRequest, context: grpc.aio.ServicerContext[assay.v1.tuning_job_pb2.ResumeTuningJobRequest, assay.v1.tuning_job_pb2.ResumeTuningJobResponse]) -> assay.v1.tuning_job_pb2.ResumeTuningJobResponse: ...
    async def AppealTuningJob(self, request: assay.v1.tuning_job_pb2.AppealTuningJobRequest, context: grpc.aio.ServicerContext[assay.v1.tuning_job_pb2.AppealTuningJobRequest, assay.v1.tuning_job_pb2.AppealTuningJobResponse]) -> assay.v1.tuning_job_pb2.AppealTuningJobResponse: ...
    def WatchTuningJob(self, request: assay.v1.tuning_job_pb2.WatchTuningJobRequest, context: grpc.aio.ServicerContext[assay.v1.tuning_job_pb2.WatchTuningJobRequest, assay.v1.tuning_job_pb2.WatchTuningJobResponse]) -> AsyncIterator[assay.v1.tuning_job_pb2.WatchTuningJobResponse]: ...
    def ReplayTuningJob(self, request: assay.v1.tuning_job_pb2.ReplayTuningJobRequest, context: grpc.aio.ServicerContext[assay.v1.tuning_job_pb2.ReplayTuningJobRequest, assay.v1.tuning_job_pb2.ReplayTuningJobResponse]) -> AsyncIterator[assay.v1.tuning_job_pb2.ReplayTuningJobResponse]: ...

def add_TuningJobServiceServicer_to_server(
    servicer: TuningJobServiceServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
