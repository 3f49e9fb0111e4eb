"""Continuous Bernoulli distribution on [0, 1]."""
from __future__ import annotations

import math
from typing import Any

from .. import ops
from ..nn import functional as F
from ..tensor import Tensor
from . import constraints
from .distribution import ExponentialFamily
from .utils import LogitsOrProbs, as_size, broadcast_all, clamp_probs, known_false, positive_uniform


class ContinuousBernoulli(LogitsOrProbs, ExponentialFamily):
    """Density C(p) p^x (1 - p)^(1 - x) on [0, 1] (Loaiza-Ganem and Cunningham 2019).

    Between ``lims``, around p = 1/2, closed forms are 0/0 and Taylor polynomials in p - 1/2 are used.
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True
    _mean_carrier_measure = 0

    def __init__(self, probs: Any = None, logits: Any = None, lims: tuple[float, float] = (0.499, 0.501),
                 validate_args: bool | None = None):
        if probs is not None:
            (probs,) = broadcast_all(probs)
        if logits is not None:
            (logits,) = broadcast_all(logits)
        param = self._set_parameter(probs, logits)
        if probs is not None:
            if validate_args and known_false(constraints.unit_interval.check(probs.detach())):
                raise ValueError("The parameter probs has invalid values")
            self.__dict__["probs"] = clamp_probs(probs)
        self._lims = lims
        super().__init__(param.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._expanded(ContinuousBernoulli, tuple(as_size(batch_shape)), _instance, ("probs", "logits"))
        new._given_name, new._lims = self._given(), self._lims
        return new

    @property
    def param_shape(self) -> Any:
        return self._param.size()

    def _apart(self) -> Tensor:
        """Where closed forms hold."""
        return (self.probs <= self._lims[0]) | (self.probs > self._lims[1])

    def _closed(self) -> tuple[Tensor, Tensor, Tensor]:
        """(where closed forms hold, a probability they hold for, its log odds against)."""
        apart = self._apart()
        p = ops.where(apart, self.probs, self._lims[0])
        return apart, p, ops.log1p(-p) - p.log()

    def _log_norm(self) -> Tensor:
        """log C(p) = log(2 artanh(1 - 2p) / (1 - 2p))."""
        apart, p, odds = self._closed()
        x = (self.probs - 0.5).pow(2)
        return ops.where(apart, odds.abs().log() - (1 - 2 * p).abs().log(), math.log(2.0) + (4 / 3 + 104 / 45 * x) * x)

    @property
    def mean(self) -> Tensor:
        apart, p, odds = self._closed()
        x = self.probs - 0.5
        return ops.where(apart, p / (2 * p - 1) + 1 / odds, 0.5 + (1 / 3 + 16 / 45 * x.pow(2)) * x)

    @property
    def variance(self) -> Tensor:
        apart, p, odds = self._closed()
        x = (self.probs - 0.5).pow(2)
        return ops.where(apart, p * (p - 1) / (1 - 2 * p).pow(2) + 1 / odds.pow(2), 1 / 12 - (1 / 15 - 128 / 945 * x) * x)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.rsample(sample_shape).detach()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.icdf(positive_uniform(self._extended_shape(sample_shape), self._param.detach()))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        return -F.binary_cross_entropy_with_logits(logits, value, reduction="none") + self._log_norm()

    def cdf(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        apart, p, _ = self._closed()
        inside = (p.pow(value) * (1 - p).pow(1 - value) + p - 1) / (2 * p - 1)
        inside = ops.where(apart, inside, value)
        return ops.where(value <= 0, 0.0, ops.where(value >= 1, 1.0, inside))

    def icdf(self, value: Tensor) -> Tensor:
        apart, p, odds = self._closed()
        return ops.where(apart, (ops.log1p(-p) - ops.log1p(-p + value * (2 * p - 1))) / odds, value)

    def entropy(self) -> Tensor:
        none, one = ops.log1p(-self.probs), self.probs.log()
        return self.mean * (none - one) - self._log_norm() - none

    @property
    def _natural_params(self) -> tuple[Tensor]:
        return (self.logits,)

    def _log_normalizer(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """log((e^x - 1) / x), 1 at x = 0."""
        apart = (x <= self._lims[0] - 0.5) | (x > self._lims[1] - 0.5)
        far = ops.where(apart, x, self._lims[0] - 0.5)
        return ops.where(apart, (far.exp() - 1).abs().log() - far.abs().log(), 0.5 * x + x.pow(2) / 24 - x.pow(4) / 2880)
