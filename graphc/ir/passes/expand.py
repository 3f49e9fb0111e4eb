"""Expand composites into primitives.

Algorithm: walk the nodes in order; a primitive is copied with renumbered inputs; a composite's expansion rule is traced
once over its input avals into a small graph (memoised by op, attributes and avals), whose nodes are copied in its
place. Composites inside expansions are expanded by the same walk, using an explicit worklist instead of recursion.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..node import Graph, GraphBuilder, Loc, Node
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
    return expand_where(graph, lambda node: True)


def expand_where(graph: Graph, wanted: Callable[[Node], bool]) -> Graph:
    """An equal graph without the composites that are ``wanted`` expanded, also of those inside expansions."""
    while any(n.op is not None and n.op.is_composite and wanted(n) for n in graph.nodes):
        b = GraphBuilder()
        new: list[int] = []  # old slot -> new slot
        for node in graph.nodes:
            ins = tuple([new[s] for s in node.ins])
            if node.op is None or not node.op.is_composite or not wanted(node):
                new.extend(b.copy(node, ins))
            else:
                new.extend(_inlined(b, expansion(node), ins, node.loc))
        graph = b.graph(tuple([new[s] for s in graph.outputs]))
    return graph


def _inlined(b: GraphBuilder, sub: Graph, ins: tuple[int, ...], loc: Loc) -> list[int]:
    """Append the nodes of an expansion; the slots of its results."""
    local: list[int] = []
    args = iter(ins)
    for node in sub.nodes:
        if node.op is not None and node.op.kind == "leaf":
            local.append(next(args))
            continue
        first = b.add(node.op, tuple([local[s] for s in node.ins]), node.attrs, node.avals, loc)  # type: ignore[arg-type]
        local.extend(range(first, first + len(node.avals)))
    return [local[s] for s in sub.outputs]
