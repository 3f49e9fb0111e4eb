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
TRIL = [[[1.2, 0.0, 0.0], [0.4, 0.7, 0.0], [-0.3, 0.2, 1.5]]] * 3

FACTOR = [[[0.5, 0.1], [-0.3, 1.2], [0.8, 0.4]], [[1.0, 0.0], [0.2, 0.3], [-0.6, 0.9]], [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]]
CORR_TRIL = [[[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, -0.6, 0.8]]] * 3
PD = [[[2.0, 0.3, -0.1], [0.3, 1.5, 0.2], [-0.1, 0.2, 0.8]]] * 3
DF = [3.5, 4.4, 7.0]

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
    ("LogNormal", lambda d, a, b: d.LogNormal(a, b), [[0.5, -1.0, 2.0], POS], POS),
    ("HalfNormal", lambda d, a: d.HalfNormal(a), [POS], [0.1, 2.0, 0.7]),
    ("HalfCauchy", lambda d, a: d.HalfCauchy(a), [POS], [0.1, 2.0, 0.7]),
    ("Gumbel", lambda d, a, b: d.Gumbel(a, b), [[0.5, -1.0, 2.0], POS], V),
    ("Pareto", lambda d, a, b: d.Pareto(a, b), [POS, [2.5, 3.0, 4.0]], [0.5, 2.0, 7.0]),
    ("Weibull", lambda d, a, b: d.Weibull(a, b), [POS, [2.5, 3.0, 1.5]], [0.5, 2.0, 1.0]),
    ("InverseGamma", lambda d, a, b: d.InverseGamma(a, b), [[3.0, 2.5, 4.0], POS], [0.5, 2.0, 1.0]),
    ("Kumaraswamy", lambda d, a, b: d.Kumaraswamy(a, b), [[1.4, 1.7, 3.0], [1.2, 1.3, 2.0]], UNIT),
    ("LogisticNormal", lambda d, a, b: d.LogisticNormal(a, b), [[[0.5, -1.0]] * 3, [[0.4, 1.7]] * 3], SIMPLEX),
    ("RelaxedBernoulli", lambda d, t, a: d.RelaxedBernoulli(t, a), [0.7, UNIT], UNIT),
    ("RelaxedOneHotCategorical", lambda d, t, a: d.RelaxedOneHotCategorical(t, logits=a), [0.7, ROWS], SIMPLEX),
    ("MultivariateNormal scale_tril", lambda d, a, b: d.MultivariateNormal(a, scale_tril=b.tril()), [ROWS, TRIL], ROWS),
    ("MultivariateNormal covariance", lambda d, a, b: d.MultivariateNormal(a, b @ b.mT), [ROWS, TRIL], ROWS),
    ("MultivariateNormal precision", lambda d, a, b: d.MultivariateNormal(a, precision_matrix=b @ b.mT), [ROWS, TRIL], ROWS),
    ("FisherSnedecor", lambda d, a, b: d.FisherSnedecor(a, b), [[3.5, 1.7, 6.0], [9.0, 12.0, 9.5]], [0.1, 2.0, 0.7]),
    ("VonMises", lambda d, a, b: d.VonMises(a, b), [V, [0.4, 1.7, 80.0]], V),
    ("LowRankMultivariateNormal", lambda d, a, w, b: d.LowRankMultivariateNormal(a, w, b), [ROWS, FACTOR, ROWS], ROWS),
    ("ContinuousBernoulli probs", lambda d, a: d.ContinuousBernoulli(a), [[0.2, 0.4995, 0.9]], UNIT),
    ("ContinuousBernoulli logits", lambda d, a: d.ContinuousBernoulli(logits=a), [[0.3, -1.2, 0.001]], UNIT),
    ("GeneralizedPareto", lambda d, a, b, c: d.GeneralizedPareto(a, b, c), [[0.5, -1.0, 0.2], POS, [0.1, 0.02, -0.3]],
     [0.7, 2.0, 5.0]),
    ("LKJCholesky", lambda d, a: d.LKJCholesky(3, a), [POS], CORR_TRIL),
    ("Wishart scale_tril", lambda d, n, b: d.Wishart(n, scale_tril=b.tril()), [DF, TRIL], PD),
    ("Wishart covariance", lambda d, n, b: d.Wishart(n, b @ b.mT), [DF, TRIL], PD),
    ("Wishart precision", lambda d, n, b: d.Wishart(n, precision_matrix=b @ b.mT), [DF, TRIL], PD),
    ("Independent", lambda d, a, b: d.Independent(d.Normal(a, b), 1), [ROWS, ROWS], ROWS),
    ("TransformedDistribution", lambda d, a, b: d.TransformedDistribution(
        d.Normal(a, b), [d.TanhTransform(), d.AffineTransform(1.0, 2.0)]), [[0.5, -1.0, 2.0], POS], [0.5, 1.2, 2.5]),
    ("MixtureSameFamily", lambda d, w, a, b: d.MixtureSameFamily(d.Categorical(w), d.Normal(a, b)), [ROWS, ROWS, ROWS], V),
]

# name, constructors of p and q of (module, parameters), parameters
KL: list[tuple[str, Any, Any, list[Any]]] = [
    (name, make, make, params) for name, make, params, _ in CASES
    if name.split()[0] not in ("StudentT", "NegativeBinomial", "Multinomial", "HalfCauchy", "Weibull", "Kumaraswamy",
                               "LogisticNormal", "RelaxedBernoulli", "RelaxedOneHotCategorical", "MixtureSameFamily",
                               "InverseGamma", "Uniform", "Pareto", "FisherSnedecor", "VonMises",
                               "GeneralizedPareto", "LKJCholesky", "Wishart", "LowRankMultivariateNormal", "ContinuousBernoulli")]
KL += [
    ("Uniform Uniform", lambda d, a, b: d.Uniform(a, b), lambda d, a, b: d.Uniform(a - 0.3, b + 0.2), [[-2.0, -3.0], [0.7, 2.0]]),
    ("Uniform outside", lambda d, a, b: d.Uniform(a, b), lambda d, a, b: d.Uniform(a + 0.3, b + 0.2), [[-2.0, -3.0], [0.7, 2.0]]),
    ("Pareto", lambda d, a, b: d.Pareto(a, b), lambda d, a, b: d.Pareto(a - 0.1, b + 1), [POS, [2.5, 3.0, 4.0]]),
    ("Uniform Normal", lambda d, a, b: d.Uniform(a, a + b), lambda d, a, b: d.Normal(a, b), [V, POS]),
    ("Normal Laplace", lambda d, a, b: d.Normal(a, b), lambda d, a, b: d.Laplace(a + 0.5, b * 2), [V, POS]),
    ("Laplace Normal", lambda d, a, b: d.Laplace(a, b), lambda d, a, b: d.Normal(a + 0.5, b * 2), [V, POS]),
    ("Exponential Normal", lambda d, a, b: d.Exponential(b), lambda d, a, b: d.Normal(a + 0.5, b * 2), [V, POS]),
    ("Gamma Normal", lambda d, a, b: d.Gamma(b + 1, b), lambda d, a, b: d.Normal(a + 0.5, b * 2), [V, POS]),
    ("Beta Normal", lambda d, a, b: d.Beta(b + 1, b), lambda d, a, b: d.Normal(a + 0.5, b * 2), [V, POS]),
    ("Exponential Gamma", lambda d, b: d.Exponential(b), lambda d, b: d.Gamma(b * 2, b + 1), [POS]),
    ("Gamma Exponential", lambda d, b: d.Gamma(b + 1, b * 2), lambda d, b: d.Exponential(b), [POS]),
    ("Normal Uniform", lambda d, a, b: d.Normal(a, b), lambda d, a, b: d.Uniform(a, a + b), [V, POS]),
    ("Normal Gumbel", lambda d, a, b: d.Normal(a, b), lambda d, a, b: d.Gumbel(a + 0.5, b * 2), [V, POS]),
    ("Gumbel Normal", lambda d, a, b: d.Gumbel(a, b), lambda d, a, b: d.Normal(a + 0.5, b * 2), [V, POS]),
    ("Exponential Gumbel", lambda d, a, b: d.Exponential(b), lambda d, a, b: d.Gumbel(a + 0.5, b * 2), [V, POS]),
    ("Gamma Gumbel", lambda d, a, b: d.Gamma(b + 1, b), lambda d, a, b: d.Gumbel(a + 0.5, b * 2), [V, POS]),
    ("Uniform Gumbel", lambda d, a, b: d.Uniform(a, a + b), lambda d, a, b: d.Gumbel(a + 0.5, b * 2), [V, POS]),
    ("Bernoulli Poisson", lambda d, a, b: d.Bernoulli(a), lambda d, a, b: d.Poisson(b), [UNIT, POS]),
    ("Beta Exponential", lambda d, a, b: d.Beta(a, b), lambda d, a, b: d.Exponential(a + b), [POS, DF]),
    ("Beta Gamma", lambda d, a, b: d.Beta(a, b), lambda d, a, b: d.Gamma(a + b, b), [POS, DF]),
    ("Beta Uniform", lambda d, a, b: d.Beta(a, b), lambda d, a, b: d.Uniform(-a, b), [POS, DF]),
    ("Beta Uniform outside", lambda d, a, b: d.Beta(a, b), lambda d, a, b: d.Uniform(a * 0.1, b), [POS, DF]),
    ("Beta ContinuousBernoulli", lambda d, a, b: d.Beta(b, b + 1), lambda d, a, b: d.ContinuousBernoulli(a), [UNIT, POS]),
    ("ContinuousBernoulli", lambda d, a, b: d.ContinuousBernoulli(a), lambda d, a, b: d.ContinuousBernoulli(a * 0.7), [UNIT, POS]),
    ("ContinuousBernoulli Exponential", lambda d, a, b: d.ContinuousBernoulli(a), lambda d, a, b: d.Exponential(b), [UNIT, POS]),
    ("ContinuousBernoulli Normal", lambda d, a, b: d.ContinuousBernoulli(a), lambda d, a, b: d.Normal(a, b), [UNIT, POS]),
    ("ContinuousBernoulli Uniform", lambda d, a, b: d.ContinuousBernoulli(a), lambda d, a, b: d.Uniform(-b, b + 1), [UNIT, POS]),
    ("ContinuousBernoulli Pareto", lambda d, a, b: d.ContinuousBernoulli(a), lambda d, a, b: d.Pareto(b, b), [UNIT, POS]),
    ("Normal ContinuousBernoulli", lambda d, a, b: d.Normal(a, b), lambda d, a, b: d.ContinuousBernoulli(a), [UNIT, POS]),
    ("Pareto Exponential", lambda d, a, b: d.Pareto(a, b), lambda d, a, b: d.Exponential(a), [POS, [0.8, 3.0, 4.0]]),
    ("Pareto Gamma", lambda d, a, b: d.Pareto(a, b), lambda d, a, b: d.Gamma(a, b), [POS, [0.8, 3.0, 4.0]]),
    ("Pareto Normal", lambda d, a, b: d.Pareto(a, b), lambda d, a, b: d.Normal(a, b), [POS, [1.8, 3.0, 4.0]]),
    ("Uniform Beta", lambda d, a, b: d.Uniform(a * 0.5, a), lambda d, a, b: d.Beta(b, b + 1), [UNIT, POS]),
    ("Uniform Beta outside", lambda d, a, b: d.Uniform(a, a + 2), lambda d, a, b: d.Beta(b, b + 1), [UNIT, POS]),
    ("Uniform ContinuousBernoulli", lambda d, a, b: d.Uniform(a * 0.5, a), lambda d, a, b: d.ContinuousBernoulli(a), [UNIT, POS]),
    ("Uniform Exponential", lambda d, a, b: d.Uniform(a, a + b), lambda d, a, b: d.Exponential(b), [[0.3, -1.0, 2.0], POS]),
    ("Uniform Gamma", lambda d, a, b: d.Uniform(a, a + b), lambda d, a, b: d.Gamma(a + b, b), [UNIT, POS]),
    ("Uniform Pareto", lambda d, a, b: d.Uniform(a + b, a + 2 * b), lambda d, a, b: d.Pareto(b, a), [UNIT, POS]),
    ("LowRank LowRank", lambda d, a, w, b: d.LowRankMultivariateNormal(a, w, b),
     lambda d, a, w, b: d.LowRankMultivariateNormal(a * 2, w + 0.1, b + 0.5), [ROWS, FACTOR, ROWS]),
    ("LowRank Multivariate", lambda d, a, w, b: d.LowRankMultivariateNormal(a, w, a),
     lambda d, a, w, b: d.MultivariateNormal(a * 2, scale_tril=b.tril()), [ROWS, FACTOR, TRIL]),
    ("Multivariate LowRank", lambda d, a, w, b: d.MultivariateNormal(a * 2, scale_tril=b.tril()),
     lambda d, a, w, b: d.LowRankMultivariateNormal(a, w, a), [ROWS, FACTOR, TRIL]),
]
