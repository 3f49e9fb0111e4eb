"""Transforms: inverses, Jacobians against autograd, shapes, composition, caching; constraints; validation errors."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
import graphc.distributions as D
from graphc.distributions import constraints as C
from graphc.tensor import to_numpy

X = graphc.tensor([[0.3, -1.2, 0.8], [2.0, 0.1, -0.4]], dtype=graphc.float64)

TRANSFORMS: list[tuple[str, Any, Any]] = [
    ("exp", lambda d, t: d.ExpTransform(), X),
    ("power", lambda d, t: d.PowerTransform(t([1.5, 2.0, -0.5])), X.abs()),
    ("sigmoid", lambda d, t: d.SigmoidTransform(), X),
    ("softplus", lambda d, t: d.SoftplusTransform(), X),
    ("tanh", lambda d, t: d.TanhTransform(), X),
    ("affine", lambda d, t: d.AffineTransform(t([1.0, 2.0, 3.0]), t([0.5, -2.0, 1.5])), X),
    ("affine number", lambda d, t: d.AffineTransform(1.0, -0.5), X),
    ("affine event", lambda d, t: d.AffineTransform(t([1.0, 2.0, 3.0]), t([0.5, -2.0, 1.5]), event_dim=1), X),
    ("stick breaking", lambda d, t: d.StickBreakingTransform(), X),
    ("corr cholesky", lambda d, t: d.CorrCholeskyTransform(), X),
    ("reshape", lambda d, t: d.ReshapeTransform((3,), (3, 1)), X),
    ("compose", lambda d, t: d.ComposeTransform([d.ExpTransform(), d.AffineTransform(t(0.1), t(2.0)), d.StickBreakingTransform()]),
     X),
    ("independent", lambda d, t: d.IndependentTransform(d.TanhTransform(), 1), X),
    ("cat", lambda d, t: d.CatTransform([d.ExpTransform(), d.TanhTransform()], dim=1, lengths=[1, 2]), X),
    ("stack", lambda d, t: d.StackTransform([d.ExpTransform(), d.TanhTransform(), d.SigmoidTransform()], dim=1), X),
    ("cdf", lambda d, t: d.CumulativeDistributionTransform(d.Normal(t(0.2), t(1.3))), X),
    ("inverse", lambda d, t: d.ExpTransform().inv, X.abs()),
]


def ours(make: Any) -> Any:
    return make(D, lambda v: graphc.tensor(v, dtype=graphc.float64))


@pytest.mark.parametrize("name, make, x", TRANSFORMS, ids=[t[0] for t in TRANSFORMS])
def test_against_torch(name: str, make: Any, x: Any) -> None:
    torch = pytest.importorskip("torch")
    mine, ref = ours(make), make(torch.distributions, lambda v: torch.tensor(v, dtype=torch.float64))
    tx = torch.tensor(to_numpy(x))
    y, ty = mine(x), ref(tx)
    np.testing.assert_allclose(to_numpy(y), ty.numpy(), rtol=1e-12)
    np.testing.assert_allclose(to_numpy(mine.inv(y)), ref.inv(ty).numpy(), rtol=1e-8)
    got, want = mine.log_abs_det_jacobian(x, y), ref.log_abs_det_jacobian(tx, ty)
    assert tuple(got.shape) == tuple(want.shape)
    np.testing.assert_allclose(to_numpy(got), want.numpy(), rtol=1e-9)
    assert tuple(mine.forward_shape(x.shape)) == tuple(ref.forward_shape(tx.shape)) == tuple(y.shape)
    assert tuple(mine.inverse_shape(y.shape)) == tuple(ref.inverse_shape(ty.shape)) == tuple(x.shape)
    assert mine.bijective == ref.bijective
    assert (mine.domain.event_dim, mine.codomain.event_dim) == (ref.domain.event_dim, ref.codomain.event_dim)
    assert bool(mine.codomain.check(y).all())


@pytest.mark.parametrize("name", ["exp", "power", "sigmoid", "softplus", "tanh", "affine", "affine number", "cdf"])
def test_jacobian_is_the_derivative(name: str) -> None:
    make, x = next((m, v) for n, m, v in TRANSFORMS if n == name)
    t = ours(make)
    leaf = x.detach().clone().requires_grad_(True)
    (slope,) = graphc.autograd.grad(t(leaf).sum(), leaf)
    np.testing.assert_allclose(to_numpy(t.log_abs_det_jacobian(x, t(x))), np.log(np.abs(to_numpy(slope))), rtol=1e-9)


def test_cache_and_equality() -> None:
    t = D.TanhTransform(cache_size=1)
    y = t(X)
    assert t.inv(y) is X and t(X) is y and t.inv.inv is t
    assert D.ExpTransform() == D.ExpTransform() and D.ExpTransform() != D.TanhTransform()
    assert D.AffineTransform(1.0, 2.0) == D.AffineTransform(1.0, 2.0) != D.AffineTransform(1.0, 3.0)
    assert D.ComposeTransform([t, D.ExpTransform()]).with_cache().parts[1]._cache_size == 1
    with pytest.raises(ValueError):
        D.ExpTransform(cache_size=2)


def test_simplex_and_matrix_transforms() -> None:
    y = D.SoftmaxTransform()(X)
    assert bool(C.simplex.check(y).all())
    m = graphc.randn(2, 3, 3, dtype=graphc.float64)
    low = D.LowerCholeskyTransform()
    assert bool(C.lower_cholesky.check(low(m)).all())
    np.testing.assert_allclose(to_numpy(low(low.inv(low(m)))), to_numpy(low(m)), rtol=1e-10)
    assert bool(C.positive_definite.check(D.PositiveDefiniteTransform()(m)).all())
    assert bool(C.corr_cholesky.check(D.CorrCholeskyTransform()(X)).all())


NAN = float("nan")
CHECKS: list[tuple[Any, Any, Any]] = [
    (C.boolean, [0.0, 1.0, 0.5], [True, True, False]), (C.real, [1.0, NAN, float("inf")], [True, False, True]),
    (C.positive, [0.0, 1.0, -1.0], [False, True, False]), (C.nonnegative, [0.0, 1.0, -1.0], [True, True, False]),
    (C.nonnegative_integer, [0.0, 1.5, -1.0], [True, False, False]), (C.unit_interval, [0.0, 1.0, 1.1], [True, True, False]),
    (C.half_open_interval(0.0, 1.0), [0.0, 1.0, 0.5], [True, False, True]), (C.less_than(1.0), [0.0, 1.0], [True, False]),
    (C.integer_interval(1, 3), [0.0, 1.0, 3.0, 2.5], [False, True, True, False]), (C.simplex, [[0.5, 0.5], [0.6, 0.5]], [True, False]),
    (C.one_hot, [[0.0, 1.0], [1.0, 1.0]], [True, False]), (C.multinomial(2), [[1.0, 1.0], [2.0, 1.0]], [True, False]),
    (C.lower_triangular, [[1.0, 0.0], [2.0, 3.0]], True), (C.lower_cholesky, [[1.0, 0.0], [2.0, -3.0]], False),
    (C.square, [[1.0, 0.0]], False), (C.symmetric, [[1.0, 2.0], [2.0, 1.0]], True),
    (C.positive_definite, [[1.0, 2.0], [2.0, 1.0]], False), (C.positive_semidefinite, [[1.0, 1.0], [1.0, 1.0]], True),
    (C.independent(C.positive, 1), [[1.0, 2.0], [1.0, -2.0]], [True, False]),
    (C.cat([C.positive, C.real], 0, [1, 2]), [1.0, -1.0, 2.0], [True, True, True]),
    (C.stack([C.positive, C.real], 0), [-1.0, -1.0], [False, True]),
]


@pytest.mark.parametrize("constraint, values, want", CHECKS, ids=[repr(c[0]) for c in CHECKS])
def test_constraints(constraint: Any, values: Any, want: Any) -> None:
    assert constraint.check(graphc.tensor(values)).tolist() == want


@pytest.mark.parametrize("make", [
    lambda: D.Normal(0.0, -1.0), lambda: D.Normal(NAN, 1.0), lambda: D.Uniform(1.0, 1.0), lambda: D.Exponential(0.0),
    lambda: D.Bernoulli(1.5), lambda: D.Bernoulli(), lambda: D.Bernoulli(0.5, 0.5), lambda: D.Gamma(-1.0, 1.0),
    lambda: D.Categorical(graphc.tensor(0.5)), lambda: D.Categorical(graphc.tensor([0.5, -0.5])), lambda: D.Beta(0.0, 1.0),
    lambda: D.Geometric(0.0), lambda: D.Dirichlet(graphc.tensor([1.0, 0.0])), lambda: D.Poisson(-1.0),
    lambda: D.Normal("a", 1.0), lambda: D.MultivariateNormal(graphc.zeros(2)),
    lambda: D.MultivariateNormal(graphc.zeros(2), graphc.tensor([[1.0, 2.0], [2.0, 1.0]])),
    lambda: D.Normal(0.0, 1.0).log_prob(graphc.tensor(NAN)), lambda: D.Uniform(0.0, 1.0).log_prob(graphc.tensor(2.0)),
    lambda: D.Categorical(graphc.ones(3)).log_prob(graphc.tensor(3)), lambda: D.Normal(0.0, 1.0).log_prob(1.0),
    lambda: D.Normal(graphc.zeros(3), 1.0).log_prob(graphc.zeros(2)),
])
def test_bad_arguments_raise_value_error(make: Any) -> None:
    with pytest.raises(ValueError):
        make()


def test_validation_can_be_turned_off() -> None:
    D.Normal(0.0, -1.0, validate_args=False)
    D.Distribution.set_default_validate_args(False)
    try:
        D.Normal(0.0, -1.0)
    finally:
        D.Distribution.set_default_validate_args(True)


def test_kumaraswamy_mode_is_the_maximum() -> None:
    d = D.Kumaraswamy(graphc.tensor([1.4, 3.0], dtype=graphc.float64), graphc.tensor([1.2, 2.0], dtype=graphc.float64))
    best = d.log_prob(d.mode)
    assert bool((best > d.log_prob(d.mode + 1e-3)).all()) and bool((best > d.log_prob(d.mode - 1e-3)).all())
    assert bool(D.Kumaraswamy(0.5, 0.5).mode.isnan())


def test_compiled_step_stays_one_region() -> None:
    """A policy-gradient step inside a compiled call: validation does not read pending values."""
    w = graphc.zeros(3, 2, requires_grad=True)

    @graphc.compile(fullgraph=True)
    def step(x: Any, a: Any) -> Any:
        loss = -D.Categorical(logits=x @ w).log_prob(a).mean() + D.Normal(x.sum(), (x * x).sum() + 1).entropy()
        loss.backward()
        return loss

    loss = step(graphc.ones(4, 3), graphc.tensor([0, 1, 1, 1]))
    assert bool(graphc.isfinite(loss)) and bool((w.grad != 0).all())


ONTO = [C.real, C.positive, C.greater_than(1.5), C.less_than(-1.0), C.unit_interval, C.interval(-1.0, 3.0), C.simplex, C.real_vector,
        C.lower_cholesky, C.positive_definite, C.corr_cholesky, C.independent(C.positive, 1), C.stack([C.positive, C.real, C.real], 1),
        C.cat([C.positive, C.real], 1, [1, 2])]


@pytest.mark.parametrize("constraint", ONTO, ids=[f"{i} {c!r}" for i, c in enumerate(ONTO)])
def test_registries_reach_the_constraint(constraint: Any) -> None:
    x = graphc.randn(2, 3, 3, dtype=graphc.float64) if constraint in (C.lower_cholesky, C.positive_definite) else X
    for registry in (D.biject_to, D.transform_to):
        t = registry(constraint)
        y = t(x)
        assert bool(constraint.check(y).all())
        if t.bijective:
            np.testing.assert_allclose(to_numpy(t.inv(y)), to_numpy(x), rtol=1e-6, atol=1e-8)


def test_registries_refuse_and_learn() -> None:
    with pytest.raises(NotImplementedError, match="Cannot transform"):
        D.biject_to(C.boolean)
    with pytest.raises(TypeError):
        D.biject_to.register(int, lambda c: D.ExpTransform())

    class Even(C.Constraint):
        pass

    D.transform_to.register(Even())(lambda c: D.ExpTransform())
    assert D.transform_to(Even()) == D.ExpTransform()
