"""What holds for every test: no hub is reached, no wall time asserted, idle OpenMP threads do not spin. And PostgreSQL.

A few tests of what must not grow without bound assert processor time, or how it grows with the input: these hold on a
machine with other work too.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.postgres_server import Server

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

# A machine with other work is slow, which says nothing of an example.
hypothesis.settings.register_profile("assay", deadline=None)
hypothesis.settings.load_profile("assay")

if sys.platform == "linux":
    # Logits of tiny models have 49,152 columns: glibc would map and unmap them at every step, and the kernel clear each
    # page anew. M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h.
    for option, value in ((-4, 0), (-1, 2**31 - 1)):
        getattr(ctypes.CDLL(None), "mallopt", lambda *_: None)(option, value)


def pytest_collection_finish() -> None:
    """Takes what imports and collection left, a few million objects, out of every later garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server of this test run's own.

    Skips where none can be had; fails instead where ``ASSAY_REQUIRE_POSTGRES`` is set, as in continuous integration.
    """
    from tests.postgres_server import NoServerError, Server

    try:
        server = Server()
    except NoServerError as error:
        if os.environ.get("ASSAY_REQUIRE_POSTGRES"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    yield server
    server.stop()
