"""Wishart distribution over positive definite matrices."""
from __future__ import annotations

import math
from typing import Any

from .. import linalg, ops
from ..tensor import Tensor
from . import constraints
from .distribution import ExponentialFamily
from .gamma import Chi2
from .multivariate_normal import precision_to_scale_tril
from .utils import as_size, lazy_property, standard_normal


def mvdigamma(x: Tensor, p: int) -> Tensor:
    """The derivative of the logarithm of the multivariate gamma function of dimension p."""
    return ops.digamma(x.unsqueeze(-1) - ops.arange(p, dtype=x.dtype, device=x.device) / 2).sum(-1)


class Wishart(ExponentialFamily):
    """The law of X^T X for ``df`` rows X of normal vectors with mean zero and the given covariance (p x p).

    One of ``covariance_matrix``, ``precision_matrix`` and ``scale_tril``; ``df`` above p - 1 (ValueError). Draws use Bartlett's
    decomposition (Smith and Hocking 1972), so nothing needs to be redrawn and they are differentiable.
    """

    support = constraints.positive_definite
    has_rsample = True
    _mean_carrier_measure = 0
    df: Tensor

    @property
    def arg_constraints(self) -> Any:  # type: ignore[override]
        return {"covariance_matrix": constraints.positive_definite, "precision_matrix": constraints.positive_definite,
                "scale_tril": constraints.lower_cholesky, "df": constraints.greater_than(self._event_shape[-1] - 1)}

    def __init__(self, df: Any, covariance_matrix: Tensor | None = None, precision_matrix: Tensor | None = None,
                 scale_tril: Tensor | None = None, validate_args: bool | None = None):
        given = {"covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix, "scale_tril": scale_tril}
        matrices = {k: m for k, m in given.items() if m is not None}
        if len(matrices) != 1:
            raise AssertionError("Exactly one of covariance_matrix or precision_matrix or scale_tril may be specified.")
        ((name, matrix),) = matrices.items()
        if matrix.ndim < 2:
            raise ValueError("scale_tril must be at least two-dimensional, with optional leading batch dimensions")
        df = df if isinstance(df, Tensor) else ops.tensor(df, dtype=matrix.dtype, device=matrix.device)
        batch = tuple(ops.broadcast_shapes(tuple(df.shape), tuple(matrix.shape[:-2])))
        event = tuple(matrix.shape[-2:])
        if bool((df <= event[-1] - 1).any().item()):
            raise ValueError(f"Value of df={df} expected to be greater than ndim - 1 = {event[-1] - 1}.")
        self.df = df.expand(batch)
        self.__dict__[name] = matrix.expand(batch + event)
        self._event_shape = event  # type: ignore[assignment]
        super().__init__(batch, event, validate_args=validate_args)
        if name == "scale_tril":
            self._unbroadcasted_scale_tril = matrix
        elif name == "covariance_matrix":
            self._unbroadcasted_scale_tril = linalg.cholesky(matrix)
        else:
            self._unbroadcasted_scale_tril = precision_to_scale_tril(matrix)
        self._set_chi2()

    def _set_chi2(self) -> None:
        p = self._event_shape[-1]
        steps = ops.arange(p, dtype=self.df.dtype, device=self.df.device)
        self._dist_chi2 = Chi2(self.df.unsqueeze(-1) - steps, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._expanded(Wishart, tuple(as_size(batch_shape)), _instance,
                             ("df", "covariance_matrix", "scale_tril", "precision_matrix"),
                             {"covariance_matrix": 2, "scale_tril": 2, "precision_matrix": 2})
        new._unbroadcasted_scale_tril = self._unbroadcasted_scale_tril
        new._set_chi2()
        return new

    def _full(self, matrix: Tensor) -> Tensor:
        return matrix.expand(tuple(self._batch_shape + self._event_shape))

    @lazy_property
    def scale_tril(self) -> Tensor:
        return self._full(self._unbroadcasted_scale_tril)

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        low = self._unbroadcasted_scale_tril
        return self._full(low @ low.mT)

    @lazy_property
    def precision_matrix(self) -> Tensor:
        low = self._unbroadcasted_scale_tril
        eye = ops.eye(low.shape[-1], dtype=low.dtype, device=low.device)
        return self._full(ops.cholesky_solve(eye.expand(tuple(low.shape)), low))

    def _per_matrix(self, t: Tensor) -> Tensor:
        return t.reshape((*self._batch_shape, 1, 1))

    @property
    def mean(self) -> Tensor:
        return self._per_matrix(self.df) * self.covariance_matrix

    @property
    def mode(self) -> Tensor:
        """Undefined (NaN) up to df = p + 1."""
        factor = self.df - self._event_shape[-1] - 1
        return self._per_matrix(ops.where(factor <= 0, math.nan, factor)) * self.covariance_matrix

    @property
    def variance(self) -> Tensor:
        v = self.covariance_matrix
        d = v.diagonal(dim1=-2, dim2=-1)
        return self._per_matrix(self.df) * (v.pow(2) + d.unsqueeze(-1) * d.unsqueeze(-2))

    def rsample(self, sample_shape: Any = (), max_try_correction: int | None = None) -> Tensor:
        """``max_try_correction`` is accepted: draws are products of triangular matrices with a positive diagonal."""
        shape = tuple(as_size(sample_shape))
        noise = standard_normal(self._extended_shape(shape), self._unbroadcasted_scale_tril).tril(-1)
        low = noise + self._dist_chi2.rsample(shape).sqrt().diag_embed()
        factor = self._unbroadcasted_scale_tril @ low
        return factor @ factor.mT

    def _half_log_det(self) -> Tensor:
        return self._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        nu, p = self.df, self._event_shape[-1]
        low = self._unbroadcasted_scale_tril
        shape = tuple(ops.broadcast_shapes(tuple(low.shape[:-2]), tuple(value.shape[:-2])))
        solved = ops.cholesky_solve(value.expand((*shape, p, p)), low.expand((*shape, p, p)))
        trace = solved.diagonal(dim1=-2, dim2=-1).sum(-1)
        return (-nu * (p * math.log(2) / 2 + self._half_log_det()) - ops.mvlgamma(nu / 2, p)
                + (nu - p - 1) / 2 * linalg.slogdet(value).logabsdet - trace / 2)

    def entropy(self) -> Tensor:
        nu, p = self.df, self._event_shape[-1]
        h = ((p + 1) * (self._half_log_det() + p * math.log(2) / 2) + ops.mvlgamma(nu / 2, p)
             - (nu - p - 1) / 2 * mvdigamma(nu / 2, p) + nu * p / 2)
        return h.expand(tuple(self._batch_shape))

    @property
    def _natural_params(self) -> tuple[Tensor, Tensor]:
        return -self.precision_matrix / 2, (self.df - self._event_shape[-1] - 1) / 2

    def _log_normalizer(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        p = self._event_shape[-1]
        top = y + (p + 1) / 2
        return top * (-linalg.slogdet(-2 * x).logabsdet + math.log(2) * p) + ops.mvlgamma(top, p)
