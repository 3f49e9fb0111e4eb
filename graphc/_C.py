"""The names of ``torch._C`` that programs use: how to keep ``__torch_function__`` from being asked."""
from __future__ import annotations

from .tensor import Tensor as TensorBase
from .tensor_overriding import LOCAL, DisableTorchFunction, DisableTorchFunctionSubclass
from .tensor_overriding import disabled_torch_function_impl as _disabled_torch_function_impl

_TensorBase = TensorBase


def _is_torch_function_enabled() -> bool:
    """Whether subclasses are asked on this thread."""
    return LOCAL.subclasses


def _is_torch_function_all_disabled() -> bool:
    """Whether neither subclasses nor modes are asked on this thread."""
    return not LOCAL.subclasses and not LOCAL.all


__all__ = ["DisableTorchFunction", "DisableTorchFunctionSubclass", "TensorBase", "_TensorBase", "_disabled_torch_function_impl"]
