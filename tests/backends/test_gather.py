"""Fusion for devices: small independent kernels are merged, and cheap work moves to the kernel that reads it."""
from __future__ import annotations

import harness
import numpy as np
import programs
import pytest

from graphc.codegen.fuse import schedule
from graphc.codegen.loop_ir import Kernel
from graphc.device import CPU
from graphc.dtypes import float32, int64
from graphc.ir import build as P
from graphc.ir.node import aval
from graphc.ir.recorder import trace


@pytest.mark.parametrize("start", range(0, 300, 50))
def test_random_programs(start: int) -> None:
    """The same results, and a legal schedule, whatever is merged or moved."""
    for seed in range(start, start + 50):
        p = programs.grow(seed)
        graph = harness.optimised(p.graph) if seed % 2 else p.graph
        bindings = harness.bindings_of(p.graph, p.arrays)
        want = harness.reference(p.graph, bindings)
        tol = harness.tolerance(p.graph, bindings, want, p.exact)
        try:
            harness.compare(want, harness.run_loops(graph, bindings, sched=schedule(graph, gather=True)), tol, "gathered")
        except Exception as error:
            pytest.fail(f"seed {seed}: {error}")


def kernels(graph, gather: bool) -> list[Kernel]:
    return [k for k in schedule(graph, gather).steps if isinstance(k, Kernel)]


def test_counters_are_counted_together() -> None:
    """Twenty counters of single numbers are a kernel or two instead of twenty."""
    graph = trace(lambda *v: tuple([P.add(x, 1) for x in v]), (aval((), int64, CPU),) * 20)
    assert len(kernels(graph, False)) == 20 and len(kernels(graph, True)) <= 2
    bindings = harness.bindings_of(graph, [np.array(i) for i in range(20)])
    got = harness.run_loops(graph, bindings, sched=schedule(graph, gather=True))
    assert [int(g) for g in got] == list(range(1, 21))


def test_small_sums_share_a_kernel() -> None:
    """Sums over the same space that read nothing in common; a product between them keeps them apart."""
    def apart(a, b):
        return P.reduce("add", a, (0,)), P.reduce("add", b, (0,))

    def behind(a, b):
        x = P.reduce("add", a, (0,))
        return x, P.reduce("add", P.mul(b, through(x)), (0,))

    def through(x):
        return P.reshape(P.contract(P.reshape(x, (1, 32)), P.reshape(x, (32, 1)), ((), ()), ((1,), (0,))), (1,))

    square = (aval((64, 32), float32, CPU),) * 2
    assert len(kernels(trace(apart, square), False)) == 2 and len(kernels(trace(apart, square), True)) == 1
    assert len(kernels(trace(behind, square), True)) == 2


def test_what_two_kernels_read_is_stored_once() -> None:
    """x * w, read behind a sum over x, is computed there: x, stored anyway, is all that the second kernel reads."""
    def f(a, b, w):
        x = P.add(a, b)
        total = P.reshape(P.reduce("add", P.reduce("add", P.reshape(x, (8, 64, 32)), (1,)), (0,)), (1, 32))
        return x, P.sub(P.mul(x, w), total)

    graph = trace(f, (aval((512, 32), float32, CPU), aval((512, 32), float32, CPU), aval((32,), float32, CPU)))
    large = [sum(k.buffers[b].size == 512 * 32 for b in k.writes) for k in kernels(graph, True)]
    assert sum(large) == 2 < sum(sum(k.buffers[b].size == 512 * 32 for b in k.writes) for k in kernels(graph, False))


def test_results_smaller_than_what_they_are_made_of_stay() -> None:
    """A mask is stored, not the floats it is read off."""
    def f(a, b):
        x = P.add(a, b)
        mask = P.le(x, 0.0)
        total = P.reduce("add", P.reduce("add", P.reshape(x, (8, 64, 32)), (1,)), (0,))
        return P.where(mask, P.reshape(total, (1, 32)), a), total

    graph = trace(f, (aval((512, 32), float32, CPU), aval((512, 32), float32, CPU)))
    stored = [k.buffers[b].dtype for k in kernels(graph, True) for b in k.writes if k.buffers[b].size == 512 * 32]
    assert float32 in stored and len(stored) == 2 and stored.count(float32) == 1
