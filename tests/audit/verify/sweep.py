"""Flips bytes of a bundle and counts which flips change the verdict: every byte must be accounted for.

``python -m tests.audit.verify.sweep BUNDLE TRUST [SAMPLE]`` sweeps a bundle on disk, all of it or so many random bytes,
and prints one JSON object. Each byte gets two flips: its lowest bit, and another value drawn at random from a fixed
seed.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from audit.ledger import evidence
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bytes


@dataclass
class Sweep:
    """What came of the flips.

    Attributes:
        size: bytes of the bundle.
        positions: bytes flipped.
        flips: verdicts taken.
        seen: flips after which the verdict was another.
        readme: flips in the README that left the verdict as it was.
        unseen: positions of all other flips that left the verdict as it was; must be empty.
    """

    size: int
    positions: int = 0
    flips: int = 0
    seen: int = 0
    readme: int = 0
    unseen: list[int] = field(default_factory=list)


def sweep(data: bytes, trust: TrustFile, now: datetime, positions: Iterable[int] | None = None) -> Sweep:
    """Flips each byte at ``positions`` (all when None) twice."""
    before = verify_bytes(data, trust, now).verdict
    if before == "invalid":
        raise ValueError(f"the bundle is {before} before anything is flipped")
    readme = data.index(evidence.README_TEXT)
    source, out = random.Random(1), Sweep(len(data))
    changed = bytearray(data)
    for position in range(len(data)) if positions is None else positions:
        out.positions += 1
        true = data[position]
        for value in (true ^ 1, source.choice([v for v in range(256) if v not in (true, true ^ 1)])):
            changed[position] = value
            out.flips += 1
            if verify_bytes(bytes(changed), trust, now).verdict != before:
                out.seen += 1
            elif readme <= position < readme + len(evidence.README_TEXT):
                out.readme += 1
            else:
                out.unseen.append(position)
        changed[position] = true
    return out


def main(bundle: str, trust: str, sample: str = "") -> int:
    """Sweeps a bundle on disk."""
    data = Path(bundle).read_bytes()
    positions = sorted(random.Random(2).sample(range(len(data)), int(sample))) if sample else None
    out = sweep(data, TrustFile.load(Path(trust)), datetime.now(UTC), positions)
    print(json.dumps(asdict(out)))
    return 1 if out.unseen else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
