"""Generalized Pareto distribution: what exceeds a high threshold."""
from __future__ import annotations

import math
from typing import Any

from .. import ops
from ..tensor import Tensor
from . import constraints
from .distribution import Distribution
from .utils import broadcast_all


class GeneralizedPareto(Distribution):
    """P(X > x) = (1 + c z)^(-1/c) with z = (x - loc) / scale; e^-z at c = ``concentration`` = 0; bounded above for c < 0."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive, "concentration": constraints.real}
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, concentration: Any, validate_args: bool | None = None):
        self.loc, self.scale, self.concentration = broadcast_all(loc, scale, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return self._expanded(GeneralizedPareto, batch_shape, _instance, ("loc", "scale", "concentration"))

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:  # type: ignore[override]
        upper = ops.where(self.concentration < 0, self.loc - self.scale / self.concentration, math.inf)
        return constraints.interval(self.loc, upper)

    def _parts(self) -> tuple[Tensor, Tensor]:
        """(where the law is exponential, a concentration that is not zero)."""
        zero = ops.isclose(self.concentration, ops.zeros_like(self.concentration))
        return zero, ops.where(zero, 1.0, self.concentration)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.icdf(ops.rand(tuple(self._extended_shape(sample_shape)), dtype=self.loc.dtype, device=self.loc.device))

    def log_survival_function(self, value: Tensor) -> Tensor:
        """log P(X > value)."""
        if self._validate_args:
            self._validate_sample(value)
        z, (zero, c) = (value - self.loc) / self.scale, self._parts()
        return ops.where(zero, -z + 0.5 * self.concentration * z.pow(2), -ops.log1p(c * ops.where(zero, 0.0, z)) / c)

    def log_cdf(self, value: Tensor) -> Tensor:
        """log P(X <= value)."""
        return ops.log1p(-self.log_survival_function(value).exp())

    def cdf(self, value: Tensor) -> Tensor:
        return -ops.expm1(self.log_survival_function(value))

    def icdf(self, value: Tensor) -> Tensor:
        zero, c = self._parts()
        left = ops.log1p(-value)
        return self.loc + self.scale * ops.where(zero, -left, ops.expm1(-c * left) / c)

    def log_prob(self, value: Tensor) -> Tensor:
        return (1 + self.concentration) * self.log_survival_function(value) - self.scale.log()

    def entropy(self) -> Tensor:
        return self.scale.log() + self.concentration + 1

    @property
    def mean(self) -> Tensor:
        """Infinite from c = 1 on."""
        finite = self.concentration < 1
        return ops.where(finite, self.loc + self.scale / (1 - ops.where(finite, self.concentration, 0.0)), math.inf)

    @property
    def variance(self) -> Tensor:
        """Infinite from c = 1/2 on."""
        finite = self.concentration < 0.5
        c = ops.where(finite, self.concentration, 0.0)
        return ops.where(finite, self.scale.pow(2) / ((1 - c).pow(2) * (1 - 2 * c)), math.inf)

    @property
    def mode(self) -> Tensor:
        return self.loc
