"""Backward passes spliced in as blocks: equal to PyTorch when the same program is repeated and when anything in it changes."""
from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc.autograd import splice
from graphc.ir.recorder import flush

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)
X, W, V = (RNG.standard_normal(s).astype(np.float32) for s in ((5, 4), (4, 4), (4, 3)))


def leaves(T):
    w, v = (T.tensor(a.copy(), requires_grad=True) for a in (W, V))
    return T.tensor(X.copy()), w, v


def grads(*ts):
    return [None if t.grad is None else t.grad.numpy().copy() for t in ts]


def plain(T, i):
    x, w, v = leaves(T)
    ((x @ w).tanh() @ v).square().mean().backward()
    return grads(w, v)


def shared(T, i):
    x, w, v = leaves(T)
    h = x @ w
    for _ in range(2 + i % 2):
        h = (h @ w).relu() + h
    h.sum().backward()
    return grads(w)


def frozen(T, i):
    x, w, v = leaves(T)
    w.requires_grad_(i % 3 != 0)
    ((x @ w).tanh() @ v).sum().backward()
    return grads(w, v)


def kept(T, i):
    x, w, v = leaves(T)
    loss = ((x @ w).sigmoid() @ v).sum()
    loss.backward(retain_graph=True)
    loss.backward(retain_graph=i % 2 == 0)
    if i % 2 == 0:
        loss.backward()
    return grads(w, v)


def accumulated(T, i):
    x, w, v = leaves(T)
    for k in range(3):
        ((x * k) @ w @ v).exp().mean().backward()
    return grads(w, v)


def two_losses(T, i):
    x, w, v = leaves(T)
    h = (x @ w).tanh()
    a, b = (h @ v).sum(), (h * h).mean()
    (a + b if i % 2 else b).backward()
    return grads(w, v)


def detached(T, i):
    x, w, v = leaves(T)
    h = (x @ w).tanh()
    h = h.detach() if i % 2 else h
    (h @ v + (h.detach() @ v).exp()).sum().backward()
    return grads(w, v)


def hooked(T, i):
    x, w, v = leaves(T)
    h = (x @ w).tanh()
    if i % 2:
        h.register_hook(lambda g: g * 2)
    if i % 3 == 0:
        w.register_hook(lambda g: g + 1)
    (h @ v).sum().backward()
    return grads(w, v)


def weighted(T, i):
    x, w, v = leaves(T)
    y = (x @ w).tanh() @ v
    y.backward(T.tensor(np.full((5, 3), float(i), np.float32)))
    return grads(w, v)


def in_place(T, i):
    x, w, v = leaves(T)
    h = x @ w
    h[:, 1:3].mul_(2)
    if i % 2:
        h[0] = 0
    (h.tanh() @ v).sum().backward()
    return grads(w, v)


def several_outputs(T, i):
    x, w, v = leaves(T)
    a, b = (x @ w).split(2, 1)
    top, _ = (a * b).topk(1, 1)
    (top.sum() if i % 2 else (a.sum() + top.sum())).backward()
    return grads(w)


def no_grad_between(T, i):
    x, w, v = leaves(T)
    with T.no_grad():
        w.mul_(0.5)
        s = (x @ w).sum()
    ((x @ w).tanh() @ v * s).sum().backward()
    with T.no_grad():
        w -= 0.1 * w.grad
    return [*grads(w, v), w.detach().numpy().copy()]


def checked_function(T, i):
    class Double(T.autograd.Function):
        @staticmethod
        def forward(ctx, a):
            return a * 2

        @staticmethod
        def backward(ctx, g):
            return g * (2 + i)

    x, w, v = leaves(T)
    (Double.apply(x @ w) @ v).sum().backward()
    return grads(w, v)


@pytest.mark.parametrize("program", [plain, shared, frozen, kept, accumulated, two_losses, detached, hooked, weighted, in_place,
                                     several_outputs, no_grad_between, checked_function])
def test_repeated_programs(program) -> None:
    for i in (0, 1, 2, 3, 4, 5, 0, 0, 1):
        for a, b in zip(program(graphc, i), program(torch, i), strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def test_a_graph_of_an_earlier_region_is_walked() -> None:
    """Its nodes are the same nodes of the trie, but what they saved lies in another region."""
    for T in (graphc, torch):
        results = []
        old = old_w = None
        for i in range(6):
            x, w, v = leaves(T)
            loss = ((x * i) @ w @ v).square().sum()
            if i % 2:
                old.backward()
                results.append([old_w.grad.numpy().copy(), np.array(w.grad is None)])
            float(loss)
            old, old_w = loss, w
        if T is graphc:
            mine = results
    for a, b in zip(mine, results):
        for p, q in zip(a, b):
            np.testing.assert_allclose(p, q, 1e-4)


def test_blocks_are_used_and_release_the_graph(monkeypatch) -> None:
    flush()
    used = []
    replay = splice.replay
    monkeypatch.setattr(splice, "replay", lambda *args: used.append(replay(*args)) or used[-1])
    for _ in range(3):
        x, w, v = leaves(graphc)
        loss = ((x @ w).tanh() @ v).square().mean()
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()
        float(loss)
    assert [u is not None for u in used[1::2]] == [False] * 3, "a graph that was walked is walked again, and raises"
    assert [u is not None for u in used[::2]] == [used[0] is not None, True, True]
