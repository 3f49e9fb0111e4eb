"""grad, vjp, jvp and linearize against torch.func."""
from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc import func as gf

torch = pytest.importorskip("torch")
tf = pytest.importorskip("torch.func")

RNG = np.random.default_rng(3)
X, Y = RNG.standard_normal((3, 4)), RNG.standard_normal((3, 4))
PAIRS = ((torch, tf), (graphc, gf))


def same(make, tol=1e-9):
    """``make(lib, func)`` gives equal trees with both libraries."""
    want, got = [make(lib, fn) for lib, fn in PAIRS]
    a, sa = torch.utils._pytree.tree_flatten(want)
    b, _ = torch.utils._pytree.tree_flatten(got)
    assert len(a) == len(b), sa
    for u, v in zip(a, b):
        assert tuple(u.shape) == tuple(v.shape)
        assert u.requires_grad == v.requires_grad
        np.testing.assert_allclose(v.detach().numpy(), u.detach().numpy(), rtol=tol, atol=tol)


def loss(lib, x, y):
    return (lib.sin(x) * y + lib.exp(-x * x)).sum() + lib.logsumexp(x @ y.T, 0).sum()


@pytest.mark.parametrize("argnums", [0, 1, (0, 1), (1,), -1])
def test_grad_argnums(argnums):
    same(lambda lib, fn: fn.grad(lambda a, b: loss(lib, a, b), argnums)(lib.tensor(X), lib.tensor(Y)))


def test_grad_tree_aux_and_kwargs():
    def make(lib, fn):
        def f(p, scale=1.0):
            s = (p["w"] ** 3).sum() * scale + p["b"][0].cos().sum()
            return s, {"hidden": p["w"] * 2, "b": p["b"][0] + 1}

        p = {"w": lib.tensor(X), "b": [lib.tensor(Y)]}
        return fn.grad(f, has_aux=True)(p, scale=2.5), fn.grad_and_value(f, has_aux=True)(p)

    same(make)


def test_value_and_grad_orders_value_first():
    v, g = gf.value_and_grad(lambda a: (a * a).sum())(graphc.tensor(X))
    np.testing.assert_allclose(v.numpy(), (X * X).sum())
    np.testing.assert_allclose(g.numpy(), 2 * X)


def test_third_derivative():
    def make(lib, fn):
        f = lambda x: lib.sin(x) * x**3  # noqa: E731
        return fn.grad(fn.grad(fn.grad(f)))(lib.tensor(0.7, dtype=lib.float64))

    same(make)


def test_no_confusion_between_levels():
    """d/dx (x * d/dy (x + y)) = 1: a tangent of one level must not leak into another."""
    def make(lib, fn):
        one = lib.tensor(1.5, dtype=lib.float64)
        return fn.grad(lambda x: x * fn.grad(lambda y: x + y)(one))(one)

    same(make)


def test_closure_over_a_leaf_stays_on_the_users_tape():
    def make(lib, fn):
        w = lib.tensor(Y).requires_grad_()
        g, v = fn.grad_and_value(lambda x: (x * w).pow(3).sum())(lib.tensor(X))
        (g.sum() + v).backward()
        return g, v, w.grad

    same(make)


def test_argument_on_the_users_tape():
    def make(lib, fn):
        x = lib.tensor(X).requires_grad_()
        fn.grad(lambda a: (a**4).sum())(x * 2).sum().backward()
        return x.grad

    same(make)


def test_no_grad_outside_does_not_matter_inside_it_does():
    def make(lib, fn):
        def f(x):
            with lib.no_grad():
                c = x**2
            return (x**3 - c).sum()

        with lib.no_grad():
            return fn.grad(f)(lib.tensor(X))

    same(make)


def test_in_place_on_the_argument():
    def make(lib, fn):
        def f(x):
            y = x * 1
            y.mul_(3).sin_()
            return (y * x).sum()

        return fn.grad(f)(lib.tensor(X))

    same(make)


def test_unused_argument_gets_zeros():
    same(lambda lib, fn: fn.grad(lambda a, b: (a * a).sum(), (0, 1))(lib.tensor(X), lib.tensor(Y)))


@pytest.mark.parametrize("bad, text", [
    (lambda x: x, "scalar Tensor"), (lambda x: 3.0, "to return a Tensor")])
def test_grad_refuses(bad, text):
    with pytest.raises(RuntimeError, match=text):
        gf.grad(bad)(graphc.tensor(X))
    with pytest.raises(RuntimeError, match=text):
        tf.grad(bad)(torch.tensor(X))


def test_argnum_out_of_range():
    with pytest.raises(RuntimeError, match="argnum"):
        gf.grad(lambda x: x.sum(), 2)(graphc.tensor(X))


def test_vjp():
    def make(lib, fn):
        x, y = lib.tensor(X), lib.tensor(Y)
        out, back = fn.vjp(lambda a, b: {"p": a.sin() * b, "q": (a @ b.T).sum()}, x, y)
        one = lib.tensor(2.0, dtype=lib.float64)
        return out, back({"p": y, "q": one}), back({"p": x, "q": one})  # a pullback can be used again

    same(make)


def test_vjp_aux_and_second_order():
    def make(lib, fn):
        x = lib.tensor(X)
        out, back, aux = fn.vjp(lambda a: (a**3, a + 1), x, has_aux=True)
        twice = fn.vjp(lambda a: fn.vjp(lambda b: b**3, a)[1](a)[0], x)[1](x)
        return out, back(x), aux, twice

    same(make)


def test_vjp_refuses_other_shapes():
    _, back = gf.vjp(lambda a: a.sum(0), graphc.tensor(X))
    with pytest.raises(RuntimeError, match="shape"):
        back(graphc.tensor(X))
    with pytest.raises(RuntimeError, match="structure"):
        back((graphc.tensor(X[0]),))


FUNCTIONS = {
    "matmul": lambda lib, x: x @ x.T, "softmax": lambda lib, x: lib.softmax(x, -1), "cumsum": lambda lib, x: x.cumsum(1),
    "max": lambda lib, x: x.amax(1), "norm": lambda lib, x: lib.linalg.norm(x), "cat": lambda lib, x: lib.cat([x, x * x], 1),
    "where": lambda lib, x: lib.where(x > 0, x.exp(), x), "index": lambda lib, x: x[[2, 0], 1:3], "prod": lambda lib, x: x.prod(1),
    "sort": lambda lib, x: x.sort(1)[0], "pad": lambda lib, x: lib.nn.functional.pad(x, (1, 2)),
    "gelu": lambda lib, x: lib.nn.functional.gelu(x), "layer_norm": lambda lib, x: lib.nn.functional.layer_norm(x, (4,)),
    "solve": lambda lib, x: lib.linalg.solve(x @ x.T + lib.eye(3, dtype=lib.float64), x), "var": lambda lib, x: x.var(0),
    "conv": lambda lib, x: lib.nn.functional.conv1d(x[None, None].reshape(1, 3, 4), x[:, :3].reshape(1, 3, 3)),
    "log_softmax": lambda lib, x: lib.log_softmax(x, 0), "gather": lambda lib, x: x.gather(1, lib.tensor([[0, 2], [1, 1], [3, 0]])),
    "constant": lambda lib, x: lib.ones(2, dtype=lib.float64), "int": lambda lib, x: (x.sum(), (x > 0).sum() + 1 - 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_jvp(name):
    f = FUNCTIONS[name]

    def make(lib, fn):
        out, tangent = fn.jvp(lambda x: f(lib, x), (lib.tensor(X),), (lib.tensor(Y),))
        tangents = tangent if isinstance(tangent, tuple) else (tangent,)
        return out, [t for t in tangents if t.is_floating_point()]

    same(make)


def test_jvp_of_jvp_and_grad_of_jvp():
    def make(lib, fn):
        x, v = lib.tensor(X), lib.tensor(Y)
        f = lambda a: (a.sin() * a).cumsum(1)  # noqa: E731
        d = lambda a: fn.jvp(f, (a,), (v,))[1]  # noqa: E731
        return fn.jvp(d, (x,), (v,)), fn.grad(lambda a: d(a).pow(2).sum())(x)

    same(make)


def test_jvp_of_two_arguments_with_aux():
    def make(lib, fn):
        x, y = lib.tensor(X), lib.tensor(Y)
        return fn.jvp(lambda a, b: (a * b, a + 1), (x, y), (y, x), has_aux=True)

    same(make)


def test_jvp_differentiates_a_leaf_of_the_user():
    def make(lib, fn):
        x = lib.tensor(X).requires_grad_()
        out, t = fn.jvp(lambda a: a**3, (x,), (lib.tensor(Y),))
        t.sum().backward()
        return x.grad, t

    same(make)


def test_jvp_refuses():
    x = graphc.tensor(X)
    with pytest.raises(RuntimeError, match="tuple"):
        gf.jvp(lambda a: a, x, (x,))
    with pytest.raises(RuntimeError, match="structure"):
        gf.jvp(lambda a: a, (x,), (x, x))
    with pytest.raises(RuntimeError, match="independent"):
        gf.jvp(lambda a: graphc.ones(2), (x,), (x,), strict=True)


def test_linearize():
    def make(lib, fn):
        x, y = lib.tensor(X), lib.tensor(Y)
        out, push = fn.linearize(lambda a, b: (a.sin() * b, b.sum()), x, y)
        return out, push(y, x), push(x, y)

    same(make)


def test_functional_call_and_grad_of_a_module():
    rng = np.random.default_rng(0)
    weights = {"0.weight": rng.standard_normal((5, 4)), "0.bias": rng.standard_normal(5), "2.weight": rng.standard_normal((2, 5)),
               "2.bias": rng.standard_normal(2)}

    def make(lib, fn):
        net = lib.nn.Sequential(lib.nn.Linear(4, 5), lib.nn.Tanh(), lib.nn.Linear(5, 2)).double()
        p = {k: lib.tensor(v) for k, v in weights.items()}
        first, second = dict(list(p.items())[:2]), dict(list(p.items())[2:])
        out = fn.functional_call(net, (first, second), (lib.tensor(X),))
        return out, fn.grad(lambda q: fn.functional_call(net, q, (lib.tensor(X),)).pow(2).sum())(p)

    same(make)


def test_functional_call_refuses_a_name_twice():
    net = graphc.nn.Linear(2, 2)
    p = dict(net.named_parameters())
    with pytest.raises(ValueError, match="multiple"):
        gf.functional_call(net, (p, p), graphc.ones(1, 2))


def test_stack_module_state():
    nets = [graphc.nn.Sequential(graphc.nn.Linear(2, 3), graphc.nn.BatchNorm1d(3)) for _ in range(3)]
    p, b = gf.stack_module_state(nets)
    assert tuple(p["0.weight"].shape) == (3, 3, 2) and p["0.weight"].requires_grad and p["0.weight"].is_leaf
    assert tuple(b["1.running_mean"].shape) == (3, 3)
    np.testing.assert_array_equal(p["0.bias"][1].detach().numpy(), nets[1][0].bias.detach().numpy())
    with pytest.raises(RuntimeError, match="at least one"):
        gf.stack_module_state([])
    with pytest.raises(RuntimeError, match="same class"):
        gf.stack_module_state([nets[0], graphc.nn.Linear(2, 3)])
