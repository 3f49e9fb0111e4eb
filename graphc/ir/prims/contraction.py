"""Contractions: generalised products summed over axes."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...errors import DTypeError, ShapeError
from .. import build as P
from ..infer import common_device
from ..node import Aval, aval
from ..optable import OPS, prim
from ..recorder import apply
from ..samples import draw


def _free(nd: int, batch: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([i for i in range(nd) if i not in batch and i not in dims])


def _contract_infer(attrs: Any, a: Aval, b: Aval) -> Aval:
    ba, bb, da, db = attrs
    if a.dtype is not b.dtype:
        raise DTypeError("expected both operands of a product to have the same dtype, but got: "
                         f"{a.dtype.name} != {b.dtype.name}")
    if a.dtype.category == 0:
        raise DTypeError('"matmul" not implemented for \'Bool\'')
    for i, j in zip(ba + da, bb + db):
        if a.shape[i] != b.shape[j]:
            raise ShapeError(f"product of shapes {a.shape} and {b.shape}: axis {i} ({a.shape[i]}) does not match axis {j} "
                             f"({b.shape[j]})")
    shape = tuple([a.shape[i] for i in ba] + [a.shape[i] for i in _free(a.ndim, ba, da)]
                  + [b.shape[i] for i in _free(b.ndim, bb, db)])
    return aval(shape, a.dtype, common_device("matmul", a, b))


def _contract_np(attrs: Any, a: np.ndarray, b: np.ndarray) -> Any:
    ba, bb, da, db = attrs
    dt = a.dtype
    if dt.itemsize == 2 and dt.kind not in "iu":
        a, b = a.astype(np.float32), b.astype(np.float32)
    fa, fb = _free(a.ndim, ba, da), _free(b.ndim, bb, db)
    batch = tuple([a.shape[i] for i in ba])
    sa, sb = [a.shape[i] for i in fa], [b.shape[i] for i in fb]
    k = math.prod([a.shape[i] for i in da])
    am = a.transpose(ba + fa + da).reshape(*batch, math.prod(sa), k)
    bm = b.transpose(bb + db + fb).reshape(*batch, k, math.prod(sb))
    return np.matmul(am, bm).reshape((*batch, *sa, *sb)).astype(dt, copy=False)


def _contract_vjp(ctx: Any, g: Any) -> Any:
    ba, bb, da, db = ctx.attrs
    a, b = ctx.ins
    fa, fb = _free(a.ndim, ba, da), _free(b.ndim, bb, db)
    nb = len(ba)
    gbatch = tuple(range(nb))
    g_a = tuple(range(nb, nb + len(fa)))
    g_b = tuple(range(nb + len(fa), nb + len(fa) + len(fb)))
    ga = gb = None
    if ctx.needs[0]:  # batch, fa, then da in b's remaining order
        r = P.contract(g, b, (gbatch, bb), (g_b, fb))
        order = [da[db.index(i)] for i in _free(b.ndim, bb, fb)]
        ga = P.permute(r, _unorder(ba + fa + tuple(order)))
    if ctx.needs[1]:
        r = P.contract(a, g, (ba, gbatch), (fa, g_a))
        order = [db[da.index(i)] for i in _free(a.ndim, ba, fa)]
        gb = P.permute(r, _unorder(bb + tuple(order) + fb))
    return ga, gb


def _unorder(axes: tuple[int, ...]) -> tuple[int, ...]:
    inv = [0] * len(axes)
    for i, p in enumerate(axes):
        inv[p] = i
    return tuple(inv)


prim("contract", kind="contract", attrs=("batch_a", "batch_b", "dims_a", "dims_b"), infer=_contract_infer,
     eval_np=_contract_np, loop="contract", vjp=_contract_vjp, saves=(0, 1),
     samples=lambda: [((draw("a", 3, 4), draw("b", 4, 2)), ((), (), (1,), (0,))),
                      ((draw("a", 2, 3, 4), draw("b", 2, 5, 4)), ((0,), (0,), (2,), (2,))),
                      ((draw("a", 3, 2, 4), draw("b", 4, 5, 2)), ((), (), (1, 2), (2, 0))),
                      ((draw("a", 3, 0), draw("b", 0, 2)), ((), (), (1,), (0,)))],
     doc="Product summed over dims: batch axes, a's free axes, b's free axes.")


# ---------------------------------------------------------------------------------------------------------- convolution
# conv, its gradient to the input and its gradient to the weight are three bilinear primitives closed under
# differentiation: each one's vjp uses the other two.
def _conv_sizes(x: tuple[int, ...], k: tuple[int, ...], attrs: Any) -> tuple[int, ...]:
    stride, lo, hi, dilation = attrs[:4]
    return tuple([(n + a + b - d * (m - 1) - 1) // s + 1 for n, m, s, a, b, d in zip(x, k, stride, lo, hi, dilation)])


def _conv_infer(attrs: Any, x: Aval, w: Aval) -> Aval:
    groups = attrs[4]
    n = len(attrs[0])
    if x.dtype is not w.dtype:
        raise DTypeError(f"Input type ({x.dtype.name}) and weight type ({w.dtype.name}) should be the same")
    if x.ndim != n + 2 or w.ndim != n + 2:
        raise ShapeError(f"conv{n}d: expected input and weight of {n + 2} dimensions, got {x.shape} and {w.shape}")
    if x.shape[1] != w.shape[1] * groups:
        raise ShapeError(f"Given groups={groups}, weight of size {list(w.shape)}, expected input{list(x.shape)} to have "
                         f"{w.shape[1] * groups} channels, but got {x.shape[1]} channels instead")
    if w.shape[0] % groups:
        raise ShapeError(f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but got weight "
                         f"of size {list(w.shape)} instead")
    out = _conv_sizes(x.shape[2:], w.shape[2:], attrs)
    if any(d <= 0 for d in out):
        padded = [d + a + b for d, a, b in zip(x.shape[2:], attrs[1], attrs[2])]
        raise ShapeError(f"Calculated padded input size per channel: {tuple(padded)}. Kernel size: {tuple(w.shape[2:])}. "
                         "Kernel size can't be greater than actual input size")
    return aval((x.shape[0], w.shape[0], *out), x.dtype, common_device("conv", x, w))


def _patches(x: np.ndarray, k: tuple[int, ...], attrs: Any) -> np.ndarray:
    """(N, C, *out, *k) windows of the padded input."""
    from .movement import window_np

    stride, lo, hi, dilation = attrs[:4]
    if any(lo) or any(hi):
        x = np.pad(x, [(0, 0), (0, 0), *zip(lo, hi)])
    return window_np((tuple(range(2, x.ndim)), k, stride, dilation), x)


def _wide(*xs: np.ndarray) -> tuple[np.ndarray, ...]:
    half = xs[0].dtype.itemsize == 2 and xs[0].dtype.kind not in "iu"
    return tuple([x.astype(np.float32) for x in xs]) if half else xs


def _conv_np(attrs: Any, x: np.ndarray, w: np.ndarray) -> Any:
    dt, groups, n = x.dtype, attrs[4], x.ndim - 2
    x, w = _wide(x, w)
    k = w.shape[2:]
    p = _patches(x, k, attrs)  # N, C, *out, *k
    out = p.shape[2:2 + n]
    cols = p.transpose(0, *range(2, 2 + n), 1, *range(2 + n, 2 + 2 * n)).reshape(
        x.shape[0] * math.prod(out), groups, x.shape[1] // groups * math.prod(k))  # rows, groups, C/g*k
    wm = w.reshape(groups, w.shape[0] // groups, math.prod(w.shape[1:]))
    y = np.matmul(cols.transpose(1, 0, 2), wm.transpose(0, 2, 1))  # groups, rows, O/g
    y = y.transpose(1, 0, 2).reshape(x.shape[0], *out, w.shape[0])
    return np.moveaxis(y, -1, 1).astype(dt, copy=False)


def _fold_np(g: np.ndarray, shape: tuple[int, ...], axes: tuple[int, ...], sizes: Any, strides: Any,
             dilations: Any) -> np.ndarray:
    """Add windows (axes appended last) into zeros: the adjoint of ``window``."""
    out = np.zeros(shape, g.dtype)
    nd = len(shape)
    for at in np.ndindex(*sizes):
        where: list[slice] = [slice(None)] * nd
        for ax, i, s, d in zip(axes, at, strides, dilations):
            start = i * d
            where[ax] = slice(start, start + (g.shape[ax] - 1) * s + 1, s)
        out[tuple(where)] += g[(...,) + at]
    return out


def _input_grad_infer(attrs: Any, g: Aval, w: Aval) -> Aval:
    return aval((g.shape[0], w.shape[1] * attrs[4], *attrs[5]), g.dtype, g.device)


def _input_grad_np(attrs: Any, g: np.ndarray, w: np.ndarray) -> Any:
    stride, lo, hi, dilation, groups, spatial = attrs
    dt = g.dtype
    g, w = _wide(g, w)
    n = len(spatial)
    k, out = w.shape[2:], g.shape[2:]
    gm = np.moveaxis(g, 1, -1).reshape(g.shape[0] * math.prod(out), groups, g.shape[1] // groups).transpose(1, 0, 2)
    wm = w.reshape(groups, w.shape[0] // groups, math.prod(w.shape[1:]))
    cols = np.matmul(gm, wm)  # groups, rows, C/g*k
    cg = w.shape[1]
    cols = cols.reshape(groups, g.shape[0], *out, cg, *k)
    cols = cols.transpose(1, 0, 2 + n, *range(2, 2 + n), *range(3 + n, 3 + 2 * n)).reshape(
        g.shape[0], groups * cg, *out, *k)
    padded = (g.shape[0], groups * cg, *[d + a + b for d, a, b in zip(spatial, lo, hi)])
    full = _fold_np(cols, padded, tuple(range(2, 2 + n)), k, stride, dilation)
    inner = (slice(None), slice(None)) + tuple([slice(a, a + d) for a, d in zip(lo, spatial)])
    return full[inner].astype(dt, copy=False)


def _weight_grad_infer(attrs: Any, x: Aval, g: Aval) -> Aval:
    return aval((g.shape[1], x.shape[1] // attrs[4], *attrs[5]), x.dtype, x.device)


def _weight_grad_np(attrs: Any, x: np.ndarray, g: np.ndarray) -> Any:
    groups, k = attrs[4], attrs[5]
    dt, n = x.dtype, x.ndim - 2
    x, g = _wide(x, g)
    p = _patches(x, k, attrs)[(slice(None), slice(None)) + tuple([slice(0, m) for m in g.shape[2:]])]
    rows = x.shape[0] * math.prod(g.shape[2:])
    cols = p.transpose(0, *range(2, 2 + n), 1, *range(2 + n, 2 + 2 * n)).reshape(
        rows, groups, x.shape[1] // groups * math.prod(k))
    gm = np.moveaxis(g, 1, -1).reshape(rows, groups, g.shape[1] // groups)
    w = np.matmul(gm.transpose(1, 2, 0), cols.transpose(1, 0, 2))  # groups, O/g, C/g*k
    return w.reshape(g.shape[1], x.shape[1] // groups, *k).astype(dt, copy=False)


def _conv_vjp(ctx: Any, g: Any) -> Any:
    x, w = ctx.ins
    a = ctx.attrs[:5]
    return (apply(OPS["conv_input_grad"], (g, w), (*a, x.shape[2:])) if ctx.needs[0] else None,
            apply(OPS["conv_weight_grad"], (x, g), (*a, w.shape[2:])) if ctx.needs[1] else None)


def _input_grad_vjp(ctx: Any, gx: Any) -> Any:
    g, w = ctx.ins
    a = ctx.attrs[:5]
    return (apply(OPS["conv"], (gx, w), a) if ctx.needs[0] else None,
            apply(OPS["conv_weight_grad"], (gx, g), (*a, w.shape[2:])) if ctx.needs[1] else None)


def _weight_grad_vjp(ctx: Any, gw: Any) -> Any:
    x, g = ctx.ins
    a = ctx.attrs[:5]
    return (apply(OPS["conv_input_grad"], (g, gw), (*a, x.shape[2:])) if ctx.needs[0] else None,
            apply(OPS["conv"], (x, gw), a) if ctx.needs[1] else None)


_A2 = ((2, 1), (1, 0), (1, 1), (1, 2), 1)
prim("conv", kind="contract", attrs=("stride", "pad_lo", "pad_hi", "dilation", "groups"), infer=_conv_infer,
     eval_np=_conv_np, loop="contract", vjp=_conv_vjp, saves=(0, 1),
     samples=lambda: [((draw("x", 2, 3, 6, 5), draw("w", 4, 3, 3, 2)), _A2),
                      ((draw("x", 2, 4, 7), draw("w", 6, 2, 3)), ((1,), (1,), (1,), (1,), 2))],
     doc="Cross-correlation of x (N, C, *S) with w (O, C/groups, *K).")
prim("conv_input_grad", kind="contract", attrs=("stride", "pad_lo", "pad_hi", "dilation", "groups", "x_spatial"),
     infer=_input_grad_infer, eval_np=_input_grad_np, loop="contract", vjp=_input_grad_vjp, saves=(0, 1),
     samples=lambda: [((draw("g", 2, 4, 3, 4), draw("w", 4, 3, 3, 2)), (*_A2, (6, 5)))],
     doc="Gradient of conv to its input; also the transposed convolution.")
prim("conv_weight_grad", kind="contract", attrs=("stride", "pad_lo", "pad_hi", "dilation", "groups", "k_spatial"),
     infer=_weight_grad_infer, eval_np=_weight_grad_np, loop="contract", vjp=_weight_grad_vjp, saves=(0, 1),
     samples=lambda: [((draw("x", 2, 3, 6, 5), draw("g", 2, 4, 3, 4)), (*_A2, (3, 2)))],
     doc="Gradient of conv to its weight.")

prim("overlap_add", kind="index", attrs=("shape", "axes", "sizes", "strides", "dilations"),
     infer=lambda attrs, g: aval(attrs[0], g.dtype, g.device),
     eval_np=lambda attrs, g: _fold_np(_wide(g)[0], *attrs).astype(g.dtype, copy=False), loop="scatter",
     vjp=lambda ctx, g: (P.window(g, *ctx.attrs[1:]),), saves=(),
     samples=lambda: [((draw("f", 2, 2, 4, 3, 2),), ((2, 6, 5), (1, 2), (3, 2), (2, 1), (1, 1)))],
     doc="fold of windows too many of which overlap for a sum of movements.")
