"""Backward passes recorded before are spliced in as a block.

A backward pass whose gradient graph looks like one that was walked at this very point of the program records the same nodes
again. So the nodes a walk recorded are kept at the trie node it began at, under a signature of the gradient graph: the
nodes in breadth-first order, where each edge leads, which leaf is which. When the signature matches, the cursor jumps to the
block's end and the leaves get handles on their gradients' slots; no rule runs. A pass is left to the walk when anything in
it could act beyond recording: hooks, custom rules, operations of an earlier region, an open autocast block, values read from
outside the region.
"""
from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..ir.node import Aval, Node, Value
from ..ir.recorder import CASTS, Region, state
from ..ir.tape import AccumulateGrad, GradNode


class Block(NamedTuple):
    """What a walk left: the last node, which gradient nodes it visited, the leaves' sums in order."""

    end: Node
    visited: tuple[int, ...]
    sums: tuple[tuple[int, Aval, int], ...]  # number of the leaf, aval, slot


class Point:
    """A backward pass about to begin: where the program stands, and the signature of the gradient graph."""

    def __init__(self, region: Region, key: Any, order: list[GradNode], leaves: list[AccumulateGrad]):
        self.region, self.key, self.order, self.leaves = region, key, order, leaves
        self.start, self.bindings = region.cursor, len(region.bindings)

    def replay(self) -> dict[AccumulateGrad, Value] | None:
        """The leaf sums of the block known for this point, recorded by splicing it in; None if there is none."""
        block = self.start.blocks.get(self.key) if self.start.blocks else None
        if block is None:
            return None
        region, leaves = self.region, self.leaves
        region.cursor = block.end
        out = {leaves[n]: Value(av, region, slot) for n, av, slot in block.sums}
        region.live += map(weakref.ref, out.values())
        order = self.order
        for i in block.visited:
            order[i].release()
        return out

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
        self.start.keep_block(self.key, Block(region.cursor, visited,
                                              tuple([(number[leaf], v.aval, v.slot) for leaf, v in sums.items()])))


class _Roots:
    """What a walk starts from, as a gradient node."""

    __slots__ = ("edges", "home")
    node, released = None, False

    def __init__(self, edges: Sequence[Any], home: Any):
        self.edges, self.home = edges, home


def point(roots: Sequence[Any], cots: Sequence[Value], keep: bool) -> Point | None:
    """The signature of a backward pass that does nothing but record; None for any other."""
    region = state.region
    if CASTS or state.tracing:
        return None
    token = region.token
    number: dict[Any, Any] = {}
    known = number.get
    order: list[Any] = [_Roots(roots, token)]
    leaves: list[AccumulateGrad] = []
    signature: list[Any] = [keep, *[v.slot for v in cots]]
    add = signature.append
    for v in cots:
        if v.region is not region:
            return None
    for gn in order:  # grows while it is walked
        edges = gn.edges
        if gn.home is not token or edges is None:
            return None
        add(gn.node)
        for e in edges:
            n = known(e)
            if n is None and e is not None:
                if e.__class__ is GradNode:
                    number[e] = n = len(order)
                    order.append(e)
                elif e.__class__ is AccumulateGrad:
                    number[e] = n = ~len(leaves)
                    leaves.append(e)
                else:  # one of several outputs
                    n = known(e.gn)
                    if n is None:
                        number[e.gn] = n = len(order)
                        order.append(e.gn)
                    number[e] = n = n, e.index
            add(n)
    return Point(region, tuple(signature), order, leaves)
