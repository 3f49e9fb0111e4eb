"""Memory the outside may see: which buffers were given out by ``numpy()`` or DLPack, and whether somebody still holds them."""
from __future__ import annotations

import sys
import weakref
from typing import Any

import numpy as np

from .node import Value


def is_exported(v: Value) -> bool:
    """Whether something outside graphc holds this value's buffer (or an array it is a view of)."""
    buf = v.buffer
    if buf.__class__ is not np.ndarray:  # memory of a device: nobody tells when the last reader is gone
        return True
    known = _EXPORTS.get(id(buf))
    if known is not None and known[0]() is buf:
        return known[1]() is not None
    return buf.base is not None or sys.getrefcount(buf) > 3


class _Exported:
    """Owner of the arrays given out over one buffer: alive as long as one of them, or of their views, is."""

    __slots__ = ("buffer", "__array_interface__", "__weakref__")

    def __init__(self, buffer: np.ndarray):
        self.buffer = buffer
        self.__array_interface__ = (buffer.view(np.uint16) if buffer.dtype.kind == "V" else buffer).__array_interface__


_EXPORTS: dict[int, tuple[Any, Any]] = {}  # id of a buffer -> (weak reference to it, and to the owner of what was given out)


def export(buf: np.ndarray) -> np.ndarray:
    """An array over ``buf``'s memory for the outside. :func:`is_exported` knows whether it, or a view of it, still lives."""
    known = _EXPORTS.get(id(buf))
    owner = known[1]() if known is not None else None
    if owner is None:
        owner, key = _Exported(buf), id(buf)
        _EXPORTS[key] = weakref.ref(buf, lambda _: _EXPORTS.pop(key, None)), weakref.ref(owner)
    out = np.asarray(owner)
    return out if out.dtype == buf.dtype else out.view(buf.dtype)
