"""Turn a transposed product into the product of the exchanged operands.

Algorithm: forward sweep. The result of a ``contract`` has the axes (batch, free axes of a, free axes of b). A ``permute``
that is its only reader and just exchanges the two groups of free axes equals the ``contract`` of b and a, which writes the
wanted layout itself. (Gradients of transposed weights and of attention's keys come out of the vjp rules this way.)
"""
from __future__ import annotations

from ..node import Graph, GraphBuilder, Node


def exchange_operands(graph: Graph) -> Graph:
    """An equal graph without permutes that only exchange the operands' axes of a product."""
    uses = [0] * len(graph.slot_avals())
    for s in (*graph.outputs, *[s for n in graph.nodes for s in n.ins]):
        uses[s] += 1
    producer = graph.producer()
    b = GraphBuilder()
    new: list[int] = []
    changed = False
    for node in graph.nodes:
        assert node.op is not None
        op, ins, attrs = node.op, node.ins, node.attrs
        if op.name == "permute" and uses[ins[0]] == 1 and _exchanges(producer[ins[0]], attrs[0]):
            inner = producer[ins[0]]
            assert inner.op is not None
            ba, bb, da, db = inner.attrs
            op, ins, attrs = inner.op, (inner.ins[1], inner.ins[0]), (bb, ba, db, da)
            changed = True
        first = b.add(op, tuple([new[s] for s in ins]), attrs, node.avals, node.loc)
        new.extend(range(first, first + len(node.avals)))
    return b.graph(tuple([new[s] for s in graph.outputs])) if changed else graph


def _exchanges(node: Node, perm: tuple[int, ...]) -> bool:
    """Whether ``perm`` swaps the free axes of the two operands of a contract node."""
    if node.op is None or node.op.name != "contract":
        return False
    a, b = node.in_avals
    batch, summed = len(node.attrs[0]), len(node.attrs[2])
    fa, fb = a.ndim - batch - summed, b.ndim - batch - summed
    order = (*range(batch), *range(batch + fa, batch + fa + fb), *range(batch, batch + fa))
    return bool(fa and fb) and perm == order
