"""Sorting along an axis."""
from __future__ import annotations

from typing import Any

import numpy as np

from ...dtypes import int64
from .. import build as P
from ..node import Aval, aval
from ..optable import prim
from ..samples import draw


def _sort_infer(attrs: Any, x: Aval) -> tuple[Aval, Aval]:
    return x, aval(x.shape, int64, x.device)


def _sort_np(attrs: Any, x: np.ndarray) -> Any:
    axis, descending, _ = attrs
    key = x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind not in "iub" else x
    if descending:  # a stable descending sort is a stable ascending one of the reversed sequence, read backwards
        n = x.shape[axis]
        idx = np.flip(n - 1 - np.argsort(np.flip(key, axis), axis, kind="stable"), axis)
    else:
        idx = np.argsort(key, axis, kind="stable")
    return np.take_along_axis(x, idx, axis), idx.astype(np.int64)


def _sort_vjp(ctx: Any, g: Any) -> Any:
    if g[0] is None:
        return (None,)
    return (P.scatter(P.zeros_like(g[0]), ctx.out[1], g[0], ctx.attrs[0], "add"),)


prim("sort", kind="sort", attrs=("axis", "descending", "stable"), infer=_sort_infer, eval_np=_sort_np, loop="sort",
     vjp=_sort_vjp, saves=("out",), n_out=2,
     samples=lambda: [((draw("s", 3, 5),), (1, False, True)), ((draw("s", 3, 5),), (0, True, True))],
     doc="(values, indices) along an axis; NaN is largest; always stable.")
