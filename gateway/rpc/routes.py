"""Which domain function answers which RPC. One line each; the name of the function is the RPC's, in snake case."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from assay.v1 import (
    approval_pb2,
    audit_pb2,
    dataset_pb2,
    erasure_pb2,
    identity_pb2,
    lineage_pb2,
    model_pb2,
    permit_pb2,
    policy_pb2,
    tuning_job_pb2,
)
from gateway import publications
from gateway.application import Application
from gateway.caller import Caller
from gateway.jobs.service import JobService
from gateway.precedents import Precedents
from gateway.replays import ReplayService
from policies.engine import PolicyEngine

_AT_ONCE = 2
"""Questions to policy that are answered at once; they share one interpreter, so that more would not be sooner."""


@dataclass(frozen=True)
class Route:
    """One RPC and the function behind it."""

    method: MethodDescriptor
    function: Callable[..., Any]

    @property
    def path(self) -> str:
        """The RPC's path on the wire."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


class PolicyAnswers:
    """Policies have no state of their own here; CPU-bound work leaves the event loop.

    It has threads of its own: any member may ask, of any plan, and no question may take those that every other call
    and the pipeline read their rows with.
    """

    def __init__(self, engine: PolicyEngine, precedents: Precedents, since: Timestamp | None = None) -> None:
        self._engine = engine
        self._since = since
        self._threads = ThreadPoolExecutor(_AT_ONCE, "policy")
        self.list_precedents = precedents.list_precedents

    async def list_policies(
        self, caller: Caller, request: policy_pb2.ListPoliciesRequest
    ) -> policy_pb2.ListPoliciesResponse:
        """The bundle in force; there is one, so there is one page."""
        policy = self._engine.policy()
        if self._since is not None:
            policy.publish_time.CopyFrom(self._since)
        return policy_pb2.ListPoliciesResponse(policies=[policy])

    async def evaluate_policy(
        self, caller: Caller, request: policy_pb2.EvaluatePolicyRequest
    ) -> policy_pb2.EvaluatePolicyResponse:
        """What policy would say. The answer tells which law the unit chose, and a question may name no unit.

        Raises:
            NotFoundError: ``NOT_FOUND`` for a unit that the caller has no role in.
        """
        loop = asyncio.get_running_loop()
        unit = (request.intake if request.HasField("intake") else request.release).request.unit
        if unit:
            caller.require_unit(unit, f"units/{unit}")
        if request.HasField("intake"):
            decision = await loop.run_in_executor(self._threads, self._engine.decide, request.intake)
            return policy_pb2.EvaluatePolicyResponse(decision=decision)
        verdict = await loop.run_in_executor(self._threads, self._engine.judge, request.release)
        return policy_pb2.EvaluatePolicyResponse(verdict=verdict)

    async def explain_policy(
        self, caller: Caller, request: policy_pb2.ExplainPolicyRequest
    ) -> policy_pb2.ExplainPolicyResponse:
        """One rule; of the units that are asked it, those that the caller has a role in."""
        return self._engine.explain(request.rule_id, caller.sees)


class JobAnswers:
    """Jobs, and their replays, which are a domain of their own."""

    def __init__(self, service: JobService, replays: ReplayService) -> None:
        self._service = service
        self.replay_tuning_job = replays.replay_tuning_job

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)


def routes(app: Application) -> dict[ServiceDescriptor, list[Route]]:
    """All public RPCs.

    Raises:
        AttributeError: at start, when the contract has an RPC that nothing answers.
    """
    domains: dict[ServiceDescriptor, Any] = {
        dataset_pb2.DESCRIPTOR.services_by_name["DatasetService"]: app.datasets,
        tuning_job_pb2.DESCRIPTOR.services_by_name["TuningJobService"]: JobAnswers(app.jobs, app.replays),
        policy_pb2.DESCRIPTOR.services_by_name["PolicyService"]: PolicyAnswers(
            app.policy, Precedents(app.settings, app.store, app.authorizer), publications.in_force_since(app.store)
        ),
        model_pb2.DESCRIPTOR.services_by_name["ModelService"]: app.models,
        approval_pb2.DESCRIPTOR.services_by_name["ApprovalService"]: app.approvals,
        permit_pb2.DESCRIPTOR.services_by_name["PermitService"]: app.permits,
        audit_pb2.DESCRIPTOR.services_by_name["AuditService"]: app.evidence,
        erasure_pb2.DESCRIPTOR.services_by_name["ErasureService"]: app.erasures,
        lineage_pb2.DESCRIPTOR.services_by_name["LineageService"]: app.lineage,
        identity_pb2.DESCRIPTOR.services_by_name["IdentityService"]: app.identities,
    }
    return {
        service: [Route(method, getattr(domain, snake(method.name))) for method in service.methods]
        for service, domain in domains.items()
    }


def snake(name: str) -> str:
    """``WhoAmI`` → ``who_am_i``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
