"""Transforms of vectors and matrices: stick breaking, Cholesky factors, transforms side by side."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import linalg, ops
from ..nn import functional as F
from ..tensor import Size, Tensor
from . import constraints
from .transforms_base import Transform, _Same
from .utils import clamp_probs, finfo_of


class StickBreakingTransform(_Same):
    """K - 1 real numbers to a simplex of K: number i breaks the fraction sigmoid(x_i - log(K - i)) off what is left of
    the stick (Stan reference manual, "Unit simplex")."""

    domain, codomain, bijective = constraints.real_vector, constraints.simplex, True

    @staticmethod
    def _offset(n: int, like: Tensor) -> Tensor:
        return (n - ops.arange(n, dtype=like.dtype, device=like.device)).log()

    def _call(self, x: Tensor) -> Tensor:
        z = clamp_probs(ops.sigmoid(x - self._offset(x.shape[-1], x)))
        left = (1 - z).cumprod(-1)
        pad = F.pad
        return pad(z, [0, 1], value=1.0) * pad(left, [1, 0], value=1.0)

    def _inverse(self, y: Tensor) -> Tensor:
        head = y[..., :-1]
        left = (1 - head.cumsum(-1)).clamp(min=finfo_of(y).tiny)
        return head.log() - left.log() + self._offset(head.shape[-1], y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        x = x - self._offset(x.shape[-1], x)
        return (-x + F.logsigmoid(x) + y[..., :-1].log()).sum(-1)

    def forward_shape(self, shape: Any) -> Size:
        if len(shape) < 1:
            raise ValueError("Too few dimensions on input")
        return Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Any) -> Size:
        if len(shape) < 1:
            raise ValueError("Too few dimensions on input")
        return Size((*shape[:-1], shape[-1] - 1))


class LowerCholeskyTransform(_Same):
    """Unconstrained matrices to lower triangular ones with positive diagonal (exp on the diagonal)."""

    domain, codomain = constraints.independent(constraints.real, 2), constraints.lower_cholesky

    def _call(self, x: Tensor) -> Tensor:
        return x.tril(-1) + x.diagonal(dim1=-2, dim2=-1).exp().diag_embed()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.tril(-1) + y.diagonal(dim1=-2, dim2=-1).log().diag_embed()


class PositiveDefiniteTransform(_Same):
    """Unconstrained matrices to positive definite ones: L L^T of :class:`LowerCholeskyTransform`."""

    domain, codomain = constraints.independent(constraints.real, 2), constraints.positive_definite

    def _call(self, x: Tensor) -> Tensor:
        low = LowerCholeskyTransform()(x)
        return low @ low.mT

    def _inverse(self, y: Tensor) -> Tensor:
        return LowerCholeskyTransform().inv(linalg.cholesky(y))


class CorrCholeskyTransform(_Same):
    """D (D - 1) / 2 real numbers to the Cholesky factor of a D x D correlation matrix.

    Row by row: z = tanh(x) are canonical partial correlations, and each takes its share of what the row's unit length
    has left (Lewandowski, Kurowicka and Joe 2009).
    """

    domain, codomain, bijective = constraints.real_vector, constraints.corr_cholesky, True

    @staticmethod
    def _side(n: int) -> int:
        d = int(round((0.25 + 2 * n) ** 0.5 + 0.5))
        if d * (d - 1) // 2 != n:
            raise ValueError("Input is not a flattened lower-diagonal number")
        return d

    @staticmethod
    def _strictly_lower(v: Tensor, d: int) -> Tensor:
        rows, cols = ops.tril_indices(d, d, -1)
        out = v.new_zeros((*v.shape[:-1], d, d))
        out[..., rows, cols] = v
        return out

    def _call(self, x: Tensor) -> Tensor:
        eps = finfo_of(x).eps
        r = self._strictly_lower(ops.tanh(x).clamp(min=-1 + eps, max=1 - eps), self._side(x.shape[-1]))
        left = (1 - r * r).sqrt().cumprod(-1)
        r = r + ops.eye(r.shape[-1], dtype=r.dtype, device=r.device)
        return r * F.pad(left[..., :-1], [1, 0], value=1)

    def _inverse(self, y: Tensor) -> Tensor:
        left = F.pad((1 - (y * y).cumsum(-1))[..., :-1], [1, 0], value=1)
        d = y.shape[-1]
        rows, cols = ops.tril_indices(d, d, -1)
        t = y[..., rows, cols] / left[..., rows, cols].sqrt()
        return (ops.log1p(t) - ops.log1p(-t)) / 2

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        left = 1 - (y * y).cumsum(-1)
        d = y.shape[-1]
        rows, cols = ops.tril_indices(d, d, -2)
        shares = 0.5 * left[..., rows, cols].log().sum(-1)
        tanh = -2 * (x + F.softplus(-2 * x) - 0.6931471805599453).sum(-1)
        return shares + tanh

    def forward_shape(self, shape: Any) -> Size:
        d = self._side(shape[-1])
        return Size((*shape[:-1], d, d))

    def inverse_shape(self, shape: Any) -> Size:
        if len(shape) < 2 or shape[-2] != shape[-1]:
            raise ValueError("Input is not square")
        d = shape[-1]
        return Size((*shape[:-2], d * (d - 1) // 2))


class CatTransform(Transform):
    """Transforms of consecutive parts along ``dim``."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, lengths: Sequence[int] | None = None, cache_size: int = 0):
        super().__init__(cache_size=cache_size)
        self.transforms = [t.with_cache(cache_size) for t in tseq] if cache_size else list(tseq)
        self.lengths = [1] * len(self.transforms) if lengths is None else list(lengths)
        self.dim = dim

    @property
    def event_dim(self) -> int:
        return max(t.event_dim for t in self.transforms)

    @property
    def domain(self) -> Any:  # type: ignore[override]
        return constraints.cat([t.domain for t in self.transforms], self.dim, self.lengths)

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        return constraints.cat([t.codomain for t in self.transforms], self.dim, self.lengths)

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return all(t.bijective for t in self.transforms)

    def with_cache(self, cache_size: int = 1) -> Any:
        if self._cache_size == cache_size:
            return self
        return CatTransform(self.transforms, self.dim, self.lengths, cache_size)

    def _parts(self, x: Tensor) -> list[Tensor]:
        return list(x.split(self.lengths, self.dim))

    def _call(self, x: Tensor) -> Tensor:
        return ops.cat([t(p) for t, p in zip(self.transforms, self._parts(x))], self.dim)

    def _inverse(self, y: Tensor) -> Tensor:
        return ops.cat([t.inv(p) for t, p in zip(self.transforms, self._parts(y))], self.dim)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        terms = [t.log_abs_det_jacobian(a, b) for t, a, b in zip(self.transforms, self._parts(x), self._parts(y))]
        dim = self.dim - x.ndim if self.dim >= 0 else self.dim
        dim += self.event_dim
        if dim < 0:
            return ops.cat(terms, dim)
        total = terms[0]
        for t in terms[1:]:
            total = total + t
        return total


class StackTransform(Transform):
    """Transform ``i`` of ``x.select(dim, i)``."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, cache_size: int = 0):
        super().__init__(cache_size=cache_size)
        self.transforms = [t.with_cache(cache_size) for t in tseq] if cache_size else list(tseq)
        self.dim = dim

    @property
    def domain(self) -> Any:  # type: ignore[override]
        return constraints.stack([t.domain for t in self.transforms], self.dim)

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        return constraints.stack([t.codomain for t in self.transforms], self.dim)

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return all(t.bijective for t in self.transforms)

    def with_cache(self, cache_size: int = 1) -> Any:
        return self if self._cache_size == cache_size else StackTransform(self.transforms, self.dim, cache_size)

    def _parts(self, x: Tensor) -> list[Tensor]:
        return list(x.unbind(self.dim))

    def _call(self, x: Tensor) -> Tensor:
        return ops.stack([t(p) for t, p in zip(self.transforms, self._parts(x))], self.dim)

    def _inverse(self, y: Tensor) -> Tensor:
        return ops.stack([t.inv(p) for t, p in zip(self.transforms, self._parts(y))], self.dim)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return ops.stack([t.log_abs_det_jacobian(a, b)
                             for t, a, b in zip(self.transforms, self._parts(x), self._parts(y))], self.dim)
