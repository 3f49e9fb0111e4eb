"""``torch.linalg``: factorizations, solvers, inverses, determinants and matrix functions of batches of matrices.

All take (..., m, n) tensors of float32, float64 or complex dtype, and are differentiable (any number of times) where
PyTorch's are. What cannot be factored raises ``LinAlgError`` at the call, or at the first read in a compiled call.
Norms and products are in :mod:`graphc.ops.linalg_norm`, ``torch.svd`` and other old names in :mod:`graphc.ops.linalg_old`.
"""
from __future__ import annotations

import math
from typing import Any

from ..dtypes import int64
from ..errors import AutogradError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.prims import linalg_values as F
from ..ir.recorder import apply, fetched
from ..tensor import Tensor, wrap
from ._common import to_out, val
from ._linalg_common import (
    c_name,
    check_square,
    epsilon,
    is_vector_rhs,
    matrices,
    raise_now,
    results,
    same_batch,
    same_dtype,
    square,
    tolerances,
)
from ._named import named_result as _named_result

inv_ex_result: Any = _named_result("linalg_inv_ex", ["inverse", "info"])
solve_ex_result: Any = _named_result("linalg_solve_ex", ["result", "info"])
cholesky_ex_result: Any = _named_result("linalg_cholesky_ex", ["L", "info"])
qr_result: Any = _named_result("linalg_qr", ["Q", "R"])
svd_result: Any = _named_result("linalg_svd", ["U", "S", "Vh"])
eigh_result: Any = _named_result("linalg_eigh", ["eigenvalues", "eigenvectors"])
eig_result: Any = _named_result("linalg_eig", ["eigenvalues", "eigenvectors"])
slogdet_result: Any = _named_result("linalg_slogdet", ["sign", "logabsdet"])
lstsq_result: Any = _named_result("linalg_lstsq", ["solution", "residuals", "rank", "singular_values"])
lu_result: Any = _named_result("linalg_lu", ["P", "L", "U"])
lu_factor_result: Any = _named_result("linalg_lu_factor", ["LU", "pivots"])
lu_factor_ex_result: Any = _named_result("linalg_lu_factor_ex", ["LU", "pivots", "info"])


# ---------------------------------------------------------------------------------------------------- inverse and solve
def inv(A: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Inverses of square matrices (..., n, n). Raises LinAlgError for a singular one."""
    x, _ = F.inverse(square("linalg.inv", A), "linalg.inv")
    raise_now(x)
    return to_out(out, x)


def inv_ex(A: Tensor, *, check_errors: bool = False, out: Any = None) -> Any:
    """(inverse, info): info (int32) is 0, or the first zero pivot counted from 1; the inverse is infinite there."""
    x, info = F.inverse(square("linalg.inv", A), "linalg.inv_ex" if check_errors else "")
    if check_errors:
        raise_now(x)
    return results(inv_ex_result, (x, info), out)


def _solve(A: Tensor, B: Tensor, left: bool, check: str) -> tuple[Value, Value]:
    a, b = square("linalg.solve", A), val(B, "B")
    same_dtype("linalg.solve", a, b)
    vector = is_vector_rhs(a, b)
    if vector:
        b = P.unsqueeze(b, b.aval.ndim)
    if b.aval.shape[-2 if left else -1] != a.aval.shape[-1]:
        (m, n), (p, q) = a.aval.shape[-2:], b.aval.shape[-2:]
        raise ShapeError(f"linalg.solve: Incompatible shapes of A and B for the equation {'AX = B' if left else 'XA = B'} "
                         f"({m}x{n} and {p}x{q})")
    a, b = same_batch("linalg.solve", a, b)
    if not left:
        x, info = F.solve(P.transpose(a), P.transpose(b), check)
        return P.transpose(x), info
    x, info = F.solve(a, b, check)
    return (P.reshape(x, x.aval.shape[:-1]) if vector else x), info


def solve(A: Tensor, B: Tensor, *, left: bool = True, out: Tensor | None = None) -> Tensor:
    """X of A X = B (left=False: X A = B); B holds matrices (..., n, k) or vectors (..., n). Raises LinAlgError if singular."""
    x, info = _solve(A, B, left, "torch.linalg.solve")
    raise_now(info)
    return to_out(out, x)


def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False, out: Any = None) -> Any:
    """(solution, info) like :func:`solve`; raises only if asked to."""
    x, info = _solve(A, B, left, "torch.linalg.solve_ex" if check_errors else "")
    if check_errors:
        raise_now(info)
    return results(solve_ex_result, (x, info), out)


def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False,
                     out: Tensor | None = None) -> Tensor:
    """X of A X = B (left=False: X A = B) for triangular A; the other triangle is not read, a zero diagonal gives inf."""
    name = "linalg.solve_triangular"
    a, b = square(name, A), matrices(name, B, "B")
    same_dtype(name, a, b)
    if b.aval.shape[-2 if left else -1] != a.aval.shape[-1]:
        (m, n), (p, q) = a.aval.shape[-2:], b.aval.shape[-2:]
        raise ShapeError(f"{name}: Incompatible shapes of A and B for the equation {'AX = B' if left else 'XA = B'} "
                         f"({m}x{n} and {p}x{q})")
    a, b = same_batch(name, a, b)
    fn = F.solve_triangular if left else F.solve_triangular_right
    return to_out(out, fn(a, b, bool(upper), bool(unitriangular)))


# ----------------------------------------------------------------------------------------------------------- symmetric
def _mirror(v: Value, upper: bool) -> Value:
    return apply(OPS["mirror"], (v,), (bool(upper),))


def _cholesky(name: str, A: Tensor, upper: bool, check: str) -> tuple[Value, Value]:
    low, info = apply(OPS["linalg_cholesky_ex"], (_mirror(square(name, A), upper),), (check,))
    return (F.adjoint(low) if upper else low), info


def cholesky(A: Tensor, *, upper: bool = False, out: Tensor | None = None) -> Tensor:
    """L of A = L L^H for positive-definite hermitian matrices (upper: U of A = U^H U). Raises LinAlgError otherwise."""
    low, info = _cholesky("linalg.cholesky", A, upper, "linalg.cholesky")
    raise_now(info)
    return to_out(out, low)


def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False, out: Any = None) -> Any:
    """(L, info): info (int32) is 0, or the order of the first leading minor that is not positive."""
    low, info = _cholesky("linalg.cholesky", A, upper, "linalg.cholesky_ex" if check_errors else "")
    if check_errors:
        raise_now(info)
    return results(cholesky_ex_result, (low, info), out)


def _eigh(name: str, A: Tensor, UPLO: str) -> tuple[Value, Value]:
    if not isinstance(UPLO, str) or UPLO.upper() not in ("L", "U"):
        raise AutogradError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    w, v = apply(OPS["linalg_eigh"], (_mirror(square(name, A), UPLO.upper() == "U"),))
    raise_now(w)
    return w, v


def eigh(A: Tensor, UPLO: str = "L", *, out: Any = None) -> Any:
    """(eigenvalues ascending, eigenvectors as columns) of hermitian matrices, of which the triangle UPLO is read."""
    return results(eigh_result, _eigh("linalg.eigh", A, UPLO), out)


def eigvalsh(A: Tensor, UPLO: str = "L", *, out: Tensor | None = None) -> Tensor:
    """Eigenvalues of hermitian matrices, ascending."""
    return to_out(out, _eigh("linalg.eigh", A, UPLO)[0])


# ---------------------------------------------------------------------------------------------------- SVD, QR, LU, eig
def _driver(name: str, driver: str | None) -> None:
    if driver is not None:
        raise AutogradError(f"{name}: keyword argument `driver=` is only supported on CUDA inputs with cuSOLVER backend.")


def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None, out: Any = None) -> Any:
    """(U, S, Vh) of A = U diag(S) Vh: S descending; U and Vh square, or (m, k) and (k, n) if not ``full_matrices``."""
    _driver("torch.linalg.svd", driver)
    parts = apply(OPS["linalg_svd"], (matrices("linalg.svd", A),), (bool(full_matrices),))
    raise_now(parts[1])
    return results(svd_result, parts, out)


def svdvals(A: Tensor, *, driver: str | None = None, out: Tensor | None = None) -> Tensor:
    """Singular values, descending."""
    _driver("torch.linalg.svd", driver)
    s = singular_values(matrices("linalg.svd", A))
    raise_now(s)
    return to_out(out, s)


def singular_values(v: Value) -> Value:
    """Singular values; where a gradient is wanted the vectors are computed along, since the gradient needs them."""
    if v.gfn is not None:
        return apply(OPS["linalg_svd"], (v,), (False,))[1]
    return apply(OPS["linalg_svdvals"], (v,))


def qr(A: Tensor, mode: str = "reduced", *, out: Any = None) -> Any:
    """(Q, R) of A = Q R; mode "reduced", "complete", or "r" (Q is then empty and no gradient is had)."""
    if mode not in ("reduced", "complete", "r"):
        raise AutogradError(f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', or "
                            "'complete'")
    return results(qr_result, apply(OPS["linalg_qr"], (matrices("linalg.qr", A),), (mode,)), out)


def eig(A: Tensor, *, out: Any = None) -> Any:
    """(eigenvalues, eigenvectors as columns of norm 1) of square matrices; complex, in no particular order."""
    w, v = apply(OPS["linalg_eig"], (square("linalg.eig", A),))
    raise_now(w)
    return results(eig_result, (w, v), out)


def eigvals(A: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Eigenvalues of square matrices; complex, in no particular order."""
    w = apply(OPS["linalg_eig"], (square("linalg.eigvals", A),))[0]
    raise_now(w)
    return to_out(out, w)


def _factor(name: str, A: Tensor, pivot: bool, check: str) -> tuple[Value, Value, Value]:
    v = matrices(name, A)
    if not pivot:
        raise AutogradError("linalg.lu_factor: LU without pivoting is not implemented on the CPU")
    return apply(OPS["linalg_lu_factor_ex"], (v,), (check,))


def lu_factor(A: Tensor, *, pivot: bool = True, out: Any = None) -> Any:
    """(LU, pivots): both factors packed in one matrix, and the row swaps (int32, from 1). Raises if U is singular."""
    lu, pivots, info = _factor("linalg.lu_factor", A, pivot, "torch.linalg.lu_factor")
    raise_now(info)
    return results(lu_factor_result, (lu, pivots), out)


def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False, out: Any = None) -> Any:
    """(LU, pivots, info): like :func:`lu_factor`; info is the first zero pivot."""
    parts = _factor("linalg.lu_factor", A, pivot, "torch.linalg.lu_factor_ex" if check_errors else "")
    if check_errors:
        raise_now(parts[2])
    return results(lu_factor_ex_result, parts, out)


def unpack(lu: Value, pivots: Value) -> tuple[Value, Value, Value]:
    """(P, L, U) of a packed factorization: A = P L U."""
    nd = lu.aval.ndim
    m, n = lu.aval.shape[-2:]
    k = min(m, n)
    left, top = P.narrow(lu, nd - 1, 0, k), P.narrow(lu, nd - 2, 0, k)
    low = P.where(F.on_diagonal(left), P.full_like(left, 1), F.band(left, True, -1))
    order = P.unsqueeze(apply(OPS["pivot_order"], (pivots,), (m, False)), nd - 2)
    at = P.cast(P.eq(order, P.reshape(P.iota(m, int64, lu.aval.device), (m, 1))), lu.aval.dtype)
    return at, low, F.band(top, False)


def lu(A: Tensor, *, pivot: bool = True, out: Any = None) -> Any:
    """(P, L, U) with A = P L U: a permutation, unit lower and upper triangular (or trapezoidal) factors."""
    packed, pivots, _ = _factor("linalg.lu", A, pivot, "")
    return results(lu_result, unpack(packed, pivots), out)


def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False,
             out: Tensor | None = None) -> Tensor:
    """X of A X = B (or X A = B, or with A^H) from the factorization :func:`lu_factor` made of A."""
    name = "torch.linalg.lu_solve"
    f, b, piv = square(name, LU, "LU"), matrices(name, B, "B"), val(pivots, "pivots")
    same_dtype(name, f, b)
    if b.aval.shape[-2 if left else -1] != f.aval.shape[-1]:
        (m, n), (p, q) = f.aval.shape[-2:], b.aval.shape[-2:]
        raise ShapeError(f"linalg.lu_solve: Incompatible shapes of A and B for the equation {'AX = B' if left else 'XA = B'} "
                         f"({m}x{n} and {p}x{q})")
    f, b = same_batch(name, f, b)
    piv = P.expand(piv, (*f.aval.shape[:-2], piv.aval.shape[-1]))
    if left:
        return to_out(out, _lu_solve(f, piv, b, adjoint))
    # X A = B is A^H X^H = B^H, and X A^H = B is A X^H = B^H
    return to_out(out, F.adjoint(_lu_solve(f, piv, F.adjoint(b), not adjoint)))


def _lu_solve(f: Value, pivots: Value, b: Value, adjoint: bool) -> Value:
    nd = b.aval.ndim
    order = apply(OPS["pivot_order"], (pivots,), (f.aval.shape[-1], adjoint))
    index = P.expand(P.unsqueeze(order, nd - 1), b.aval.shape)
    if not adjoint:
        return F.solve_triangular(f, F.solve_triangular(f, P.gather(b, index, nd - 2), False, True), True)
    h = F.adjoint(f)
    return P.gather(F.solve_triangular(h, F.solve_triangular(h, b, False), True, True), index, nd - 2)


# --------------------------------------------------------------------------------------- determinants, matrix functions
def det(A: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Determinants of square matrices; the gradient is right for singular ones, too."""
    return to_out(out, apply(OPS["linalg_det"], (square("linalg.det", A),)))


def slogdet(A: Tensor, *, out: Any = None) -> Any:
    """(sign, log of the absolute value) of determinants."""
    return results(slogdet_result, apply(OPS["linalg_slogdet"], (square("linalg.slogdet", A),)), out)


def matrix_exp(A: Tensor) -> Tensor:
    """Matrix exponentials."""
    return wrap(apply(OPS["linalg_matrix_exp"], (square("linalg.matrix_exp", A),)))


def matrix_power(A: Tensor, n: int, *, out: Tensor | None = None) -> Tensor:
    """Integer powers of square matrices by repeated squaring; negative ones of the inverse."""
    v = val(A, "A")
    check_square("linalg.matrix_power", v)
    if n < 0:
        v = val(inv(A))
    result: Value | None = None
    k = abs(n)
    while k:
        if k & 1:
            result = v if result is None else P.matmul(result, v)
        k >>= 1
        if k:
            v = P.matmul(v, v)
    return to_out(out, F.eye_like(v) if result is None else result)


def matrix_rank(A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None,
                out: Tensor | None = None) -> Tensor:
    """How many singular values exceed max(atol, rtol * largest), int64."""
    if A.ndim < 2:
        raise ShapeError("torch.linalg.matrix_rank: The input tensor input must have at least 2 dimensions.")
    v = matrices("linalg.matrix_rank", A)
    if tol is not None:
        atol, rtol = tol, 0.0
    s = P.abs(_eigh("linalg.matrix_rank", A, "L")[0]) if hermitian else singular_values(v)
    a, r = tolerances(v, atol, rtol)
    if s.aval.shape[-1] == 0:
        return to_out(out, P.full(s.aval.shape[:-1], 0, int64, s.aval.device))
    nd = s.aval.ndim
    top = P.reduce("max", s, (nd - 1,))
    cut = P.maximum(a, P.mul(r, top))
    over = P.gt(s, P.unsqueeze(cut, cut.aval.ndim))
    return to_out(out, P.reduce("add", P.cast(over, int64), (over.aval.ndim - 1,)))


def pinv(A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None,
         out: Tensor | None = None) -> Tensor:
    """Moore-Penrose inverses (..., n, m); singular values up to max(atol, rtol * largest) count as zero."""
    v = val(A, "A")
    if v.aval.ndim < 2 or v.aval.dtype.category < 2:
        raise DTypeError(f"linalg.pinv({c_name(v)}{{{list(v.aval.shape)}}}): expected a tensor with 2 or more dimensions of "
                         "float, double, cfloat or cdouble types")
    v = matrices("linalg.pinv", A)
    if hermitian:
        check_square("linalg.pinv", v)
        v = _mirror(v, False)
    if rcond is not None:
        rtol = rcond
    a, r = tolerances(v, atol, rtol)
    lead = v.aval.shape[:-2]
    x = F.pinv(v, P.expand(a, lead), P.expand(r, lead))
    raise_now(x)
    return to_out(out, x)


# -------------------------------------------------------------------------------------------------------- least squares
def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """(solution, residuals, rank, singular_values) of min |A X - B|: the solution of least norm, for every driver.

    As in PyTorch on a CPU: the sums of squares ``residuals`` are empty for the default driver "gelsy", for m <= n and for
    deficient rank; ``rank`` is empty for "gels"; ``singular_values`` are given by "gelsd" and "gelss".
    """
    name = "torch.linalg.lstsq"
    a, b = matrices(name, A, "input"), val(B, "other")
    driver = "gelsy" if driver is None else driver
    if driver not in ("gels", "gelsy", "gelsd", "gelss"):
        raise AutogradError(f"{name}: parameter `driver` should be one of (gels, gelsy, gelsd, gelss)")
    if a.aval.dtype is not b.aval.dtype:
        raise DTypeError(f"{name}: Expected input and other to have the same dtype, but got input's dtype {c_name(a)} and "
                         f"other's dtype {c_name(b)}")
    if vector := is_vector_rhs(a, b):
        b = P.unsqueeze(b, b.aval.ndim)
    if a.aval.shape[-2] != b.aval.shape[-2]:
        raise ShapeError(f"{name}: input.size(-2) should match other.size({-1 if vector else -2})")
    a, b = same_batch(name, a, b)
    m, n = a.aval.shape[-2:]
    cut = epsilon(a) * max(m, n) if rcond is None else float(rcond)
    x = apply(OPS["linalg_lstsq"], (a, b), (cut,))
    raise_now(x)
    real, nd = a.aval.dtype.to_real(), a.aval.ndim
    residuals = singular = P.full((0,), 0.0, real, a.aval.device)
    rank = P.full((0,), 0, int64, a.aval.device)
    full = True
    if driver != "gels":
        plain = val(A.detach())
        s = singular_values(P.expand(plain, a.aval.shape))
        rank = P.reduce("add", P.cast(P.gt(s, P.mul(P.narrow(s, nd - 2, 0, min(1, min(m, n))), cut)), int64), (nd - 2,))
        if driver != "gelsy":
            singular = s
            full = m > n and math.prod(a.aval.shape) > 0 and bool((fetched(rank) == n).all())
    if m > n and driver != "gelsy" and full:
        r = P.sub(P.matmul(a, x), b)
        square_ = P.mul(r, F.conj(r))
        residuals = P.reduce("add", apply(OPS["real"], (square_,)) if r.aval.dtype.is_complex else square_, (nd - 2,))
    return lstsq_result(wrap(P.reshape(x, x.aval.shape[:-1]) if vector else x), wrap(residuals), wrap(rank), wrap(singular))
