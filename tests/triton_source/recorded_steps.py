"""Graphs of user programs: what a training step records, captured on its way to the planner and never run."""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import graphc
from graphc.codegen import build_plan
from graphc.codegen.fuse import schedule
from graphc.codegen.loop_ir import Kernel
from graphc.codegen.triton.passes import gpu_passes
from graphc.codegen.triton.printer import Printed, print_kernel
from graphc.ir import flush as flushing
from graphc.ir import recorder
from graphc.ir.interpret import bind_inputs
from graphc.ir.node import Graph, Node


class _Zeros:
    """A plan that answers with zeros while programs are captured; the recorder keeps it, so later it runs for real."""

    donors = ()
    capturing = False
    bindings: dict[int, list[Any]] = {}  # id of the recorded graph -> what it was last called with, where it ran for real

    def __init__(self, graph: Graph, really: bool):
        avals = graph.slot_avals()
        self.graph, self.real = graph, build_plan(graph) if really else None
        self.outs = [avals[s] for s in graph.outputs]

    def __call__(self, bindings: list[Any], free: Any = ()) -> list[Any]:
        if _Zeros.capturing and self.real is None:
            return [np.zeros(a.shape, a.dtype.np) for a in self.outs]
        self.real = self.real or build_plan(self.graph)
        if _Zeros.capturing:
            _Zeros.bindings[id(self.graph)] = [np.array(b) for b in bind_inputs(self.graph, bindings)]
        return self.real(bindings)


def captured(step: Callable[..., Any], *args: Any, really: bool = False) -> Any:
    """The optimised graph of ``step`` as it repeats: the last of the largest in two calls, as the first creates the
    optimizer's state. With ``really`` the program runs, and (graph, its inputs) comes back."""
    graphs: list[Graph] = []
    planner = recorder._planner[0]

    def plan(graph: Graph) -> Any:
        graphs.append(graph)
        return _Zeros(graph, really)

    compiled = graphc.compile(step)
    recorder.flush("test")
    recorder.set_planner(plan)
    known, flushing.PLANS = flushing.PLANS, {}  # programs another test recorded are new here
    recorder._Trie.root = Node(None, (), (), (), (), 0)
    recorder.state.region = recorder.Region()
    _Zeros.capturing = True
    try:
        compiled(*args)
        compiled(*args)
        graph = max(reversed(graphs), key=lambda g: len(g.nodes))
        return (gpu_passes(graph), _Zeros.bindings[id(graph)]) if really else gpu_passes(graph)
    finally:
        recorder.set_planner(planner)
        flushing.PLANS = known
        recorder._Trie.root = Node(None, (), (), (), (), 0)
        recorder.state.region = recorder.Region()
        _Zeros.capturing = False
        _Zeros.bindings.clear()


@functools.cache  # a program is planned once in a process
def workload(name: str, tiny: bool = False) -> Any:
    """A program of the benchmark table: its graph; tiny: its graph and inputs."""
    from torchlike import TorchLike
    from workloads import WORKLOADS, arrays, config

    w = WORKLOADS[name]
    program = TorchLike(graphc, w, config(w, tiny), arrays(w, tiny))
    return captured(program.step, *program.inputs, really=tiny)


def kernels(graph: Graph) -> list[Printed]:
    """The loop code of a graph as Triton source."""
    return [print_kernel(k) for k in schedule(graph).steps if isinstance(k, Kernel)]


def gpt2(layers: int = 2, vocabulary: int = 8192, batch: int = 2) -> Any:
    """A GPT-2 training step of full width under bfloat16 autocast; layers and vocabulary do not change which kernels run."""
    from torchlike import MODELS

    net = MODELS["gpt"](graphc, {"layers": layers, "width": 768, "heads": 12, "context": 1024, "batch": batch,
                                 "vocabulary": vocabulary, "sdpa": True})
    optimizer = graphc.optim.AdamW(net.parameters(), lr=1e-3)
    x, y = graphc.randint(0, vocabulary, (batch, 1024)), graphc.randint(0, vocabulary, (batch, 1024))

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        with graphc.autocast("cpu", dtype=graphc.bfloat16):
            loss = graphc.nn.functional.cross_entropy(net(x), y.flatten())
        loss.backward()
        optimizer.step()
        return loss.detach()

    return captured(step, x, y)
