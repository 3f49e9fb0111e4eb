"""Backward rules written in Python (custom Functions, checkpoints) of a mapped function.

Such a rule works on one example. It is run once, on stand-ins for the cotangents, while the function is being recorded; in a
backward pass from outside what it recorded is replayed for all examples with the actual cotangents. Values of the forward
program it reads are kept for all examples; everything else it computes is computed in backward.
"""
from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..autograd.engine import mark_input
from ..errors import AutogradError
from ..ir import build as P
from ..ir.node import Node, Value, aval
from ..ir.recorder import apply, state
from ..ir.tape import GradNode, OutputEdge, alias_value
from ._batching import lift

if TYPE_CHECKING:
    from ._trace import Recording


class _Row:
    """The little of an op row that the gradient node of a mapped rule needs."""

    name = "vmap"
    vjp = None
    saves_any = False


class RuleProgram:
    """What the rule of ``gn`` recorded."""

    def __init__(self, gn: GradNode, listed: bool):
        self.gn, self.name, self.avals = gn, gn.name(), gn.node.avals
        before, state.grad = state.grad, True
        try:
            cots = [mark_input(P.full(a.shape, 0, a.dtype, a.device))
                    if a.dtype.is_floating_point or a.dtype.is_complex else None for a in self.avals]
            found = gn.rule(gn, list(cots) if listed else cots[0])
        finally:
            state.grad = before
        self.cots: list[tuple[int, Any] | None] = [None if c is None else (c.slot, c.gfn) for c in cots]
        self.results: list[Value | None] = list(found)
        self.nodes: list[Node] = []

    def choose(self, nodes: Sequence[Node], start: int, depends: set[int], region: Any) -> set[int]:
        """Keep the nodes the results need, of those recorded from slot ``start`` on. Returns the slots they read from before
        that depend on an example."""
        wanted = {r.slot for r in self.results if r is not None and r.region is region}
        late = {c[0] for c in self.cots if c is not None}
        chosen = []
        for node in nodes:
            if node.slot >= start and any(s in late or s in depends for s in node.ins):
                late.update(range(node.slot, node.end))
                chosen.append(node)
        for node in reversed(chosen):
            if any(s in wanted for s in range(node.slot, node.end)):
                wanted.update(node.ins)
                self.nodes.append(node)
        self.nodes.reverse()
        return {s for s in wanted if s < start and s in depends}

    def capture(self, rec: Recording) -> None:
        """Keep what the nodes read, and no example."""
        made = {s for n in self.nodes for s in range(n.slot, n.end)} | {c[0] for c in self.cots if c is not None}
        self.rec = copy.copy(rec)
        self.rec.values, self.rec.outside = {}, {}
        self.rec.edges = self._edges(rec)  # not all: the node of this rule would hold itself
        for node in self.nodes:
            for k, s in enumerate(node.ins):
                if s not in made:
                    v, mapped = rec.value(s, node, k)
                    (self.rec.values if mapped else self.rec.outside)[s] = v
        self.shape: list[Any] = []
        for r in self.results:
            if r is None:
                self.shape.append(None)
            elif r.region is rec.region and r.slot in made:
                self.shape.append((r.slot, r.gfn))
            elif r.region is rec.region and r.slot in rec.values:
                self.shape.append((r.slot, r.gfn))
                self.rec.values[r.slot] = rec.values[r.slot]
            else:
                self.shape.append(alias_value(r))
        del self.results, self.gn

    def _edges(self, rec: Recording) -> dict[Any, Any]:
        """Those of the recording's edges that the replay asks for."""
        asked = [r.gfn for r in self.results if r is not None]
        asked += [e for n in self.nodes if n.slot in rec.tape for e in rec.tape[n.slot].edges or ()]
        keys = {k for e in asked if e is not None for k in ((e.gn, (e.gn, e.index)) if e.__class__ is OutputEdge else (e,))}
        return {k: rec.edges[k] for k in keys if k in rec.edges}

    def node(self, edges: tuple[Any, ...], mapped: tuple[bool, ...], size: int, shared: set[Any]) -> GradNode:
        """The gradient node for all examples; ``mapped`` says which edges belong to values that differ between them,
        ``shared`` has the edges of values that do not."""
        avals = tuple([a if (self.gn, k) in shared or self.gn in shared else aval((size, *a.shape), a.dtype, a.device)
                       for k, a in enumerate(self.avals)])
        out = GradNode(Node(_Row, (), (), avals, (), 0), (), None)  # type: ignore[arg-type]
        out.edges = edges
        out.rule = lambda node, g: self.backward(g if isinstance(g, list) else [g], edges, mapped)
        return out

    # ----------------------------------------------------------------------------------------------------------- backward
    def backward(self, cots: Sequence[Value | None], edges: tuple[Any, ...], mapped: tuple[bool, ...]) -> list[Value | None]:
        """Cotangents behind ``edges``: replayed, and summed over the examples where they share a value."""
        rec = copy.copy(self.rec)
        rec.values, rec.outside, rec.edges = dict(rec.values), dict(rec.outside), dict(rec.edges)
        rec.grads = before = state.grad
        shared = self._bind(rec, cots)
        try:
            for node in self.nodes:
                self._run(rec, node)
        finally:
            state.grad = before
        out: list[Value | None] = []
        for place, edge, many in zip(self.shape, edges, mapped):
            if place is None or edge is None:
                out.append(None)
                continue
            v, is_mapped = self._result(rec, place)
            if many or not shared:
                v, is_mapped = lift(v, is_mapped, rec.size), True
            out.append(P.reduce("add", v, (0,)) if is_mapped and not many else v)
        return out

    def _bind(self, rec: Recording, cots: Sequence[Value | None]) -> bool:
        """Put the cotangents in place. Returns whether they are those of values all examples share."""
        shared = [g is not None and g.aval.ndim == a.ndim for g, a in zip(cots, self.avals)]
        if any(shared) and (rec.values or any(g is not None and not s for g, s in zip(cots, shared))):
            raise AutogradError(f"vmap: cannot differentiate through {self.name} from outside of vmap: some of its results "
                                "depend on the mapped inputs and some do not")
        for c, g, a in zip(self.cots, cots, self.avals):
            if c is None:
                continue
            if g is None:
                g = P.full(a.shape if any(shared) else (rec.size, *a.shape), 0, a.dtype, a.device)
            (rec.outside if any(shared) else rec.values)[c[0]] = alias_value(g)
            rec.edges[c[1]] = g.gfn
        return any(shared)

    def _run(self, rec: Recording, node: Node) -> None:
        if any(s in rec.values for s in node.ins):
            rec.node(node)
            return
        gn = rec.tape.get(node.slot)
        ins = [rec.value(s, node, k)[0] for k, s in enumerate(node.ins)]
        state.grad = gn is not None and rec.grads
        if gn is not None:
            ins = [rec.with_edge(v, rec.edge(e)) for v, e in zip(ins, gn.edges or ())]
        assert node.op is not None
        out = apply(node.op, tuple(ins), node.attrs)
        for k, o in enumerate(out if isinstance(out, tuple) else (out,)):
            rec.outside[node.slot + k] = alias_value(o)
            if gn is not None:
                rec.edges[(gn, k) if node.op.n_out != 1 else gn] = o.gfn

    def _result(self, rec: Recording, place: Any) -> tuple[Value, bool]:
        if isinstance(place, Value):
            return place, False
        slot, edge = place
        found = rec.values.get(slot)
        v = rec.outside[slot] if found is None else found
        return (rec.with_edge(v, rec.edge(edge)) if rec.grads else v), found is not None
