"""Which device and number format to tune with: on a CPU see :mod:`assay.processor`."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay import processor

if TYPE_CHECKING:
    import torch


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


def choose_device(cpuinfo: Path = processor.CPUINFO) -> Device:
    """Takes the GPU where there is one, else the CPU in the format that it multiplies fastest."""
    import torch

    if torch.cuda.is_available():
        dtype = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
        return Device("cuda", dtype, torch.cuda.get_device_name(0))
    here = processor.read(cpuinfo)
    return Device("cpu", processor.fastest_format(here), here.get("model name", platform.machine()))
