"""The CUDA run time through the real cuda-bindings into a stand-in libcuda (cuda_stub.c), in processes of their own."""
from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from graphc.codegen.triton import compiler

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COMPILER = shutil.which("gcc") or shutil.which("cc")


def bindings() -> bool:
    try:
        return importlib.util.find_spec("cuda.bindings.driver") is not None
    except ModuleNotFoundError:
        return False


pytestmark = [pytest.mark.skipif(not bindings(), reason="cuda-bindings is not installed (pip install 'graphc[cuda]')"),
              pytest.mark.skipif(COMPILER is None or sys.platform != "linux", reason="needs a C compiler on Linux")]


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    """Folder with the stand-in library."""
    folder = tmp_path_factory.mktemp("stub")
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-O1", "-w", "-o", str(folder / "libcuda.so.1"), str(HERE / "cuda_stub.c"),
                    "-ldl"], check=True, timeout=60)
    return folder


def run(args, folder, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": str(folder or ""), **environment}
    env.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=300, cwd=ROOT, env=env)


def test_the_programs_of_the_run_time(stub):
    out = run(["-m", "pytest", "-o", "addopts=", "-q", "-p", "no:cacheprovider", str(HERE / "test_cuda_programs.py")], stub,
              GRAPHC_TEST_STUB="1")
    assert out.returncode == 0, out.stdout[-4000:] + out.stderr[-2000:]
    assert "failed" not in out.stdout and "skipped" not in out.stdout and " passed" in out.stdout


ASK = "from graphc.runtime.cuda import driver; import graphc; print(graphc.cuda.is_available(), '|', driver.reason())"


@pytest.mark.parametrize("environment, text", [
    ({}, ""),
    ({"STUB_VERSION": "11040"}, "the NVIDIA driver is too old: it supports CUDA 11.4, graphc needs 12.0 (driver 525) or newer"),
    ({"STUB_INIT": "100"}, "the NVIDIA driver finds no device (is CUDA_VISIBLE_DEVICES empty?"),
    ({"STUB_INIT": "803"}, "different versions (restart the machine after an update)"),
    ({"STUB_INIT": "999"}, "the NVIDIA driver cannot be used: CUDA_ERROR_OTHER: a stub's error (code 999)"),
    ({"STUB_COUNT": "0"}, "the NVIDIA driver finds no device")])
def test_reasons(stub, environment, text):
    out = run(["-c", ASK], stub, **environment)
    assert out.returncode == 0, out.stderr
    assert text in out.stdout if text else out.stdout.strip() == f"{not compiler.reason()} |"


def test_no_driver_library():
    if os.path.exists("/dev/nvidiactl") or os.path.exists("/usr/lib/x86_64-linux-gnu/libcuda.so.1"):
        pytest.skip("this machine has a driver")
    out = run(["-c", ASK], None)
    assert out.returncode == 0, out.stderr
    assert "False | no NVIDIA driver was found" in out.stdout
    out = run(["-c", "import graphc; graphc.cuda.Stream()"], None)
    assert "CudaUnavailable: CUDA is not available: no NVIDIA driver was found" in out.stderr
    assert "pip install 'graphc[cuda]'" in out.stderr
