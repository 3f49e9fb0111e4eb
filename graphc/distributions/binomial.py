"""Binomial and negative binomial distributions."""
from __future__ import annotations

from typing import Any

from .. import ops
from ..autograd import no_grad
from ..nn import functional as F
from ..tensor import Tensor
from . import constraints
from .distribution import Distribution
from .gamma import Gamma
from .host import draw
from .utils import LogitsOrProbs, broadcast_all


def _setup(self: Any, total_count: Any, probs: Any, logits: Any) -> Tensor:
    if (probs is None) == (logits is None):
        raise ValueError("Either `probs` or `logits` must be specified, but not both.")
    self.total_count, param = broadcast_all(total_count, logits if probs is None else probs)
    self.total_count = self.total_count.type_as(param)
    return self._set_parameter(None if probs is None else param, None if logits is None else param)


class Binomial(LogitsOrProbs, Distribution):
    """Number of successes in ``total_count`` trials."""

    arg_constraints = {"total_count": constraints.nonnegative_integer, "probs": constraints.unit_interval,
                       "logits": constraints.real}
    has_enumerate_support = True
    total_count: Tensor

    def __init__(self, total_count: Any = 1, probs: Tensor | None = None, logits: Tensor | None = None,
                 validate_args: bool | None = None):
        param = _setup(self, total_count, probs, logits)
        super().__init__(param.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._expanded(Binomial, batch_shape, _instance, ("total_count", "probs", "logits"))
        new._given_name = self._given()
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        return ops.minimum(((self.total_count + 1) * self.probs).floor().clamp(min=0), self.total_count)

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = tuple(self._extended_shape(sample_shape))
        with no_grad():
            return draw(lambda rng, n, p: rng.binomial(n.astype("int64"), p), self.probs, self.total_count.expand(shape),
                        self.probs.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """log C(n, k) + k logit - n log(1 + e^logit)."""
        if self._validate_args:
            self._validate_sample(value)
        n, logits = self.total_count, self.logits
        choose = ops.lgamma(n + 1) - ops.lgamma(value + 1) - ops.lgamma(n - value + 1)
        return choose + value * logits - n * F.softplus(logits)

    def entropy(self) -> Tensor:
        """By summation over the support; all ``total_count`` must be equal."""
        n = int(self.total_count.max().item())
        if int(self.total_count.min().item()) != n:
            raise NotImplementedError("Inhomogeneous total count not supported by `entropy`.")
        log_prob = self.log_prob(self.enumerate_support(False))
        return -(ops.exp(log_prob) * log_prob).sum(0)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        n = int(self.total_count.max().item())
        if int(self.total_count.min().item()) != n:
            raise NotImplementedError("Inhomogeneous total count not supported by `enumerate_support`.")
        values = ops.arange(1 + n, dtype=self._param.dtype, device=self._param.device)
        values = values.reshape((-1,) + (1,) * len(self._batch_shape))
        return values.expand((-1, *self._batch_shape)) if expand else values


class NegativeBinomial(LogitsOrProbs, Distribution):
    """Number of successes before ``total_count`` failures; ``probs`` is the probability of success."""

    arg_constraints = {"total_count": constraints.greater_than_eq(0), "probs": constraints.half_open_interval(0.0, 1.0),
                       "logits": constraints.real}
    support = constraints.nonnegative_integer
    total_count: Tensor

    def __init__(self, total_count: Any, probs: Tensor | None = None, logits: Tensor | None = None,
                 validate_args: bool | None = None):
        param = _setup(self, total_count, probs, logits)
        super().__init__(param.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._expanded(NegativeBinomial, batch_shape, _instance, ("total_count", "probs", "logits"))
        new._given_name = self._given()
        return new

    @property
    def mean(self) -> Tensor:
        return self.total_count * ops.exp(self.logits)

    @property
    def mode(self) -> Tensor:
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0.0)

    @property
    def variance(self) -> Tensor:
        return self.mean / ops.sigmoid(-self.logits)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Poisson with gamma distributed rates."""
        with no_grad():
            rate = Gamma(self.total_count, ops.exp(-self.logits), validate_args=False).sample(sample_shape)
            return ops.poisson(rate)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        n, log_sigmoid = self.total_count, F.logsigmoid
        unnormalized = n * log_sigmoid(-self.logits) + value * log_sigmoid(self.logits)
        normalization = ops.lgamma(1.0 + value) + ops.lgamma(n) - ops.lgamma(n + value)
        return unnormalized - ops.where(n + value == 0, 0.0, normalization)
