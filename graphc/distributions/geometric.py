"""Geometric distribution."""
from __future__ import annotations

from typing import Any

from .. import ops
from ..autograd import no_grad
from ..nn import functional as F
from ..tensor import Tensor
from . import constraints
from .distribution import Distribution
from .utils import LogitsOrProbs, broadcast_all, known_false, positive_uniform


class Geometric(LogitsOrProbs, Distribution):
    """Number of failures before the first success."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        param = self._set_parameter(*[p if p is None else broadcast_all(p)[0] for p in (probs, logits)])
        super().__init__(param.shape, validate_args=validate_args)
        if self._validate_args and probs is not None and known_false(self.probs > 0):
            raise ValueError(f"Expected parameter probs (Tensor of shape {tuple(self.probs.shape)}) of distribution {self!r} "
                             f"to be positive but found invalid values:\n{self.probs}")

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._expanded(Geometric, batch_shape, _instance, ("probs", "logits"))
        new._given_name = self._given()
        return new

    @property
    def mean(self) -> Tensor:
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        return ops.zeros_like(self.probs)

    @property
    def variance(self) -> Tensor:
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            u = positive_uniform(self._extended_shape(sample_shape), self.probs)
            return (u.log() / ops.log1p(-self.probs)).floor()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value, probs = broadcast_all(value, self.probs)
        certain = (probs == 1) & (value == 0)
        return value * ops.log1p(-ops.where(certain, 0.0, probs)) + probs.log()

    def entropy(self) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none") / self.probs
