"""torch.autograd.functional: values, structures, strictness and histories."""
from __future__ import annotations

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(9)
X, Y = RNG.standard_normal((2, 3)), RNG.standard_normal(3)
LIBS = (torch, graphc)


def shape_of(tree):
    return tuple(map(shape_of, tree)) if isinstance(tree, tuple) else tuple(tree.shape)


def same(make, tol=1e-9):
    """``make(lib)`` gives equal nested tuples with both libraries."""
    want, got = make(torch), make(graphc)
    assert shape_of(want) == shape_of(got)
    for u, v in zip(torch.utils._pytree.tree_leaves(want), torch.utils._pytree.tree_leaves(got)):
        assert u.requires_grad == v.requires_grad
        np.testing.assert_allclose(v.detach().numpy(), u.detach().numpy(), rtol=tol, atol=tol)


def one(x):
    return x.sin() @ x.T


def two(x, y):
    return (x * y).exp().sum(1), y.sum() * x


def energy(x, y=None):
    z = x if y is None else x * y
    return (z.sin() * z).sum().exp()


@pytest.mark.parametrize("create_graph", [False, True])
def test_jacobian(create_graph):
    def make(lib):
        f, x, y = lib.autograd.functional, lib.tensor(X).requires_grad_(), lib.tensor(Y).requires_grad_()
        kw = {"create_graph": create_graph}
        return (f.jacobian(one, x, **kw), f.jacobian(one, (x,), **kw), f.jacobian(two, (x, y), **kw),
                f.jacobian(lambda a: lib.ones(2, dtype=lib.float64), y))

    same(make)


def test_jacobian_vectorized():
    same(lambda lib: lib.autograd.functional.jacobian(two, (lib.tensor(X), lib.tensor(Y)), vectorize=True))
    same(lambda lib: lib.autograd.functional.jacobian(one, lib.tensor(X), vectorize=True, strategy="forward-mode"))


def test_jacobian_can_be_differentiated():
    def make(lib):
        x = lib.tensor(X).requires_grad_()
        lib.autograd.functional.jacobian(one, x, create_graph=True).pow(2).sum().backward()
        return x.grad

    same(make)


@pytest.mark.parametrize("name", ["hessian", "vhp", "hvp"])
def test_second_derivatives(name):
    def make(lib):
        f, x, y = getattr(lib.autograd.functional, name), lib.tensor(X), lib.tensor(Y)
        if name == "hessian":
            return f(energy, x), f(energy, (x,)), f(energy, (x, y))
        return f(energy, x, x * 2), f(energy, (x, y), (x, y + 1)), f(energy, x, x, create_graph=True)[0].detach()

    same(make, 1e-8)


def test_vjp_and_jvp():
    def make(lib):
        f, x, y = lib.autograd.functional, lib.tensor(X), lib.tensor(Y)
        return (f.vjp(one, x, one(x)), f.vjp(two, (x, y), two(x, y)), f.vjp(energy, (x, y)), f.jvp(one, x, x),
                f.jvp(two, (x, y), (x, y)), f.jvp(lambda a: a * y, lib.tensor([2.0], dtype=lib.float64)))

    same(make)


def test_histories():
    def make(lib):
        x = lib.tensor(X).requires_grad_()
        out, g = lib.autograd.functional.vjp(lambda a: a**3, x, lib.tensor(X), create_graph=True)
        tangent = lib.autograd.functional.jvp(lambda a: a**3, x, lib.tensor(X), create_graph=True)[1]
        (out.sum() + g.sum() + tangent.sum()).backward()
        return x.grad

    same(make)


REFUSED = [
    (TypeError, "inputs given to jacobian", lambda f, lib: f.jacobian(one, 3)),
    (TypeError, "outputs of the user-provided function given to vjp", lambda f, lib: f.vjp(lambda a: 3, lib.ones(2))),
    (RuntimeError, "single element", lambda f, lib: f.hessian(lambda a: a, lib.ones(2))),
    (RuntimeError, "single Tensor", lambda f, lib: f.hessian(lambda a: (a.sum(), a.sum()), lib.ones(2))),
    (RuntimeError, "Output 0 .* does not require", lambda f, lib: f.jacobian(lambda a: lib.ones(3), lib.ones(2), strict=True)),
    (RuntimeError, "independent of input 1", lambda f, lib: f.jacobian(lambda a, b: a, (lib.ones(2), lib.ones(2)), strict=True)),
    (RuntimeError, "independent", lambda f, lib: f.hessian(lambda a: a.sum(), lib.ones(2), strict=True)),
    (RuntimeError, "can only be None", lambda f, lib: f.vjp(lambda a: a, lib.ones(2))),
    (RuntimeError, "can only be None", lambda f, lib: f.jvp(lambda a: a, lib.ones(2))),
    (RuntimeError, "invalid size", lambda f, lib: f.vjp(lambda a: a, lib.ones(2), lib.ones(3))),
    (RuntimeError, "invalid length", lambda f, lib: f.vjp(lambda a: (a, a), lib.ones(2), (lib.ones(2),))),
    (RuntimeError, "not supported together", lambda f, lib: f.jacobian(lambda a: a, lib.ones(2), strict=True, vectorize=True)),
    (NotImplementedError, "vectorize", lambda f, lib: f.jacobian(lambda a: a, lib.ones(2), strategy="forward-mode")),
    (AssertionError, "strategy", lambda f, lib: f.jacobian(lambda a: a, lib.ones(2), strategy="sideways")),
]


@pytest.mark.parametrize("kind, text, call", REFUSED, ids=range(len(REFUSED)))
def test_refuses(kind, text, call):
    for lib in LIBS:
        with pytest.raises(kind, match=text):
            call(lib.autograd.functional, lib)


def test_names():
    assert graphc.vmap is graphc.func.vmap
    assert graphc.autograd.functional.backward is graphc.autograd.backward
