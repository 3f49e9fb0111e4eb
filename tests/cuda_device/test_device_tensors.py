"""Tensors on "cuda" with a simulated device: the programs of ``device_programs.py`` in processes of their own.

Once with every kernel interpreted (needs Triton), once with a compiler that refuses everything, so that programs run on the
host between copies: then only memory, copies and the tensors themselves are the device's.
"""
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from graphc.codegen.triton import compiler

HERE = Path(__file__).resolve().parent
NAMES = re.findall(r"^def case_(\w+)\(", (HERE / "device_programs.py").read_text(), re.MULTILINE)


def start(script: str, mode: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    """A script of this folder in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent.parent)}
    env.pop("GRAPHC_BACKEND", None)
    if mode == "interpreted":
        env["TRITON_INTERPRET"] = "1"
        env["GRAPHC_STRICT"] = "1"
    return subprocess.run([sys.executable, str(HERE / script), mode], capture_output=True, text=True, timeout=timeout, env=env)


def run(mode: str) -> dict[str, str]:
    """What each program said, by name."""
    out = start("device_programs.py", mode)
    said = dict(re.findall(r"^@@ (\w+) (.*?)(?=^@@ |\Z)", out.stdout, re.MULTILINE | re.DOTALL))
    assert said.pop("end", "").strip() == "ok", out.stdout[-2000:] + out.stderr[-4000:]
    return said


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    if compiler.reason():
        pytest.skip(compiler.reason())
    return run("interpreted")


@pytest.fixture(scope="module")
def refused() -> dict[str, str]:
    return run("refused")


@pytest.mark.parametrize("name", NAMES)
def test_with_kernels(interpreted: dict[str, str], name: str) -> None:
    assert interpreted[name].strip() == "ok", interpreted[name]


@pytest.mark.parametrize("name", NAMES)
def test_on_the_host_between_copies(refused: dict[str, str], name: str) -> None:
    assert refused[name].strip() == "ok", refused[name]


def test_modules_and_functions() -> None:
    """No function mixes in values of the host. (Kernels are tested elsewhere.)"""
    out = start("device_sweep.py", "refused")
    assert re.fullmatch(r"@@ end 1\d\d\n", out.stdout), out.stdout[-4000:] + out.stderr[-2000:]


def test_every_program_is_there() -> None:
    assert len(NAMES) >= 20
