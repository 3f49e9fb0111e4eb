"""Sums over rows that a row-wise kernel makes on the side: every back end agrees, whatever else needs the values."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import harness
import numpy as np
import pytest

from graphc import dtypes
from graphc.codegen.native.jobs import Job
from graphc.codegen.native.program import Program
from graphc.device import CPU
from graphc.ir import build as P
from graphc.ir.node import Graph, aval
from graphc.ir.passes import run_passes
from graphc.ir.recorder import trace
from graphc.runtime import jit, threads

if not jit.available():
    pytest.skip(jit.reason(), allow_module_level=True)

RNG = np.random.default_rng(0)


def graph_of(fn: Callable[..., Any], shapes: Any, dt: Any = dtypes.float32) -> Graph:
    return run_passes(trace(fn, tuple(aval(s, dt, CPU) for s in shapes), grad=False))


def sums(graph: Graph) -> int:
    """How many sums are made on the side."""
    return sum(isinstance(x, tuple) and x[0] == "columns" for s in Program(graph).steps if isinstance(s, Job) for x in s.writes)


def check(fn: Callable[..., Any], shapes: Any, expect: int, dt: Any = dtypes.float32) -> None:
    graph = graph_of(fn, shapes, dt)
    assert sums(graph) == expect, Program(graph).to_text()
    harness.check(graph, [RNG.standard_normal(s).astype(dt.np) for s in shapes], threads=(1, 2, 3))


def norm(x: Any) -> Any:
    n = x.aval.shape[-1]
    d = P.sub(x, P.div(P.reduce("add", x, (1,), True), float(n)))
    return P.mul(d, P.rsqrt(P.add(P.div(P.reduce("add", P.mul(d, d), (1,), True), float(n)), 1e-5)))


def gradients(x: Any, dy: Any) -> Any:
    """What layer norm's backward sums over rows."""
    h = norm(x)
    dx = P.sub(dy, P.mul(h, P.reduce("add", P.mul(dy, h), (1,), True)))
    return dx, P.reduce("add", P.mul(dy, h), (0,)), P.reduce("add", dy, (0,))


@pytest.mark.parametrize("dt", [dtypes.float32, dtypes.float64])
@pytest.mark.parametrize("rows,width", [(64, 40), (128, 33), (96, 1000), (1024, 128), (640, 7), (200, 16)])
def test_layer_norm(rows: int, width: int, dt: Any) -> None:
    check(gradients, [(rows, width), (rows, width)], 2, dt)


def test_few_or_indivisible_rows_are_summed_apart() -> None:
    for rows in (20, 63, 67, 131):
        check(gradients, [(rows, 40), (rows, 40)], 0)


def test_values_needed_elsewhere_are_stored_too() -> None:
    def fn(x: Any, dy: Any) -> Any:
        h = P.mul(dy, norm(x))
        return h, P.reduce("add", h, (0,)), P.matmul(P.permute(h, (1, 0)), dy)

    check(fn, [(128, 24), (128, 24)], 1)


def test_what_follows_the_sum() -> None:
    def fn(x: Any, dy: Any, w: Any) -> Any:
        dw = P.reduce("add", P.mul(dy, norm(x)), (0,))
        return P.sub(w, P.mul(dw, 0.1)), norm(x)

    check(fn, [(128, 50), (128, 50), (50,)], 1)


def test_other_reductions_stay() -> None:
    check(lambda x: (norm(x), P.reduce("max", norm(x), (0,))), [(128, 24)], 0)
    check(lambda x: (norm(x), P.reduce("add", P.exp(norm(x)), (0,))), [(128, 24)], 1)  # exp joins the rows' kernel
    check(lambda x, y: (norm(x), P.reduce("add", y, (0,))), [(128, 24), (128, 24)], 0)
    check(lambda x: (P.exp(x), P.reduce("add", P.exp(x), (0,))), [(128, 24)], 0)


def test_special_values() -> None:
    graph = graph_of(lambda x, dy: (norm(x), P.reduce("add", P.mul(dy, norm(x)), (0,))), [(64, 20), (64, 20)])
    x, dy = (RNG.standard_normal((64, 20)).astype(np.float32) for _ in range(2))
    dy[5, 3], dy[9, 4], dy[10, 4], dy[63, 19] = np.nan, np.inf, -np.inf, np.inf
    bindings = harness.bindings_of(graph, [x, dy])
    got, want = Program(graph)(bindings)[1], harness.reference(graph, bindings)[1]
    assert np.isnan(got[3]) and not np.isfinite(got[[4, 19]]).any() and np.isfinite(np.delete(got, [3, 4, 19])).all()
    np.testing.assert_allclose(got, want, 1e-4, 1e-4)


def test_a_training_step_repeats_bit_for_bit() -> None:
    graph = graph_of(gradients, [(512, 100), (512, 100)])
    bindings = harness.bindings_of(graph, [RNG.standard_normal((512, 100)).astype(np.float32) for _ in range(2)])
    before = threads.get_num_threads()
    try:
        results = []
        for n in (1, 2, 3, 2):
            threads.set_num_threads(n)
            results.append([a.tobytes() for a in Program(graph)(bindings)])
        assert all(r == results[0] for r in results)
    finally:
        threads.set_num_threads(before)
