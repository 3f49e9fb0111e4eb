"""Distributions to compare: name, constructor of (module, float64 parameters), parameters, values of the support."""
from __future__ import annotations

from typing import Any

Case = tuple[str, Any, list[Any], Any]
V = [0.3, -1.2, 2.0]
POS = [0.4, 1.7, 3.0]
UNIT = [0.2, 0.55, 0.9]
COUNTS = [0.0, 2.0, 5.0]
ROWS = [[0.2, 0.5, 1.3], [2.0, 0.4, 0.1], [1.0, 1.5, 3.0]]
SIMPLEX = [[0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25]]
ONE_HOT = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]

CASES: list[Case] = [
    ("Normal", lambda d, a, b: d.Normal(a, b), [[0.5, -1.0, 2.0], POS], V),
    ("Uniform", lambda d, a, b: d.Uniform(a, b), [[-2.0, -3.0, 1.0], [0.7, 2.0, 4.0]], V),
    ("Exponential", lambda d, a: d.Exponential(a), [POS], [0.1, 2.0, 5.0]),
    ("Laplace", lambda d, a, b: d.Laplace(a, b), [[0.5, -1.0, 2.5], POS], V),
    ("Cauchy", lambda d, a, b: d.Cauchy(a, b), [[0.5, -1.0, 2.0], POS], V),
    ("Gamma", lambda d, a, b: d.Gamma(a, b), [POS, [1.0, 0.3, 2.0]], [0.1, 2.0, 0.7]),
    ("Chi2", lambda d, a: d.Chi2(a), [POS], [0.1, 2.0, 0.7]),
    ("Beta", lambda d, a, b: d.Beta(a, b), [[0.4, 1.7, 3.0], [1.2, 0.3, 2.0]], UNIT),
    ("Dirichlet", lambda d, a: d.Dirichlet(a), [ROWS], SIMPLEX),
    ("StudentT", lambda d, a, b, c: d.StudentT(a, b, c), [[0.7, 1.5, 4.0], [0.5, -1.0, 2.0], POS], V),
    ("Bernoulli probs", lambda d, a: d.Bernoulli(a), [UNIT], [0.0, 1.0, 1.0]),
    ("Bernoulli logits", lambda d, a: d.Bernoulli(logits=a), [V], [0.0, 1.0, 1.0]),
    ("Categorical probs", lambda d, a: d.Categorical(a), [ROWS], [0.0, 2.0, 1.0]),
    ("Categorical logits", lambda d, a: d.Categorical(logits=a), [ROWS], [0.0, 2.0, 1.0]),
    ("OneHotCategorical", lambda d, a: d.OneHotCategorical(a), [ROWS], ONE_HOT),
    ("OneHotCategoricalStraightThrough", lambda d, a: d.OneHotCategoricalStraightThrough(logits=a), [ROWS], ONE_HOT),
    ("Poisson", lambda d, a: d.Poisson(a), [POS], COUNTS),
    ("Geometric probs", lambda d, a: d.Geometric(a), [UNIT], COUNTS),
    ("Geometric logits", lambda d, a: d.Geometric(logits=a), [V], COUNTS),
    ("Binomial probs", lambda d, a: d.Binomial(5, a), [UNIT], COUNTS),
    ("Binomial logits", lambda d, a: d.Binomial(5, logits=a), [V], COUNTS),
    ("NegativeBinomial", lambda d, a: d.NegativeBinomial(3.5, logits=a), [V], COUNTS),
    ("Multinomial", lambda d, a: d.Multinomial(6, a), [ROWS], [[1.0, 2.0, 3.0], [0.0, 6.0, 0.0], [4.0, 1.0, 1.0]]),
]
