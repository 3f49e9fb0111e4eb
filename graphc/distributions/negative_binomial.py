"""Negative binomial distribution."""
from .binomial import NegativeBinomial

__all__ = ["NegativeBinomial"]
