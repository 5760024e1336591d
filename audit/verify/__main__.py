"""``python -m audit.verify BUNDLE --trust FILE``; 0 valid, 1 invalid, 2 usage, 3 stale, 4 incomplete, 5 suspect."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from assay.errors import AssayError
from audit.verify import EXIT_CODES, TrustFile, verify_bundle
from audit.verify.report import EXIT_USAGE


def main(arguments: Sequence[str] | None = None) -> int:
    """Verifies and prints; returns the exit code."""
    parser = argparse.ArgumentParser(prog="audit.verify", description=__doc__)
    parser.add_argument("bundle", type=Path, help="evidence bundle")
    parser.add_argument("--trust", type=Path, required=True, help="trust file, from outside the bundle")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    parser.add_argument("--now", type=datetime.fromisoformat, help="judge the age at this aware time instead of now")
    options = parser.parse_args(arguments)
    now = options.now or datetime.now(UTC)
    if now.tzinfo is None:
        parser.error("--now needs a zone, such as 2026-11-24T12:00:00Z")
    try:
        trust = TrustFile.load(options.trust)
    except AssayError as error:
        print(error.diagnostics(), file=sys.stderr)
        return EXIT_USAGE
    if not options.bundle.is_file():
        print(f"{options.bundle}: no such file", file=sys.stderr)
        return EXIT_USAGE
    report = verify_bundle(options.bundle, trust, now)
    print(json.dumps(report.as_dict(), indent=1) if options.output == "json" else report.text())
    return EXIT_CODES[report.verdict]


if __name__ == "__main__":
    sys.exit(main())
