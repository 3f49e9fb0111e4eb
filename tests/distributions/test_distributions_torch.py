"""Densities, entropies, moments, distribution functions and their gradients against torch.distributions."""
from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from dist_cases import CASES, KL

import graphc
import graphc.distributions as ours
from graphc.tensor import to_numpy

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def torch_mixes_dtypes(request: pytest.FixtureRequest) -> Iterator[None]:
    """torch 2.13's GeneralizedPareto compares its concentration with a zero of the default dtype and fails for another."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if "GeneralizedPareto" in request.node.name else before)
    yield
    torch.set_default_dtype(before)


LOOSE = {"Multinomial": 1e-6, "VonMises": 2e-4}  # torch takes log n! in float32, Bessel functions from short polynomials


def build(module: Any, lib: Any, make: Any, params: list[Any]) -> tuple[Any, list[Any]]:
    leaves = [lib.tensor(p, dtype=lib.float64) for p in params]
    for leaf in leaves:
        leaf.requires_grad_(True)
    return make(module, *leaves), leaves


def numbers(t: Any) -> np.ndarray:
    return to_numpy(t.detach()) if isinstance(t, graphc.Tensor) else t.detach().numpy()


def compare(case: Any, f: Any, *, also: list[Any] | None = None, gradient: bool = True) -> None:
    """``f(dist, extra tensors)`` in both libraries: same values, same gradients of a weighted sum; or the same refusal."""
    name, make, params, _ = case
    results = []
    for module, lib in ((torch.distributions, torch), (ours, graphc)):
        d, leaves = build(module, lib, make, params)
        extra = [lib.tensor(x, dtype=lib.float64).requires_grad_(True) for x in also or []]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                y = f(d, *extra)
        except NotImplementedError:
            results.append(None)
            continue
        grads: list[Any] = []
        if y.requires_grad and gradient:
            w = lib.tensor(np.cos(np.arange(y.numel())).reshape(tuple(y.shape)))
            (y * w).sum().backward()
            grads = [None if t.grad is None else numbers(t.grad) for t in leaves + extra]
        results.append((numbers(y), grads))
    want, got = results
    if want is None:
        return  # torch has no formula: ours may
    assert got is not None, f"{name} lacks what torch has"
    assert want[0].dtype == got[0].dtype and want[0].shape == got[0].shape
    rtol = LOOSE.get(name, 1e-9)
    np.testing.assert_allclose(got[0], want[0], rtol=rtol, atol=1e-11)
    for w, g in zip(want[1], got[1]):
        g, w = np.zeros(1) if g is None else g, np.zeros(1) if w is None else w
        np.testing.assert_allclose(g, w, rtol=max(rtol, 1e-7), atol=1e-9 if rtol < 1e-8 else 1e-6)


IDS = [c[0] for c in CASES]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_log_prob(case: Any) -> None:
    compare(case, lambda d, x: d.log_prob(x), also=[case[3]])


@pytest.mark.parametrize("case", CASES, ids=IDS)
@pytest.mark.parametrize("what", ["mean", "variance", "stddev", "mode"])
def test_moments(case: Any, what: str) -> None:
    if (case[0], what) != ("Kumaraswamy", "mode"):  # torch 2.13 takes the logarithm of a negative number there
        compare(case, lambda d: getattr(d, what))


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_entropy(case: Any) -> None:
    compare(case, lambda d: d.entropy())


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_cdf(case: Any) -> None:
    compare(case, lambda d, x: d.cdf(x), also=[case[3]], gradient=case[0] not in ("Gamma", "Chi2", "InverseGamma"))


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_icdf(case: Any) -> None:
    compare(case, lambda d, x: d.icdf(x), also=[[0.2, 0.5, 0.9]])


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_expand_and_shapes(case: Any) -> None:
    name, make, params, values = case
    got, want = [], []
    for module, lib, out in ((torch.distributions, torch, want), (ours, graphc, got)):
        d, _ = build(module, lib, make, params)
        x = lib.tensor(values, dtype=lib.float64)
        big = d.expand((2, *d.batch_shape))
        out += [tuple(d.batch_shape), tuple(d.event_shape), tuple(big.batch_shape), tuple(big.event_shape), d.has_rsample,
                tuple(d.sample().shape), tuple(d.sample((4,)).shape), tuple(big.sample((5, 1)).shape),
                tuple(big.log_prob(x).shape), str(d.sample().dtype), repr(d)]
        np.testing.assert_allclose(numbers(big.log_prob(x)), np.broadcast_to(numbers(d.log_prob(x)), big.batch_shape))
    assert got == want


@pytest.mark.parametrize("case", KL, ids=[c[0] for c in KL])
def test_kl(case: Any) -> None:
    name, make_p, make_q, params = case
    shifted = [(0.8 * np.asarray(p) + 0.1).tolist() for p in params] if make_p is make_q else params

    def divergence(d: Any, *leaves: Any) -> Any:
        n = len(params)
        module = torch.distributions if isinstance(leaves[0], torch.Tensor) else ours
        return module.kl_divergence(make_p(module, *leaves[:n]), make_q(module, *leaves[n:]))

    both = (name, lambda d, *leaves: leaves, params + shifted, None)
    compare(both, lambda leaves: divergence(None, *leaves))


@pytest.mark.parametrize("make", [
    lambda d, m: d.Wishart(1.0, covariance_matrix=m.eye(3)), lambda d, m: d.Wishart(4.0), lambda d, m: d.LKJCholesky(1),
    lambda d, m: d.Wishart(4.0, scale_tril=-m.eye(3)), lambda d, m: d.LKJCholesky(3, -1.0),
    lambda d, m: d.LowRankMultivariateNormal(m.zeros(()), m.ones(3, 2), m.ones(3)),
    lambda d, m: d.LowRankMultivariateNormal(m.zeros(3), m.ones(3), m.ones(3)),
    lambda d, m: d.LowRankMultivariateNormal(m.zeros(3), m.ones(2, 2), m.ones(3)),
    lambda d, m: d.LowRankMultivariateNormal(m.zeros(3), m.ones(3, 2), m.ones(2)),
    lambda d, m: d.LowRankMultivariateNormal(m.zeros(3), m.ones(3, 2), -m.ones(3)),
    lambda d, m: d.LowRankMultivariateNormal(m.zeros(2, 3), m.ones(4, 3, 2), m.ones(3)),
    lambda d, m: d.ContinuousBernoulli(0.5, logits=0.1), lambda d, m: d.ContinuousBernoulli(m.tensor(1.5), validate_args=True),
    lambda d, m: d.GeneralizedPareto(0.0, -1.0, 0.1), lambda d, m: d.LKJCholesky(3).log_prob(m.ones(3, 3))])
def test_refusals(make: Any) -> None:
    errors = []
    for d, m in ((torch.distributions, torch), (ours, graphc)):
        with pytest.raises(Exception) as info:
            make(d, m)
        errors.append(info.type)
    assert errors[1].__name__.lstrip("_") == errors[0].__name__.lstrip("_"), errors


def test_modules_of_single_classes() -> None:
    """``from torch.distributions.log_normal import LogNormal`` works here too."""
    import importlib
    import pkgutil

    for info in pkgutil.iter_modules(torch.distributions.__path__):
        theirs = importlib.import_module(f"torch.distributions.{info.name}")
        mine = importlib.import_module(f"graphc.distributions.{info.name}")
        assert [n for n in getattr(theirs, "__all__", []) if not hasattr(mine, n)] == [], info.name


@pytest.mark.parametrize("diag", [-1, 0, 1])
def test_triangles_as_vectors(diag: int) -> None:
    from torch.distributions import utils as theirs

    from graphc.distributions.utils import tril_matrix_to_vec, vec_to_tril_matrix

    m = np.arange(32.0).reshape(2, 4, 4)
    v = tril_matrix_to_vec(graphc.tensor(m), diag)
    np.testing.assert_array_equal(numbers(v), theirs.tril_matrix_to_vec(torch.tensor(m), diag).numpy())
    np.testing.assert_array_equal(numbers(vec_to_tril_matrix(v, diag)), theirs.vec_to_tril_matrix(torch.tensor(numbers(v)), diag))
    with pytest.raises(ValueError):
        tril_matrix_to_vec(graphc.tensor(m), 4)
    with pytest.raises(ValueError):
        vec_to_tril_matrix(v[:, :-1], 0 if diag else 1)
