"""Attention written by hand has PyTorch's values and gradients, and runs slice by slice with the same bits as otherwise."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from slicing import same_either_way

import graphc
import graphc.nn.functional as GF
from graphc.codegen import build_plan
from graphc.codegen.native import program
from graphc.ir import recorder
from graphc.ir.node import Graph
from graphc.runtime import jit

torch = pytest.importorskip("torch")
TF = torch.nn.functional

if not jit.available():
    pytest.skip(jit.reason(), allow_module_level=True)

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads, and no program too small for them."""
    before = graphc.get_num_threads()
    graphc.set_num_threads(2)
    monkeypatch.setattr(program, "PARALLEL_WORK", 0)
    yield
    graphc.set_num_threads(before)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Graph, list[Any]]]]:
    """Graphs that ran, with what they were given."""
    ran: list[tuple[Graph, list[Any]]] = []

    def plan(graph: Graph) -> Any:
        made = build_plan(graph)

        def call(bindings: list[Any], *rest: Any) -> Any:
            ran.append((made.graph, list(bindings)))
            return made(bindings, *rest)

        call.donors, call.graph = (), made.graph  # type: ignore[attr-defined]
        return call

    recorder.flush()
    monkeypatch.setattr("graphc.ir.flush.PLANS", {})
    recorder.set_planner(plan)
    yield ran
    recorder.flush()
    recorder.set_planner(build_plan)


def hand(lib: Any, F: Any, q: Any, k: Any, v: Any, extra: Any) -> Any:
    return F.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1) @ v


def masked(lib: Any, F: Any, q: Any, k: Any, v: Any, extra: Any) -> Any:
    return F.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + extra, -1) @ v


def causal(lib: Any, F: Any, q: Any, k: Any, v: Any, extra: Any) -> Any:
    s = q @ k.transpose(-1, -2)
    keep = lib.ones(s.shape[-2], s.shape[-1]).tril() == 0
    return F.softmax(s.masked_fill(keep, float("-inf")) * 0.2, -1) @ v


def alibi(lib: Any, F: Any, q: Any, k: Any, v: Any, extra: Any) -> Any:
    at, here = lib.arange(k.shape[-2], dtype=q.dtype), lib.arange(q.shape[-2], dtype=q.dtype).reshape(-1, 1)
    slopes = lib.arange(1, q.shape[1] + 1, dtype=q.dtype).reshape(-1, 1, 1) / 8
    return F.softmax(q @ k.transpose(-1, -2) - slopes * (at - here).abs(), -1) @ v


def capped(lib: Any, F: Any, q: Any, k: Any, v: Any, extra: Any) -> Any:
    return F.softmax(5 * lib.tanh(q @ k.transpose(-1, -2) / 5), -1) @ v


def unnormalised(lib: Any, F: Any, q: Any, k: Any, v: Any, extra: Any) -> Any:
    s = q @ k.transpose(-1, -2)
    e = lib.exp(s - s.amax(-1, keepdim=True))
    return (e @ v) / e.sum(-1, keepdim=True)


def sdpa(lib: Any, F: Any, q: Any, k: Any, v: Any, extra: Any) -> Any:
    return F.scaled_dot_product_attention(q, k, v)


def sdpa_mask(lib: Any, F: Any, q: Any, k: Any, v: Any, extra: Any) -> Any:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=extra)


def interleaved(lib: Any, F: Any, q: Any, k: Any, v: Any, extra: Any) -> Any:
    """Heads that lie side by side in memory, and a result whose heads do."""
    def heads(x: Any) -> Any:
        b, h, t, d = x.shape
        return x.reshape(b, t, h, d).transpose(1, 2)

    y = F.softmax(heads(q) @ heads(k).transpose(-1, -2), -1) @ heads(v)
    return y.transpose(1, 2).reshape(q.shape) * 2


def kept(lib: Any, F: Any, q: Any, k: Any, v: Any, extra: Any) -> Any:
    """The weights are a result too."""
    p = F.softmax(q @ k.transpose(-1, -2), -1)
    return p @ v + p.sum(-1, keepdim=True) * p.amax()


VARIANTS = [hand, masked, causal, alibi, capped, unnormalised, sdpa, sdpa_mask, interleaved, kept]
SIZES = [(1, 2, 17, 17, 5), (3, 1, 33, 20, 8), (2, 3, 64, 64, 32)]  # batch, heads, queries, keys, width


def pair(shape: tuple[int, ...], name: str, grad: bool = True) -> tuple[Any, Any]:
    """The same tensor here and there."""
    a = RNG.standard_normal(shape).astype(np.float64)
    t = torch.tensor(a).to(getattr(torch, name))
    g = graphc.tensor(a, dtype=getattr(graphc, name))
    return g.requires_grad_(grad), t.requires_grad_(grad)


def both(fn: Callable[..., Any], size: tuple[int, ...], name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Values and gradients: ours and PyTorch's."""
    b, h, tq, tk, d = size
    if fn is interleaved:
        tk = tq
    ops = [pair((b, h, t, d), name) for t in (tq, tk, tk)]
    extra, g = pair((b, 1, tq, tk), name, False), pair((b, h, tq, d), name, False)
    mine = fn(graphc, GF, *[x for x, _ in ops], extra[0])
    mine.backward(g[0])
    theirs = fn(torch, TF, *[x for _, x in ops], extra[1])
    theirs.backward(g[1])
    results = [(mine.detach(), theirs.detach()), *[(x.grad, y.grad) for x, y in ops]]
    return [(x.to(graphc.float64).numpy(), y.double().numpy()) for x, y in results]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fn", VARIANTS, ids=lambda f: f.__name__)
def test_attention(fn: Any, size: tuple[int, ...], runs: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, gradients, and that they come from pipelines which change no bit."""
    if fn is causal and size[2] != size[3]:
        pytest.skip("causal masks are square")
    for x, y in both(fn, size, "float32"):
        np.testing.assert_allclose(x, y, 2e-4, 2e-5)
    made = [p for graph, bindings in list(runs) for p in same_either_way(graph, bindings, monkeypatch)]
    assert made and all(p.slices == size[0] * size[1] for p in made)
    assert sum(bool(j.matrices) for p in made for j in p.jobs) >= 5


@pytest.mark.parametrize("name,rtol", [("float64", 1e-9), ("bfloat16", 6e-2)])
@pytest.mark.parametrize("fn", [hand, masked, capped, sdpa], ids=lambda f: f.__name__)
def test_dtypes(fn: Any, name: str, rtol: float, runs: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for x, y in both(fn, (2, 3, 24, 17, 12), name):
        np.testing.assert_allclose(x, y, rtol, rtol)
    assert [p for graph, bindings in list(runs) for p in same_either_way(graph, bindings, monkeypatch)]


def test_dropout(runs: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers are those of their place, whoever draws them; forward and backward drop the same."""
    q, k, v = [pair((2, 3, 16, 8), "float32")[0] for _ in range(3)]
    eye = graphc.eye(16).expand(2, 3, 16, 16).clone().requires_grad_(True)
    graphc.manual_seed(7)
    p = GF.dropout(GF.softmax(q @ k.transpose(-1, -2), -1), 0.5, True)
    y = p @ eye
    y.sum().backward()
    out = y.detach().numpy()
    assert (out == 0).mean() > 0.3
    np.testing.assert_allclose(eye.grad.numpy().sum(-1) / 16, out.sum(-2), 1e-5, 1e-6)
    del v
    assert [x for graph, bindings in list(runs) for x in same_either_way(graph, bindings, monkeypatch)]


def test_nothing_in_them() -> None:
    """Sizes of zero."""
    for shape in ((0, 2, 4, 3), (2, 0, 4, 3), (2, 3, 0, 4), (2, 3, 4, 0)):
        q = graphc.zeros(*shape, requires_grad=True)
        y = GF.softmax(q @ q.transpose(-1, -2), -1) @ q
        y.sum().backward()
        assert y.detach().numpy().shape == shape and q.grad.numpy().shape == shape
