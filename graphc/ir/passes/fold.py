"""Compute nodes whose inputs are all constants, when the result is a single element.

Algorithm: forward sweep keeping the arrays of constant slots; a pointwise node over zero-dim constants is evaluated by
its NumPy meaning and becomes a ``const``. Larger constants stay computed (an ``expand`` of a const costs nothing).
"""
from __future__ import annotations

import numpy as np

from ..node import Graph, GraphBuilder
from ..optable import OPS, Prim
from ..quiet import quiet


def fold_constants(graph: Graph) -> Graph:
    """An equal graph with zero-dim constant arithmetic done."""
    const = OPS["const"]
    b = GraphBuilder()
    arrays: dict[int, np.ndarray] = {}
    new: list[int] = []
    for node in graph.nodes:
        op = node.op
        ins = tuple([new[s] for s in node.ins])
        assert op is not None
        foldable = (isinstance(op, Prim) and op.kind in ("pointwise", "view") and op is not const and ins
                    and len(node.avals) == 1 and node.avals[0].ndim == 0 and all(s in arrays for s in ins))
        if foldable:
            with quiet():
                out = np.asarray(op.eval_np(node.attrs, *[arrays[s] for s in ins]))  # type: ignore[attr-defined]
            out = out.astype(node.avals[0].dtype.np)
            first = b.add(const, (), (out.tobytes(), node.avals[0].dtype), node.avals, node.loc)
            arrays[first] = out
        else:
            first = b.add(op, ins, node.attrs, node.avals, node.loc)
            if op is const:
                arrays[first] = np.frombuffer(node.attrs[0], node.attrs[1].np).reshape(())
        new.extend(range(first, first + len(node.avals)))
    return b.graph(tuple([new[s] for s in graph.outputs]))
