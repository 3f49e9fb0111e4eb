"""``torch.cpu``: the processor under the names that devices have."""
from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from . import amp

__all__ = ["amp", "current_device", "current_stream", "device_count", "is_available", "set_device", "stream", "synchronize"]


def is_available() -> bool:
    """Whether there is a processor: yes."""
    return True


def device_count() -> int:
    return 1


def current_device() -> str:
    return "cpu"


def set_device(device: Any) -> None:
    """Accepted: there is one."""


def synchronize(device: Any = None) -> None:
    """Accepted: a value that was read is computed."""


def current_stream(device: Any = None) -> None:
    """There are no streams on the processor."""


def stream(stream: Any) -> AbstractContextManager[None]:
    """Accepted: there are no streams on the processor."""
    return nullcontext()
