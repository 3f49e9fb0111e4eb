"""``torch._inductor.config``: any attribute may be set and read back; none changes anything."""
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

coordinate_descent_tuning = max_autotune = fx_graph_cache = False
triton, cpp = SimpleNamespace(unique_kernel_names=False, cudagraphs=False), SimpleNamespace(threads=-1)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return None
