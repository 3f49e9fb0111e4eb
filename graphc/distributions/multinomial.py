"""Multinomial distribution."""
from __future__ import annotations

from typing import Any

from .. import ops
from ..autograd import no_grad
from ..nn import functional as F
from ..tensor import Size, Tensor
from . import constraints
from .binomial import Binomial
from .categorical import Categorical
from .distribution import Distribution
from .utils import as_size, broadcast_all


class Multinomial(Distribution):
    """Counts of ``total_count`` draws from K categories."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}

    def __init__(self, total_count: int = 1, probs: Tensor | None = None, logits: Tensor | None = None,
                 validate_args: bool | None = None):
        if not isinstance(total_count, int):
            raise NotImplementedError("inhomogeneous total_count is not supported")
        self.total_count = total_count
        self._categorical = Categorical(probs, logits, validate_args=validate_args)
        super().__init__(self._categorical.batch_shape, self._categorical.param_shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(Multinomial, _instance)
        new.total_count = self.total_count
        new._categorical = self._categorical.expand(batch_shape)
        super(Multinomial, new).__init__(new._categorical.batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        return constraints.multinomial(self.total_count)

    @property
    def _param(self) -> Tensor:
        return self._categorical._param

    @property
    def probs(self) -> Tensor:
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        return self._categorical.logits

    @property
    def param_shape(self) -> Size:
        return self._categorical.param_shape

    @property
    def mean(self) -> Tensor:
        return self.probs * self.total_count

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = as_size(sample_shape)
        with no_grad():
            draws = self._categorical.sample((self.total_count, *shape))
            counts = F.one_hot(draws, self.event_shape[0]).sum(0)
            return counts.type_as(self.probs)

    def entropy(self) -> Tensor:
        """n H(p) - log n! + sum over k, categories of P(k) log k!."""
        n = ops.scalar_tensor(float(self.total_count), dtype=self._param.dtype)
        cat_entropy = self._categorical.entropy()
        term = n * cat_entropy - ops.lgamma(n + 1)
        binomial = Binomial(self.total_count, self.probs)
        support = binomial.enumerate_support(expand=False)[1:]
        weights = ops.exp(binomial.log_prob(support))
        return term + (weights * ops.lgamma(support + 1)).sum([0, -1])

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        logits = ops.where((value == 0) & (logits == -float("inf")), 0.0, logits)
        return (ops.lgamma(value.sum(-1) + 1) - ops.lgamma(value + 1).sum(-1)) + (logits * value).sum(-1)
