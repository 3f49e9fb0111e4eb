"""PyTorch's module of :class:`ExponentialFamily`."""
from .distribution import ExponentialFamily

__all__ = ["ExponentialFamily"]
