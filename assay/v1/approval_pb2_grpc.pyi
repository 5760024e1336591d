"""Types of the generated service code; made by assay.protogen."""

from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio
import assay.v1.approval_pb2

class ApprovalServiceStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> ApprovalServiceStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> ApprovalServiceAsyncStub: ...
    ListPendingApprovals: grpc.UnaryUnaryMultiCallable[assay.v1.approval_pb2.ListPendingApprovalsRequest, assay.v1.approval_pb2.ListPendingApprovalsResponse]
    DecideApproval: grpc.UnaryUnaryMultiCallable[assay.v1.approval_pb2.DecideApprovalRequest, assay.v1.approval_pb2.DecideApprovalResponse]
    WaiveRules: grpc.UnaryUnaryMultiCallable[assay.v1.approval_pb2.WaiveRulesRequest, assay.v1.approval_pb2.WaiveRulesResponse]
    RaiseBudget: grpc.UnaryUnaryMultiCallable[assay.v1.approval_pb2.RaiseBudgetRequest, assay.v1.approval_pb2.RaiseBudgetResponse]
    DismissAppeal: grpc.UnaryUnaryMultiCallable[assay.v1.approval_pb2.DismissAppealRequest, assay.v1.approval_pb2.DismissAppealResponse]
    RevokeApproval: grpc.UnaryUnaryMultiCallable[assay.v1.approval_pb2.RevokeApprovalRequest, assay.v1.approval_pb2.RevokeApprovalResponse]

class ApprovalServiceAsyncStub(ApprovalServiceStub):
    """What ``ApprovalServiceStub`` is on an asyncio channel; exists for types only."""

    ListPendingApprovals: grpc.aio.UnaryUnaryMultiCallable[assay.v1.approval_pb2.ListPendingApprovalsRequest, assay.v1.approval_pb2.ListPendingApprovalsResponse]
    DecideApproval: grpc.aio.UnaryUnaryMultiCallable[assay.v1.approval_pb2.DecideApprovalRequest, assay.v1.approval_pb2.DecideApprovalResponse]
    WaiveRules: grpc.aio.UnaryUnaryMultiCallable[assay.v1.approval_pb2.WaiveRulesRequest, assay.v1.approval_pb2.WaiveRulesResponse]
    RaiseBudget: grpc.aio.UnaryUnaryMultiCallable[assay.v1.approval_pb2.RaiseBudgetRequest, assay.v1.approval_pb2.RaiseBudgetResponse]
    DismissAppeal: grpc.aio.UnaryUnaryMultiCallable[assay.v1.approval_pb2.DismissAppealRequest, assay.v1.approval_pb2.DismissAppealResponse]
    RevokeApproval: grpc.aio.UnaryUnaryMultiCallable[assay.v1.approval_pb2.RevokeApprovalRequest, assay.v1.approval_pb2.RevokeApprovalResponse]

class ApprovalServiceServicer:
    async def ListPendingApprovals(self, request: assay.v1.approval_pb2.ListPendingApprovalsRequest, context: grpc.aio.ServicerContext[assay.v1.approval_pb2.ListPendingApprovalsRequest, assay.v1.approval_pb2.ListPendingApprovalsResponse]) -> assay.v1.approval_pb2.ListPendingApprovalsResponse: ...
    async def DecideApproval(self, request: assay.v1.approval_pb2.DecideApprovalRequest, context: grpc.aio.ServicerContext[assay.v1.approval_pb2.DecideApprovalRequest, assay.v1.approval_pb2.DecideApprovalResponse]) -> assay.v1.approval_pb2.DecideApprovalResponse: ...
    async def WaiveRules(self, request: assay.v1.approval_pb2.WaiveRulesRequest, context: grpc.aio.ServicerContext[assay.v1.approval_pb2.WaiveRulesRequest, assay.v1.approval_pb2.WaiveRulesResponse]) -> assay.v1.approval_pb2.WaiveRulesResponse: ...
    async def RaiseBudget(self, request: assay.v1.approval_pb2.RaiseBudgetRequest, context: grpc.aio.ServicerContext[assay.v1.approval_pb2.RaiseBudgetRequest, assay.v1.approval_pb2.RaiseBudgetResponse]) -> assay.v1.approval_pb2.RaiseBudgetResponse: ...
    async def DismissAppeal(self, request: assay.v1.approval_pb2.DismissAppealRequest, context: grpc.aio.ServicerContext[assay.v1.approval_pb2.DismissAppealRequest, assay.v1.approval_pb2.DismissAppealResponse]) -> assay.v1.approval_pb2.DismissAppealResponse: ...
    async def RevokeApproval(self, request: assay.v1.approval_pb2.RevokeApprovalRequest, context: grpc.aio.ServicerContext[assay.v1.approval_pb2.RevokeApprovalRequest, assay.v1.approval_pb2.RevokeApprovalResponse]) -> assay.v1.approval_pb2.RevokeApprovalResponse: ...

def add_ApprovalServiceServicer_to_server(
    servicer: ApprovalServiceServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
