"""Settings of the back-end tests: whatever a test changes is put back."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

import graphc
from graphc import config
from graphc.codegen.native import program


@pytest.fixture(autouse=True)
def _back_end_settings() -> Iterator[None]:
    """Threads and switches as before."""
    threads, work = graphc.get_num_threads(), program.PARALLEL_WORK
    switches = {name: getattr(config, name) for name in ("NO_MEMPLAN", "VERIFY", "BACKEND", "STRICT")}
    yield
    graphc.set_num_threads(threads)
    program.PARALLEL_WORK = work
    for name, value in switches.items():
        setattr(config, name, value)
