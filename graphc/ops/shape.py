"""Shape functions. Those that PyTorch defines as views return tensors that share storage with their input."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import ArgumentTypeError, AutogradError, DimError, ShapeError
from ..ir import build as P
from ..ir.recorder import state as recording
from ..tensor import Size, Tensor, wrap
from ..views import private_alias, reshape_strides
from ._common import norm_dim, norm_dims, result_dtype, shape_arg, to_out, val
from .convert import fresh


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
    if a is None or not a.chain:
        return True
    return reshape_strides(t._v.aval.shape, a.geometry()[0], shape) is not None


def view(input: Tensor, *shape: Any) -> Tensor:
    """The same data under another shape (or dtype), sharing storage. Raises RuntimeError when strides forbid it."""
    from ..dtypes import dtype

    if len(shape) == 1 and isinstance(shape[0], dtype):
        return input if shape[0] is input.dtype else input._view("bitcast", (shape[0],))
    new = infer_size(shape_arg(shape), input.numel())
    if not _viewable(input, new):
        raise ShapeError("view size is not compatible with input tensor's size and stride (at least one dimension spans "
                         "across two contiguous subspaces). Use .reshape(...) instead.")
    return input._view("reshape", (new,))


def reshape(input: Tensor, *shape: Any) -> Tensor:
    """Another shape; a view when strides allow it, else a copy."""
    if not isinstance(input, Tensor):
        raise ArgumentTypeError(f"reshape(): argument 'input' must be Tensor, not {type(input).__name__}")
    new = infer_size(shape_arg(shape), input.numel())
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


def permute(input: Tensor, *dims: Any) -> Tensor:
    """Reorder dimensions (view)."""
    ds = shape_arg(dims)
    n = input.ndim
    if len(ds) != n:
        raise ShapeError("permute(sparse_coo): number of dimensions in the tensor input does not match the length of the "
                         f"desired ordering of dimensions i.e. input.dim() = {n} is not equal to len(dims) = {len(ds)}")
    perm = tuple([norm_dim(d, n) for d in ds])
    if len(set(perm)) != n:
        raise ShapeError("permute(): duplicate dims are not allowed.")
    return input._view("permute", (perm,))


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Swap two dimensions (view)."""
    n = input.ndim
    a, b = norm_dim(dim0, n), norm_dim(dim1, n)
    if n == 0:
        return input._view("permute", ((),))
    perm = list(range(n))
    perm[a], perm[b] = perm[b], perm[a]
    return input._view("permute", (tuple(perm),))


swapaxes = swapdims = transpose


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


def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Drop dimensions of size 1."""
    sh = tuple(input.shape)
    which = range(len(sh)) if dim is None else norm_dims(dim, len(sh), empty_is_all=False)
    return input._view("reshape", (tuple([d for i, d in enumerate(sh) if not (i in which and d == 1)]),))


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """Insert a dimension of size 1."""
    d = norm_dim(dim, input.ndim + 1)
    sh = tuple(input.shape)
    return input._view("reshape", ((*sh[:d], 1, *sh[d:]),))


def expand(input: Tensor, *sizes: Any) -> Tensor:
    """Repeat dimensions of size 1 without copying; -1 keeps a size."""
    want = shape_arg(sizes)
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


broadcast_to = expand


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape all shapes broadcast to."""
    from ..ir.infer import broadcast_shapes as bs

    return Size(bs("broadcast_shapes", *[(s,) if isinstance(s, int) else tuple(s) for s in shapes]))


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    shape = broadcast_shapes(*[tuple(x.shape) for x in tensors])
    return tuple([expand(x, tuple(shape)) for x in tensors])


def repeat(input: Tensor, *sizes: Any) -> Tensor:
    """Tile the tensor (copy)."""
    reps = shape_arg(sizes)
    v = val(input)
    sh = v.aval.shape
    lead = len(reps) - len(sh)
    if lead < 0:
        raise ShapeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    sh = (1,) * lead + sh
    v = P.reshape(v, tuple([x for d in sh for x in (1, d)]))
    v = P.expand(v, tuple([x for r, d in zip(reps, sh) for x in (r, d)]))
    return wrap(P.reshape(v, tuple([r * d for r, d in zip(reps, sh)])))


def tile(input: Tensor, *dims: Any) -> Tensor:
    reps = shape_arg(dims)
    return repeat(input, (1,) * (input.ndim - len(reps)) + reps)


def repeat_interleave(input: Tensor, repeats: Any, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    """Repeat each element ``repeats`` times (an int, or a tensor of counts, which is read on the host)."""
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
    idx = from_array(np.repeat(np.arange(sh[d], dtype=np.int64), counts))
    return wrap(P.take(v, idx._v, d))


# ------------------------------------------------------------------------------------------------- joining, splitting
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
    sh = tuple(input.shape)
    starts, stops = [0] * len(sh), list(sh)
    starts[d], stops[d] = start, start + length
    return input._view("slice", (tuple(starts), tuple(stops), (1,) * len(sh)))


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """Drop ``dim`` by taking one position (view)."""
    if input.ndim == 0:
        raise DimError("select() cannot be applied to a 0-dim tensor.")
    d = norm_dim(dim, input.ndim)
    n = input.shape[d]
    if not -n <= index < n:
        raise DimError(f"select(): index {index} out of range for tensor of size {list(input.shape)} at dimension {d}")
    part = narrow(input, d, index % n, 1)
    return squeeze(part, d)


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


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` pieces of equal size, the last possibly smaller."""
    if chunks <= 0:
        raise AutogradError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    d = norm_dim(dim, input.ndim)
    n = input.shape[d]
    if n == 0:
        return tuple([narrow(input, d, 0, 0) for _ in range(chunks)])
    return split(input, -(-n // chunks), d)


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


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """All slices along ``dim``, each without it (views)."""
    d = norm_dim(dim, input.ndim)
    return tuple([select(input, d, i) for i in range(input.shape[d])])


# --------------------------------------------------------------------------------------------------- moving elements
def flip(input: Tensor, *axes: Any, dims: Any = None) -> Tensor:
    """Reverse dimensions (copy), given as ``flip(x, 0, 1)`` or ``flip(x, dims=(0, 1))``."""
    if dims is not None:
        axes = (dims,) if isinstance(dims, (tuple, list)) else ((dims,),)
    ds = tuple([norm_dim(d, input.ndim) for d in shape_arg(axes)])
    if len(set(ds)) != len(ds):
        raise ShapeError("dim appears multiple times in the list of dims")
    v = val(input)
    return wrap(P.flip(v, ds) if ds and v.aval.ndim else fresh(v))


def fliplr(input: Tensor) -> Tensor:
    if input.ndim < 2:
        raise ShapeError("Input must be >= 2-d.")
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    if input.ndim < 1:
        raise ShapeError("Input must be >= 1-d.")
    return flip(input, 0)


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Rotate by 90 degrees in the plane of ``dims``."""
    if len(dims) != 2:
        raise AutogradError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    a, b = [norm_dim(d, input.ndim) for d in dims]
    if a == b:
        raise AutogradError(f"expected rotation dims to be different, but got dim0 = {a} and dim1 = {b}")
    k %= 4
    if k == 1:
        return transpose(flip(input, b), a, b)
    if k == 2:
        return flip(input, a, b)
    if k == 3:
        return transpose(flip(input, a), a, b)
    return clone(input)


def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Shift elements cyclically."""
    if dims is None or dims == ():
        return reshape(roll(reshape(input, (-1,)), shifts, 0), tuple(input.shape))
    sh = shifts if isinstance(shifts, (tuple, list)) else (shifts,)
    ds = dims if isinstance(dims, (tuple, list)) else (dims,)
    if len(sh) != len(ds):
        raise ShapeError(f"shifts and dimensions must align. shifts: {len(sh)}, dims:{len(ds)}")
    v = val(input)
    for s, d in zip(sh, ds):
        d = norm_dim(d, v.aval.ndim)
        n = v.aval.shape[d]
        if n and s % n:
            k = s % n
            v = P.concat((P.narrow(v, d, n - k, k), P.narrow(v, d, 0, n - k)), d)
    return wrap(v)


def _reflect_index(n: int, lo: int, hi: int, mode: str) -> list[int]:
    out = []
    for i in range(-lo, n + hi):
        if mode == "replicate":
            out.append(min(max(i, 0), n - 1))
        elif mode == "circular":
            out.append(i % n)
        else:
            period = 2 * (n - 1) or 1
            j = i % period
            out.append(j if j < n else period - j)
    return out


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """``nn.functional.pad``: (left, right) pairs from the last dimension backwards; negative sizes crop.

    ``mode``: constant, reflect, replicate or circular.
    """
    v = val(input)
    n = v.aval.ndim
    if len(pad) % 2 or len(pad) > 2 * n:
        raise ShapeError(f"Padding length must be divisible by 2 and at most twice the number of dimensions of the input, "
                         f"got {len(pad)} for a {n}D tensor")
    lo, hi = [0] * n, [0] * n
    for i in range(len(pad) // 2):
        lo[n - 1 - i], hi[n - 1 - i] = int(pad[2 * i]), int(pad[2 * i + 1])
    sh = v.aval.shape
    if any(d + a + b < 0 for d, a, b in zip(sh, lo, hi)):
        raise ShapeError(f"The input size {list(sh)}, plus negative padding {list(pad)}, resulted in a negative output size")
    if mode == "constant":
        starts = tuple([max(0, -a) for a in lo])
        stops = tuple([d - max(0, -b) for d, b in zip(sh, hi)])
        v = P.slice_(v, starts, stops, (1,) * n)
        fill: Any = 0 if value is None else value
        return wrap(P.pad(v, tuple([max(a, 0) for a in lo]), tuple([max(b, 0) for b in hi]), fill))
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    if mode == "circular" and min(*lo, *hi) < 0:  # what is left after cropping is what wraps around
        starts, stops = tuple([max(0, -a) for a in lo]), tuple([d - max(0, -b) for d, b in zip(sh, hi)])
        v = P.slice_(v, starts, stops, (1,) * n)
        sh, lo, hi = v.aval.shape, [max(a, 0) for a in lo], [max(b, 0) for b in hi]
    for d in range(n):
        if lo[d] or hi[d]:
            size = sh[d]
            limit = size - 1 if mode == "reflect" else size
            if mode != "replicate" and max(lo[d], hi[d]) > limit:
                raise ShapeError(f"Padding size should be less than the corresponding input dimension, but got: padding "
                                 f"({lo[d]}, {hi[d]}) at dimension {d} of input {list(sh)}")
            v = _pad_axis(v, d, size, lo[d], hi[d], mode)
    return wrap(v)


def _pad_axis(v: Any, d: int, size: int, lo: int, hi: int, mode: str) -> Any:
    import numpy as np

    idx = np.asarray(_reflect_index(size, lo, hi, mode), np.int64)
    from ..tensor import from_array

    return P.take(v, from_array(idx)._v, d)


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of ``size`` every ``step`` along a dimension, as a new last dimension (a copy here)."""
    v = val(input)
    d = norm_dim(dimension, v.aval.ndim)
    if v.aval.ndim == 0:
        if size > 1:
            raise AutogradError(f"maximum size for tensor at dimension 0 is 1 but size is {size}")
        return wrap(P.reshape(v, (1,)) if size else P.narrow(P.reshape(v, (1,)), 0, 0, 0))
    return wrap(P.window(v, (d,), (size,), (step,), (1,)))


def as_strided(input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
    """Elements of the underlying storage by strides (a copy here: writes do not reach the storage)."""
    import numpy as np

    from ..tensor import from_array

    a = input._alias
    base = val(input) if a is None else a.storage.value
    offset = input.storage_offset() if storage_offset is None else storage_offset
    idx = np.full(tuple(size), offset, np.int64)
    for k, (n, s) in enumerate(zip(size, stride)):
        idx += (np.arange(n, dtype=np.int64) * s).reshape((-1,) + (1,) * (len(size) - 1 - k))
    return wrap(P.take(P.reshape(base, (base.aval.size,)), from_array(idx)._v, 0))


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(*, C*r*r, H, W) -> (*, C, H*r, W*r)."""
    r = upscale_factor
    *lead, c, h, w = input.shape
    if c % (r * r):
        raise ShapeError(f"pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of "
                         f"upscale_factor, but input.size(-3)={c} is not divisible by {r * r}")
    k = len(lead)
    x = reshape(input, (*lead, c // (r * r), r, r, h, w))
    x = permute(x, (*range(k), k, k + 3, k + 1, k + 4, k + 2))
    return reshape(x, (*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """Inverse of :func:`pixel_shuffle`."""
    r = downscale_factor
    *lead, c, h, w = input.shape
    k = len(lead)
    x = reshape(input, (*lead, c, h // r, r, w // r, r))
    x = permute(x, (*range(k), k, k + 2, k + 4, k + 1, k + 3))
    return reshape(x, (*lead, c * r * r, h // r, w // r))


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Interleave channel groups."""
    n, c, *rest = input.shape
    return reshape(transpose(reshape(input, (n, groups, c // groups, *rest)), 1, 2), (n, c, *rest))


def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy with its own storage; gradient flows through."""
    v = val(input)
    return wrap(fresh(v) if recording.grad else private_alias(v))


def contiguous(input: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor itself when its strides are C order, else a copy."""
    if input.is_contiguous():
        return input
    return clone(input)


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Coordinate grids ("ij" matrix order by default, "xy" Cartesian)."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    if indexing not in (None, "ij", "xy"):
        raise AutogradError(f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    swap = indexing == "xy" and len(tensors) >= 2
    ts = list(tensors)
    if swap:
        ts[0], ts[1] = ts[1], ts[0]
    shape = tuple([x.numel() for x in ts])
    out = [expand(reshape(x, tuple([-1 if i == k else 1 for i in range(len(ts))])), shape) for k, x in enumerate(ts)]
    if swap:
        out[0], out[1] = out[1], out[0]
    return tuple(out)


def cartesian_prod(*tensors: Tensor) -> Tensor:
    if len(tensors) == 1:
        return tensors[0]
    return stack([reshape(g, (-1,)) for g in meshgrid(*tensors)], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All length-``r`` combinations of a 1-D tensor."""
    import itertools

    import numpy as np

    from ..tensor import from_array

    pick = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    idx = np.asarray(list(pick(range(input.numel()), r)), np.int64).reshape(-1, r)
    return wrap(P.take(val(input), from_array(idx)._v, 0))


def block_diag(*tensors: Tensor) -> Tensor:
    """Matrices along a diagonal."""
    ms = [atleast_2d(x) for x in tensors]
    cols = sum([m.shape[1] for m in ms])
    out, c = [], 0
    for m in ms:
        out.append(pad(m, (c, cols - c - m.shape[1])))
        c += m.shape[1]
    return cat(out, 0)


def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:
    """n-th forward difference."""
    if n < 0:
        raise AutogradError(f"order must be non-negative but got {n}")
    parts = [x for x in (prepend, input, append) if x is not None] if n else [input]
    x = cat(parts, dim) if len(parts) > 1 else input
    d = norm_dim(dim, x.ndim)
    for _ in range(n):
        k = x.shape[d]
        a, b = narrow(x, d, min(1, k), max(k - 1, 0)), narrow(x, d, 0, max(k - 1, 0))
        x = a != b if x.dtype.category == 0 else a - b
    return x


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


