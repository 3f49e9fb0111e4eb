"""The graph passes for a GPU plan: composites that have a kernel of their own here stay one node, and reductions with too
few results for the device's processors are cut in two."""
from __future__ import annotations

import math

from ...ir.composites.scored_attention import SCORED, SCORED_BACKWARD
from ...ir.marks import with_turns, without_turns
from ...ir.node import Aval, Graph, GraphBuilder, Node
from ...ir.optable import OPS
from ...ir.passes import PASSES
from ...ir.passes.attention import recognise_attention
from ...ir.passes.expand import expand_composites, expand_where
from ...ir.passes.narrow import narrow
from ...ir.passes.recompute import recompute
from ..split import as_one_axis, split_node, thin
from . import attention
from .compiler import Target
from .layout import channels_last
from .statistics import in_runs
from .tiling import COLUMNS

LARGE = 1 << 18  # elements; reading fewer takes one program less time than starting another kernel

_MASK_AT = {"sdpa": 3, "sdpa_backward": 6}


def gpu_passes(graph: Graph) -> Graph:
    """All passes in their order."""
    recorded, budget = graph, graph.budget
    if budget < 1:
        graph = with_turns(graph)
    for p in PASSES:
        if p is narrow:
            graph = recognise_attention(graph, _has_attention_kernel)
        graph = expand_where(graph, _has_no_kernel) if p is expand_composites else p(graph)
    if budget < 1:
        graph = recompute(*without_turns(graph), budget)
        recorded.figures = graph.figures
    return graph


def _has_attention_kernel(q: Aval, k: Aval, v: Aval) -> bool:
    """Whether the attention kernels take these operands."""
    return attention.problem_of((False, 1.0, False), (q, k, v), 0) is not None


def is_kept(node: Node) -> bool:
    """Whether a composite has a kernel for these operands."""
    if node.op in (SCORED, SCORED_BACKWARD):  # made for these operands
        return True
    at = _MASK_AT.get(node.op.name)  # type: ignore[union-attr]
    return at is not None and attention.problem_of(node.attrs, node.in_avals, len(node.ins) - at) is not None


def _has_no_kernel(node: Node) -> bool:
    return not is_kept(node)


def split_for(graph: Graph, target: Target) -> Graph:
    """An equal graph with convolutions channels last, in which large reductions have enough programs: see :mod:`..split` for
    how a reduction is cut."""
    graph = in_runs(channels_last(graph), target)
    if not any(_is_thin(n, target) for n in graph.nodes):
        return graph
    b = GraphBuilder()
    new: list[int] = []
    for node in graph.nodes:
        ins = tuple([new[s] for s in node.ins])
        if _is_thin(node, target):
            new.append(split_node(b, *as_one_axis(b, node, ins[0])))
            continue
        new.extend(b.copy(node, ins))
    return b.graph(tuple([new[s] for s in graph.outputs]))


def _is_thin(node: Node, target: Target) -> bool:
    """Whether a reduction reads much with few programs."""
    if node.op is not OPS["reduce"]:
        return False
    if thin(node):
        return True
    x, axes = node.in_avals[0], node.attrs[1]
    if x.size < LARGE or not axes or node.avals[0].dtype.is_complex:
        return False
    first, last = min(axes), max(axes) + 1
    long = math.prod(x.shape[first:last]) if last - first == len(axes) else x.shape[first]
    rows = node.avals[0].size
    return long > 128 and (rows if x.ndim - 1 in axes else -(-rows // COLUMNS)) < target.processors
