"""Activations and softmax against PyTorch: values, dtypes, gradients, special values, errors."""
from __future__ import annotations

import numpy as np
import pytest

import graphc
import graphc.nn.functional as GF
from graphc.errors import ArgumentError, DimError, DTypeError, ShapeError

torch = pytest.importorskip("torch")
F = torch.nn.functional

CASES = [
    ("relu", {}), ("relu6", {}), ("leaky_relu", {"negative_slope": 0.2}), ("hardtanh", {"min_val": -0.5, "max_val": 1.5}),
    ("threshold", {"threshold": 0.1, "value": 7.0}), ("hardsigmoid", {}), ("hardswish", {}), ("softshrink", {"lambd": 0.3}),
    ("hardshrink", {"lambd": 0.3}), ("sigmoid", {}), ("tanh", {}), ("logsigmoid", {}), ("silu", {}), ("mish", {}),
    ("gelu", {}), ("gelu", {"approximate": "tanh"}), ("elu", {"alpha": 1.3}), ("selu", {}), ("celu", {"alpha": 0.7}),
    ("softplus", {}), ("softplus", {"beta": 2.0, "threshold": 3.0}), ("softsign", {}), ("tanhshrink", {}),
    ("glu", {"dim": 0}), ("softmax", {"dim": 1}), ("softmax", {"dim": -2}), ("log_softmax", {"dim": 0}),
    ("softmin", {"dim": -1}), ("normalize", {}), ("normalize", {"p": 3.0, "dim": 0}), ("normalize", {"p": float("inf")}),
]
IDS = [f"{n}-{'-'.join(map(str, k.values()))}" for n, k in CASES]


def data(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-4, 4, shape).astype(np.float32)


def pair(arr, grad=True):
    return graphc.tensor(arr, requires_grad=grad), torch.tensor(arr, requires_grad=grad)


def check(got, want, rtol=2e-6, atol=2e-6):
    assert tuple(got.shape) == tuple(want.shape)
    assert str(got.dtype) == str(want.dtype)
    g = got.detach().to(graphc.float32) if got.dtype in (graphc.float16, graphc.bfloat16) else got.detach()
    w = want.detach().float() if want.dtype in (torch.float16, torch.bfloat16) else want.detach()
    np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("name,kwargs", CASES, ids=IDS)
def test_value_and_gradient(name, kwargs):
    gx, tx = pair(data(4, 6))
    weight = data(4, 6, seed=1)
    got, want = getattr(GF, name)(gx, **kwargs), getattr(F, name)(tx, **kwargs)
    check(got, want)
    w = weight[:got.shape[0]]
    (got * graphc.tensor(w)).sum().backward()
    (want * torch.tensor(w)).sum().backward()
    check(gx.grad, tx.grad, 1e-5, 1e-5)


@pytest.mark.parametrize("name,kwargs", CASES, ids=IDS)
def test_bfloat16(name, kwargs):
    gx, tx = pair(data(4, 6), False)
    check(getattr(GF, name)(gx.to(graphc.bfloat16), **kwargs), getattr(F, name)(tx.bfloat16(), **kwargs), 2e-2, 2e-2)


@pytest.mark.parametrize("name,kwargs", CASES, ids=IDS)
def test_special_values(name, kwargs):
    if name == "gelu" and not kwargs:
        pytest.skip("PyTorch's vectorised erf gives NaN for gelu(inf); ours gives inf: see test_gelu_far_out")
    arr = np.array([[np.nan, np.inf, -np.inf, 0.0], [-0.0, 3.0, -3.0, 200.0]], np.float32)
    check(getattr(GF, name)(graphc.tensor(arr), **kwargs), getattr(F, name)(torch.tensor(arr), **kwargs))


@pytest.mark.parametrize("name,kwargs", CASES, ids=IDS)
def test_gradient_at_kinks_and_far_out(name, kwargs):
    arr = np.array([[0.0, 3.0, -3.0, 6.0, 0.3, -0.3], [1.5, -0.5, 0.1, 90.0, -90.0, 1.0]], np.float32)
    if name == "normalize" and kwargs.get("p") == float("inf"):
        pytest.skip("the gradient at a tie of maxima is a convention")
    gx, tx = pair(arr)
    getattr(GF, name)(gx, **kwargs).sum().backward()
    getattr(F, name)(tx, **kwargs).sum().backward()
    check(gx.grad, tx.grad, 1e-5, 1e-5)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (2, 0, 5)])
@pytest.mark.parametrize("name", ["relu", "gelu", "softmax", "log_softmax"])
def test_empty(name, shape):
    kwargs = {"dim": 1} if "softmax" in name else {}
    gx, tx = pair(np.zeros(shape, np.float32))
    got = getattr(GF, name)(gx, **kwargs)
    check(got, getattr(F, name)(tx, **kwargs))
    got.sum().backward()
    assert tuple(gx.grad.shape) == shape


def test_zero_dim():
    for name in ("relu", "gelu", "sigmoid"):
        check(getattr(GF, name)(graphc.tensor(1.5)), getattr(F, name)(torch.tensor(1.5)))
    check(GF.softmax(graphc.tensor(1.5), 0), F.softmax(torch.tensor(1.5), 0))
    check(GF.log_softmax(graphc.tensor(1.5), -1), F.log_softmax(torch.tensor(1.5), -1))


def test_large_logits_do_not_overflow():
    arr = np.array([[1e4, -1e4, 0.0], [8e3, 8e3, 8e3]], np.float32)
    check(GF.softmax(graphc.tensor(arr), 1), F.softmax(torch.tensor(arr), 1))
    check(GF.log_softmax(graphc.tensor(arr), 1), F.log_softmax(torch.tensor(arr), 1))


def test_gelu_far_out():
    got = GF.gelu(graphc.tensor([np.inf, 200.0, -200.0, -3.0], dtype=graphc.float64)).numpy()
    np.testing.assert_allclose(got, [np.inf, 200.0, 0.0, -0.004049694098], rtol=1e-8)


def test_integers():
    arr = np.arange(-3, 9).reshape(3, 4)
    for name in ("relu", "relu6", "hardtanh", "sigmoid", "tanh", "softsign", "tanhshrink"):
        check(getattr(GF, name)(graphc.tensor(arr)), getattr(F, name)(torch.tensor(arr)))
    for name in ("gelu", "silu", "elu", "leaky_relu", "softplus", "hardswish", "logsigmoid"):
        with pytest.raises(RuntimeError):
            getattr(F, name)(torch.tensor(arr))
        with pytest.raises(DTypeError):
            getattr(GF, name)(graphc.tensor(arr))


def test_softmax_dtype_and_implicit_dim():
    arr = data(3, 4)
    got = GF.softmax(graphc.tensor(arr), 1, dtype=graphc.float64)
    check(got, F.softmax(torch.tensor(arr), 1, dtype=torch.float64))
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        got = GF.softmax(graphc.tensor(arr))
    np.testing.assert_allclose(got.numpy().sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("dim,keepdim", [(1, False), ((0, 2), True), (-1, True), ((0, 1, 2), False)])
def test_logsumexp(dim, keepdim):
    gx, tx = pair(data(2, 3, 4))
    got, want = graphc.logsumexp(gx, dim, keepdim), torch.logsumexp(tx, dim, keepdim)
    check(got, want)
    (got * got).sum().backward()
    (want * want).sum().backward()
    check(gx.grad, tx.grad, 1e-5, 1e-5)
    inf = np.array([[-np.inf, -np.inf], [np.inf, 1.0]], np.float32)
    check(graphc.logsumexp(graphc.tensor(inf), 1), torch.logsumexp(torch.tensor(inf), 1))


@pytest.mark.parametrize("n", [1, 3])
def test_prelu(n):
    gx, tx = pair(data(4, 3, 2))
    gw, tw = pair(data(n, seed=2))
    got, want = GF.prelu(gx, gw), F.prelu(tx, tw)
    check(got, want)
    got.sum().backward()
    want.sum().backward()
    check(gx.grad, tx.grad)
    check(gw.grad, tw.grad, 1e-5, 1e-5)


def test_inplace_forms():
    for name, args in (("relu_", ()), ("elu_", ()), ("leaky_relu_", (0.3,)), ("hardtanh_", ()), ("celu_", ()), ("selu_", ()),
                       ("threshold_", (0.1, 5.0))):
        gx, tx = pair(data(3, 4), False)
        out = getattr(GF, name)(gx, *args)
        assert out is gx
        check(gx, getattr(F, name)(tx, *args))
    gx, tx = pair(data(3, 4))
    (GF.relu(gx * 2, inplace=True) ** 2).sum().backward()
    (F.relu(tx * 2, inplace=True) ** 2).sum().backward()
    check(gx.grad, tx.grad, 1e-5, 1e-5)


def test_rrelu_evaluates_to_the_mean_slope_and_draws_within_bounds():
    gx, tx = pair(data(5, 6), False)
    check(GF.rrelu(gx), F.rrelu(tx))
    out, x = GF.rrelu(gx, 0.2, 0.4, training=True).numpy(), gx.numpy()
    slope = (out / x)[x < 0]
    assert ((slope >= 0.2 - 1e-6) & (slope <= 0.4 + 1e-6)).all() and slope.std() > 0
    np.testing.assert_array_equal(out[x > 0], x[x > 0])


def test_gumbel_softmax():
    graphc.manual_seed(0)
    logits = graphc.tensor(data(50, 4), requires_grad=True)
    soft, hard = GF.gumbel_softmax(logits, tau=0.7), GF.gumbel_softmax(logits, tau=0.7, hard=True)
    np.testing.assert_allclose(soft.detach().numpy().sum(-1), 1, rtol=1e-5)
    h = hard.detach().numpy()
    assert set(np.unique(np.round(h, 5))) == {0.0, 1.0}
    (hard * graphc.tensor(data(50, 4, seed=4))).sum().backward()
    assert np.abs(logits.grad.numpy()).sum() > 0


def test_second_derivative_of_a_composite():
    gx, tx = pair(data(3, 4))
    for lib, x, gelu in ((graphc, gx, GF.gelu), (torch, tx, F.gelu)):
        (g,) = lib.autograd.grad(gelu(x).sum(), x, create_graph=True)
        (g ** 2).sum().backward()
    check(gx.grad, tx.grad, 1e-4, 1e-5)


def test_errors():
    x = graphc.tensor(data(3, 4))
    with pytest.raises(DimError, match=r"Dimension out of range \(expected to be in range of \[-2, 1\], but got 2\)"):
        GF.softmax(x, 2)
    with pytest.raises(DTypeError, match="not implemented for 'int64'"):
        GF.softmax(graphc.tensor([1, 2]), 0)
    with pytest.raises(RuntimeError, match="approximate argument must be either none or tanh"):
        GF.gelu(x, approximate="erf")
    with pytest.raises(ShapeError, match="Halving dimension must be even, but dimension 0 is size 3"):
        GF.glu(x, 0)
    with pytest.raises(ValueError, match="min_val cannot be greater than max_val"):
        GF.hardtanh(x, 2.0, 1.0)
    with pytest.raises(RuntimeError, match="lambda must be greater or equal to 0"):
        GF.softshrink(x, -1.0)
    with pytest.raises(RuntimeError, match="alpha cannot be 0 for CELU"):
        GF.celu(x, 0.0)
    with pytest.raises(RuntimeError, match="Mismatch of parameter numbers"):
        GF.prelu(x, graphc.tensor([0.1, 0.2]))
    with pytest.raises(ArgumentError, match="Lower bound"):
        GF.rrelu(x, 0.5, 0.1)
    with pytest.raises(TypeError, match="must be Tensor, not list"):
        GF.relu([1.0])
