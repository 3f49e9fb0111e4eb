"""Copying the tensors of a batch to page-locked host memory, so that transfers to the device can overlap."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import collate


def pin_memory(data: Any) -> Any:
    """``data`` with every member that has ``pin_memory()`` replaced by its pinned copy; containers keep their type."""
    if hasattr(data, "pin_memory"):
        return data.pin_memory()
    if isinstance(data, (str, bytes)):
        return data
    if isinstance(data, Mapping):
        return collate._rebuild_mapping(data, {k: pin_memory(v) for k, v in data.items()})
    if isinstance(data, tuple):
        items = [pin_memory(v) for v in data]
        return type(data)(*items) if hasattr(data, "_fields") else type(data)(items)
    if isinstance(data, Sequence):
        return collate._rebuild_sequence(data, [pin_memory(v) for v in data])
    return data
