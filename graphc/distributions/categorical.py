"""Categorical distribution."""
from __future__ import annotations

import math
from typing import Any

from .. import ops
from ..autograd import no_grad
from ..dtypes import int64
from ..tensor import Size, Tensor
from . import constraints
from .distribution import Distribution
from .utils import LogitsOrProbs, finfo_of


class Categorical(LogitsOrProbs, Distribution):
    """Integers 0..K-1; the last dimension of ``probs`` (normalised here) or ``logits`` holds the K categories."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True
    _binary = False

    def __init__(self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None):
        for name, p in (("probs", probs), ("logits", logits)):
            if p is not None and p.ndim < 1:
                raise ValueError(f"`{name}` parameter must be at least one-dimensional.")
        if probs is not None:
            probs = probs / probs.sum(-1, keepdim=True)
        if logits is not None:
            logits = logits - logits.logsumexp(dim=-1, keepdim=True)
        param = self._set_parameter(probs, logits)
        self._num_events = param.shape[-1]
        super().__init__(param.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._expanded(Categorical, batch_shape, _instance, ("probs", "logits"), {"probs": 1, "logits": 1})
        new._given_name, new._num_events = self._given(), self._num_events
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        return constraints.integer_interval(0, self._num_events - 1)

    @property
    def param_shape(self) -> Size:
        return self._param.size()

    @property
    def mean(self) -> Tensor:
        return ops.full(tuple(self._extended_shape()), math.nan, dtype=self.probs.dtype, device=self.probs.device)

    @property
    def mode(self) -> Tensor:
        return self.probs.argmax(-1)

    @property
    def variance(self) -> Tensor:
        return self.mean

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """int64 of shape ``sample_shape + batch_shape``."""
        shape = self._extended_shape(sample_shape)
        with no_grad():
            rows = self.probs.reshape(-1, self._num_events)
            n = Size(sample_shape if not isinstance(sample_shape, int) else (sample_shape,)).numel()
            if n * rows.shape[0] == 0:
                return ops.empty(tuple(shape), dtype=int64, device=rows.device)
            return ops.multinomial(rows, n, True).T.reshape(tuple(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        index, logits = ops.broadcast_tensors(value.long().unsqueeze(-1), self.logits)
        return logits.gather(-1, index[..., :1]).squeeze(-1)

    def entropy(self) -> Tensor:
        logits = self.logits.clamp(min=finfo_of(self.logits).min)  # log 0 times 0 must be 0
        return -(logits * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = ops.arange(self._num_events, dtype=int64, device=self._param.device)
        values = values.reshape((-1,) + (1,) * len(self._batch_shape))
        return values.expand((-1, *self._batch_shape)) if expand else values
