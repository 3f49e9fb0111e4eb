"""``torch.storage``: names of the memory under tensors, for ``isinstance`` and checkpoints; tensors hold their own."""
from __future__ import annotations

from ._absent import absent_class
from .tensor_info import StorageInfo as UntypedStorage

_INSTEAD = "tensors hold their memory: use graphc.empty(n, dtype=...), or tensor.untyped_storage() for what is under one"
TypedStorage, FloatStorage, DoubleStorage, HalfStorage, BFloat16Storage, LongStorage, IntStorage, ShortStorage, CharStorage, \
    ByteStorage, BoolStorage = [absent_class(f"{name}Storage", _INSTEAD) for name in (
        "Typed", "Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")]

__all__ = ["BFloat16Storage", "BoolStorage", "ByteStorage", "CharStorage", "DoubleStorage", "FloatStorage", "HalfStorage",
           "IntStorage", "LongStorage", "ShortStorage", "TypedStorage", "UntypedStorage"]
