"""Means, variances and norms of many 16-bit floats: the sum, the count and the squares need not fit the dtype."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F

N = 70000  # more than the largest float16
CASES: dict[str, tuple[Callable[[Any], Any], float]] = {
    "mean": (lambda x: x.mean(), 2.0), "mean over two": (lambda x: x.reshape(7, -1).mean((0, 1)), 2.0),
    "nanmean": (lambda x: x.nanmean(), 2.0), "var": (lambda x: x.var(), 0.0), "std": (lambda x: (x * 1).std(), 0.0),
    "var_mean": (lambda x: graphc.var_mean(x)[1], 2.0), "norm": (lambda x: x.norm(), 2 * N ** 0.5),
    "linalg norm": (lambda x: graphc.linalg.vector_norm(x, 3), 2 * N ** (1 / 3)),
    "adaptive": (lambda x: F.adaptive_avg_pool1d(x.view(1, 1, -1), 1).sum(), 2.0),
    "normalize": (lambda x: F.normalize(x, dim=0)[0], N ** -0.5), "mse": (lambda x: F.mse_loss(x, x * 0), 4.0)}


@pytest.mark.parametrize("dt", [graphc.float16, graphc.bfloat16])
@pytest.mark.parametrize("name", list(CASES))
def test_many(name: str, dt: Any) -> None:
    fn, want = CASES[name]
    got = fn(graphc.full((N,), 2.0, dtype=dt))
    assert got.dtype is dt
    np.testing.assert_allclose(got.item(), want, 1e-2, 1e-6)


def test_gradients() -> None:
    x = graphc.full((N,), 2.0, dtype=graphc.float16).requires_grad_()
    (x.norm() + x.mean() * 1000).backward()
    assert x.grad is not None and x.grad.dtype is graphc.float16
    np.testing.assert_allclose(x.grad[:3].tolist(), [N ** -0.5 + 1000 / N] * 3, 1e-2)


def test_large_values() -> None:
    """Squares beyond 65504 of values that are themselves fine."""
    x = graphc.tensor([300.0, -400.0], dtype=graphc.float16)
    assert x.norm().item() == 500 and x.var().item() == np.inf
    assert (x / 100).var().item() == pytest.approx(24.5, rel=1e-3)
