"""Fixtures of the Triton tests: the interpreter process, and ways to run kernels and graphs in it."""
from __future__ import annotations

import importlib.util
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture(scope="session")
def interpreter():
    """The interpreter process; the test is skipped where there is no Triton."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    from interpreter import Interpreter

    it = Interpreter()
    yield it
    it.close()
