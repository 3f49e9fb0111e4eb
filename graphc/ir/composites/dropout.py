"""Dropout as one node: the mask is a pure function of (seed, offset, index), so backward recomputes it."""
from __future__ import annotations

from typing import Any

import numpy as np

from ...dtypes import float32
from .. import build as P
from ..optable import OPS, composite
from ..recorder import apply
from ..samples import draw


def _scaled(attrs: Any, x: Any, seed: Any, offset: Any, p: Any) -> Any:
    shape = x.shape if attrs[0] is None else attrs[0]
    bits = apply(OPS["rng_bits"], (seed, offset), (shape,))
    u = P.mul(P.cast(P.shr(bits, 8), float32), 2.0**-24)
    factor = P.where(P.ge(u, p), P.reciprocal(P.sub(1.0, p)), 0.0)
    return P.mul(x, P.to_device(P.cast(factor, x.dtype), x.device))


def _vjp(ctx: Any, g: Any) -> Any:
    _, seed, offset, p = ctx.ins
    return apply(OPS["dropout"], (g, seed, offset, p), ctx.attrs), None, None, None


composite("dropout", attrs=("mask_shape",), infer=lambda attrs, x, seed, offset, p: x, expand=_scaled, vjp=_vjp,
          saves=(1, 2, 3),
          samples=lambda: [((draw("d", 4, 5), np.int64(3), np.int64(0), np.float32(0.4)), (None,)),
                           ((draw("d", 4, 5, 2), np.int64(3), np.int64(0), np.float32(0.4)), ((4, 5, 1),))],
          doc="x * mask / (1 - p); the mask has x's shape (None) or one that broadcasts to it.")
