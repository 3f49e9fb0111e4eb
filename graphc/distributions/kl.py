"""Kullback-Leibler divergences between pairs of distributions."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import linalg, ops
from ..autograd import grad
from ..nn import functional as F
from ..tensor import Tensor
from .bernoulli import Bernoulli
from .beta import Beta
from .binomial import Binomial
from .categorical import Categorical
from .cauchy import Cauchy
from .derived import Gumbel, HalfNormal, Pareto
from .dirichlet import Dirichlet
from .distribution import Distribution, ExponentialFamily
from .exponential import Exponential
from .gamma import Gamma
from .geometric import Geometric
from .independent import Independent
from .laplace import Laplace
from .multivariate_normal import MultivariateNormal, batch_mahalanobis
from .normal import Normal
from .one_hot_categorical import OneHotCategorical
from .poisson import Poisson
from .transformed_distribution import TransformedDistribution
from .uniform import Uniform
from .utils import euler_constant, sum_rightmost

_REGISTRY: dict[tuple[type, type], Callable[[Any, Any], Tensor]] = {}  # pairs of classes -> formula


def register_kl(type_p: type, type_q: type) -> Callable[..., Any]:
    """Decorator: ``f(p, q)`` computes KL(p || q) for these classes and their subclasses."""
    for t, name in ((type_p, "type_p"), (type_q, "type_q")):
        if not isinstance(t, type) or not issubclass(t, Distribution):
            raise TypeError(f"Expected {name} to be a Distribution subclass but got {t}")

    def decorate(fn: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
        _REGISTRY[type_p, type_q] = fn
        return fn

    return decorate


def _find(type_p: type, type_q: type) -> Callable[[Any, Any], Tensor] | None:
    """The formula for the nearest base classes: nearest in ``p``'s inheritance first, then in ``q``'s."""
    for p in type_p.__mro__:
        for q in type_q.__mro__:
            if (p, q) in _REGISTRY:
                return _REGISTRY[p, q]
    return None


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p || q) of shape ``batch_shape``; NotImplementedError for pairs without a formula."""
    fn = _find(type(p), type(q))
    if fn is None:
        raise NotImplementedError(f"No KL(p || q) is implemented for p type {type(p).__name__} and q type "
                                  f"{type(q).__name__}")
    return fn(p, q)


def _infinite(t: Tensor) -> Tensor:
    return ops.full_like(t, math.inf)


def _xlogx_ratio(t: Tensor, s: Tensor) -> Tensor:
    """t log(t / s), 0 for t = 0."""
    return ops.xlogy(t, t / s)


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    softplus = F.softplus
    one = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    one = ops.where(p.probs == 0, 0.0, ops.where(q.probs == 0, math.inf, one))
    zero = (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    zero = ops.where(p.probs == 1, 0.0, ops.where(q.probs == 1, math.inf, zero))
    return one + zero


@register_kl(Beta, Beta)
def _beta(p: Beta, q: Beta) -> Tensor:
    lgamma, digamma = ops.lgamma, ops.digamma
    a1, b1, a2, b2 = p.concentration1, p.concentration0, q.concentration1, q.concentration0
    return (lgamma(a2) + lgamma(b2) + lgamma(a1 + b1) - lgamma(a2 + b2) - lgamma(a1) - lgamma(b1)
            + (a1 - a2) * digamma(a1) + (b1 - b2) * digamma(b1) + (a2 + b2 - a1 - b1) * digamma(a1 + b1))


@register_kl(Binomial, Binomial)
def _binomial(p: Binomial, q: Binomial) -> Tensor:
    """Infinite where q has fewer trials; undefined where it has more."""
    if (p.total_count < q.total_count).any().item():
        raise NotImplementedError("KL between Binomials where q.total_count > p.total_count is not implemented")
    kl = p.total_count * (p.probs * (p.logits - q.logits) + (-p.probs).log1p() - (-q.probs).log1p())
    return ops.where(p.total_count > q.total_count, math.inf, kl)


@register_kl(Categorical, Categorical)
def _categorical(p: Categorical, q: Categorical) -> Tensor:
    t = p.probs * (p.logits - q.logits)
    t = ops.where((q.probs == 0).expand(tuple(t.shape)), math.inf, t)
    t = ops.where((p.probs == 0).expand(tuple(t.shape)), 0.0, t)
    return t.sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return _categorical(p._categorical, q._categorical)


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Cauchy, q: Cauchy) -> Tensor:
    """Chyzak and Nielsen 2019."""
    a = ((p.scale + q.scale).pow(2) + (p.loc - q.loc).pow(2)).log()
    return a - (4 * p.scale * q.scale).log()


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Dirichlet, q: Dirichlet) -> Tensor:
    a, b = p.concentration, q.concentration
    total = a.sum(-1)
    inner = (a - b) * (a.digamma() - total.digamma().unsqueeze(-1))
    return (total.lgamma() - b.sum(-1).lgamma()) - (a.lgamma() - b.lgamma()).sum(-1) + inner.sum(-1)


@register_kl(Exponential, Exponential)
def _exponential(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - 1 - ratio.log()


@register_kl(ExponentialFamily, ExponentialFamily)
def _family(p: ExponentialFamily, q: ExponentialFamily) -> Tensor:
    """Bregman divergence of the log normalizer (Nielsen and Nock 2010); both of one class."""
    if type(p) is not type(q):
        raise NotImplementedError("The cross KL-divergence between different exponential families cannot be computed using "
                                  "Bregman divergences")
    params = [t.detach().requires_grad_() for t in p._natural_params]
    normalizer = p._log_normalizer(*params)
    gradients = grad(normalizer.sum(), params, create_graph=True)
    result = q._log_normalizer(*q._natural_params) - normalizer
    for pn, qn, g in zip(params, q._natural_params, gradients):
        result = result - sum_rightmost((qn - pn) * g, len(q.event_shape))
    return result


@register_kl(Gamma, Gamma)
def _gamma(p: Gamma, q: Gamma) -> Tensor:
    a, b = p.concentration, q.concentration
    return (b * (p.rate / q.rate).log() + b.lgamma() - a.lgamma() + (a - b) * a.digamma()
            + (q.rate - p.rate) * (a / p.rate))


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Gumbel, q: Gumbel) -> Tensor:
    r = p.scale / q.scale
    u, v = p.loc / q.scale, q.loc / q.scale
    return -r.log() - v + u + r * euler_constant + (v + (1 + r).lgamma() - u).exp() - (1 + euler_constant)


@register_kl(Geometric, Geometric)
def _geometric(p: Geometric, q: Geometric) -> Tensor:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: HalfNormal, q: HalfNormal) -> Tensor:
    return _normal(p.base_dist, q.base_dist)


@register_kl(Laplace, Laplace)
def _laplace(p: Laplace, q: Laplace) -> Tensor:
    ratio, d = p.scale / q.scale, (p.loc - q.loc).abs()
    return -ratio.log() + d / q.scale + ratio * (-d / p.scale).exp() - 1


@register_kl(Normal, Normal)
def _normal(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale).pow(2)
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).pow(2) - 1 - ratio.log())


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ValueError("KL-divergence between two Multivariate Normals with different event shapes cannot be computed")
    lp, lq = p._unbroadcasted_scale_tril, q._unbroadcasted_scale_tril
    shape = ops.broadcast_shapes(tuple(lp.shape), tuple(lq.shape))
    half = linalg.solve_triangular(lq.expand(shape), lp.expand(shape), upper=False)
    trace = half.pow(2).sum(-1).sum(-1)
    mahalanobis = batch_mahalanobis(lq, q.loc - p.loc)
    return q._half_log_det() - p._half_log_det() + 0.5 * (trace + mahalanobis - p.event_shape[0])


@register_kl(Pareto, Pareto)
def _pareto(p: Pareto, q: Pareto) -> Tensor:
    ratio = p.scale / q.scale
    alpha = q.alpha / p.alpha
    kl = q.alpha * ratio.log() - alpha.log() + alpha - 1
    return ops.where(p.scale < q.scale, math.inf, kl)


@register_kl(Poisson, Poisson)
def _poisson(p: Poisson, q: Poisson) -> Tensor:
    return _xlogx_ratio(p.rate, q.rate) - (p.rate - q.rate)


@register_kl(Uniform, Uniform)
def _uniform(p: Uniform, q: Uniform) -> Tensor:
    kl = ((q.high - q.low) / (p.high - p.low)).log()
    return ops.where((q.low > p.low) | (q.high < p.high), math.inf, kl)


@register_kl(Independent, Independent)
def _independent(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    """Bijections leave the divergence as it is: same transforms needed."""
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError
    return kl_divergence(p.base_dist, q.base_dist)


# ------------------------------------------------------------------------------------------------------ different families
@register_kl(Uniform, Normal)
def _uniform_normal(p: Uniform, q: Normal) -> Tensor:
    width = p.high - p.low
    second = (width.pow(2) / 12 + ((p.high + p.low - 2 * q.loc) / 2).pow(2)) / (2 * q.scale.pow(2))
    return (math.sqrt(2 * math.pi) * q.scale / width).log() + second


@register_kl(Normal, Laplace)
def _normal_laplace(p: Normal, q: Laplace) -> Tensor:
    """E|X - m| of a normal (folded normal mean)."""
    d = p.loc - q.loc
    r = d / p.scale
    folded = math.sqrt(2 / math.pi) * p.scale * (-0.5 * r * r).exp() + d * (r * math.sqrt(0.5)).erf()
    return -p.scale.log() - (0.5 + 0.5 * math.log(2 * math.pi)) + (2 * q.scale).log() + folded / q.scale


@register_kl(Laplace, Normal)
def _laplace_normal(p: Laplace, q: Normal) -> Tensor:
    var = q.scale.pow(2)
    second = (2 * p.scale.pow(2) + (p.loc - q.loc).pow(2)) / (2 * var)
    return -(2 * p.scale).log() - 1 + 0.5 * (2 * math.pi * var).log() + second


@register_kl(Exponential, Normal)
def _exponential_normal(p: Exponential, q: Normal) -> Tensor:
    var, mean = q.scale.pow(2), p.rate.reciprocal()
    return 0.5 * (p.rate.pow(2) * var * 2 * math.pi).log() - 1 + (2 * mean.pow(2) - 2 * mean * q.loc + q.loc.pow(2)) / (2 * var)


@register_kl(Gamma, Normal)
def _gamma_normal(p: Gamma, q: Normal) -> Tensor:
    var, mean = q.scale.pow(2), p.concentration / p.rate
    second = (mean * mean + mean / p.rate - 2 * mean * q.loc + q.loc.pow(2)) / (2 * var)
    return -p.entropy() + 0.5 * (2 * math.pi * var).log() + second


@register_kl(Beta, Normal)
def _beta_normal(p: Beta, q: Normal) -> Tensor:
    second = (p.variance + (p.mean - q.loc).pow(2)) / (2 * q.scale.pow(2))
    return -p.entropy() + 0.5 * math.log(2 * math.pi) + q.scale.log() + second


@register_kl(Exponential, Gamma)
def _exponential_gamma(p: Exponential, q: Gamma) -> Tensor:
    ratio, b = q.rate / p.rate, q.concentration
    return -b * ratio.log() + ratio + b.lgamma() + b * euler_constant - (1 + euler_constant)


@register_kl(Gamma, Exponential)
def _gamma_exponential(p: Gamma, q: Exponential) -> Tensor:
    return -p.entropy() - q.rate.log() + q.rate * p.concentration / p.rate


def _outside(p: Any, q: Any) -> Tensor:
    """The support of q does not hold that of p."""
    return _infinite(p.mean + q.mean)


for _p, _q in ((Normal, Beta), (Normal, Exponential), (Normal, Gamma), (Normal, Uniform), (Normal, Pareto), (Laplace, Beta),
               (Laplace, Exponential), (Laplace, Gamma), (Laplace, Uniform), (Laplace, Pareto), (Exponential, Beta),
               (Exponential, Uniform), (Exponential, Pareto), (Gamma, Beta), (Gamma, Uniform), (Gamma, Pareto), (Beta, Pareto),
               (Gumbel, Beta), (Gumbel, Exponential), (Gumbel, Gamma), (Gumbel, Uniform), (Gumbel, Pareto), (Pareto, Beta),
               (Pareto, Uniform), (Poisson, Bernoulli), (Poisson, Binomial)):
    register_kl(_p, _q)(_outside)
