"""PyTorch's module of :class:`Weibull`."""
from .derived import Weibull

__all__ = ["Weibull"]
