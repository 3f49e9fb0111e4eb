"""Fisher-Snedecor (F) distribution."""
from __future__ import annotations

import math
from typing import Any

from .. import ops
from ..tensor import Tensor
from . import constraints
from .distribution import Distribution
from .gamma import Gamma
from .utils import broadcast_all, finfo_of


class FisherSnedecor(Distribution):
    """Ratio of two chi-squared variables, each divided by its degrees of freedom."""

    arg_constraints = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None):
        self.df1, self.df2 = broadcast_all(df1, df2)
        self._gamma1 = Gamma(self.df1 * 0.5, self.df1)
        self._gamma2 = Gamma(self.df2 * 0.5, self.df2)
        super().__init__(self.df1.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._expanded(FisherSnedecor, batch_shape, _instance, ("df1", "df2"))
        new._gamma1, new._gamma2 = self._gamma1.expand(batch_shape), self._gamma2.expand(batch_shape)
        return new

    @property
    def mean(self) -> Tensor:
        """Undefined up to df2 = 2."""
        wide = self.df2 > 2
        d = ops.where(wide, self.df2, 3.0)
        return ops.where(wide, d / (d - 2), math.nan)

    @property
    def mode(self) -> Tensor:
        """Undefined up to df1 = 2."""
        value = (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2)
        return ops.where(self.df1 > 2, value, math.nan)

    @property
    def variance(self) -> Tensor:
        """Undefined up to df2 = 4."""
        wide = self.df2 > 4
        d = ops.where(wide, self.df2, 5.0)
        value = 2 * d.pow(2) * (self.df1 + d - 2) / (self.df1 * (d - 2).pow(2) * (d - 4))
        return ops.where(wide, value, math.nan)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        x2 = self._gamma2.rsample(sample_shape)
        return (self._gamma1.rsample(sample_shape) / x2.clamp(min=finfo_of(x2).tiny)).clamp(min=finfo_of(x2).tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a, b = self.df1 * 0.5, self.df2 * 0.5
        ratio = self.df1 / self.df2
        beta = ops.lgamma(a + b) - ops.lgamma(a) - ops.lgamma(b)
        return beta + a * ratio.log() + (a - 1) * value.log() - (a + b) * ops.log1p(ratio * value)
