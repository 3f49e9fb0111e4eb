"""What the composite families share: wide arithmetic for 16-bit floats and derivatives of backward rules.

A differentiable composite ``f`` usually comes with a second composite ``f_backward``, so that a training step records
two nodes for it and a back end sees both as a whole. The vjp of ``f_backward`` (needed for higher derivatives only) is
had by differentiating its expansion: :func:`expansion_vjp`.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...dtypes import dtype, float32
from .. import build as P
from ..node import Aval, Value
from ..optable import OPS, composite
from ..recorder import apply, state
from ..samples import unary

Rule = Callable[..., Value]


def acc_dtype(dt: dtype) -> dtype:
    """The dtype sums run in: float32 for the 16-bit floats, the dtype itself otherwise."""
    return float32 if dt.is_floating_point and dt.itemsize == 2 else dt


def wide(x: Value) -> Value:
    """``x`` in its accumulation dtype."""
    return P.cast(x, acc_dtype(x.aval.dtype))


def op(name: str, *ins: Value, attrs: Any = ()) -> Any:
    """Record the op called ``name``."""
    return apply(OPS[name], ins, attrs)


def expansion_vjp(expand: Callable[..., Any]) -> Callable[..., Any]:
    """A vjp that differentiates ``expand(attrs, *ins)``. The row must save its inputs (``saves=("ins",)``).

    Every input that needs a gradient is first passed through an identity node: the walk then has one distinct place to
    stop at per input, even if the same Value came in twice, and the result stays differentiable to any order.
    """

    def vjp(ctx: Any, g: Any) -> tuple[Value | None, ...]:
        from ...autograd.engine import vjp_values

        needs = ctx.needs
        before = state.grad
        state.grad = True
        try:
            ins = [op("reshape", v, attrs=(v.aval.shape,)) if n else v for v, n in zip(ctx.ins, needs)]
            out = expand(ctx.attrs, *ins)
        finally:
            state.grad = before
        outs, cots = (list(out), list(g)) if isinstance(out, tuple) else ([out], [g])
        found = iter(vjp_values(outs, cots, [v for v, n in zip(ins, needs) if n], create_graph=before))
        return tuple([next(found) if n else None for n in needs])

    return vjp


def same_as_first(attrs: Any, x: Aval, *rest: Aval) -> Aval:
    """Shape and dtype of the first input."""
    return x


def pointwise(name: str, forward: Rule, backward: Rule, *, attrs: tuple[str, ...] = (), save: str = "in",
              values: Any = (), lo: float = -2.0, hi: float = 2.0, floats: bool = True, doc: str = "") -> None:
    """Register the unary composites ``name`` and ``name_backward``.

    ``forward(attrs, x)`` and ``backward(attrs, saved, g)`` get Values in the accumulation dtype and return such;
    ``saved`` is the input (``save="in"``) or the result (``save="out"``). ``values`` are the attributes of the samples.
    """
    from ..infer import require_float

    def infer(at: Any, x: Aval) -> Aval:
        if floats:
            require_float(name, x)
        return x

    def expand(at: Any, x: Value) -> Value:
        return P.cast(forward(at, wide(x)), x.aval.dtype)

    def expand_backward(at: Any, saved: Value, g: Value) -> Value:
        return P.cast(backward(at, wide(saved), wide(g)), saved.aval.dtype)

    back = composite(f"{name}_backward", attrs=attrs, infer=same_as_first, expand=expand_backward,
                     vjp=expansion_vjp(expand_backward), saves=("ins",), samples=_backward_samples(values, lo, hi),
                     doc=f"Gradient of {name} from its {'input' if save == 'in' else 'result'} and the cotangent.")

    def vjp(ctx: Any, g: Value) -> tuple[Value]:
        return (apply(back, (ctx.ins[0] if save == "in" else ctx.out, g), ctx.attrs),)

    composite(name, attrs=attrs, infer=infer, expand=expand, vjp=vjp, saves=(0,) if save == "in" else ("out",),
              samples=unary(lo, hi, values), doc=doc)


def _backward_samples(values: Any, lo: float, hi: float) -> Any:
    def make() -> list[Any]:
        from ..samples import draw

        return [((draw("s", 3, 4, lo=lo, hi=hi), draw("g", 3, 4)), values)]

    return make
