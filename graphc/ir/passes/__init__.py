"""The graph passes, in the order they run. Each is a function Graph -> Graph in its own file.

Leaf and scalar nodes are never dropped or reordered, so a plan binds its inputs by position.
"""
from __future__ import annotations

from ... import config
from ..marks import with_turns, without_turns
from ..node import Graph
from .algebra import simplify
from .cse import merge_common
from .dce import dce
from .exchange import exchange_operands
from .expand import expand_composites
from .fold import fold_constants
from .narrow import narrow

PASSES = (dce, expand_composites, merge_common, fold_constants, simplify, merge_common, narrow, exchange_operands, dce)


def run_passes(graph: Graph) -> Graph:
    """All passes in order, and recomputation if the graph has a memory budget; under GRAPHC_VERIFY=2 the verifier runs after
    each."""
    recorded, budget = graph, graph.budget
    if config.VERIFY:
        from ..verify import verify

        verify(graph, "recorded")
    if budget < 1:
        graph = with_turns(graph)
    for p in PASSES:
        graph = p(graph)
        if "passes" in config.DUMP:
            from .. import dump

            dump.emit(p.__name__, graph)
        if config.VERIFY > 1:
            verify(graph, p.__name__)
    if budget < 1:
        from .recompute import recompute

        graph = recompute(*without_turns(graph), budget)
        recorded.figures = graph.figures
        if config.VERIFY > 1:
            verify(graph, "recompute")
    return graph
