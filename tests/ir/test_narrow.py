"""Values read in parts are computed in parts: equal results, fewer kernels; operands of a concatenation stored in place."""
from __future__ import annotations

import harness
import numpy as np
import pytest

from graphc import dtypes
from graphc.codegen.fuse import kernel_count, schedule
from graphc.codegen.loop_ir import Kernel
from graphc.device import CPU
from graphc.ir import build as P
from graphc.ir.node import Graph, aval
from graphc.ir.passes import run_passes
from graphc.ir.passes.narrow import narrow
from graphc.ir.recorder import trace


def graph_of(fn, *shapes: tuple[int, ...]) -> Graph:
    return trace(fn, tuple(aval(s, dtypes.float32, CPU) for s in shapes), grad=False)


def same(graph: Graph, other: Graph) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(n.avals[0].shape).astype(np.float32) for n in graph.inputs]
    for a, b in zip(*[harness.reference(g, harness.bindings_of(g, arrays)) for g in (graph, other)]):
        np.testing.assert_array_equal(a, b)


def ops(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


def sigmoid(x):
    return P.reciprocal(P.add(P.exp(P.neg(x)), P.full((), 1, dtypes.float32, CPU)))


def gates(x, w, c):
    """An LSTM cell after its product."""
    s = P.add(x, w)
    i, f = P.narrow(sigmoid(P.narrow(s, 1, 0, 8)), 1, 0, 4), P.narrow(sigmoid(P.narrow(s, 1, 0, 8)), 1, 4, 4)
    return (P.add(P.mul(f, c), P.mul(i, P.tanh(P.narrow(s, 1, 8, 4)))),)


def test_gates_are_one_kernel() -> None:
    graph = graph_of(gates, (3, 12), (3, 12), (3, 4))
    same(graph, run_passes(graph))
    assert kernel_count(schedule(run_passes(graph))) == 1


def test_what_is_read_whole_stays_whole() -> None:
    graph = run_passes(graph_of(lambda x: (P.add(x, x), P.exp(P.narrow(P.add(x, x), 0, 0, 2))), (4, 3)))
    assert narrow(graph) is graph
    graph = run_passes(graph_of(lambda x: (P.exp(P.narrow(P.exp(x), 0, 0, 3)), P.exp(P.narrow(P.exp(x), 0, 1, 3))), (4, 3)))
    assert narrow(graph) is graph  # together larger than the value
    graph = run_passes(graph_of(lambda x, w: (P.matmul(P.narrow(P.exp(x), 0, 0, 2), w),), (4, 3), (3, 5)))
    assert narrow(graph) is graph  # a product reads a slice in place


@pytest.mark.parametrize("starts,stops,steps", [((0, 1), (2, 3), (1, 1)), ((1, 0), (4, 3), (2, 2)), ((0, 0), (0, 3), (1, 1)),
                                                ((3, 2), (4, 3), (1, 1))])
def test_regions(starts, stops, steps) -> None:
    def fn(x, y, z):
        inner = P.slice_(P.mul(P.exp(x), P.add(y, z)), (0, 0), (4, 3), (1, 1))
        return (P.neg(P.slice_(inner, starts, stops, steps)),)

    graph = graph_of(fn, (4, 3), (1, 3), (4, 1))
    after = narrow(graph)
    assert after is not graph
    same(graph, after)
    assert all(n.avals[0].size <= 12 for n in after.nodes)


def test_slices_of_slices() -> None:
    def fn(x):
        a = P.slice_(P.exp(x), (2,), (19, ), (3,))  # 2 5 8 11 14 17
        b = P.neg(P.slice_(P.mul(a, a), (1,), (6,), (2,)))  # 5 11 17
        return (P.exp(b), P.exp(P.slice_(P.exp(x), (0,), (2,), (1,))))

    graph = graph_of(fn, (20,))
    same(graph, narrow(graph))
    assert "exp" in ops(narrow(graph))


def test_concatenations_are_stored_in_place() -> None:
    def fn(x, y):
        a, b = P.exp(x), P.neg(y)
        return (P.concat((a, P.mul(a, b), y), 1),)

    graph = run_passes(graph_of(fn, (5, 4), (5, 4)))
    sched = schedule(graph)
    writes = [len(k.stores) for k in sched.steps if isinstance(k, Kernel)]
    assert sorted(writes) == [1, 2], "two operands by their group, the input by a copy"


def test_operands_needed_elsewhere_are_stored_too() -> None:
    def fn(x, y):
        a = P.exp(x)
        return (P.concat((a, P.neg(y)), 0), a, P.matmul(a, y))

    graph = run_passes(graph_of(fn, (4, 4), (4, 4)))
    rng = np.random.default_rng(1)
    harness.check(graph, [rng.standard_normal((4, 4)).astype(np.float32) for _ in range(2)])


def test_stacks_of_rows_and_reductions() -> None:
    def fn(x, y):
        s = P.reduce("add", x, (1,))
        return (P.reshape(P.concat((s, P.exp(s), P.narrow(y, 0, 1, 3)), 0), (3, 5)), P.mul(s, s))

    graph = run_passes(graph_of(fn, (6, 7), (4,)))
    rng = np.random.default_rng(1)
    harness.check(graph, [rng.standard_normal(s).astype(np.float32) for s in ((6, 7), (4,))])
