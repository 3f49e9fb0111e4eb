"""PyTorch's module of :class:`LogisticNormal`."""
from .derived import LogisticNormal

__all__ = ["LogisticNormal"]
