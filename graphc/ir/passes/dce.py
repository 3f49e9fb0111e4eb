"""Drop nodes no output needs.

Algorithm: one backward sweep marks every node an output reaches; one forward sweep copies marked nodes and all leaves
with new slots.
"""
from __future__ import annotations

from ..node import Graph, GraphBuilder


def dce(graph: Graph) -> Graph:
    """An equal graph without unreachable nodes."""
    needed = [False] * (graph.nodes[-1].end if graph.nodes else 0)
    for s in graph.outputs:
        needed[s] = True
    dead = 0
    for node in reversed(graph.nodes):
        if any(needed[node.slot:node.end]):
            for s in node.ins:
                needed[s] = True
        elif node.op is not None and node.op.kind != "leaf":
            dead += 1
    if not dead:
        return graph
    b = GraphBuilder()
    new: dict[int, int] = {}
    for node in graph.nodes:
        if node.op.kind != "leaf" and not any(needed[node.slot:node.end]):  # type: ignore[union-attr]
            if node.turn and b.nodes:
                b.nodes[-1].turn |= node.turn
            continue
        first = b.add(node.op, tuple([new[s] for s in node.ins]), node.attrs, node.avals, node.loc)  # type: ignore[arg-type]
        b.nodes[-1].turn = node.turn
        for k in range(len(node.avals)):
            new[node.slot + k] = first + k
    return b.graph(tuple([new[s] for s in graph.outputs]))
