"""All parameters as one vector, and back."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ... import ops
from ...tensor import Tensor
from ..module import typename

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def _one_device(params: list[Tensor]) -> list[Tensor]:
    if len({p.device for p in params}) > 1:
        raise TypeError("Found two parameters on different devices, this is currently not supported.")
    return params


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The elements of all parameters, one after the other; gradients flow back."""
    return ops.cat([p.view(-1) for p in _one_device(list(parameters))])


def vector_to_parameters(vec: Any, parameters: Iterable[Tensor]) -> None:
    """Make each parameter's data the part of ``vec`` that :func:`parameters_to_vector` would put there.

    Raises:
        TypeError: ``vec`` is not a tensor, or parameters on different devices.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected torch.Tensor, but got: {typename(vec)}")
    start = 0
    for param in _one_device(list(parameters)):
        stop = start + param.numel()
        param.data = vec[start:stop].view_as(param).data
        start = stop
