"""utils.checkpoint: equal results and gradients, less memory."""
from __future__ import annotations

import gc
import warnings

import numpy as np
import pytest

import graphc
import graphc.utils.checkpoint as ck
from graphc.ir import recorder

torch = pytest.importorskip("torch")
import torch.utils.checkpoint as tck  # noqa: E402

RNG = np.random.default_rng(6)
X, W = RNG.standard_normal((4, 5)), RNG.standard_normal((5, 5))
PAIRS = ((torch, tck), (graphc, ck))


def same(make, tol=1e-9):
    """``make(lib, checkpoint module)`` gives equal trees with both libraries."""
    want, got = [torch.utils._pytree.tree_leaves(make(lib, c)) for lib, c in PAIRS]
    assert len(want) == len(got)
    for u, v in zip(want, got):
        assert u.requires_grad == v.requires_grad
        np.testing.assert_allclose(v.detach().numpy(), u.detach().numpy(), rtol=tol, atol=tol)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradients_of_arguments_and_captured_weights(reentrant):
    def make(lib, c):
        x, w = lib.tensor(X).requires_grad_(), lib.tensor(W).requires_grad_()
        h = x * 2
        for _ in range(3):
            h = c.checkpoint(lambda a: lib.tanh(a @ w), h, use_reentrant=reentrant)
        (h * h).sum().backward()
        return h, x.grad, w.grad

    same(make)


def test_containers_keywords_and_other_outputs():
    def make(lib, c):
        x, w = lib.tensor(X).requires_grad_(), lib.tensor(W).requires_grad_()

        def f(d, k, scale=None):
            h = d["x"] @ d["w"][0] * k
            return {"h": h, "plain": (h.detach(), (h > 0).long())}, scale * h.sum()

        out, s = c.checkpoint(f, {"x": x, "w": [w]}, 3, scale=lib.tensor(2.0, dtype=lib.float64), use_reentrant=False)
        (out["h"].sin().sum() + s).backward()
        return out, s, x.grad, w.grad

    same(make)


def test_only_captured_values_need_gradients():
    def make(lib, c):
        w = lib.tensor(W).requires_grad_()
        out = c.checkpoint(lambda a: (a @ w).sin(), lib.tensor(X), use_reentrant=False)
        out.sum().backward()
        return out, w.grad

    same(make)


def test_reentrant_needs_an_argument_with_gradient():
    w = graphc.tensor(W).requires_grad_()
    with pytest.warns(UserWarning, match="None of the inputs"):
        out = ck.checkpoint(lambda a: a @ w, graphc.tensor(X), use_reentrant=True)
    assert not out.requires_grad


def test_captured_activation_and_repeated_argument():
    def make(lib, c):
        x = lib.tensor(X).requires_grad_()
        shared = x.sin()
        shared.register_hook(lambda g: g * 2)
        out = c.checkpoint(lambda a, b: a * b * shared + x.exp(), shared, shared, use_reentrant=False)
        (out.sum() + shared.pow(2).sum()).backward()
        return x.grad

    same(make)


def test_autograd_grad_and_second_order():
    def make(lib, c):
        x, w = lib.tensor(X).requires_grad_(), lib.tensor(W).requires_grad_()
        y = c.checkpoint(lambda a: (a @ w).sin(), x, use_reentrant=False)
        (g,) = lib.autograd.grad(y.pow(2).sum(), x, create_graph=True)
        g.pow(2).sum().backward()
        return g, x.grad, w.grad

    same(make)


def test_backward_twice_needs_retain_graph():
    x = graphc.tensor(X).requires_grad_()
    y = ck.checkpoint(lambda a: a.sin(), x, use_reentrant=False).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.cos(X))
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_nested():
    def make(lib, c):
        x, w = lib.tensor(X).requires_grad_(), lib.tensor(W).requires_grad_()
        inner = lambda a: c.checkpoint(lambda b: (b @ w).sin(), a, use_reentrant=False)  # noqa: E731
        c.checkpoint(lambda a: inner(inner(a) + a), x, use_reentrant=False).sum().backward()
        return x.grad, w.grad

    same(make)


def test_inside_transforms():
    f = lambda a: ck.checkpoint(lambda b: (b * b).sin(), a, use_reentrant=False).sum()  # noqa: E731
    got = graphc.vmap(graphc.func.grad(f))(graphc.tensor(X))
    np.testing.assert_allclose(got.numpy(), 2 * X * np.cos(X * X))


def test_dropout_draws_the_same_numbers_again():
    x = graphc.ones(1000).requires_grad_()
    graphc.manual_seed(3)
    y = ck.checkpoint(lambda a: graphc.nn.functional.dropout(a, 0.5) * a, x, use_reentrant=False)
    after = graphc.rand(5).numpy()
    y.sum().backward()
    later = graphc.rand(5).numpy()
    np.testing.assert_allclose(x.grad.numpy(), 2 * y.detach().numpy())
    graphc.manual_seed(3)
    graphc.nn.functional.dropout(graphc.ones(1000), 0.5)
    np.testing.assert_array_equal(after, graphc.rand(5).numpy())  # backward leaves the stream where it was
    np.testing.assert_array_equal(later, graphc.rand(5).numpy())


def test_autocast_of_the_first_run_holds_in_the_second():
    x = graphc.randn(8, 8).requires_grad_()
    with graphc.amp.autocast("cpu", dtype=graphc.bfloat16):
        y = ck.checkpoint(lambda a: a @ a, x, use_reentrant=False)
    assert y.dtype is graphc.bfloat16
    y.float().sum().backward()
    one = graphc.ones(8, 8).bfloat16().float()
    r = x.detach().bfloat16().float()
    np.testing.assert_allclose(x.grad.numpy(), (one @ r.T + r.T @ one).numpy(), rtol=0.05, atol=0.2)


def test_contexts():
    log = []

    class Note:
        def __init__(self, what):
            self.what = what

        def __enter__(self):
            log.append(self.what)

        def __exit__(self, *exc):
            log.append(f"/{self.what}")

    x = graphc.ones(3).requires_grad_()
    y = ck.checkpoint(lambda a: a * 2, x, use_reentrant=False, context_fn=lambda: (Note("first"), Note("second")))
    assert log == ["first", "/first"]
    y.sum().backward()
    assert log == ["first", "/first", "second", "/second"]


def test_no_grad_runs_the_function_only():
    with graphc.no_grad():
        y = ck.checkpoint(lambda a: a * 2, graphc.ones(2).requires_grad_(), use_reentrant=False)
    assert not y.requires_grad


def test_a_segment_that_changes_is_reported():
    calls = []

    def f(a):
        calls.append(0)
        return a[:2] * 2 if len(calls) == 1 else a * 2

    y = ck.checkpoint(f, graphc.ones(3).requires_grad_(), use_reentrant=False)
    with pytest.raises(ck.CheckpointError, match="different metadata"):
        y.sum().backward()


@pytest.mark.parametrize("segments", [1, 2, 3])
def test_sequential(segments):
    def make(lib, c):
        net = lib.nn.Sequential(*[m for _ in range(3) for m in (lib.nn.Linear(5, 5), lib.nn.Tanh())]).double()
        for p, k in zip(net.parameters(), range(9)):
            p.data = lib.tensor(np.random.default_rng(k).standard_normal(tuple(p.shape)))
        x = lib.tensor(X).requires_grad_()
        c.checkpoint_sequential(net, segments, x, use_reentrant=False).pow(2).sum().backward()
        return x.grad, [p.grad for p in net.parameters()]

    same(make)


def test_refuses():
    x = graphc.ones(2).requires_grad_()
    with pytest.raises(ValueError, match="Unexpected keyword"):
        ck.checkpoint(lambda a: a, x, use_reentrant=True, foo=1)
    with pytest.raises(ValueError, match="context_fn"):
        ck.checkpoint(lambda a: a, x, use_reentrant=True, debug=True)
    with pytest.raises(ValueError, match="Unexpected keyword"):
        ck.checkpoint_sequential([lambda a: a], 1, x, use_reentrant=False, foo=1)
    with pytest.raises(ValueError, match="segments"):
        ck.checkpoint_sequential([lambda a: a], 2, x, use_reentrant=False)
    with pytest.warns(UserWarning, match="use_reentrant"):
        ck.checkpoint(lambda a: a, x)


# -------------------------------------------------------------------------------------------------------------- memory
DEPTH, ROWS, WIDTH = 10, 512, 64


def model(checkpointed: bool, tag: int):
    """Loss and input of a deep net; ``tag`` makes the program one of its own."""
    ws = [graphc.randn(WIDTH, WIDTH) for _ in range(DEPTH)]
    h = x = graphc.randn(ROWS + tag, WIDTH).requires_grad_()
    for w in ws:
        def layer(a, w=w):
            return graphc.tanh(graphc.nn.functional.gelu(a @ w) * 1.5) @ w.T

        h = ck.checkpoint(layer, h, use_reentrant=False) if checkpointed else layer(h)
    return (h * h).mean(), x


def new_plans(run):
    before = set(map(id, recorder.PLANS.values()))
    run()
    return [p for p in recorder.PLANS.values() if id(p) not in before]


def test_one_program_needs_less_memory_at_once():
    pytest.importorskip("llvmlite")

    def train(checkpointed):
        def run():
            loss, x = model(checkpointed, 1)
            loss.backward()
            x.grad.numpy()

        return max(getattr(p.run, "arena_bytes", 0) for p in new_plans(run))

    plain, less = train(False), train(True)
    assert plain > 0
    assert less < 0.7 * plain


def test_a_read_in_between_keeps_only_the_segments_inputs():
    def kept(checkpointed):
        gc.collect()
        result = []

        def run():
            result.append(model(checkpointed, 2))
            result[0][0].item()

        plan = new_plans(run)[-1]
        avals = plan.graph.slot_avals()
        return sum(avals[s].nbytes for s in set(plan.graph.outputs))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain, less = kept(False), kept(True)
    activation = (ROWS + 2) * WIDTH * 4
    weights = DEPTH * WIDTH * WIDTH * 4
    assert less < (DEPTH + 2) * activation + weights + 4096  # a few scalars
    assert plain > less + DEPTH * activation
