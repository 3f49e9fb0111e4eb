"""vmap against torch.vmap: dims, trees, nesting, derivatives inside and outside, randomness, what it refuses."""
from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc import func as gf

torch = pytest.importorskip("torch")
tf = pytest.importorskip("torch.func")

RNG = np.random.default_rng(5)
X, Y = RNG.standard_normal((5, 3, 4)), RNG.standard_normal((5, 4))
PAIRS = ((torch, tf), (graphc, gf))


def same(make, tol=1e-9):
    """``make(lib, func)`` gives equal trees with both libraries."""
    want, got = [torch.utils._pytree.tree_flatten(make(lib, fn))[0] for lib, fn in PAIRS]
    assert len(want) == len(got)
    for u, v in zip(want, got):
        assert tuple(u.shape) == tuple(v.shape)
        assert str(u.dtype) == str(v.dtype).replace("graphc", "torch")
        np.testing.assert_allclose(v.detach().numpy(), u.detach().numpy(), rtol=tol, atol=tol)


# ------------------------------------------------------------------------------------------------------------- dims, trees
@pytest.mark.parametrize("dims, out", [((0, 0), 0), ((0, None), 0), ((None, 0), -1), ((1, None), 1), ((2, 1), 2), ((-1, -1), -2)])
def test_dims(dims, out):
    def make(lib, fn):
        shapes = [[3, 4], [4]]
        args = []
        for k, d in enumerate(dims):
            a = [X[0], Y[0]][k]
            args.append(lib.tensor(a if d is None else np.moveaxis(np.stack([a, a + 1]), 0, d)))
            assert list(a.shape) == shapes[k]
        return fn.vmap(lambda a, b: a * b + b.sum() * a.sin(), in_dims=dims, out_dims=out)(*args)

    same(make)


def test_trees_of_arguments_and_results():
    def make(lib, fn):
        def f(d, pair, k, scale=None):
            return {"a": d["x"] @ pair[1], "b": (pair[0] * k, d["x"].sum() + scale)}

        d, p = {"x": lib.tensor(X)}, (lib.tensor(Y[0]), lib.tensor(Y))
        return fn.vmap(f, in_dims=({"x": 0}, (None, 0), None), out_dims={"a": 1, "b": 0})(d, p, 3, scale=lib.tensor(Y[0, 0]))

    same(make)


def test_results_that_are_not_mapped():
    def make(lib, fn):
        one = lib.tensor(Y)
        return fn.vmap(lambda x: (one.sum(0), x.sum(), lib.ones(2)), out_dims=(None, 0, 0))(lib.tensor(X))

    same(make)


@pytest.mark.parametrize("chunk", [1, 2, 5, 7])
def test_chunks(chunk):
    same(lambda lib, fn: fn.vmap(lambda x, y: (x @ y, x.T), in_dims=(0, 0), out_dims=(0, -1), chunk_size=chunk)(
        lib.tensor(X), lib.tensor(Y)))


def test_no_examples():
    same(lambda lib, fn: fn.vmap(lambda x: (x.sum(), x * 2))(lib.zeros(0, 3)))


def test_nested():
    def make(lib, fn):
        x, y = lib.tensor(X), lib.tensor(Y)
        pairwise = fn.vmap(fn.vmap(lambda a, b: (a * b).sum(), (None, 0)), (0, None))
        inner = fn.vmap(lambda m: fn.vmap(lambda r: lib.softmax(r, 0) * r.norm() / m.sum(), out_dims=1)(m))
        return pairwise(y, y + 1), inner(x)

    same(make)


# ------------------------------------------------------------------------------------------------------------- functions
def in_place(lib, x):
    y = x.clone()
    y[0] = y[1] * 2
    y[:, 1:3].mul_(x[:, :2]).add_(1)
    return y.t_()


FUNCTIONS = {
    "linear": lambda lib, x: lib.nn.functional.linear(x, lib.ones(2, 4, dtype=lib.float64), lib.zeros(2, dtype=lib.float64)),
    "softmax": lambda lib, x: lib.softmax(x, -1), "std": lambda lib, x: x.std(0), "median": lambda lib, x: x.median(1)[0],
    "argmax": lambda lib, x: x.argmax(), "topk": lambda lib, x: x.topk(2)[1], "cumprod": lambda lib, x: x.cumprod(0),
    "outer": lambda lib, x: lib.outer(x[0], x[:, 0]), "einsum": lambda lib, x: lib.einsum("ij,kj->ik", x, x),
    "cat": lambda lib, x: lib.cat([x, lib.ones(1, 4, dtype=lib.float64)]), "stack": lambda lib, x: lib.stack([x, x * 2], 1),
    "roll": lambda lib, x: x.roll(1, 0), "flip": lambda lib, x: x.flip(1), "unfold": lambda lib, x: x.unfold(1, 2, 1),
    "where": lambda lib, x: lib.where(x > 0, x, 0.0), "index": lambda lib, x: x[:, lib.tensor([2, 0])],
    "gather": lambda lib, x: x.gather(1, lib.tensor([[0], [1], [3]])), "diag": lambda lib, x: lib.diagonal(x),
    "matrix_power": lambda lib, x: lib.linalg.matrix_power(x @ x.T, 3), "inv": lambda lib, x: lib.linalg.inv(x @ x.T),
    "det": lambda lib, x: lib.linalg.det(x @ x.T), "cholesky": lambda lib, x: lib.linalg.cholesky(x @ x.T),
    "layer_norm": lambda lib, x: lib.nn.functional.layer_norm(x, (4,)), "in_place": in_place,
    "conv": lambda lib, x: lib.nn.functional.conv1d(x[None], lib.ones(2, 3, 2, dtype=lib.float64), padding=1),
    "pool": lambda lib, x: lib.nn.functional.max_pool1d(x[None], 2), "avg": lambda lib, x: lib.nn.functional.avg_pool1d(x[None], 2),
    "embedding": lambda lib, x: lib.nn.functional.embedding((x > 0).long(), lib.tensor(Y)),
    "one_hot": lambda lib, x: lib.nn.functional.one_hot((x > 0).long(), 3), "bool": lambda lib, x: (x > 0).all(1) | (x < 1).any(1),
    "cross_entropy": lambda lib, x: lib.nn.functional.cross_entropy(x, lib.tensor([0, 3, 1])), "norm": lambda lib, x: x.norm(dim=1),
    "attention": lambda lib, x: lib.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None]),
    "fft": lambda lib, x: lib.fft.rfft(x).abs(), "pad": lambda lib, x: lib.nn.functional.pad(x, (1, 1), value=2.0),
    "clamp": lambda lib, x: x.clamp(-0.5, 0.5), "pow": lambda lib, x: x.abs() ** x, "interpolate": lambda lib, x:
        lib.nn.functional.interpolate(x[None], size=7, mode="linear"), "repeat": lambda lib, x: x.repeat(2, 1, 2),
    "scatter": lambda lib, x: lib.zeros(3, 4, dtype=lib.float64).scatter_add(1, (x > 0).long(), x), "tril": lambda lib, x: x.tril(),
    "logsumexp": lambda lib, x: x.logsumexp((0, 1)), "split": lambda lib, x: x.split([1, 3], 1)[1], "cross": lambda lib, x:
        lib.linalg.cross(x[:, :3], x[:, 1:]), "mse": lambda lib, x: lib.nn.functional.mse_loss(x, x * x),
    "bucketize": lambda lib, x: lib.bucketize(x, lib.tensor([-1.0, 0.0, 1.0], dtype=lib.float64)), "kron": lambda lib, x: x.kron(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    same(lambda lib, fn: fn.vmap(lambda x: FUNCTIONS[name](lib, x))(lib.tensor(X)))


def test_lstm_layer():
    """A loop over time under vmap over batches, weights from outside, gradients to both."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(s) * 0.3 for s in ((12, 4), (12, 3), (12,), (12,))]

    def make(lib, fn):
        net = lib.nn.LSTM(4, 3).double()
        names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
        p = {n: lib.tensor(w).requires_grad_() for n, w in zip(names, weights)}
        x = lib.tensor(X).requires_grad_()
        if lib is torch:  # PyTorch's own has no rule for LSTM
            out = torch.stack([tf.functional_call(net, p, (b,))[0] for b in x])
        else:
            out = fn.vmap(lambda b: fn.functional_call(net, p, (b,))[0])(x)
        out.pow(2).sum().backward()
        return out, x.grad, [t.grad for t in p.values()]

    same(make)


# ----------------------------------------------------------------------------------------------------------- derivatives
def test_per_sample_gradients_of_an_mlp():
    rng = np.random.default_rng(1)
    weights = {"0.weight": rng.standard_normal((6, 4)), "0.bias": rng.standard_normal(6), "2.weight": rng.standard_normal((3, 6)),
               "2.bias": rng.standard_normal(3)}

    def make(lib, fn):
        net = lib.nn.Sequential(lib.nn.Linear(4, 6), lib.nn.GELU(), lib.nn.Linear(6, 3)).double()
        p = {k: lib.tensor(v) for k, v in weights.items()}

        def loss(q, x, y):
            return lib.nn.functional.cross_entropy(fn.functional_call(net, q, (x[None],)), y[None])

        return fn.vmap(fn.grad_and_value(loss), in_dims=(None, 0, 0))(p, lib.tensor(Y), lib.tensor([0, 2, 1, 1, 0]))

    same(make)


def test_per_sample_gradients_of_a_cnn():
    rng = np.random.default_rng(2)
    images = rng.standard_normal((4, 1, 8, 8))
    weights = [rng.standard_normal((3, 1, 3, 3)), rng.standard_normal((3,)), rng.standard_normal((4, 3, 3, 3)),
               rng.standard_normal((2, 4 * 2 * 2))]

    def make(lib, fn):
        ff = lib.nn.functional

        def loss(p, x, y):
            x = ff.max_pool2d(ff.relu(ff.conv2d(x[None], p[0], p[1], padding=1)), 2)
            x = ff.avg_pool2d(ff.silu(ff.conv2d(x, p[2], stride=2, padding=1)), 1).flatten(1)
            return ff.cross_entropy(ff.linear(x, p[3]), y[None])

        p = [lib.tensor(w) for w in weights]
        return fn.vmap(fn.grad(loss), in_dims=(None, 0, 0))(p, lib.tensor(images), lib.tensor([0, 1, 1, 0]))

    same(make)


def test_ensemble():
    def make(lib, fn):
        lib.manual_seed(0)
        nets = [lib.nn.Sequential(lib.nn.Linear(4, 3), lib.nn.Tanh(), lib.nn.Linear(3, 1)).double() for _ in range(3)]
        rng = np.random.default_rng(4)
        for net in nets:
            for p in net.parameters():
                p.data = lib.tensor(rng.standard_normal(tuple(p.shape)))
        params, buffers = fn.stack_module_state(nets)
        run = lambda p, b, x: fn.functional_call(nets[0], (p, b), (x,))  # noqa: E731
        out = fn.vmap(run, in_dims=(0, 0, None))(params, buffers, lib.tensor(Y))
        out.pow(2).sum().backward()
        return out, {k: v.grad for k, v in params.items()}

    same(make)


def test_gradient_through_vmap_and_through_both():
    def make(lib, fn):
        w, x = lib.tensor(Y[0]), lib.tensor(X).requires_grad_()
        f = lambda a, b: (a.detach() @ b).sin().sum() + (a * b).pow(2).sum()  # noqa: E731
        outer = fn.grad(lambda b: fn.vmap(f, (0, None))(lib.tensor(X), b).exp().sum() * 1e-9)(w)
        inner = fn.vmap(fn.grad(f), (0, None))(x, w)
        inner.pow(2).sum().backward()
        both = fn.grad(lambda b: fn.vmap(fn.grad(f, 1), (0, None))(lib.tensor(X), b).pow(3).sum())(w)
        return outer, inner, x.grad, both

    same(make)


def test_detach_and_no_grad_inside():
    def make(lib, fn):
        x = lib.tensor(X).requires_grad_()

        def f(a):
            with lib.no_grad():
                c = a * 2
            return (a * c + a.detach() ** 2 * a).sum()

        fn.vmap(f)(x).sum().backward()
        return x.grad

    same(make)


def test_autograd_grad_inside():
    def make(lib, fn):
        def f(a):
            if lib is torch:
                return fn.grad(lambda b: (b**3).sum())(a)
            b = a.detach().requires_grad_()
            return lib.autograd.grad((b**3).sum(), b)[0]

        return fn.vmap(f)(lib.tensor(X))

    same(make)


def test_custom_function_inside():
    class Cube(graphc.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            return g * 3 * ctx.saved_tensors[0] ** 2

    x = graphc.tensor(X)
    got = gf.vmap(gf.grad(lambda a: Cube.apply(a).sum()))(x)
    np.testing.assert_allclose(got.numpy(), 3 * X**2)


class Scale(graphc.autograd.Function):
    """(x * w, x + w) with a backward of its own; w may be shared."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w, x + w

    @staticmethod
    def backward(ctx, g, h):
        x, w = ctx.saved_tensors
        return g * w + h, g * x + h


class Threshold(graphc.autograd.Function):
    """A step whose gradient is that of the identity (straight through)."""

    @staticmethod
    def forward(ctx, x):
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, g):
        return g


def _through(f, mapped, shared):
    """Gradients of sum of squares through vmap, and through a loop."""
    found = []
    for run in (lambda x, w: gf.vmap(f, (0, None))(x, w), lambda x, w: graphc.stack([f(b, w) for b in x])):
        x, w = graphc.tensor(mapped).requires_grad_(), graphc.tensor(shared).requires_grad_()
        out = run(x, w)
        (out * out).sum().backward()
        found.append([t.numpy() for t in (out.detach(), x.grad, w.grad) if t is not None])
    return found


CUSTOM = {
    "both": lambda x, w: (lambda a, b: a.sin() * b)(*Scale.apply(x * 2, w.cos())),
    "one output": lambda x, w: Scale.apply(x, w)[0] * x,
    "shared twice": lambda x, w: Scale.apply(w, x)[1] * Scale.apply(w * w, x)[0],
    "only shared": lambda x, w: Scale.apply(w, w * 2)[0] * x,
    "chained": lambda x, w: Scale.apply(*Scale.apply(x, w))[1].exp() * 0.01,
    "straight through": lambda x, w: Threshold.apply(x * w) * w + x,
    "checkpoint": lambda x, w: graphc.utils.checkpoint.checkpoint(lambda a: (a @ w.T).sin() @ w, x, use_reentrant=False),
    "checkpoint of both": lambda x, w: graphc.utils.checkpoint.checkpoint(lambda a, b: (a * b).sin(), x, w * 2,
                                                                          use_reentrant=False),
    "nested": lambda x, w: gf.vmap(lambda r: Scale.apply(r, w[0])[0] * r)(x),
}


@pytest.mark.parametrize("name", CUSTOM)
def test_custom_function_differentiated_from_outside(name):
    got, want = _through(CUSTOM[name], X, X[0] + 1)
    assert len(got) == len(want) == 3
    for g, w in zip(got, want):
        np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["both", "checkpoint"])
def test_a_mapped_tape_goes_without_the_collector(name):
    import gc
    import weakref

    x, w = graphc.tensor(X).requires_grad_(), graphc.tensor(X[0]).requires_grad_()
    gc.collect()
    gc.disable()
    try:
        out = gf.vmap(CUSTOM[name], (0, None))(x, w)
        ref = weakref.ref(out.sum()._read().gfn.edges[0] if name == "both" else out._read().gfn.gn)
        out.detach().numpy()
        del out
        assert ref() is None
    finally:
        gc.enable()


def test_second_derivative_through_a_mapped_rule():
    def f(w):
        return gf.vmap(lambda b: Scale.apply(b, w)[0].sin().sum())(graphc.tensor(X)).pow(2).sum()

    def plain(w):
        return gf.vmap(lambda b: (b * w).sin().sum())(graphc.tensor(X)).pow(2).sum()

    w = graphc.tensor(X[0])
    for g in (gf.grad, lambda h: gf.grad(lambda w: (gf.grad(h)(w) * w).sum()), gf.hessian):
        np.testing.assert_allclose(g(f)(w).numpy(), g(plain)(w).numpy(), rtol=1e-9, atol=1e-9)


def test_dropout_in_a_checkpoint_draws_for_each_example_again():
    x = graphc.ones(4, 100)

    def f(a):
        return graphc.utils.checkpoint.checkpoint(lambda b: graphc.nn.functional.dropout(b, 0.5) * b, a, use_reentrant=False)

    inside = gf.vmap(gf.grad_and_value(lambda a: f(a).sum()), randomness="different")(x)
    np.testing.assert_allclose(inside[0].numpy().sum(1), 2 * inside[1].numpy())
    y = x.clone().requires_grad_()
    out = gf.vmap(f, randomness="different")(y)
    out.sum().backward()
    np.testing.assert_allclose(y.grad.numpy(), 2 * out.detach().numpy())
    assert len(np.unique(out.detach().numpy(), axis=0)) == 4


JACOBIAN = {"mlp": lambda lib, x: lib.tanh(x @ lib.tensor(X[0].T)).cumsum(-1), "scalar": lambda lib, x: x.sin().sum(),
            "constant": lambda lib, x: lib.ones(2, dtype=lib.float64) * 3, "softmax": lambda lib, x: lib.softmax(x, 0)}


@pytest.mark.parametrize("name", JACOBIAN)
def test_jacobians(name):
    def make(lib, fn):
        f = lambda x: JACOBIAN[name](lib, x)  # noqa: E731
        x = lib.tensor(Y[0])
        return fn.jacrev(f)(x), fn.jacfwd(f)(x), fn.jacrev(f, chunk_size=2)(x)

    same(make)


def test_jacobians_of_trees():
    def make(lib, fn):
        f = lambda a, b: ({"p": a["u"] * b.sum(), "q": (a["u"] @ b, b)}, a["u"] + 1)  # noqa: E731
        a, b = {"u": lib.tensor(X[0])}, lib.tensor(Y[0])
        return (fn.jacrev(f, argnums=(0, 1), has_aux=True)(a, b), fn.jacfwd(f, argnums=1, has_aux=True)(a, b),
                fn.jacrev(lambda *t: f(*t)[0], 0)(a, b))

    same(make)


@pytest.mark.parametrize("order", ["hessian", "revrev", "fwdfwd", "revfwd", "mapped"])
def test_hessians(order):
    def make(lib, fn):
        f = lambda x: (x.sin() * x.roll(1, 0)).sum().exp() + x.prod()  # noqa: E731
        x = lib.tensor(Y)
        h = {"hessian": fn.hessian(f), "revrev": fn.jacrev(fn.jacrev(f)), "fwdfwd": fn.jacfwd(fn.jacfwd(f)),
             "revfwd": fn.jacrev(fn.jacfwd(f)), "mapped": None}[order]
        return fn.vmap(fn.hessian(f))(x) if h is None else h(x[0])

    same(make, 1e-8)


def test_jacobian_reaches_the_users_leaf():
    def make(lib, fn):
        w = lib.tensor(Y[0]).requires_grad_()
        fn.jacrev(lambda x: (x * w).sin())(lib.tensor(Y[1])).pow(2).sum().backward()
        return w.grad

    same(make)


def test_vmap_over_vjp():
    def make(lib, fn):
        out, back = fn.vjp(lambda x: lib.nn.functional.layer_norm(x, (4,)).tanh(), lib.tensor(Y))
        return fn.vmap(back)(lib.stack([out, out * 2]))

    same(make)


# ------------------------------------------------------------------------------------------------------------ randomness
def test_randomness_modes():
    x = graphc.zeros(6, 50)
    with pytest.raises(RuntimeError, match="randomness error mode"):
        gf.vmap(lambda a: a + graphc.rand(50))(x)
    graphc.manual_seed(0)
    a = gf.vmap(lambda a: a + graphc.rand(50), randomness="same")(x).numpy()
    assert (a == a[0]).all() and a.std() > 0.2
    graphc.manual_seed(0)
    b = gf.vmap(lambda a: a + graphc.rand(50), randomness="different")(x)
    after = graphc.rand(50).numpy()
    b = b.numpy()
    assert len(np.unique(b)) > 295 and abs(b.mean() - 0.5) < 0.06
    assert not np.isin(after, b).any()  # the stream went on behind what the examples drew
    graphc.manual_seed(0)
    np.testing.assert_array_equal(b, gf.vmap(lambda a: a + graphc.rand(50), randomness="different")(x).numpy())


@pytest.mark.parametrize("mode", ["same", "different"])
def test_dropout_and_its_gradient_agree(mode):
    x = graphc.ones(4, 200)
    f = lambda a: (graphc.nn.functional.dropout(a, 0.4), 1)[0].sum()  # noqa: E731
    g = gf.vmap(gf.grad(f), randomness=mode)(x).numpy()
    assert set(np.unique(g)) == {0.0, np.float32(1 / 0.6)}
    assert (g == g[0]).all() == (mode == "same")
    both = gf.vmap(gf.grad_and_value(f), randomness=mode)(x)
    np.testing.assert_allclose(both[0].numpy().sum(1), both[1].numpy(), rtol=1e-5)


def test_jacobian_through_dropout():
    x = graphc.ones(30)
    j = gf.jacrev(lambda a: graphc.nn.functional.dropout(a, 0.5))(x).numpy()
    assert set(np.unique(np.diag(j))) == {0.0, 2.0} and (j == np.diag(np.diag(j))).all()


# --------------------------------------------------------------------------------------------------------- what it refuses
REFUSED = [
    (ValueError, "must only return Tensors", lambda lib, v: v(lambda x: 3)),
    (ValueError, "in_dims is not compatible", lambda lib, v: v(lambda x: x, in_dims=(0, 0))),
    (ValueError, "Got in_dim=2", lambda lib, v: v(lambda x: x, in_dims=2)),
    (ValueError, "expected `in_dims` to be int", lambda lib, v: v(lambda x: x, in_dims=None)),
    (ValueError, "expected `in_dims` to be int", lambda lib, v: v(lambda x: x, in_dims="a")),
    (ValueError, "out_dims is not compatible", lambda lib, v: v(lambda x: x, out_dims=(0, 0))),
    (IndexError, "Dimension out of range", lambda lib, v: v(lambda x: x, out_dims=3)),
    (ValueError, "can not return a BatchedTensor", lambda lib, v: v(lambda x: x, out_dims=None)),
    (RuntimeError, "item()", lambda lib, v: v(lambda x: x * x.sum().item())),
    (RuntimeError, "data-dependent", lambda lib, v: v(lambda x: x if x.sum() > 0 else -x)),
]


@pytest.mark.parametrize("kind, text, make", REFUSED, ids=[t for _, t, _ in REFUSED])
def test_refuses(kind, text, make):
    for lib, fn in PAIRS:
        with pytest.raises(kind, match=text):
            make(lib, fn.vmap)(lib.ones(3, 2))


def test_refuses_calls():
    for lib, fn in PAIRS:
        with pytest.raises(ValueError, match="got no inputs"):
            fn.vmap(lambda: 1)()
        with pytest.raises(ValueError, match="non-Tensor"):
            fn.vmap(lambda x: x)(3)
        with pytest.raises(ValueError, match="same size"):
            fn.vmap(lambda x, y: x)(lib.ones(2), lib.ones(3))
        with pytest.raises(RuntimeError, match="randomness"):
            fn.vmap(lambda x: x, randomness="none")(lib.ones(2))


def test_a_failed_call_leaves_everything_usable():
    x = graphc.ones(3, 2)
    y = x * 2
    with pytest.raises(RuntimeError):
        gf.vmap(lambda a: a * a.sum().item())(x)
    with pytest.raises(ZeroDivisionError):
        gf.vmap(lambda a: 1 / 0)(x)
    np.testing.assert_array_equal((y + 1).numpy(), np.full((3, 2), 3.0))
    np.testing.assert_array_equal(gf.vmap(lambda a: a.sum())(y).numpy(), [4, 4, 4])


def test_reading_a_pending_value_from_outside():
    large = graphc.ones(3).sum() * 2 > 5
    out = gf.vmap(lambda a: a * (1.0 if large else 0.0))(graphc.ones(4))
    np.testing.assert_array_equal(out.numpy(), np.ones(4))


def test_writing_outside_is_refused_and_undone():
    total = graphc.tensor([1.0, 2.0])
    view = graphc.zeros(2, 2)
    view.numpy()
    with pytest.raises(RuntimeError, match="inplace"):
        gf.vmap(lambda a: total.add_(a))(graphc.ones(3, 2))
    np.testing.assert_array_equal(total.numpy(), [1, 2])
    with pytest.raises(RuntimeError, match="inplace"):
        gf.vmap(lambda a: view[0].add_(a))(graphc.ones(3, 2))
    np.testing.assert_array_equal(view.numpy(), np.zeros((2, 2)))
    gf.vmap(lambda a: (total.mul_(3), a)[1])(graphc.ones(3, 2))  # the same for all examples: allowed
    np.testing.assert_array_equal(total.numpy(), [3, 6])


def test_batch_norm_with_running_statistics_is_refused():
    net = graphc.nn.BatchNorm1d(2)
    x = graphc.randn(3, 5, 2)
    with pytest.raises(RuntimeError, match="inplace"):
        gf.vmap(net)(x)
    np.testing.assert_array_equal(net.running_mean.numpy(), [0, 0])
    gf.replace_all_batch_norm_modules_(net)
    want = graphc.stack([net(b) for b in x]).detach().numpy()
    np.testing.assert_allclose(gf.vmap(net)(x).detach().numpy(), want, rtol=1e-5, atol=1e-6)


def test_a_value_that_escapes_cannot_be_read():
    kept = []
    gf.vmap(lambda a: (kept.append(a.sin()), a)[1])(graphc.ones(3, 2))
    with pytest.raises(RuntimeError, match="lives outside"):
        kept[0].numpy()


def test_a_large_array_from_outside_is_read_at_once():
    a = np.ones((600, 700), np.float32)  # too large to be copied, so its present values must be read before it changes
    out = gf.vmap(lambda r: r.sum())(graphc.from_numpy(a))
    a[:] = 0
    np.testing.assert_array_equal(out.numpy(), np.full(600, 700.0))


def test_layers_with_weights_from_outside():
    graphc.manual_seed(1)
    x, image = graphc.randn(3, 2, 5, 8), graphc.randn(3, 2, 4, 6, 6)
    encoder = graphc.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    gru = graphc.nn.GRU(8, 4, batch_first=True)
    up = graphc.nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2)
    bn = graphc.nn.BatchNorm2d(4).eval()
    for f, t in ((encoder, x), (lambda b: gru(b)[0], x), (up, image), (bn, image)):
        want = graphc.stack([f(b) for b in t])
        np.testing.assert_allclose(gf.vmap(f)(t).detach().numpy(), want.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_threads_map_independently():
    import threading

    ok = []

    def work(k):
        f = gf.vmap(gf.grad(lambda r: (r.sin() * k).sum()))
        ok.extend(np.allclose(f(graphc.ones(3, 4)).numpy(), k * np.cos(1)) for _ in range(10))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(ok) == 30 and all(ok)


def test_writing_to_a_mapped_argument():
    def make(lib, fn):
        x = lib.tensor(X)
        out = fn.vmap(lambda a: a.mul_(2).sum(), in_dims=1)(x)
        return x, out

    same(make)


def test_repeated_calls_build_no_new_plans():
    from graphc.ir.recorder import counters

    f = gf.vmap(gf.grad(lambda a: (a.sin() * a).sum()))
    f(graphc.tensor(Y)).numpy()
    f(graphc.tensor(Y)).numpy()
    before = counters["plans_built"]
    f(graphc.tensor(Y + 1)).numpy()
    assert counters["plans_built"] == before


def test_under_compile():
    f = graphc.compile(lambda x: gf.vmap(gf.grad(lambda a: (a**3).sum()))(x))
    for _ in range(3):
        np.testing.assert_allclose(f(graphc.tensor(Y)).numpy(), 3 * Y**2)
