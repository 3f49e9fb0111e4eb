"""The tests for real GPUs (tests/gpu/test_gpu_*) work: a part of them on the simulated device, in processes of their own."""
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from graphc.codegen.triton import compiler

GPU = Path(__file__).resolve().parent.parent / "gpu"
PARTS = {
    "rows": ("test_gpu_rows.py", "test_row and float32 or test_large and (erf or add)", 120),
    "fuzz": ("test_gpu_fuzz.py", "fused_programs and 0 or found or library and 3000 or loops", 7),
    "products": ("test_gpu_products.py", "descriptors and bfloat16 or pointers and (nn or tt) or gradients or errors", 12),
    "models": ("test_gpu_models.py", "test_training and (mlp or lstm) or compiled and (default or autotune) or eager", 5),
}


@pytest.mark.parametrize("part", list(PARTS))
def test_on_the_simulated_device(part: str) -> None:
    if compiler.reason():
        pytest.skip(compiler.reason())
    file, which, least = PARTS[part]
    env = {**os.environ, "TRITON_INTERPRET": "1", "GRAPHC_SIMULATED_DEVICE": "1", "OMP_NUM_THREADS": "1", "GRAPHC_STRICT": "1",
           "GRAPHC_NO_CACHE": "1", "PYTHONPATH": str(GPU.parent.parent)}
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_ADDOPTS", "GRAPHC_BACKEND"):
        env.pop(name, None)
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(GPU / file), "-k", which]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= least, done.stdout[-500:]


def test_without_a_device_they_are_skipped_with_the_reason() -> None:
    from graphc.runtime.cuda import driver

    if not (driver.reason() or compiler.reason()):
        pytest.skip("there is a device")
    files = [str(f) for f in sorted(GPU.glob("test_gpu_*.py"))]
    assert len(files) >= 5
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "GRAPHC_SIMULATED"))}
    done = subprocess.run([sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-rs", "-p", "no:cacheprovider", "-p", "no:xdist",
                           "-k", "test_training or test_row or test_program or test_loops or test_errors", *files],
                          capture_output=True, text=True, timeout=300, env={**env, "PYTHONPATH": str(GPU.parent.parent)})
    assert done.returncode == 0 and " passed" not in done.stdout and "no CUDA device to compile for: " in done.stdout, done.stdout[-3000:]
