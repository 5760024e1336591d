"""The data side of :mod:`benchmarks.admission`: the scan for personal data against its peer, and a large dataset.

The peer is Presidio's ``AnalyzerEngine`` as it comes: its default recognisers, its whole pipeline, ``analyze()`` text
by text at its default threshold of 0; only its model is named, the same small one, since the default one is fetched.
Both sides take turns on parts of the same texts, so that a busy machine slows both. One core is CPU time, two cores
are wall time of two processes against wall time of the peer's one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from assay.pii import PiiConfig, PiiScanner, Span
from assay.pii_engine import model_folder
from assay.pii_pool import ScannerPool
from audit.prepare.detector import Quality, measure
from audit.prepare.duplicates import families
from audit.prepare.labelled import LabelledText, labelled_set

TEXTS = 2000
_TURNS = 8
# The peer's nearest types where it has none of ours.
_PEER_TYPES: Mapping[str, frozenset[str]] = {
    "AGE_OVER_89": frozenset({"DATE_TIME"}),
    "STREET_ADDRESS": frozenset({"LOCATION"}),
    "LICENCE_NUMBER": frozenset({"MEDICAL_LICENSE", "US_NPI"}),
    "HEALTH_PLAN_NUMBER": frozenset({"US_MBI"}),
    "FAX_NUMBER": frozenset({"PHONE_NUMBER"}),
    "DEVICE_SERIAL": frozenset({"MAC_ADDRESS"}),
    "UNIQUE_CODE": frozenset({"UUID"}),
}


def pii_scan() -> Mapping[str, Any]:
    """Speed and recall of the scan against the peer."""
    texts = list(labelled_set(TEXTS))
    ours, peer = PiiScanner(), presidio()
    ours.warm_up()
    peer(["warm up"])
    spent = {"ours": 0.0, "pool": 0.0, "peer": 0.0, "peer_wall": 0.0}
    found: dict[str, list[Sequence[Span]]] = {"ours": [], "peer": []}
    with ScannerPool(ours, 2) as pool:
        list(pool.scan(["warm", "up"]))
        for turn in range(_TURNS):
            part = [t.text for t in texts[turn::_TURNS]]
            cpu, wall = time.process_time(), time.perf_counter()
            found["peer"] += peer(part)
            spent["peer"] += time.process_time() - cpu
            spent["peer_wall"] += time.perf_counter() - wall
            cpu = time.process_time()
            found["ours"] += ours.scan(part)
            spent["ours"] += time.process_time() - cpu
            wall = time.perf_counter()
            list(pool.scan(part))
            spent["pool"] += time.perf_counter() - wall
    order = [t for turn in range(_TURNS) for t in texts[turn::_TURNS]]
    characters = sum(len(t.text) for t in texts)
    return {
        "pii_texts": len(texts),
        "pii_chars_per_s_1core": round(characters / spent["ours"]),
        "pii_chars_per_s_2core": round(characters / spent["pool"]),
        "presidio_chars_per_s": round(characters / spent["peer"]),
        "pii_ratio_1core": round(spent["peer"] / spent["ours"], 2),
        "pii_ratio_2core": round(spent["peer_wall"] / spent["pool"], 2),
        "pii_recall": _recall(order, found),
    }


def _recall(texts: Sequence[LabelledText], found: Mapping[str, Sequence[Sequence[Span]]]) -> Mapping[str, Any]:
    """Type to recall of both sides; the set was written beside our rules, which docs/data.md says."""
    ours = measure(lambda _: found["ours"], texts)
    peer = measure(lambda _: found["peer"], texts, _PEER_TYPES)
    return {
        name: {"ours": _rounded(q), "presidio": _rounded(peer[name]), "n": q.labelled}
        for name, q in ours.items()
        if q.labelled
    }


def _rounded(q: Quality) -> list[float]:
    return [round(x, 3) for x in q.recall]


def presidio() -> Callable[[Sequence[str]], Iterable[list[Span]]]:
    """The peer; without a network its list of public suffixes is the one that its library ships."""
    import tldextract
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)  # type: ignore[assignment]
    folder = str(model_folder(PiiConfig().model))
    defaults = NlpEngineProvider().nlp_configuration
    model = {"lang_code": "en", "model_name": folder}
    provider = NlpEngineProvider(nlp_configuration={**defaults, "models": [model]})
    engine = AnalyzerEngine(nlp_engine=provider.create_engine())

    def analyze(texts: Sequence[str]) -> list[list[Span]]:
        return [
            sorted(Span(r.start, r.end, r.entity_type, float(r.score)) for r in engine.analyze(t, language="en"))
            for t in texts
        ]

    return analyze


ROWS = 100_000


def dataset() -> Mapping[str, Any]:
    """Admission of a dataset of a hundred thousand rows by the real prepare task, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_admit, Path(folder), ROWS).result()


def _admit(folder: Path, rows: int) -> Mapping[str, Any]:
    from assay.worker.task import TaskContext
    from audit.prepare.task import run

    for name in ("inputs", "outputs", "work"):
        (folder / name).mkdir()
    _tokenizer(folder / "models" / "bytes" / "files")
    with (folder / "inputs" / "dataset").open("w") as out:
        out.writelines(json.dumps(row) + "\n" for row in _rows(rows))
    order = {"format": "CHAT_JSONL", "base_model": "bytes", "seed": 1, "canaries": {"a": 400, "b": 100, "b_repeats": 4}}
    paths = (folder / "inputs", folder / "outputs", folder / "work", folder / "models")
    task = TaskContext("bench", "prepare", order, *paths, b"k" * 32, folder / "pause", lambda line: None)
    peak, ended = [0], threading.Event()
    watch = threading.Thread(target=_watch, args=(peak, ended), daemon=True)
    watch.start()
    start = time.perf_counter()
    claim = run(task)
    seconds = time.perf_counter() - start
    ended.set()
    watch.join()
    return {
        "admission_rows": claim["rows"],
        "admission_bytes": claim["dataset_bytes"],
        "admission_seconds": round(seconds, 1),
        "admission_rows_per_s": round(rows / seconds),
        "admission_peak_mib": round(peak[0] / 2**20),
        "admission_screens": claim["screens"],
    }


def _watch(peak: list[int], ended: threading.Event) -> None:
    """Notes the most memory that this process and its forks held at once, pages that they share counted once."""
    while not ended.wait(0.5):
        family = [psutil.Process(), *psutil.Process().children()]
        held = 0
        for process in family:
            with contextlib.suppress(psutil.Error):
                held += process.memory_full_info().pss
        peak[0] = max(peak[0], held)


def _rows(count: int) -> Iterator[Mapping[str, Any]]:
    rng = random.Random(11)
    words = [f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in ("n", "r", "lo", "mi", "ste")]
    labelled = [t.text for t in labelled_set(1000)]
    for i in range(count):
        ask = f"{rng.choice(labelled)} {' '.join(rng.choices(words, k=8))}"
        reply = f"Thank you. {' '.join(rng.choices(words, k=10))}. Reference {i}."
        yield {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]}


def _tokenizer(files: Path) -> None:
    """A byte-level tokenizer with a plain template, so that no base model need be installed."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    files.mkdir(parents=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(files / "tokenizer.json"))
    (files / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    )


def dedup() -> Mapping[str, Any]:
    """Time of the near-duplicate pass a row, of 10**5 rows over that of 10**4: 1 where it is linear."""
    rng = random.Random(5)
    words = [f"w{i}" for i in range(4000)]

    def seconds(rows: int) -> float:
        texts = [" ".join(rng.choices(words, k=25)) for _ in range(rows)]
        start = time.process_time()
        families(texts)
        return time.process_time() - start

    seconds(1000)
    small, large = seconds(10_000), seconds(100_000)
    return {"dedup_growth": round(large / small / 10, 2), "dedup_rows_per_s": round(100_000 / large)}
