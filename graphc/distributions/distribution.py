"""Base classes of all distributions (``torch.distributions.Distribution``)."""
from __future__ import annotations

from typing import Any

from .. import ops
from ..autograd import enable_grad, grad, no_grad
from ..tensor import Size, Tensor
from . import constraints
from .utils import as_size, known_false, lazy_property


class Distribution:
    """A batch of probability distributions: ``batch_shape`` independent ones, each over events of ``event_shape``.

    Parameters are checked when the object is made (``validate_args=False`` skips it); inside a compiled call values that
    are still pending are not checked, because reading them would split the call.
    """

    has_rsample = False
    has_enumerate_support = False
    _validate_args = __debug__
    arg_constraints: Any = {}
    support: Any = None

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether distributions made from now on check their arguments."""
        if value not in (True, False):
            raise ValueError
        Distribution._validate_args = value

    def __init__(self, batch_shape: Any = (), event_shape: Any = (), validate_args: bool | None = None):
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            self._check_parameters()

    def _check_parameters(self) -> None:
        for name, constraint in self.arg_constraints.items():
            if constraints.is_dependent(constraint):
                continue
            if name not in self.__dict__ and isinstance(getattr(type(self), name, None), lazy_property):
                continue  # derived from a parameter that is checked itself
            value = getattr(self, name)
            with no_grad():
                bad = isinstance(value, Tensor) and known_false(constraint.check(value))
            if bad:
                raise ValueError(f"Expected parameter {name} ({type(value).__name__} of shape {tuple(value.shape)}) of "
                                 f"distribution {self!r} to satisfy the constraint {constraint!r}, but found invalid "
                                 f"values:\n{value}")

    def _validate_sample(self, value: Tensor) -> None:
        """ValueError unless ``value`` fits the shapes and lies in the support."""
        if not isinstance(value, Tensor):
            raise ValueError("The value argument to log_prob must be a Tensor")
        start = value.ndim - len(self._event_shape)
        if tuple(value.shape[max(start, 0):]) != tuple(self._event_shape):
            raise ValueError(f"The right-most size of value must match event_shape: {tuple(value.shape)} vs "
                             f"{tuple(self._event_shape)}.")
        for i, j in zip(reversed(value.shape), reversed(self._batch_shape + self._event_shape)):
            if i != 1 and j != 1 and i != j:
                raise ValueError(f"Value is not broadcastable with batch_shape+event_shape: {tuple(value.shape)} vs "
                                 f"{tuple(self._batch_shape + self._event_shape)}.")
        support = self.support
        if support is None or constraints.is_dependent(support):
            return
        with no_grad():
            bad = known_false(support.check(value))
        if bad:
            raise ValueError(f"Expected value argument ({type(value).__name__} of shape {tuple(value.shape)}) to be within "
                             f"the support ({support!r}) of the distribution {self!r}, but found invalid values:\n{value}")

    # ------------------------------------------------------------------------------------------------------ interface
    @property
    def batch_shape(self) -> Size:
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        return self._event_shape

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distributions broadcast to a larger batch shape."""
        raise NotImplementedError

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError

    @property
    def mode(self) -> Tensor:
        raise NotImplementedError(f"{type(self)} does not implement mode")

    @property
    def variance(self) -> Tensor:
        raise NotImplementedError

    @property
    def stddev(self) -> Tensor:
        """Square root of the variance."""
        return self.variance.sqrt()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of shape ``sample_shape + batch_shape + event_shape``, without gradient."""
        with no_grad():
            return self.rsample(sample_shape).detach()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws that are differentiable in the parameters."""
        raise NotImplementedError

    def sample_n(self, n: int) -> Tensor:
        return self.sample((n,))

    def log_prob(self, value: Tensor) -> Tensor:
        """Logarithm of the density or mass at ``value``: shape ``batch_shape`` broadcast with the sample's."""
        raise NotImplementedError

    def cdf(self, value: Tensor) -> Tensor:
        """Probability of a draw not above ``value``."""
        raise NotImplementedError

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of :meth:`cdf`."""
        raise NotImplementedError

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values of a discrete distribution along a new first dimension."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """Entropy in nats, of shape ``batch_shape``."""
        raise NotImplementedError

    def perplexity(self) -> Tensor:
        """e^entropy."""
        return ops.exp(self.entropy())

    # -------------------------------------------------------------------------------------------------------- helpers
    def _extended_shape(self, sample_shape: Any = ()) -> Size:
        return Size(tuple(as_size(sample_shape)) + tuple(self._batch_shape) + tuple(self._event_shape))

    def _get_checked_instance(self, cls: type, _instance: Any = None) -> Any:
        if _instance is None and type(self).__init__ is not cls.__init__:  # type: ignore[misc]
            raise NotImplementedError(f"Subclass {type(self).__name__} of {cls.__name__} that defines a custom __init__ "
                                      "method must also define a custom .expand() method.")
        return self.__new__(type(self)) if _instance is None else _instance

    def _expanded(self, cls: type, batch_shape: Any, _instance: Any, names: tuple[str, ...],
                  event_dims: dict[str, int] | None = None) -> Any:
        """A copy whose attributes ``names`` (those set) are expanded to ``batch_shape`` plus their own event dimensions."""
        new = self._get_checked_instance(cls, _instance)
        shape = tuple(as_size(batch_shape))
        for name in names:
            if name in self.__dict__:
                t = self.__dict__[name]
                n = (event_dims or {}).get(name, 0)
                new.__dict__[name] = t.expand(shape + tuple(t.shape[t.ndim - n:]))
        Distribution.__init__(new, shape, self._event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def __repr__(self) -> str:
        shown = []
        for name in self.arg_constraints:
            t = self.__dict__.get(name)
            if t is not None:
                one = isinstance(t, Tensor) and t.numel() == 1
                shown.append(f"{name}: {t if one or not isinstance(t, Tensor) else t.size()}")
        return f"{type(self).__name__}({', '.join(shown)})"


class ExponentialFamily(Distribution):
    """Distributions with density h(x) exp(t(x)·eta - A(eta)). Entropy and KL come from A and its gradient unless a
    subclass states them (Nielsen and Nock 2010, "Entropies and cross-entropies of exponential families")."""

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def _mean_carrier_measure(self) -> Any:
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """A(eta) - E[log h(x)] - eta·grad A(eta)."""
        params = [p.detach().requires_grad_() for p in self._natural_params]
        with enable_grad():
            normalizer = self._log_normalizer(*params)
            gradients = grad(normalizer.sum(), params, create_graph=True)
        result = normalizer - self._mean_carrier_measure
        for p, g in zip(params, gradients):
            term = p * g
            result = result - term.reshape(tuple(self._batch_shape) + (-1,)).sum(-1)
        return result
