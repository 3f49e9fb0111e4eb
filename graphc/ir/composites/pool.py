"""Max pooling as one node: windows, then the first maximum of each."""
from __future__ import annotations

import math
from typing import Any

from ...dtypes import int32
from ...errors import ShapeError
from .. import build as P
from ..node import Aval, aval
from ..optable import OPS, composite
from ..recorder import apply
from ..samples import draw


def _axes(attrs: Any, x: Any) -> tuple[int, ...]:
    n = len(attrs[0])
    return tuple(range(x.ndim - n, x.ndim))


def _infer(attrs: Any, x: Aval) -> Aval:
    kernel, stride, lo, hi, dilation = attrs
    shape = list(x.shape)
    for ax, k, s, a, b, d in zip(_axes(attrs, x), kernel, stride, lo, hi, dilation):
        n = (shape[ax] + a + b - d * (k - 1) - 1) // s + 1
        if n <= 0:
            raise ShapeError(f"max_pool: input of shape {x.shape} is smaller than the window {kernel} (dilation {dilation}, "
                             f"padding {lo}): output size is too small")
        shape[ax] = n
    return aval(tuple(shape), x.dtype, x.device)


def windows(attrs: Any, x: Any) -> Any:
    """Padded windows of x flattened to one last axis."""
    kernel, stride, lo, hi, dilation = attrs
    lead = x.ndim - len(kernel)
    lowest = -math.inf if x.dtype.category >= 2 else -(1 << (x.dtype.itemsize * 8 - 1))
    x = P.pad(x, (0,) * lead + lo, (0,) * lead + hi, lowest)
    w = P.window(x, tuple(range(lead, x.ndim)), kernel, stride, dilation)
    return P.reshape(w, (*w.shape[:x.ndim], math.prod(kernel)))


def _expand(attrs: Any, x: Any) -> Any:
    w = windows(attrs, x)
    return P.reduce("max", w, (w.ndim - 1,))


def flat_argmax(attrs: Any, x: Any) -> Any:
    """Position of each maximum inside its window (int64)."""
    w = windows(attrs, x)
    return P.argreduce("max", w, w.ndim - 1)


def _vjp(ctx: Any, g: Any) -> Any:
    kernel, stride, lo, hi, dilation = ctx.attrs
    x = ctx.ins[0]
    lead = x.ndim - len(kernel)
    padded = (*x.shape[:lead], *[n + a + b for n, a, b in zip(x.shape[lead:], lo, hi)])
    which = P.cast(flat_argmax(ctx.attrs, x), int32)
    full = apply(OPS["unpool"], (g, which), (padded, tuple(range(lead, x.ndim)), kernel, stride, dilation))
    starts = (0,) * lead + lo
    return (P.slice_(full, starts, tuple([s + n for s, n in zip(starts, x.shape)]), (1,) * x.ndim),)


composite("max_pool", kind="reduce", attrs=("kernel", "stride", "pad_lo", "pad_hi", "dilation"), infer=_infer,
          expand=_expand, vjp=_vjp, saves=(0,),
          samples=lambda: [((draw("p", 2, 3, 6, 5),), ((2, 3), (2, 1), (0, 1), (1, 1), (1, 1))),
                           ((draw("p", 2, 7),), ((3,), (2,), (1,), (1,), (1,)))],
          doc="Largest of each window; the gradient goes to the first maximum.")
