"""``run_simulated.py MODE SCRIPT... -- FLAGS...``: run programs one after the other in a process with a simulated device.

MODE: interpreted, refused (see simulated.py), or host for none. Each program's output follows a line ``@@ NAME``.
"""
from __future__ import annotations

import runpy
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

if __name__ == "__main__":
    mode = sys.argv[1]
    cut = sys.argv.index("--")
    scripts, flags = sys.argv[2:cut], sys.argv[cut + 1:]
    if mode != "host":
        import simulated

        simulated.install(kernels=mode == "interpreted")
        warnings.filterwarnings("ignore", message=".*this program runs on the host instead")
    for script in scripts:
        print(f"@@ {Path(script).name}", flush=True)
        sys.argv = [script, *flags]
        sys.path[0] = str(Path(script).parent)
        runpy.run_path(script, run_name="__main__")
    print("@@ end")
