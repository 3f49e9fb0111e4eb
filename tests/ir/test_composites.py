"""Every composite row: its expansion has the inferred avals, and its vjp and the vjp's vjp agree with differences."""
from __future__ import annotations

import numpy as np
import pytest

import graphc  # noqa: F401  (fills the op table)
from graphc import dtypes
from graphc.autograd.engine import mark_input, vjp_values
from graphc.device import CPU
from graphc.ir.node import aval, leaf_value
from graphc.ir.optable import OPS
from graphc.ir.recorder import apply, evaluated, state, trace

COMPOSITES = sorted(name for name, op in OPS.items() if op.is_composite)
MINE = [name for name in COMPOSITES if OPS[name].expand.__module__.rsplit(".", 1)[-1] in
        ("activation", "norm", "loss", "attention", "optim", "recurrent", "overlap", "_common")]
INDEX_LOSSES = ("nll", "cross_entropy")  # their class weights (input 2) take no gradient, as in PyTorch
SMOOTH_TWICE = [n for n in [*MINE, "loop_scan"] if OPS[n].vjp is not None]


def value(arr):
    arr = np.ascontiguousarray(arr).reshape(np.shape(arr)).copy()
    return leaf_value(aval(arr.shape, dtypes.from_numpy(arr.dtype), CPU), arr)


def is_float(arr):
    return np.asarray(arr).dtype.kind == "f"


def outputs(op, vals, attrs):
    out = apply(op, tuple(vals), attrs)
    return list(out) if isinstance(out, tuple) else [out]


def cotangents(op, arrays, attrs, seed=3):
    rng = np.random.default_rng(seed)
    outs = outputs(op, [value(a) for a in arrays], attrs)
    return [rng.uniform(-1, 1, o.shape) if o.dtype.is_floating_point else None for o in outs]


def loss_of(op, arrays, attrs, cots):
    outs = outputs(op, [value(a) for a in arrays], attrs)
    return sum(float((evaluated(o) * c).sum()) for o, c in zip(outs, cots) if c is not None)


def gradients(op, arrays, attrs, cots, create_graph=False):
    """vjp at Value level: the gradients of the floating inputs, and the marked inputs."""
    before, state.grad = state.grad, True
    try:
        ins = [mark_input(value(a)) if is_float(a) else value(a) for a in arrays]
        wrt = [v for v in ins if v.gfn is not None]
        outs = outputs(op, ins, attrs)
        pairs = [(o, value(c)) for o, c in zip(outs, cots) if c is not None and o.gfn is not None]
        return vjp_values([o for o, _ in pairs], [c for _, c in pairs], wrt, create_graph), wrt
    finally:
        state.grad = before


def numeric(f, arrays, k, eps=1e-6):
    """Central differences of the scalar function f in arrays[k]."""
    out = np.zeros(arrays[k].shape)
    for i in np.ndindex(out.shape):
        vals = []
        for sign in (1, -1):
            moved = [np.array(a) for a in arrays]
            moved[k][i] += sign * eps
            vals.append(f(moved))
        out[i] = (vals[0] - vals[1]) / (2 * eps)
    return out


def samples_of(name):
    return [pytest.param(name, i, id=f"{name}-{i}") for i in range(len(OPS[name].samples()))]


@pytest.mark.parametrize("name", MINE)
def test_expansion_has_inferred_avals(name):
    op = OPS[name]
    for arrays, attrs in op.samples():
        avals = [value(a).aval for a in arrays]
        graph = trace(lambda *ins: op.expand(attrs, *ins), avals)
        have = tuple(graph.slot_avals()[s] for s in graph.outputs)
        assert have == op.infer_avals(attrs, tuple(avals))


@pytest.mark.parametrize("name", [n for n in MINE if OPS[n].vjp is not None])
def test_half_precision_keeps_dtype(name):
    op = OPS[name]
    arrays, attrs = op.samples()[0]
    if name in ("norm_backward", "batch_norm_train", "sdpa", "sdpa_backward"):
        pytest.skip("carries a dtype attribute or statistics in float32")
    out = outputs(op, [value(np.asarray(a, np.float16)) if is_float(a) else value(a) for a in arrays], attrs)
    assert out[0].dtype is dtypes.float16
    full = outputs(op, [value(a) for a in arrays], attrs)
    np.testing.assert_allclose(evaluated(out[0]).astype(np.float64), evaluated(full[0]), rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("name,i", [p for n in SMOOTH_TWICE for p in samples_of(n)])
def test_vjp(name, i):
    op = OPS[name]
    arrays, attrs = op.samples()[i]
    cots = cotangents(op, arrays, attrs)
    grads, _ = gradients(op, arrays, attrs, cots)
    floats = [k for k, a in enumerate(arrays) if is_float(a)]
    checked = 0
    for k, g in zip(floats, grads):
        want = numeric(lambda a: loss_of(op, a, attrs, cots), arrays, k)
        if g is None:
            assert name in INDEX_LOSSES and k == 2 or not np.abs(want).any(), k
            continue
        assert g.dtype is dtypes.float64 and g.shape == arrays[k].shape
        np.testing.assert_allclose(evaluated(g), want, rtol=1e-5, atol=1e-6)
        checked += 1
    assert checked


@pytest.mark.parametrize("name,i", [p for n in SMOOTH_TWICE for p in samples_of(n)[:2]])
def test_second_derivative(name, i):
    op = OPS[name]
    arrays, attrs = op.samples()[i]
    cots = cotangents(op, arrays, attrs)
    rng = np.random.default_rng(5)
    first, _ = gradients(op, arrays, attrs, cots)
    weights = [None if g is None else rng.uniform(-1, 1, g.shape) for g in first]

    def of_gradient(moved):
        got, _ = gradients(op, moved, attrs, cots)
        return sum(float((evaluated(g) * w).sum()) for g, w in zip(got, weights) if g is not None)

    before, state.grad = state.grad, True
    try:
        grads, wrt = gradients(op, arrays, attrs, cots, create_graph=True)
        pairs = [(g, value(w)) for g, w in zip(grads, weights) if g is not None and g.gfn is not None]
        second = vjp_values([g for g, _ in pairs], [w for _, w in pairs], wrt)
    finally:
        state.grad = before
    floats = [k for k, a in enumerate(arrays) if is_float(a)]
    for k, g in zip(floats, second):
        want = numeric(of_gradient, arrays, k)
        got = np.zeros(arrays[k].shape) if g is None else evaluated(g)
        if name in INDEX_LOSSES and k == 2:
            continue
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
