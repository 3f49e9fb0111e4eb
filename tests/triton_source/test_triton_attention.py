"""Attention kernels, forward and backward, under the interpreter and as machine code."""
from __future__ import annotations

import os

import numpy as np
import pytest
from plan_run import run_plan

from graphc.codegen.triton import attention, compiler
from graphc.codegen.triton.attention import Problem, Tile, backward_keys, backward_queries, forward
from graphc.codegen.triton.compiler import A100, H100, Target
from graphc.codegen.triton.plan import launches, lower_plan
from graphc.device import CPU
from graphc.dtypes import bfloat16, float16, float32, float64, from_numpy
from graphc.ir import build as P
from graphc.ir.interpret import run_graph
from graphc.ir.node import aval
from graphc.ir.optable import OPS
from graphc.ir.passes import run_passes
from graphc.ir.recorder import apply, trace

TOL = {float32: 2e-5, float16: 4e-3, bfloat16: 3e-2}
FULL = bool(os.environ.get("GRAPHC_FULL"))  # also depth 128, which takes minutes to compile on a small machine
SMALL = {"forward": Tile(32, 16, 4, 1), "queries": Tile(16, 32, 4, 1), "keys": Tile(32, 16, 4, 1)}


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch) -> None:
    monkeypatch.setattr(attention, "tile_of", lambda what, dt, depth: SMALL[what])


def node_graph(name, arrays, attrs):
    """A graph of one composite, not expanded."""
    return trace(lambda *v: apply(OPS[name], v, attrs), tuple(aval(a.shape, from_numpy(a.dtype), CPU) for a in arrays))


def compare(interpreter, name, arrays, attrs, tol: float) -> list[np.ndarray]:
    graph = node_graph(name, arrays, attrs)
    got, hosts = run_plan(interpreter, graph, arrays)
    assert not hosts
    want = run_graph(run_passes(graph), arrays)
    for g, w in zip(got, want):
        assert g.dtype == w.dtype and g.shape == w.shape
        np.testing.assert_allclose(g.astype(np.float64), w.astype(np.float64), rtol=tol, atol=tol)
    return want


def inputs(dt, lead=(2, 2), group=1, lq=40, ls=50, depth=16, value_depth=16, seed=0):
    r = np.random.default_rng(seed)
    kv = (*lead[:-1], lead[-1] // group)
    return [r.standard_normal(s).astype(dt.np) for s in ((*lead, lq, depth), (*kv, ls, depth), (*kv, ls, value_depth))]


CASES = [dict(), dict(lq=64, ls=32), dict(depth=24, value_depth=10), dict(lead=(4,), group=2), dict(lead=(2, 4), group=4, lq=33, ls=33),
         dict(lead=(1,), lq=1, ls=70)]


def both_ways(interpreter, arrays, causal, scale, dt, mask=()):
    out, lse = compare(interpreter, "sdpa", [*arrays, *mask], (causal, scale, False), TOL[dt])
    g = np.random.default_rng(9).standard_normal(out.shape).astype(dt.np)
    compare(interpreter, "sdpa_backward", [*arrays, out, lse, g, *mask], (causal, scale, False), 3 * TOL[dt])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_sizes(case: int, causal: bool, interpreter) -> None:
    """Sizes that fill blocks and that do not, heads in groups, other depths of values."""
    both_ways(interpreter, inputs(float32, **CASES[case]), causal, 0.3, float32)


@pytest.mark.parametrize("dt", [float16, bfloat16], ids=str)
def test_halves(dt, interpreter) -> None:
    both_ways(interpreter, inputs(dt), True, 0.25, dt)


@pytest.mark.parametrize(("shape", "causal"), [((40, 50), True), ((2, 1, 40, 50), False), ((2, 40, 50), False), ((2, 2, 1, 50), True),
                                               ((1, 50), False), ((2, 1, 40, 1), False), ((1, 40, 50), True), ((2, 1, 1), False)], ids=str)
def test_masks(shape, causal: bool, interpreter) -> None:
    """Boolean and added masks of every broadcast shape; rows without any key give zeros."""
    r = np.random.default_rng(3)
    keep = r.random(shape) < 0.6
    if shape[-2] > 5:
        keep[..., 5, :] = False
    mask = r.standard_normal(shape).astype(np.float32) if len(shape) % 2 else keep
    both_ways(interpreter, inputs(float32, lead=(2, 2)), causal, 0.3, float32, (mask,))


def test_odd_scales_and_large_scores(interpreter) -> None:
    for scale in (-0.5, 0.0, 40.0):
        both_ways(interpreter, [a / 4 for a in inputs(float32, lead=(1,))], True, scale, float32)


def test_what_is_refused(interpreter) -> None:
    """float64, deep heads and gradients of masks keep their expansion."""
    for arrays, attrs in ((inputs(float64), (False, 0.3, False)), (inputs(float32, depth=160, value_depth=160), (False, 0.3, False)),
                          ([*inputs(float32), np.zeros((40, 50), np.float32)], (False, 0.3, True))):
        node = node_graph("sdpa", arrays, attrs).nodes[-1]
        assert attention.problem_of(attrs, node.in_avals, len(arrays) - 3) is None


@pytest.mark.parametrize("target", [A100, H100], ids=str)
@pytest.mark.usefixtures("triton_installed")
def test_machine_code(target: Target, monkeypatch) -> None:
    """Tensor cores, no spills, no atomics, 16-byte copies: depths 64 and 128, float32 and bfloat16, causal."""
    monkeypatch.undo()
    printed = []
    for dt, depth in ((bfloat16, 64), (bfloat16, 128), (float32, 64), (float32, 128))[:4 if FULL else 3 if target is H100 else 1:1 if FULL else 2]:
        p = Problem((32, 12), 1, 1024, 1024, depth, depth, dt, True, 0.125, None, None)
        keys = (0, 1, 2, 3, 4, 5)
        printed += [forward(p, keys[:3], 3, 4), backward_queries(p, keys, 6, 9), backward_keys(p, keys, 7, 8, 9)]
    code = compiler.compiler(target).get(printed)
    assert len(code) == len(printed)
    for c in code.values():
        assert c.spills == 0 and c.shared <= target.shared_limit and not c.facts["atomics"], (c.symbol, c.spills, c.registers, c.shared)
        assert c.facts["mma"] or c.facts["wgmma"]
        wide, narrow = c.facts["wide_loads"] + c.facts["wide_async"], c.facts["loads"] + c.facts["async"]
        assert wide >= 4 and narrow - wide <= 80, c.facts  # one number per query (sums, shifts) is read by the element




@pytest.mark.parametrize("group", [1, 2])
def test_queries_keys_and_values_out_of_one_matrix(group: int, interpreter) -> None:
    """Heads cut out of a projection are read where they lie: no copies, forward or backward."""
    b, t, h, e = 2, 20, 4, 16
    kv = h // group

    def f(x, g):
        q = P.permute(P.reshape(P.narrow(x, 2, 0, h * e), (b, t, h, e)), (0, 2, 1, 3))
        k = P.permute(P.reshape(P.narrow(x, 2, h * e, kv * e), (b, t, kv, e)), (0, 2, 1, 3))
        v = P.permute(P.reshape(P.narrow(x, 2, (h + kv) * e, kv * e), (b, t, kv, e)), (0, 2, 1, 3))
        out, lse = apply(OPS["sdpa"], (q, k, v), (True, 0.25, False))
        return (out, *apply(OPS["sdpa_backward"], (q, k, v, out, lse, g), (True, 0.25, False)))

    avals = (aval((b, t, (h + 2 * kv) * e), float32, CPU), aval((b, h, t, e), float32, CPU))
    graph = trace(f, avals)
    assert [s.label for s in launches(lower_plan(graph))] == ["attention", "attention_queries", "attention_keys"]
    r = np.random.default_rng(4)
    arrays = [r.standard_normal(a.shape).astype(np.float32) for a in avals]
    got, hosts = run_plan(interpreter, graph, arrays)
    assert not hosts
    for x, w in zip(got, run_graph(run_passes(graph), arrays)):
        np.testing.assert_allclose(x, w, rtol=1e-4, atol=1e-4)


def test_heads_straight_out_of_a_product(interpreter) -> None:
    """A product whose only reader is a copy that attention bypasses must still run."""
    def f(x, w):
        q = P.reshape(P.matmul(x, w), (1, 20, 16))
        out, _ = apply(OPS["sdpa"], (q, q, P.flip(q, (1,))), (False, 0.25, False))
        return (out,)

    avals = (aval((20, 24), float32, CPU), aval((24, 16), float32, CPU))
    graph = trace(f, avals)
    arrays = [np.random.default_rng(5).standard_normal(a.shape).astype(np.float32) for a in avals]
    got, hosts = run_plan(interpreter, graph, arrays)
    assert not hosts
    np.testing.assert_allclose(got[0], run_graph(run_passes(graph), arrays)[0], rtol=1e-4, atol=1e-4)


def test_result_and_cotangent_between_projections(interpreter) -> None:
    """Heads put side by side: the result is written, and it and its cotangent are read, where they lie; no copies."""
    b, t, h, e = 2, 20, 3, 16

    def f(q, k, v, w, g):
        out, lse = apply(OPS["sdpa"], (q, k, v), (True, 0.25, False))
        y = P.reshape(P.permute(out, (0, 2, 1, 3)), (b * t, h * e))
        go = P.permute(P.reshape(P.matmul(g, P.transpose(w)), (b, t, h, e)), (0, 2, 1, 3))
        grads = apply(OPS["sdpa_backward"], (q, k, v, out, lse, go), (True, 0.25, False))
        return (P.matmul(y, w), P.contract(y, g, ((), ()), ((0,), (0,))), *grads)

    avals = (*[aval((b, h, t, e), float32, CPU)] * 3, aval((h * e, 32), float32, CPU), aval((b * t, 32), float32, CPU))
    graph = trace(f, avals)
    labels = [s.label for s in launches(lower_plan(graph))]
    assert sorted(x for x in labels if not x.startswith("product")) == ["attention", "attention_keys", "attention_queries"]
    r = np.random.default_rng(6)
    arrays = [r.standard_normal(a.shape).astype(np.float32) for a in avals]
    got, hosts = run_plan(interpreter, graph, arrays)
    assert not hosts
    for x, w in zip(got, run_graph(run_passes(graph), arrays)):
        np.testing.assert_allclose(x, w, rtol=1e-3, atol=1e-3)


def test_result_read_in_both_layouts(interpreter) -> None:
    """Where somebody else reads the result as it is, the copy stays."""
    def f(q, g):
        out, _ = apply(OPS["sdpa"], (q, q, q), (False, 0.25, False))
        return P.reshape(P.permute(out, (1, 0, 2)), (20, 32)), P.matmul(out, g)

    avals = (aval((2, 20, 16), float32, CPU), aval((2, 16, 8), float32, CPU))
    graph = trace(f, avals)
    arrays = [np.random.default_rng(5).standard_normal(a.shape).astype(np.float32) for a in avals]
    got, _ = run_plan(interpreter, graph, arrays)
    for x, w in zip(got, run_graph(run_passes(graph), arrays)):
        np.testing.assert_allclose(x, w, rtol=1e-3, atol=1e-3)
