"""One thread per test process under xdist, settings put back after each test, GPU tests only where there is a GPU."""
from __future__ import annotations

import os
from collections.abc import Iterator

if "PYTEST_XDIST_WORKER" in os.environ:  # before NumPy loads: parallel workers with parallel BLAS slow each other down
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

import pytest

import graphc


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if any("gpu" in item.keywords for item in items) and not graphc.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """A test that fails half-way must not change what the next one sees."""
    dtype, grad = graphc.get_default_dtype(), graphc.is_grad_enabled()
    yield
    graphc.set_default_dtype(dtype)
    graphc.set_grad_enabled(grad)
