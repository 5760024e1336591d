"""Coverage-guided fuzzing of one target: ``python -m tests.fuzz.run TARGET [SECONDS]``; without one, lists them.

atheris is no dependency of the project: ``pip install atheris``. A finding ends the run with the input that made it, in
a file named ``crash-...`` in the current folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def main(name: str = "", seconds: str = "60") -> None:
    """Runs one target for so many seconds, or prints the names of all."""
    if not name:
        from tests.fuzz.targets import TARGETS

        print("\n".join(TARGETS))
        return
    try:
        import atheris
    except ImportError:
        sys.exit("fuzzing needs atheris: pip install atheris")
    with atheris.instrument_imports(include=["assay", "audit"]):
        from tests.fuzz import targets
    target = targets.TARGETS[name]

    def one(data: bytes) -> None:
        target(data)

    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    for number, seed in enumerate(targets.seeds(name)):
        (corpus / str(number)).write_bytes(seed)
    limits = [
        f"-max_total_time={seconds}",
        "-max_len=65536",
        "-timeout=20",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
