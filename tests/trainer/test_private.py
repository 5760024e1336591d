"""Tuning with differential privacy: what is drawn, clipped, noised, accounted and kept secret."""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from assay import sealed_file
from assay.dp_sgd import Sampling, most_epsilon
from assay.errors import InvalidInputError, PreconditionError
from assay.modelfiles import lora_b_moved
from assay.worker.task import TaskContext, TaskPaused
from audit.probes.accounting import Mechanism
from tests.e2e.e2e_world import chat_rows
from tests.trainer.test_train_task import context, weights
from tests.trainer.tiny_models import tiny_models
from trainer import task
from trainer.recipes.plan import in_parts
from trainer.recipes.private import TOLERANCE, PrivateRun, Target, _sizes, epsilon_of, noise_for
from trainer.recipes.rows import EncodedRow, Row

EXACTNESS = Path(__file__).parents[2] / "docs" / "exactness.md"
EPSILON = {"epsilon": "8", "delta": "0.001"}
PRIVACY = {**EPSILON, "noise_multiplier": "2"}
"""The noise is said, since looking for the one that an epsilon allows takes the accountant seconds."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


def private(models: Path, folder: Path, rows: bytes = b"", **order: Any) -> TaskContext:
    return context(models, folder, rows or chat_rows(40), **{"differential_privacy": PRIVACY, **order})


def test_the_achieved_epsilon_is_within_the_target_and_another_accountant_agrees(models: Path, tmp_path: Path) -> None:
    ctx = private(models, tmp_path, differential_privacy=EPSILON)
    claim = task.run(ctx)
    said = claim["differential_privacy"]
    assert lora_b_moved(ctx.outputs / "adapter")
    assert said["unit"] == "row" and said["accountant"] == "opacus prv" and said["steps"] == claim["steps"] == 10
    assert 7.5 < float(said["epsilon"]) <= 8.0
    accounted = Mechanism.of(said).accounted()
    assert accounted <= float(said["epsilon"]) and abs(accounted - float(said["epsilon"])) < 0.2


def test_a_noise_multiplier_is_the_noise_and_spends_no_more_than_was_reserved(models: Path, tmp_path: Path) -> None:
    from opacus.accountants import PRVAccountant

    reserved = most_epsilon(1.3, Sampling.of(40, 8, 2.0), 0.001)
    asked = {"noise_multiplier": "1.3", "epsilon": str(reserved), "delta": "0.001"}
    ctx = private(models, tmp_path, differential_privacy=asked)
    said = task.run(ctx)["differential_privacy"]
    assert said["target"] == "noise_multiplier" and float(said["noise_multiplier"]) == 1.3
    accountant = PRVAccountant()
    accountant.history = [(1.3, float(said["sampling_rate"]), said["steps"])]
    assert float(said["epsilon"]) == pytest.approx(accountant.get_epsilon(0.001))
    assert Mechanism.of(said).accounted() <= float(said["epsilon"]) <= float(said["reserved_epsilon"]) == reserved


@pytest.mark.parametrize(
    ("epsilon", "delta", "units", "batch", "epochs"),
    [
        (8, 1e-3, 40, 8, 2),
        (1, 1e-5, 1000, 16, 3),
        (3, 1e-6, 20_000, 32, 1),
        (50, 1e-3, 100, 100, 2),
        (1, 0.3, 1000, 1, 1),
    ],
)
def test_the_noise_that_is_found_spends_the_target_and_no_more(
    epsilon: float, delta: float, units: int, batch: int, epochs: float
) -> None:
    sampling = Sampling.of(units, batch, epochs)
    noise = noise_for(epsilon, delta, sampling)
    assert 0 <= epsilon - epsilon_of(noise, sampling.rate, sampling.steps, delta) <= TOLERANCE
    assert epsilon_of(0.98 * noise, sampling.rate, sampling.steps, delta) > epsilon


def test_an_epsilon_that_no_noise_keeps_is_refused() -> None:
    """The accountant states the upper end of its own error, which is more."""
    with pytest.raises(InvalidInputError) as raised:
        noise_for(0.005, 1e-5, Sampling.of(1000, 16, 1.0))
    assert raised.value.reason == "PRIVACY_TARGET"


def test_more_than_was_reserved_is_never_spent(models: Path, tmp_path: Path) -> None:
    asked = {"noise_multiplier": "0.5", "epsilon": "3", "delta": "0.001"}
    with pytest.raises(InvalidInputError) as raised:
        task.run(private(models, tmp_path, differential_privacy=asked))
    assert raised.value.reason == "PRIVACY_OVERSPENT" and not (tmp_path / "out" / "adapter").exists()


def test_rows_without_an_answer_are_counted_as_they_are_at_intake(models: Path, tmp_path: Path) -> None:
    """The sampling rate is of all rows of the split, which the gateway knows, and not of those that teach something."""
    mute = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi", "weight": 0}]}
    claim = task.run(private(models, tmp_path, chat_rows(40) + 10 * (json.dumps(mute).encode() + b"\n")))
    assert (claim["rows"], claim["rows_without_target"]) == (40, 10)
    assert float(claim["differential_privacy"]["sampling_rate"]) == pytest.approx(8 / 50)


def test_nothing_of_the_drawn_rows_is_recorded(models: Path, tmp_path: Path) -> None:
    ctx = private(models, tmp_path)
    sent: list[bytes] = []
    object.__setattr__(ctx, "send", sent.append)
    claim = task.run(ctx)
    assert claim["losses"] == [] and claim["train_loss"] is None
    assert all("loss" not in json.loads(line)["metrics"] for line in sent)
    again = task.run(private(models, tmp_path / "again"))
    assert claim["trained_tokens"] == again["trained_tokens"]


def test_of_its_train_rows_a_private_claim_says_what_the_page_names_and_no_more(models: Path, tmp_path: Path) -> None:
    """Of runs that differ in one row, which is like the others, teaches nothing, or is longer than rows may be."""
    asked = {"epochs": "1", "learning_rate": "0.01", "batch_size": 8, "lora_rank": 4, "max_row_tokens": 128}
    first, rest = chat_rows(40).split(b"\n", 1)
    claims = []
    for number, change in enumerate(({}, {"weight": 0}, {"content": "so on " * 200})):
        row = json.loads(first)
        row["messages"][-1] |= change
        rows = json.dumps(row).encode() + b"\n" + rest
        claims.append(task.run(private(models, tmp_path / str(number), rows, hyperparameters=asked)))
    names = {name for claim in claims for name in claim}
    differ = {name for name in names if len({json.dumps(claim.get(name)) for claim in claims}) > 1}
    by_noise = {"checkpoint_sha256", "validation_loss", "validation_losses", "watched"}
    exact = {"rows", "cut_rows", "rows_without_target", "trained_tokens", "flop", "fingerprint", "train_seconds"}
    assert exact <= differ <= exact | by_noise
    assert not {"micro_batch_tokens", "micro_batch_why", "cut_row_numbers"} & names
    [told] = [line for line in EXACTNESS.read_text().splitlines() if line.startswith("| Not protected |")]
    assert [name for name in exact if f"`{name}`" not in told] == []


def test_no_seed_repeats_the_noise(models: Path, tmp_path: Path) -> None:
    first, second = (private(models, tmp_path / name) for name in ("first", "second"))
    task.run(first)
    task.run(second)
    assert weights(first) != weights(second)


def test_a_paused_private_run_goes_on_exactly_and_its_secret_is_nowhere_in_the_clear(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = bytes(range(100, 132))
    monkeypatch.setattr("trainer.recipes.private.token_bytes", lambda count: secret)
    whole = private(models, tmp_path / "whole")
    task.run(whole)
    parts = private(models, tmp_path / "parts")
    object.__setattr__(parts, "send", lambda line: parts.pause_flag.touch() if json.loads(line)["step"] == 4 else None)
    with pytest.raises(TaskPaused):
        task.run(parts)
    parts.pause_flag.unlink()
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert secret not in path.read_bytes()
    kept = next(parts.work.rglob("step-*"))
    assert secret in sealed_file.read(kept, bytes(32))[1]
    monkeypatch.setattr("trainer.recipes.private.token_bytes", lambda count: bytes(count))
    object.__setattr__(parts, "send", lambda line: None)
    task.run(parts)
    assert weights(parts) == weights(whole)


def test_noise_follows_from_all_of_the_secret_and_not_from_what_a_seed_has_room_for(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's generator on a CPU takes 32 bits of its seed: of 64 secret bits, two secrets that share those are one."""
    runs = [one_run(models, tmp_path / name) for name in ("first", "second", "again")]
    one, other = two_secrets_of_one_seed()
    for run, secret in zip(runs, (one, other, one), strict=True):
        run._secret = secret
        monkeypatch.setattr(run, "draw", list)
        run.step()
    first, second, again = (run.model.masters for run in runs)
    assert all(bool((first[name] != second[name]).any()) for name in first)
    assert all(bool((first[name] == again[name]).all()) for name in first)


def two_secrets_of_one_seed() -> tuple[bytes, bytes]:
    """Two secrets whose streams of the first step's noise agree in the 32 bits that such a seed had; found by trial."""
    seen: dict[bytes, bytes] = {}
    for number in range(1 << 20):
        secret = number.to_bytes(32, "big")
        seed = hmac.digest(secret, b"noise/0", "sha256")[4:8]
        if seed in seen:
            return seen[seed], secret
        seen[seed] = secret
    raise AssertionError("of a million secrets two agree")


@pytest.fixture
def accountant(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Whose noise for an epsilon changes, as with a release of its library."""
    noise = [2.0]
    monkeypatch.setattr("trainer.recipes.private.noise_for", lambda *of: noise[-1])
    return noise


def test_a_run_that_goes_on_keeps_its_noise_and_accounts_it(
    models: Path, tmp_path: Path, accountant: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.recipes.private.token_bytes", lambda count: bytes(range(count)))
    whole = private(models, tmp_path / "whole", differential_privacy=EPSILON)
    said = task.run(whole)["differential_privacy"]
    parts = stopped(models, tmp_path / "parts")
    accountant.append(3.0)
    assert task.run(parts)["differential_privacy"] == said and float(said["noise_multiplier"]) == 2.0
    assert weights(parts) == weights(whole)


def test_a_run_that_would_overspend_by_another_accountant_does_not_go_on(
    models: Path, tmp_path: Path, accountant: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = stopped(models, tmp_path)
    monkeypatch.setattr("trainer.recipes.private.epsilon_of", lambda *of: 8.1)
    with pytest.raises(InvalidInputError) as raised:
        task.run(parts)
    assert raised.value.reason == "PRIVACY_OVERSPENT" and not (tmp_path / "out" / "adapter").exists()


@pytest.mark.parametrize(("asked", "reason"), [(EPSILON, "CHECKPOINT_NOISE"), (PRIVACY, "")])
def test_a_checkpoint_that_does_not_say_its_noise_goes_on_where_the_order_does(
    models: Path, tmp_path: Path, accountant: list[float], asked: dict[str, str], reason: str
) -> None:
    with pytest.MonkeyPatch.context() as earlier:
        kept = PrivateRun.secrets
        earlier.setattr(PrivateRun, "secrets", lambda run: {"private.secret": kept(run)["private.secret"]})
        parts = stopped(models, tmp_path, asked)
    if not reason:
        assert float(task.run(parts)["differential_privacy"]["noise_multiplier"]) == 2.0
        return
    with pytest.raises(PreconditionError) as raised:
        task.run(parts)
    assert raised.value.reason == reason and not (tmp_path / "out" / "adapter").exists()


def stopped(models: Path, folder: Path, asked: Any = EPSILON) -> TaskContext:
    """A run that was paused after its fourth step and may go on."""
    parts = private(models, folder, differential_privacy=asked)
    object.__setattr__(parts, "send", lambda line: parts.pause_flag.touch() if json.loads(line)["step"] == 4 else None)
    with pytest.raises(TaskPaused):
        task.run(parts)
    parts.pause_flag.unlink()
    object.__setattr__(parts, "send", lambda line: None)
    return parts


def test_a_rows_gradient_is_clipped_whatever_the_row_says(models: Path, tmp_path: Path) -> None:
    """Sum of clipped gradients without noise: its norm is at most rows times the clipping norm, and really reached."""
    run = one_run(models, tmp_path)
    rows = run.job.train.rows[:8]
    run._unit_gradients([[row] for row in rows])
    norms = sum(run.model.masters[n].grad_sample.flatten(1).norm(dim=1) ** 2 for n in run.model.masters) ** 0.5
    assert norms.shape == (8,) and float(norms.min()) > 0
    run._private.max_grad_norm = float(norms.min()) / 2
    run._private.clip_and_accumulate()
    total = sum(float(run.model.masters[n].summed_grad.norm()) ** 2 for n in run.model.masters) ** 0.5
    assert 0 < total <= 8 * run._private.max_grad_norm * 1.0001


def test_each_row_has_the_gradient_that_it_has_alone(models: Path, tmp_path: Path) -> None:
    import torch

    run = one_run(models, tmp_path)
    rows = run.job.train.rows[:4]
    run._unit_gradients([[row] for row in rows])
    together = {n: m.grad_sample.clone() for n, m in run.model.masters.items()}
    for i, row in enumerate(rows):
        run._unit_gradients([[row]])
        for name, master in run.model.masters.items():
            scale = float(together[name].abs().max()) + 1e-9
            assert torch.allclose(master.grad_sample[0], together[name][i], atol=0.03 * scale), name


def test_an_empty_draw_is_a_step_of_noise_alone(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = one_run(models, tmp_path)
    before = {n: m.detach().clone() for n, m in run.model.masters.items()}
    monkeypatch.setattr(run, "draw", list)
    run.step()
    assert run.state.step == 1
    assert all(bool((m != before[n]).any()) for n, m in run.model.masters.items())


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_a_step_holds_noise_of_the_accounted_scale_once_however_many_parts_its_draw_has(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Standard deviation: noise times clip over the expected draw; noise a thousand times the clip drowns gradients."""
    import torch

    run = one_run(models, tmp_path)
    drawn = [[row] for row in run.job.train.rows[:rows]]
    monkeypatch.setattr(run, "draw", lambda: drawn)
    monkeypatch.setattr("trainer.recipes.private._MICRO_BATCH", 2)
    run._private.noise_multiplier = 1000.0
    seen: list[torch.Tensor] = []
    step = run.optimizer.step

    def look() -> None:
        seen.extend(master.grad.flatten().double() for master in run.model.masters.values())
        step()

    monkeypatch.setattr(run.optimizer, "step", look)
    run.step()
    noise = torch.cat(seen) * run.sampling.rate * run.count / run.job.settings.max_gradient_norm
    assert len(seen) == len(run.model.masters)
    assert abs(float(noise.std()) / 1000 - 1) < 5 / math.sqrt(2 * noise.numel())


def test_rows_are_drawn_one_by_one_by_the_stated_probability(models: Path, tmp_path: Path) -> None:
    """200 draws of 40 rows at 0.2: 1600 expected, standard deviation 36; and the sizes differ, as they must."""
    run = one_run(models, tmp_path)
    sizes = []
    for step in range(200):
        run.state.step = step
        sizes.append(len(run.draw()))
    assert run.sampling.rate == 0.2 and abs(sum(sizes) - 1600) < 5 * 36
    assert len(set(sizes)) > 5


@pytest.mark.parametrize("method", ["dpo", "dpo-ipo", "classification"])
def test_methods_that_the_accountant_does_not_describe_are_refused(models: Path, tmp_path: Path, method: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        task.run(private(models, tmp_path, method=method))
    assert raised.value.reason == "PRIVACY_METHOD"


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"epsilon": "8"},
        {"noise_multiplier": "1", "delta": "0.1"},
        {"noise_multiplier": "0", "epsilon": "8", "delta": "0.1"},
        {"epsilon": "nan", "delta": "0.1"},
        {"epsilon": 0, "delta": 0.1},
    ],
)
def test_a_target_without_meaning_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as raised:
        Target.from_order({"differential_privacy": wrong}, "lora")
    assert raised.value.reason == "PRIVACY_TARGET"


def of_users(users: Sequence[int]) -> bytes:
    """Rows of the tests, the i-th of the i-th user."""
    rows = [json.loads(line) for line in chat_rows(len(users)).splitlines()]
    return b"".join(json.dumps({**row, "user": user}).encode() + b"\n" for row, user in zip(rows, users, strict=True))


OF_USERS = {**PRIVACY, "unit": "user"}
USERS = [1] * 20 + [2] * 3 + list(range(3, 20))
"""Nineteen users of 40 rows: one of twenty, one of three, and seventeen of one."""


def norm(tensors: Any) -> float:
    return float(sum(float(t.float().norm()) ** 2 for t in tensors) ** 0.5)


def test_a_run_for_users_says_so_and_its_epsilon_is_of_them(models: Path, tmp_path: Path) -> None:
    ctx = private(models, tmp_path, of_users(USERS), differential_privacy={**EPSILON, "unit": "user"})
    said = task.run(ctx)["differential_privacy"]
    assert said["unit"] == "user" and "users" in said["mechanism"] and said["most_rows_of_a_user"] == 8
    assert float(said["sampling_rate"]) == pytest.approx(8 / 19) and said["steps"] == 4
    assert Mechanism.of(said).accounted() <= float(said["epsilon"]) <= 8
    assert lora_b_moved(ctx.outputs / "adapter")


def test_a_user_is_drawn_whole_by_the_stated_probability_and_takes_part_with_few_rows(
    models: Path, tmp_path: Path
) -> None:
    """300 draws of 19 users at 8/19: 2400 expected, standard deviation 37; rows of the large user change."""
    run = one_run(models, tmp_path, of_users(USERS), differential_privacy=OF_USERS)
    large, middle = run.units[0], run.units[1]
    assert (run.count, len(large), len(middle)) == (19, 20, 3)
    drawn, seen, times = 0, set(), {0: 0, 1: 0, 5: 0}
    for step in range(300):
        run.state.step = step
        units = run.draw()
        drawn += len(units)
        whose = [next(i for i, unit in enumerate(run.units) if rows[0] in unit) for rows in units]
        assert len(set(whose)) == len(whose)
        for user, rows in zip(whose, units, strict=True):
            assert len(rows) == len({id(row) for row in rows}) == min(8, len(run.units[user]))
            assert all(any(row is own for own in run.units[user]) for row in rows)
            seen |= {id(row) for row in rows} if user == 0 else set()
            times[user] = times.get(user, 0) + 1
    assert abs(drawn - 2400) < 5 * 37 and len(seen) == 20
    # A user of twenty rows is drawn no more often than one of one row: 126 expected, standard deviation 8.5.
    assert all(abs(times[user] - 126) < 5 * 8.6 for user in (0, 1, 5))
    tokens = sum(r.length for unit in run.units[1:] for r in unit) + 8 / 20 * sum(r.length for r in large)
    counted = 0
    for step in range(300):
        run.state.step = step
        counted += run.next_tokens()
    assert 0 <= 300 * 8 / 19 * tokens - counted <= 1, "rounding does not add up over the steps"


def test_a_user_of_fifty_rows_moves_the_sum_by_at_most_the_clip(models: Path, tmp_path: Path) -> None:
    """Whatever the other users are: with and without the large one, and the bound is really reached."""
    run = one_run(models, tmp_path, of_users([1] * 50 + [2, 3, 4]), differential_privacy=OF_USERS)
    large, *others = run.units
    large = large[:8]
    run._private.max_grad_norm = 0.5 * smallest_norm(run, [large, *others])
    with_it = clipped_sum(run, [large, *others])
    without = clipped_sum(run, others)
    moved = norm(with_it[name] - without[name] for name in with_it)
    assert moved == pytest.approx(run._private.max_grad_norm, rel=0.01)
    alone = clipped_sum(run, [large])
    assert norm(alone.values()) <= run._private.max_grad_norm * 1.0001


def test_a_users_gradient_is_the_mean_of_its_rows_gradients(models: Path, tmp_path: Path) -> None:
    import torch

    run = one_run(models, tmp_path, of_users(USERS), differential_privacy=OF_USERS)
    user, other = run.units[1], run.units[2]
    run._unit_gradients([[row] for row in [*user, *other]])
    apart = {n: m.grad_sample.clone() for n, m in run.model.masters.items()}
    run._unit_gradients([user, other])
    for name, master in run.model.masters.items():
        assert master.grad_sample.shape == (2, *master.shape)
        expected = torch.stack([apart[name][:3].mean(0), apart[name][3]])
        assert torch.allclose(master.grad_sample, expected, rtol=1e-5, atol=1e-9), name


def test_parts_hold_whole_users_and_few_rows() -> None:
    sizes = [8, 1, 1, 7, 3, 3, 3, 1, 8]
    rows = [[EncodedRow((i, j), (False, True), 1.0) for j in range(size)] for i, size in enumerate(sizes)]
    units: list[list[Row]] = [list(unit) for unit in rows]
    parts = in_parts(units, _sizes, (8, 0))
    assert [unit for part in parts for unit in part] == units
    assert max(sum(map(len, part)) for part in parts) <= 8 and all(parts) and len(parts) < len(units)


def test_a_paused_run_for_users_goes_on_exactly(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.recipes.private.token_bytes", lambda count: bytes(range(count)))
    rows = of_users(USERS)
    whole = private(models, tmp_path / "whole", rows, differential_privacy=OF_USERS)
    task.run(whole)
    parts = private(models, tmp_path / "parts", rows, differential_privacy=OF_USERS)
    object.__setattr__(parts, "send", lambda line: parts.pause_flag.touch() if json.loads(line)["step"] == 3 else None)
    with pytest.raises(TaskPaused):
        task.run(parts)
    parts.pause_flag.unlink()
    monkeypatch.setattr("trainer.recipes.private.token_bytes", lambda count: bytes(count))
    object.__setattr__(parts, "send", lambda line: None)
    task.run(parts)
    assert weights(parts) == weights(whole)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (chat_rows(12), "NO_USERS"),
        (of_users([1, 2, 3]) + chat_rows(12), "ROW_MALFORMED"),
        (chat_rows(12) + of_users([1, 2, 3]), "ROW_MALFORMED"),
        (of_users([0, 1]), "ROW_MALFORMED"),
    ],
)
def test_rows_that_do_not_say_whose_they_are_protect_no_user(
    models: Path, tmp_path: Path, rows: bytes, reason: str
) -> None:
    with pytest.raises(InvalidInputError) as raised:
        task.run(private(models, tmp_path, rows, differential_privacy=OF_USERS))
    assert raised.value.reason == reason


def test_a_unit_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidInputError) as raised:
        Target.from_order({"differential_privacy": {**PRIVACY, "unit": "household"}}, "lora")
    assert raised.value.violations[0].field == "differential_privacy.unit"


def clipped_sum(run: PrivateRun, units: Any) -> dict[str, Any]:
    """The sum of clipped gradients of units, without noise."""
    run._unit_gradients(units)
    run._private.clip_and_accumulate()
    found = {n: run.model.masters[n].summed_grad.clone() for n in run.model.masters}
    run._private.zero_grad(set_to_none=True)
    return found


def smallest_norm(run: PrivateRun, units: Any) -> float:
    run._unit_gradients(units)
    squares = sum(m.grad_sample.flatten(1).norm(dim=1) ** 2 for m in run.model.masters.values())
    return float(squares.min() ** 0.5)


def one_run(models: Path, folder: Path, rows: bytes = b"", **order: Any) -> PrivateRun:
    """A run before its first step, by the order of the tests."""
    from trainer.recipes.loop import run_of
    from trainer.settings import Settings

    ctx = private(models, folder, rows, **order)
    job = task._job(ctx, Settings.from_order({**ctx.order["hyperparameters"], "lora_dropout": 0, "seed": 5}))
    run = run_of(job, ctx)
    assert isinstance(run, PrivateRun)
    run.restore()
    run.prepare()
    run.model.backbone.train()
    return run
