"""``torch.backends.cudnn``: accepted switches; convolutions are graphc's own and deterministic."""
from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from ._flags import setting

enabled, benchmark, deterministic, allow_tf32 = False, False, True, False
benchmark_limit = 10


def is_available() -> bool:
    """Whether cuDNN is used: no."""
    return False


def version() -> None:
    """The version of cuDNN: there is none."""


def is_acceptable(tensor: Any) -> bool:
    return False


def flags(enabled: bool = False, benchmark: bool = False, benchmark_limit: int = 10, deterministic: bool = False,
          allow_tf32: bool = True, fp32_precision: str = "none") -> AbstractContextManager[None]:
    """The switches set inside a ``with`` block."""
    return setting(__name__, enabled=enabled, benchmark=benchmark, benchmark_limit=benchmark_limit, deterministic=deterministic,
                   allow_tf32=allow_tf32)
