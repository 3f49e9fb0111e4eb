"""Start the scripts of this folder in processes of their own: Triton reads TRITON_INTERPRET when it is imported."""
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = re.findall(r"^def case_(\w+)\(", (HERE / "device_programs.py").read_text(), re.MULTILINE)


def start(script: str, mode: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    """A script with a simulated device, ``interpreted`` or ``refused``."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent.parent)}
    env.pop("GRAPHC_BACKEND", None)
    if mode == "interpreted":
        env |= {"TRITON_INTERPRET": "1", "GRAPHC_STRICT": "1"}
    return subprocess.run([sys.executable, str(HERE / script), mode], capture_output=True, text=True, timeout=timeout, env=env)


def run(mode: str) -> dict[str, str]:
    """What each program said, by name."""
    out = start("device_programs.py", mode)
    said = dict(re.findall(r"^@@ (\w+) (.*?)(?=^@@ |\Z)", out.stdout, re.MULTILINE | re.DOTALL))
    assert said.pop("end", "").strip() == "ok", out.stdout[-2000:] + out.stderr[-4000:]
    return said
