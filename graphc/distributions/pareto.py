"""PyTorch's module of :class:`Pareto`."""
from .derived import Pareto

__all__ = ["Pareto"]
