"""Mixtures of distributions of one family."""
from __future__ import annotations

from typing import Any

from .. import ops
from ..autograd import no_grad
from ..tensor import Tensor
from .categorical import Categorical
from .distribution import Distribution
from .utils import as_size


class MixtureSameFamily(Distribution):
    """Component k, along the last batch dimension of ``component_distribution``, with probability
    ``mixture_distribution.probs[..., k]``."""

    arg_constraints: Any = {}

    def __init__(self, mixture_distribution: Categorical, component_distribution: Distribution,
                 validate_args: bool | None = None):
        if not isinstance(mixture_distribution, Categorical):
            raise ValueError(" The Mixture distribution needs to be an  instance of torch.distributions.Categorical")
        if not isinstance(component_distribution, Distribution):
            raise ValueError("The Component distribution need to be an instance of torch.distributions.Distribution")
        batch = component_distribution.batch_shape[:-1]
        for a, b in zip(reversed(mixture_distribution.batch_shape), reversed(batch)):
            if a != 1 and b != 1 and a != b:
                raise ValueError(f"`mixture_distribution.batch_shape` ({mixture_distribution.batch_shape}) is not compatible "
                                 f"with `component_distribution.batch_shape`({component_distribution.batch_shape})")
        if mixture_distribution.logits.shape[-1] != component_distribution.batch_shape[-1]:
            raise ValueError(f"`mixture_distribution` component ({mixture_distribution.logits.shape[-1]}) does not equal "
                             f"`component_distribution.batch_shape[-1]` ({component_distribution.batch_shape[-1]})")
        self._mixture_distribution, self._component_distribution = mixture_distribution, component_distribution
        self._num_component = component_distribution.batch_shape[-1]
        self._event_ndims = len(component_distribution.event_shape)
        super().__init__(batch, component_distribution.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(MixtureSameFamily, _instance)
        shape = tuple(as_size(batch_shape))
        new._component_distribution = self._component_distribution.expand((*shape, self._num_component))
        new._mixture_distribution = self._mixture_distribution.expand(shape)
        new._num_component, new._event_ndims = self._num_component, self._event_ndims
        super(MixtureSameFamily, new).__init__(shape, self._component_distribution.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def support(self) -> Any:  # type: ignore[override]
        return self._component_distribution.support

    @property
    def mixture_distribution(self) -> Categorical:
        return self._mixture_distribution

    @property
    def component_distribution(self) -> Distribution:
        return self._component_distribution

    def _weights(self) -> Tensor:
        p = self.mixture_distribution.probs
        return p.reshape(tuple(p.shape) + (1,) * self._event_ndims)

    @property
    def mean(self) -> Tensor:
        return (self._weights() * self.component_distribution.mean).sum(-1 - self._event_ndims)

    @property
    def variance(self) -> Tensor:
        """Mean of the components' variances plus variance of their means."""
        dim = -1 - self._event_ndims
        spread = (self.component_distribution.mean - self.mean.unsqueeze(dim)).pow(2.0)
        return (self._weights() * (self.component_distribution.variance + spread)).sum(dim)

    def cdf(self, value: Tensor) -> Tensor:
        value = value.unsqueeze(-1 - self._event_ndims)
        return (self.component_distribution.cdf(value) * self.mixture_distribution.probs).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value = value.unsqueeze(-1 - self._event_ndims)
        weights = ops.log_softmax(self.mixture_distribution.logits, dim=-1)
        return ops.logsumexp(self.component_distribution.log_prob(value) + weights, dim=-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = tuple(as_size(sample_shape))
        with no_grad():
            choice = self.mixture_distribution.expand(tuple(self.batch_shape)).sample(shape)
            samples = self.component_distribution.sample(shape)
            dim = len(shape) + len(self.batch_shape)
            event = tuple(self.event_shape)
            index = choice.reshape(tuple(choice.shape) + (1,) * (len(event) + 1))
            index = index.expand((*choice.shape, 1, *event))
            return samples.gather(dim, index).squeeze(dim)

    def __repr__(self) -> str:
        return f"MixtureSameFamily(\n  {self.mixture_distribution},\n  {self.component_distribution})"
