"""Fixtures of the Triton tests: the interpreter process, and ways to run kernels and graphs in it."""
from __future__ import annotations

import importlib.metadata
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


def need_triton() -> None:
    """Skip where there is no Triton (this folder's own name makes ``import triton`` succeed, as a namespace)."""
    try:
        importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("triton is not installed")


@pytest.fixture(scope="session")
def interpreter():
    """The interpreter process; the test is skipped where there is no Triton."""
    need_triton()
    from interpreter import Interpreter

    it = Interpreter()
    yield it
    it.close()
