"""A search over rank and rate on a tiny random Llama: what is tried and kept, and that a stop changes nothing."""

from __future__ import annotations

import errno
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest

from assay.errors import IntegrityError, InvalidInputError, PreconditionError, UnavailableError
from assay.modelfiles import check_adapter_folder
from assay.worker.task import TaskContext, TaskPaused
from tests.trainer.test_objectives import context, continued, decisions, pairs
from tests.trainer.tiny_models import tiny_models
from trainer import task
from trainer.recipes import loop
from trainer.recipes.lora import TunedModel

ADAPTER = "adapter/adapter_model.safetensors"
NUMBERS = {"epochs": 2.0, "learning_rate": 0.02, "batch_size": 8, "lora_rank": 8, "lora_dropout": "0.1"}
# The first learns best, and the last next to nothing.
TRIALS = [
    {"lora_rank": 8, "lora_alpha": 16, "learning_rate": "0.02"},
    {"lora_rank": 4, "lora_alpha": 8, "learning_rate": "0.002"},
    {"lora_rank": 4, "lora_alpha": 8, "learning_rate": "1e-06"},
]
STEPS = 6
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


def searching(
    models: Path, folder: Path, trials: Lines | None = None, rows: Lines | None = None, **order: Any
) -> TaskContext:
    """A context whose order asks for trials; 20 further rows decide between them."""
    rows = rows or decisions(60)
    method = order.pop("method", "lora")
    asked = {"search": {"trials": TRIALS if trials is None else trials}, "hyperparameters": NUMBERS, **order}
    made = context(models, folder, rows[:40], method, **asked)
    selection(made, rows[40:])
    return made


def selection(made: TaskContext, rows: Lines) -> None:
    (made.inputs / "selection.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def stop(made: TaskContext, at: int, how: Any) -> None:
    """Has something happen when the whole search has done so many steps."""

    def look(line: bytes) -> None:
        if json.loads(line)["step"] == at:
            how()

    object.__setattr__(made, "send", look)


def go_on(made: TaskContext) -> dict[str, Any]:
    made.pause_flag.unlink(missing_ok=True)
    object.__setattr__(made, "send", lambda line: None)
    return task.run(made)


def timeless(claim: dict[str, Any]) -> dict[str, Any]:
    """What two runs of the same order say alike."""
    searched = {**claim["search"], "trials": [{**t, "seconds": ""} for t in claim["search"]["trials"]]}
    return {**claim, "search": searched, "train_seconds": "", "damaged_checkpoints": ""}


@pytest.fixture(scope="module")
def whole(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any], Lines]:
    """Adapter, claim and progress of a search that nobody stopped."""
    made, lines = searching(models, tmp_path_factory.mktemp("whole")), Lines()
    object.__setattr__(made, "send", lambda line: lines.append(json.loads(line)))
    claim = task.run(made)
    return (made.outputs / ADAPTER).read_bytes(), claim, lines


def test_every_trial_is_claimed_and_the_lowest_loss_on_the_selection_split_is_kept(
    models: Path, tmp_path: Path, whole: Any
):
    adapter, claim, lines = whole
    searched = claim["search"]
    trials = searched["trials"]
    assert [{n: str(t[n]) for n in wanted} for t, wanted in zip(trials, TRIALS, strict=True)] == [
        {n: str(v) for n, v in wanted.items()} for wanted in TRIALS
    ]
    losses = [float(t["selection_loss"]) for t in trials]
    assert searched["chosen"] == 1 + losses.index(min(losses)) == 1 and len(set(losses)) == 3
    assert searched["selection_rows"] == 20 and "lowest loss on 20 rows of the selection split" in searched["why"]
    assert [t["steps"] for t in trials] == [STEPS] * 3 and all(float(t["validation_loss"]) > 0 for t in trials)
    assert claim["trained_tokens"] == sum(t["tokens"] for t in trials) == 3 * trials[0]["tokens"]
    assert float(claim["train_seconds"]) == pytest.approx(sum(float(t["seconds"]) for t in trials))
    assert claim["hyperparameters"]["lora_rank"] == 8 and float(claim["hyperparameters"]["learning_rate"]) == 0.02
    alone = context(models, tmp_path, decisions(60)[:40], "lora", hyperparameters={**NUMBERS, **TRIALS[0]})
    single = task.run(alone)
    assert (alone.outputs / ADAPTER).read_bytes() == adapter, "a trial is the run that it would be alone"
    assert single["watched"] == claim["watched"] and single["losses"] == claim["losses"]
    judging = [line for line in lines if "judging the trial: 0 of 20 selection rows" in line["message"]]
    assert [line["step"] for line in judging] == [STEPS, 2 * STEPS, 3 * STEPS]
    steps = [line for line in lines if line["steps"] and "judging" not in line["message"]]
    assert [line["step"] for line in steps] == list(range(1, 3 * STEPS + 1)) and steps[0]["steps"] == 3 * STEPS
    assert [line["message"].split(":")[0] for line in steps[::STEPS]] == [f"trial {n} of 3" for n in (1, 2, 3)]
    assert steps[-1]["metrics"]["tokens"] == claim["trained_tokens"]
    assert steps[0]["seconds_left"] > steps[-1]["seconds_left"] == 0


def test_a_pause_in_the_second_trial_changes_nothing(models: Path, tmp_path: Path, whole: Any):
    made = searching(models, tmp_path)
    stop(made, STEPS + 3, made.pause_flag.touch)
    with pytest.raises(TaskPaused):
        task.run(made)
    assert not (made.outputs / "adapter").exists()
    kept = sorted(p.relative_to(made.work / "checkpoints").parts[0] for p in made.work.rglob("step-*"))
    assert set(kept) == {"trial-01", "trial-02"}
    for path in made.work.rglob("*"):
        assert path.is_dir() or path.read_bytes().startswith(b"assay-sealed-file/1\n"), "nothing lies open"
    assert timeless(go_on(made)) == timeless(whole[1])
    assert (made.outputs / ADAPTER).read_bytes() == whole[0]
    assert {p.parent.name for p in made.work.rglob("step-*")} == {"trial-01"}


def test_a_pause_while_a_trial_is_judged_is_heeded_and_changes_nothing(models: Path, tmp_path: Path, whole: Any):
    made = searching(models, tmp_path)

    def look(line: bytes) -> None:
        told = json.loads(line)["message"]
        if told.startswith("trial 2 of 3: judging the trial: 0 of 20"):
            made.pause_flag.touch()

    object.__setattr__(made, "send", look)
    with pytest.raises(TaskPaused):
        task.run(made)
    assert not (made.outputs / "adapter").exists()
    assert timeless(go_on(made)) == timeless(whole[1])
    assert (made.outputs / ADAPTER).read_bytes() == whole[0]


class Killed(BaseException):
    """Ends a run where it stands, as a signal would: nothing is caught, and nothing is written any more."""


def kill() -> None:
    raise Killed


@pytest.mark.parametrize("moment", ["mid trial", "judged", "kept", "damaged", "damaged twice killed", "best damaged"])
def test_a_search_that_is_killed_ends_as_one_that_was_not(
    models: Path, tmp_path: Path, whole: Any, moment: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loop, "CHECKPOINT_STEPS", 2)
    made = searching(models, tmp_path)
    stop(made, 3 * STEPS if moment == "best damaged" else STEPS + 5, kill)
    if moment in ("judged", "kept"):
        from trainer.recipes import search

        keep, calls = search._keep, []

        def dying(job: Any, done: Any) -> None:
            calls.append(len(done))
            if len(calls) == 2 and moment == "judged":
                kill()
            keep(job, done)
            if len(calls) == 2:
                kill()

        monkeypatch.setattr(search, "_keep", dying)
        stop(made, -1, kill)
    with pytest.raises(Killed):
        task.run(made)
    monkeypatch.undo()
    if "damaged" in moment:
        kept = made.work / "checkpoints"
        path = max(kept.glob("trial-01/step-*")) if moment == "best damaged" else kept / "trials"
        path.write_bytes(path.read_bytes()[:-1])
    if moment == "damaged twice killed":
        monkeypatch.setattr(loop, "CHECKPOINT_STEPS", 2)
        stop(made, STEPS + 6, kill)
        with pytest.raises(Killed):
            task.run(made)
        assert path.exists(), "another was written since"
    claim = go_on(made)
    assert timeless(claim) == timeless(whole[1]) and (made.outputs / ADAPTER).read_bytes() == whole[0]
    assert claim["damaged_checkpoints"] == ("damaged" in moment)


def test_trials_that_cannot_be_read_just_now_are_not_done_again(
    models: Path, tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
):
    made = searching(models, tmp_path)
    stop(made, STEPS + 3, made.pause_flag.touch)
    with pytest.raises(TaskPaused):
        task.run(made)
    made.pause_flag.unlink()
    trials = made.work / "checkpoints" / "trials"
    kept, open_ = trials.read_bytes(), Path.open

    def refused(path: Path, *arguments: Any, **named: Any) -> Any:
        if path == trials:
            raise OSError(errno.EMFILE, "no")
        return open_(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refused)
        with pytest.raises(UnavailableError) as raised:
            task.run(made)
    assert raised.value.reason == "CHECKPOINT_UNREADABLE" and trials.read_bytes() == kept
    assert timeless(go_on(made)) == timeless(whole[1]) and (made.outputs / ADAPTER).read_bytes() == whole[0]


def test_one_model_is_in_memory_at_a_time(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of three trials and of the chosen first one, which is taken up once more at the end."""
    from trainer.recipes import search

    plain, loaded = search.run_of, list[weakref.ref[TunedModel]]()

    def run_of(job: Any, control: Any) -> loop.Run:
        assert [model() for model in loaded] == [None] * len(loaded)
        run = plain(job, control)
        loaded.append(weakref.ref(run.model))
        return run

    monkeypatch.setattr(search, "run_of", run_of)
    assert task.run(searching(models, tmp_path))["search"]["chosen"] == 1
    assert len(loaded) == len(TRIALS) + 1


def test_a_trial_that_leaves_the_finite_numbers_is_listed_and_the_others_go_on(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from trainer.recipes import objectives

    plain, broken = objectives.row_losses, {8}

    def losses(model: TunedModel, rows: Any, device: Any) -> Any:
        found = plain(model, rows, device)
        return found * float("nan") if min(next(iter(model.masters.values())).shape) in broken else found

    monkeypatch.setattr(objectives, "row_losses", losses)
    claim = task.run(searching(models, tmp_path / "one"))
    first, *others = claim["search"]["trials"]
    assert (first["failed"], first["steps"], "selection_loss" in first) == ("LOSS_NOT_FINITE", 0, False)
    assert claim["search"]["chosen"] == 2 and "of which 1 failed" in claim["search"]["why"]
    assert not any("failed" in trial for trial in others)
    broken.add(4)
    with pytest.raises(PreconditionError) as caught:
        task.run(searching(models, tmp_path / "all"))
    assert caught.value.reason == "LOSS_NOT_FINITE" and not (tmp_path / "all" / "out" / "adapter").exists()


def test_the_token_cap_is_for_all_trials_together(models: Path, tmp_path: Path, whole: Any):
    one = whole[1]["search"]["trials"][0]["tokens"]
    made, lines = searching(models, tmp_path, max_train_tokens=one + one // 2), Lines()
    object.__setattr__(made, "send", lambda line: lines.append(json.loads(line)))
    with pytest.raises(PreconditionError) as caught:
        task.run(made)
    assert caught.value.reason == "TOKEN_CAP" and STEPS < max(line["step"] for line in lines) < 2 * STEPS


def test_preferences_are_judged_by_their_own_loss(models: Path, tmp_path: Path):
    trials = [{"learning_rate": "1e-06"}, {"learning_rate": "0.02"}]
    claim = task.run(searching(models, tmp_path, trials, pairs(60), method="dpo"))
    little, much = (float(trial["selection_loss"]) for trial in claim["search"]["trials"])
    assert claim["search"]["chosen"] == 2 and much < little == pytest.approx(0.693, abs=0.01)


def test_a_continued_run_searches_over_rates_and_not_over_ranks(models: Path, tmp_path: Path):
    first = context(models, tmp_path / "first", decisions(40), "lora")
    task.run(first)
    parent = first.outputs / "adapter"
    numbers = {**NUMBERS, "lora_rank": 2}
    asked = {"hyperparameters": numbers, "search": {"trials": [{"learning_rate": "0.02"}, {"learning_rate": "1e-06"}]}}
    rates = continued(models, tmp_path / "rates", parent, decisions(40), **asked)
    selection(rates, decisions(20, seed=9))
    claim = task.run(rates)
    assert {trial["lora_rank"] for trial in claim["search"]["trials"]} == {8}
    assert check_adapter_folder(rates.outputs / "adapter").rank == 8
    ranks = continued(models, tmp_path / "ranks", parent, decisions(40), **{**asked, "search": {"trials": TRIALS}})
    selection(ranks, decisions(20, seed=9))
    with pytest.raises(InvalidInputError) as caught:
        task.run(ranks)
    assert caught.value.reason == "SEARCH_AND_PARENT"


def test_what_cannot_be_searched_is_named(models: Path, tmp_path: Path):
    def reason(name: str, rows: Lines | None = None, **order: Any) -> str:
        made = searching(models, tmp_path / name, **order)
        if rows is not None:
            selection(made, rows)
        with pytest.raises((InvalidInputError, IntegrityError)) as caught:
            task.run(made)
        assert not (made.outputs / "adapter").exists()
        return str(caught.value.reason)

    assert reason("private", differential_privacy={"epsilon": "8", "delta": "0.001"}) == "SEARCH_AND_PRIVACY"
    assert reason("swapped", selection_sha256="0" * 64) == "ROWS_CHANGED"
    assert reason("nothing", rows=[]) == "NO_SELECTION_ROWS"
    assert reason("wrong", trials=[{"learning_rate": "2"}, {"learning_rate": "0.1"}]) == "HYPERPARAMETERS"
    shutil.rmtree(tmp_path)
