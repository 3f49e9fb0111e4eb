"""Tensors on "cuda" with a simulated device: memory is the host's, kernels are run by Triton's interpreter."""
from __future__ import annotations

import pytest
from device_runner import NAMES, run

from graphc.codegen.triton import compiler


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    if compiler.reason():
        pytest.skip(compiler.reason())
    return run("interpreted")


@pytest.mark.parametrize("name", NAMES)
def test_with_kernels(interpreted: dict[str, str], name: str) -> None:
    assert interpreted[name].strip() == "ok", interpreted[name]
