"""PyTorch's module of :class:`LogNormal`."""
from .derived import LogNormal

__all__ = ["LogNormal"]
