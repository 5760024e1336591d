"""The minimal fix of a denied request, with what this installation works out again after each change of it."""

from __future__ import annotations

from assay.errors import AssayError
from assay.v1 import policy_input_pb2, policy_pb2
from gateway.admission import facts
from gateway.base_models import BaseModels
from gateway.settings import Settings
from policies import fixing
from policies.engine import PolicyEngine


def minimal_fix(
    policy: PolicyEngine, settings: Settings, base_models: BaseModels, question: policy_input_pb2.IntakeInput
) -> policy_pb2.MinimalFix:
    """Searches the smallest change that would pass here; CPU-bound, up to a second."""

    def derive(changed: policy_input_pb2.IntakeInput) -> None:
        request = changed.request
        facts.plan(settings.price_book, request, changed.data)
        if request.HasField("differential_privacy"):
            facts.spend(request, changed.data)
        _teach(changed, question, base_models)
        if changed.base_model.id != question.base_model.id:
            try:
                changed.base_model.CopyFrom(base_models.get(changed.base_model.id))
            except AssayError:
                # Not in this installation's registry: the rules on base models then say so.
                return

    return fixing.minimal_fix(policy, question, derive)


def _teach(
    changed: policy_input_pb2.IntakeInput, question: policy_input_pb2.IntakeInput, base_models: BaseModels
) -> None:
    """A licence can be declared of a teacher that is not known here alone."""
    teacher, asked = changed.request.teacher, question.request.teacher
    known = base_models.find(teacher.name) if teacher.name != asked.name else None
    if known is not None:
        licence, source, sha256 = known.licence.lower(), "registry", known.sha256
        teacher.MergeFrom(policy_input_pb2.TeacherFacts(licence=licence, licence_source=source, sha256=sha256))
        teacher.ClearField("state")
    elif asked.licence_source not in ("", "requester"):
        teacher.licence = asked.licence
