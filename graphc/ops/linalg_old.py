"""Linear algebra under ``torch.*`` and as Tensor methods: the names older than ``torch.linalg``."""
from __future__ import annotations

import math
from typing import Any

from ..dtypes import int64
from ..errors import AutogradError, ShapeError
from ..ir import build as P
from ..ir.optable import OPS
from ..ir.prims import linalg_values as F
from ..ir.recorder import apply
from ..tensor import Tensor, wrap
from . import linalg as _L
from ._common import to_out, val
from ._linalg_common import matrices, results, same_batch, square
from ._named import named_result as _named_result
from .linalg import det, matrix_exp, matrix_power, slogdet
from .linalg_norm import householder_product

svd_result: Any = _named_result("svd", ["U", "S", "V"])
qr_result: Any = _named_result("qr", ["Q", "R"])
triangular_result: Any = _named_result("triangular_solve", ["solution", "cloned_coefficient"])
geqrf_result: Any = _named_result("geqrf", ["a", "tau"])
lu_unpack_result: Any = _named_result("lu_unpack", ["P", "L", "U"])


def inverse(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """:func:`torch.linalg.inv`."""
    return _L.inv(input, out=out)


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """:func:`torch.linalg.pinv` with a fixed relative tolerance."""
    return _L.pinv(input, rcond)


def logdet(input: Tensor) -> Tensor:
    """log of determinants: -inf for 0; NaN for negative ones."""
    sign, log_abs = apply(OPS["linalg_slogdet"], (square("logdet", input),))
    if sign.aval.dtype.is_complex:
        return wrap(P.add(P.log(sign), P.cast(log_abs, sign.aval.dtype)))
    return wrap(P.where(P.eq(sign, -1), P.full_like(log_abs, math.nan), log_abs))


def cholesky(input: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Tensor:
    """:func:`torch.linalg.cholesky`."""
    return _L.cholesky(input, upper=upper, out=out)


def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Tensor:
    """X of A X = B where A = L L^H (upper: A = L^H L)."""
    b, f = matrices("cholesky_solve", B, "B"), square("cholesky_solve", L, "A")
    if b.aval.shape[-2] != f.aval.shape[-2]:
        raise ShapeError(f"Incompatible matrix sizes for cholesky_solve: each A matrix is {f.aval.shape[-1]} by "
                         f"{f.aval.shape[-1]} but each b matrix is {b.aval.shape[-2]} by {b.aval.shape[-1]}")
    f, b = same_batch("cholesky_solve", f, b)
    h = F.adjoint(f)
    low, upp = (h, f) if upper else (f, h)
    return to_out(out, F.solve_triangular(upp, F.solve_triangular(low, b, False), True))


def cholesky_inverse(L: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Tensor:
    """Inverse of A = L L^H (upper: A = L^H L)."""
    return cholesky_solve(wrap(F.eye_like(square("cholesky_inverse", L))), L, upper, out=out)


def svd(input: Tensor, some: bool = True, compute_uv: bool = True, *, out: Any = None) -> Any:
    """(U, S, V) of A = U diag(S) V^H; V itself, not its adjoint. Without vectors U and V are zero."""
    v = matrices("linalg.svd", input)
    if not compute_uv:
        s = _L.singular_values(v)
        zeros = [P.full((*v.aval.shape[:-2], n, n), 0, v.aval.dtype, v.aval.device) for n in v.aval.shape[-2:]]
        return results(svd_result, (zeros[0], s, zeros[1]), out)
    u, s, vh = (val(t) for t in _L.svd(input, not some))
    return results(svd_result, (u, s, F.adjoint(vh)), out)


def qr(input: Tensor, some: bool = True, *, out: Any = None) -> Any:
    """(Q, R), reduced or (some=False) complete."""
    return results(qr_result, [val(t) for t in _L.qr(input, "reduced" if some else "complete")], out)


def geqrf(input: Tensor, *, out: Any = None) -> Any:
    """(a, tau): R, below it the reflectors' vectors, and their factors; not differentiable."""
    return results(geqrf_result, apply(OPS["geqrf"], (matrices("torch.geqrf", input, "input"),)), out)


def orgqr(input: Tensor, tau: Tensor, *, out: Tensor | None = None) -> Tensor:
    """:func:`torch.linalg.householder_product`."""
    return householder_product(input, tau, out=out)


def triangular_solve(b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False, *,
                     out: Any = None) -> Any:
    """(X of A X = b, copy of A); transpose: A^T X = b."""
    f, v = square("triangular_solve", A), matrices("triangular_solve", b, "b")
    f, v = same_batch("triangular_solve", f, v)
    m = P.transpose(f) if transpose else f
    return results(triangular_result, (F.solve_triangular(m, v, upper != transpose, unitriangular), P.mul(f, 1)), out)


def lu(A: Tensor, pivot: bool = True, get_infos: bool = False, out: Any = None) -> Any:
    """(LU, pivots) or (LU, pivots, info), as :func:`torch.linalg.lu_factor_ex` has them."""
    found = tuple(_L.lu_factor_ex(A, pivot=pivot) if get_infos else _L.lu_factor(A, pivot=pivot))
    return found if out is None else tuple([to_out(o, val(t)) for o, t in zip(out, found)])


def lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor, *, out: Tensor | None = None) -> Tensor:
    """X of A X = b from :func:`torch.linalg.lu_factor`'s results."""
    return _L.lu_solve(LU_data, LU_pivots, b, out=out)


def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True, *,
              out: Any = None) -> Any:
    """(P, L, U) of a packed factorization; what is not asked for is empty."""
    f = val(LU_data)
    p, low, upp = _L.unpack(f, val(LU_pivots))
    none = P.full((0,), 0, f.aval.dtype, f.aval.device)
    return results(lu_unpack_result, (p if unpack_pivots else none, *((low, upp) if unpack_data else (none, none))), out)


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Powers x^(N-1), ..., x, 1 of a vector's elements (increasing: 1 first)."""
    v = val(x)
    if v.aval.ndim != 1:
        raise AutogradError("x must be a one-dimensional tensor.")
    n = v.aval.shape[0] if N is None else int(N)
    if v.aval.dtype.category < 2:
        v = P.cast(v, int64)
    powers = P.pow(P.expand(P.unsqueeze(v, 1), (v.aval.shape[0], n)), P.iota(n, v.aval.dtype, v.aval.device))
    return wrap(powers if increasing else P.flip(powers, (1,)))


def svd_lowrank(A: Tensor, q: int = 6, niter: int = 2, M: Tensor | None = None) -> Any:
    """Approximate rank-q (U, S, V) by random projection with ``niter`` power iterations (Halko et al. 2011, 5.1)."""
    from .random import randn

    if M is not None:
        A = A - M.broadcast_to(A.shape)  # type: ignore[attr-defined]
    wide = A.shape[-2] < A.shape[-1]
    X = A.mH if wide else A
    size = (*X.shape[:-2], X.shape[-1], min(q, *X.shape[-2:]))
    Q = _L.qr(X @ randn(*size, dtype=A.dtype.to_real(), device=A.device).to(A.dtype)).Q
    for _ in range(niter):
        Q = _L.qr(X.mH @ Q).Q
        Q = _L.qr(X @ Q).Q
    U, S, Vh = _L.svd(Q.mH @ X, full_matrices=False)
    U, V = Q @ U, Vh.mH
    return (V, S, U) if wide else (U, S, V)


def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2) -> Any:
    """Approximate principal components: :func:`svd_lowrank` of A with columns of mean zero."""
    q = min(6, *A.shape[-2:]) if q is None else q
    if not 0 <= q <= min(A.shape[-2:]):
        raise AutogradError(f"q(={q}) must be non-negative integer and not greater than min(m, n)={min(A.shape[-2:])}")
    return svd_lowrank(A - A.mean(dim=-2, keepdim=True) if center else A, q, niter)


NAMES = ["det", "slogdet", "logdet", "inverse", "pinverse", "matrix_exp", "matrix_power", "cholesky", "cholesky_solve",
         "cholesky_inverse", "svd", "qr", "geqrf", "orgqr", "triangular_solve", "lu", "lu_solve", "lu_unpack", "vander",
         "svd_lowrank", "pca_lowrank", "householder_product"]
METHODS = ["det", "slogdet", "logdet", "inverse", "pinverse", "matrix_exp", "matrix_power", "cholesky", "cholesky_solve",
           "cholesky_inverse", "svd", "qr", "geqrf", "orgqr", "triangular_solve", "lu", "lu_solve"]
assert all(callable(f) for f in (det, matrix_exp, matrix_power, slogdet))
