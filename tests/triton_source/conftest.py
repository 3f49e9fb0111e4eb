"""Fixtures of the Triton tests: the interpreter process, and ways to run kernels and graphs in it."""
from __future__ import annotations

import importlib.metadata

import pytest


@pytest.fixture(scope="session")
def triton_installed() -> None:
    """Skip where there is no Triton (asked without importing it: other processes do that)."""
    try:
        importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("triton is not installed")


@pytest.fixture(scope="session")
def interpreter(triton_installed):
    """The interpreter process; the test is skipped where there is no Triton."""
    from interpreter import Interpreter

    it = Interpreter()
    yield it
    it.close()
