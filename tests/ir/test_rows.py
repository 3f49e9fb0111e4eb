"""Every row of the op table on its own samples: inferred shape and dtype, gradient and gradient of the gradient against
finite differences in float64, and composites against their expansion."""
from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc.autograd import grad
from graphc.ir.interpret import run_graph
from graphc.ir.node import aval
from graphc.ir.optable import OPS
from graphc.ir.recorder import apply, trace
from graphc.tensor import to_numpy, wrap

SAMPLES = [(name, k) for name in OPS for k in range(len(OPS[name].samples()))]
# The reference implementation of a derivative is a finite difference; ops whose value jumps have none.
# Inputs that PyTorch's functions, too, treat as constants: clamp's number bounds, class weights.
CONSTANT = {("clamp", 1), ("clamp", 2), ("nll", 2), ("cross_entropy", 2)}
NOT_SMOOTH = {"sign", "floor", "ceil", "round", "trunc", "fmod", "remainder"}


def load(name: str, k: int):
    arrays, attrs = OPS[name].samples()[k]
    tensors = [graphc.tensor(a) for a in arrays]
    for t in tensors:
        if t.dtype is graphc.float64:
            t.requires_grad_(True)
    return OPS[name], tensors, attrs


def outputs(op, tensors, attrs):
    out = apply(op, tuple(t._read() for t in tensors), attrs)
    return [wrap(o) for o in (out if isinstance(out, tuple) else (out,))]


def test_there_are_rows_and_samples() -> None:
    assert len(OPS) > 100 and len(SAMPLES) > 150
    assert all(OPS[n].samples() for n in OPS), [n for n in OPS if not OPS[n].samples()]


@pytest.mark.parametrize("name,k", SAMPLES)
def test_inferred_avals_hold(name: str, k: int) -> None:
    op, tensors, attrs = load(name, k)
    want = op.infer_avals(attrs, tuple(t._read().aval for t in tensors))
    for got, av in zip(outputs(op, tensors, attrs), want):
        arr = to_numpy(got)
        assert arr.shape == av.shape and arr.dtype == av.dtype.np
        assert aval(arr.shape, av.dtype, av.device) is av


@pytest.mark.parametrize("name,k", [(n, k) for n, k in SAMPLES if OPS[n].is_composite])
def test_composite_equals_its_expansion(name: str, k: int) -> None:
    op, tensors, attrs = load(name, k)
    arrays = [to_numpy(t) for t in tensors]
    graph = trace(lambda *ins: op.expand(attrs, *ins), tuple(t._read().aval for t in tensors))
    for got, want in zip(outputs(op, tensors, attrs), run_graph(graph, arrays)):
        np.testing.assert_allclose(to_numpy(got), want, rtol=1e-12, atol=1e-12)


def objective(op, tensors, attrs, weights):
    total = 0
    for o, w in zip(outputs(op, tensors, attrs), weights):
        if w is not None:
            total = total + (o * w).sum()
    return total


def directional(f, tensors, i: int, d: np.ndarray, eps: float = 1e-6) -> float:
    base = to_numpy(tensors[i].detach())
    values = []
    for s in (eps, -eps):
        moved = list(tensors)
        moved[i] = graphc.tensor(base + s * d).requires_grad_(True)
        values.append(f(moved).item())
    return (values[0] - values[1]) / (2 * eps)


@pytest.mark.parametrize("name,k", [(n, k) for n, k in SAMPLES if OPS[n].vjp is not None and n not in NOT_SMOOTH])
def test_gradient_and_second_gradient(name: str, k: int) -> None:
    op, tensors, attrs = load(name, k)
    leaves = [i for i, t in enumerate(tensors) if t.requires_grad and (name, i) not in CONSTANT]
    outs = outputs(op, tensors, attrs)
    r = np.random.default_rng(0)
    weights = [graphc.tensor(r.standard_normal(tuple(o.shape))) if o.requires_grad and o.dtype is graphc.float64 else None
               for o in outs]
    if not leaves or all(w is None for w in weights):
        pytest.skip("the sample has no differentiable float64 path")

    def f(ts):
        return objective(op, ts, attrs, weights)

    grads = grad(f(tensors), [tensors[i] for i in leaves], create_graph=True, allow_unused=True)
    directions = {i: r.standard_normal(tuple(tensors[i].shape)) for i in leaves}
    for i, g in zip(leaves, grads):
        numeric = directional(f, tensors, i, directions[i])
        exact = 0.0 if g is None else float((to_numpy(g) * directions[i]).sum())
        assert exact == pytest.approx(numeric, rel=1e-5, abs=1e-6), f"input {i}"

    def slope(ts):
        gs = grad(f(ts), [ts[i] for i in leaves], create_graph=True, allow_unused=True)
        return sum((g * graphc.tensor(directions[i])).sum() for i, g in zip(leaves, gs) if g is not None)

    try:
        s = slope(tensors)
    except NotImplementedError as error:  # says so itself: the derivative of a product over scattered factors
        assert name == "scatter_reduce" and "no derivative" in str(error)
        return
    if not s.requires_grad:
        return
    seconds = grad(s, [tensors[i] for i in leaves], allow_unused=True)
    for i, g in zip(leaves, seconds):
        numeric = directional(slope, tensors, i, directions[i], 1e-5)
        exact = 0.0 if g is None else float((to_numpy(g) * directions[i]).sum())
        assert exact == pytest.approx(numeric, rel=2e-4, abs=2e-5), f"second derivative, input {i}"
