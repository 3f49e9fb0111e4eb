"""Backward passes recorded before are spliced in as a block.

A backward pass whose gradient graph looks like one that was walked at this very point of the program records the same nodes
again. So what a walk recorded is kept at the trie node it began at, with the gradient graph's *shape*: its gradient nodes in
breadth-first order, an edge by which each is found, and which edges lead to the same. A graph of the same shape is recognised
by following those edges; then the cursor jumps to the block's end and the leaves get handles on their gradients' slots; no rule
runs. A pass is left to the walk when anything in it could act beyond recording: hooks, custom rules, operations of an earlier
region, an open autocast block, values read from outside the region.
"""
from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..ir.node import Aval, Node, Value
from ..ir.picking import picker
from ..ir.recorder import CASTS, Region, state
from ..ir.tape import AccumulateGrad, GradNode, OutputEdge

_KEPT = 4  # blocks remembered for one point of the program
_LEAF = {AccumulateGrad}


class Shape(NamedTuple):
    """A gradient graph but for which objects it is made of. Its edges are numbered as they stand: the roots, then those of
    every gradient node in order."""

    nodes: list[tuple[int, Node]]  # of every gradient node an edge to it (~edge: to one of its outputs), and what was recorded
    same: list[tuple[int, int]]  # edges that lead where an earlier one does; -1: nowhere
    outputs: list[tuple[int, int, int]]  # edges to one of several outputs: (edge, number of the gradient node, output)
    pick_leaves: Callable[[Any], tuple[Any, ...]]  # takes, of all edges, one to every leaf

    def match(self, roots: Sequence[Any], token: Any) -> tuple[list[GradNode], tuple[AccumulateGrad, ...]] | None:
        """Gradient nodes and leaves of a graph of this shape, all recorded in the region of ``token``; None for any other."""
        edges: list[Any] = [*roots]
        order: list[GradNode] = []
        try:
            for at, node in self.nodes:
                gn = edges[at] if at >= 0 else edges[~at].gn
                if gn.node is not node or gn.home is not token:
                    return None
                order.append(gn)
                edges += gn.edges
            leaves = self.pick_leaves(edges)
            for at, i, k in self.outputs:
                if edges[at].__class__ is not OutputEdge or edges[at].gn is not order[i] or edges[at].index != k:
                    return None
            edges.append(None)
            for at, other in self.same:
                if edges[at] is not edges[other]:
                    return None
        except (AttributeError, IndexError, TypeError):  # a leaf or nothing instead of a gradient node, a freed node
            return None
        return None if {*map(type, leaves)} - _LEAF or len({*leaves}) < len(leaves) else (order, leaves)


class Block(NamedTuple):
    """What a walk left: the last node, which gradient nodes it visited, the leaves' sums in order."""

    shape: Shape
    end: Node
    visited: tuple[int, ...]
    sums: tuple[tuple[int, Aval, int], ...]  # number of the leaf, aval, slot


def replay(roots: Sequence[Any], cots: Sequence[Value], keep: bool) -> dict[AccumulateGrad, Value] | None:
    """The leaf sums of a backward pass known at this point of the program, recorded by splicing it in; None if none is."""
    region = state.region
    start = region.cursor
    blocks = start.blocks
    if not blocks or CASTS or state.tracing:
        return None
    for block in blocks.get(_key(region, cots, keep), ()):
        found = block.shape.match(roots, region.token)
        if found is not None:
            if region.cursor is not start or region is not state.region:  # something was recorded or computed meanwhile
                return None
            order, leaves = found
            region.cursor = block.end
            out = {leaves[n]: Value(av, region, slot) for n, av, slot in block.sums}
            region.live += map(weakref.ref, out.values())
            for i in block.visited:
                gn = order[i]
                if gn.ins is not None or gn.out is not None:  # release(): there are no rules of the user's here
                    gn.edges = gn.ins = gn.out = None  # type: ignore[assignment]
            return out
    return None


def _key(region: Region, cots: Sequence[Value], keep: bool) -> Any:
    """What passes that may be alike have in common; none has a cotangent of another region."""
    return (replay, keep, *[v.slot if v.region is region else None for v in cots])


class Point:
    """A backward pass about to begin, to be remembered: where the program stands, and what the gradient graph looks like."""

    def __init__(self, region: Region, key: Any, shape: Shape, order: list[Any], leaves: list[AccumulateGrad]):
        self.region, self.key, self.shape, self.order, self.leaves = region, key, shape, order, leaves
        self.start, self.bindings = region.cursor, len(region.bindings)

    def remember(self, sums: dict[AccumulateGrad, Value]) -> None:
        """Keep what the walk recorded, if it recorded nothing but nodes."""
        region = state.region
        if region is not self.region or len(region.bindings) != self.bindings or region.must_flush:
            return
        if any(v.region is not region for v in sums.values()):
            return
        number = {leaf: n for n, leaf in enumerate(self.leaves)}
        if any(leaf not in number for leaf in sums):
            return
        visited = tuple([i for i, gn in enumerate(self.order) if gn.released])
        block = Block(self.shape, region.cursor, visited, tuple([(number[leaf], v.aval, v.slot) for leaf, v in sums.items()]))
        known = self.start.blocks.get(self.key, ()) if self.start.blocks else ()
        self.start.keep_block(self.key, (block, *known[:_KEPT - 1]))


def point(roots: Sequence[Any], cots: Sequence[Value], keep: bool) -> Point | None:
    """A backward pass that does nothing but record, described; None for any other."""
    region = state.region
    key = _key(region, cots, keep)
    if CASTS or state.tracing or None in key:
        return None
    token = region.token
    order: list[Any] = []
    leaves: list[AccumulateGrad] = []
    number: dict[Any, int] = {}  # of gradient nodes
    first: dict[Any, int] = {}  # of what edges lead to
    nodes: list[tuple[int, Node]] = []
    same: list[tuple[int, int]] = []
    outputs: list[tuple[int, int, int]] = []
    edges = [*roots]
    for at, e in enumerate(edges):  # grows while it is walked
        if e is None or e in first:
            same.append((at, -1 if e is None else first[e]))
            continue
        first[e] = at
        if e.__class__ is AccumulateGrad:
            leaves.append(e)
            continue
        gn = e.gn if e.__class__ is OutputEdge else e
        if gn not in number:
            if gn.home is not token or gn.edges is None:
                return None
            number[gn] = len(order)
            order.append(gn)
            nodes.append((at if gn is e else ~at, gn.node))
            edges += gn.edges
        if gn is not e:
            outputs.append((at, number[gn], e.index))
    return Point(region, key, Shape(nodes, same, outputs, picker([first[e] for e in leaves])), order, leaves)
