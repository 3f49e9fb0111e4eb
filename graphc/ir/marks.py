"""Two ops that exist only inside the compiler: where backward passes lie in a program, and an order between values.

Both are left out of the op table: no user program records them, no other pass makes them.
"""
from __future__ import annotations

from typing import Any

from ..device import CPU
from ..dtypes import bool_
from .node import Aval, Graph, GraphBuilder, aval
from .optable import Prim

BEGIN, END = 1, 2  # flags of ``Node.turn``: a backward pass began, or ended, after the node


def _no_value(*_: Any) -> Any:
    raise AssertionError("a mark has no evaluation")


def _first(attrs: Any, x: Aval, gate: Aval) -> Aval:
    return x


TURN = Prim("turn", kind="leaf", attrs=("flag",), infer=lambda attrs: aval((), bool_, CPU), eval_np=_no_value, loop="none",
            vjp=None, saves=(), samples=tuple, doc="Here a backward pass begins or ends. Removed before a plan is made.")
AFTER = Prim("after", kind="view", attrs=(), infer=_first, eval_np=lambda attrs, x, gate: x, loop="view", vjp=None, saves=(),
             samples=tuple, doc="``x`` itself, for readers that must not run before ``gate`` is complete. Costs nothing.")


def with_turns(graph: Graph) -> Graph:
    """A recorded graph with TURN nodes where backward passes began and ended."""
    b = GraphBuilder()
    new: list[int] = []
    for node in graph.nodes:
        new.extend(b.copy(node, tuple([new[s] for s in node.ins])))
        for flag in (END, BEGIN):  # one pass ends before the next begins
            if node.turn & flag:
                b.emit(TURN, (), (flag,), node.loc)
    return b.graph(tuple([new[s] for s in graph.outputs]))


def without_turns(graph: Graph) -> tuple[Graph, list[tuple[int, int]]]:
    """The graph without TURN nodes, and of each backward pass (first node, node behind the last)."""
    b = GraphBuilder()
    new: list[int] = []
    walks: list[tuple[int, int]] = []
    start = -1
    for node in graph.nodes:
        if node.op is not TURN:
            new.extend(b.copy(node, tuple([new[s] for s in node.ins])))
            continue
        new.append(-1)
        if node.attrs[0] == BEGIN:
            start = len(b.nodes)
        elif start >= 0 or not walks:  # a region may begin inside a pass
            walks.append((max(start, 0), len(b.nodes)))
            start = -1
    if start >= 0:
        walks.append((start, len(b.nodes)))
    return b.graph(tuple([new[s] for s in graph.outputs])), [(a, z) for a, z in walks if z > a]
