"""PyTorch's module of :class:`Kumaraswamy`."""
from .derived import Kumaraswamy

__all__ = ["Kumaraswamy"]
