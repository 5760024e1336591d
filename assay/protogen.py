"""Generates ``assay/v1`` from ``protos``: ``python -m assay.protogen``; with ``--check`` it only compares.

The stubs are committed, so that installing needs no compiler; ``make lint`` runs the check, so that they cannot drift from
the contract. The vendored ``buf/validate`` stub goes under ``assay/v1/_vendor``: a top-level package called ``buf`` would
belong to somebody else.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from assay.errors import IntegrityError

GENERATOR = "1.85.1"
_ROOT = Path(__file__).resolve().parent.parent
_PACKAGE = Path("assay/v1")
_VENDOR = _PACKAGE / "_vendor"
_VENDORED_IMPORT = re.compile(r"^from buf\.", re.MULTILINE)


def generate(root: Path) -> dict[Path, str]:
    """Compiles every ``.proto`` under ``root/protos``.

    Returns:
        Text of each generated file by its path relative to ``root``.

    Raises:
        IntegrityError: ``PROTOC_FAILED`` when the contract does not compile, ``PROTOC_VERSION`` when the installed
            generator is not the pinned one, whose output would differ.
    """
    found = version("grpcio-tools")
    if found != GENERATOR:
        raise IntegrityError("PROTOC_VERSION", f"grpcio-tools is {found}, the stubs are made with {GENERATOR}")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        _compile(root / "protos", out)
        texts = {path.relative_to(out): path.read_text() for path in sorted(out.rglob("*.py*"))}
    return {_target(path): _rewrite(text) for path, text in texts.items() if _wanted(path, text)}


def drift(root: Path, files: Mapping[Path, str]) -> list[Path]:
    """Lists generated files that are missing, differ, or lie under ``assay/v1`` without a source; sorted."""
    committed = {path.relative_to(root) for path in (root / _PACKAGE).rglob("*_pb2*.py*") if path.suffix in {".py", ".pyi"}}
    stale = {path for path, text in files.items() if path not in committed or (root / path).read_text() != text}
    return sorted(stale | (committed - files.keys()))


def write(root: Path, files: Mapping[Path, str]) -> None:
    """Makes the committed stubs equal to ``files``; stubs of contracts that are gone are removed."""
    for path in drift(root, files):
        if path not in files:
            (root / path).unlink()
            continue
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(files[path])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 1 when ``--check`` finds drift."""
    parser = argparse.ArgumentParser(prog="python -m assay.protogen", description="Generates assay/v1 from protos.")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 when the committed stubs differ")
    options = parser.parse_args(arguments)
    try:
        files = generate(_ROOT)
    except IntegrityError as error:
        sys.stderr.write(error.diagnostics() + "\n")
        return 1
    stale = drift(_ROOT, files)
    if not options.check:
        write(_ROOT, files)
    for path in stale:
        sys.stdout.write(f"{'differs' if options.check else 'written'}: {path}\n")
    if options.check and stale:
        sys.stderr.write("the stubs differ from the contract; run `make proto` and commit\n")
        return 1
    return 0


def _compile(protos: Path, out: Path) -> None:
    import grpc_tools
    from grpc_tools import protoc

    sources = sorted(path.relative_to(protos).as_posix() for path in protos.rglob("*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    status = protoc.main(
        ["protoc", f"-I{protos}", f"-I{well_known}", f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}"]
        + sources
    )
    if status != 0:
        raise IntegrityError("PROTOC_FAILED", "the contract does not compile; the compiler's own words are above")


def _wanted(path: Path, text: str) -> bool:
    return not path.name.endswith("_pb2_grpc.py") or "class " in text


def _target(path: Path) -> Path:
    return _VENDOR / path if path.parts[0] == "buf" else path


def _rewrite(text: str) -> str:
    return _VENDORED_IMPORT.sub(f"from {'.'.join(_VENDOR.parts)}.buf.", text)


if __name__ == "__main__":
    sys.exit(main())
