"""The programs of examples/ with ``--device cuda`` on a simulated device print the numbers they print on the host."""
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from graphc.codegen.triton import compiler

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent.parent / "examples"
PROGRAMS = sorted(f.name for f in EXAMPLES.glob("[a-z]*.py"))


def outputs(mode: str, names: list[str], folder: Path) -> dict[str, str]:
    """What each program prints."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES.parent)}
    if mode == "interpreted":
        env |= {"TRITON_INTERPRET": "1", "GRAPHC_STRICT": "1"}
    command = [sys.executable, str(HERE / "run_simulated.py"), mode, *[str(EXAMPLES / n) for n in names], "--", "--smoke", "--seed", "3",
               "--device", "cpu" if mode == "host" else "cuda"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env, cwd=folder)
    assert out.returncode == 0, out.stdout[-2000:] + out.stderr[-4000:]
    return dict(re.findall(r"^@@ (\S+)\n(.*?)(?=^@@ )", out.stdout, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return outputs("host", PROGRAMS, tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return outputs("refused", PROGRAMS, tmp_path_factory.mktemp("refused"))


def same(got: str, want: str, tol: float) -> None:
    """Equal text, numbers within ``tol``."""
    number = re.compile(r"/tmp\S+|-?\d+\.\d+")
    assert number.sub("#", got) == number.sub("#", want)
    values = [(float(a), float(b)) for a, b in zip(number.findall(got), number.findall(want)) if a[0] != "/"]
    assert values and all(abs(a - b) <= tol * max(1.0, abs(b)) for a, b in values), values


@pytest.mark.parametrize("name", PROGRAMS)
def test_between_copies(host: dict[str, str], refused: dict[str, str], name: str) -> None:
    same(refused[name], host[name], 1e-4)


def test_with_kernels(host: dict[str, str], tmp_path: Path) -> None:
    if compiler.reason():
        pytest.skip(compiler.reason())
    for name, text in outputs("interpreted", ["mnist_mlp.py", "regression.py"], tmp_path).items():
        same(text, host[name], 1e-3)
