"""einops on graphc's tensors. Importing this module once makes every function of the package einops take them::

    import graphc.utils.einops
    from einops import rearrange

or take the functions from here: ``from graphc.utils.einops import rearrange, reduce, repeat, einsum, pack, unpack``, and the
layers ``Rearrange`` and ``Reduce``. Needs the package einops (0.8 or newer), and nothing of PyTorch.
"""
from __future__ import annotations

import importlib
from typing import Any

from .. import ops
from ..nn.module import Module
from ..tensor import Tensor, from_numpy, to_numpy

_einops: Any = importlib.import_module("einops")
_backends: Any = importlib.import_module("einops._backends")
_layers: Any = importlib.import_module("einops.layers")


class GraphcBackend(_backends.AbstractBackend):  # type: ignore[misc]
    """What einops asks of a library; einops finds it among the subclasses of its base class."""

    framework_name = "graphc"

    def is_appropriate_type(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor)

    def from_numpy(self, x: Any) -> Tensor:
        t = from_numpy(x)
        return t.requires_grad_() if t.is_floating_point() else t

    def to_numpy(self, x: Tensor) -> Any:
        return to_numpy(x.detach())

    def arange(self, start: int, stop: int) -> Tensor:
        return ops.arange(start, stop)

    def shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape)

    def reshape(self, x: Tensor, shape: Any) -> Tensor:
        return x.reshape(tuple(shape))

    def transpose(self, x: Tensor, axes: Any) -> Tensor:
        return x.permute(tuple(axes))

    def reduce(self, x: Tensor, operation: str, axes: Any) -> Tensor:
        """"min", "max", "sum", "mean", "prod", "any" or "all" over ``axes``."""
        if operation not in ("min", "max", "sum", "mean", "prod", "any", "all"):
            raise NotImplementedError("Unknown reduction ", operation)
        if operation == "prod":
            for axis in sorted(axes, reverse=True):
                x = x.prod(axis)
            return x
        return getattr(x, {"min": "amin", "max": "amax"}.get(operation, operation))(dim=tuple(axes))

    def stack_on_zeroth_dimension(self, tensors: list[Tensor]) -> Tensor:
        return ops.stack(tensors)

    def add_axis(self, x: Tensor, new_position: int) -> Tensor:
        return x.unsqueeze(new_position)

    def add_axes(self, x: Tensor, n_axes: int, pos2len: dict[int, int]) -> Tensor:
        sizes = [-1] * n_axes
        for position, length in pos2len.items():
            x = x.unsqueeze(position)
            sizes[position] = length
        return x.expand(tuple(sizes))

    def tile(self, x: Tensor, repeats: Any) -> Tensor:
        return x.repeat(tuple(repeats))

    def concat(self, tensors: Any, axis: int) -> Tensor:
        return ops.cat(list(tensors), axis)

    def is_float_type(self, x: Tensor) -> bool:
        return x.is_floating_point()

    def einsum(self, pattern: str, *x: Tensor) -> Tensor:
        return ops.einsum(pattern, *x)


class Rearrange(_layers.RearrangeMixin, Module):  # type: ignore[misc]
    """``einops.rearrange`` as a layer."""

    def forward(self, input: Tensor) -> Tensor:
        return self._apply_recipe(input)


class Reduce(_layers.ReduceMixin, Module):  # type: ignore[misc]
    """``einops.reduce`` as a layer."""

    def forward(self, input: Tensor) -> Tensor:
        return self._apply_recipe(input)


rearrange, reduce, repeat, einsum, pack, unpack = (
    getattr(_einops, name) for name in ("rearrange", "reduce", "repeat", "einsum", "pack", "unpack"))
__all__ = ["Rearrange", "Reduce", "einsum", "pack", "rearrange", "reduce", "repeat", "unpack"]
