"""Whole training steps as lists of launches, right under the interpreter; their machine code: test_models_offline.py."""
from __future__ import annotations

import numpy as np
import pytest
from plan_run import run_plan
from recorded_steps import gpt2, workload

from graphc.codegen.triton import attention, conv, matmul, scan, scatter, tiling
from graphc.codegen.triton.compiler import H100
from graphc.codegen.triton.passes import gpu_passes
from graphc.codegen.triton.plan import Host, launches, lower_plan, prepared, to_text
from graphc.device import CPU
from graphc.dtypes import float32, int64
from graphc.ir import build as P
from graphc.ir.interpret import run_graph
from graphc.ir.node import aval
from graphc.ir.optable import OPS
from graphc.ir.recorder import apply, trace

PROGRAMS = ("mlp", "gpt", "gpt_sdpa", "lstm", "lenet")

NOISE = {"gpt": 16, "gpt_sdpa": 16}  # the gradient of the keys' bias is rounding noise alone, which Adam turns into steps of full size


@pytest.mark.parametrize("name", PROGRAMS)
def test_step_under_the_interpreter(name: str, interpreter) -> None:
    """Loss, weights and optimizer state after a step equal the NumPy interpreter's."""
    graph, arrays = workload(name, tiny=True)
    got, hosts = run_plan(interpreter, graph, arrays)
    assert not hosts
    loose = 0
    for g, w in zip(got, run_graph(graph, arrays)):
        assert g.dtype == w.dtype and g.shape == w.shape
        far = ~np.isclose(g.astype(np.float64), np.asarray(w, np.float64), rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(g[far].astype(np.float64), np.asarray(w, np.float64)[far], atol=2e-3)
        loose += int(far.sum())
    assert loose <= NOISE.get(name, 0)


def test_text_names_every_step() -> None:
    steps = lower_plan(workload("lstm"))
    text = to_text(steps)
    assert "repeat 32 times:" in text and "copy 16384 bytes" in text and "  move: " in text and "product_add: " in text


@pytest.mark.parametrize(("shape", "axes"), [((8192, 64), (0,)), ((32, 256, 64), (0, 1)), ((100, 90, 64), (0, 1)), ((4, 70000), (1,)),
                                             ((300000,), (0,)), ((3, 4, 30000), (1, 2))], ids=str)
def test_reductions_get_enough_programs(shape, axes, interpreter) -> None:
    """Sums of much into little are cut in two, and stay right."""
    graph = trace(lambda x: P.reduce("add", x, axes), (aval(shape, float32, CPU),))
    steps = lower_plan(graph)
    assert [s.printed.programs() for s in launches(steps)][0] >= 24 and len(steps) in (2, 3)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (got,), _ = run_plan(interpreter, graph, [x])
    np.testing.assert_allclose(got, x.astype(np.float64).sum(axes), rtol=1e-3, atol=1e-2)


def test_carries_that_change_places(interpreter) -> None:
    """A loop whose carries swap, and one that also gives out what it was given."""
    def body(a, b, x):
        return b, P.add(a, x), a, P.mul(a, b)

    avals = (aval((6,), float32, CPU), aval((6,), float32, CPU), aval((6,), float32, CPU))
    attrs = (trace(body, avals), 2, 1, 5, False, 0)
    outer = (avals[0], avals[1], aval((5, 6), float32, CPU))
    graph = trace(lambda *v: apply(OPS["loop_scan"], v, attrs), outer)
    r = np.random.default_rng(1)
    arrays = [r.standard_normal(a.shape).astype(np.float32) for a in outer]
    got, hosts = run_plan(interpreter, graph, arrays)
    assert not hosts
    for g, w in zip(got, run_graph(graph, arrays)):
        np.testing.assert_allclose(g, w, rtol=1e-6)


def test_wide_positions(interpreter, monkeypatch) -> None:
    """Every kernel as it would be for memory of more than 2^31 elements."""
    for module in (tiling, matmul, conv, attention, scan, scatter):
        monkeypatch.setattr(module, "WIDE", 1)

    def f(x, w, q, i):
        y = apply(OPS["conv"], (x, w), ((1, 1), (1, 1), (1, 1), (1, 1), 1))
        att, _ = apply(OPS["sdpa"], (q, q, q), (True, 0.5, False))
        z = P.contract(P.reshape(att, (1, 10, 8)), P.reshape(y, (1, 8, 18)), ((0,), (0,)), ((2,), (1,)))
        z = P.maximum(P.add(z, 1.0), 0.25)
        picked = P.take(P.reshape(z, (10, 18)), i, 0)
        back = P.take_put(P.reshape(z, (10, 18)), i, picked, 0, "add", False)
        return P.scan("add", back, 1), P.reduce("max", y, (0, 1)), P.argreduce("max", back, 0)

    avals = (aval((2, 3, 6, 6), float32, CPU), aval((2, 3, 3, 3), float32, CPU), aval((1, 10, 8), float32, CPU), aval((4,), int64, CPU))
    graph = gpu_passes(trace(f, avals))
    r = np.random.default_rng(1)
    arrays = [r.uniform(-1, 1, a.shape).astype(np.float32) for a in avals[:3]] + [np.array([1, 9, 1, 0])]
    steps = lower_plan(graph)
    assert sum("to(tl.int64)" in s.printed.source for s in launches(steps)) >= 6
    got, hosts = run_plan(interpreter, graph, arrays)
    assert not hosts
    for g, w in zip(got, run_graph(graph, arrays)):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4)


def test_gpt2_step() -> None:
    """At most 60 distinct kernels, nothing on the host, and no matrix of attention scores in memory."""
    graph, sched = prepared(gpt2(), H100)
    steps = lower_plan(graph, sched, H100)
    made = launches(steps)
    assert len({x.printed.symbol for x in made}) <= 60 and not any(isinstance(s, Host) for s in steps)
    avals = graph.slot_avals()
    in_memory = [avals[k].size for x in made for k in x.writes if isinstance(k, int)]
    assert max(in_memory) == 2 * 1024 * 8192 and 2 * 12 * 1024 * 1024 not in in_memory  # the logits are the largest
