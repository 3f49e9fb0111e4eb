"""Run loop-IR kernels and whole graphs as generated Triton source under the interpreter."""
from __future__ import annotations

from typing import Any

import numpy as np

from graphc.codegen.fuse import schedule
from graphc.codegen.loop_ir import Kernel
from graphc.codegen.triton.printer import print_kernel
from graphc.ir.interpret import run_graph, run_node
from graphc.ir.passes import run_passes


class IndexFault(Exception):
    """A kernel reported an index out of range."""


def memory(a: np.ndarray) -> np.ndarray:
    """An array as the interpreter takes it: bool as bytes, bfloat16 as bit patterns."""
    return a.view(np.uint8) if a.dtype == np.bool_ else a.view(np.uint16) if a.dtype.name == "bfloat16" else a


def run_printed(it: Any, p: Any, values: dict[Any, np.ndarray]) -> None:
    """Launch a printed kernel on flat arrays by slot; what it writes is copied back."""
    args = [np.zeros(1, np.int32) if a.value == "err" else memory(values[a.value]) if a.type[0] == "*" else a.value
            for a in p.args]
    out = it.run(p.source, p.symbol, (p.programs(),), args, [a.type for a in p.args], dict(p.constants))
    for a, new in zip(p.args, out):
        if a.value == "err":
            if new[0]:
                raise IndexFault
        elif a.type[0] == "*":
            memory(values[a.value])[:] = new


def run_loop_kernel(it: Any, k: Kernel, values: dict[Any, np.ndarray], tiling: Any = None) -> None:
    """Print and launch a loop-IR kernel."""
    run_printed(it, print_kernel(k, tiling), values)


def run_scheduled(it: Any, graph: Any, arrays: list[np.ndarray], sched: Any = None) -> list[np.ndarray]:
    """A graph of primitives: kernels in the interpreter, library nodes with NumPy."""
    sched = sched or schedule(graph)
    avals = graph.slot_avals()
    values: dict[Any, np.ndarray] = {}
    for node, a in zip(graph.inputs, arrays):
        values[node.slot] = np.ascontiguousarray(np.asarray(a, node.avals[0].dtype.np)).reshape(-1)

    def whole(slot: int) -> np.ndarray:
        if slot in sched.views:
            base, ix = sched.views[slot]
            flat, strides = values[base], dict(ix.terms)
            return np.lib.stride_tricks.as_strided(flat[ix.const:], avals[slot].shape,
                                                   [strides.get(d, 0) * flat.itemsize for d in range(avals[slot].ndim)])
        return values[slot].reshape(avals[slot].shape)

    for step in sched.steps:
        if isinstance(step, Kernel):
            for b in step.writes:
                buf = step.buffers[b]
                values.setdefault(buf.slot, np.zeros(buf.size, buf.dtype.np))
            run_loop_kernel(it, step, values)
        else:
            for n, o in enumerate(run_node(step, [whole(s) for s in step.ins])):
                values[step.slot + n] = np.ascontiguousarray(o).reshape(-1)
    return [whole(s) for s in graph.outputs]


def both(it: Any, graph: Any, arrays: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(generated, reference) for every output of a recorded graph."""
    return list(zip(run_scheduled(it, run_passes(graph), arrays), run_graph(graph, arrays)))
