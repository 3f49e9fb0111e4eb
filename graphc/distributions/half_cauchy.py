"""PyTorch's module of :class:`HalfCauchy`."""
from .derived import HalfCauchy

__all__ = ["HalfCauchy"]
