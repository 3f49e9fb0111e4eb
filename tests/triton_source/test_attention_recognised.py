"""Attention written by hand: recognised in its many spellings, equal before and after, and left alone where it must be."""
from __future__ import annotations

import math

import numpy as np
import pytest
from plan_run import run_plan
from recorded_steps import captured

import graphc
from graphc.codegen.triton import attention, passes
from graphc.codegen.triton.attention import Tile
from graphc.codegen.triton.plan import launches, lower_plan
from graphc.ir.interpret import run_graph
from graphc.ir.passes.attention import recognise_attention

F = graphc.nn.functional
INF = math.inf
SMALL = {"forward": Tile(16, 16, 4, 1), "queries": Tile(16, 16, 4, 1), "keys": Tile(16, 16, 4, 1)}


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch) -> None:
    monkeypatch.setattr(attention, "tile_of", lambda what, dt, depth: SMALL[what])


def softmax_by_hand(s):
    e = graphc.exp(s - s.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


SOFTMAX = {"softmax": lambda s: F.softmax(s, -1), "by hand": softmax_by_hand, "log": lambda s: F.log_softmax(s, -1).exp(),
           "float": lambda s: F.softmax(s, -1, dtype=graphc.float32).to(s.dtype),
           "lse": lambda s: graphc.exp(s - graphc.logsumexp(s, -1, keepdim=True))}


def triangle(t, s=None):
    return graphc.ones(t, s or t, dtype=graphc.bool).triu(1)


MODS = {
    "scale": lambda s, c: s * 0.3,
    "negative scale": lambda s, c: s * -0.7,
    "divided": lambda s, c: s / math.sqrt(7),
    "nothing": lambda s, c: s,
    "causal": lambda s, c: (s * 0.3).masked_fill(triangle(*s.shape[-2:]), -INF),
    "causal in memory": lambda s, c: (s * 0.3).masked_fill(c["tril"][:, :, :s.shape[-2], :s.shape[-1]] == 0, float("-inf")),
    "causal added": lambda s, c: s * 0.3 + graphc.full(s.shape[-2:], -INF).triu(1),
    "causal kept": lambda s, c: graphc.where(c["tril"][:, :, :s.shape[-2], :s.shape[-1]] != 0, s * 0.3, -INF),
    "finite": lambda s, c: (s * 0.3).masked_fill(triangle(*s.shape[-2:]), -1e9),
    "least number": lambda s, c: (s * 0.3).masked_fill(c["holes"], graphc.finfo(graphc.float32).min),
    "holes": lambda s, c: (s * 0.3).masked_fill(c["holes"], -INF),
    "padding": lambda s, c: (s * 0.3).masked_fill(c["pad"], -INF),
    "causal and padding": lambda s, c: (s * 0.3).masked_fill(c["pad"], -INF).masked_fill(triangle(*s.shape[-2:]), -INF),
    "window": lambda s, c: (s * 0.3).masked_fill(triangle(*s.shape[-2:]) | graphc.ones(*s.shape[-2:], dtype=graphc.bool).tril(-9),
                                                 -INF),
    "bias": lambda s, c: s * 0.3 + c["bias"],
    "alibi": lambda s, c: (s * 0.3 + c["slopes"] * (graphc.arange(s.shape[-1]) - graphc.arange(s.shape[-2])[:, None])
                           ).masked_fill(triangle(*s.shape[-2:]), -INF),
    "soft cap": lambda s, c: 3.0 * graphc.tanh(s * 0.3 / 3.0),
    "soft cap, causal": lambda s, c: (3.0 * graphc.tanh(s / 3.0)).masked_fill(triangle(*s.shape[-2:]), -INF),
    "all of a row": lambda s, c: (s * 0.3).masked_fill(c["dead"], -INF),
    "all of a row, causal": lambda s, c: (s * 0.3).masked_fill(c["dead"], -INF).masked_fill(triangle(*s.shape[-2:]), -INF),
    "all of a row, added": lambda s, c: s * 0.3 + graphc.where(c["dead"], -INF, 0.0),
}


def program(mod, softmax="softmax", lq=40, ls=40, depth=16, heads=3, dt=graphc.float32, amp=False, backward=True, batch=2):
    """(graph before the pass, graph after it, its inputs)."""
    graphc.manual_seed(5)
    q, k, v = [graphc.randn(batch, heads, n, depth, dtype=dt, requires_grad=backward) for n in (lq, ls, ls)]
    g = graphc.randn(batch, heads, lq, depth, dtype=dt)
    r = np.random.default_rng(1)
    holes, dead = r.random((batch, 1, lq, ls)) < 0.3, r.random((lq, ls)) < 0.2
    dead[5:9] = True
    dead[lq // 2] = True
    c = {"tril": graphc.tril(graphc.ones(1, 1, 64, 64)), "holes": graphc.tensor(holes), "dead": graphc.tensor(dead),
         "pad": graphc.tensor(np.arange(ls) >= np.array([ls - 9, ls - 3])[:batch, None, None, None]),
         "bias": graphc.tensor(r.standard_normal((heads, lq, ls)).astype(dt.np)),
         "slopes": graphc.tensor((2.0 ** -np.arange(1, heads + 1)).astype(np.float32)[:, None, None])}

    def step(q, k, v, g):
        for x in (q, k, v):
            x.grad = None
        with graphc.autocast("cpu", dtype=graphc.bfloat16, enabled=amp):
            y = SOFTMAX[softmax](MODS[mod](q @ k.transpose(-2, -1), c)) @ v
        if not backward:
            return y
        y.backward(g.to(y.dtype))
        return y.detach(), q.grad, k.grad, v.grad

    return both(step, q, k, v, g)


def both(step, *args):
    """(graph as it was, graph with attention recognised, inputs)."""
    seen = []

    def spy(graph, fits):
        seen.append((graph, recognise_attention(graph, fits)))
        return seen[-1][1]

    old, passes.recognise_attention = passes.recognise_attention, spy
    try:
        graph, arrays = captured(step, *args, really=True)
    finally:
        passes.recognise_attention = old
    before = max((b for b, _ in seen), key=lambda b: len(b.nodes))
    return before, graph, arrays


def names(graph):
    return [n.op.name for n in graph.nodes]


def check(before, after, arrays, interpreter=None, tol=2e-5, backward=True):
    """Recognised, and equal by NumPy and as kernels."""
    assert names(after).count("scored_attention") == 1 and names(after).count("scored_attention_backward") == int(backward)
    assert "contract" not in names(after)
    want = run_graph(before, arrays)
    for g, w in zip(run_graph(after, arrays), want):
        np.testing.assert_allclose(g.astype(np.float64), w.astype(np.float64), rtol=tol, atol=tol)
    if interpreter is None:
        return
    got, hosts = run_plan(interpreter, after, arrays)
    assert not hosts
    for g, w in zip(got, want):
        np.testing.assert_allclose(g.astype(np.float64), w.astype(np.float64), rtol=4 * tol, atol=4 * tol)


@pytest.mark.parametrize("mod", MODS)
def test_what_comes_between(mod: str, interpreter) -> None:
    """Everything that may stand between the product and the softmax, forward and backward, rows of NaN included."""
    check(*program(mod), interpreter)


@pytest.mark.parametrize("softmax", SOFTMAX)
@pytest.mark.parametrize("amp", [False, True])
def test_spellings_of_softmax(softmax: str, amp: bool) -> None:
    check(*program("causal", softmax, amp=amp), tol=4e-2 if amp else 2e-5)
