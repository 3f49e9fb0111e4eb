"""Graphs of user programs: what a training step records, captured on its way to the planner and never run."""
from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import graphc
from graphc.codegen import build_plan
from graphc.codegen.fuse import schedule
from graphc.codegen.loop_ir import Kernel
from graphc.codegen.triton.printer import Printed, print_kernel
from graphc.ir import recorder
from graphc.ir.node import Graph
from graphc.ir.passes import run_passes

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "bench"))


class _Zeros:
    """A plan that answers with zeros while programs are captured; the recorder keeps it, so later it runs for real."""

    donors = ()
    capturing = False

    def __init__(self, graph: Graph):
        avals = graph.slot_avals()
        self.graph, self.real = graph, None
        self.outs = [avals[s] for s in graph.outputs]

    def __call__(self, bindings: list[Any], free: Any = ()) -> list[Any]:
        if _Zeros.capturing:
            return [np.zeros(a.shape, a.dtype.np) for a in self.outs]
        self.real = self.real or build_plan(self.graph)
        return self.real(bindings)


def captured(step: Callable[..., Any], *args: Any) -> Graph:
    """The optimised graph of ``step`` as it repeats: the last of the largest in two calls, as the first creates the
    optimizer's state."""
    graphs: list[Graph] = []
    planner = recorder._planner[0]

    def plan(graph: Graph) -> Any:
        graphs.append(graph)
        return _Zeros(graph)

    compiled = graphc.compile(step)
    recorder.flush("test")
    recorder.set_planner(plan)
    _Zeros.capturing = True
    try:
        compiled(*args)
        compiled(*args)
    finally:
        recorder.set_planner(planner)
        _Zeros.capturing = False
    return run_passes(max(reversed(graphs), key=lambda g: len(g.nodes)))


@functools.cache  # a program is planned once in a process
def workload(name: str, tiny: bool = False) -> Graph:
    """A program of the benchmark table."""
    from torchlike import TorchLike
    from workloads import WORKLOADS, arrays, config

    w = WORKLOADS[name]
    program = TorchLike(graphc, w, config(w, tiny), arrays(w, tiny))
    return captured(program.step, *program.inputs)


def kernels(graph: Graph) -> list[Printed]:
    """The loop code of a graph as Triton source."""
    return [print_kernel(k) for k in schedule(graph).steps if isinstance(k, Kernel)]
