"""Matrix formulas over Values: the vocabulary of the vjp rules and functions of linear algebra. Matrices are the last two
axes; operands of a product or solve have equal leading axes."""
from __future__ import annotations

from ...dtypes import int64
from .. import build as P
from ..node import Value
from ..optable import OPS
from ..recorder import apply


def conj(x: Value) -> Value:
    """Complex conjugate; real values are themselves."""
    return apply(OPS["conj"], (x,)) if x.aval.dtype.is_complex else x


def adjoint(x: Value) -> Value:
    """Conjugate transpose of matrices."""
    return conj(P.transpose(x))


def band(x: Value, lower: bool, diagonal: int = 0) -> Value:
    """The triangle of matrices at and below (lower) or at and above ``diagonal``; zero elsewhere."""
    d = _offset(x)
    return P.where(P.le(d, diagonal) if lower else P.ge(d, diagonal), x, P.zeros_like(x))


def _offset(x: Value) -> Value:
    """Column minus row number, for matrices of the shape of ``x``."""
    m, n = x.aval.shape[-2:]
    rows = P.reshape(P.iota(m, int64, x.aval.device), (m, 1))
    return P.sub(P.reshape(P.iota(n, int64, x.aval.device), (1, n)), rows)


def on_diagonal(x: Value) -> Value:
    """Mask of the main diagonal."""
    return P.eq(_offset(x), 0)


def diag_matrix(d: Value) -> Value:
    """Square matrices with ``d`` (..., n) on the diagonal."""
    n = d.aval.shape[-1]
    wide = P.expand(P.unsqueeze(d, d.aval.ndim - 1), (*d.aval.shape, n))
    return P.where(on_diagonal(wide), wide, P.zeros_like(wide))


def diagonal_of(x: Value) -> Value:
    """The main diagonals (..., n) of square matrices."""
    return P.reduce("add", P.where(on_diagonal(x), x, P.zeros_like(x)), (x.aval.ndim - 1,))


def eye_like(x: Value) -> Value:
    """Identity matrices of the shape and dtype of ``x``."""
    one = P.cast(on_diagonal(x), x.aval.dtype)
    return P.expand(one, x.aval.shape)


def scale_columns(x: Value, d: Value) -> Value:
    """x @ diag(d)."""
    return P.mul(x, P.cast(P.unsqueeze(d, d.aval.ndim - 1), x.aval.dtype))


def scale_rows(d: Value, x: Value) -> Value:
    """diag(d) @ x."""
    return P.mul(P.cast(P.unsqueeze(d, d.aval.ndim), x.aval.dtype), x)


def inverse(a: Value, check: str = "") -> tuple[Value, Value]:
    """(A^-1, info)."""
    return apply(OPS["linalg_inv_ex"], (a,), (check,))


def solve(a: Value, b: Value, check: str = "") -> tuple[Value, Value]:
    """(X of A X = B, info); equal leading axes."""
    return apply(OPS["linalg_solve_ex"], (a, b), (check,))


def solve_triangular(a: Value, b: Value, upper: bool, unit: bool = False) -> Value:
    """X of A X = B, reading one triangle of A; equal leading axes."""
    return apply(OPS["linalg_solve_triangular"], (a, b), (upper, unit))


def solve_triangular_right(a: Value, b: Value, upper: bool, unit: bool = False) -> Value:
    """X of X A = B."""
    return P.transpose(solve_triangular(P.transpose(a), P.transpose(b), not upper, unit))


def pinv(a: Value, atol: Value, rtol: Value) -> Value:
    """Pseudo-inverse; the tolerances are real and shaped like the leading axes."""
    return apply(OPS["linalg_pinv"], (a, atol, rtol))


def hermitian_part(x: Value) -> Value:
    return P.mul(P.add(x, adjoint(x)), 0.5)


def as_matrix(d: Value) -> Value:
    """Numbers (...) as matrices of one element, to scale matrices by."""
    return P.unsqueeze(P.unsqueeze(d, d.aval.ndim), d.aval.ndim + 1)


def pinv_gradient(a: Value, p: Value, g: Value) -> Value:
    """Gradient to A of its pseudo-inverse P of constant rank, with cotangent G."""
    ah, ph, gh = adjoint(a), adjoint(p), adjoint(g)
    m, n = a.aval.shape[-2:]
    first = P.neg(P.matmul(P.matmul(ph, g), ph))  # -P^H G P^H
    # (I - A P) G^H P P^H, then P^H P G^H (I - P A): the inner product is the smaller of the two there are
    gp = P.matmul(gh, P.matmul(p, ph)) if n <= m else P.matmul(P.matmul(gh, p), ph)
    second = P.sub(gp, P.matmul(ph, P.matmul(ah, gp)))
    pg = P.matmul(ph, P.matmul(p, gh)) if n <= m else P.matmul(P.matmul(ph, p), gh)
    third = P.sub(pg, P.matmul(pg, P.matmul(p, a)) if n <= m else P.matmul(P.matmul(pg, ah), ph))
    return P.add(P.add(first, second), third)
