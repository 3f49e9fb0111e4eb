"""Which native code runs each step of a schedule: printed kernels, hand-written library kernels, or a NumPy call."""
from __future__ import annotations

from typing import Any

from ...ir.node import Graph, Node
from ...ir.optable import Prim
from ...runtime import jit
from ..fuse import Schedule
from ..loop_ir import Kernel
from .jobs import Call, Job, Step
from .kernel import print_kernel
from .loop import lower_loop


def select(item: Kernel | Node, graph: Graph, sched: Schedule) -> list[Step]:
    """The steps that carry out one item of a schedule."""
    if isinstance(item, Kernel):
        return [_kernel(item)]
    assert isinstance(item.op, Prim)
    if item.op.name == "loop_scan":
        loop = lower_loop(item, select)
        if loop is not None:
            return [loop]
    return [_call(item)]


def _kernel(k: Kernel) -> Job:
    p = print_kernel(k, jit.vector_bits())
    slots: list[Any] = [b.slot for b in k.buffers]
    return Job(p.symbol, p.text, [*slots, "err", "scratch"], p.numbers, {k.buffers[b].slot for b in k.reads},
               {k.buffers[b].slot for b in k.writes}, p.scratch, p.work * max(1, len(k.stmts) // 4), p.checks, k)


def _call(node: Node) -> Call:
    op, attrs = node.op, node.attrs
    assert isinstance(op, Prim)
    run = op.eval_np
    return Call(node, lambda *arrays: run(attrs, *arrays), node.ins, tuple(range(node.slot, node.end)), op.name)
