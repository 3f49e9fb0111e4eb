"""Dirichlet distribution."""
from __future__ import annotations

from typing import Any

from .. import ops
from ..nn import functional as F
from ..tensor import Tensor
from . import constraints
from .distribution import ExponentialFamily
from .host import log_standard_gamma


class Dirichlet(ExponentialFamily):
    """Distribution over the simplex; the last dimension of ``concentration`` is the event.

    Draws are normalised gammas, computed from their logarithms so that small concentrations do not underflow.
    """

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True
    _mean_carrier_measure = 0

    def __init__(self, concentration: Tensor, validate_args: bool | None = None):
        if concentration.ndim < 1:
            raise ValueError("`concentration` parameter must be at least one-dimensional.")
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.concentration.sum(-1, True)

    @property
    def mode(self) -> Tensor:
        """Without an interior mode: the corner of the largest concentration."""
        less = (self.concentration - 1).clamp(min=0.0)
        mode = less / less.sum(-1, True)
        corner = F.one_hot(mode.nan_to_num(nan=-1.0).argmax(-1), mode.shape[-1]).to(mode.dtype)
        return ops.where((self.concentration < 1).all(-1, keepdim=True), corner, mode)

    @property
    def variance(self) -> Tensor:
        total = self.concentration.sum(-1, True)
        return self.concentration * (total - self.concentration) / (total.pow(2) * (total + 1))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return self._expanded(Dirichlet, batch_shape, _instance, ("concentration",), {"concentration": 1})

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        a = self.concentration.expand(tuple(self._extended_shape(sample_shape)))
        return ops.softmax(log_standard_gamma(a), -1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a = self.concentration
        return ops.xlogy(a - 1.0, value).sum(-1) + ops.lgamma(a.sum(-1)) - ops.lgamma(a).sum(-1)

    def entropy(self) -> Tensor:
        a, k = self.concentration, self.concentration.shape[-1]
        total = a.sum(-1)
        return (ops.lgamma(a).sum(-1) - ops.lgamma(total) - (k - total) * ops.digamma(total)
                - ((a - 1.0) * ops.digamma(a)).sum(-1))

    @property
    def _natural_params(self) -> tuple[Tensor]:
        return (self.concentration,)

    def _log_normalizer(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return ops.lgamma(x).sum(-1) - ops.lgamma(x.sum(-1))
