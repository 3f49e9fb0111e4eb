"""x @ w.T + b as one node."""
from __future__ import annotations

import math
from typing import Any

from ...errors import DTypeError, ShapeError
from .. import build as P
from ..infer import common_device
from ..node import Aval, aval
from ..optable import composite
from ..samples import draw


def _infer(attrs: Any, x: Aval, w: Aval, b: Aval | None = None) -> Aval:
    if x.dtype is not w.dtype:
        names = {"float32": "float", "float64": "double", "float16": "c10::Half", "bfloat16": "c10::BFloat16", "int64": "long"}
        raise DTypeError("mat1 and mat2 must have the same dtype, but got "
                         f"{names.get(x.dtype.name, x.dtype.name).capitalize()} and "
                         f"{names.get(w.dtype.name, w.dtype.name).capitalize()}")
    if x.ndim == 0 or w.ndim not in (1, 2):
        raise ShapeError(f"linear: input must have at least 1 dimension and weight 1 or 2, got {x.shape} and {w.shape}")
    if x.shape[-1] != w.shape[-1]:
        m = math.prod(x.shape[:-1])
        wt = f"{w.shape[-1]}x{w.shape[0]}" if w.ndim == 2 else f"{w.shape[0]}"
        raise ShapeError(f"mat1 and mat2 shapes cannot be multiplied ({m}x{x.shape[-1]} and {wt})")
    out = (*x.shape[:-1], w.shape[0]) if w.ndim == 2 else x.shape[:-1]
    if b is not None and b.shape not in ((), out[-1:]) and not (b.ndim == 1 and b.shape[0] == 1):
        raise ShapeError(f"linear: bias of shape {b.shape} does not fit an output of shape {out}")
    return aval(out, x.dtype, common_device("linear", x, w))


def _expand(attrs: Any, x: Any, w: Any, b: Any = None) -> Any:
    y = P.contract(x, w, ((), ()), ((x.ndim - 1,), (w.ndim - 1,)))
    return y if b is None else P.add(y, b)


def _vjp(ctx: Any, g: Any) -> Any:
    x, w = ctx.ins[0], ctx.ins[1]
    rows = tuple(range(x.ndim - 1))
    gx = gw = gb = None
    if ctx.needs[0]:
        gx = (P.contract(g, w, ((), ()), ((g.ndim - 1,), (0,))) if w.ndim == 2
              else P.mul(P.reshape(g, (*g.shape, 1)), w))
    if ctx.needs[1]:
        gw = P.contract(g, x, ((), ()), (rows, rows))
    if len(ctx.in_avals) == 2:
        return gx, gw
    if ctx.needs[2]:
        gb = P.sum_to(g, ctx.in_avals[2].shape)
    return gx, gw, gb


composite("linear", kind="contract", attrs=(), infer=_infer, expand=_expand, vjp=_vjp, saves=(0, 1),
          samples=lambda: [((draw("x", 3, 4), draw("w", 2, 4), draw("b", 2)), ()),
                           ((draw("x", 2, 3, 4), draw("w", 5, 4)), ()), ((draw("x", 4), draw("w", 2, 4)), ())],
          doc="x (*, in) times weight (out, in) transposed, plus bias.")
