"""Devices: interned descriptors such as ``cpu`` and ``cuda:0``."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import DeviceError

_KINDS = ("cpu", "cuda", "meta", "mps")
_INTERNED: dict[tuple[str, int | None], device] = {}


class device:
    """``device("cuda:1")``, ``device("cuda", 1)`` or ``device(other)``; equal descriptors are the same object."""

    __slots__ = ("type", "index", "__weakref__")
    type: str
    index: int | None

    def __new__(cls, type: Any = None, index: int | None = None) -> device:
        if isinstance(type, device):
            return type
        if isinstance(type, int):
            type, index = "cuda", type
        if not isinstance(type, str):
            raise TypeError(f"device(): argument 'type' must be str, int or device, not {type!r}")
        kind, _, number = type.partition(":")
        if number:
            if not number.isdigit():
                raise DeviceError(f"Invalid device string: '{type}'")
            index = int(number)
        if kind not in _KINDS:
            raise DeviceError(f"Expected one of {', '.join(_KINDS)} device type at start of device string: {type}")
        if index is not None and index < 0:
            raise DeviceError(f"device index must not be negative, got {index}")
        key = (kind, index)
        found = _INTERNED.get(key)
        if found is None:
            found = object.__new__(cls)
            found.type, found.index = kind, index
            _INTERNED[key] = found
        return found

    def __repr__(self) -> str:
        return f"device(type='{self.type}')" if self.index is None else f"device(type='{self.type}', index={self.index})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __reduce__(self) -> tuple[Any, ...]:
        return device, (str(self),)

    def __enter__(self) -> device:
        _Current.stack.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        _Current.stack.pop()


CPU, META = device("cpu"), device("meta")  # on META tensors have a shape and a dtype, but no data


class _Current:
    """Default device for creation functions (``set_default_device`` and ``with device:``)."""

    default = CPU
    stack: list[device] = []


def get_default_device() -> device:
    return _Current.stack[-1] if _Current.stack else _Current.default


def set_default_device(d: Any) -> None:
    _Current.default = CPU if d is None else require(d)


_FINDERS: dict[str, Callable[[device], device]] = {}  # back ends by kind


def register_kind(kind: str, find: Callable[[device], device]) -> None:
    """``find(d)``, asked whenever a device of ``kind`` is used, gives the device with its number, or raises DeviceError."""
    _FINDERS[kind] = find


def require(d: Any) -> device:
    """The canonical device for ``d``; raises DeviceError when this process has no such device."""
    dev = get_default_device() if d is None else device(d)
    if dev.type == "cpu":
        return CPU
    if dev.type == "meta":
        return META
    if dev.type not in _FINDERS:
        raise DeviceError(f"device '{dev}' is not available.")
    return _FINDERS[dev.type](dev)
