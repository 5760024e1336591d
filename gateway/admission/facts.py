"""What policy is told: the request, the declaration and measured facts as typed messages, never rows."""

from __future__ import annotations

import math
from collections.abc import Iterable

from assay import token_plan
from assay.dp_sgd import ROW, USER, Sampling, most_epsilon
from assay.v1 import dataset_pb2, measurement_pb2, policy_input_pb2, tuning_job_pb2
from gateway.admission.hyperparameters import Chosen, choose
from gateway.admission.quotes import train_seconds
from gateway.jobs.views import from_json
from gateway.names import unit_of
from gateway.settings import PriceBook, Settings
from gateway.store.tables import DatasetRow
from policies import inputs


def hyperparameters(
    request: tuning_job_pb2.CreateTuningJobRequest, data: policy_input_pb2.DataFacts, parameters: int = 0
) -> Chosen:
    """Every number of the run, and why where a rule chose it; the base model's size decides the learning rate alone."""
    tokens = tokens_of_pass(request.method, data) * inputs.trials(request.search)
    return choose(request, data, parameters, tokens)


def tokens_of_pass(method: str, data: policy_input_pb2.DataFacts) -> int:
    """Tokens that the method reads in one pass over the train split: every label of a row, both answers of a pair."""
    if method.startswith("dpo"):
        return data.train_tokens + data.rejected_tokens
    return data.train_tokens * _sequences(method, data)


def _sequences(method: str, data: policy_input_pb2.DataFacts) -> int:
    """Sequences that the method reads for one row at most."""
    if method == "classification":
        return max(1, len(data.labels))
    return 2 if method.startswith("dpo") else 1


def planned_tokens(request: policy_input_pb2.RequestFacts, data: policy_input_pb2.DataFacts) -> int:
    """Tokens that the run trains at most, of a search all trials together: no honest run trains more."""
    tokens = tokens_of_pass(request.method, data)
    if request.HasField("differential_privacy"):
        # Every step counts as many tokens as it draws on average.
        step = math.ceil(tokens * min(1.0, request.batch_size / max(1, drawn(request, data))))
    else:
        step = data.longest_row_tokens * _sequences(request.method, data)
    return token_plan.most(tokens, request.epochs, step, inputs.trials(request.search))


def drawn(request: policy_input_pb2.RequestFacts, data: policy_input_pb2.DataFacts) -> int:
    """Units of the train split that a private run draws from."""
    return data.train_users if request.differential_privacy.unit == USER else data.train_rows + data.canary_rows


def quote(book: PriceBook, method: str, tokens: int) -> int:
    """What a run of so many tokens and its audit would cost, in millionths of a US dollar."""
    return train_quote(book, method, tokens) + book.audit_seconds * book.price


def train_quote(book: PriceBook, method: str, tokens: int) -> int:
    """The part of a quote that is for training."""
    return train_seconds(book, method, tokens) * book.price


def run_cost(book: PriceBook, train_seconds: float, audit_seconds: float) -> int:
    """What device time cost, in millionths of a US dollar; started seconds count."""
    return (math.ceil(train_seconds) + math.ceil(audit_seconds)) * book.price


def request_facts(
    settings: Settings,
    request: tuning_job_pb2.CreateTuningJobRequest,
    requester: str,
    data: policy_input_pb2.DataFacts,
) -> policy_input_pb2.RequestFacts:
    """The request as policy sees it."""
    chosen = hyperparameters(request, data).values
    facts = policy_input_pb2.RequestFacts(
        unit=unit_of(request.parent),
        purpose=request.purpose,
        requester=requester,
        method=request.method,
        region=settings.region,
        budget_usd_micros=request.budget.max_usd_micros,
        max_train_tokens=request.budget.max_train_tokens,
        audit_profile=request.audit_profile,
        epochs=chosen.epochs,
        batch_size=chosen.batch_size,
        max_row_tokens=chosen.max_row_tokens,
    )
    if request.HasField("use"):
        facts.use.CopyFrom(request.use)
    if request.HasField("search"):
        facts.search.CopyFrom(request.search)
    if request.HasField("differential_privacy"):
        facts.differential_privacy.CopyFrom(request.differential_privacy)
        facts.differential_privacy.unit = request.differential_privacy.unit or ROW
        spend(facts, data)
    plan(settings.price_book, facts, data)
    return facts


def plan(book: PriceBook, request: policy_input_pb2.RequestFacts, data: policy_input_pb2.DataFacts) -> None:
    """Says how many tokens the run trains at most, and what that costs."""
    request.planned_train_tokens = planned_tokens(request, data)
    request.quote_usd_micros = quote(book, request.method, request.planned_train_tokens)


def spend(request: policy_input_pb2.RequestFacts, data: policy_input_pb2.DataFacts) -> None:
    """Says how much epsilon a noise multiplier spends at most, once its units are counted; a target stands as it is."""
    privacy = request.differential_privacy
    units = drawn(request, data)
    if privacy.HasField("noise_multiplier") and privacy.HasField("delta") and units:
        sampling = Sampling.of(units, request.batch_size, request.epochs)
        privacy.epsilon = most_epsilon(privacy.noise_multiplier, sampling, privacy.delta)


def intake_input(
    settings: Settings,
    request: tuning_job_pb2.CreateTuningJobRequest,
    requester: str,
    dataset: DatasetRow,
    data: policy_input_pb2.DataFacts,
    base_model: policy_input_pb2.BaseModelFacts,
    parent: policy_input_pb2.ParentModel | None = None,
    teacher: policy_input_pb2.TeacherFacts | None = None,
) -> policy_input_pb2.IntakeInput:
    """Everything that intake rules may read."""
    asked = policy_input_pb2.IntakeInput(
        request=request_facts(settings, request, requester, data),
        datasheet=from_json(dataset.datasheet, dataset_pb2.Datasheet),
        format=dataset_pb2.DatasetFormat.Name(dataset.format),
        data=data,
        base_model=base_model,
    )
    if parent is not None:
        asked.request.parent.CopyFrom(parent)
    if teacher is not None:
        asked.request.teacher.CopyFrom(teacher)
    return asked


def release_input(
    decided: policy_input_pb2.RequestFacts,
    budget_usd_micros: int,
    dataset: DatasetRow,
    plan: measurement_pb2.AuditPlan,
    measurements: Iterable[measurement_pb2.Measurement],
    run: policy_input_pb2.RunFacts,
) -> policy_input_pb2.ReleaseInput:
    """Everything that release rules may read; what the plan did not ask for is left out, so that it is never judged.

    Args:
        decided: the request as intake policy was told of it: settings may have changed since.
        budget_usd_micros: what the job may cost by now, which a signed raise changes.
        dataset: the job's dataset.
        plan: what was to be measured.
        measurements: what was measured.
        run: what the workers' statements say.
    """
    question = policy_input_pb2.ReleaseInput(
        request=decided,
        datasheet=from_json(dataset.datasheet, dataset_pb2.Datasheet),
        format=dataset_pb2.DatasetFormat.Name(dataset.format),
        plan=plan,
        measurements=judged(measurements),
        run=run,
    )
    question.request.budget_usd_micros = budget_usd_micros
    return question


def judged(measurements: Iterable[measurement_pb2.Measurement]) -> dict[str, measurement_pb2.Measurement]:
    """The planned measurements by key; what the plan did not ask for is left out."""
    return {measurement_key(m): m for m in measurements if not m.exploratory}


def measurement_key(measurement: measurement_pb2.Measurement) -> str:
    """Key of a measurement: its name, and its slice in brackets."""
    return f"{measurement.name}[{measurement.slice}]" if measurement.slice else measurement.name
