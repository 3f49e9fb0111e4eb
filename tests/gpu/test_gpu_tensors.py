"""Tensors on a real device: the programs of tests/cuda_device/device_programs.py, and the examples."""
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import graphc

TESTS = Path(__file__).resolve().parent.parent
WHY = "" if graphc.cuda.is_available() else "no CUDA device, or no compiler for it"
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY or "-")


def test_programs() -> None:
    """Each gives what it gives on the host; a device of its own process, since errors may lose it."""
    env = {**os.environ, "PYTHONPATH": str(TESTS.parent), "GRAPHC_STRICT": "1"}
    out = subprocess.run([sys.executable, str(TESTS / "cuda_device" / "device_programs.py"), "real"], capture_output=True, text=True,
                         timeout=900, env=env)
    said = dict(re.findall(r"^@@ (\w+) (.*?)(?=^@@ |\Z)", out.stdout, re.MULTILINE | re.DOTALL))
    assert said.pop("end", "").strip() == "ok" and len(said) > 20, out.stdout[-2000:] + out.stderr[-4000:]
    wrong = {name: text for name, text in said.items() if text.strip() != "ok"}
    assert not wrong, "\n".join(f"{n}: {t}" for n, t in wrong.items())


@pytest.mark.parametrize("name", ["mnist_mlp.py", "char_gpt.py", "cifar_resnet.py"])
def test_examples(name: str, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    out = [subprocess.run([sys.executable, str(TESTS.parent / "examples" / name), "--smoke", "--device", d], capture_output=True,
                          text=True, timeout=600, env=env, cwd=tmp_path, check=True).stdout for d in ("cuda", "cpu")]
    got, want = ([float(x) for x in re.findall(r"loss (\d+\.\d+)", text)] for text in out)
    assert got and got == pytest.approx(want, rel=1e-2)
