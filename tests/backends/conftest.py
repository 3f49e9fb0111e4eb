"""Settings of the back-end tests: whatever a test changes is put back."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

import graphc
from graphc import config


@pytest.fixture(autouse=True)
def _back_end_settings() -> Iterator[None]:
    """Threads and switches as before."""
    threads, memplan, verify, backend = graphc.get_num_threads(), config.NO_MEMPLAN, config.VERIFY, config.BACKEND
    yield
    graphc.set_num_threads(threads)
    config.NO_MEMPLAN, config.VERIFY, config.BACKEND = memplan, verify, backend
