"""``torch._dynamo.config``: any attribute may be set and read back; none changes anything."""
from __future__ import annotations

from typing import Any

cache_size_limit = recompile_limit = 8
suppress_errors = capture_scalar_outputs = verbose = optimize_ddp = False


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return None
