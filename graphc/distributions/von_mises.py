"""Von Mises distribution on the circle."""
from __future__ import annotations

import math
from typing import Any

from .. import ops, special
from ..autograd import no_grad
from ..tensor import Tensor
from . import constraints
from .distribution import Distribution
from .host import draw
from .utils import broadcast_all, lazy_property


class VonMises(Distribution):
    """Density proportional to exp(concentration cos(x - loc)) on [-pi, pi)."""

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None):
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return self._expanded(VonMises, batch_shape, _instance, ("loc", "concentration"))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_i0 = ops.log(special.i0e(self.concentration)) + self.concentration
        return self.concentration * ops.cos(value - self.loc) - math.log(2 * math.pi) - log_i0

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Drawn on the host by NumPy (rejection from a wrapped Cauchy; Best and Fisher 1979)."""
        shape = tuple(self._extended_shape(sample_shape))
        with no_grad():
            x = draw(lambda rng, m, k: rng.vonmises(0.0, k) + m, self.loc, self.loc.expand(shape),
                     self.concentration.expand(shape))
            return (x + math.pi) % (2 * math.pi) - math.pi

    @property
    def mean(self) -> Tensor:
        """The circular mean."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @lazy_property
    def variance(self) -> Tensor:
        """The circular variance 1 - I_1 / I_0."""
        return 1 - special.i1e(self.concentration) / special.i0e(self.concentration)
