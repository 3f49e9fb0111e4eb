"""``autograd.Function``: operations with a hand-written backward."""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..errors import AutogradError
from ..ir.node import Node, Value
from ..ir.recorder import state
from ..ir.tape import GradNode, OutputEdge, alias_value, next_sequence
from ..tensor import Tensor, wrap
from ..tensor_overriding import kind, of_kind


class FunctionCtx:
    """What ``forward`` leaves for ``backward``."""

    def __init__(self) -> None:
        self._saved: tuple[Any, ...] = ()
        self._not_differentiable: set[int] = set()
        self._dirty: set[int] = set()
        self._materialize = True
        self.needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors for backward; read them back from ``saved_tensors``."""
        self._saved = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        return self._saved

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """These outputs get no gradient."""
        self._not_differentiable = {id(t) for t in tensors}

    def mark_dirty(self, *tensors: Tensor) -> None:
        """These inputs were changed in place: they are outputs now, and gradients reach them through ``backward``."""
        self._dirty = {id(t) for t in tensors}

    def set_materialize_grads(self, value: bool) -> None:
        """Whether missing output gradients arrive as zeros (default) or None."""
        self._materialize = value


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator for ``backward``: it runs without recording gradients, so what it gives cannot be differentiated again."""
    @functools.wraps(fn)
    def wrapped(ctx: Any, *args: Any) -> Any:
        before, state.grad = state.grad, False
        try:
            return fn(ctx, *args)
        finally:
            state.grad = before

    return wrapped


class _OpName:
    """The little of an op row that a custom function's gradient node needs."""

    def __init__(self, name: str):
        self.name = name
        self.vjp = None


class Function:
    """Subclass with static ``forward(ctx, *args)`` (or ``forward(*args)`` and ``setup_context``) and
    ``backward(ctx, *grad_outputs)``; call as ``MyFunction.apply(...)``."""

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        raise NotImplementedError("You must implement either the backward or vjp method for your custom "
                                  "autograd.Function to use it with backward mode AD.")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run ``forward`` without recording its inside and put ``backward`` on the tape."""
        ctx = FunctionCtx()
        values = [a._read() if isinstance(a, Tensor) else None for a in args]
        ctx.needs_input_grad = tuple([v is not None and v.gfn is not None for v in values])
        grad, state.grad = state.grad, False
        try:
            setup = getattr(cls, "setup_context", None)
            if setup is not None:
                out = cls.forward(*args, **kwargs)
                setup(ctx, args, out)
            else:
                out = cls.forward(ctx, *args, **kwargs)
        finally:
            state.grad = grad
        if not (state.grad and any(ctx.needs_input_grad)):
            return out
        return _attach(cls, ctx, values, out)


def _attach(cls: type[Function], ctx: FunctionCtx, values: list[Value | None], out: Any) -> Any:
    outs = list(out) if isinstance(out, (tuple, list)) else [out]
    tensors = [o for o in outs if isinstance(o, Tensor)]
    gn = GradNode.__new__(GradNode)
    out_values = [o._read() for o in tensors]
    gn.node = Node(_OpName(cls.__name__), (), (), tuple([v.aval for v in out_values]), (), 0)  # type: ignore[arg-type]
    gn.edges = tuple([v.gfn if v is not None else None for v in values])
    gn.ins = gn.out = gn.hooks = gn.home = None
    gn.seq = next_sequence()
    single = len(tensors) == 1
    avals = [v.aval if v is not None else None for v in values]
    gn.rule = lambda node, g: _call_backward(cls, ctx, [g] if single else g, out_values, avals)
    fresh: dict[int, Tensor] = {}
    for k, (t, v) in enumerate(zip(tensors, out_values)):
        if id(t) in ctx._not_differentiable or not v.aval.dtype.is_floating_point:
            continue
        nv = alias_value(v)
        nv.gfn = gn if single else OutputEdge(gn, k)
        if id(t) in ctx._dirty:
            t._write(nv)
            fresh[id(t)] = t
        else:
            fresh[id(t)] = of_kind(nv, kind(t))
    # A saved output must not keep its own gradient node alive; without create_graph only its data is needed.
    ctx._saved = tuple([_detached(s) if id(s) in fresh else s for s in ctx._saved])
    result = [fresh.get(id(o), o) for o in outs]
    return tuple(result) if isinstance(out, (tuple, list)) else result[0]


def _detached(t: Tensor) -> Tensor:
    return wrap(alias_value(t._read()))


def _call_backward(cls: type[Function], ctx: FunctionCtx, g: Any, out_values: list[Value], avals: list[Any]) -> list[Any]:
    from ..ir import build as P

    grads = []
    for gk, v in zip(g, out_values):
        if gk is None and ctx._materialize:
            gk = P.zeros_like(v)
        grads.append(None if gk is None else wrap(gk))
    back = cls.backward(ctx, *grads)
    back = tuple(back) if isinstance(back, (tuple, list)) else (back,)
    n = len(ctx.needs_input_grad)
    if len(back) > n and all(b is None for b in back[n:]):
        back = back[:n]
    if len(back) != n:
        raise AutogradError(f"function {cls.__name__}Backward returned an incorrect number of gradients (expected {n}, "
                            f"got {len(back)})")
    return [_fitting(cls, k, b._read(), aval) if isinstance(b, Tensor) and aval is not None else None
            for k, (b, aval) in enumerate(zip(back, avals))]


def _fitting(cls: type[Function], k: int, g: Value, aval: Any) -> Value:
    """A gradient that ``backward`` returned, in its input's shape and dtype. RuntimeError if it does not broadcast from it."""
    from ..ir import build as P

    have, want = g.aval.shape, aval.shape
    if have != want:
        lead = len(have) - len(want)
        if lead < 0 or any(w not in (1, h) for h, w in zip(have[lead:], want)):
            raise AutogradError(f"Function {cls.__name__}Backward returned an invalid gradient at index {k} - got {list(have)} "
                                f"but expected shape compatible with {list(want)}")
        g = P.sum_to(g, want)
    return P.cast(g, aval.dtype) if g.aval.dtype is not aval.dtype else g
