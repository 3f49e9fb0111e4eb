"""Multivariate normal whose covariance is a low-rank matrix plus a diagonal."""
from __future__ import annotations

import math
from typing import Any

from .. import linalg, ops
from ..tensor import Tensor
from . import constraints
from .distribution import Distribution
from .multivariate_normal import batch_mahalanobis
from .utils import as_size, lazy_property, standard_normal


def capacitance_tril(factor: Tensor, diag: Tensor) -> Tensor:
    """Cholesky factor of I + W^T D^-1 W (m x m): what stands for the n x n covariance by Woodbury's identity."""
    small = factor.mT @ (factor / diag.unsqueeze(-1))
    return linalg.cholesky(small + ops.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device))


def lowrank_logdet(diag: Tensor, tril: Tensor) -> Tensor:
    """log det(W W^T + D) by the matrix determinant lemma."""
    return 2 * tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) + diag.log().sum(-1)


def lowrank_mahalanobis(factor: Tensor, diag: Tensor, x: Tensor, tril: Tensor) -> Tensor:
    """x^T (W W^T + D)^-1 x over the last dimension, by Woodbury's identity."""
    scaled = x / diag
    inner = (factor.mT @ scaled.unsqueeze(-1)).squeeze(-1)
    return (x * scaled).sum(-1) - batch_mahalanobis(tril, inner)


class LowRankMultivariateNormal(Distribution):
    """Normal vectors of length n with covariance ``cov_factor @ cov_factor.T + diag(cov_diag)``.

    ``loc`` (*, n), ``cov_factor`` (*, n, m), ``cov_diag`` (*, n), positive. Every quantity costs O(n m^2 + m^3). ValueError
    for shapes that do not fit.
    """

    arg_constraints = {"loc": constraints.real_vector, "cov_factor": constraints.independent(constraints.real, 2),
                       "cov_diag": constraints.independent(constraints.positive, 1)}
    support = constraints.real_vector
    has_rsample = True
    loc: Tensor

    def __init__(self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None):
        if loc.ndim < 1:
            raise ValueError("loc must be at least one-dimensional.")
        n = loc.shape[-1]
        if cov_factor.ndim < 2:
            raise ValueError("cov_factor must be at least two-dimensional, with optional leading batch dimensions")
        if cov_factor.shape[-2] != n:
            raise ValueError(f"cov_factor must be a batch of matrices with shape {n} x m")
        if cov_diag.ndim < 1 or cov_diag.shape[-1] != n:
            raise ValueError(f"cov_diag must be a batch of vectors with shape {(n,)}")
        try:
            batch = tuple(ops.broadcast_shapes(tuple(loc.shape[:-1]), tuple(cov_factor.shape[:-2]), tuple(cov_diag.shape[:-1])))
        except RuntimeError as error:
            raise ValueError(f"Incompatible batch shapes: loc {loc.shape}, cov_factor {cov_factor.shape}, cov_diag "
                             f"{cov_diag.shape}") from error
        self.loc, self.cov_diag = loc.expand((*batch, n)), cov_diag.expand((*batch, n))
        self.cov_factor = cov_factor.expand((*batch, *cov_factor.shape[-2:]))
        self._unbroadcasted_cov_factor, self._unbroadcasted_cov_diag = cov_factor, cov_diag
        self._capacitance_tril = capacitance_tril(cov_factor, cov_diag)
        super().__init__(batch, (n,), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._expanded(LowRankMultivariateNormal, tuple(as_size(batch_shape)), _instance,
                             ("loc", "cov_factor", "cov_diag"), {"loc": 1, "cov_factor": 2, "cov_diag": 1})
        for name in ("_unbroadcasted_cov_factor", "_unbroadcasted_cov_diag", "_capacitance_tril"):
            new.__dict__[name] = self.__dict__[name]
        return new

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @lazy_property
    def variance(self) -> Tensor:  # type: ignore[override]
        v = self._unbroadcasted_cov_factor.pow(2).sum(-1) + self._unbroadcasted_cov_diag
        return v.expand(tuple(self._batch_shape + self._event_shape))

    def _full(self, matrix: Tensor) -> Tensor:
        n = self._event_shape[0]
        return matrix.expand((*self._batch_shape, n, n))

    @lazy_property
    def scale_tril(self) -> Tensor:
        """Cholesky factor of the covariance: D^1/2 times that of D^-1/2 W W^T D^-1/2 + I, which is well conditioned."""
        root = self._unbroadcasted_cov_diag.sqrt().unsqueeze(-1)
        scaled = self._unbroadcasted_cov_factor / root
        eye = ops.eye(self._event_shape[0], dtype=self.loc.dtype, device=self.loc.device)
        return self._full(root * linalg.cholesky(scaled @ scaled.mT + eye))

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        w = self._unbroadcasted_cov_factor
        return self._full(w @ w.mT + self._unbroadcasted_cov_diag.diag_embed())

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """D^-1 - D^-1 W C^-1 W^T D^-1 with the capacitance C (Woodbury)."""
        diag = self._unbroadcasted_cov_diag
        right = self._unbroadcasted_cov_factor.mT / diag.unsqueeze(-2)
        low = self._capacitance_tril
        shape = ops.broadcast_shapes(tuple(right.shape[:-2]), tuple(low.shape[:-2]))
        half = linalg.solve_triangular(low.expand((*shape, *low.shape[-2:])), right.expand((*shape, *right.shape[-2:])),
                                       upper=False)
        return self._full(diag.reciprocal().diag_embed() - half.mT @ half)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        low = standard_normal((*shape[:-1], self.cov_factor.shape[-1]), self.loc)
        along = (self._unbroadcasted_cov_factor @ low.unsqueeze(-1)).squeeze(-1)
        return self.loc + along + self._unbroadcasted_cov_diag.sqrt() * standard_normal(shape, self.loc)

    def _log_det(self) -> Tensor:
        return lowrank_logdet(self._unbroadcasted_cov_diag, self._capacitance_tril)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        m = lowrank_mahalanobis(self._unbroadcasted_cov_factor, self._unbroadcasted_cov_diag, value - self.loc,
                                self._capacitance_tril)
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + self._log_det() + m)

    def entropy(self) -> Tensor:
        h = 0.5 * (self._event_shape[0] * (1.0 + math.log(2 * math.pi)) + self._log_det())
        return h.expand(tuple(self._batch_shape))
