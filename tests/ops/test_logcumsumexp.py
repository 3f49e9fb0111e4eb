"""Derivatives of the running logsumexp: of every order and mode, as torch's, for numbers far apart, at minus infinity."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.ir import build as P
from graphc.tensor import to_numpy, wrap

torch = pytest.importorskip("torch")
R = np.random.default_rng(8)
X, T = R.standard_normal(7), R.standard_normal(7)


def f(m: Any) -> Any:
    return lambda x: m.logcumsumexp(x, -1)


MODES: dict[str, Any] = {
    "jvp": lambda m, x, t: m.func.jvp(f(m), (x,), (t,))[1], "jacfwd": lambda m, x, t: m.func.jacfwd(f(m))(x),
    "jacrev": lambda m, x, t: m.func.jacrev(f(m))(x),
    "hessian": lambda m, x, t: m.func.hessian(lambda x: (f(m)(x) ** 2).sum())(x),
    "reverse twice": lambda m, x, t: m.func.jacrev(m.func.jacrev(lambda x: (f(m)(x) * t).sum()))(x),
    "each row": lambda m, x, t: m.func.vmap(m.func.grad(lambda x: f(m)(x).pow(2).sum()))(m.stack([x, t])),
    "third": lambda m, x, t: m.func.jacrev(m.func.hessian(lambda x: f(m)(x)[-1]))(x[:3]),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes(mode: str) -> None:
    ours, theirs = (MODES[mode](m, m.tensor(X), m.tensor(T)) for m in (graphc, torch))
    np.testing.assert_allclose(to_numpy(ours), theirs.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 13, 300])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_far_apart(n: int, scale: float) -> None:
    """e^x overflows float64 above 709."""
    x, g = R.standard_normal((2, n)) * scale, R.standard_normal((2, n))
    grads = []
    for m in (graphc, torch):
        leaf = m.tensor(x, requires_grad=True)
        (m.logcumsumexp(leaf, 1) * m.tensor(g)).sum().backward()
        grads.append(np.asarray(leaf.grad))
    np.testing.assert_allclose(grads[0], grads[1], rtol=1e-7, atol=1e-9)


def test_the_other_way_round() -> None:
    x, g = R.standard_normal((3, 6)) * 900, R.standard_normal((3, 6))
    leaf = graphc.tensor(x, requires_grad=True)
    (wrap(P.scan("logaddexp", leaf._read(), 1, True)) * graphc.tensor(g)).sum().backward()
    want = torch.tensor(x, requires_grad=True)
    (want.flip(1).logcumsumexp(1).flip(1) * torch.tensor(g)).sum().backward()
    np.testing.assert_allclose(to_numpy(leaf.grad), want.grad.numpy(), rtol=1e-7, atol=1e-9)


def test_minus_infinity_gets_nothing() -> None:
    x = graphc.tensor([-np.inf, -np.inf, 1.0, -np.inf, 2.0], requires_grad=True)
    graphc.logcumsumexp(x, 0).sum().backward()
    a, b = 1.0, np.exp(1) / (np.exp(1) + np.exp(2))
    np.testing.assert_allclose(to_numpy(x.grad), [0, 0, 2 * a + b, 0, 1 - b], rtol=1e-6)


@pytest.mark.parametrize("dt", ["float16", "bfloat16"])
def test_halves_sum_in_float32(dt: str) -> None:
    x = graphc.tensor(R.standard_normal(4000), dtype=getattr(graphc, dt), requires_grad=True)
    graphc.logcumsumexp(x, 0).sum().backward()
    assert x.grad is not None and x.grad.dtype is x.dtype
    assert abs(float(x.grad.float().sum()) / 4000 - 1) < 0.02
