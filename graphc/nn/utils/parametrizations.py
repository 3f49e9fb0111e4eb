"""Ready-made parametrizations: weight norm, spectral norm, orthogonal matrices."""
from __future__ import annotations

from typing import Any, TypeVar

from ... import linalg, ops
from ...autograd import no_grad
from ...tensor import Tensor
from .. import functional as F
from ..module import Module
from .parametrize import register_parametrization
from .spectral_norm import default_dim, weight_matrix
from .weight_norm import norm_except_dim, weight_norm_value

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]

M = TypeVar("M", bound=Module)


class _WeightNorm(Module):
    """``g * v / |v|`` (Salimans and Kingma 2016)."""

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weight_norm_value(weight_v, weight_g, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except_dim(weight, self.dim), weight


class _OldKeys:
    """Before loading: accept the keys ``name_g`` and ``name_v`` of the hook-based form."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        old = [f"{prefix}{self.name}_g", f"{prefix}{self.name}_v"]
        if all(key in state_dict for key in old):
            for i, key in enumerate(old):
                state_dict[f"{prefix}parametrizations.{self.name}.original{i}"] = state_dict.pop(key)


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Parametrize ``name`` by magnitude (``original0``) and direction (``original1``)."""
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)
    module._register_load_state_dict_pre_hook(_OldKeys(name))
    return module


class _SpectralNorm(Module):
    """``weight / sigma``, the largest singular value by power iteration (Miyato et al. 2018)."""

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        ndim = weight.dim()
        if not -ndim <= dim < ndim:
            raise IndexError(f"Dimension out of range (expected to be in range of [-{ndim}, {ndim - 1}] but got {dim})")
        if n_power_iterations <= 0:
            raise ValueError("Expected n_power_iterations to be positive, but got "
                             f"n_power_iterations={n_power_iterations}")
        self.dim = dim % ndim
        self.eps = eps
        if ndim > 1:  # a vector needs no iteration: its only singular value is its norm
            self.n_power_iterations = n_power_iterations
            with no_grad():
                matrix = weight_matrix(weight, self.dim)
                where: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
                u, v = (ops.empty(n, **where).normal_(0, 1) for n in matrix.shape)
                self.register_buffer("_u", F.normalize(u, dim=0, eps=eps))
                self.register_buffer("_v", F.normalize(v, dim=0, eps=eps))
                self._power_method(matrix, 15)

    def _power_method(self, matrix: Tensor, n_power_iterations: int) -> None:
        with no_grad():
            for _ in range(n_power_iterations):
                self._u.copy_(F.normalize(matrix.mv(self._v), dim=0, eps=self.eps))
                self._v.copy_(F.normalize(matrix.t().mv(self._u), dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        if weight.dim() == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = weight_matrix(weight, self.dim)
        if self.training:
            self._power_method(matrix, self.n_power_iterations)
        # Copies: backward must see the vectors of this call, not those of the next.
        u, v = self._u.clone(), self._v.clone()
        return weight / ops.dot(u, matrix.mv(v))

    def right_inverse(self, value: Tensor) -> Tensor:
        return value  # assumed to be normalised already


def spectral_norm(module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
                  dim: int | None = None) -> M:
    """Parametrize ``name`` so that its largest singular value is 1.

    Raises:
        ValueError: no tensor of that name, or iterations not positive.
        IndexError: ``dim`` out of range.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    dim = default_dim(module) if dim is None else dim
    register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))
    return module


def _orthogonalized(a: Tensor) -> Tensor:
    """The Q of a QR factorization whose R has a positive diagonal."""
    reflectors, tau = ops.geqrf(a)
    return linalg.householder_product(reflectors, tau) * reflectors.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)


class _Orthogonal(Module):
    """Matrices with orthonormal columns (or rows, if wide) from free ones: ``matrix_exp`` or the Cayley map of a skew-symmetric
    matrix, or a product of Householder reflections (Lezcano-Casado 2019, "Trivializations for gradient-based optimization")."""

    base: Tensor | None

    def __init__(self, orthogonal_map: str, use_trivialization: bool) -> None:
        super().__init__()
        self.orthogonal_map, self.use_trivialization = orthogonal_map, use_trivialization
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        wide = X.shape[-2] < X.shape[-1]
        x = X.mT if wide else X
        n, k = x.shape[-2:]
        if self.orthogonal_map == "householder":
            below = x.tril(-1)
            tau = 2.0 / (1.0 + (below * below.conj()).sum(-2))
            q = linalg.householder_product(below, tau) * x.diagonal(dim1=-2, dim2=-1).int().unsqueeze(-2)
        else:
            low = x.tril()
            if n != k:
                low = ops.cat([low, low.new_zeros((*low.shape[:-1], n - k))], -1)
            skew = low - low.mH
            if self.orthogonal_map == "matrix_exp":
                q = linalg.matrix_exp(skew)
            else:
                eye = ops.eye(n, dtype=skew.dtype, device=skew.device)
                q = linalg.solve(eye - 0.5 * skew, eye + 0.5 * skew)
            q = q[..., :k]
        if self.use_trivialization and self.base is not None:
            q = self.base @ q
        return q.mT if wide else q

    @no_grad()
    def right_inverse(self, Q: Tensor) -> Tensor:
        """The free matrix of an orthogonal one (made orthogonal first). NotImplementedError without a base, but for
        Householder reflections."""
        wide = Q.shape[-2] < Q.shape[-1]
        q = Q.mT if wide else Q
        n, k = q.shape[-2:]
        if not self.use_trivialization:
            if self.orthogonal_map != "householder":
                raise NotImplementedError("It is not possible to assign to the matrix exponential or the Cayley "
                                          "parametrizations when use_trivialization=False.")
            a, tau = ops.geqrf(q)
            sign = a.diagonal(dim1=-2, dim2=-1).sign()
            sign = ops.where(tau == 0, -sign, sign)
            a = a - a.diagonal(dim1=-2, dim2=-1).diag_embed() if n == k else a * (1 - ops.eye(n, k, dtype=a.dtype))
            a = a + ops.eye(n, k, dtype=a.dtype, device=a.device) * sign.unsqueeze(-2)
            return a.mT if wide else a
        if n != k:
            q = ops.cat([q, ops.randn((*q.shape[:-1], n - k), dtype=q.dtype, device=q.device)], -1)
        self.base = _orthogonalized(q)
        return -ops.eye(Q.shape[-2], Q.shape[-1], dtype=Q.dtype, device=Q.device).expand(tuple(Q.shape)).clone()


def orthogonal(module: M, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True) -> M:
    """Keep a matrix (or a batch of them) orthogonal while it is trained.

    ``orthogonal_map``: "matrix_exp", "cayley" or "householder" (default: "matrix_exp" for square matrices, else "householder").
    ValueError for vectors, unknown maps, and complex matrices with "householder".
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if weight.ndim < 2:
        raise ValueError(f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions.")
    if orthogonal_map is None:
        square = weight.shape[-2] == weight.shape[-1]
        orthogonal_map = "matrix_exp" if square or weight.is_complex() else "householder"
    if orthogonal_map not in ("matrix_exp", "cayley", "householder"):
        raise ValueError(f'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: {orthogonal_map}')
    if orthogonal_map == "householder" and weight.is_complex():
        raise ValueError("The householder parametrization does not support complex tensors.")
    register_parametrization(module, name, _Orthogonal(orthogonal_map, use_trivialization), unsafe=True)
    return module
