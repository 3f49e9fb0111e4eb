"""``torch.mps``: Apple GPUs are no back end of graphc."""
from __future__ import annotations

from .ops.random import manual_seed

__all__ = ["current_allocated_memory", "device_count", "driver_allocated_memory", "empty_cache", "is_available", "manual_seed",
           "synchronize"]


def is_available() -> bool:
    """Whether Apple GPUs can be used: no."""
    return False


def device_count() -> int:
    return 0


def synchronize() -> None:
    """Accepted: nothing runs there."""


def empty_cache() -> None:
    """Accepted: nothing is kept there."""


def current_allocated_memory() -> int:
    """Bytes in use: none."""
    return 0


driver_allocated_memory = current_allocated_memory
