"""Types of the generated service code; made by assay.protogen."""

from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio
import assay.v1.audit_pb2

class AuditServiceStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> AuditServiceStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> AuditServiceAsyncStub: ...
    ListRecords: grpc.UnaryUnaryMultiCallable[assay.v1.audit_pb2.ListRecordsRequest, assay.v1.audit_pb2.ListRecordsResponse]
    GetCheckpoint: grpc.UnaryUnaryMultiCallable[assay.v1.audit_pb2.GetCheckpointRequest, assay.v1.audit_pb2.GetCheckpointResponse]
    GetInclusionProof: grpc.UnaryUnaryMultiCallable[assay.v1.audit_pb2.GetInclusionProofRequest, assay.v1.audit_pb2.GetInclusionProofResponse]
    GetConsistencyProof: grpc.UnaryUnaryMultiCallable[assay.v1.audit_pb2.GetConsistencyProofRequest, assay.v1.audit_pb2.GetConsistencyProofResponse]
    ExportBundle: grpc.UnaryStreamMultiCallable[assay.v1.audit_pb2.ExportBundleRequest, assay.v1.audit_pb2.ExportBundleResponse]

class AuditServiceAsyncStub(AuditServiceStub):
    """What ``AuditServiceStub`` is on an asyncio channel; exists for types only."""

    ListRecords: grpc.aio.UnaryUnaryMultiCallable[assay.v1.audit_pb2.ListRecordsRequest, assay.v1.audit_pb2.ListRecordsResponse]
    GetCheckpoint: grpc.aio.UnaryUnaryMultiCallable[assay.v1.audit_pb2.GetCheckpointRequest, assay.v1.audit_pb2.GetCheckpointResponse]
    GetInclusionProof: grpc.aio.UnaryUnaryMultiCallable[assay.v1.audit_pb2.GetInclusionProofRequest, assay.v1.audit_pb2.GetInclusionProofResponse]
    GetConsistencyProof: grpc.aio.UnaryUnaryMultiCallable[assay.v1.audit_pb2.GetConsistencyProofRequest, assay.v1.audit_pb2.GetConsistencyProofResponse]
    ExportBundle: grpc.aio.UnaryStreamMultiCallable[assay.v1.audit_pb2.ExportBundleRequest, assay.v1.audit_pb2.ExportBundleResponse]

class AuditServiceServicer:
    async def ListRecords(self, request: assay.v1.audit_pb2.ListRecordsRequest, context: grpc.aio.ServicerContext[assay.v1.audit_pb2.ListRecordsRequest, assay.v1.audit_pb2.ListRecordsResponse]) -> assay.v1.audit_pb2.ListRecordsResponse: ...
    async def GetCheckpoint(self, request: assay.v1.audit_pb2.GetCheckpointRequest, context: grpc.aio.ServicerContext[assay.v1.audit_pb2.GetCheckpointRequest, assay.v1.audit_pb2.GetCheckpointResponse]) -> assay.v1.audit_pb2.GetCheckpointResponse: ...
    async def GetInclusionProof(self, request: assay.v1.audit_pb2.GetInclusionProofRequest, context: grpc.aio.ServicerContext[assay.v1.audit_pb2.GetInclusionProofRequest, assay.v1.audit_pb2.GetInclusionProofResponse]) -> assay.v1.audit_pb2.GetInclusionProofResponse: ...
    async def GetConsistencyProof(self, request: assay.v1.audit_pb2.GetConsistencyProofRequest, context: grpc.aio.ServicerContext[assay.v1.audit_pb2.GetConsistencyProofRequest, assay.v1.audit_pb2.GetConsistencyProofResponse]) -> assay.v1.audit_pb2.GetConsistencyProofResponse: ...
    def ExportBundle(self, request: assay.v1.audit_pb2.ExportBundleRequest, context: grpc.aio.ServicerContext[assay.v1.audit_pb2.ExportBundleRequest, assay.v1.audit_pb2.ExportBundleResponse]) -> AsyncIterator[assay.v1.audit_pb2.ExportBundleResponse]: ...

def add_AuditServiceServicer_to_server(
    servicer: AuditServiceServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
