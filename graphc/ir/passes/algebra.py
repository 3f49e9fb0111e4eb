"""Algebraic simplification by local rules that hold exactly, NaN, infinities and signed zeros included.

Algorithm: forward sweep; each node is matched against the rules of its op, which may name an existing slot to use
instead. Only constants written by expansions and vjp rules take part: a user's Python number is a run-time slot.
Rules: x*1, x/1, x-0, x+(-0), cast to own dtype, reshape/permute/expand/slice that change nothing, reshape of reshape,
permute of permute, double negation, where with equal arms.  (x+0 stays: it turns -0 into 0. x*0 stays: NaN.)
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..node import Graph, GraphBuilder, Node


def simplify(graph: Graph) -> Graph:
    """An equal graph after one forward sweep of the rules."""
    b = GraphBuilder()
    made: list[Node] = []  # producer of each new slot
    new: list[int] = []
    changed = False
    for node in graph.nodes:
        assert node.op is not None
        ins = tuple([new[s] for s in node.ins])
        same = _same_as(node, ins, b, made)
        if same is not None:
            new.append(same)
            changed = True
            continue
        attrs = node.attrs
        name = node.op.name
        if name in ("reshape", "permute") and made[ins[0]].op is node.op:
            inner = made[ins[0]]
            if name == "permute":
                attrs = (tuple([inner.attrs[0][p] for p in attrs[0]]),)
            ins = inner.ins
            changed = True
            if b.avals[ins[0]] is node.avals[0] and (name == "reshape" or attrs[0] == tuple(range(len(attrs[0])))):
                new.append(ins[0])  # the two undo each other
                continue
        first = b.add(node.op, ins, attrs, node.avals, node.loc)
        made.extend([b.nodes[-1]] * len(node.avals))
        new.extend(range(first, first + len(node.avals)))
    return b.graph(tuple([new[s] for s in graph.outputs])) if changed else graph


def _number(n: Node) -> Any:
    """The value of a constant (or a broadcast constant), else None."""
    if n.op is not None and n.op.name == "const":
        return np.frombuffer(n.attrs[0], n.attrs[1].np)[0]
    return None


def _constant(slot: int, made: list[Node]) -> Any:
    n = made[slot]
    if n.op is not None and n.op.name == "expand":
        n = made[n.ins[0]]
    return _number(n)


def _same_as(node: Node, ins: tuple[int, ...], b: GraphBuilder, made: list[Node]) -> int | None:
    """An existing slot equal to the node, or None."""
    name = node.op.name  # type: ignore[union-attr]
    out = node.avals[0] if node.avals else None
    if name in ("reshape", "expand", "cast", "copy"):
        return ins[0] if b.avals[ins[0]] is out else None
    if name == "permute":
        return ins[0] if node.attrs[0] == tuple(range(len(node.attrs[0]))) else None
    if name == "neg":
        inner = made[ins[0]]
        return inner.ins[0] if inner.op is node.op else None
    if name == "where":
        return ins[1] if ins[1] == ins[2] and b.avals[ins[1]] is out else None
    if name not in ("mul", "div", "sub", "add") or out is None:
        return None
    return _arithmetic(name, ins, out, b, made)


def _arithmetic(name: str, ins: tuple[int, ...], out: Any, b: GraphBuilder, made: list[Node]) -> int | None:
    x, y = ins
    cy = _constant(y, made)
    if cy is not None and b.avals[x] is out:
        if name in ("mul", "div") and cy == 1:
            return x
        if name == "sub" and cy == 0 and not np.signbit(cy):
            return x
        if name == "add" and cy == 0 and (out.dtype.category < 2 or np.signbit(cy)):
            return x
    if name in ("mul", "add") and b.avals[y] is out:
        cx = _constant(x, made)
        if cx is not None and ((name == "mul" and cx == 1) or (name == "add" and cx == 0 and out.dtype.category < 2)):
            return y
    return None
