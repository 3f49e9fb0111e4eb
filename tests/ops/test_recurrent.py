"""Recurrent layers and cells against PyTorch: outputs, final states, gradients, and the loop primitive itself."""
from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc import dtypes
from graphc.device import CPU
from graphc.errors import ShapeError
from graphc.ir import build as P
from graphc.ir.node import aval, leaf_value
from graphc.ir.prims.control import scan
from graphc.ir.recorder import evaluated
from graphc.ops import recurrent as R

torch = pytest.importorskip("torch")


def real(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-0.7, 0.7, shape).astype(np.float32)


def build(kind, layers, bidirectional, bias=True, batch_first=False, proj=0, nonlinearity="tanh"):
    torch.manual_seed(0)
    kw = dict(num_layers=layers, bidirectional=bidirectional, bias=bias, batch_first=batch_first)
    if kind == "LSTM":
        kw["proj_size"] = proj
    if kind == "RNN":
        kw["nonlinearity"] = nonlinearity
    net = getattr(torch.nn, kind)(4, 5, **kw)
    weights = [[graphc.tensor(p.detach().numpy(), requires_grad=True) for p in group] for group in net.all_weights]
    return net, weights


def run(kind, weights, x, states, layers, bidirectional, batch_first=False, nonlinearity="tanh"):
    common = (layers, *((nonlinearity,) if kind == "RNN" else ()), 0.0, True, bidirectional, batch_first)
    if kind == "LSTM":
        out, (h, c) = R.lstm(x, states, weights, *common)
        return out, h, c
    return {"RNN": R.rnn, "GRU": R.gru}[kind](x, states[0], weights, *common)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("layers,bidirectional,bias,batch_first,proj",
                         [(1, False, True, False, 0), (2, True, True, False, 0), (2, False, False, True, 0),
                          (1, True, True, True, 3), (1, False, False, False, 3)])
def test_layers(kind, layers, bidirectional, bias, batch_first, proj):
    if proj and kind != "LSTM":
        pytest.skip("only LSTM has projections")
    net, weights = build(kind, layers, bidirectional, bias, batch_first, proj)
    d = layers * (2 if bidirectional else 1)
    xs = real(3, 6, 4) if batch_first else real(6, 3, 4)
    starts = [real(d, 3, proj or 5, seed=1)] + ([real(d, 3, 5, seed=2)] if kind == "LSTM" else [])
    gx, tx = graphc.tensor(xs, requires_grad=True), torch.tensor(xs, requires_grad=True)
    gs = [graphc.tensor(s, requires_grad=True) for s in starts]
    ts = [torch.tensor(s, requires_grad=True) for s in starts]
    got = run(kind, weights, gx, gs, layers, bidirectional, batch_first)
    out, end = net(tx, tuple(ts) if kind == "LSTM" else ts[0])
    want = (out, *end) if kind == "LSTM" else (out, end)
    for k, (a, b) in enumerate(zip(got, want)):
        assert tuple(a.shape) == tuple(b.shape)
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6)
    sum((a * graphc.tensor(real(*a.shape, seed=7 + k))).sum() for k, a in enumerate(got)).backward()
    sum((b * torch.tensor(real(*b.shape, seed=7 + k))).sum() for k, b in enumerate(want)).backward()
    pairs = [(gx, tx), *zip(gs, ts)] + [(g, t) for gg, tt in zip(weights, net.all_weights) for g, t in zip(gg, tt)]
    for g, t in pairs:
        np.testing.assert_allclose(g.grad.numpy(), t.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_relu_nonlinearity():
    net, weights = build("RNN", 1, False, nonlinearity="relu")
    x, h = real(4, 2, 4), real(1, 2, 5, seed=1)
    got = R.rnn(graphc.tensor(x), graphc.tensor(h), weights, 1, "relu", 0.0, True, False)
    want = net(torch.tensor(x), torch.tensor(h))
    for a, b in zip(got, want):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["rnn_tanh_cell", "rnn_relu_cell", "lstm_cell", "gru_cell"])
@pytest.mark.parametrize("batch", [(3,), ()])
@pytest.mark.parametrize("bias", [True, False])
def test_cells(name, batch, bias):
    n = {"lstm_cell": 4, "gru_cell": 3}.get(name, 1)
    arrays = [real(*batch, 4), real(*batch, 5, seed=1), real(n * 5, 4, seed=2), real(n * 5, 5, seed=3)]
    if bias:
        arrays += [real(n * 5, seed=4), real(n * 5, seed=5)]
    c = real(*batch, 5, seed=6)

    def call(lib, fn):
        x, h, *w = [lib.tensor(a) for a in arrays]
        return fn(x, (h, lib.tensor(c)) if name == "lstm_cell" else h, *w)

    def torch_cell(x, h, *w):  # torch.lstm_cell and the like take batches only
        lift = (lambda t: t) if batch else (lambda t: t.unsqueeze(0))
        out = getattr(torch, name)(lift(x), tuple(map(lift, h)) if isinstance(h, tuple) else lift(h), *w)
        drop = (lambda t: t) if batch else (lambda t: t.squeeze(0))
        return tuple(map(drop, out)) if isinstance(out, tuple) else drop(out)

    got, want = call(graphc, getattr(R, name)), call(torch, torch_cell)
    for a, b in zip(got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,)):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


def test_second_derivative_through_time():
    grads = []
    for lib in (graphc, torch):
        x = lib.tensor(real(3, 2, 4).astype(np.float64), requires_grad=True)
        w = [lib.tensor(real(*s, seed=k).astype(np.float64), requires_grad=True)
             for k, s in enumerate([(5, 4), (5, 5), (5,), (5,)])]
        h = lib.zeros(1, 2, 5, dtype=lib.float64)
        if lib is graphc:
            out = R.rnn(x, h, [w], 1, "tanh", 0.0, True, False)[0]
        else:
            out = torch.rnn_tanh(x, h, w, True, 1, 0.0, True, False, False)[0]
        gx, gw = lib.autograd.grad((out ** 2).sum(), (x, w[1]), create_graph=True)
        ((gx ** 2).sum() + (gw ** 2).sum()).backward()
        grads.append([t.grad.numpy() for t in (x, w[0], w[1])])
    for a, b in zip(*grads):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_one_node_per_layer_whatever_the_length():
    from graphc.ir.recorder import state

    _, weights = build("LSTM", 1, False)
    used = []
    for steps in (3, 50):
        x, h, c = graphc.zeros(steps, 2, 4), graphc.zeros(1, 2, 5), graphc.zeros(1, 2, 5)
        for t in (x, h, c):
            t.sum().item()
        before = state.region.slots
        out = R.lstm(x, (h, c), weights, 1, 0.0, True, False)
        used.append(state.region.slots - before)
        del out
    assert used[0] == used[1]


def value(arr):
    return leaf_value(aval(arr.shape, dtypes.from_numpy(arr.dtype), CPU), arr)


def test_scan_runs_in_order_and_in_reverse():
    def body(carry, x):
        new = P.add(P.mul(carry, 2), x)
        return new, P.sub(new, carry)

    xs = np.array([1.0, 2.0, 3.0])
    end, ys = scan("order", body, [value(np.array(1.0))], [value(xs)])
    assert evaluated(end) == 19 and evaluated(ys).tolist() == [2.0, 5.0, 11.0]
    end, ys = scan("order", body, [value(np.array(1.0))], [value(xs)], reverse=True)
    assert evaluated(end) == 31 - 6 and evaluated(ys).tolist() == [13.0, 7.0, 4.0]


def test_scan_refuses_a_carry_that_changes_shape():
    with pytest.raises(ShapeError, match="carry 0 goes in as"):
        scan("bad", lambda c, x: (P.concat((c, c), 0),), [value(np.zeros(2))], [value(np.zeros((3, 2)))])
    with pytest.raises(ShapeError, match="length"):
        scan("none", lambda c: (c,), [value(np.zeros(2))], [])


def test_bad_input():
    _, weights = build("GRU", 1, False)
    h = graphc.zeros(1, 2, 5)
    with pytest.raises(RuntimeError, match="must have 3 dimensions"):
        R.gru(graphc.zeros(2, 4), h, weights, 1, 0.0, True, False)
    with pytest.raises(RuntimeError, match="Expected 4, got 3"):
        R.gru(graphc.zeros(6, 2, 3), h, weights, 1, 0.0, True, False)
    with pytest.raises(RuntimeError, match="Expected hidden size"):
        R.gru(graphc.zeros(6, 3, 4), h, weights, 1, 0.0, True, False)
    with pytest.raises(RuntimeError, match="sequence length to be larger than 0"):
        R.gru(graphc.zeros(0, 2, 4), h, weights, 1, 0.0, True, False)
    with pytest.raises(ValueError, match="Unknown nonlinearity"):
        R.rnn(graphc.zeros(6, 2, 4), h, weights, 1, "sin", 0.0, True, False)
    with pytest.raises(RuntimeError, match="inconsistent input_size"):
        R.gru_cell(graphc.zeros(2, 3), graphc.zeros(2, 5), *weights[0])
