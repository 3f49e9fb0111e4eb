"""What the derivative transforms share: inputs with a gradient edge of their own, walks from them, their removal.

A transform marks its inputs with fresh edges (a *level*), runs the function with gradients recorded, and walks the tape
back to exactly those edges. Values may at the same time hang on edges of outer levels or of the user's own tape; results
keep those and lose the level's.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd.engine import mark_input, vjp_values
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply, state
from ..ir.tape import AccumulateGrad, OutputEdge, alias_value
from ..tensor import Tensor, wrap
from ..utils._pytree import TreeSpec, tree_flatten, tree_unflatten


class Level:
    """The inputs of one transform call."""

    __slots__ = ("own",)

    def __init__(self) -> None:
        self.own: set[Any] = set()  # ends of the tape that are this level's, not the user's

    def enter(self, v: Value) -> Value:
        """``v`` with an edge of this level. An identity node makes it a non-leaf, which may be written in place, and
        leads on to the edge ``v`` had outside."""
        if not (v.aval.dtype.is_floating_point or v.aval.dtype.is_complex):
            return v
        before, state.grad = state.grad, True
        try:
            if v.gfn is None:
                v = mark_input(v)
                self.own.add(v.gfn)
            return apply(OPS["reshape"], (v,), (v.aval.shape,))
        finally:
            state.grad = before

    def differentiable_outside(self, v: Value) -> bool:
        """Whether the tape of ``v`` has an end beyond this level."""
        seen: set[int] = set()
        stack = [v.gfn]
        while stack:
            e = stack.pop()
            if e.__class__ is OutputEdge:
                e = e.gn
            if e is None or id(e) in seen:
                continue
            seen.add(id(e))
            if e.__class__ is AccumulateGrad:
                if e not in self.own:
                    return True
            else:
                stack.extend(e.edges or ())
        return False

    def leave(self, v: Value) -> Value:
        """``v`` without an edge that would lead to this level only."""
        if v.gfn is None or state.grad and self.differentiable_outside(v):
            return v
        return alias_value(v)


def outer_tape(level: Level, outs: Sequence[Value]) -> bool:
    """Whether derivatives of ``outs`` must themselves be recorded."""
    return state.grad and any(o.gfn is not None and level.differentiable_outside(o) for o in outs)


def pull(outs: Sequence[Value], cots: Sequence[Value | None], wrt: Sequence[Value], create_graph: bool) -> list[Value | None]:
    """Cotangents of ``wrt``; None where nothing depends on it. The tape stays usable."""
    live = [v for v in wrt if v.gfn is not None]
    before, state.grad = state.grad, create_graph
    try:
        found = iter(_keeping(outs, cots, live, create_graph))
        return [next(found) if v.gfn is not None else None for v in wrt]
    finally:
        state.grad = before


def _keeping(outs: Sequence[Value], cots: Sequence[Value | None], wrt: Sequence[Value],
             create_graph: bool) -> list[Value | None]:
    if create_graph:
        return vjp_values(outs, cots, wrt, create_graph=True)
    from ..autograd.engine import edge_key, walk

    pairs = [(o.gfn, c) for o, c in zip(outs, cots) if o.gfn is not None and c is not None]
    w = walk([e for e, _ in pairs], [c for _, c in pairs], keep=True, create_graph=False, wrt=[v.gfn for v in wrt])
    return [w.captured.get(edge_key(v.gfn)) for v in wrt]


def enter_tree(level: Level, tree: Any) -> tuple[Any, list[Tensor], TreeSpec]:
    """``tree`` with its tensors entered: (tree, tensors in order, spec of the tree). Other leaves stay as they are."""
    leaves, spec = tree_flatten(tree)
    new = [wrap(level.enter(x._read())) if isinstance(x, Tensor) else x for x in leaves]
    return tree_unflatten(new, spec), new, spec


def leave_tree(level: Level, tree: Any) -> Any:
    """``tree`` with its tensors taken out of the level."""
    leaves, spec = tree_flatten(tree)
    return tree_unflatten([wrap(level.leave(x._read())) if isinstance(x, Tensor) else x for x in leaves], spec)
