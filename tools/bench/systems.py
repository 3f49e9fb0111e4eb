"""The systems compared, their environment variables, and how a workload becomes a program in each."""
from __future__ import annotations

import os
import shutil
from typing import Any

from workloads import Arrays, Workload

SYSTEMS = {  # name -> (column title, interpreter group for --python-for and GRAPHC_BENCH_PYTHON_<GROUP>)
    "torch": ("torch eager", "torch"),
    "torch_fused": ("torch, fused optimizer", "torch"),
    "torch_compile": ("torch.compile", "torch"),
    "jax": ("jax.jit", "jax"),
    "mlx": ("mx.compile", "mlx"),
    "tinygrad": ("tinygrad, TinyJit", "tinygrad"),
    "numpy": ("NumPy by hand", "numpy"),
    "graphc": ("graphc eager", "graphc"),
    "graphc_compile": ("graphc.compile", "graphc"),
}
REPLAY = "graphc_replay"  # graphc.compile(mode="replay"), measured in host.py only
PACKAGES = {"torch": ["torch"], "jax": ["jax", "jaxlib"], "mlx": ["mlx"], "tinygrad": ["tinygrad"], "numpy": ["numpy"], "graphc": ["numpy", "llvmlite"]}
NEW_BATCH = ("torch", "torch_compile", "jax", "numpy", "graphc", "graphc_compile")  # tinygrad's jit takes one shape only


class Skip(Exception):
    """A system that cannot run a workload here; the message is the reason."""


def applies(system: str, w: Workload) -> bool:
    if system == "numpy":
        return w.name == "mlp"
    if system == "torch_fused":
        return bool(w.optimizer[0])
    return True


def environment(system: str, threads: int, cache: str, kept: bool) -> dict[str, str]:
    """Variables of a child: threads, an own compile cache, and malloc settings that keep freed memory (``kept``)."""
    n = str(threads)
    env = {k: n for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUM_CPU_THREADS", "GRAPHC_NUM_THREADS")}
    env |= {"TORCHINDUCTOR_CACHE_DIR": os.path.join(cache, "inductor"), "GRAPHC_CACHE_DIR": os.path.join(cache, "graphc"),
            "JAX_COMPILATION_CACHE_DIR": os.path.join(cache, "jax"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1", "JAX_PLATFORMS": "cpu",
            "CACHEDB": os.path.join(cache, "tinygrad", "cache.db"), "DEV": "CPU"}
    if kept:
        env |= {"MALLOC_TRIM_THRESHOLD_": str(1 << 36), "MALLOC_MMAP_THRESHOLD_": str(1 << 36), "MALLOC_MMAP_MAX_": "0",
                "MALLOC_TOP_PAD_": str(1 << 26), "MALLOC_ARENA_MAX": "1"}
    return env


def _torch(threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    return torch


def build(system: str, w: Workload, c: dict[str, Any], a: Arrays, threads: int) -> Any:
    """The program of ``w`` in ``system``. Raises ImportError or Skip when it is not available."""
    if system.startswith("torch"):
        torch = _torch(threads)
        from torchlike import TorchLike

        if system == "torch_compile":
            if not any(shutil.which(x) for x in (os.environ.get("CXX", "g++"), "g++", "clang++", "c++")):
                raise Skip("no C++ compiler")
            return TorchLike(torch, w, c, a, parts=torch.compile)
        return TorchLike(torch, w, c, a, fused=system == "torch_fused")
    if system.startswith("graphc"):
        from torchlike import TorchLike

        import graphc
        from graphc.ir import recorder

        graphc.set_num_threads(threads)
        whole = {"graphc_compile": graphc.compile, REPLAY: graphc.compile(mode="replay")}.get(system)
        return TorchLike(graphc, w, c, a, whole=whole, force=recorder.flush)
    if system == "tinygrad" and not any(shutil.which(x) for x in (os.environ.get("CC", "clang"), "clang")):
        raise Skip("no clang for its CPU back end")
    if system == "jax":
        from peers import jax_peer as peer
    elif system == "mlx":
        from peers import mlx_peer as peer  # type: ignore[no-redef]
    elif system == "tinygrad":
        from peers import tinygrad_peer as peer  # type: ignore[no-redef]
    else:
        from peers import numpy_peer as peer  # type: ignore[no-redef]
    return peer.Program(w, c, a)
