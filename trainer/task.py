"""The module that the train worker's sandbox runs: sealed rows in, adapter and claim out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from assay import canonical, digests
from assay.errors import IntegrityError, InvalidInputError, PreconditionError
from assay.modelfiles import (
    ADAPTER_WEIGHTS,
    BASE_FILES,
    AdapterFacts,
    BaseManifest,
    check_adapter_folder,
    read_base_manifest,
    verify_base_files,
)
from assay.worker.task import CHECKPOINTS, TaskContext, TaskPaused
from trainer import statement
from trainer.device import choose_device
from trainer.recipes import four_bit, lora, memory, whole
from trainer.recipes.fit import demand_fit, read_limits
from trainer.recipes.launcher import carry_out
from trainer.recipes.loop import TuneJob, tune
from trainer.recipes.objectives import METHODS
from trainer.recipes.private import Target
from trainer.recipes.ranks import ranks_of
from trainer.recipes.rows import NO_ROWS, EncodedRows, Encoder, read_rows
from trainer.recipes.search import search
from trainer.settings import Settings

SPLITS, PARENT = ("train", "validation"), "parent"


def run(context: TaskContext) -> dict[str, Any]:
    """Tunes as the work order says.

    Args:
        context: ``order`` is the work order's predicate, already verified; ``inputs`` holds the splits that it names.

    Returns:
        The claim, see :func:`trainer.statement.claim`.

    Raises:
        IntegrityError: ``BASE_MODEL_CHANGED`` when the base model is not the one that was decided on,
            ``BASE_FILES_DIGEST`` when its files are not, before or after it was loaded.
        InvalidInputError: for rows or hyperparameters that cannot be used.
        PreconditionError: ``TOKENIZER_MISMATCH``, ``ARCHITECTURE``, ``QUANTISATION_MISSING``, ``LOSS_NOT_FINITE`` or
            ``TOKEN_CAP``.
        AssayError: what :func:`trainer.recipes.launcher.carry_out` raises.
        TaskPaused: after a checkpoint, when asked to pause.
    """
    order = context.order
    context.progress(0, 0, "checking the base model")
    verify_base_files(*_base(context))
    settings = Settings.from_order(order["hyperparameters"])
    return carry_out(work, _job(context, settings), context)


def work(job: TuneJob, context: TaskContext) -> dict[str, Any]:
    """Tunes, and as the first rank saves the adapter and gives the claim; the others give nothing."""
    found = search(job, context) if job.trials else None
    job, result = (found.job, found.result) if found is not None else (job, tune(job, context))
    if not job.ranks.first:
        return {}
    lora.save_adapter(result.model, job.settings, str(context.order["base_model"]), context.outputs / "adapter")
    claim = statement.claim(job, result, found)
    (context.outputs / "training.json").write_bytes(canonical.encode(claim))
    return claim


def _base(context: TaskContext) -> tuple[Path, BaseManifest]:
    """Folder and manifest of the base model that the order names."""
    folder = context.models / str(context.order["base_model"])
    manifest = read_base_manifest(folder)
    if manifest.sha256 != context.order["base_sha256"]:
        raise IntegrityError(
            "BASE_MODEL_CHANGED",
            "the base model is not the one that was decided on",
            remedy="install the model that the decision names, or ask for a new job",
        )
    return folder, manifest


def _job(context: TaskContext, settings: Settings) -> TuneJob:
    from transformers import AutoTokenizer

    order = context.order
    folder, manifest = _base(context)
    files = folder / BASE_FILES
    tokenizer = AutoTokenizer.from_pretrained(files, local_files_only=True)
    vocabulary, context_tokens = read_limits(files)
    demand_fit(tokenizer, vocabulary)
    method = str(order.get("method", "lora"))
    if method not in METHODS:
        raise InvalidInputError("METHOD", f"there is no method {method!r}", remedy=f"one of {', '.join(METHODS)}")
    device = choose_device()
    if method in four_bit.METHODS:
        four_bit.demand(device)
    privacy = Target.from_order(order, method)
    teacher = _teacher(order, method)
    labels = tuple(map(str, order.get("labels", ()))) if method == "classification" else ()
    row_tokens = min(settings.max_row_tokens, context_tokens)
    encoder = Encoder(tokenizer, row_tokens, pairs=method.startswith("dpo"), labels=labels)
    parent = _parent(context)
    if parent is not None:
        settings = _of_parent(settings, parent, method, privacy)
    trials = _trials(order, settings, method, parent, privacy)
    ranks = ranks_of(context.processes, settings.batch_size, device, private=privacy is not None)
    names = (*SPLITS, *(("selection",) if trials else ()))
    files_of = {split: context.inputs / f"{split}.jsonl" for split in names}
    splits = {split: encoder.encode(read_rows(path)) for split, path in files_of.items()}
    longest = max((row.longest for split in splits.values() for row in split.rows), default=0)
    room = memory.of_process(device, context.memory_bytes, ranks.count)
    _tell_of_cuts(context, splits["train"], row_tokens)
    decides = {
        "base": order["base_sha256"],
        **{split: digests.sha256_file(path) for split, path in files_of.items()},
        "settings": canonical.float_free(settings.as_dict()),
        "method": method,
        "labels": list(labels),
        **({"privacy": canonical.float_free(asdict(privacy))} if privacy else {}),
        "parent": parent.sha256 if parent is not None else "",
        **({"teacher": teacher} if teacher else {}),
        **({"trials": [canonical.float_free(trial.as_dict()) for trial in trials]} if trials else {}),
    }
    _demand_the_ordered_rows(order, {split: decides[split] for split in names})
    return TuneJob(
        base=manifest,
        base_files=files,
        train=splits["train"],
        validation=splits["validation"],
        method=method,
        parent=context.inputs / PARENT / ADAPTER_WEIGHTS if parent is not None else None,
        settings=settings,
        device=device,
        checkpoints=context.work / CHECKPOINTS,
        fingerprint=digests.sha256_bytes(json.dumps(decides, sort_keys=True).encode()),
        max_tokens=int(order["max_train_tokens"]),
        row_tokens=row_tokens,
        on_pause=_stopped,
        key=context.work_key,
        privacy=privacy,
        teacher=teacher,
        trials=trials,
        environment=context.environment,
        selection=splits.get("selection", NO_ROWS),
        ranks=ranks,
        micro_batch_tokens=memory.fitting(files, device, method, manifest.parameters, longest, room),
    )


def _of_parent(settings: Settings, parent: AdapterFacts, method: str, privacy: Target | None) -> Settings:
    """The settings of a run that goes on from a parent; its adapter's shape is the parent's."""
    if privacy is not None:
        raise InvalidInputError(
            "PARENT_AND_PRIVACY",
            "a bound on what is learned now does not hold for what the parent learned",
            remedy="start from the base model, or do not ask for differential privacy",
        )
    if parent.whole != (method in whole.METHODS):
        raise InvalidInputError(
            "PARENT_KIND",
            "full tuning goes on from whole modules and every other method from LoRA; the parent is the other kind",
            remedy="use the parent's method, or start from the base model",
        )
    return settings if parent.whole else replace(settings, lora_rank=parent.rank, lora_alpha=parent.alpha)


def _tell_of_cuts(context: TaskContext, train: EncodedRows, row_tokens: int) -> None:
    """Who watches the job sees it before the first step; the claim says which rows."""
    if train.cut:
        words = f"{len(train.cut)} of {train.read} rows are longer than {row_tokens} tokens and lose their beginning"
        context.progress(0, 0, words)


def _trials(
    order: Mapping[str, Any], settings: Settings, method: str, parent: AdapterFacts | None, privacy: Target | None
) -> tuple[Settings, ...]:
    """The settings of every trial that the order asks for, those of the run with a trial's in their place."""
    asked = (order.get("search") or {}).get("trials", ())
    if asked and privacy is not None:
        raise InvalidInputError(
            "SEARCH_AND_PRIVACY",
            "every trial would spend a budget of its own, and the choice between them more",
            remedy="ask for one rank and one learning rate, or do not ask for differential privacy",
        )
    if parent is not None and any("lora_rank" in trial for trial in asked):
        raise InvalidInputError("SEARCH_AND_PARENT", "the rank is the parent's", remedy="search over learning rates")
    if method in whole.METHODS and any("lora_rank" in trial for trial in asked):
        raise InvalidInputError("SEARCH_AND_FULL", "full tuning has no rank", remedy="search over learning rates")
    read = [(trial, Settings.from_order(trial)) for trial in asked]
    return tuple(replace(settings, **{name: getattr(one, name) for name in trial}) for trial, one in read)


def _teacher(order: Mapping[str, Any], method: str) -> dict[str, str]:
    """Who wrote the answers that are distilled, to be named again in the claim; nobody for every other method."""
    named = {str(k): str(v) for k, v in (order.get("teacher") or {}).items()}
    if (method == "distillation") != bool(named.get("name") and named.get("licence")):
        raise InvalidInputError(
            "TEACHER",
            "distillation needs name and licence of who wrote the answers, and no other method has a teacher",
            remedy="ask for a new job whose request names the teacher",
        )
    return named


def _demand_the_ordered_rows(order: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """The rows are hashed once more where they are read, after the worker hashed them where it received them."""
    for split, sha256 in found.items():
        if order.get(f"{split}_sha256", sha256) != sha256:
            raise IntegrityError(
                "ROWS_CHANGED", f"the {split} rows are not those that were decided on", remedy="ask for a new job"
            )


def _parent(context: TaskContext) -> AdapterFacts | None:
    """The adapter that the order says to go on from, checked as if nobody had."""
    asked = context.order.get("parent")
    if not asked:
        return None
    facts = check_adapter_folder(context.inputs / PARENT)
    if facts.sha256 != asked["adapter_sha256"] or facts.base_model != context.order["base_model"]:
        raise IntegrityError(
            "PARENT_CHANGED",
            "the adapter to go on from is not the one that was decided on",
            remedy="ask for a new job; if it happens again, the store of adapters was changed",
        )
    return facts


def _stopped(reason: str) -> Exception:
    """A pause that was asked for can go on; a spent token cap cannot, since the order's cap does not change."""
    if reason == "REQUESTED":
        return TaskPaused("paused at a checkpoint")
    return PreconditionError(
        "TOKEN_CAP",
        "the order's cap on trained tokens is reached before the planned end",
        remedy="ask for a new job with fewer epochs or a larger budget.max_train_tokens",
    )
