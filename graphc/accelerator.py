"""``torch.accelerator``: the accelerator of this machine, if any, without naming its kind."""
from __future__ import annotations

from typing import Any

from .device import device as Device

__all__ = ["current_accelerator", "current_device_index", "device_count", "is_available", "set_device_index", "synchronize"]


def _cuda() -> Any:
    from . import cuda

    return cuda


def is_available() -> bool:
    """Whether there is an accelerator."""
    return bool(_cuda().is_available())


def device_count() -> int:
    """Number of accelerators."""
    return int(_cuda().device_count())


def current_accelerator(check_available: bool = False) -> Device | None:
    """Its device, or None where there is none."""
    return Device("cuda") if is_available() else None


def current_device_index() -> int:
    """Index of the device in use."""
    return int(_cuda().current_device())


def set_device_index(device: Any, /) -> None:
    """Choose the device."""
    _cuda().set_device(device)


def synchronize(device: Any = None, /) -> None:
    """Wait until the device has done its work."""
    _cuda().synchronize(device)
