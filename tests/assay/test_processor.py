"""The number format follows from what a processor multiplies fastest, within the bound that the operator set."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay import processor

BF16 = "fpu avx2 avx512f avx512_bf16"


def info(folder: Path, vendor: str, flags: str) -> Path:
    path = folder / "cpuinfo"
    one = f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: Some CPU: fast\nflags\t\t: {flags}\n"
    path.write_text(f"{one}\n{one.replace('Some CPU', 'Another')}")
    return path


@pytest.mark.parametrize(
    ("vendor", "flags", "bound", "expected"),
    [
        ("AuthenticAMD", BF16, "", "bfloat16"),
        ("AuthenticAMD", BF16, "AVX512_CORE_BF16", "bfloat16"),
        ("AuthenticAMD", BF16, "AVX512_CORE", "float32"),
        ("AuthenticAMD", BF16, "AVX2_VNNI", "float32"),
        ("AuthenticAMD", "fpu avx2", "", "float32"),
        ("GenuineIntel", BF16, "", "float32"),
        ("GenuineIntel", f"{BF16} amx_bf16", "", "bfloat16"),
        ("GenuineIntel", f"{BF16} amx_bf16", "AVX512_CORE_BF16", "float32"),
        ("GenuineIntel", f"{BF16} amx_bf16", "AVX512_CORE_AMX", "bfloat16"),
    ],
)
def test_bf16_is_taken_where_it_is_faster_and_allowed(
    tmp_path: Path, vendor: str, flags: str, bound: str, expected: str
) -> None:
    found = processor.read(info(tmp_path, vendor, flags))
    assert found["model name"] == "Some CPU: fast"
    assert processor.fastest_format(found, bound) == expected


def test_the_bound_is_this_process_s_where_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = processor.read(info(tmp_path, "AuthenticAMD", BF16))
    monkeypatch.delenv(processor.MOST_ISA, raising=False)
    assert processor.fastest_format(found) == "bfloat16"
    monkeypatch.setenv(processor.MOST_ISA, "AVX2")
    assert processor.fastest_format(found) == "float32"


def test_a_system_without_such_a_file_computes_in_fp32(tmp_path: Path) -> None:
    assert processor.read(tmp_path / "none") == {}
    assert processor.fastest_format({}, "") == "float32"


def test_trainer_and_audit_take_the_same_format(tmp_path: Path) -> None:
    import torch

    from audit.probes.model import choose_device as audit
    from trainer.device import choose_device as train

    if torch.cuda.is_available():
        pytest.skip("both take the GPU here")
    for vendor in ("AuthenticAMD", "GenuineIntel"):
        path = info(tmp_path, vendor, BF16)
        assert train(path).torch_dtype() == audit(path)[1]
        assert train(path).name == audit(path)[2] == "Some CPU: fast"
