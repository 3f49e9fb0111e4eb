"""Views written into copies (``select_scatter`` ...) and views as copies (``view_copy`` ...)."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..tensor import Tensor, from_array
from . import joining, rearrange, shape
from .indexing import diagonal
from .rearrange import as_strided
from .shape import clone


def _written(base: Tensor, view: Any, src: Tensor, name: str) -> Tensor:
    """A copy of ``base`` whose ``view(copy)`` holds ``src``; gradients flow to both."""
    out = clone(base)
    part = view(out)
    if tuple(part.shape) != tuple(src.shape):
        raise ShapeError(f"{name}: expected src to have a size equal to the slice of self. src size = {list(src.shape)}, slice "
                         f"size = {list(part.shape)}")
    part.copy_(src)
    return out


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """``input`` with ``input.select(dim, index)`` replaced by ``src``."""
    return _written(input, lambda t: t.select(dim, index), src, "select_scatter")


def slice_scatter(input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None,
                  step: int = 1) -> Tensor:
    """``input`` with ``input[start:end:step]`` along ``dim`` replaced by ``src``."""
    before = (slice(None),) * (dim % input.ndim)
    return _written(input, lambda t: t[before + (slice(start, end, step),)], src, "slice_scatter")


def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """``input`` with its diagonal replaced by ``src``."""
    return _written(input, lambda t: diagonal(t, offset, dim1, dim2), src, "diagonal_scatter")


def as_strided_scatter(input: Tensor, src: Tensor, size: Sequence[int], stride: Sequence[int],
                       storage_offset: int | None = None) -> Tensor:
    """``input`` with what ``input.as_strided(size, stride, storage_offset)`` shows replaced by ``src``."""
    if tuple(src.shape) != tuple(size):
        raise ShapeError(f"expected src to have a size equal to the slice of self. src size = {list(src.shape)}, slice size = "
                         f"{list(size)}")
    at = np.full(tuple(size), storage_offset or 0, np.int64)
    for k, (n, s) in enumerate(zip(size, stride)):
        at += (np.arange(n, dtype=np.int64) * s).reshape((-1,) + (1,) * (len(size) - 1 - k))
    flat = clone(input).reshape(-1)
    return flat.index_put((from_array(at.reshape(-1), dev=input.device),), src.reshape(-1)).reshape(tuple(input.shape))


def _copy_of(name: str, view: Any) -> Any:
    def f(input: Tensor, *args: Any, out: Tensor | None = None, **kwargs: Any) -> Any:
        made = view(input, *args, **kwargs)
        if isinstance(made, (tuple, list)):
            return tuple([clone(t) for t in made])
        return clone(made) if out is None else out.copy_(made)

    f.__name__, f.__doc__ = name + "_copy", f"A copy of what :func:`{name}` views."
    return f


expand_copy, permute_copy = _copy_of("expand", shape.expand), _copy_of("permute", shape.permute)
narrow_copy, select_copy = _copy_of("narrow", joining.narrow), _copy_of("select", joining.select)
squeeze_copy, unsqueeze_copy = _copy_of("squeeze", shape.squeeze), _copy_of("unsqueeze", shape.unsqueeze)
t_copy, transpose_copy = _copy_of("t", shape.t), _copy_of("transpose", shape.transpose)
unbind_copy, split_copy = _copy_of("unbind", joining.unbind), _copy_of("split", joining.split)
split_with_sizes_copy = _copy_of("split_with_sizes", joining.split_with_sizes)
view_copy, unfold_copy = _copy_of("view", shape.view), _copy_of("unfold", rearrange.unfold)
diagonal_copy, as_strided_copy = _copy_of("diagonal", diagonal), _copy_of("as_strided", as_strided)
detach_copy = _copy_of("detach", Tensor.detach)

NAMES = ["as_strided_scatter", "select_scatter", "slice_scatter", "diagonal_scatter", "expand_copy", "permute_copy",
         "narrow_copy", "select_copy", "squeeze_copy", "unsqueeze_copy", "t_copy", "transpose_copy", "unbind_copy",
         "split_copy", "split_with_sizes_copy", "view_copy", "unfold_copy", "diagonal_copy", "as_strided_copy", "detach_copy"]
METHODS = ["as_strided_scatter", "select_scatter", "slice_scatter", "diagonal_scatter", "narrow_copy"]
