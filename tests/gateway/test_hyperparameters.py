"""Hyperparameters by rule: what is asked for stands, what is chosen has a reason, and a job says both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import protovalidate
import pytest

from assay.contract import check
from assay.errors import InvalidInputError
from assay.v1 import policy_input_pb2
from assay.v1 import tuning_job_pb2 as pb
from gateway.admission import facts, searching
from gateway.admission.hyperparameters import DEFAULTS, MOST_ROW_TOKENS, demand
from trainer.settings import Settings


def asked(method: str = "lora", cap: int = 10**9, **values: object) -> pb.CreateTuningJobRequest:
    return pb.CreateTuningJobRequest(
        method=method, hyperparameters=pb.Hyperparameters(**values), budget=pb.Budget(max_train_tokens=cap)
    )


def data(rows: int = 1000, **values: object) -> policy_input_pb2.DataFacts:
    known = {"train_tokens": rows * 50, "validation_rows": 100, "longest_row_tokens": 300, **values}
    return policy_input_pb2.DataFacts(train_rows=rows, **known)


def test_the_page_names_every_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    table = page.split("| Number | Default |", 1)[1].split("\n\n", 1)[0]
    said = dict(re.findall(r"^\| `(\w+)`[^|]* \| ([^ ;|]+)", table, re.MULTILINE))
    assert set(said) == {f.name for f in DEFAULTS.DESCRIPTOR.fields} - {"auto"}
    for name, cell in said.items():
        assert (0.0 if cell == "off" else float(cell.replace(",", ""))) == getattr(DEFAULTS, name), name


@pytest.mark.parametrize("name", sorted({f.name for f in DEFAULTS.DESCRIPTOR.fields} - {"auto", "early_stopping"}))
def test_what_may_be_asked_for_is_what_the_trainer_takes(name: str) -> None:
    kind = type(getattr(DEFAULTS, name))
    edges = (0, 1, 16, 50, 256, 1024, 8192, 2**31 - 1, 0.1, 0.99)
    for value in {kind(edge + step) for edge in edges for step in (-1, -0.001, 0, 0.001, 1)}:
        if kind is int and value >= 2**31 and name != "seed":
            continue  # no such message can be made
        assert _asked(name, value) == _taken(name, value), value


def _asked(name: str, value: float) -> bool:
    try:
        check(pb.Hyperparameters(**{name: value}))
    except InvalidInputError:
        return False
    return True


def _taken(name: str, value: float) -> bool:
    try:
        Settings.from_order({name: value})
    except InvalidInputError:
        return False
    return True


@pytest.mark.parametrize(
    ("rows", "epochs"), [(5, 20), (4, 25), (1, 25), (30, 4), (34, 3), (1000, 3), (8333, 3), (9000, 2), (40_000, 1)]
)
def test_few_rows_are_seen_often_and_many_once(rows: int, epochs: int) -> None:
    chosen = facts.hyperparameters(asked(auto=True), data(rows))
    assert chosen.values.epochs == epochs
    assert chosen.reasons["epochs"] == (
        f"three passes over {rows} rows, up to 25 where fewer than 100 would be seen, fewer where more than 25000 "
        "would, but at least one (OpenAI's cookbook)"
    )


def test_epochs_fit_into_the_cap_but_one_is_always_asked_for() -> None:
    chosen = facts.hyperparameters(asked(auto=True, cap=120_000), data(1000))
    assert chosen.values.epochs == 2 and "2 fit into 120000 tokens" in chosen.reasons["epochs"]
    # Not even one fits: policy then refuses with the number that would.
    for cap in (90_000, 10):
        chosen = facts.hyperparameters(asked(auto=True, cap=cap), data(1000, train_tokens=100_000))
        assert chosen.values.epochs == 1 and chosen.reasons["epochs"].endswith(f"; 0 fit into {cap} tokens")


@pytest.mark.parametrize(("rows", "batch"), [(100, 8), (4000, 8), (10_000, 20), (10**6, 256)])
def test_the_batch_grows_with_the_rows(rows: int, batch: int) -> None:
    assert facts.hyperparameters(asked(auto=True), data(rows)).values.batch_size == batch


def test_the_rate_follows_method_and_size() -> None:
    rates = {
        (method, size): facts.hyperparameters(asked(method, auto=True), data(), size).values.learning_rate
        for method, size in (("lora", 135_000_000), ("lora", 70_000_000_000), ("dpo", 135_000_000))
    }
    assert list(rates.values()) == [2e-4, 1e-4, 5e-5]


def test_no_row_is_cut_unless_the_request_asks_for_it() -> None:
    """An audit reads rows whole; a model that was tuned on their ends would be another."""
    for longest, read in ((300, 1024), (3000, 3000), (20_000, 8192)):
        assert facts.hyperparameters(asked(), data(longest_row_tokens=longest)).values.max_row_tokens == read
    assert facts.hyperparameters(asked(max_row_tokens=512), data(longest_row_tokens=3000)).values.max_row_tokens == 512
    protovalidate.validate(pb.Hyperparameters(max_row_tokens=MOST_ROW_TOKENS))
    with pytest.raises(protovalidate.ValidationError, match="max_row_tokens"):
        protovalidate.validate(pb.Hyperparameters(max_row_tokens=MOST_ROW_TOKENS + 1))
    edge = facts.hyperparameters(asked(auto=True), data(longest_row_tokens=300))
    assert edge.values.max_row_tokens == 300


def test_full_tuning_has_no_rank_and_a_tenth_of_the_rate() -> None:
    auto = facts.hyperparameters(asked("full", auto=True), data(), 135_000_000)
    assert auto.values.learning_rate == pytest.approx(2e-5)
    assert "LoRA Without Regret" in auto.reasons["learning_rate"] and "lora_rank" not in auto.reasons
    large = facts.hyperparameters(asked("full", auto=True), data(), 70_000_000_000)
    assert large.values.learning_rate == pytest.approx(1e-5)
    plain = facts.hyperparameters(asked("full"), data())
    assert plain.values.learning_rate == pytest.approx(2e-5) and plain.values.epochs == DEFAULTS.epochs
    stated = facts.hyperparameters(asked("full", learning_rate=1e-4, auto=True), data())
    assert stated.values.learning_rate == 1e-4 and "learning_rate" not in stated.reasons
    for chosen in (auto, large, plain, stated):
        assert not any(chosen.values.HasField(n) for n in ("lora_rank", "lora_alpha", "lora_dropout"))
    rates = asked("full")
    rates.search.CopyFrom(policy_input_pb2.Search(learning_rates=[1e-5, 2e-5]))
    trials = searching.ordered(rates, facts.hyperparameters(rates, data()).values)
    assert trials == [{"learning_rate": "1e-05"}, {"learning_rate": "2e-05"}]
    done = [{**trial, "tokens": 10, "steps": 2, "selection_loss": "2.5"} for trial in trials]
    claim = {"search": {"trials": done, "chosen": 1}}
    searching.demand_every_trial({"search": {"trials": trials}}, claim)
    assert [trial.lora_rank for trial in searching.read(claim)] == [0, 0]


@pytest.mark.parametrize("auto", [False, True])
def test_the_shape_of_a_parents_adapter_is_neither_ordered_nor_chosen(auto: bool) -> None:
    request = asked(auto=auto, lora_dropout=0.1)
    request.parent_model = "units/credit/models/first"
    demand(request)
    chosen = facts.hyperparameters(request, data())
    assert not any(chosen.values.HasField(name) for name in ("lora_rank", "lora_alpha"))
    assert chosen.values.lora_dropout == 0.1 and "lora_rank" not in chosen.reasons
    request.hyperparameters.lora_rank = 4
    with pytest.raises(InvalidInputError) as caught:
        demand(request)
    assert caught.value.reason == "HYPERPARAMETERS" and "leave out lora_rank" in caught.value.remedy
    assert [v.field for v in caught.value.violations] == ["hyperparameters.lora_rank"]


@pytest.mark.parametrize("name", ["lora_rank", "lora_alpha", "lora_dropout"])
def test_a_number_of_lora_is_refused_of_full_tuning(name: str) -> None:
    demand(asked("full", learning_rate=1e-5, epochs=1.0, auto=True))
    demand(asked("lora", **{name: 1}))
    with pytest.raises(InvalidInputError) as caught:
        demand(asked("full", **{name: 0 if name == "lora_dropout" else 1}))
    assert [v.field for v in caught.value.violations] == [f"hyperparameters.{name}"] and name in caught.value.remedy


def test_what_is_asked_for_stands() -> None:
    chosen = facts.hyperparameters(asked(auto=True, epochs=7.5, lora_rank=4, early_stopping=False), data())
    assert (chosen.values.epochs, chosen.values.lora_rank, chosen.values.lora_alpha) == (7.5, 4, 8)
    assert not chosen.values.early_stopping and not chosen.values.auto
    assert not {"epochs", "lora_rank", "early_stopping"} & set(chosen.reasons)
    assert set(chosen.reasons) == {"learning_rate", "batch_size", "max_row_tokens"}


def test_without_auto_or_rows_the_recipes_defaults_hold() -> None:
    assert facts.hyperparameters(asked(), data()).values == DEFAULTS
    before = facts.hyperparameters(asked(auto=True), policy_input_pb2.DataFacts())
    assert before.values == DEFAULTS and not before.reasons


def test_no_validation_rows_no_early_stopping() -> None:
    assert not facts.hyperparameters(asked(auto=True), data(validation_rows=0)).values.early_stopping


@pytest.mark.parametrize(
    ("method", "tokens"), [("lora", 1000), ("full", 1000), ("classification", 3000), ("dpo", 1700), ("dpo-ipo", 1700)]
)
def test_tokens_are_counted_as_the_method_reads_them(method: str, tokens: int) -> None:
    known = policy_input_pb2.DataFacts(train_tokens=1000, rejected_tokens=700, labels=["a", "b", "c"])
    assert facts.tokens_of_pass(method, known) == tokens


@pytest.mark.parametrize(
    ("values", "planned"),
    [
        ({"epochs": 1.3}, 1300),
        ({"epochs": 0.01}, 90),
        ({"epochs": 0.01, "method": "dpo"}, 180),
        ({"epochs": 0.01, "method": "classification"}, 180),
        ({"epochs": 0.25, "trials": [1e-4, 2e-4]}, 500),
        ({"epochs": 0.01, "trials": [1e-4, 2e-4]}, 180),
        ({"epochs": 2.0, "private": "row"}, 2000),
        ({"epochs": 0.1, "private": "row"}, 320),
        ({"epochs": 0.1, "private": "user"}, 640),
        ({"epochs": 0.5, "batch_size": 200, "private": "row"}, 1000),
    ],
)
def test_what_is_planned_is_the_epochs_share_or_the_least_that_a_step_trains(
    values: dict[str, Any], planned: int
) -> None:
    known = policy_input_pb2.DataFacts(
        train_rows=90, canary_rows=10, train_users=50, train_tokens=1000, longest_row_tokens=90, labels=["a", "b"]
    )
    asked = policy_input_pb2.RequestFacts(
        method=values.get("method", "lora"), epochs=values["epochs"], batch_size=values.get("batch_size", 32)
    )
    asked.search.learning_rates.extend(values.get("trials", ()))
    if "private" in values:
        asked.differential_privacy.unit = values["private"]
    assert facts.planned_tokens(asked, known) == planned


def test_a_search_plans_the_tokens_of_all_trials_and_rules_choose_nothing_that_it_tries() -> None:
    six = asked(cap=6000, auto=True)
    six.search.CopyFrom(policy_input_pb2.Search(lora_ranks=[4, 8], learning_rates=[1e-4, 2e-4, 4e-4]))
    known = data(train_tokens=1000)
    chosen = facts.hyperparameters(six, known)
    assert chosen.values.epochs == 1.0, "six trials of one pass are what the budget has room for"
    assert not {"lora_rank", "learning_rate"} & set(chosen.reasons)
    trials = searching.ordered(six, chosen.values)
    assert [(t["lora_rank"], t["lora_alpha"], t["learning_rate"]) for t in trials] == [
        (4, 8, "0.0001"), (4, 8, "0.0002"), (4, 8, "0.0004"), (8, 16, "0.0001"), (8, 16, "0.0002"), (8, 16, "0.0004"),
    ]  # fmt: skip
    six.parent_model = "units/credit/models/first"
    assert all(set(trial) == {"learning_rate"} for trial in searching.ordered(six, chosen.values))
