"""Distributions to compare: name, constructor of (module, float64 parameters), parameters, values of the support."""
from __future__ import annotations

from typing import Any

Case = tuple[str, Any, list[Any], Any]
V = [0.3, -1.2, 2.0]
POS = [0.4, 1.7, 3.0]

CASES: list[Case] = [
    ("Normal", lambda d, a, b: d.Normal(a, b), [[0.5, -1.0, 2.0], POS], V),
    ("Uniform", lambda d, a, b: d.Uniform(a, b), [[-2.0, -3.0, 1.0], [0.7, 2.0, 4.0]], V),
    ("Exponential", lambda d, a: d.Exponential(a), [POS], [0.1, 2.0, 5.0]),
    ("Laplace", lambda d, a, b: d.Laplace(a, b), [[0.5, -1.0, 2.5], POS], V),
    ("Cauchy", lambda d, a, b: d.Cauchy(a, b), [[0.5, -1.0, 2.0], POS], V),
]
