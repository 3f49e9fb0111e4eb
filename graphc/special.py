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
from .ops.special_functions import (
    entr,
    erfcx,
    i0,
    i0e,
    i1,
    i1e,
    log_ndtr,
    log_softmax,
    ndtr,
    ndtri,
    polygamma,
    softmax,
    xlog1py,
    zeta,
)
from .ops.special_functions import mvlgamma as multigammaln

__all__ = ["digamma", "entr", "erf", "erfc", "erfcx", "erfinv", "exp2", "expit", "expm1", "gammainc", "gammaincc",
           "gammaln", "i0", "i0e", "i1", "i1e", "log1p", "log_ndtr", "log_softmax", "logit", "logsumexp",
           "multigammaln", "ndtr", "ndtri", "polygamma", "psi", "round", "sinc", "softmax", "xlog1py", "xlogy",
           "zeta"]
