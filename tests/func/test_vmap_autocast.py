"""Autocast inside and around vmap: the mapped function computes what it computes for each example alone."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.func import grad, vmap
from graphc.nn import functional as F

graphc.manual_seed(4)
W, BIAS, KERNEL = graphc.randn(4, 3), graphc.randn(4), graphc.randn(4, 3, 3, 3)
X, M, Q, IMG = graphc.randn(5, 3), graphc.randn(5, 4, 3), graphc.randn(5, 2, 4, 8), graphc.randn(5, 2, 3, 6, 6)
CASES: dict[str, tuple[Any, graphc.Tensor]] = {
    "linear": (lambda x: F.linear(x, W, BIAS), X), "linear without bias": (lambda x: F.linear(x, W), X),
    "matmul": (lambda m: m @ m.T, M), "addmm": (lambda m: graphc.addmm(BIAS, m, W.T), M),
    "conv": (lambda i: F.conv2d(i, KERNEL), IMG), "attention": (lambda q: F.scaled_dot_product_attention(q, q, q), Q),
    "softmax of a product": (lambda m: graphc.softmax(m @ m.T, -1), M), "exp": (lambda x: graphc.exp(F.linear(x, W)), X),
    "layer_norm": (lambda m: F.layer_norm(m @ W.T, (4,)), M), "sum": (lambda x: F.linear(x, W).sum(), X),
    "cross_entropy": (lambda x: F.cross_entropy(F.linear(x, W)[None], graphc.tensor([1])), X),
    "gradient": (grad(lambda x: F.linear(x, W, BIAS).float().pow(2).sum()), X),
}


@pytest.mark.parametrize("inside", [False, True], ids=["around", "inside"])
@pytest.mark.parametrize("name", CASES)
def test_mapped_is_each(name: str, inside: bool) -> None:
    fn, xs = CASES[name]

    def cast(x: graphc.Tensor) -> Any:
        with graphc.autocast("cpu", dtype=graphc.bfloat16):
            return fn(x)

    if inside:
        got = vmap(cast)(xs)
    else:
        with graphc.autocast("cpu", dtype=graphc.bfloat16):
            got = vmap(fn)(xs)
    want = graphc.stack([cast(x) for x in xs])
    assert got.dtype is want.dtype
    np.testing.assert_allclose(got.float().numpy(), want.float().numpy(), rtol=2e-2, atol=2e-2)
    if name in ("linear", "matmul", "conv", "attention"):
        assert got.dtype is graphc.bfloat16 and vmap(fn)(xs).dtype is graphc.float32


def test_nested_maps_and_weights() -> None:
    """Autocast reaches the inner function of two maps; a weight from outside gets its gradient in its own dtype."""
    w = W.clone().requires_grad_()
    with graphc.autocast("cpu", dtype=graphc.bfloat16):
        y = vmap(vmap(lambda x: F.linear(x, w)))(M)
        assert y.dtype is graphc.bfloat16 and y.shape == (5, 4, 4)
    y.float().sum().backward()
    assert w.grad is not None and w.grad.dtype is graphc.float32
    np.testing.assert_allclose(w.grad.numpy(), np.broadcast_to(M.sum((0, 1)).numpy(), (4, 3)), rtol=3e-2, atol=3e-2)
