"""Autograd's semantics, the same program run by graphc and PyTorch; gradients through in-place and view programs."""
from __future__ import annotations

import random

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")


def leaf(T, *shape: int, seed: int = 0):
    return T.tensor(np.random.default_rng(seed).uniform(0.5, 1.5, shape)).requires_grad_(True)


def accumulate(T):
    x = leaf(T, 3)
    (x * 2).sum().backward()
    (x * x).sum().backward()
    return x.grad


def retain(T):
    x = leaf(T, 3)
    y = (x * x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    return x.grad


def higher_order(T):
    x = leaf(T, 3)
    (g,) = T.autograd.grad((x**3 * x.sin()).sum(), x, create_graph=True)
    (h,) = T.autograd.grad(g.sum(), x, create_graph=True)
    (k,) = T.autograd.grad(h.sum(), x)
    return k


def gradient_penalty(T):
    x, w = leaf(T, 4, 3), leaf(T, 3, 2, seed=1)
    out = T.tanh(x @ w)
    (g,) = T.autograd.grad(out.sum(), x, create_graph=True)
    (g.norm() ** 2).backward()
    return w.grad


def unused(T):
    x, y = leaf(T, 2), leaf(T, 2)
    a, b = T.autograd.grad(x.sum(), [x, y], allow_unused=True)
    assert b is None
    return a


def tensor_hooks(T):
    x = leaf(T, 3)
    y = x * 2
    y.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g + 1)
    y.retain_grad()
    y.sum().backward()
    return T.stack([x.grad, y.grad])


def custom_function(T):
    class Cube(T.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 3 * x * x * g

    x = leaf(T, 3)
    (g,) = T.autograd.grad(Cube.apply(x).sum(), x, create_graph=True)
    g.sum().backward()
    return x.grad


def modes(T):
    x = leaf(T, 3)
    with T.no_grad():
        a = x * 2
        with T.enable_grad():
            b = x * 3
    assert not a.requires_grad and b.requires_grad and x.detach().requires_grad is False

    @T.no_grad()
    def f():
        return x * 5

    assert not f().requires_grad and T.is_grad_enabled()
    with T.set_grad_enabled(False):
        assert not (x + 1).requires_grad
    (b + a).sum().backward()
    return x.grad


def multi_output(T):
    x = leaf(T, 3, 4)
    v, i = x.sort(1)
    a, b = v.chunk(2, 1)
    (a * 2 + b.max(1, keepdim=True)[0]).sum().backward()
    return x.grad


def in_place_after_use(T):
    x = leaf(T, 4)
    y = x * 1
    y[1:3] = y[:2] * 3
    y.mul_(2)
    y[0] += y[3]
    z = y.view(2, 2)
    z.t()[0].add_(x[:2])
    y.sum().backward()
    return x.grad


def write_differentiable_into_plain(T):
    x, base = leaf(T, 3), T.zeros(2, 3, dtype=T.float64)
    base[0] = x * 2
    base[1].copy_(x)
    assert base.requires_grad
    (base * base).sum().backward()
    return x.grad


def masked_and_indexed_writes(T):
    x = leaf(T, 5)
    y = x * 2
    y[y > 2] = 0.0
    y[T.tensor([0, 2])] = x[1:3]
    y.index_add_(0, T.tensor([4, 4]), x[:2])
    (y * y).sum().backward()
    return x.grad


PROGRAMS = [accumulate, retain, higher_order, gradient_penalty, unused, tensor_hooks, custom_function, modes, multi_output,
            in_place_after_use, write_differentiable_into_plain, masked_and_indexed_writes]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_same_gradients(program) -> None:
    np.testing.assert_allclose(program(graphc).detach().numpy(), program(torch).detach().numpy(), rtol=1e-10)


def random_program(T, seed: int):
    """Views and in-place writes on a non-leaf; returns the leaf's gradient."""
    rnd = random.Random(seed)
    x = leaf(T, 3, 4, seed=seed)
    views = [x * 1.0]
    for _ in range(rnd.randint(2, 8)):
        t = views[rnd.randrange(len(views))]
        kind = rnd.randrange(6)
        if kind == 0 and t.dim():
            views.append(t[rnd.randrange(t.shape[0])])
        elif kind == 1 and t.dim() > 1:
            views.append(t.transpose(0, 1))
        elif kind == 2 and t.dim():
            views.append(t[..., rnd.randrange(t.shape[-1]):])
        elif kind == 3:
            t.mul_(1 + rnd.random())
        elif kind == 4:
            t.add_(t.detach() * rnd.random())
        else:
            t.copy_(t.clone() * t.clone())  # clones: PyTorch refuses saved values that were overwritten
    (views[0] * T.arange(12.0, dtype=T.float64).reshape(3, 4)).sum().backward()
    return x.grad


@pytest.mark.parametrize("block", range(5))
def test_random_in_place_programs(block: int) -> None:
    for seed in range(block * 40, block * 40 + 40):
        np.testing.assert_allclose(random_program(graphc, seed).numpy(), random_program(torch, seed).numpy(), rtol=1e-9,
                                   err_msg=f"program {seed}")


@pytest.mark.parametrize("bad,text", [
    (lambda T: leaf(T, 3).backward(), "grad can be implicitly created only for scalar outputs"),
    (lambda T: T.ones(1).backward(), "does not require grad"),
    (lambda T: leaf(T, 3).add_(1), "a leaf Variable that requires grad is being used in an in-place operation"),
    (lambda T: leaf(T, 3)[0].mul_(2), "a view of a leaf Variable that requires grad"),
    (lambda T: T.ones(2, dtype=T.int64).requires_grad_(), "only Tensors of floating point"),
    (lambda T: (leaf(T, 2) * 2).requires_grad_(False), "only change requires_grad flags of leaf variables"),
    (lambda T: leaf(T, 2).numpy(), "Can't call numpy"),
    (lambda T: T.autograd.grad(leaf(T, 2).sum(), leaf(T, 2)), "appears to not have been used in the graph"),
    (lambda T: (leaf(T, 2) * 1).backward(T.ones(3, dtype=T.float64)), "Mismatch in shape"),
])
def test_errors(bad, text: str) -> None:
    for T in (graphc, torch):
        with pytest.raises(RuntimeError, match=text):
            bad(T)


def test_backward_twice() -> None:
    for T in (graphc, torch):
        x = leaf(T, 3)
        y = (x * x).sum()
        y.backward()
        with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
            y.backward()


def test_post_accumulate_hook_and_dropping_the_tape() -> None:
    import gc
    import weakref

    x = leaf(graphc, 3)
    seen = []
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.tolist()))
    (x * 2).sum().backward()
    assert seen == [[2, 2, 2]]
    y = x.exp().tanh()
    node = weakref.ref(y._read().gfn)
    gc.disable()
    try:
        del y
        assert node() is None, "a dropped result frees its tape without the cycle collector"
    finally:
        gc.enable()
