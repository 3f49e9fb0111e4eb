"""Tensors on "cuda" with a simulated device whose compiler refuses everything, so that programs run on the host between copies:
only memory, copies and the tensors themselves are the device's. With kernels: test_device_kernels.py."""
from __future__ import annotations

import re

import pytest
from device_runner import NAMES, run, start


@pytest.fixture(scope="module")
def refused() -> dict[str, str]:
    return run("refused")


@pytest.mark.parametrize("name", NAMES)
def test_on_the_host_between_copies(refused: dict[str, str], name: str) -> None:
    assert refused[name].strip() == "ok", refused[name]


def test_modules_and_functions() -> None:
    """No function mixes in values of the host. (Kernels are tested elsewhere.)"""
    out = start("device_sweep.py", "refused")
    assert re.fullmatch(r"@@ end 1\d\d\n", out.stdout), out.stdout[-4000:] + out.stderr[-2000:]


def test_every_program_is_there() -> None:
    assert len(NAMES) >= 20
