"""Which device and number format to tune with.

bf16 only where the hardware multiplies it (a GPU, or a CPU with AVX512-BF16 or AMX): elsewhere it is emulated, 24 times
slower on a CPU with AVX2 alone, so fp32 is used there.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True)
class Device:
    """Where the numbers are computed and in which format.

    Attributes:
        kind: ``cpu`` or ``cuda``.
        dtype: ``bfloat16`` or ``float32``.
        name: processor or GPU name, for the record.
    """

    kind: str
    dtype: str
    name: str

    def torch_device(self) -> torch.device:
        """The device for torch."""
        import torch

        return torch.device(self.kind)

    def torch_dtype(self) -> torch.dtype:
        """The number format for torch."""
        import torch

        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32


def demand_exactness(device: Device) -> None:
    """Makes torch choose kernels that give the same bits every time on one GPU; a CPU run needs nothing here.

    The matrix library needs a fixed workspace for that as well, which the sandbox's environment sets
    (``CUBLAS_WORKSPACE_CONFIG``). An operation without an exact kernel fails by name rather than drift.
    """
    import torch

    if device.kind == "cuda":
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def choose_device(cpuinfo: Path = Path("/proc/cpuinfo")) -> Device:
    """Takes the GPU where there is one, else the CPU with the fastest exact-enough format it has."""
    import torch

    if torch.cuda.is_available():
        dtype = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
        return Device("cuda", dtype, torch.cuda.get_device_name(0))
    fields = cpu_fields(cpuinfo)
    flags = set(fields.get("flags", "").split())
    return Device("cpu", "bfloat16" if flags & _BF16_FLAGS else "float32", fields.get("model name", platform.machine()))


def cpu_fields(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Fields of the first processor in ``/proc/cpuinfo``; empty where the system has no such file."""
    if not cpuinfo.is_file():
        return {}
    first = cpuinfo.read_text(errors="replace").split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}
