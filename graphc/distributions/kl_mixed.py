"""Divergences of the rarer families, and between families: KL(p || q) = -H(p) - E_p[log q], from moments of p."""
from __future__ import annotations

import math
from typing import Any

from .. import linalg, ops
from ..tensor import Tensor
from .bernoulli import Bernoulli
from .beta import Beta
from .continuous_bernoulli import ContinuousBernoulli
from .derived import Gumbel, Pareto
from .exponential import Exponential
from .gamma import Gamma
from .kl import _outside, register_kl
from .laplace import Laplace
from .lowrank_multivariate_normal import LowRankMultivariateNormal, capacitance_tril, lowrank_mahalanobis
from .multivariate_normal import MultivariateNormal, batch_mahalanobis
from .normal import Normal
from .poisson import Poisson
from .uniform import Uniform
from .utils import euler_constant
from .wishart import Wishart, mvdigamma


def _mean_log(p: Any) -> Tensor:
    """E_p[log x]."""
    if isinstance(p, Beta):
        return p.concentration1.digamma() - (p.concentration1 + p.concentration0).digamma()
    if isinstance(p, Pareto):
        return p.scale.log() + p.alpha.reciprocal()
    assert isinstance(p, Uniform)
    return (ops.xlogy(p.high, p.high) - ops.xlogy(p.low, p.low)) / (p.high - p.low) - 1


def _mean_exp(p: Any, beta: Tensor) -> Tensor:
    """E_p[e^(-x / beta)]."""
    if isinstance(p, Exponential):
        return p.rate * beta / (p.rate * beta + 1)
    if isinstance(p, Gamma):
        return (1 + 1 / (beta * p.rate)).pow(-p.concentration)
    if isinstance(p, Normal):
        return (-p.loc / beta + 0.5 * (p.scale / beta).pow(2)).exp()
    assert isinstance(p, Uniform)
    return beta / (p.high - p.low) * ((-p.low / beta).exp() - (-p.high / beta).exp())


def _to_exponential(p: Any, q: Exponential) -> Tensor:
    return -p.entropy() - q.rate.log() + q.rate * p.mean


def _to_gamma(p: Any, q: Gamma) -> Tensor:
    a, b = q.concentration, q.rate
    return -p.entropy() - a * b.log() + a.lgamma() - (a - 1) * _mean_log(p) + b * p.mean


def _to_normal(p: Any, q: Normal) -> Tensor:
    var = q.scale.pow(2)
    return -p.entropy() + 0.5 * (2 * math.pi * var).log() + (p.variance + (p.mean - q.loc).pow(2)) / (2 * var)


def _to_gumbel(p: Any, q: Gumbel) -> Tensor:
    return -p.entropy() + q.scale.log() + (p.mean - q.loc) / q.scale + (q.loc / q.scale).exp() * _mean_exp(p, q.scale)


def _to_continuous_bernoulli(p: Any, q: ContinuousBernoulli) -> Tensor:
    return -p.entropy() - p.mean * q.logits - ops.log1p(-q.probs) - q._log_norm()


def _to_uniform(p: Any, q: Uniform) -> Tensor:
    """Of laws on [0, 1]."""
    return ops.where((q.low > 0) | (q.high < 1), math.inf, -p.entropy() + (q.high - q.low).log())


_p: Any
for _p in (Beta, ContinuousBernoulli):
    register_kl(_p, Exponential)(_to_exponential)
    register_kl(_p, Uniform)(_to_uniform)
for _p in (Exponential, Gamma, Normal, Uniform):
    register_kl(_p, Gumbel)(_to_gumbel)
for _p in (Exponential, Gamma, Gumbel, Laplace, Normal, Pareto):
    register_kl(_p, ContinuousBernoulli)(_outside)
for _p in (Beta, ContinuousBernoulli):
    register_kl(_p, ContinuousBernoulli)(_to_continuous_bernoulli)
register_kl(ContinuousBernoulli, Normal)(_to_normal)
register_kl(ContinuousBernoulli, Pareto)(_outside)
register_kl(Beta, Gamma)(_to_gamma)


@register_kl(Bernoulli, Poisson)
def _bernoulli_poisson(p: Bernoulli, q: Poisson) -> Tensor:
    return -p.entropy() - (p.probs * q.rate.log() - q.rate)


@register_kl(Gumbel, Normal)
def _gumbel_normal(p: Gumbel, q: Normal) -> Tensor:
    mean = p.loc + p.scale * euler_constant
    var = p.scale.pow(2) * (math.pi**2 / 6)
    return (-p.scale.log() - 1 - euler_constant + 0.5 * (2 * math.pi * q.scale.pow(2)).log()
            + (var + (mean - q.loc).pow(2)) / (2 * q.scale.pow(2)))


def _infinite_below(p: Pareto, moments: int, formula: Any, q: Any) -> Tensor:
    """``formula(p, q)`` where p has that many moments, else infinity (without NaN in the gradient)."""
    none = p.alpha <= moments
    return ops.where(none, math.inf, formula(Pareto(p.scale, ops.where(none, moments + 1.0, p.alpha), validate_args=False), q))


@register_kl(Pareto, Exponential)
def _pareto_exponential(p: Pareto, q: Exponential) -> Tensor:
    return _infinite_below(p, 1, _to_exponential, q)


@register_kl(Pareto, Gamma)
def _pareto_gamma(p: Pareto, q: Gamma) -> Tensor:
    return _infinite_below(p, 1, _to_gamma, q)


@register_kl(Pareto, Normal)
def _pareto_normal(p: Pareto, q: Normal) -> Tensor:
    return _infinite_below(p, 2, _to_normal, q)


@register_kl(Uniform, Beta)
def _uniform_beta(p: Uniform, q: Beta) -> Tensor:
    """E log(1 - x) is E log x of the mirrored law."""
    a, b = q.concentration1, q.concentration0
    mirrored = (ops.xlogy(1 - p.low, 1 - p.low) - ops.xlogy(1 - p.high, 1 - p.high)) / (p.high - p.low) - 1
    kl = -p.entropy() - (a - 1) * _mean_log(p) - (b - 1) * mirrored + a.lgamma() + b.lgamma() - (a + b).lgamma()
    return ops.where((p.low < 0) | (p.high > 1), math.inf, kl)


@register_kl(Uniform, ContinuousBernoulli)
def _uniform_continuous_bernoulli(p: Uniform, q: ContinuousBernoulli) -> Tensor:
    return ops.where((p.low < 0) | (p.high > 1), math.inf, _to_continuous_bernoulli(p, q))


@register_kl(Uniform, Exponential)
def _uniform_exponential(p: Uniform, q: Exponential) -> Tensor:
    return ops.where(p.low < 0, math.inf, _to_exponential(p, q))


@register_kl(Uniform, Gamma)
def _uniform_gamma(p: Uniform, q: Gamma) -> Tensor:
    return ops.where(p.low < 0, math.inf, _to_gamma(p, q))


@register_kl(Uniform, Pareto)
def _uniform_pareto(p: Uniform, q: Pareto) -> Tensor:
    kl = -p.entropy() - q.alpha.log() - q.alpha * q.scale.log() + (q.alpha + 1) * _mean_log(p)
    return ops.where(p.low < q.scale, math.inf, kl)


@register_kl(Wishart, Wishart)
def _wishart(p: Wishart, q: Wishart) -> Tensor:
    n = p._event_shape[-1]
    lp, lq = p._unbroadcasted_scale_tril, q._unbroadcasted_scale_tril
    shape = ops.broadcast_shapes(tuple(lp.shape), tuple(lq.shape))
    trace = linalg.solve_triangular(lq.expand(shape), lp.expand(shape), upper=False).pow(2).sum(-1).sum(-1)
    log_ratio = 2 * (p._half_log_det() - q._half_log_det())
    return (-q.df / 2 * log_ratio + p.df / 2 * (trace - n) + ops.mvlgamma(q.df / 2, n) - ops.mvlgamma(p.df / 2, n)
            + (p.df - q.df) / 2 * mvdigamma(p.df / 2, n))


# ------------------------------------------------------------------------------------------------- low-rank covariances
def _same_event(p: Any, q: Any) -> int:
    if p.event_shape != q.event_shape:
        raise ValueError(f"KL-divergence between two {type(p).__name__}s with different event shapes cannot be computed")
    return p.event_shape[0]


def _inverse_trace(factor: Tensor, diag: Tensor, columns: Tensor) -> Tensor:
    """The sum over the columns c of c^T (W W^T + D)^-1 c."""
    low = capacitance_tril(factor, diag)
    rows = columns.mT
    return lowrank_mahalanobis(factor.unsqueeze(-3), diag.unsqueeze(-2), rows, low.unsqueeze(-3)).sum(-1)


@register_kl(LowRankMultivariateNormal, LowRankMultivariateNormal)
def _lowrank(p: LowRankMultivariateNormal, q: LowRankMultivariateNormal) -> Tensor:
    n = _same_event(p, q)
    factor, diag = q._unbroadcasted_cov_factor, q._unbroadcasted_cov_diag
    columns = ops.cat([p.cov_factor, p.cov_diag.sqrt().diag_embed()], -1)
    mahalanobis = lowrank_mahalanobis(factor, diag, q.loc - p.loc, q._capacitance_tril)
    return 0.5 * (q._log_det() - p._log_det() + mahalanobis + _inverse_trace(factor, diag, columns) - n)


@register_kl(MultivariateNormal, LowRankMultivariateNormal)
def _full_lowrank(p: MultivariateNormal, q: LowRankMultivariateNormal) -> Tensor:
    n = _same_event(p, q)
    factor, diag = q._unbroadcasted_cov_factor, q._unbroadcasted_cov_diag
    mahalanobis = lowrank_mahalanobis(factor, diag, q.loc - p.loc, q._capacitance_tril)
    return 0.5 * (q._log_det() - 2 * p._half_log_det() + mahalanobis + _inverse_trace(factor, diag, p.scale_tril) - n)


@register_kl(LowRankMultivariateNormal, MultivariateNormal)
def _lowrank_full(p: LowRankMultivariateNormal, q: MultivariateNormal) -> Tensor:
    n = _same_event(p, q)
    low = q._unbroadcasted_scale_tril
    columns = ops.cat([p.cov_factor, p.cov_diag.sqrt().diag_embed()], -1)
    shape = tuple(ops.broadcast_shapes(tuple(low.shape[:-2]), tuple(columns.shape[:-2])))
    half = linalg.solve_triangular(low.expand((*shape, n, n)), columns.expand((*shape, *columns.shape[-2:])), upper=False)
    trace = half.pow(2).sum(-1).sum(-1)
    return 0.5 * (2 * q._half_log_det() - p._log_det() + batch_mahalanobis(low, q.loc - p.loc) + trace - n)
