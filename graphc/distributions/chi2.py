"""Chi-squared distribution."""
from .gamma import Chi2

__all__ = ["Chi2"]
