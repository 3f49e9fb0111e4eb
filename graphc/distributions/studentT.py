"""Student's t distribution."""
from __future__ import annotations

import math
from typing import Any

from .. import ops
from ..tensor import Tensor
from . import constraints
from .distribution import Distribution
from .gamma import Chi2
from .utils import broadcast_all, standard_normal


class StudentT(Distribution):
    """``loc + scale * N(0, 1) / sqrt(Chi2(df) / df)``."""

    arg_constraints = {"df": constraints.positive, "loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None):
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        self._chi2 = Chi2(self.df)
        super().__init__(self.df.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return ops.where(self.df <= 1, math.nan, self.loc)

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Infinite up to df = 2, undefined up to df = 1."""
        wide = self.df > 2
        safe = ops.where(wide, self.df, 3.0)
        finite = self.scale.pow(2) * safe / (safe - 2)
        return ops.where(wide, finite, ops.where(self.df > 1, math.inf, math.nan))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._expanded(StudentT, batch_shape, _instance, ("df", "loc", "scale"))
        new._chi2 = self._chi2.expand(batch_shape)
        return new

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        x = standard_normal(self._extended_shape(sample_shape), self.df)
        return self.loc + self.scale * (x * ops.rsqrt(self._chi2.rsample(sample_shape) / self.df))

    def _log_scale(self) -> Tensor:
        """Minus the logarithm of the density at ``loc``."""
        half = 0.5 * self.df
        return (self.scale.log() + 0.5 * self.df.log() + 0.5 * math.log(math.pi) + ops.lgamma(half)
                - ops.lgamma(0.5 * (self.df + 1.0)))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        y = (value - self.loc) / self.scale
        return -0.5 * (self.df + 1.0) * ops.log1p(y.pow(2.0) / self.df) - self._log_scale()

    def entropy(self) -> Tensor:
        more = 0.5 * (self.df + 1)
        return self._log_scale() + more * (ops.digamma(more) - ops.digamma(0.5 * self.df))
