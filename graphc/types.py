"""``torch.types``: names for annotations."""
from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

from .device import device as _device_class
from .dtypes import dtype as _dtype_class
from .tensor import Size, Tensor

Number = builtins.int | builtins.float | builtins.bool
_int, _float, _bool, _complex = builtins.int, builtins.float, builtins.bool, builtins.complex
_dtype, _device, _size, _layout = _dtype_class, _device_class, Size | list[int] | tuple[int, ...], str
Device = _device_class | str | builtins.int | None
TensorOrTensors = Tensor | Sequence[Tensor]
FileLike: Any = Any

__all__ = ["Device", "FileLike", "Number", "TensorOrTensors"]
