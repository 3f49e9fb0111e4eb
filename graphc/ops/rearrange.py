"""Moving elements: flips, rolls, padding, windows, shuffles, grids and combinations. All are copies."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import AutogradError, ShapeError
from ..ir import build as P
from ..ir.recorder import state as recording
from ..tensor import Tensor, wrap
from ..view_steps import STRIDED
from ..views import Alias
from ._common import norm_dim, shape_arg, val
from .convert import fresh
from .joining import atleast_2d, cat, narrow, stack
from .shape import clone, expand, permute, reshape, transpose


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

    return P.take(v, from_array(idx, dev=v.aval.device)._v, d)


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of ``size`` every ``step`` along a dimension, as a new last dimension: a view."""
    ndim = input.ndim
    d = norm_dim(dimension, ndim)
    have = input.shape[d] if ndim else 1
    if size > have:
        raise AutogradError(f"maximum size for tensor at dimension {d} is {have} but size is {size}")
    if size < 0 or step <= 0:
        raise AutogradError(f"size is {size} but must be >= 0" if size < 0 else f"step is {step} but must be > 0")
    if ndim == 0:
        line = input._view("reshape", ((1,),))
        return line if size else narrow(line, 0, 0, 0)
    return input._view("window", ((d,), (size,), (step,), (1,)))


def as_strided(input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
    """A view of the underlying storage by strides in elements. RuntimeError outside of it, or for negative strides."""
    sizes, strides = tuple([int(n) for n in size]), tuple([int(s) for s in stride])
    offset = input.storage_offset() if storage_offset is None else storage_offset
    if len(sizes) != len(strides):
        raise ShapeError("mismatch in length of strides and shape")
    if any(s < 0 for s in strides):
        raise ShapeError(f"as_strided: Negative strides are not supported at the moment, got strides: {list(strides)}")
    a = input._base_alias()
    have = a.storage.value.aval.size
    if 0 not in sizes and not 0 <= offset <= offset + sum([(n - 1) * s for n, s in zip(sizes, strides)]) < have:
        raise ShapeError(f"setStorage: sizes {list(sizes)}, strides {list(strides)}, storage offset {offset} are out of bounds "
                         f"for storage of {have} elements")
    step = (STRIDED, (sizes, strides, offset))
    if a.leaf is not None and recording.grad and a.depth:
        raise NotImplementedError("as_strided of a leaf that requires grad and is a view of other memory: clone() it first")
    out = wrap(a.storage.value)
    out._alias = alias = Alias(a.storage, (step,), a.detached or not recording.grad)
    if a.leaf is not None and recording.grad:
        alias.leaf, alias.depth = a.leaf, 0
    out._v = alias.refresh()
    return out


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
    return wrap(P.take(val(input), from_array(idx, dev=input.device)._v, 0))


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
