"""Shape functions. Those that PyTorch defines as views return tensors that share storage with their input."""
from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ..dtypes import dtype as DType
from ..errors import ArgumentTypeError, AutogradError, ShapeError
from ..ir import build as P
from ..ir.recorder import state as recording
from ..tensor import Size, Tensor, wrap
from ..view_steps import shows
from ..views import private_alias
from ._common import norm_dim, norm_dims, numpy_names, shape_arg, val
from .convert import fresh


@lru_cache(4096)
def infer_size(shape: tuple[int, ...], numel: int) -> tuple[int, ...]:
    """Resolve one -1. Raises RuntimeError with PyTorch's text when it does not fit."""
    unknown = [i for i, d in enumerate(shape) if d == -1]
    if any(d < -1 for d in shape):
        raise ShapeError(f"invalid shape dimension {min(shape)}")
    if len(unknown) > 1:
        raise ShapeError("only one dimension can be inferred")
    if unknown:
        known = math.prod([d for d in shape if d != -1])
        if known == 0:
            raise ShapeError(f"cannot reshape tensor of {numel} elements into shape {list(shape)} because the unspecified "
                             "dimension size -1 can be any value and is ambiguous")
        if numel % known:
            raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {numel}")
        return tuple([numel // known if d == -1 else d for d in shape])
    if math.prod(shape) != numel:
        raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {numel}")
    return shape


def _viewable(t: Tensor, shape: tuple[int, ...]) -> bool:
    a = t._alias
    return a is None or not a.chain or shows(a.storage.value.aval.shape, a.chain, t._v.aval.shape, shape)


def view(input: Tensor, *shape: Any, size: Any = None, dtype: Any = None) -> Tensor:
    """The same data under another shape (or dtype), sharing storage. Raises RuntimeError when strides forbid it."""
    if not shape:
        shape = (size if dtype is None else dtype,) if size is not None or dtype is not None else ()
    if len(shape) == 1 and isinstance(shape[0], DType):
        return input if shape[0] is input.dtype else input._view("bitcast", (shape[0],))
    new = infer_size(shape_arg(shape), input.numel())
    if not _viewable(input, new):
        raise ShapeError("view size is not compatible with input tensor's size and stride (at least one dimension spans "
                         "across two contiguous subspaces). Use .reshape(...) instead.")
    return input._view("reshape", (new,))


def reshape(input: Tensor, *sizes: Any, shape: Any = None) -> Tensor:
    """Another shape; a view when strides allow it, else a copy."""
    if not isinstance(input, Tensor):
        raise ArgumentTypeError(f"reshape(): argument 'input' must be Tensor, not {type(input).__name__}")
    new = infer_size(shape_arg(sizes if shape is None else (shape,)), input.numel())
    if _viewable(input, new):
        return input._view("reshape", (new,))
    return wrap(P.reshape(val(input), new))


def view_as(input: Tensor, other: Tensor) -> Tensor:
    return view(input, tuple(other.shape))


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    return reshape(input, tuple(other.shape))


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merge dimensions start_dim..end_dim into one."""
    sh = tuple(input.shape)
    if not sh:
        return reshape(input, (1,))
    a, b = norm_dim(start_dim, len(sh)), norm_dim(end_dim, len(sh))
    if a > b:
        raise ShapeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if a == b:
        return input
    return reshape(input, (*sh[:a], math.prod(sh[a:b + 1]), *sh[b + 1:]))


def ravel(input: Tensor) -> Tensor:
    return reshape(input, (-1,))


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Split one dimension into ``sizes``."""
    d = norm_dim(dim, input.ndim)
    sh = tuple(input.shape)
    return reshape(input, (*sh[:d], *infer_size(shape_arg((sizes,)), sh[d]), *sh[d + 1:]))


def permute(input: Tensor, *axes: Any, dims: Any = None) -> Tensor:
    """Reorder dimensions (view)."""
    return input._view("permute", _permutation(shape_arg(axes if dims is None else (dims,)), input._v.aval.ndim))


@lru_cache(4096)
def _permutation(ds: tuple[int, ...], n: int) -> tuple[tuple[int, ...]]:
    """The attributes of :func:`permute`, checked."""
    if len(ds) != n:
        raise ShapeError("permute(sparse_coo): number of dimensions in the tensor input does not match the length of the "
                         f"desired ordering of dimensions i.e. input.dim() = {n} is not equal to len(dims) = {len(ds)}")
    perm = tuple([norm_dim(d, n) for d in ds])
    if len(set(perm)) != n:
        raise ShapeError("permute(): duplicate dims are not allowed.")
    return (perm,)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Swap two dimensions (view)."""
    swap = _swap if dim0.__class__ is dim1.__class__ is int else _swap.__wrapped__
    return input._view("permute", swap(dim0, dim1, input._v.aval.ndim))


@lru_cache(4096)
def _swap(dim0: int, dim1: int, n: int) -> tuple[tuple[int, ...]]:
    """The attributes of :func:`transpose`, checked."""
    a, b = norm_dim(dim0, n), norm_dim(dim1, n)
    perm = list(range(n))
    if perm:
        perm[a], perm[b] = perm[b], perm[a]
    return (tuple(perm),)


swapdims = transpose


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """:func:`transpose` under NumPy's name."""
    return transpose(input, axis0, axis1)


def t(input: Tensor) -> Tensor:
    """Transpose of a matrix (vectors and scalars unchanged)."""
    if input.ndim > 2:
        raise ShapeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return input if input.ndim < 2 else transpose(input, 0, 1)


def T(input: Tensor) -> Tensor:
    """All dimensions reversed."""
    return permute(input, tuple(range(input.ndim))[::-1])


def mT(input: Tensor) -> Tensor:
    """Last two dimensions swapped."""
    if input.ndim < 2:
        raise AutogradError("tensor.mT is only supported on matrices or batches of matrices. Got "
                            f"{input.ndim}-D tensor.")
    return transpose(input, -2, -1)


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Move dimensions to new positions."""
    n = input.ndim
    src = [norm_dim(d, n) for d in (source if isinstance(source, (tuple, list)) else (source,))]
    dst = [norm_dim(d, n) for d in (destination if isinstance(destination, (tuple, list)) else (destination,))]
    if len(src) != len(dst):
        raise ShapeError(f"movedim: Invalid source or destination dims: source ({src} dims) should contain the same number "
                         f"of dims as destination ({dst} dims)")
    for what, dims in (("source", src), ("destination", dst)):
        if len(set(dims)) != len(dims):
            raise ShapeError(f"movedim: repeated dim in `{what}` ({dims})")
    order = [d for d in range(n) if d not in src]
    for d, s in sorted(zip(dst, src)):
        order.insert(d, s)
    return permute(input, tuple(order))


moveaxis = movedim


@numpy_names
def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Drop dimensions of size 1."""
    sh = tuple(input.shape)
    which = range(len(sh)) if dim is None else norm_dims(dim, len(sh), empty_is_all=False)
    return input._view("reshape", (tuple([d for i, d in enumerate(sh) if not (i in which and d == 1)]),))


@numpy_names
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """Insert a dimension of size 1."""
    d = norm_dim(dim, input.ndim + 1)
    sh = tuple(input.shape)
    return input._view("reshape", ((*sh[:d], 1, *sh[d:]),))


def expand(input: Tensor, *sizes: Any, size: Any = None, implicit: bool = False) -> Tensor:
    """Repeat dimensions of size 1 without copying; -1 keeps a size."""
    want = shape_arg(sizes if size is None else (size,))
    sh = tuple(input.shape)
    lead = len(want) - len(sh)
    if lead < 0:
        raise ShapeError(f"expand({list(sh)}, size={list(want)}): the number of sizes provided ({len(want)}) must be greater "
                         f"or equal to the number of dimensions in the tensor ({len(sh)})")
    out = []
    for i, d in enumerate(want):
        if d == -1:
            if i < lead:
                raise ShapeError(f"expand({list(sh)}, size={list(want)}): -1 not allowed in a leading, non-existing "
                                 f"dimension {i}")
            d = sh[i - lead]
        elif i >= lead and sh[i - lead] not in (1, d):
            raise ShapeError(f"The expanded size of the tensor ({d}) must match the existing size ({sh[i - lead]}) at "
                             f"non-singleton dimension {i}.  Target sizes: {list(want)}.  Tensor sizes: {list(sh)}")
        out.append(d)
    return input._view("expand", (tuple(out),))


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    return expand(input, tuple(other.shape))


def broadcast_to(input: Tensor, *sizes: Any, size: Any = None, shape: Any = None) -> Tensor:
    """:func:`expand` under NumPy's name."""
    return expand(input, *sizes, size=shape if size is None else size)


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape all shapes broadcast to."""
    from ..ir.infer import broadcast_shapes as bs

    return Size(bs("broadcast_shapes", *[(s,) if isinstance(s, int) else tuple(s) for s in shapes]))


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    shape = broadcast_shapes(*[tuple(x.shape) for x in tensors])
    return tuple([expand(x, tuple(shape)) for x in tensors])


def repeat(input: Tensor, *sizes: Any, repeats: Any = None) -> Tensor:
    """Tile the tensor (copy)."""
    reps = shape_arg(sizes if repeats is None else (repeats,))
    v = val(input)
    sh = v.aval.shape
    lead = len(reps) - len(sh)
    if lead < 0:
        raise ShapeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    sh = (1,) * lead + sh
    v = P.reshape(v, tuple([x for d in sh for x in (1, d)]))
    v = P.expand(v, tuple([x for r, d in zip(reps, sh) for x in (r, d)]))
    return wrap(P.reshape(v, tuple([r * d for r, d in zip(reps, sh)])))


def tile(input: Tensor, *sizes: Any, dims: Any = None) -> Tensor:
    """:func:`repeat`, where missing leading counts are 1."""
    reps = shape_arg(sizes if dims is None else (dims,))
    return repeat(input, (1,) * (input.ndim - len(reps)) + reps)


def repeat_interleave(input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    """Repeat each element ``repeats`` times (an int, or a tensor of counts, which is read on the host). With
    ``input`` alone, that is the counts: each index as often as its count says."""
    if repeats is None:
        from .creation import arange

        return repeat_interleave(arange(input.shape[0], device=input.device), input, 0)
    if dim is None:
        input, dim = reshape(input, (-1,)), 0
    d = norm_dim(dim, input.ndim)
    if isinstance(repeats, Tensor) and repeats.numel() == 1:
        repeats = int(repeats.item())
    v = val(input)
    sh = v.aval.shape
    if isinstance(repeats, int):
        v = P.expand(P.unsqueeze(v, d + 1), (*sh[:d + 1], repeats, *sh[d + 1:]))
        return wrap(P.reshape(v, (*sh[:d], sh[d] * repeats, *sh[d + 1:])))
    import numpy as np

    from ..tensor import from_array

    counts = np.asarray(repeats.tolist())
    if counts.shape != (sh[d],):
        raise ShapeError(f"repeats must have the same size as input along dim, but got repeats.size(0) = {counts.size} and "
                         f"input.size({d}) = {sh[d]}")
    idx = from_array(np.repeat(np.arange(sh[d], dtype=np.int64), counts), dev=v.aval.device)
    return wrap(P.take(v, idx._v, d))


def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy with its own storage; gradient flows through."""
    v = val(input)
    return wrap(fresh(v) if recording.grad else private_alias(v))


def contiguous(input: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor itself when its strides are C order, else a copy."""
    if input.is_contiguous():
        return input
    return clone(input)


def numel(input: Tensor) -> int:
    return input.numel()


def is_tensor(obj: Any) -> bool:
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:
    return input.dtype.is_floating_point


def is_complex(input: Tensor) -> bool:
    return input.dtype.is_complex


def is_nonzero(input: Tensor) -> bool:
    return bool(input)
