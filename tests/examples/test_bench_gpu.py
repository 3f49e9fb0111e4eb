"""The GPU benchmark's logic: on the CPU with tiny sizes, and its way of using a device on a simulated one."""
from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "bench" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> Any:
    spec = importlib.util.spec_from_file_location("bench_gpu_tool", TOOL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options(**more: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"smoke": True, "mode": "default", "budget": 0.01, "only": "", "systems": "graphc", **more})


def test_one_command(tmp_path: Path) -> None:
    """Processes, checks, the table with its marks, the figures as JSON; a second run replaces the section."""
    out, figures = tmp_path / "r.md", tmp_path / "f.json"
    out.write_text("# Measurements\n\ntext\n\n<!-- gpu -->\nold\n<!-- /gpu -->\n\nmore\n")
    have = importlib.util.find_spec("torch") is not None
    systems = "torch,graphc" if have else "graphc"
    command = [sys.executable, str(TOOL), "--smoke", "--only", "softmax,mlp", "--systems", systems, "--out", str(out), "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    text = out.read_text()
    assert text.startswith("# Measurements\n\ntext\n") and text.endswith("<!-- /gpu -->\n\nmore\n") and "old" not in text
    assert "| softmax 32768x1024, bfloat16 |" in text and "| MLP 784-128-10 training step, batch 128, SGD |" in text
    found = json.loads(figures.read_text())["results"]
    assert set(found) == {"softmax", "mlp"}
    for rows in found.values():
        for system, row in rows.items():
            assert row["status"] == "ok" and row["ms"] > 0 and row["min_ms"] <= row["ms"], (system, row)
            assert not have or row["difference"] <= 1e-2


def test_without_a_device_it_says_why(tmp_path: Path) -> None:
    from graphc.codegen.triton import compiler
    from graphc.runtime.cuda import driver

    if not (driver.reason() or compiler.reason()):
        pytest.skip("there is a device")
    out = tmp_path / "r.md"
    done = subprocess.run([sys.executable, str(TOOL), "--out", str(out)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("nothing measured: ") and not out.exists()


def test_cases_are_complete(gpu: Any) -> None:
    """Names differ, costs are positive, sizes at full scale are what the titles say."""
    names = [c.name for c in gpu.CASES]
    assert len(set(names)) == len(names) and {c.group for c in gpu.CASES} == set(gpu.SHARE)
    for case in gpu.CASES:
        for size in (case.size, case.tiny):
            flops, moved = case.cost(size)
            assert moved > 0 and (flops > 0 or not case.rate), case.name
        assert gpu.bound_ms(case, case.size, {"half": 989.0, "single": 67.0, "read": 4.8}) > 0
    big = next(c for c in gpu.CASES if c.name == "gpt2")
    import gpu_cases

    assert abs(gpu_cases.gpt_parameters(big.size) - 163e6) < 1e6  # GPT-2 small with a head of its own
    assert gpu.bound_ms(next(c for c in gpu.CASES if c.name == "matmul_8192_bfloat16"), {"m": 8192, "n": 8192, "k": 8192, "dtype": "bfloat16"},
                        {"half": 989.0, "read": 4.8}) == pytest.approx(2 * 8192 ** 3 / 989e12 * 1e3)


@pytest.mark.parametrize("name", ["layer_products", "cross_entropy", "attention_hand", "adamw", "lstm"])
def test_cases_run_in_graphc(gpu: Any, name: str) -> None:
    """What the command test leaves out."""
    case = next(c for c in gpu.CASES if c.name == name)
    row = gpu.run_case(case, ["graphc"], options(), "cpu", 1e18)["graphc"]
    assert row["status"] == "ok" and row["ms"] > 0, row


def test_wrong_results_get_no_figure(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever differs from PyTorch eager is named with the difference; failures and lateness have words too."""
    case = next(c for c in gpu.CASES if c.name == "softmax")

    class Lib:
        def __init__(self, value: float):
            self.value = value

        def numbers(self, out: Any) -> list[np.ndarray]:
            return [np.full(3, self.value)]

        def synchronize(self) -> None: ...

        def clock(self, step: Any, times: int) -> float:
            return 2.0

        def peak(self, reset: bool = False) -> float:
            return 0.0

    def build(system: str, *_: Any) -> Any:
        if system == "torch_compile":
            raise RuntimeError("no compiler")
        if system == "jax":
            raise ImportError("no module")
        return Lib({"torch": 1.0, "graphc": 1.5}[system]), lambda: None

    monkeypatch.setattr(gpu, "build", build)
    rows = gpu.run_case(case, ["torch", "torch_compile", "jax", "graphc"], options(), "cpu", 1e18)
    assert rows["torch"]["status"] == "ok" and rows["torch"]["ms"] == 2.0
    assert rows["graphc"]["status"] == "WRONG: differs from torch eager by 5.0e-01" and "ms" not in rows["graphc"]
    assert rows["torch_compile"]["status"].startswith("failed: RuntimeError") and rows["jax"]["status"] == "not here: no module"
    info = {"peak": {"half": 1.0, "single": 1.0, "read": 1.0}}
    line = gpu.table({"softmax": rows}, options(systems="torch,torch_compile,jax,graphc"), info)[2]
    assert re.search(r"\| 2 \(2\) \| failed \| not here \| WRONG \|", line)
    assert gpu.run_case(case, ["torch"], options(), "cpu", 0.0)["torch"]["status"] == "out of time"
    assert any("WRONG" in n and "softmax" in n for n in gpu.notes({"softmax": rows}))


def test_differences(gpu: Any) -> None:
    a = [np.array([1.0, -4.0])]
    assert gpu.difference(a, a) == 0 and gpu.difference([np.array([1.0, -4.4])], a) == pytest.approx(0.1)
    assert gpu.difference([np.array([1.0, np.nan])], a) == float("inf") and gpu.difference([np.zeros(3)], a) == float("inf")
    assert gpu.difference([], a) == float("inf")


def test_ratios_and_shares(gpu: Any) -> None:
    rows = {"torch": {"ms": 3.0, "min_ms": 3.0, "status": "ok"}, "graphc": {"ms": 1.5, "min_ms": 1.4, "status": "ok"}}
    assert gpu.ratio(rows, "torch", 1.3) == "2.00 (1.3)" and gpu.ratio(rows, "torch_compile", 1.3) == ""
    case = next(c for c in gpu.CASES if c.name == "softmax")
    info = {"peak": {"half": 1.0, "single": 1.0, "read": 4.0}}
    line = gpu.table({"softmax": rows}, options(smoke=False, systems="torch,graphc"), info)[2]
    floor = 2 * 2 * 32768 * 1024 / 4e9
    assert f"| {floor / 1.5:.2f} (0.92) |" in line and case.targets[2] == 0.92


SIMULATED = """
import sys, types
sys.path[:0] = [{here!r}, {tool!r}]
import simulated
simulated.install()
import importlib.util
spec = importlib.util.spec_from_file_location("bench_gpu_tool", {tool!r} + "/gpu.py")
gpu = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu)
args = types.SimpleNamespace(smoke=True, mode="default", budget=0.0, only="", systems="graphc")
gpu.LEAST = 2
for name in sys.argv[1:]:
    case = next(c for c in gpu.CASES if c.name == name)
    row = gpu.run_case(case, ["graphc"], args, "cuda", 1e18)["graphc"]
    assert row["status"] == "ok" and row["peak"] > 0, (name, row)
print("fine")
"""


def test_on_a_simulated_device() -> None:
    """Data on the device, events, peak memory, the check of the results: all as on a GPU."""
    from graphc.codegen.triton import compiler

    if compiler.reason():
        pytest.skip(compiler.reason())
    code = SIMULATED.format(here=str(ROOT / "tests" / "cuda_device"), tool=str(TOOL.parent))
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "GRAPHC_STRICT": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, "matmul_4096_bfloat16", "softmax_bwd", "mlp"], capture_output=True, text=True,
                          timeout=300, env=env)
    assert done.stdout.strip().endswith("fine"), done.stdout[-2000:] + done.stderr[-3000:]
