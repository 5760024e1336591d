"""Packs the verifier into one file that runs without an installation: ``python -m audit.verify.pack OUT.pyz``.

The archive holds the modules that the verifier imports and nothing else, found by importing it in a fresh
interpreter; equal sources give equal bytes. It needs Python 3.11 and ``cryptography`` 42 (50 for an ML-DSA-44 line),
and says so in one line where they are missing.
"""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

SOURCES = Path(__file__).parents[2]
SHEBANG = b"#!/usr/bin/env python3\n"
# Imported on demand, so that a look at sys.modules after a plain import does not find them.
ON_DEMAND = ("audit.ledger.mldsa",)
MAIN = b"""import sys


def lacking(what):
    print("assay-verify needs " + what, file=sys.stderr)
    sys.exit(2)


if sys.version_info < (3, 11):
    lacking("Python 3.11 or later")
try:
    import cryptography

    known = int(cryptography.__version__.partition(".")[0])
except ImportError:
    known = 0
if known < 42:
    lacking("the package cryptography, 42 or later: python3 -m pip install -U cryptography")
from audit.verify.__main__ import main

sys.exit(main())
"""
_LIST = """
import sys
import audit.verify.__main__, audit.verify.permit
for name in sys.argv[1:]:
    __import__(name)
print("\\n".join(sorted(m for m in sys.modules if m.partition(".")[0] in ("assay", "audit"))))
"""


def modules() -> list[str]:
    """Names of our own modules that the verifier imports, packages included."""
    done = subprocess.run(
        [sys.executable, "-c", _LIST, *ON_DEMAND], cwd=SOURCES, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def pack() -> bytes:
    """The archive's bytes."""
    out = io.BytesIO()
    out.write(SHEBANG)
    files = {"__main__.py": MAIN}
    for name in modules():
        path = SOURCES / name.replace(".", "/")
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        files[source.relative_to(SOURCES).as_posix()] = source.read_bytes()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, files[name])
    return out.getvalue()


def main(out: str) -> None:
    """Writes the archive, executable."""
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = pack()
    path.write_bytes(data)
    path.chmod(0o755)
    print(f"{path}: {len(data)} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
