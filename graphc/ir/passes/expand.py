"""Expand composites into primitives.

Algorithm: walk the nodes in order; a primitive is copied with renumbered inputs; a composite's expansion rule is traced
once over its input avals into a small graph (memoised by op, attributes and avals), whose nodes are copied in its
place. Composites inside expansions are expanded by the same walk, using an explicit worklist instead of recursion.
"""
from __future__ import annotations

from typing import Any

from ..node import Graph, GraphBuilder, Node
from ..recorder import trace

_EXPANSIONS: dict[Any, Graph] = {}  # memo: (op, attrs, input avals) -> expansion


def expansion(node: Node) -> Graph:
    """The one-level expansion of a composite node."""
    key = (node.op, node.attrs, node.in_avals)
    found = _EXPANSIONS.get(key)
    if found is None:
        op, attrs = node.op, node.attrs
        if len(_EXPANSIONS) > 10_000:
            _EXPANSIONS.clear()
        found = _EXPANSIONS[key] = trace(lambda *ins: op.expand(attrs, *ins), node.in_avals)  # type: ignore[union-attr]
    return found


def expand_composites(graph: Graph) -> Graph:
    """An equal graph of primitives only; returns ``graph`` itself when it has no composite."""
    while any(n.op is not None and n.op.is_composite for n in graph.nodes):
        graph = _expand_once(graph)
    return graph


def _expand_once(graph: Graph) -> Graph:
    b = GraphBuilder()
    new: list[int] = []  # old slot -> new slot
    for node in graph.nodes:
        ins = tuple([new[s] for s in node.ins])
        if node.op is None or not node.op.is_composite:
            first = b.add(node.op, ins, node.attrs, node.avals, node.loc)  # type: ignore[arg-type]
            new.extend(range(first, first + len(node.avals)))
            continue
        sub = expansion(node)
        local: list[int] = []
        args = iter(ins)
        for inner in sub.nodes:
            if inner.op is not None and inner.op.kind == "leaf":
                local.append(next(args))
                continue
            first = b.add(inner.op, tuple([local[s] for s in inner.ins]), inner.attrs,  # type: ignore[arg-type]
                          inner.avals, node.loc)
            local.extend(range(first, first + len(inner.avals)))
        new.extend(local[s] for s in sub.outputs)
    return b.graph(tuple([new[s] for s in graph.outputs]))
