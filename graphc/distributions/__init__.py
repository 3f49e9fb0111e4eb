"""``torch.distributions``: probability distributions, transforms and Kullback-Leibler divergences."""
from __future__ import annotations

from . import constraints
from .cauchy import Cauchy
from .distribution import Distribution, ExponentialFamily
from .exponential import Exponential
from .laplace import Laplace
from .normal import Normal
from .uniform import Uniform

__all__ = ["Cauchy", "Distribution", "Exponential", "ExponentialFamily", "Laplace", "Normal", "Uniform", "constraints"]
