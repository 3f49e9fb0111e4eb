"""PyTorch's module of :class:`HalfNormal`."""
from .derived import HalfNormal

__all__ = ["HalfNormal"]
