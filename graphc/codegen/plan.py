"""Build the executable plan of a recorded program: verify, run the passes, hand over to a back end."""
from __future__ import annotations

from typing import Any

from .. import config
from ..ir.interpret import compile_numpy
from ..ir.node import Graph
from ..ir.passes import run_passes


def build_plan(graph: Graph) -> Any:
    """A callable from bindings to output buffers, which keeps the graph it was built from in ``.graph``."""
    n_bindings = len(graph.inputs)
    if config.DUMP:
        from ..ir import dump

        dump.emit("trace", graph)
    optimised = run_passes(graph)
    if config.DUMP:
        from ..ir import dump

        dump.emit("plan", optimised)
    return Plan(graph, optimised, n_bindings)


class Plan:
    """A prepared program. Call with the region's bindings; returns the output buffers."""

    __slots__ = ("recorded", "graph", "_run", "_used")

    def __init__(self, recorded: Graph, graph: Graph, n_bindings: int):
        self.recorded, self.graph = recorded, graph
        self._run = compile_numpy(graph)
        # passes may drop inputs: bindings are matched by their position in the recorded program
        self._used = _input_positions(recorded, graph)

    def __call__(self, bindings: list[Any]) -> list[Any]:
        used = self._used
        return self._run(bindings if used is None else [bindings[i] for i in used])


def _input_positions(recorded: Graph, graph: Graph) -> list[int] | None:
    if len(recorded.inputs) == len(graph.inputs):
        return None
    raise AssertionError("passes must keep inputs")


