"""Generates ``assay/v1`` from ``protos``: ``python -m assay.protogen``; with ``--check`` it only compares.

The stubs are committed, so that installing needs no compiler; ``make lint`` runs the check, so that they cannot drift
from the contract. The vendored ``buf/validate`` stub goes under ``assay/v1/_vendor``: a top-level package called
``buf`` would belong to somebody else. grpcio-tools types messages but not services, so the ``_pb2_grpc.pyi`` files are
written here.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import IntegrityError

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto

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
        services = _compile(root / "protos", out)
        texts = {path.relative_to(out): path.read_text() for path in sorted(out.rglob("*.py*"))}
    texts |= {_module(file.name, "_pb2_grpc.pyi"): _service_types(file, modules) for file, modules in services}
    return {_target(path): _rewrite(text) for path, text in texts.items() if _wanted(path, text)}


def drift(root: Path, files: Mapping[Path, str]) -> list[Path]:
    """Lists generated files that are missing, differ, or lie under ``assay/v1`` without a source; sorted."""
    committed = {
        path.relative_to(root) for path in (root / _PACKAGE).rglob("*_pb2*.py*") if path.suffix in {".py", ".pyi"}
    }
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


def _compile(protos: Path, out: Path) -> list[tuple[FileDescriptorProto, Mapping[str, str]]]:
    """Runs the compiler; returns the contracts with services, each with the module that holds each message type."""
    import grpc_tools
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from grpc_tools import protoc

    sources = sorted(path.relative_to(protos).as_posix() for path in protos.rglob("*.proto"))
    includes = [f"-I{protos}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    described = out / "contract.binpb"
    outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    status = protoc.main(["protoc", *includes, *outputs, f"--descriptor_set_out={described}", *sources])
    if status != 0:
        raise IntegrityError("PROTOC_FAILED", "the contract does not compile; the compiler's own words are above")
    files = FileDescriptorSet.FromString(described.read_bytes()).file
    modules = {
        f".{file.package}.{message.name}": ".".join(_module(file.name, "_pb2").parts)
        for file in files
        for message in file.message_type
    }
    return [(file, modules) for file in files if file.service]


def _module(source: str, suffix: str) -> Path:
    return Path(source.removesuffix(".proto") + suffix)


def _service_types(file: FileDescriptorProto, modules: Mapping[str, str]) -> str:
    """Writes the type stub of one contract's services, for ``grpc`` and ``grpc.aio`` channels alike."""
    used = {
        name
        for service in file.service
        for method in service.method
        for name in (method.input_type, method.output_type)
    }
    imports = sorted({f"import {modules[name]}" for name in used})
    head = ['"""Types of the generated service code; made by assay.protogen."""', ""]
    head += [
        "from collections.abc import AsyncIterator",
        "from typing import overload",
        "",
        "import grpc",
        "import grpc.aio",
    ]
    body = [line for service in file.service for line in _service(service, modules)]
    return "\n".join([*head, *imports, *body]) + "\n"


def _service(service: ServiceDescriptorProto, modules: Mapping[str, str]) -> list[str]:
    name = service.name
    lines = ["", f"class {name}Stub:", "    @overload"]
    lines += [f"    def __new__(cls, channel: grpc.Channel) -> {name}Stub: ...", "    @overload"]
    lines += [f"    def __new__(cls, channel: grpc.aio.Channel) -> {name}AsyncStub: ..."]
    lines += [f"    {method.name}: grpc.{_callable(method, modules)}" for method in service.method]
    lines += [
        "",
        f"class {name}AsyncStub({name}Stub):",
        f'    """What ``{name}Stub`` is on an asyncio channel; exists for types only."""',
    ]
    lines += ["", *(f"    {method.name}: grpc.aio.{_callable(method, modules)}" for method in service.method)]
    lines += ["", f"class {name}Servicer:"]
    for method in service.method:
        lines += _handler(method, modules)
    lines += [
        "",
        f"def add_{name}Servicer_to_server(",
        f"    servicer: {name}Servicer, server: grpc.Server | grpc.aio.Server",
        ") -> None: ...",
    ]
    return lines


def _handler(method: MethodDescriptorProto, modules: Mapping[str, str]) -> list[str]:
    request, response = _types(method, modules)
    given = f"AsyncIterator[{request}]" if method.client_streaming else request
    answered = f"AsyncIterator[{response}]" if method.server_streaming else response
    # An async generator function is typed as a plain function that returns an iterator.
    kind = "def" if method.server_streaming else "async def"
    context = f"grpc.aio.ServicerContext[{request}, {response}]"
    return [f"    {kind} {method.name}(self, request: {given}, context: {context}) -> {answered}: ..."]


def _callable(method: MethodDescriptorProto, modules: Mapping[str, str]) -> str:
    shape = f"{'Stream' if method.client_streaming else 'Unary'}{'Stream' if method.server_streaming else 'Unary'}"
    return f"{shape}MultiCallable[{', '.join(_types(method, modules))}]"


def _types(method: MethodDescriptorProto, modules: Mapping[str, str]) -> tuple[str, str]:
    request, response = (
        f"{modules[name]}.{name.rpartition('.')[2]}" for name in (method.input_type, method.output_type)
    )
    return request, response


def _wanted(path: Path, text: str) -> bool:
    """Tells whether a file is worth keeping: contracts without services get an empty ``_pb2_grpc.py``."""
    return not path.name.endswith("_pb2_grpc.py") or "class " in text


def _target(path: Path) -> Path:
    return _VENDOR / path if path.parts[0] == "buf" else path


def _rewrite(text: str) -> str:
    return _VENDORED_IMPORT.sub(f"from {'.'.join(_VENDOR.parts)}.buf.", text)


if __name__ == "__main__":
    sys.exit(main())
