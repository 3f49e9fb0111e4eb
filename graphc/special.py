"""``torch.special``: the special functions graphc has."""
from .ops.gamma_functions import gammainc, gammaincc
from .ops.pointwise import (
    digamma,
    erf,
    erfc,
    erfinv,
    exp2,
    expit,
    expm1,
    log1p,
    logit,
    round,
    sinc,
    xlogy,
)
from .ops.pointwise import digamma as psi
from .ops.pointwise import lgamma as gammaln
from .ops.reduction import logsumexp

__all__ = ["digamma", "erf", "erfc", "erfinv", "exp2", "expit", "expm1", "gammainc", "gammaincc", "gammaln", "log1p", "logit",
           "logsumexp", "psi", "round", "sinc", "xlogy"]
