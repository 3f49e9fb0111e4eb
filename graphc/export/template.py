"""Programs of any batch size: two graphs of one program at two sizes, and every number in between and beyond.

Every integer of the graphs (sizes, slice ends, loop lengths) must be an affine function of the batch size: two sizes determine
it, a third one checks it at export time. Graphs at other sizes are made by that rule and verified like recorded ones.
"""
from __future__ import annotations

from typing import Any

from ..errors import GraphcError, ShapeError
from ..ir.node import Aval, Graph, Node, aval
from ..ir.verify import verify

REFUSAL = ("dynamic_batch: the program depends on the batch size by more than the sizes of its tensors, so other sizes can't "
           "be derived")


class _Differs(Exception):
    """Two graphs are not one program at two sizes."""


def _between(a: Any, b: Any, b1: int, b2: int, size: int) -> Any:
    """The attribute at ``size`` of one that is ``a`` at ``b1`` and ``b`` at ``b2``."""
    if a is b:
        return a
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return tuple([_between(x, y, b1, b2, size) for x, y in zip(a, b)])
    if type(a) is int and type(b) is int:
        rise, rest = divmod(b - a, b2 - b1)
        if rest:
            raise _Differs
        return a + rise * (size - b1)
    if isinstance(a, Aval) and isinstance(b, Aval) and a.dtype is b.dtype and a.device is b.device:
        return aval(_between(a.shape, b.shape, b1, b2, size), a.dtype, a.device)
    if isinstance(a, Graph) and isinstance(b, Graph):
        return _graph_at(a, b, b1, b2, size)
    if type(a) is not type(b) or a != b:
        raise _Differs
    return a


def _graph_at(g1: Graph, g2: Graph, b1: int, b2: int, size: int) -> Graph:
    if len(g1.nodes) != len(g2.nodes) or g1.outputs != g2.outputs:
        raise _Differs
    nodes: list[Node] = []
    avals: list[Aval] = []
    for m, n in zip(g1.nodes, g2.nodes):
        if m.op is not n.op or m.ins != n.ins or len(m.avals) != len(n.avals):
            raise _Differs
        outs = _between(m.avals, n.avals, b1, b2, size)
        nodes.append(Node(m.op, m.ins, _between(m.attrs, n.attrs, b1, b2, size), outs, tuple([avals[s] for s in m.ins]), m.slot,
                          m.loc))
        avals.extend(outs)
    return Graph(nodes, g1.outputs)


def at_size(graphs: dict[int, Graph], size: int) -> Graph:
    """The program at a batch size; ``graphs`` holds it at two. Raises ShapeError when it has none of that size."""
    (b1, g1), (b2, g2) = sorted(graphs.items())
    try:
        graph = _graph_at(g1, g2, b1, b2, size)
        verify(graph, f"batch size {size}")
    except (_Differs, GraphcError, ArithmeticError, LookupError, ValueError) as error:
        raise ShapeError(f"the exported program has no form for batch size {size}"
                         + (f": {error}" if str(error) else "")) from None
    return graph


def check(graphs: dict[int, Graph], size: int, graph: Graph) -> None:
    """Raise GraphcError unless ``graph`` is the program that the two ``graphs`` are, at ``size``."""
    try:
        made = at_size(graphs, size)
    except ShapeError:
        made = None
    if made != graph:
        where = ""
        (b1, g1), (_, g2) = sorted(graphs.items())
        from ..ir.location import format_location

        for m, n in zip(g1.nodes, g2.nodes):
            if m.op is not n.op or m.ins != n.ins or (m.op is not None and m.op.name == "const" and m.attrs != n.attrs):
                where = f" ({m.op.name if m.op else '?'} recorded at {format_location(m.loc)})"
                break
        raise GraphcError(f"{REFUSAL}{where}; export one program per batch size")
