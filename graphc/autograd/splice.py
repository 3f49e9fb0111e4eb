"""Backward passes recorded before are spliced in as a block.

A backward pass whose gradient graph looks like one that was walked at this very point of the program records the same nodes
again. So what a walk recorded is kept at the trie node it began at, with the gradient graph's *shape*: its gradient nodes in
breadth-first order, the path each was found by, and which of all edges lead to the same. A graph of the same shape is
recognised by following the paths and comparing lists, so that little of it is Python's work; then the cursor jumps to the
block's end and the leaves get handles on their gradients' slots; no rule runs. A pass is left to the walk when anything in
it could act beyond recording: hooks, custom rules, operations of an earlier region, an open autocast block, values read from
outside the region.
"""
from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from ..ir.node import Aval, Node, Value
from ..ir.recorder import CASTS, Region, state
from ..ir.tape import AccumulateGrad, GradNode, OutputEdge

_KEPT = 4  # blocks remembered for one point of the program
_node, _home = attrgetter("node"), attrgetter("home")


class Shape(NamedTuple):
    """A gradient graph but for which objects it is made of. Edges are numbered as they stand: the roots, then those of every
    gradient node in order."""

    paths: list[tuple[int, int]]  # of every gradient node: where an edge to it is (0: the roots, i: the ith node), which one;
    #                               ~which where the edge is to one of several outputs
    nodes: list[Node]
    outputs: list[tuple[int, int, int]]  # edges to one of several outputs: (edge, number of the gradient node, output)
    leaf_at: list[int]  # of every leaf: an edge to it
    pick_leaves: Callable[[Any], Any]
    pick_edges: Callable[[Any], Any]  # all edges out of (None, *gradient nodes, *outputs, *leaves)

    def match(self, roots: Sequence[Any], token: Any) -> tuple[list[GradNode], tuple[AccumulateGrad, ...]] | None:
        """Gradient nodes and leaves of a graph of this shape, all recorded in the region of ``token``; None for any other."""
        order: list[Any] = []
        lists: list[Any] = [roots]
        try:
            for parent, k in self.paths:
                e = lists[parent][k] if k >= 0 else lists[parent][~k].gn
                order.append(e)
                lists.append(e.edges)
            if [*map(_node, order)] != self.nodes:
                return None
            edges = (*chain.from_iterable(lists),)
            leaves = self.pick_leaves(edges)
            outs = [edges[at] for at, _, _ in self.outputs]
            if edges != self.pick_edges((None, *order, *outs, *leaves)):
                return None
            for e, (_, i, k) in zip(outs, self.outputs):
                if e.__class__ is not OutputEdge or e.gn is not order[i] or e.index != k:
                    return None
        except (AttributeError, IndexError, TypeError):  # a leaf or nothing at the end of a path, fewer edges, a freed node
            return None
        if {*map(_home, order)} != {token} or {*map(type, leaves)} - _LEAF or len({*leaves}) != len(leaves):
            return None
        return order, leaves


_LEAF = {AccumulateGrad}


class Block(NamedTuple):
    """What a walk left: the last node, which gradient nodes it visited, the leaves' sums in order."""

    shape: Shape
    end: Node
    visited: tuple[int, ...]
    sums: tuple[tuple[int, Aval, int], ...]  # number of the leaf, aval, slot


def replay(roots: Sequence[Any], cots: Sequence[Value], keep: bool) -> dict[AccumulateGrad, Value] | None:
    """The leaf sums of a backward pass known at this point of the program, recorded by splicing it in; None if none is."""
    region = state.region
    blocks = region.cursor.blocks
    if not blocks or CASTS or state.tracing:
        return None
    for block in blocks.get(_key(region, cots, keep), ()):
        found = block.shape.match(roots, region.token)
        if found is not None:
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
    outs: list[OutputEdge] = []
    leaves: list[AccumulateGrad] = []
    paths: list[tuple[int, int]] = []
    at: dict[Any, int] = {}  # gradient node, output edge or leaf -> its number among those; None at first
    first: dict[Any, int] = {}  # output edge or leaf -> the first edge to it
    edges: list[Any] = []
    lists: list[Any] = [roots]
    for parent, of in enumerate(lists):  # grows while it is walked
        for k, e in enumerate(of):
            gn = e.gn if e.__class__ is OutputEdge else e if e.__class__ is GradNode else None
            if gn is not None and gn not in at:
                if gn.home is not token or gn.edges is None:
                    return None
                at[gn] = len(order)
                order.append(gn)
                paths.append((parent, k if gn is e else ~k))
                lists.append(gn.edges)
            if gn is not e and e is not None and e not in at:
                numbered: list[Any] = outs if gn is not None else leaves
                at[e], first[e] = len(numbered), len(edges)
                numbered.append(e)
            edges.append(e)
    shift = {GradNode: 1, OutputEdge: 1 + len(order), AccumulateGrad: 1 + len(order) + len(outs)}
    shape = Shape(paths, [gn.node for gn in order], [(first[e], at[e.gn], e.index) for e in outs], [first[e] for e in leaves],
                  _picker([first[e] for e in leaves]), _picker([0 if e is None else at[e] + shift[e.__class__] for e in edges]))
    return Point(region, key, shape, order, leaves)


def _picker(numbers: Sequence[int]) -> Callable[[Any], tuple[Any, ...]]:
    """A function that takes these items of a sequence."""
    return itemgetter(*numbers) if len(numbers) > 1 else lambda items: tuple([items[k] for k in numbers])
