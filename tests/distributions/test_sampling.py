"""Draws follow their distribution (Kolmogorov-Smirnov, frequencies, moments) and reparameterised gradients are right."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dist_cases import CASES

import graphc
import graphc.distributions as D
from graphc.distributions.host import gamma_sensitivity
from graphc.tensor import to_numpy

N = 4000
DISCRETE = {"Bernoulli", "Categorical", "Poisson", "Geometric", "Binomial", "NegativeBinomial"}
HEAVY = {"Cauchy", "HalfCauchy", "StudentT", "Pareto", "LogNormal", "VonMises"}  # moments that do not exist or converge too slowly
BY_NAME = {c[0]: c for c in CASES}


def make(case: Any, grad: bool = False) -> tuple[Any, list[Any]]:
    leaves = [graphc.tensor(p, dtype=graphc.float64) for p in case[2]]
    for leaf in leaves:
        leaf.requires_grad_(grad)
    return case[1](D, *leaves), leaves


@pytest.mark.parametrize("case", CASES, ids=list(BY_NAME))
def test_follows_its_law(case: Any) -> None:
    graphc.manual_seed(11)
    d, _ = make(case)
    x = d.sample((N,))
    assert bool(d.support.check(x).all()) if case[0] not in ("Dirichlet",) else True
    flat = to_numpy(x).reshape(N, -1)
    if case[0].split()[0] in DISCRETE:
        probabilities_agree(d, flat)
        return
    try:
        u = np.sort(to_numpy(d.cdf(x)).reshape(N, -1), 0)
    except NotImplementedError:
        u = None
    if u is not None:  # sup |F_n - F| sqrt(n) exceeds 2.3 with probability 5e-5
        grid = np.arange(1, N + 1)[:, None] / N
        assert np.abs(u - grid).max() * np.sqrt(N) < 2.3
    if case[0] not in HEAVY:
        moments_agree(d, flat)


def probabilities_agree(d: Any, flat: np.ndarray) -> None:
    for value in range(4):
        v = graphc.full(tuple(d.batch_shape), float(value), dtype=graphc.float64)
        try:
            p = to_numpy(d.log_prob(v).exp()).reshape(-1)
        except ValueError:  # outside the support
            assert not (flat == value).any()
            continue
        assert (np.abs((flat == value).mean(0) - p) < 4.5 * np.sqrt(p * (1 - p) / N) + 1e-9).all()


def moments_agree(d: Any, flat: np.ndarray) -> None:
    try:
        mean, var = to_numpy(d.mean).reshape(-1), to_numpy(d.variance).reshape(-1)
    except NotImplementedError:
        return
    assert (np.abs(flat.mean(0) - mean) < 4.5 * np.sqrt(var / N)).all()
    fourth = ((flat - mean) ** 4).mean(0)
    assert (np.abs(((flat - mean) ** 2).mean(0) - var) < 6 * np.sqrt(fourth / N) + 1e-12).all()


SMOOTH = [c for c in CASES if c[0] in ("Normal", "Uniform", "Exponential", "Laplace", "Gamma", "Chi2", "Beta", "Dirichlet",
                                       "LogNormal", "HalfNormal", "Gumbel", "Weibull", "Kumaraswamy", "Independent",
                                       "MultivariateNormal scale_tril", "OneHotCategoricalStraightThrough", "InverseGamma")]


@pytest.mark.parametrize("case", SMOOTH, ids=[c[0] for c in SMOOTH])
def test_rsample_gradient(case: Any) -> None:
    """The gradient of a mean over draws estimates the gradient of the expectation."""
    graphc.manual_seed(5)
    d, leaves = make(case, grad=True)
    w = graphc.tensor(np.cos(np.arange(d.mean.numel())).reshape(tuple(d.mean.shape)))
    want = graphc.autograd.grad((d.mean * w).sum(), leaves, allow_unused=True)
    shares = []
    for _ in range(20):
        d, leaves = make(case, grad=True)
        got = graphc.autograd.grad((d.rsample((500,)).mean(0) * w).sum(), leaves, allow_unused=True)
        shares.append([np.zeros(1) if g is None else to_numpy(g) for g in got])
    for k, target in enumerate(want):
        runs = np.stack([s[k] for s in shares])
        error = runs.std(0) / np.sqrt(20)
        t = 0.0 if target is None else to_numpy(target)
        assert (np.abs(runs.mean(0) - t) < 6 * error + 1e-9).all()


def test_gamma_sensitivity_against_quantiles() -> None:
    """d log x / da at a fixed quantile, against differences of the inverse distribution function."""
    special = pytest.importorskip("scipy.special")
    rng = np.random.default_rng(0)
    for a in (0.1, 0.5, 1.0, 2.0, 7.0, 50.0, 1e3, 1e6):
        u = rng.uniform(1e-4, 1 - 1e-4, 500)
        step = 1e-4 * a
        want = np.log(special.gammaincinv(a + step, u) / special.gammaincinv(a - step, u)) / (2 * step)
        got = gamma_sensitivity(np.log(special.gammaincinv(a, u)), np.full(500, a))
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_gamma_sensitivity_of_tiny_draws() -> None:
    """Far in the lower tail F = x^a / (a gamma(a)): d log x / da = (psi(a + 1) - log x) / a."""
    for a in (1e-4, 0.01, 0.1):
        log_x = np.array([-600.0, -95.0, -30.0, -7000.0])
        want = (float(to_numpy(graphc.digamma(graphc.tensor(a + 1, dtype=graphc.float64)))) - log_x) / a
        np.testing.assert_allclose(gamma_sensitivity(log_x, np.full(4, a)), want, rtol=1e-8)


def test_directions() -> None:
    """E cos(x - loc) of the von Mises law is I_1 / I_0, and draws stay on the circle."""
    special = pytest.importorskip("scipy.special")
    graphc.manual_seed(2)
    d, _ = make(BY_NAME["VonMises"])
    x, k = to_numpy(d.sample((N,))), np.array(BY_NAME["VonMises"][2][1])
    assert (np.abs(x) <= np.pi).all()
    c = np.cos(x - np.array(BY_NAME["VonMises"][2][0]))
    assert (np.abs(c.mean(0) - special.ive(1, k) / special.ive(0, k)) < 4.5 * c.std(0) / np.sqrt(N)).all()
    np.testing.assert_allclose(to_numpy(d.variance), 1 - special.ive(1, k) / special.ive(0, k), rtol=1e-12)


def test_small_concentrations_stay_inside() -> None:
    graphc.manual_seed(0)
    x = D.Dirichlet(graphc.full((100, 4), 1e-3)).sample()
    assert bool(graphc.isfinite(x).all()) and bool((x.sum(-1) - 1).abs().max() < 1e-6)
    g = D.Gamma(graphc.full((1000,), 1e-3), 1.0).sample()
    assert bool((g > 0).all())


def test_seed_repeats_draws() -> None:
    for case in CASES:
        d, _ = make(case)
        draws = []
        for _ in range(2):
            graphc.manual_seed(3)
            draws.append(to_numpy(d.sample((3,))))
        np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize("pair", ["Wishart", "LowRankMultivariateNormal"])
def test_divergence_is_the_mean_log_ratio(pair: str) -> None:
    """KL(p || q) = E_p[log p - log q]. (torch 2.13 sums the degrees of freedom of a batch of Wisharts as if of one event.)"""
    graphc.manual_seed(3)
    case = next(c for c in CASES if c[0].startswith(pair))
    p = case[1](D, *[graphc.tensor(x, dtype=graphc.float64) for x in case[2]])
    q = case[1](D, *[graphc.tensor(x, dtype=graphc.float64) * 1.2 for x in case[2]])
    x = p.sample((40000,))
    draws = to_numpy(p.log_prob(x) - q.log_prob(x))
    error = draws.std(0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - to_numpy(D.kl_divergence(p, q))) < 4.5 * error).all() and (error < 0.05).all()


def test_generalized_pareto_is_exponential_at_zero() -> None:
    """Values and the derivative in the concentration go through c = 0 without a step."""
    x, slopes = graphc.tensor([0.2, 1.5], dtype=graphc.float64), []
    for c in (-1e-4, 0.0, 1e-4):
        leaf = graphc.tensor(c, dtype=graphc.float64, requires_grad=True)
        d = D.GeneralizedPareto(graphc.tensor(0.0, dtype=graphc.float64), 2.0, leaf)
        d.log_prob(x).sum().backward()
        slopes.append(float(leaf.grad))
        want = D.Exponential(graphc.tensor(0.5, dtype=graphc.float64))
        for name in ("log_prob", "cdf"):
            np.testing.assert_allclose(to_numpy(getattr(d, name)(x)), to_numpy(getattr(want, name)(x)), rtol=0, atol=1e-4)
    assert slopes[0] < slopes[1] < slopes[2] and abs(slopes[2] - slopes[0]) < 1e-3
