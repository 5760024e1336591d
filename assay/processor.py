"""What the kernel says of the processor, and the number format in which it multiplies matrices fastest.

Instructions for bf16 are not yet speed: a large product was 3.7 times as fast in bf16 as in fp32 on two AMD cores with
AVX512-BF16, and 0.57 times on two Intel cores that have it without AMX, where each such instruction is two (166 and 293
GFLOP/s with torch 2.13; ``python -m benchmarks.formats``). AMX was not seen. Without any of them bf16 is emulated, 24
times slower on AVX2.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

CPUINFO = Path("/proc/cpuinfo")
MOST_ISA = "ONEDNN_MAX_CPU_ISA"
"""Variable that bounds the instructions of torch's matrix library."""
_AMD = "AuthenticAMD"

Format = Literal["bfloat16", "float32"]


def read(cpuinfo: Path = CPUINFO) -> dict[str, str]:
    """Fields of the first processor, such as ``model name`` and ``flags``; none where the system has no such file."""
    try:
        first = cpuinfo.read_text(errors="replace").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def fastest_format(processor: Mapping[str, str], most_isa: str | None = None) -> Format:
    """The format to compute in.

    Args:
        processor: fields as of :func:`read`.
        most_isa: value of :data:`MOST_ISA`, empty for no bound; None takes this process's.
    """
    bound = os.environ.get(MOST_ISA, "") if most_isa is None else most_isa
    flags = set(processor.get("flags", "").split())
    tiles = "amx_bf16" in flags and (not bound or "AMX" in bound)
    dots = "avx512_bf16" in flags and (not bound or any(word in bound for word in ("BF16", "FP16", "AMX")))
    return "bfloat16" if tiles or (dots and processor.get("vendor_id") == _AMD) else "float32"
