"""Merge nodes that compute the same thing.

Algorithm: value numbering in one forward sweep. Two nodes are the same when op, attributes and (renumbered) inputs are.
Leaves stay distinct; all ops are pure (random ops take their seed and offset as inputs), so merging is always right.
"""
from __future__ import annotations

from typing import Any

from ..node import Graph, GraphBuilder


def merge_common(graph: Graph) -> Graph:
    """An equal graph in which no two nodes agree in op, attributes and inputs."""
    b = GraphBuilder()
    seen: dict[Any, int] = {}
    new: list[int] = []
    for node in graph.nodes:
        op = node.op
        assert op is not None
        ins = tuple([new[s] for s in node.ins])
        key = (op, ins, node.attrs)
        first = None if op.kind == "leaf" else seen.get(key)
        if first is None:
            first = b.add(op, ins, node.attrs, node.avals, node.loc)
            seen[key] = first
        new.extend(range(first, first + len(node.avals)))
    if len(b.nodes) == len(graph.nodes):
        return graph
    return b.graph(tuple([new[s] for s in graph.outputs]))
