"""A small program under NVIDIA's compute-sanitizer: no kernel reads or writes outside its buffers, or what nobody wrote.

Needs a GPU and the tool (it comes with the CUDA toolkit); skipped with the reason elsewhere.
"""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gpu_device import SIMULATED, WHY

ROOT = Path(__file__).resolve().parents[2]
TOOL = shutil.which("compute-sanitizer") or next(
    (str(p) for p in sorted(Path("/usr/local").glob("cuda*/bin/compute-sanitizer"), reverse=True)), "")
WHY = WHY or ("the simulated device has no such tool" if SIMULATED else "" if TOOL else "compute-sanitizer is not installed")
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY or "-")

PROGRAM = """
import graphc as torch
from graphc import nn
from graphc.nn import functional as F
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(294, 33), nn.Tanh(), nn.Linear(33, 10)).cuda()
opt = torch.optim.AdamW(net.parameters(), lr=1e-2)
x, y = torch.randn(7, 1, 14, 14, device="cuda"), torch.randint(0, 10, (7,), device="cuda")
step = torch.compile(lambda: (opt.zero_grad(), F.cross_entropy(net(x), y).backward(), opt.step()))
for _ in range(3):
    step()
q = torch.randn(2, 3, 70, 32, device="cuda", dtype=torch.bfloat16)
a = F.scaled_dot_product_attention(q, q, q, is_causal=True)
m = torch.randn(1000, 520, device="cuda", dtype=torch.bfloat16)
p = torch.relu(m.T @ m)
i = torch.randperm(1000, device="cuda")
s = torch.softmax(m[i].float(), -1).cumsum(0).sort(1)[0]
print("finite", all(t.float().isfinite().all().item() for t in (a, p, s, *net.parameters())))
"""


@pytest.mark.parametrize("check", ["memcheck", "racecheck", "initcheck"])
def test_program(check: str) -> None:
    """memcheck: accesses outside allocations; racecheck: shared memory; initcheck: reads of memory nobody wrote."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([TOOL, f"--tool={check}", "--error-exitcode=77", sys.executable, "-c", PROGRAM], capture_output=True, text=True,
                          timeout=900, env=env)
    text = done.stdout + done.stderr
    if "not supported" in text and "finite True" not in text:
        pytest.skip(f"compute-sanitizer cannot run here: {text[-300:]}")
    assert done.returncode == 0 and "finite True" in text and "ERROR SUMMARY: 0 errors" in text.replace("RACECHECK SUMMARY: 0 hazards", "ERROR SUMMARY: 0 errors"), text[-4000:]
