"""Functions over Values: the language in which vjp rules, expansions and ``graphc.ops`` are written.

``mul(a, b)`` records one ``mul`` node. Operands must already share a dtype; a Python number becomes a constant of the
other operand's dtype. ``sum_to`` undoes broadcasting. User-level promotion lives in ``graphc.ops``.
"""
from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..device import CPU, device
from ..dtypes import as_dtype, bool_, dtype
from .node import Value
from .optable import OPS
from .recorder import apply, scalar_buffer, state

Operand = Any  # Value or Python number
_PLAIN = (bool, int, float)


@lru_cache(10_000, typed=True)
def _constant(number: Any, dt: dtype) -> tuple[bytes, dtype]:
    return scalar_buffer(number, dt).tobytes(), dt


def const(number: Any, dt: dtype) -> Value:
    """A constant of the program itself (not a run-time slot)."""
    known = number and number.__class__ in _PLAIN  # (zeros differ in sign, and are equal)
    return apply(OPS["const"], (), (_constant if known else _constant.__wrapped__)(number, dt))  # type: ignore[no-any-return]


def const_number(attrs: Any) -> Any:
    """The number of a ``const`` node's attributes."""
    return np.frombuffer(attrs[0], attrs[1].np)[0]


def full_like(v: Value, number: Any) -> Value:
    """``number`` broadcast to the shape, dtype and device of ``v``."""
    return full(v.aval.shape, number, v.aval.dtype, v.aval.device)


def full(shape: tuple[int, ...], number: Any, dt: dtype, dev: device = CPU) -> Value:
    c = const(number, dt)
    if dev is not CPU:
        c = to_device(c, dev)
    return expand(c, shape) if shape else c


def _pair(a: Operand, b: Operand) -> tuple[Value, Value]:
    if a.__class__ is Value and b.__class__ is Value:
        return a, b
    if not isinstance(a, Value):
        return const(a, b.aval.dtype), b
    if not isinstance(b, Value):
        return a, const(b, a.aval.dtype)
    return a, b


def _unary(name: str) -> Any:
    def fn(x: Value) -> Value:
        return apply(OPS[name], (x,))

    fn.__name__ = name
    return fn


def _binary(name: str) -> Any:
    def fn(a: Operand, b: Operand) -> Value:
        return apply(OPS[name], _pair(a, b))

    fn.__name__ = name
    return fn


neg, exp, exp2, expm1, log, log2, log10, log1p = map(
    _unary, ("neg", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p"))
sin, cos, tan, asin, acos, atan = map(_unary, ("sin", "cos", "tan", "asin", "acos", "atan"))
sinh, cosh, tanh, asinh, acosh, atanh = map(_unary, ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh"))
erf, erfc, erfinv, lgamma, digamma = map(_unary, ("erf", "erfc", "erfinv", "lgamma", "digamma"))
sqrt, rsqrt, reciprocal, abs, sign = map(_unary, ("sqrt", "rsqrt", "reciprocal", "abs", "sign"))
floor, ceil, round, trunc, isnan, isinf, logical_not, bit_not = map(
    _unary, ("floor", "ceil", "round", "trunc", "isnan", "isinf", "logical_not", "bit_not"))
add, sub, mul, div, pow, maximum, minimum = map(_binary, ("add", "sub", "mul", "div", "pow", "maximum", "minimum"))
fmod, remainder, floordiv, atan2 = map(_binary, ("fmod", "remainder", "floordiv", "atan2"))
eq, ne, lt, le = map(_binary, ("eq", "ne", "lt", "le"))
bit_and, bit_or, bit_xor, shl, shr = map(_binary, ("bit_and", "bit_or", "bit_xor", "shl", "shr"))


def gt(a: Operand, b: Operand) -> Value:
    a, b = _pair(a, b)
    return lt(b, a)


def ge(a: Operand, b: Operand) -> Value:
    a, b = _pair(a, b)
    return le(b, a)


def where(c: Value, a: Operand, b: Operand) -> Value:
    """``a`` where ``c`` (bool) else ``b``."""
    return apply(OPS["where"], (c, *_pair(a, b)))


def cast(x: Value, dt: dtype) -> Value:
    """Convert the dtype; no node when it is the same already."""
    if x.aval.dtype is dt:
        return x
    if dt.__class__ is not dtype:
        return cast(x, as_dtype(dt))
    if dt.category < 2 and x.gfn is not None and state.grad:  # integers carry no gradient
        state.grad = False
        try:
            return apply(OPS["cast"], (x,), (dt,))
        finally:
            state.grad = True
    return apply(OPS["cast"], (x,), (dt,))


def to_device(x: Value, dev: device) -> Value:
    if x.aval.device is dev:
        return x
    if x.aval.device.type == "meta":
        raise NotImplementedError("Cannot copy out of meta tensor; no data! Please use torch.nn.Module.to_empty() instead of "
                                  "torch.nn.Module.to() when moving module from meta to a different device.")
    return apply(OPS["copy"], (x,), (dev,))


# ---------------------------------------------------------------------------------------------------------- movement
def reshape(x: Value, shape: tuple[int, ...]) -> Value:
    return x if x.aval.shape == shape else apply(OPS["reshape"], (x,), (shape,))


def permute(x: Value, perm: tuple[int, ...]) -> Value:
    return x if perm == tuple(range(len(perm))) else apply(OPS["permute"], (x,), (perm,))


def transpose(x: Value, a: int = -2, b: int = -1) -> Value:
    perm = list(range(x.aval.ndim))
    perm[a], perm[b] = perm[b], perm[a]
    return permute(x, tuple(perm))


def expand(x: Value, shape: tuple[int, ...]) -> Value:
    """Broadcast to ``shape`` (leading axes may be added)."""
    return x if x.aval.shape == shape else apply(OPS["expand"], (x,), (shape,))


def slice_(x: Value, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]) -> Value:
    """``x[starts:stops:steps]`` on every axis; normalised: start in range, step may be negative (stop exclusive,
    -1 meaning before the first element)."""
    sh = x.aval.shape
    if all(a == 0 and b == d and s == 1 for a, b, s, d in zip(starts, stops, steps, sh)):
        return x
    return apply(OPS["slice"], (x,), (starts, stops, steps))


def narrow(x: Value, axis: int, start: int, length: int) -> Value:
    sh = x.aval.shape
    starts, stops = [0] * len(sh), list(sh)
    starts[axis], stops[axis] = start, start + length
    return slice_(x, tuple(starts), tuple(stops), (1,) * len(sh))


def slice_set(base: Value, src: Value, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]) -> Value:
    """``base`` with ``base[starts:stops:steps] = src``."""
    return apply(OPS["slice_set"], (base, src), (starts, stops, steps))


def flip(x: Value, axes: tuple[int, ...]) -> Value:
    sh = x.aval.shape
    neg_axes = {a % len(sh) for a in axes}
    starts = tuple(d - 1 if i in neg_axes else 0 for i, d in enumerate(sh))
    stops = tuple(-1 if i in neg_axes else d for i, d in enumerate(sh))
    return slice_(x, starts, stops, tuple(-1 if i in neg_axes else 1 for i in range(len(sh))))


def pad(x: Value, lo: tuple[int, ...], hi: tuple[int, ...], value: Operand = 0) -> Value:
    """Surround with ``value``; ``lo``/``hi`` must not be negative."""
    if not any(lo) and not any(hi):
        return x
    v = value if isinstance(value, Value) else const(value, x.aval.dtype)
    return apply(OPS["pad"], (x, v), (lo, hi))


def concat(xs: tuple[Value, ...], axis: int) -> Value:
    return xs[0] if len(xs) == 1 else apply(OPS["concat"], tuple(xs), (axis,))


def window(x: Value, axes: tuple[int, ...], sizes: tuple[int, ...], strides: tuple[int, ...],
           dilations: tuple[int, ...]) -> Value:
    """Sliding windows over ``axes``; the window axes are appended at the end, in order."""
    return apply(OPS["window"], (x,), (axes, sizes, strides, dilations))


def fold(g: Value, shape: tuple[int, ...], axes: tuple[int, ...], sizes: tuple[int, ...], strides: tuple[int, ...],
         dilations: tuple[int, ...]) -> Value:
    """Windows added into zeros of ``shape``, the adjoint of :func:`window`; only movement where windows do not overlap."""
    if strides != sizes or any(d != 1 and n != 1 for d, n in zip(dilations, sizes)):
        return apply(OPS["fold"], (g,), (shape, axes, sizes, strides, dilations))
    nd = len(shape)
    perm, inner = [], list(g.aval.shape[:nd])
    for a in range(nd):
        perm.append(a)
        if a in axes:
            perm.append(nd + axes.index(a))
            inner[a] *= sizes[axes.index(a)]
    whole = reshape(permute(g, tuple(perm)), tuple(inner))
    return pad(whole, (0,) * nd, tuple([n - m for n, m in zip(shape, inner)]))


def unsqueeze(x: Value, axis: int) -> Value:
    sh = x.aval.shape
    return reshape(x, (*sh[:axis], 1, *sh[axis:]))


def sum_to(g: Value, shape: tuple[int, ...]) -> Value:
    """Sum ``g`` over the axes broadcasting added or stretched, giving ``shape``."""
    have = g.aval.shape
    if have == shape:
        return g
    lead = len(have) - len(shape)
    axes = tuple(range(lead)) + tuple(i + lead for i, d in enumerate(shape) if d == 1 and have[i + lead] != 1)
    out = reduce("add", g, axes) if axes else g
    return reshape(out, shape)


# --------------------------------------------------------------------------------------------- reductions and the rest
def reduce(kind: str, x: Value, axes: tuple[int, ...], keepdim: bool = False) -> Value:
    """Reduce by monoid ``kind`` (add, mul, max, min, any, all) over ``axes`` (non-negative, sorted)."""
    if not axes:
        return x
    out = apply(OPS["reduce"], (x,), (kind, axes))
    if keepdim:
        out = reshape(out, tuple(1 if i in axes else d for i, d in enumerate(x.aval.shape)))
    return out


def sum(x: Value, axes: tuple[int, ...] | None = None, keepdim: bool = False) -> Value:
    return reduce("add", x, tuple(range(x.aval.ndim)) if axes is None else axes, keepdim)


def argreduce(kind: str, x: Value, axis: int) -> Value:
    """Index of the first maximum or minimum along ``axis`` (int64); NaN counts as the extreme."""
    return apply(OPS["argreduce"], (x,), (kind, axis))


def scan(kind: str, x: Value, axis: int, reverse: bool = False) -> Value:
    """Inclusive scan by ``kind`` (add, mul, max, min, logaddexp) along ``axis``."""
    return apply(OPS["scan"], (x,), (kind, axis, reverse))


def contract(a: Value, b: Value, batch: tuple[tuple[int, ...], tuple[int, ...]],
             dims: tuple[tuple[int, ...], tuple[int, ...]]) -> Value:
    """Generalised product: result axes are batch, a's free, b's free. ``dims`` are summed."""
    return apply(OPS["contract"], (a, b), (batch[0], batch[1], dims[0], dims[1]))


def matmul(a: Value, b: Value) -> Value:
    """(..., M, K) x (..., K, N) with equal leading axes."""
    n = a.aval.ndim - 2
    lead = tuple(range(n))
    return contract(a, b, (lead, lead), ((n + 1,), (n,)))


def iota(n: int, dt: dtype, dev: device = CPU) -> Value:
    """0, 1, ..., n-1."""
    return apply(OPS["iota"], (), (n, dt, dev))


def iota_like(x: Value, axis: int, dt: dtype) -> Value:
    """Index along ``axis``, shaped to broadcast against ``x``."""
    nd = x.aval.ndim
    axis %= nd
    n = x.aval.shape[axis]
    return reshape(iota(n, dt, x.aval.device), tuple(n if i == axis else 1 for i in range(nd)))


def take(x: Value, idx: Value, axis: int, wrap: bool = False) -> Value:
    """Select along ``axis`` by an integer array of any shape: x.shape[:axis] + idx.shape + x.shape[axis+1:]."""
    return apply(OPS["take"], (x, idx), (axis, wrap))


def take_put(base: Value, idx: Value, src: Value, axis: int, mode: str = "add", wrap: bool = False) -> Value:
    """``base`` with ``src`` (shaped like take(base, idx)) combined in by ``mode`` (set, add, mul, max, min)."""
    return apply(OPS["take_put"], (base, idx, src), (axis, mode, wrap))


def gather(x: Value, idx: Value, axis: int) -> Value:
    """out[i..] = x[.., idx[i..], ..] along ``axis``; idx may be smaller than x on the other axes."""
    return apply(OPS["gather"], (x, idx), (axis,))


def scatter(base: Value, idx: Value, src: Value, axis: int, mode: str = "set") -> Value:
    """``base`` with src combined in at ``idx`` along ``axis`` (set, add, mul, max, min); src at least as large as idx."""
    return apply(OPS["scatter"], (base, idx, src), (axis, mode))


def sort(x: Value, axis: int, descending: bool = False, stable: bool = True) -> tuple[Value, Value]:
    """(values, int64 indices) along ``axis``; NaN sorts as largest."""
    return apply(OPS["sort"], (x,), (axis, descending, stable))


def zeros_like(x: Value) -> Value:
    return full_like(x, 0)


def as_bool(x: Value) -> Value:
    return x if x.aval.dtype is bool_ else ne(x, 0)

