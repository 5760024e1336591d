"""Questions that the baseline pack finds clean, taken from its own table of tests."""

from __future__ import annotations

import pytest

from assay.v1 import policy_input_pb2
from policies import testing
from policies.engine import PolicyEngine
from policies.pack import BASELINE, load
from policies.rule import Pack


@pytest.fixture(scope="session")
def pack() -> Pack:
    return load(BASELINE)


@pytest.fixture(scope="session")
def engine(pack: Pack) -> PolicyEngine:
    return PolicyEngine(pack)


@pytest.fixture(scope="session")
def cases(pack: Pack) -> dict[str, testing.Case]:
    return {case.name: case for case in testing.read_cases(pack)}


@pytest.fixture
def chat(cases: dict[str, testing.Case]) -> policy_input_pb2.IntakeInput:
    """A clean chat request, to be changed by the test."""
    out = policy_input_pb2.IntakeInput()
    out.CopyFrom(cases["a clean chat request is allowed"].intake)
    return out


@pytest.fixture
def table(cases: dict[str, testing.Case]) -> policy_input_pb2.IntakeInput:
    """A clean decision request, to be changed by the test."""
    out = policy_input_pb2.IntakeInput()
    out.CopyFrom(cases["a clean decision request is allowed"].intake)
    return out


@pytest.fixture
def release(engine: PolicyEngine, cases: dict[str, testing.Case]) -> policy_input_pb2.ReleaseInput:
    """A clean chat model, to be changed by the test."""
    return testing.release_question(engine, cases["a clean chat model passes"])


@pytest.fixture
def table_release(engine: PolicyEngine, cases: dict[str, testing.Case]) -> policy_input_pb2.ReleaseInput:
    """A clean decision model, to be changed by the test."""
    return testing.release_question(engine, cases["a clean decision model passes"])
