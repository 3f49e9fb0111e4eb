"""The backward walk.

Gradient nodes are visited in descending recording order, which is a reverse topological order, using a heap: when a
node is taken, every consumer of its results has already contributed. Each visit calls the op's vjp rule, which records
ordinary IR nodes, so forward, backward and optimizer become one program. Nothing is computed here.
"""
from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

from ..device import CPU
from ..dtypes import float32
from ..errors import AutogradError, ShapeError
from ..ir import build as P
from ..ir.location import format_location
from ..ir.marks import BEGIN, END
from ..ir.node import Value
from ..ir.recorder import evaluated, state
from ..ir.tape import AccumulateGrad, GradNode, OutputEdge, alias_value
from ..tensor import wrap
from . import splice
from .mode import anomaly

_SECOND_TIME = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already been "
    "freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify "
    "retain_graph=True if you need to backward through the graph a second time or if you need to access saved tensors "
    "after calling backward.")


def edge_key(edge: Any) -> Any:
    """Identity of a gradient edge: a node, a node's output, or a leaf."""
    return (edge.gn, edge.index) if edge.__class__ is OutputEdge else edge


class Walk:
    """One backward pass: cotangents by node, leaf sums, captured results."""

    def __init__(self, capture: set[Any], keep: bool, only: set[Any] | None):
        self.cots: dict[GradNode, Any] = {}
        self.leaves: dict[AccumulateGrad, Value] = {}
        self.captured: dict[Any, Value] = {}
        self.capture, self.keep, self.only = capture, keep, only
        self.heap: list[tuple[int, GradNode]] = []

    def push(self, edge: Any, g: Value) -> None:
        """Add a contribution to the cotangent of ``edge``."""
        cls = edge.__class__
        if cls is AccumulateGrad:
            have = self.leaves.get(edge)
            self.leaves[edge] = g if have is None else P.add(have, g)
            return
        if cls is OutputEdge:
            gn, k = edge.gn, edge.index
            if self.only is not None and gn not in self.only:
                return
            slots = self.cots.get(gn)
            if slots is None:
                n = len(gn.node.avals)
                slots = self.cots[gn] = [None] * n
                heapq.heappush(self.heap, (-gn.seq, gn))
            slots[k] = g if slots[k] is None else P.add(slots[k], g)
            return
        if self.only is not None and edge not in self.only:
            return
        have = self.cots.get(edge)
        if have is None:
            self.cots[edge] = g
            heapq.heappush(self.heap, (-edge.seq, edge))
        else:
            self.cots[edge] = P.add(have, g)

    def run(self) -> None:
        """Visit every node that got a cotangent."""
        while self.heap:
            _, gn = heapq.heappop(self.heap)
            g = self.cots.pop(gn)
            if gn.hooks is not None:
                g = _run_hooks(gn, g)
            if self.capture:
                self._capture(gn, g)
            if gn.released:
                raise AutogradError(_SECOND_TIME)
            edges = gn.edges
            grads = _call_rule(gn, g)
            if len(grads) != len(edges):  # type: ignore[arg-type]
                raise AutogradError(f"{gn.name()} returned an incorrect number of gradients (expected "
                                    f"{len(edges)}, got {len(grads)})")  # type: ignore[arg-type]
            if gn.node.avals[0].device is not CPU:
                grads = _to_inputs(gn, grads)
            if anomaly.check:
                _look_for_nan(gn, grads)
            for edge, d in zip(edges, grads):  # type: ignore[arg-type]
                if edge is not None and d is not None:
                    self.push(edge, d)
            if not self.keep:
                gn.release()

    def _capture(self, gn: GradNode, g: Any) -> None:
        if isinstance(g, list):
            for k, gk in enumerate(g):
                if gk is not None and (gn, k) in self.capture:
                    self.captured[gn, k] = gk
        elif gn in self.capture:
            self.captured[gn] = g


def _look_for_nan(gn: GradNode, grads: Sequence[Any]) -> None:
    """AutogradError if a gradient holds a NaN: under ``detect_anomaly``."""
    for k, (edge, g) in enumerate(zip(gn.edges or (), grads)):
        if edge is None or g is None or g.aval.dtype.category < 2:
            continue
        if evaluated(P.reduce("max", P.cast(P.isnan(g), float32), tuple(range(g.aval.ndim)), False) if g.aval.size
                     else P.full((), 0.0, float32)) > 0:
            where = f" recorded at {format_location(gn.node.loc)}" if gn.rule is None else ""
            raise AutogradError(f"Function '{gn.name()}' returned nan values in its {k}th output; the forward operation was"
                                f"{where or ' a custom Function'}")


def _to_inputs(gn: GradNode, grads: Sequence[Any]) -> Sequence[Any]:
    """Gradients on the devices of their inputs: numbers of the host may take part in work on a device."""
    ins = gn.node.in_avals
    if len(ins) != len(grads) or all(a.device is ins[0].device for a in ins):
        return grads
    return [g if g is None else P.to_device(g, a.device) for g, a in zip(grads, ins)]


def _call_rule(gn: GradNode, g: Any) -> Sequence[Any]:
    """The op's vjp. With ``create_graph`` the saved output gets its gradient edge back for the call."""
    if gn.rule is not None:
        return gn.rule(gn, g)
    out = gn.out
    if out is not None and state.grad:
        if isinstance(out, tuple):
            gn.out = tuple([_with_edge(o, OutputEdge(gn, k)) for k, o in enumerate(out)])
        else:
            gn.out = _with_edge(out, gn)
    try:
        return gn.node.op.vjp(gn, tuple(g) if isinstance(g, list) else g)  # type: ignore[union-attr,misc]
    finally:
        gn.out = out


def _with_edge(v: Value, edge: Any) -> Value:
    out = alias_value(v)
    out.gfn = edge
    return out


def _run_hooks(gn: GradNode, g: Any) -> Any:
    """Tensor hooks: each may replace the cotangent of its output."""
    from ..tensor import value_of, wrap

    hooks = list(gn.hooks.values())
    if len(hooks) > 1:  # what retain_grad() keeps is what the other hooks made of it
        hooks.sort(key=lambda h: getattr(h[1], "retains", False))
    for index, fn in hooks:
        have = g[index] if isinstance(g, list) else g
        if have is None:
            continue
        new = fn(wrap(have))
        if new is not None:
            if isinstance(g, list):
                g[index] = replaced(have, value_of(new))
            else:
                g = replaced(have, value_of(new))
    return g


def replaced(old: Value, new: Value) -> Value:
    """What a hook returned in place of ``old``, or RuntimeError if its shape is another."""
    if new.aval.shape != old.aval.shape:
        raise ShapeError(f"hook 'hook' has changed the size of value: {list(new.aval.shape)} for {list(old.aval.shape)}")
    return P.cast(new, old.aval.dtype)


def _needed(roots: Sequence[Any], targets: set[Any]) -> set[Any]:
    """Nodes from which a target can be reached: only these are worth visiting."""
    order: list[GradNode] = []
    seen: set[GradNode] = set()
    stack = [e.gn if e.__class__ is OutputEdge else e for e in roots]
    while stack:
        gn = stack.pop()
        if gn.__class__ is AccumulateGrad or gn in seen:
            continue
        seen.add(gn)
        order.append(gn)
        for e in gn.edges or ():
            if e is not None:
                stack.append(e.gn if e.__class__ is OutputEdge else e)
    order.sort(key=lambda n: n.seq)
    needed: set[Any] = set()
    for gn in order:
        if gn in targets or any((gn, k) in targets for k in range(len(gn.node.avals))):
            needed.add(gn)
            continue
        for e in gn.edges or ():
            if e is None:
                continue
            inner = e.gn if e.__class__ is OutputEdge else e
            if inner in needed or inner in targets:
                needed.add(gn)
                break
        if gn.released:
            needed.add(gn)
    return needed


def walk(roots: Sequence[Any], cots: Sequence[Value], *, keep: bool, create_graph: bool,
         wrt: Sequence[Any] | None = None) -> Walk:
    """Run backward from ``roots`` (gradient edges) with cotangents; ``wrt`` edges restrict and capture."""
    targets = {edge_key(e) for e in wrt} if wrt is not None else set()
    only = _needed(roots, targets) if wrt is not None else None
    w = Walk(targets, keep, only)
    before, state.grad = state.grad, create_graph
    state.walks += 1
    if state.walks == 1:
        state.region.cursor.turn |= BEGIN
    try:
        for edge, g in zip(roots, cots):
            w.push(edge, g)
        w.run()
    finally:
        state.grad = before
        state.walks -= 1
        if not state.walks:
            state.region.cursor.turn |= END
    return w


def leaf_sums(roots: Sequence[Any], cots: Sequence[Value] | Callable[[], Sequence[Value]], *, keep: bool,
              create_graph: bool) -> dict[AccumulateGrad, Value]:
    """What a whole backward pass adds up at the leaves. ``cots`` may be a function that records them, the same
    for equal roots."""
    at, given = None, () if callable(cots) else cots
    if not create_graph and not anomaly.check:
        known = splice.replay(roots, given, keep)
        if known is not None:
            return known
        at = splice.point(roots, given, keep)
    sums = walk(roots, cots() if callable(cots) else cots, keep=keep, create_graph=create_graph).leaves
    if at is not None:
        at.remember(sums)
    return sums


def vjp_values(outs: Sequence[Value], cots: Sequence[Value | None], wrt: Sequence[Value],
               create_graph: bool = False) -> list[Value | None]:
    """Vector-Jacobian product at the level of Values: gradients of ``outs`` (weighted by ``cots``) with respect to
    ``wrt``, whose ``gfn`` must be edges of the tape (give inputs one with :func:`mark_input`)."""
    pairs = [(o.gfn, c) for o, c in zip(outs, cots) if o.gfn is not None and c is not None]
    w = walk([e for e, _ in pairs], [c for _, c in pairs], keep=create_graph, create_graph=create_graph,
             wrt=[v.gfn for v in wrt])
    return [w.leaves.get(v.gfn) if v.gfn.__class__ is AccumulateGrad else w.captured.get(edge_key(v.gfn)) for v in wrt]


class _NoTensor:
    """Stands in for the tensor of a leaf that only exists as a Value."""

    __slots__ = ("__weakref__",)


def mark_input(v: Value) -> Value:
    """An alias of ``v`` that counts as a differentiable leaf."""
    out = alias_value(v)
    out.gfn = AccumulateGrad(_NoTensor())
    return out


def check_cotangent(v: Value, g: Value, what: str) -> Value:
    """``g`` fits ``v`` or ShapeError; cast to its dtype."""
    if g.aval.shape != v.aval.shape:
        raise ShapeError(f"Mismatch in shape: {what} has a shape of {list(g.aval.shape)} and the output has a shape of "
                         f"{list(v.aval.shape)}.")
    return P.cast(g, v.aval.dtype)


def deliver(leaves: dict[AccumulateGrad, Value], accumulate: Callable[[Any, Value, bool], None], create_graph: bool) -> None:
    """Hand leaf sums to their tensors."""
    for acc, g in leaves.items():
        t = acc.tensor()
        if t is None:
            continue
        if t._grad is None and acc.hooks is None and acc.post_hooks is None:  # what accumulate() would come to
            t._grad = wrap(g)
        else:
            accumulate(t, g, create_graph)
