"""Attention written by hand: recognised in its many spellings, equal before and after, and left alone where it must be."""
from __future__ import annotations

import math

import numpy as np
import pytest
from plan_run import run_plan
from recorded_steps import captured

import graphc
from graphc.codegen.triton import attention, compiler, passes
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
           "lse": lambda s: graphc.exp(s.float() - graphc.logsumexp(s.float(), -1, keepdim=True))}


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


def program(mod, softmax="softmax", lq=40, ls=40, depth=16, heads=2, dt=graphc.float32, amp=False, backward=True,
            batch=1):
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


def grouped(amp: bool, add: bool = False):
    """Query heads in groups of two over repeated key heads; the loss may read the repeated keys as well."""
    graphc.manual_seed(3)
    q = graphc.randn(2, 4, 20, 16, requires_grad=True)
    k, v = [graphc.randn(2, 2, 20, 16, requires_grad=True) for _ in range(2)]

    def step(q, k, v, g):
        q.grad = k.grad = v.grad = None
        with graphc.autocast("cpu", dtype=graphc.bfloat16, enabled=amp):
            kk, vv = k.repeat_interleave(2, dim=1), v[:, :, None].expand(2, 2, 2, 20, 16).reshape(2, 4, 20, 16)
            s = MODS["causal"](q @ kk.transpose(-2, -1), {})
            y = F.softmax(s, -1) @ vv
        if add:
            y = y + kk
        y.backward(g.to(y.dtype))
        return y.detach(), q.grad, k.grad, v.grad

    return both(step, q, k, v, graphc.randn(2, 4, 20, 16))


@pytest.mark.parametrize("amp", [False, True])
def test_heads_in_groups(amp: bool, interpreter) -> None:
    """Repeated keys and values are read before they are repeated, and gradients come summed."""
    before, after, arrays = grouped(amp)
    check(before, after, arrays, interpreter, 4e-2 if amp else 2e-5)
    node = next(n for n in after.nodes if n.op.name == "scored_attention_backward")
    assert node.in_avals[1].shape == node.in_avals[2].shape == (2, 2, 20, 16)


def test_heads_in_groups_with_another_reader() -> None:
    """Where the repeated keys have another gradient, they stay repeated."""
    before, after, arrays = grouped(False, add=True)
    check(before, after, arrays)
    node = next(n for n in after.nodes if n.op.name == "scored_attention_backward")
    assert node.in_avals[1].shape == (2, 4, 20, 16)


def spelled(how: str, backward: bool = True):
    """The same attention by other products: batched matrices, einsum, keys transposed in memory."""
    graphc.manual_seed(4)
    b, h, t, e = 2, 3, 20, 16
    q, k, v = [graphc.randn(b, t, h * e, requires_grad=True) for _ in range(3)]
    pad = graphc.tensor(np.arange(t) >= np.array([11, 17])[:, None])

    def step(q, k, v, g):
        q.grad = k.grad = v.grad = None
        if how == "bmm":
            qh, kh, vh = [x.view(b, t, h, e).transpose(1, 2).reshape(b * h, t, e) for x in (q, k, v)]
            s = graphc.bmm(qh * e ** -0.5, kh.transpose(1, 2)).view(b, h, t, t)
            s = s.masked_fill(pad[:, None, None], -INF) + graphc.full((t, t), -INF).triu(1)
            y = graphc.bmm(F.softmax(s.view(b * h, t, t), -1), vh).view(b, h, t, e).transpose(1, 2).reshape(b, t, h * e)
        elif how == "baddbmm":
            qh, kh, vh = [x.view(b, t, h, e).transpose(1, 2).reshape(b * h, t, e) for x in (q, k, v)]
            s = graphc.baddbmm(graphc.zeros(b * h, t, t), qh, kh.transpose(1, 2), beta=0, alpha=e ** -0.5)
            y = graphc.bmm(F.softmax(s, -1), vh).view(b, h, t, e).transpose(1, 2).reshape(b, t, h * e)
        else:
            qh, kh, vh = [x.view(b, t, h, e) for x in (q, k, v)]
            s = graphc.einsum("bqhe,bkhe->bhqk", qh, kh) * e ** -0.5
            y = graphc.einsum("bhqk,bkhe->bqhe", F.softmax(s, -1), vh).reshape(b, t, h * e)
        y.backward(g)
        return y.detach(), q.grad, k.grad, v.grad

    return both(step, q, k, v, graphc.randn(b, t, h * e))


@pytest.mark.parametrize("how", ["bmm", "baddbmm", "einsum"])
def test_other_products(how: str, interpreter) -> None:
    check(*spelled(how), interpreter)


def test_forward_alone(interpreter) -> None:
    for mod in ("causal in memory", "alibi"):
        check(*program(mod, backward=False), interpreter, backward=False)


@pytest.mark.parametrize("case", [dict(lq=1, ls=33), dict(lq=33, ls=50), dict(depth=24, ls=17, lq=60, heads=1, batch=1)], ids=str)
def test_sizes(case: dict, interpreter) -> None:
    for mod in ("causal", "soft cap, causal"):
        check(*program(mod, **case), interpreter)


@pytest.mark.parametrize("dt", [graphc.float16, graphc.bfloat16])
def test_halves(dt, interpreter) -> None:
    check(*program("causal", dt=dt), interpreter, tol=8e-2 if dt is graphc.bfloat16 else 8e-3)


def near_miss(what: str):
    """Programs that look like attention and are not, or of which somebody reads the inside."""
    graphc.manual_seed(6)
    q, k, v = [graphc.randn(2, 3, 20, 16, requires_grad=True) for _ in range(3)]
    bias = graphc.randn(3, 20, 20, requires_grad=True)

    def step(q, k, v, bias, g):
        q.grad = k.grad = v.grad = bias.grad = None
        s = (q @ k.transpose(-2, -1)) * 0.25
        extra = ()
        if what == "bias with a gradient":
            s = s + bias
        if what == "no maximum":
            e = graphc.exp(s)
            p = e / e.sum(-1, keepdim=True)
        elif what == "other axis":
            p = F.softmax(s, -2)
        elif what == "sum plus one":
            e = graphc.exp(s - s.amax(-1, keepdim=True))
            p = e / (e.sum(-1, keepdim=True) + 1)
        elif what == "maximum of everything":
            e = graphc.exp(s - s.max())
            p = e / e.sum(-1, keepdim=True)
        else:
            p = F.softmax(s, -1)
        if what == "dropout":
            p = F.dropout(p, 0.5, True)
        if what == "probabilities returned":
            extra = (p.detach(),)
        if what == "scores returned":
            extra = (s.detach(),)
        if what == "row sums returned":
            extra = (graphc.logsumexp(s, -1).detach(),)
        if what == "probabilities regularised":
            extra = ((p * p).sum(),)
        y = p @ v
        if what == "detached":
            y = p.detach() @ v + (p @ v) * 2
        loss = (y * g).sum() + (extra[0] if what == "probabilities regularised" else 0)
        loss.backward()
        return y.detach(), q.grad, k.grad, v.grad, bias.grad if what == "bias with a gradient" else y.detach(), *[x.detach() for x in extra]

    return both(step, q, k, v, bias, graphc.randn(2, 3, 20, 16))


@pytest.mark.parametrize("what", ["bias with a gradient", "no maximum", "other axis", "sum plus one", "maximum of everything", "dropout",
                                  "probabilities returned", "scores returned", "row sums returned", "probabilities regularised",
                                  "detached"])
def test_left_alone(what: str) -> None:
    before, after, arrays = near_miss(what)
    assert "scored_attention" not in names(after) and names(after).count("contract") >= 4


def test_labels_of_launches() -> None:
    """Kernels of a causal attention by hand, and nothing else: small ones that look through the mask, and three."""
    _, after, _ = program("causal in memory")
    labels = [s.label for s in launches(lower_plan(after))]
    assert labels == ["mask_ranges", "attention", "mask_ranges", "mask_ranges", "attention_queries", "attention_keys"]


def test_float64_and_deep_heads_stay() -> None:
    for more in (dict(dt=graphc.float64), dict(depth=160)):
        _, after, _ = program("causal", **more)
        assert "scored_attention" not in names(after)


@pytest.mark.usefixtures("triton_installed")
def test_machine_code(monkeypatch) -> None:
    """Code on the scores and heads in groups as machine code: tensor cores, no spills."""
    monkeypatch.undo()
    graphs = [program("alibi", lq=256, ls=256, depth=64, amp=True)[1], grouped(True)[1]]
    made = [x for g in graphs for x in launches(lower_plan(g)) if x.label.startswith("attention")]
    code = compiler.compiler(compiler.H100).get([x.printed for x in made])
    assert len(code) == 6
    for c in code.values():
        assert c.spills == 0 and c.shared <= compiler.H100.shared_limit and (c.facts["mma"] or c.facts["wgmma"]), c.symbol
