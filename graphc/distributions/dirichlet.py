"""Dirichlet distribution."""
from __future__ import annotations

from typing import Any

import graphc

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
        corner = graphc.nn.functional.one_hot(mode.nan_to_num(nan=-1.0).argmax(-1), mode.shape[-1]).to(mode.dtype)
        return graphc.where((self.concentration < 1).all(-1, keepdim=True), corner, mode)

    @property
    def variance(self) -> Tensor:
        total = self.concentration.sum(-1, True)
        return self.concentration * (total - self.concentration) / (total.pow(2) * (total + 1))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return self._expanded(Dirichlet, batch_shape, _instance, ("concentration",), {"concentration": 1})

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        a = self.concentration.expand(tuple(self._extended_shape(sample_shape)))
        return graphc.softmax(log_standard_gamma(a), -1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a = self.concentration
        return graphc.xlogy(a - 1.0, value).sum(-1) + graphc.lgamma(a.sum(-1)) - graphc.lgamma(a).sum(-1)

    def entropy(self) -> Tensor:
        a, k = self.concentration, self.concentration.shape[-1]
        total = a.sum(-1)
        return (graphc.lgamma(a).sum(-1) - graphc.lgamma(total) - (k - total) * graphc.digamma(total)
                - ((a - 1.0) * graphc.digamma(a)).sum(-1))

    @property
    def _natural_params(self) -> tuple[Tensor]:
        return (self.concentration,)

    def _log_normalizer(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return graphc.lgamma(x).sum(-1) - graphc.lgamma(x.sum(-1))
