"""``Variable``: what tensors with gradients were called before PyTorch 0.4; programs still write it."""
from __future__ import annotations

from typing import Any

from ..errors import ArgumentTypeError
from ..tensor import Tensor


class _Meta(type):
    def __instancecheck__(cls, x: Any) -> bool:
        return isinstance(x, Tensor)


class Variable(metaclass=_Meta):
    """``Variable(data, requires_grad=False)`` is a tensor that shares ``data``'s storage; every tensor is an instance."""

    def __new__(cls, data: Any = None, requires_grad: bool = False, volatile: bool | None = None) -> Any:
        if not isinstance(data, Tensor):
            raise ArgumentTypeError(f"Variable data has to be a tensor, but got {type(data).__name__}")
        out = data.detach()
        return out.requires_grad_(True) if requires_grad else out
