"""Compute only the parts of a pointwise value that are read, as parts.

Algorithm: a backward sweep collects for every pointwise value and slice the *regions* its readers want. A value is taken
apart when all its readers are slices read by loop code, or values that are taken apart themselves, and the regions together
are no larger than the value. A forward sweep then builds such a value once per region, out of slices of its operands. So
the gates of an LSTM, slices of one sum, become one kernel over the size of a gate; without this, the sum would be stored
first, since a kernel has one iteration space.
"""
from __future__ import annotations

import math

from ..node import Graph, GraphBuilder, Node, aval
from ..optable import OPS
from .dce import dce

Region = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # starts, stops, steps (positive)
MAX_REGIONS = 8


def narrow(graph: Graph) -> Graph:
    """An equal graph in which pointwise values read in parts are computed in parts."""
    if not any(n.op is OPS["slice"] for n in graph.nodes):
        return graph
    regions = _regions(graph)
    if not regions:
        return graph
    b = GraphBuilder()
    new: list[int] = []
    parts: dict[tuple[int, Region], int] = {}
    for node in graph.nodes:
        if node.slot in regions:
            new.append(-1)
            for r in regions[node.slot]:
                parts[node.slot, r] = _part(b, new, parts, regions, node, r)
        elif node.op is OPS["slice"] and node.ins[0] in regions:
            new.append(parts[node.ins[0], node.attrs])
        else:
            new.extend(b.copy(node, tuple([new[s] for s in node.ins])))
    return dce(b.graph(tuple([new[s] for s in graph.outputs])))


def _regions(graph: Graph) -> dict[int, list[Region]]:
    """Values to take apart -> the regions they are wanted at."""
    outputs = set(graph.outputs)
    readers: list[list[Node]] = [[] for _ in graph.slot_avals()]
    for n in graph.nodes:
        for s in set(n.ins):
            readers[s].append(n)
    found: dict[int, list[Region]] = {}
    for node in reversed(graph.nodes):
        is_slice = node.op is OPS["slice"] and min(node.attrs[2], default=1) > 0
        if not node.ins or node.slot in outputs or not (is_slice or node.op.kind == "pointwise") or not readers[node.slot]:  # type: ignore[union-attr]
            continue
        wanted: dict[Region, None] = {}
        for user in readers[node.slot]:
            if user.slot in found:
                for r in found[user.slot]:
                    wanted[_compose(user.attrs, r) if user.op is OPS["slice"] else _cut(r, node.avals[0].shape)] = None
            elif user.op is OPS["slice"] and min(user.attrs[2], default=1) > 0 and user.slot not in outputs and \
                    all(u.op.kind in ("pointwise", "reduce") for u in readers[user.slot]):  # type: ignore[union-attr]
                wanted[user.attrs] = None
            else:
                break
        else:
            if len(wanted) <= MAX_REGIONS and sum(map(_size, wanted)) <= node.avals[0].size:
                found[node.slot] = list(wanted)
    # a slice alone is a view already: only those whose operand is taken apart as well need building in parts
    return found if any(n.op.kind == "pointwise" and n.slot in found for n in graph.nodes) else {}  # type: ignore[union-attr]


def _part(b: GraphBuilder, new: list[int], parts: dict[tuple[int, Region], int], regions: dict[int, list[Region]], node: Node,
          r: Region) -> int:
    """Build one region of a value."""
    def operand(slot: int, shape: tuple[int, ...], want: Region) -> int:
        found = parts.get((slot, want))
        if found is not None:
            return found
        assert slot not in regions, "a region nobody asked for"
        if want == _whole(shape):
            return new[slot]
        out = aval(_shape(want), dtype, node.avals[0].device)
        parts[slot, want] = b.add(OPS["slice"], (new[slot],), want, (out,), node.loc)
        return parts[slot, want]

    if node.op is OPS["slice"]:
        dtype = node.avals[0].dtype
        return operand(node.ins[0], node.in_avals[0].shape, _compose(node.attrs, r))
    ins = []
    for s, av in zip(node.ins, node.in_avals):
        dtype = av.dtype
        ins.append(operand(s, av.shape, _cut(r, av.shape)))
    out = aval(_shape(r), node.avals[0].dtype, node.avals[0].device)
    return b.add(node.op, tuple(ins), node.attrs, (out,), node.loc)  # type: ignore[arg-type]


def _shape(r: Region) -> tuple[int, ...]:
    return tuple([len(range(a, z, s)) for a, z, s in zip(*r)])


def _size(r: Region) -> int:
    return math.prod(_shape(r))


def _whole(shape: tuple[int, ...]) -> Region:
    return (0,) * len(shape), shape, (1,) * len(shape)


def _cut(r: Region, shape: tuple[int, ...]) -> Region:
    """The region of an operand of ``shape`` that is broadcast to where ``r`` is wanted."""
    lead = len(r[0]) - len(shape)
    axes = [(0, 1, 1) if n == 1 else (r[0][lead + d], r[1][lead + d], r[2][lead + d]) for d, n in enumerate(shape)]
    return tuple([a for a, _, _ in axes]), tuple([z for _, z, _ in axes]), tuple([s for _, _, s in axes])


def _compose(outer: Region, r: Region) -> Region:
    """The region ``r`` of the slice ``outer``, as a region of what is sliced."""
    axes = []
    for a, s, b, z, t in zip(outer[0], outer[2], *r):
        n = len(range(b, z, t))
        start = a + b * s
        axes.append((start, start + (n - 1) * s * t + 1 if n else start, s * t))
    return tuple([a for a, _, _ in axes]), tuple([z for _, z, _ in axes]), tuple([s for _, _, s in axes])
