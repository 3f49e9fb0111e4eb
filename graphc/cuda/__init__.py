"""CUDA under PyTorch's names. Without a driver everything that asks answers "no", and use raises a clear error."""
from __future__ import annotations

from typing import Any

from ..device import require
from ..errors import OutOfMemoryError as OutOfMemoryError


def is_available() -> bool:
    """Whether this process can run on a GPU. False until the CUDA run time lands."""
    return False


def device_count() -> int:
    return 0


def _missing(*args: Any, **kwargs: Any) -> Any:
    return require("cuda")  # raises with the hint what is missing


current_device = synchronize = get_device_properties = get_device_name = set_device = current_stream = _missing


def is_initialized() -> bool:
    return False


def manual_seed(seed: int) -> None:
    """Accepted: one generator serves every device."""


manual_seed_all = manual_seed


def empty_cache() -> None:
    """Nothing to free without a GPU."""


def memory_allocated(device: Any = None) -> int:
    return 0


max_memory_allocated = memory_reserved = max_memory_reserved = memory_allocated


def reset_peak_memory_stats(device: Any = None) -> None:
    """Nothing to reset without a GPU."""
