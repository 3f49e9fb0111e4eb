"""PyTorch's module of :class:`Gumbel`."""
from .derived import Gumbel

__all__ = ["Gumbel"]
