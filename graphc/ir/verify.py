"""What a legal Graph is. Runs in tests, and between passes under ``GRAPHC_VERIFY``."""
from __future__ import annotations

from ..errors import VerifyError
from .marks import AFTER, TURN
from .node import Graph
from .optable import OPS
from .recorder import LEAF, SCALAR


def verify(graph: Graph, where: str = "graph") -> None:
    """Raise VerifyError unless ``graph`` is well formed: consecutive slots, inputs defined before use, every op in the
    table, stored avals equal to inferred ones, outputs in range."""
    avals: list[object] = []
    for i, node in enumerate(graph.nodes):
        op = node.op
        if op is None or (op not in (LEAF, SCALAR, AFTER, TURN) and OPS.get(op.name) is not op):
            raise VerifyError(f"{where}: node {i} has an op that is not in the table: {op}")
        if node.slot != len(avals):
            raise VerifyError(f"{where}: node {i} ({op.name}) starts at slot {node.slot}, expected {len(avals)}")
        for s in node.ins:
            if not 0 <= s < node.slot:
                raise VerifyError(f"{where}: node {i} ({op.name}) reads slot {s}, which is not defined before it")
        ins = tuple([avals[s] for s in node.ins])
        if any(a is not b for a, b in zip(ins, node.in_avals)) or len(ins) != len(node.in_avals):
            raise VerifyError(f"{where}: node {i} ({op.name}) has input avals {node.in_avals}, its inputs are {ins}")
        want = op.infer_avals(node.attrs, node.in_avals)
        if want != node.avals:
            raise VerifyError(f"{where}: node {i} ({op.name}) has avals {node.avals}, its rule gives {want}")
        avals.extend(node.avals)
    for s in graph.outputs:
        if not 0 <= s < len(avals):
            raise VerifyError(f"{where}: output slot {s} does not exist")
