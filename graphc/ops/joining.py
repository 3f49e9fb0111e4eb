"""Joining tensors, and cutting them into pieces. Pieces are views that share storage with their input."""
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ..errors import ArgumentTypeError, AutogradError, DimError, ShapeError
from ..ir import build as P
from ..tensor import Tensor
from ._common import norm_dim, numpy_names, result_dtype, to_out, val
from .convert import fresh
from .shape import reshape, unsqueeze


@numpy_names
def cat(tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor | None = None) -> Tensor:
    """Join along an existing dimension; legacy empty 1-D tensors are skipped."""
    if not isinstance(tensors, (list, tuple)):
        raise ArgumentTypeError(f"cat(): argument 'tensors' must be tuple of Tensors, not {type(tensors).__name__}")
    vs = [val(x, "tensors") for x in tensors]
    if not vs:
        raise AutogradError("torch.cat(): expected a non-empty list of Tensors")
    kept = [v for v in vs if v.aval.shape != (0,)] or vs[:1]
    if any(v.aval.ndim == 0 for v in kept):
        raise AutogradError("zero-dimensional tensor (at position 0) cannot be concatenated")
    dt = result_dtype(*vs)
    d = norm_dim(dim, kept[0].aval.ndim)
    v = P.concat(tuple([P.cast(k, dt) for k in kept]), d)
    return to_out(out, fresh(v) if len(kept) == 1 else v)


concat = concatenate = cat


@numpy_names
def stack(tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor | None = None) -> Tensor:
    """Join along a new dimension."""
    vs = [val(x, "tensors") for x in tensors]
    if not vs:
        raise AutogradError("stack expects a non-empty TensorList")
    sh = vs[0].aval.shape
    for i, v in enumerate(vs):
        if v.aval.shape != sh:
            raise ShapeError(f"stack expects each tensor to be equal size, but got {list(sh)} at entry 0 and "
                             f"{list(v.aval.shape)} at entry {i}")
    d = norm_dim(dim, len(sh) + 1)
    dt = result_dtype(*vs)
    return to_out(out, P.concat(tuple([P.unsqueeze(P.cast(v, dt), d) for v in vs]), d))


def hstack(tensors: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor:
    ts = [atleast_1d(x) for x in tensors]
    if not ts:
        raise AutogradError("hstack expects a non-empty TensorList")
    return cat(ts, 0 if ts[0].ndim == 1 else 1, out=out)


def vstack(tensors: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor:
    return cat([atleast_2d(x) for x in tensors], 0, out=out)


row_stack = vstack


def dstack(tensors: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor:
    return cat([atleast_3d(x) for x in tensors], 2, out=out)


def column_stack(tensors: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor:
    return cat([reshape(x, (-1, 1)) if x.ndim <= 1 else x for x in tensors], 1, out=out)


def _many(fn: Any, tensors: Any) -> Any:
    if len(tensors) == 1:
        x = tensors[0]
        return tuple([fn(y) for y in x]) if isinstance(x, (tuple, list)) else fn(x)
    return tuple([fn(y) for y in tensors])


def atleast_1d(*tensors: Any) -> Any:
    return _many(lambda x: reshape(x, (1,)) if x.ndim == 0 else x, tensors)


def atleast_2d(*tensors: Any) -> Any:
    return _many(lambda x: reshape(x, (1, -1)) if x.ndim < 2 else x, tensors)


def atleast_3d(*tensors: Any) -> Any:
    def up(x: Tensor) -> Tensor:
        if x.ndim < 2:
            return reshape(x, (1, -1, 1))
        return unsqueeze(x, -1) if x.ndim == 2 else x

    return _many(up, tensors)


def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """``length`` elements of ``dim`` from ``start`` (view)."""
    if input.ndim == 0:
        raise AutogradError("narrow() cannot be applied to a 0-dim tensor.")
    d = norm_dim(dim, input.ndim)
    n = input.shape[d]
    start = int(start)
    if not -n <= start <= n:
        raise DimError(f"start out of range (expected to be in range of [{-n}, {n}], but got {start})")
    if start < 0:
        start += n
    if length < 0 or start + length > n:
        raise ShapeError(f"start ({start}) + length ({length}) exceeds dimension size ({n}).")
    return input._view("slice", _span(tuple(input.shape), d, start, start + length))


def _span(sh: tuple[int, ...], d: int, start: int, stop: int) -> tuple[tuple[int, ...], ...]:
    """A slice's attributes for part of one dimension."""
    starts, stops = [0] * len(sh), list(sh)
    starts[d], stops[d] = start, stop
    return tuple(starts), tuple(stops), (1,) * len(sh)


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """Drop ``dim`` by taking one position (view)."""
    if input.ndim == 0:
        raise DimError("select() cannot be applied to a 0-dim tensor.")
    d = norm_dim(dim, input.ndim)
    n = input.shape[d]
    if not -n <= index < n:
        raise DimError(f"select(): index {index} out of range for tensor of size {list(input.shape)} at dimension {d}")
    return input._view(*_selected(input._v.aval.shape, d, int(index) % n))


@lru_cache(4096)
def _selected(sh: tuple[int, ...], d: int, index: int) -> tuple[Any, ...]:
    """The movement ops of :func:`select`."""
    return "slice", _span(sh, d, index, index + 1), ("reshape", (sh[:d] + sh[d + 1:],))


@numpy_names
def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Chunks of the given size(s) along ``dim`` (views)."""
    d = norm_dim(dim, tensor.ndim)
    n = tensor.shape[d]
    if isinstance(split_size_or_sections, int):
        k = split_size_or_sections
        if k < 0 or (k == 0 and n):
            raise AutogradError(f"split expects split_size be non-negative, but got split_size={k}")
        sizes = [min(k, n - i) for i in range(0, n, k)] if n else [0]
    else:
        sizes = [int(s) for s in split_size_or_sections]
        if sum(sizes) != n or any(s < 0 for s in sizes):
            raise ShapeError(f"split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size at dimension "
                             f"{d}), but got split_sizes={sizes}")
    out, at = [], 0
    for s in sizes:
        out.append(narrow(tensor, d, at, s))
        at += s
    return tuple(out)


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    return split(input, list(split_sizes), dim)


@numpy_names
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` pieces of equal size, the last possibly smaller."""
    if chunks <= 0:
        raise AutogradError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    d = norm_dim(dim, input.ndim)
    n = input.shape[d]
    if n == 0:
        return tuple([narrow(input, d, 0, 0) for _ in range(chunks)])
    return split(input, -(-n // chunks), d)


@numpy_names
def tensor_split(input: Tensor, indices_or_sections: Any = None, dim: int = 0, *, indices: Any = None,
                 sections: Any = None) -> tuple[Tensor, ...]:
    """Split into n nearly equal parts, or at indices."""
    given = [x for x in (indices_or_sections, indices, sections) if x is not None]
    if len(given) != 1:
        raise TypeError("tensor_split() needs exactly one of indices_or_sections, indices and sections")
    (indices_or_sections,) = given
    d = norm_dim(dim, input.ndim)
    n = input.shape[d]
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, int):
        k = indices_or_sections
        if k <= 0:
            raise AutogradError(f"number of sections must be larger than 0, got {k}")
        return split(input, [n // k + (1 if i < n % k else 0) for i in range(k)], d)
    cuts = [0, *[slice(None, int(i)).indices(n)[1] for i in indices_or_sections], n]
    return tuple([narrow(input, d, min(a, n), max(b - a, 0)) for a, b in zip(cuts, cuts[1:])])


def hsplit(input: Tensor, sections: Any) -> tuple[Tensor, ...]:
    return tensor_split(input, sections, 0 if input.ndim == 1 else 1)


def vsplit(input: Tensor, sections: Any) -> tuple[Tensor, ...]:
    return tensor_split(input, sections, 0)


def dsplit(input: Tensor, sections: Any) -> tuple[Tensor, ...]:
    return tensor_split(input, sections, 2)


@numpy_names
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """All slices along ``dim``, each without it (views)."""
    sh = input._v.aval.shape
    d = norm_dim(dim, len(sh))
    if not sh:
        raise DimError("Dimension specified as 0 but tensor has no dimensions")
    return tuple([input._view(*_selected(sh, d, i)) for i in range(sh[d])])
