"""PyTorch's module of :class:`InverseGamma`."""
from .derived import InverseGamma

__all__ = ["InverseGamma"]
