"""Movement primitives: they rearrange, repeat or drop elements and never compute. ``loop="view"`` rows become index
maps in the loop IR, never kernels."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...errors import ShapeError
from .. import build as P
from ..infer import common_device
from ..node import Aval, aval
from ..optable import prim
from ..samples import draw


def _reshape_infer(attrs: Any, x: Aval) -> Aval:
    shape = attrs[0]
    if math.prod(shape) != x.size:
        raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {x.size}")
    return aval(shape, x.dtype, x.device)


prim("reshape", kind="view", attrs=("shape",), infer=_reshape_infer, eval_np=lambda attrs, x: x.reshape(attrs[0]),
     loop="view", vjp=lambda ctx, g: (P.reshape(g, ctx.in_avals[0].shape),), saves=(),
     samples=lambda: [((draw("r", 3, 4),), ((2, 6),)), ((draw("r", 1),), ((),)), ((draw("r", 0, 3),), ((3, 0),))],
     doc="Same elements in C order under another shape.")


def _permute_infer(attrs: Any, x: Aval) -> Aval:
    return aval(tuple([x.shape[p] for p in attrs[0]]), x.dtype, x.device)


def _inverse(perm: tuple[int, ...]) -> tuple[int, ...]:
    inv = [0] * len(perm)
    for i, p in enumerate(perm):
        inv[p] = i
    return tuple(inv)


prim("permute", kind="view", attrs=("perm",), infer=_permute_infer, eval_np=lambda attrs, x: x.transpose(attrs[0]),
     loop="view", vjp=lambda ctx, g: (P.permute(g, _inverse(ctx.attrs[0])),), saves=(),
     samples=lambda: [((draw("p", 2, 3, 4),), ((2, 0, 1),))], doc="Axis i of the result is axis perm[i] of x.")


def _expand_infer(attrs: Any, x: Aval) -> Aval:
    shape = attrs[0]
    lead = len(shape) - x.ndim
    if lead < 0 or any(d != 1 and d != s for d, s in zip(x.shape, shape[lead:])):
        raise ShapeError(f"The expanded size {tuple(shape)} does not fit the existing size {x.shape}: only axes of size 1 "
                         "can be expanded, and new axes go in front")
    return aval(shape, x.dtype, x.device)


prim("expand", kind="view", attrs=("shape",), infer=_expand_infer,
     eval_np=lambda attrs, x: np.broadcast_to(x, attrs[0]), loop="view",
     vjp=lambda ctx, g: (P.sum_to(g, ctx.in_avals[0].shape),), saves=(),
     samples=lambda: [((draw("e", 3, 1),), ((2, 3, 4),)), ((draw("e"),), ((2,),))], doc="Repeat axes of size 1.")


def slice_length(start: int, stop: int, step: int) -> int:
    """Number of elements of a normalised slice."""
    return max(0, -(-(stop - start) // step) if step > 0 else -(-(start - stop) // -step))


def np_index(attrs: Any) -> tuple[slice, ...]:
    """NumPy slices for normalised (starts, stops, steps); a stop of -1 under a negative step means "through 0"."""
    return tuple([slice(a, b if s > 0 or b >= 0 else None, s) for a, b, s in zip(*attrs)])


def _slice_infer(attrs: Any, x: Aval) -> Aval:
    return aval(tuple([slice_length(a, b, s) for a, b, s in zip(*attrs)]), x.dtype, x.device)


def _spread(g: Any, shape: tuple[int, ...], attrs: Any) -> Any:
    """Zeros of ``shape`` with ``g`` (not empty) at a slice of any steps, as movement: gaps are padding."""
    starts, steps, n = list(attrs[0]), [abs(s) for s in attrs[2]], g.shape
    back = [i for i, s in enumerate(attrs[2]) if s < 0]
    for i in back:
        starts[i] += (n[i] - 1) * attrs[2][i]
    turn = [(m - 1, -1, -1) if i in back else (0, m, 1) for i, m in enumerate(n)]
    g = P.slice_(g, *[tuple([t[k] for t in turn]) for k in range(3)])
    blocks = [-(-d // s) for d, s in zip(shape, steps)]  # the result in blocks of a step, one element of g at most in each
    lo, hi = [], []
    for m, n_blocks, a, s in zip(n, blocks, starts, steps):
        lo += [a // s, a % s]
        hi += [n_blocks - a // s - m, s - 1 - a % s]
    g = P.pad(P.reshape(g, tuple([x for m in n for x in (m, 1)])), tuple(lo), tuple(hi))
    g = P.reshape(g, tuple([m * s for m, s in zip(blocks, steps)]))
    return P.slice_(g, (0,) * len(n), shape, (1,) * len(n))


def _slice_vjp(ctx: Any, g: Any) -> Any:
    x = ctx.in_avals[0]
    if g.size and any(s != 1 for s in ctx.attrs[2]):
        return (_spread(g, x.shape, ctx.attrs),)
    zeros = P.full(x.shape, 0, x.dtype, x.device)
    return (P.slice_set(zeros, g, *ctx.attrs),)


prim("slice", kind="view", attrs=("starts", "stops", "steps"), infer=_slice_infer,
     eval_np=lambda attrs, x: x[np_index(attrs)], loop="view", vjp=_slice_vjp, saves=(),
     samples=lambda: [((draw("s", 5, 4),), ((1, 0), (5, 4), (2, 1))), ((draw("s", 5, 4),), ((4, 1), (-1, 3), (-1, 1))),
                      ((draw("s", 5),), ((3,), (3,), (1,)))],
     doc="x[start:stop:step] per axis, normalised.")


def _slice_set_infer(attrs: Any, base: Aval, src: Aval) -> Aval:
    want = tuple([slice_length(a, b, s) for a, b, s in zip(*attrs)])
    if src.shape != want:
        raise ShapeError(f"cannot write a value of shape {src.shape} into a slice of shape {want}")
    common_device("slice_set", base, src)
    return base


def _slice_set_np(attrs: Any, base: np.ndarray, src: np.ndarray) -> np.ndarray:
    out = base.copy()
    out[np_index(attrs)] = src
    return out


def _slice_set_vjp(ctx: Any, g: Any) -> Any:
    base, src = ctx.in_avals
    zeros = P.full(src.shape, 0, src.dtype, src.device)
    return (P.slice_set(g, zeros, *ctx.attrs) if ctx.needs[0] else None, P.slice_(g, *ctx.attrs))


prim("slice_set", kind="index", attrs=("starts", "stops", "steps"), infer=_slice_set_infer, eval_np=_slice_set_np,
     loop="slice_set", vjp=_slice_set_vjp, saves=(),
     samples=lambda: [((draw("s", 5, 4), draw("t", 2, 4)), ((1, 0), (5, 4), (2, 1))),
                      ((draw("s", 5, 4), draw("t", 5, 2)), ((4, 1), (-1, 3), (-1, 1)))],
     doc="The base with a slice replaced.")


def _pad_infer(attrs: Any, x: Aval, value: Aval) -> Aval:
    lo, hi = attrs
    return aval(tuple([d + a + b for d, a, b in zip(x.shape, lo, hi)]), x.dtype, x.device)


def _pad_np(attrs: Any, x: np.ndarray, value: np.ndarray) -> np.ndarray:
    lo, hi = attrs
    out = np.empty(tuple([d + a + b for d, a, b in zip(x.shape, lo, hi)]), x.dtype)
    out[...] = value
    out[tuple([slice(a, a + d) for d, a in zip(x.shape, lo)])] = x
    return out


def _pad_vjp(ctx: Any, g: Any) -> Any:
    lo, _ = ctx.attrs
    shape = ctx.in_avals[0].shape
    inner = P.slice_(g, lo, tuple([a + d for a, d in zip(lo, shape)]), (1,) * len(shape))
    if not ctx.needs[1]:
        return inner, None
    return inner, P.sub(P.sum(g), P.sum(inner))


prim("pad", kind="view", attrs=("lo", "hi"), infer=_pad_infer, eval_np=_pad_np, loop="pad", vjp=_pad_vjp, saves=(),
     samples=lambda: [((draw("p", 2, 3), draw("v")), ((1, 0), (0, 2)))], doc="Surround x with a zero-dim value.")


def _concat_infer(attrs: Any, *xs: Aval) -> Aval:
    axis = attrs[0]
    first = xs[0]
    total = 0
    for i, x in enumerate(xs):
        if x.ndim != first.ndim:
            raise ShapeError(f"Tensors must have same number of dimensions: got {first.ndim} and {x.ndim}")
        for d in range(first.ndim):
            if d != axis and x.shape[d] != first.shape[d]:
                raise ShapeError(f"Sizes of tensors must match except in dimension {axis}. Expected size "
                                 f"{first.shape[d]} but got size {x.shape[d]} for tensor number {i} in the list.")
        total += x.shape[axis]
    return aval((*first.shape[:axis], total, *first.shape[axis + 1:]), first.dtype, common_device("cat", *xs))


def _concat_vjp(ctx: Any, g: Any) -> Any:
    axis, at, out = ctx.attrs[0], 0, []
    for av, need in zip(ctx.in_avals, ctx.needs):
        n = av.shape[axis]
        out.append(P.narrow(g, axis, at, n) if need else None)
        at += n
    return tuple(out)


prim("concat", kind="view", attrs=("axis",), infer=_concat_infer,
     eval_np=lambda attrs, *xs: np.concatenate(xs, attrs[0]), loop="concat", vjp=_concat_vjp, saves=(),
     samples=lambda: [((draw("a", 2, 3), draw("b", 2, 1), draw("c", 2, 0)), (1,))], doc="Join along an axis.")


def _window_infer(attrs: Any, x: Aval) -> Aval:
    axes, sizes, strides, dilations = attrs
    shape = list(x.shape)
    for ax, k, s, d in zip(axes, sizes, strides, dilations):
        span = d * (k - 1) + 1
        if span > shape[ax]:
            raise ShapeError(f"window of {k} with dilation {d} does not fit axis {ax} of size {shape[ax]}")
        shape[ax] = (shape[ax] - span) // s + 1
    return aval((*shape, *sizes), x.dtype, x.device)


def window_np(attrs: Any, x: np.ndarray) -> np.ndarray:
    """Strided view with the window axes appended."""
    axes, sizes, strides, dilations = attrs
    shape, st = list(x.shape), list(x.strides)
    extra = []
    for ax, k, s, d in zip(axes, sizes, strides, dilations):
        extra.append(x.strides[ax] * d)
        shape[ax] = (x.shape[ax] - d * (k - 1) - 1) // s + 1
        st[ax] = x.strides[ax] * s
    return np.lib.stride_tricks.as_strided(x, (*shape, *sizes), (*st, *extra), writeable=False)


prim("window", kind="view", attrs=("axes", "sizes", "strides", "dilations"), infer=_window_infer, eval_np=window_np,
     loop="view", vjp=lambda ctx, g: (P.fold(g, ctx.in_avals[0].shape, *ctx.attrs),), saves=(),
     samples=lambda: [((draw("w", 2, 6, 5),), ((1, 2), (3, 2), (2, 1), (1, 2)))],
     doc="Sliding windows over axes; window axes are appended.")
