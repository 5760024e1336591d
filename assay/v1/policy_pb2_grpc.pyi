"""Types of the generated service code; made by assay.protogen."""

from collections.abc import AsyncIterator
from typing import overload

import grpc
import grpc.aio
import assay.v1.policy_pb2

class PolicyServiceStub:
    @overload
    def __new__(cls, channel: grpc.Channel) -> PolicyServiceStub: ...
    @overload
    def __new__(cls, channel: grpc.aio.Channel) -> PolicyServiceAsyncStub: ...
    ListPolicies: grpc.UnaryUnaryMultiCallable[assay.v1.policy_pb2.ListPoliciesRequest, assay.v1.policy_pb2.ListPoliciesResponse]
    EvaluatePolicy: grpc.UnaryUnaryMultiCallable[assay.v1.policy_pb2.EvaluatePolicyRequest, assay.v1.policy_pb2.EvaluatePolicyResponse]
    ExplainPolicy: grpc.UnaryUnaryMultiCallable[assay.v1.policy_pb2.ExplainPolicyRequest, assay.v1.policy_pb2.ExplainPolicyResponse]
    ListPrecedents: grpc.UnaryUnaryMultiCallable[assay.v1.policy_pb2.ListPrecedentsRequest, assay.v1.policy_pb2.ListPrecedentsResponse]

class PolicyServiceAsyncStub(PolicyServiceStub):
    """What ``PolicyServiceStub`` is on an asyncio channel; exists for types only."""

    ListPolicies: grpc.aio.UnaryUnaryMultiCallable[assay.v1.policy_pb2.ListPoliciesRequest, assay.v1.policy_pb2.ListPoliciesResponse]
    EvaluatePolicy: grpc.aio.UnaryUnaryMultiCallable[assay.v1.policy_pb2.EvaluatePolicyRequest, assay.v1.policy_pb2.EvaluatePolicyResponse]
    ExplainPolicy: grpc.aio.UnaryUnaryMultiCallable[assay.v1.policy_pb2.ExplainPolicyRequest, assay.v1.policy_pb2.ExplainPolicyResponse]
    ListPrecedents: grpc.aio.UnaryUnaryMultiCallable[assay.v1.policy_pb2.ListPrecedentsRequest, assay.v1.policy_pb2.ListPrecedentsResponse]

class PolicyServiceServicer:
    async def ListPolicies(self, request: assay.v1.policy_pb2.ListPoliciesRequest, context: grpc.aio.ServicerContext[assay.v1.policy_pb2.ListPoliciesRequest, assay.v1.policy_pb2.ListPoliciesResponse]) -> assay.v1.policy_pb2.ListPoliciesResponse: ...
    async def EvaluatePolicy(self, request: assay.v1.policy_pb2.EvaluatePolicyRequest, context: grpc.aio.ServicerContext[assay.v1.policy_pb2.EvaluatePolicyRequest, assay.v1.policy_pb2.EvaluatePolicyResponse]) -> assay.v1.policy_pb2.EvaluatePolicyResponse: ...
    async def ExplainPolicy(self, request: assay.v1.policy_pb2.ExplainPolicyRequest, context: grpc.aio.ServicerContext[assay.v1.policy_pb2.ExplainPolicyRequest, assay.v1.policy_pb2.ExplainPolicyResponse]) -> assay.v1.policy_pb2.ExplainPolicyResponse: ...
    async def ListPrecedents(self, request: assay.v1.policy_pb2.ListPrecedentsRequest, context: grpc.aio.ServicerContext[assay.v1.policy_pb2.ListPrecedentsRequest, assay.v1.policy_pb2.ListPrecedentsResponse]) -> assay.v1.policy_pb2.ListPrecedentsResponse: ...

def add_PolicyServiceServicer_to_server(
    servicer: PolicyServiceServicer, server: grpc.Server | grpc.aio.Server
) -> None: ...
