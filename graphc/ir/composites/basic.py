"""Composites of plain arithmetic that are worth one node: clamp."""
from __future__ import annotations

from typing import Any

from .. import build as P
from ..optable import composite
from ..samples import draw


def _clamp_parts(attrs: Any, ins: Any) -> tuple[Any, Any, Any]:
    has_lo, has_hi = attrs
    return ins[0], ins[1] if has_lo else None, ins[-1] if has_hi else None


def _clamp_expand(attrs: Any, *ins: Any) -> Any:
    x, lo, hi = _clamp_parts(attrs, ins)
    if lo is not None:
        x = P.maximum(x, lo)
    return x if hi is None else P.minimum(x, hi)


def _clamp_vjp(ctx: Any, g: Any) -> Any:
    x, lo, hi = _clamp_parts(ctx.attrs, ctx.ins)
    inside = None
    if lo is not None:
        inside = P.ge(x, lo)
    if hi is not None:
        below = P.le(x, hi)
        inside = below if inside is None else P.bit_and(inside, below)
    assert inside is not None
    return (P.where(inside, g, P.zeros_like(g)), *([None] * (len(ctx.in_avals) - 1)))


composite("clamp", attrs=("has_min", "has_max"), infer=lambda attrs, x, *bounds: x, expand=_clamp_expand, vjp=_clamp_vjp,
          saves=("ins",),
          samples=lambda: [((draw("c", 3, 4), draw("lo", lo=-1, hi=-0.9), draw("hi", lo=0.8, hi=0.9)), (True, True))],
          doc="Limit to zero-dim bounds.")
