"""What the machine can do: copy bandwidth out of cache and float32 GEMM rate, the floors the table is read against.

    python tools/bench/machine.py [THREADS]

prints JSON. ``gbs`` counts bytes read plus bytes written of a copy of 256 MB by THREADS threads (best of several);
``gflops`` is the best of NumPy's and, where installed, PyTorch's multiplication of 2048x2048 matrices.
"""
from __future__ import annotations

import json
import os
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np


def copy_rate(threads: int, megabytes: int = 256, repeats: int = 40) -> float:
    """GB/s of copying between two arrays already in memory, each thread its own part."""
    n = megabytes * 1_000_000 // 4
    a, b = np.ones(n, np.float32), np.zeros(n, np.float32)
    parts = [slice(i * n // threads, (i + 1) * n // threads) for i in range(threads)]
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats):
            t = time.perf_counter()
            list(pool.map(lambda s: np.copyto(b[s], a[s]), parts))
            best = min(best, time.perf_counter() - t)
    return 2 * 4 * n / best / 1e9


def torch_copy_rate(torch: Any, megabytes: int = 256, repeats: int = 40) -> float:
    a, b = torch.ones(megabytes * 1_000_000 // 4), torch.zeros(megabytes * 1_000_000 // 4)
    best = float("inf")
    for _ in range(repeats):
        t = time.perf_counter()
        b.copy_(a)
        best = min(best, time.perf_counter() - t)
    return 2 * 4 * a.numel() / best / 1e9


def gemm_rate(a: Any, b: Any, multiply: Any, repeats: int = 40) -> float:
    best, n = float("inf"), a.shape[0]
    for _ in range(repeats):
        t = time.perf_counter()
        multiply(a, b)
        best = min(best, time.perf_counter() - t)
    return 2 * n ** 3 / best / 1e9


def processor() -> str:
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def measure(threads: int) -> dict[str, Any]:
    r = np.random.default_rng(0)
    a, b = r.standard_normal((2, 2048, 2048), np.float32)
    gbs, gflops = copy_rate(threads), gemm_rate(a, b, np.matmul)
    try:
        import torch

        torch.set_num_threads(threads)
        gbs = max(gbs, torch_copy_rate(torch))
        gflops = max(gflops, gemm_rate(torch.from_numpy(a.copy()), torch.from_numpy(b.copy()), torch.matmul))
    except ImportError:
        pass
    flags = ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as f:
            text = f.read()
        flags = "AVX-512" if "avx512f" in text else "AVX2" if "avx2" in text else ""
    return {"gbs": gbs, "gflops": gflops, "cpu": processor(), "cores": os.cpu_count(), "threads": threads, "vector": flags,
            "system": f"{platform.system()} {platform.release()}", "python": platform.python_version()}


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count() or 1
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(count))
    print(json.dumps(measure(count)))
