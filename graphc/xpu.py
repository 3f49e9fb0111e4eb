"""``torch.xpu``: Intel GPUs are not a back end of graphc."""
from __future__ import annotations

__all__ = ["device_count", "is_available", "is_bf16_supported"]


def is_available() -> bool:
    """Whether Intel GPUs can be used: no."""
    return False


def device_count() -> int:
    return 0


def is_bf16_supported(including_emulation: bool = True) -> bool:
    return False
