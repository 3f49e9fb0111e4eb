"""Normalisations against PyTorch: values, gradients of x, weight and bias, running statistics, bad inputs."""
from __future__ import annotations

import numpy as np
import pytest

import graphc
import graphc.nn.functional as GF

torch = pytest.importorskip("torch")
F = torch.nn.functional


def real(*shape, seed=0, lo=-2.0, hi=2.0):
    return np.random.default_rng(seed).uniform(lo, hi, shape).astype(np.float32)


def close(got, want, rtol=2e-5, atol=1e-5):
    assert tuple(got.shape) == tuple(want.shape) and str(got.dtype) == str(want.dtype)
    np.testing.assert_allclose(got.detach().to(graphc.float64).numpy(), want.detach().double().numpy(), rtol=rtol, atol=atol)


def compare(call, x, w=None, b=None):
    """``call(F, x, w, b)`` on both sides; compares result and gradients."""
    sides = []
    for lib, mod in ((graphc, GF), (torch, F)):
        ts = [None if a is None else lib.tensor(a, requires_grad=True) for a in (x, w, b)]
        out = call(mod, *ts)
        (out * lib.tensor(real(*x.shape, seed=9))).sum().backward()
        sides.append((out, ts))
    (got, gs), (want, ts) = sides
    close(got, want)
    for g, t in zip(gs, ts):
        if t is not None:
            close(g.grad, t.grad, 1e-4, 1e-5)


AFFINE = [(False, False), (True, False), (True, True), (False, True)]


@pytest.mark.parametrize("has_w,has_b", AFFINE)
@pytest.mark.parametrize("shape,dims", [((4, 6), (6,)), ((2, 3, 4), (3, 4)), ((5,), (5,)), ((2, 1), (1,))])
def test_layer_norm(shape, dims, has_w, has_b):
    w, b = real(*dims, seed=1) if has_w else None, real(*dims, seed=2) if has_b else None
    compare(lambda f, x, w, b: f.layer_norm(x, dims, w, b, 1e-3), real(*shape), w, b)


@pytest.mark.parametrize("has_w", [False, True])
@pytest.mark.parametrize("eps", [None, 1e-3])
def test_rms_norm(has_w, eps):
    w = real(3, 4, seed=1) if has_w else None
    compare(lambda f, x, w, b: f.rms_norm(x, (3, 4), w, eps), real(2, 3, 4), w)


@pytest.mark.parametrize("has_w,has_b", AFFINE)
@pytest.mark.parametrize("shape,groups", [((2, 6, 5), 3), ((2, 8), 2), ((3, 4, 2, 3), 1), ((2, 4, 3), 4)])
def test_group_norm(shape, groups, has_w, has_b):
    c = (shape[1],)
    w, b = real(*c, seed=1) if has_w else None, real(*c, seed=2) if has_b else None

    def call(f, x, w, b):
        if f is F and w is None and b is not None:  # PyTorch's own backward fails for a bias without weight
            w = torch.ones(c)
        return f.group_norm(x, groups, w, b)

    compare(call, real(*shape), w, b)


@pytest.mark.parametrize("has_w,has_b", AFFINE)
@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 2, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(shape, has_w, has_b, training):
    w, b = real(3, seed=1) if has_w else None, real(3, seed=2) if has_b else None
    mean, var = real(3, seed=3), real(3, seed=4, lo=0.5, hi=2.0)
    stats = {m: (lib.tensor(mean), lib.tensor(var)) for m, lib in ((GF, graphc), (F, torch))}
    compare(lambda f, x, w, b: f.batch_norm(x, *stats[f], w, b, training, 0.3, 1e-3), real(*shape), w, b)
    for got, want in zip(stats[GF], stats[F]):
        close(got, want)
        assert not got.requires_grad


def test_batch_norm_running_statistics_over_steps_without_gradient_history():
    rm, rv = graphc.zeros(3), graphc.ones(3)
    tm, tv = torch.zeros(3), torch.ones(3)
    for step in range(4):
        x = real(5, 3, seed=step)
        GF.batch_norm(graphc.tensor(x, requires_grad=True), rm, rv, training=True)
        F.batch_norm(torch.tensor(x), tm, tv, training=True)
    close(rm, tm)
    close(rv, tv)


def test_batch_norm_without_running_statistics_and_in_bfloat16():
    compare(lambda f, x, w, b: f.batch_norm(x, None, None, training=True), real(4, 3))
    x = real(4, 3, 5)
    got = GF.batch_norm(graphc.tensor(x).to(graphc.bfloat16), graphc.zeros(3), graphc.ones(3), training=True)
    close(got, F.batch_norm(torch.tensor(x).bfloat16(), torch.zeros(3), torch.ones(3), training=True), 2e-2, 2e-2)


@pytest.mark.parametrize("use_stats", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5)])
def test_instance_norm(shape, use_stats):
    mean, var = real(3, seed=3), real(3, seed=4, lo=0.5, hi=2.0)
    stats = {m: (lib.tensor(mean), lib.tensor(var)) for m, lib in ((GF, graphc), (F, torch))}
    compare(lambda f, x, w, b: f.instance_norm(x, *stats[f], w, b, use_stats, 0.2), real(*shape), real(3, seed=1),
            real(3, seed=2))
    for got, want in zip(stats[GF], stats[F]):
        close(got, want)
    if use_stats:
        compare(lambda f, x, w, b: f.instance_norm(x), real(*shape))


@pytest.mark.parametrize("shape,size", [((2, 6, 3), 3), ((2, 5, 3, 2), 4), ((1, 3, 2), 5)])
def test_local_response_norm(shape, size):
    compare(lambda f, x, w, b: f.local_response_norm(x, size, alpha=0.1, beta=0.6, k=1.5), real(*shape))


def test_large_offset_does_not_cancel():
    x = real(4, 64) + 1e3
    got = GF.layer_norm(graphc.tensor(x), (64,)).numpy()
    wide = x.astype(np.float64)
    want = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(got, want, atol=2e-3)


@pytest.mark.parametrize("name", ["layer_norm", "batch_norm"])
def test_second_derivative(name):
    sides = []
    for lib, f in ((graphc, GF), (torch, F)):
        x = lib.tensor(real(4, 6).astype(np.float64), requires_grad=True)
        w = lib.tensor(real(6, seed=1).astype(np.float64), requires_grad=True)
        y = f.layer_norm(x, (6,), w) if name == "layer_norm" else f.batch_norm(x, None, None, w, training=True)
        gx, gw = lib.autograd.grad((y ** 3).sum(), (x, w), create_graph=True)
        ((gx ** 2).sum() + (gw ** 2).sum()).backward()
        sides.append((x.grad.numpy(), w.grad.numpy()))
    for got, want in zip(*sides):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_empty_batch():
    for f, lib in ((GF, graphc), (F, torch)):
        assert tuple(f.layer_norm(lib.zeros(0, 4), (4,)).shape) == (0, 4)
        assert tuple(f.group_norm(lib.zeros(0, 4, 2), 2).shape) == (0, 4, 2)


BAD = [
    (RuntimeError, "expected input with shape", lambda f, o: f.layer_norm(o(2, 3), (4,))),
    (RuntimeError, "Expected weight to be of same shape", lambda f, o: f.layer_norm(o(2, 3), (3,), o(2))),
    (RuntimeError, "at least 1-dimensional", lambda f, o: f.layer_norm(o(2, 3), ())),
    (RuntimeError, "divisible by num_groups", lambda f, o: f.group_norm(o(2, 5, 3), 2)),
    (RuntimeError, "at least 2 dimensions", lambda f, o: f.group_norm(o(4), 2)),
    (ValueError, "more than 1 value per channel", lambda f, o: f.batch_norm(o(1, 3), None, None, training=True)),
    (RuntimeError, "running_mean", lambda f, o: f.batch_norm(o(4, 3), None, None)),
    (RuntimeError, "weight should contain 3 elements not 2", lambda f, o: f.batch_norm(o(4, 3), o(3), o(3), o(2))),
    (RuntimeError, "running_mean should contain 3 elements not 2", lambda f, o: f.batch_norm(o(4, 3), o(2), o(3))),
    (ValueError, "more than 1 spatial element", lambda f, o: f.instance_norm(o(2, 3, 1))),
    (ValueError, "Expected 3D or higher", lambda f, o: f.local_response_norm(o(2, 3), 2)),
]


@pytest.mark.parametrize("error,text,call", BAD, ids=[b[1] for b in BAD])
def test_bad_input_raises_what_torch_raises(error, text, call):
    with pytest.raises(error):
        call(F, torch.ones)
    with pytest.raises(error, match=text):
        call(GF, graphc.ones)


def test_integers_are_refused():
    with pytest.raises(RuntimeError, match="not implemented for"):
        GF.layer_norm(graphc.ones(2, 3, dtype=graphc.int64), (3,))
