"""``torch.cpu.amp``: the older name of :class:`graphc.amp.autocast` for the processor."""
from __future__ import annotations

from typing import Any

from .. import amp as _amp
from ..amp import GradScaler
from ..dtypes import bfloat16


class autocast(_amp.autocast):
    """``amp.autocast("cpu", dtype, enabled)``."""

    def __init__(self, enabled: bool = True, dtype: Any = bfloat16, cache_enabled: bool = True):
        super().__init__("cpu", dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)


__all__ = ["GradScaler", "autocast"]
