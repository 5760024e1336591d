"""Rates of matrix products in bf16 and in fp32 on this processor, and which of them Assay computes in.

``python -m benchmarks.formats`` prints one JSON object: for each shape the rate of bf16 as a multiple of fp32's, taken
in turns in one run. A large product, and those of the embedded default's blocks and head with a usual batch.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time

import torch

from assay import processor

SHAPES = {
    "large": (2048, 2048, 2048),
    "attention": (1024, 576, 576),
    "feed_forward": (1024, 576, 1536),
    "head": (300, 576, 49152),
}
"""Rows, width in and width out of each product."""


def rates(rows: int, inner: int, outer: int, rounds: int) -> dict[str, float]:
    """Median GFLOP/s of a linear layer's product in each format, the formats in turn."""
    layers = {
        dtype: (torch.randn(rows, inner).to(dtype), torch.randn(outer, inner).to(dtype))
        for dtype in (torch.float32, torch.bfloat16)
    }
    seconds: dict[torch.dtype, list[float]] = {dtype: [] for dtype in layers}
    for round_number in range(rounds + 2):
        for dtype, (left, right) in layers.items():
            start = time.perf_counter()
            torch.nn.functional.linear(left, right)
            if round_number > 1:  # the first calls compile
                seconds[dtype].append(time.perf_counter() - start)
    work = 2 * rows * inner * outer
    return {str(dtype).removeprefix("torch."): work / statistics.median(s) / 1e9 for dtype, s in seconds.items()}


def main() -> None:
    """Prints the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="products of each shape and format")
    rounds = parser.parse_args().rounds
    here = processor.read()
    found = {name: rates(*shape, rounds) for name, shape in SHAPES.items()}
    told = {
        "processor": here.get("model name", platform.machine()),
        "threads": torch.get_num_threads(),
        "computes_in": processor.fastest_format(here),
        "bf16_to_fp32": {name: round(rate["bfloat16"] / rate["float32"], 2) for name, rate in found.items()},
        "fp32_gflops": {name: round(rate["float32"]) for name, rate in found.items()},
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
