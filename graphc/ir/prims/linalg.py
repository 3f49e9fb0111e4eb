"""Dense linear algebra: factorizations, inverses, determinants, matrix functions. Matrices are the last two axes.

The rows evaluate with NumPy's LAPACK and are differentiable again: every vjp is written in differentiable ops. Rows that
can fail take ``check``: the function's name to raise LinAlgError under, or "" to report in the ``info`` output only.
Symmetric rows (cholesky, eigh) work on (A + A^H) / 2, so that their derivatives are those of all elements of A.

Sources of the formulas: Giles, "Collected matrix derivative results" (2008); Murray, "Differentiation of the Cholesky
decomposition" (2016); Walter and Lehmann, "Algorithmic differentiation of linear algebra functions" (2018); Golub and
Pereyra, "The differentiation of pseudo-inverses" (1973); Townsend, "Differentiating the SVD" (2016).
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ...dtypes import int32, int64
from ...errors import AutogradError, LinAlgError, ShapeError
from .. import build as P
from ..infer import require_float
from ..node import Aval, Value, aval
from ..optable import OPS, prim
from ..recorder import apply
from ..samples import draw
from . import linalg_np as K
from .linalg_values import (
    adjoint,
    as_matrix,
    band,
    conj,
    diag_matrix,
    eye_like,
    hermitian_part,
    inverse,
    on_diagonal,
    pinv,
    pinv_gradient,
    scale_columns,
    scale_rows,
    solve,
    solve_triangular,
    solve_triangular_right,
)


# ------------------------------------------------------------------------------------------------------- shared columns
def _with_batch(x: Aval, *tail: int, dt: Any = None) -> Aval:
    return aval((*x.shape[:-2], *tail), dt or x.dtype, x.device)


def _square(name: str, x: Aval) -> None:
    require_float(name, x)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"{name}: needs square matrices in the last two dimensions, got a tensor of shape {x.shape}")


def _fail(check: str, info: np.ndarray, text: str) -> None:
    """Raise for the first matrix whose ``info`` is not 0, if checking."""
    if check and info.any():
        if not info.ndim:
            raise LinAlgError(f"{check}: {text.format(info=int(info))}")
        at = int(np.flatnonzero(info)[0])
        raise LinAlgError(f"{check}: (Batch element {at}): {text.format(info=int(info.ravel()[at]))}")


def _converged(name: str, fn: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a factorization of ``numpy.linalg``; its failure to converge under graphc's error."""
    try:
        return fn(*args, **kwargs)
    except np.linalg.LinAlgError:
        why = "the input matrix is ill-conditioned or has too many repeated values"
        if not np.isfinite(args[0]).all():
            why = "the input matrix contained non-finite values"
        raise LinAlgError(f"{name}: The algorithm failed to converge because {why}.") from None


def _well(tag: str, *shape: int) -> np.ndarray:
    """Well-conditioned square samples."""
    return draw(tag, *shape) + 4 * np.eye(shape[-1])


def _spd(tag: str, *shape: int) -> np.ndarray:
    """Symmetric positive definite samples with distinct eigenvalues."""
    a = draw(tag, *shape)
    return a @ np.swapaxes(a, -1, -2) + np.diag(np.arange(1.0, shape[-1] + 1))


def _plus(a: Value | None, b: Value) -> Value:
    return b if a is None else P.add(a, b)


# ----------------------------------------------------------------------------------------------------- inverse and solve
_SINGULAR = ("The diagonal element {info} is zero, the inversion could not be completed because the input matrix is "
             "singular.")


def _inv_infer(attrs: Any, a: Aval) -> tuple[Aval, Aval]:
    _square("linalg.inv", a)
    return a, _with_batch(a, dt=int32)


def _inv_np(attrs: Any, a: np.ndarray) -> Any:
    out, info = K.inv(a)
    _fail(attrs[0], info, _SINGULAR)
    return out, info


def _inv_vjp(ctx: Any, g: Any) -> Any:
    if g[0] is None:
        return (None,)
    h = adjoint(ctx.out[0])
    return (P.neg(P.matmul(P.matmul(h, g[0]), h)),)


prim("linalg_inv_ex", kind="opaque", attrs=("check",), infer=_inv_infer, eval_np=_inv_np, loop="library", vjp=_inv_vjp,
     saves=("out",), n_out=2, samples=lambda: [((_well("i", 3, 3),), ("",)), ((_well("i", 2, 2, 2),), ("linalg.inv",)),
                                               ((np.zeros((0, 3, 3)),), ("",)), ((np.ones((2, 2), np.float32),), ("",))],
     doc="(A^-1, info): info is the first zero pivot, counted from 1; the inverse is infinite there.")


def _solve_infer(attrs: Any, a: Aval, b: Aval) -> tuple[Aval, Aval]:
    _square("linalg.solve", a)
    if a.shape[:-1] != b.shape[:-1]:
        raise ShapeError(f"linalg.solve: shapes {a.shape} and {b.shape} do not fit A X = B")
    return b, _with_batch(a, dt=int32)


def _solve_np(attrs: Any, a: np.ndarray, b: np.ndarray) -> Any:
    out, info = K.solve(a, b)
    _fail(attrs[0], info, "The solver failed because the input matrix is singular.")
    return out, info


def _solve_vjp(ctx: Any, g: Any) -> Any:
    if g[0] is None:
        return None, None
    gb = solve(adjoint(ctx.ins[0]), g[0])[0]
    return P.neg(P.matmul(gb, adjoint(ctx.out[0]))) if ctx.needs[0] else None, gb


prim("linalg_solve_ex", kind="opaque", attrs=("check",), infer=_solve_infer, eval_np=_solve_np, loop="library",
     vjp=_solve_vjp, saves=(0, "out"), n_out=2,
     samples=lambda: [((_well("s", 3, 3), draw("b", 3, 2)), ("",)), ((_well("s", 2, 3, 3), draw("b", 2, 3, 1)), ("x",)),
                      ((_well("s", 2, 2), np.zeros((2, 0))), ("",))],
     doc="(X of A X = B, info) for a general matrix A.")


def _tri_infer(attrs: Any, a: Aval, b: Aval) -> Aval:
    return _solve_infer(attrs, a, b)[0]


def _tri_vjp(ctx: Any, g: Any) -> Any:
    upper, unit = ctx.attrs
    gb = solve_triangular(adjoint(ctx.ins[0]), g, not upper, unit)
    if not ctx.needs[0]:
        return None, gb
    ga = P.neg(P.matmul(gb, adjoint(ctx.out)))
    return band(ga, not upper, (1 if upper else -1) if unit else 0), gb


prim("linalg_solve_triangular", kind="opaque", attrs=("upper", "unit"), infer=_tri_infer,
     eval_np=lambda attrs, a, b: K.tri_solve(a, b, *attrs), loop="library", vjp=_tri_vjp, saves=(0, "out"),
     samples=lambda: [((_well("t", 3, 3), draw("b", 3, 2)), (False, False)),
                      ((_well("t", 3, 3), draw("b", 3, 2)), (True, False)),
                      ((_well("t", 2, 3, 3), draw("b", 2, 3, 2)), (True, True)),
                      ((_well("t", 40, 40), draw("b", 40, 2)), (False, False)),
                      ((_well("t", 40, 40), draw("b", 40, 2)), (True, False))],
     doc="X of A X = B, reading one triangle of A; unit: the diagonal counts as 1.")


# --------------------------------------------------------------------------------------------------- symmetric matrices
def _mirror_np(attrs: Any, x: np.ndarray) -> np.ndarray:
    upper = attrs[0]
    t = np.triu(x) if upper else np.tril(x)
    other = np.swapaxes(np.triu(x, 1) if upper else np.tril(x, -1), -1, -2)
    if x.dtype.kind == "c":
        np.einsum("...ii->...i", t).imag = 0
    return t + other.conj()


def _mirror_infer(attrs: Any, x: Aval) -> Aval:
    _square("hermitian matrix", x)
    return x


prim("mirror", kind="opaque", attrs=("upper",), infer=_mirror_infer, eval_np=_mirror_np, loop="library",
     vjp=lambda ctx, g: (hermitian_part(g),), saves=(),
     samples=lambda: [((draw("m", 3, 3, dtype=np.float32),), (False,)), ((draw("m", 2, 3, 3, dtype=np.float32),), (True,))],
     doc="The hermitian matrix one triangle describes. Its gradient is the hermitian part: PyTorch's convention that inputs "
         "of symmetric functions are symmetric, not the derivative of reading a triangle (so the samples are float32).")


def _cholesky_infer(attrs: Any, a: Aval) -> tuple[Aval, Aval]:
    _square("linalg.cholesky", a)
    return a, _with_batch(a, dt=int32)


def _np_hermitian(a: np.ndarray) -> np.ndarray:
    return (a + np.swapaxes(a.conj(), -1, -2)) * a.dtype.type(0.5)


def _cholesky_np(attrs: Any, a: np.ndarray) -> Any:
    out, info = K.cholesky(_np_hermitian(a))
    _fail(attrs[0], info, "The factorization could not be completed because the input is not positive-definite (the leading "
          "minor of order {info} is not positive-definite).")
    return out, info


def _cholesky_vjp(ctx: Any, g: Any) -> Any:
    if g[0] is None:
        return (None,)
    low = ctx.out[0]
    upp = adjoint(low)
    phi = band(P.matmul(upp, band(g[0], True)), True)
    phi = P.sub(phi, P.mul(P.where(on_diagonal(phi), phi, P.zeros_like(phi)), 0.5))
    s = solve_triangular_right(low, solve_triangular(upp, phi, True), False)
    return (hermitian_part(s),)


prim("linalg_cholesky_ex", kind="opaque", attrs=("check",), infer=_cholesky_infer, eval_np=_cholesky_np, loop="library",
     vjp=_cholesky_vjp, saves=("out",), n_out=2,
     samples=lambda: [((_spd("c", 3, 3),), ("",)), ((_spd("c", 2, 4, 4),), ("linalg.cholesky",)),
                      ((np.zeros((0, 3, 3)),), ("",))],
     doc="(L of A = L L^H, info): info is the order of the first leading minor that is not positive; L is infinite there.")


def _eigh_infer(attrs: Any, a: Aval) -> tuple[Aval, Aval]:
    _square("linalg.eigh", a)
    return _with_batch(a, a.shape[-1], dt=a.dtype.to_real()), a


def _eigh_vjp(ctx: Any, g: Any) -> Any:
    w, v = ctx.out
    gw, gv = g
    if gv is None:
        return (None if gw is None else P.matmul(scale_columns(v, gw), adjoint(v)),)
    inner = P.matmul(adjoint(v), gv)
    nd = w.aval.ndim
    gap = P.cast(P.sub(P.unsqueeze(w, nd - 1), P.unsqueeze(w, nd)), inner.aval.dtype)  # w_j - w_i at (i, j)
    diagonal = on_diagonal(inner)
    inner = P.where(diagonal, P.zeros_like(inner), P.div(inner, P.where(diagonal, P.full_like(gap, 1), gap)))
    if gw is not None:
        inner = P.add(inner, P.cast(diag_matrix(gw), inner.aval.dtype))
    return (hermitian_part(P.matmul(P.matmul(v, inner), adjoint(v))),)


prim("linalg_eigh", kind="opaque", attrs=(), infer=_eigh_infer,
     eval_np=lambda attrs, a: _converged("linalg.eigh", K.eigh, _np_hermitian(a)), loop="library", vjp=_eigh_vjp,
     saves=("out",), n_out=2,
     samples=lambda: [((_spd("e", 3, 3),), ()), ((_spd("e", 2, 4, 4),), ()), ((np.zeros((0, 2, 2)),), ())],
     doc="(eigenvalues ascending, eigenvectors as columns) of hermitian matrices.")


# ---------------------------------------------------------------------------------------------------- SVD, QR and LU
def _svd_infer(attrs: Any, a: Aval) -> tuple[Aval, Aval, Aval]:
    require_float("linalg.svd", a)
    m, n = a.shape[-2:]
    k = min(m, n)
    full = attrs[0]
    return (_with_batch(a, m, m if full else k), _with_batch(a, k, dt=a.dtype.to_real()), _with_batch(a, n if full else k, n))


def _svd_vjp(ctx: Any, g: Any) -> Any:
    u, s, vh = ctx.out
    gu, gs, gvh = g
    m, n, k, nd = u.aval.shape[-2], vh.aval.shape[-1], s.aval.shape[-1], u.aval.ndim
    if ctx.attrs[0]:  # the null-space columns are arbitrary: no gradient flows through them
        u, vh = P.narrow(u, nd - 1, 0, k), P.narrow(vh, nd - 2, 0, k)
        gu = None if gu is None else P.narrow(gu, nd - 1, 0, k)
        gvh = None if gvh is None else P.narrow(gvh, nd - 2, 0, k)
    if gu is None and gvh is None:
        return (None if gs is None else P.matmul(scale_columns(u, gs), vh),)
    inner = None if gs is None else P.cast(diag_matrix(gs), u.aval.dtype)
    row, col = P.unsqueeze(s, nd - 2), P.unsqueeze(s, nd - 1)
    gap = P.mul(P.sub(row, col), P.add(row, col))  # s_j^2 - s_i^2 at (i, j)
    gap = P.cast(P.where(on_diagonal(gap), P.full_like(gap, 1), gap), u.aval.dtype)
    left = right = None
    if gu is not None:
        left = P.matmul(adjoint(u), gu)
        skew = P.sub(left, adjoint(left))
        inner = _plus(inner, scale_columns(P.div(skew, gap), s))
        if u.aval.dtype.is_complex:  # the phase that U and V share
            phase = P.div(P.where(on_diagonal(skew), skew, P.zeros_like(skew)), P.cast(P.mul(row, 2), u.aval.dtype))
            inner = P.add(P.sub(inner, scale_columns(P.where(on_diagonal(skew), skew, P.zeros_like(skew)), s)), phase)
    if gvh is not None:
        right = P.matmul(gvh, adjoint(vh))
        skew = P.sub(adjoint(right), right)
        skew = P.where(on_diagonal(skew), P.zeros_like(skew), skew)
        inner = _plus(inner, scale_rows(s, P.div(skew, gap)))
    assert inner is not None
    ga = P.matmul(u, inner)
    if left is not None and m > k:
        ga = P.add(ga, scale_columns(P.sub(gu, P.matmul(u, left)), P.reciprocal(s)))
    ga = P.matmul(ga, vh)
    if right is not None and n > k:
        ga = P.add(ga, P.matmul(u, scale_rows(P.reciprocal(s), P.sub(gvh, P.matmul(right, vh)))))
    return (ga,)


prim("linalg_svd", kind="opaque", attrs=("full_matrices",), infer=_svd_infer,
     eval_np=lambda attrs, a: _converged("linalg.svd", np.linalg.svd, a, full_matrices=attrs[0]), loop="library",
     vjp=_svd_vjp, saves=("out",), n_out=3,
     samples=lambda: [((_well("v", 3, 3),), (True,)), ((draw("v", 2, 4, 3),), (False,)), ((draw("v", 2, 4),), (False,)),
                      ((np.zeros((0, 3)),), (True,)), ((draw("v", 3, 2, dtype=np.float32),), (True,))],
     doc="(U, S descending, V^H) of A = U diag(S) V^H.")


def _svdvals_vjp(ctx: Any, g: Any) -> Any:
    u, _, vh = apply(OPS["linalg_svd"], (ctx.ins[0],), (False,))
    return (P.matmul(scale_columns(u, g), vh),)


prim("linalg_svdvals", kind="opaque", attrs=(), infer=lambda attrs, a: _svd_infer((False,), a)[1],
     eval_np=lambda attrs, a: _converged("linalg.svd", np.linalg.svd, a, compute_uv=False), loop="library", vjp=_svdvals_vjp,
     saves=(0,), samples=lambda: [((draw("w", 4, 3),), ()), ((draw("w", 2, 2, 3),), ())], doc="Singular values, descending.")


def _qr_infer(attrs: Any, a: Aval) -> tuple[Aval, Aval]:
    require_float("linalg.qr", a)
    m, n = a.shape[-2:]
    k = m if attrs[0] == "complete" else min(m, n)
    return _with_batch(a, m, 0 if attrs[0] == "r" else k) if attrs[0] != "r" else aval((0,), a.dtype, a.device), \
        _with_batch(a, k, n)


def _qr_np(attrs: Any, a: np.ndarray) -> Any:
    if attrs[0] == "r":
        return np.zeros(0, a.dtype), np.linalg.qr(a, "r")
    return tuple(np.linalg.qr(a, attrs[0]))


def _tall_qr_vjp(q: Value, r: Value, gq: Value | None, gr: Value | None) -> Value:
    """Gradient of the reduced QR of matrices with at least as many rows as columns."""
    inner = None
    if gr is not None:
        inner = P.matmul(r, adjoint(gr))
    if gq is not None:
        inner = P.neg(P.matmul(adjoint(gq), q)) if inner is None else P.sub(inner, P.matmul(adjoint(gq), q))
    assert inner is not None
    low = band(inner, True)
    both = P.add(band(inner, True, -1), adjoint(low))  # the hermitian matrix with this lower triangle
    if inner.aval.dtype.is_complex:
        d = P.where(on_diagonal(both), both, P.zeros_like(both))
        both = P.sub(both, P.mul(P.sub(d, conj(d)), 0.5))
    rhs = _plus(gq, P.matmul(q, both))
    return solve_triangular_right(adjoint(r), rhs, False)


def _qr_vjp(ctx: Any, g: Any) -> Any:
    mode = ctx.attrs[0]
    q, r = ctx.out
    gq, gr = g
    m, n = ctx.in_avals[0].shape[-2:]
    if mode == "r":
        raise AutogradError("The derivative of linalg.qr depends on Q, which is not computed when mode='r'. Please use "
                            "linalg.qr(A, mode='reduced') if you are going to differentiate through linalg.qr.")
    if mode == "complete" and m > n:
        raise AutogradError("The QR decomposition is not differentiable when mode='complete' and nrows > ncols.")
    if gq is None and gr is None:
        return (None,)
    if m >= n:
        return (_tall_qr_vjp(q, r, gq, gr),)
    nd = q.aval.ndim  # A = [X Y]: X = Q U is square, Y = Q V
    u = P.narrow(r, nd - 1, 0, m)
    if gr is None:
        gx = _tall_qr_vjp(q, u, gq, None)
        return (P.concat((gx, P.full((*gx.aval.shape[:-1], n - m), 0, gx.aval.dtype, gx.aval.device)), nd - 1),)
    gu, gv = P.narrow(gr, nd - 1, 0, m), P.narrow(gr, nd - 1, m, n - m)
    y = P.matmul(q, P.narrow(r, nd - 1, m, n - m))
    gx = _tall_qr_vjp(q, u, _plus(gq, P.matmul(y, adjoint(gv))), gu)
    return (P.concat((gx, P.matmul(q, gv)), nd - 1),)


prim("linalg_qr", kind="opaque", attrs=("mode",), infer=_qr_infer, eval_np=_qr_np, loop="library", vjp=_qr_vjp,
     saves=("out",), n_out=2,
     samples=lambda: [((_well("q", 3, 3),), ("reduced",)), ((draw("q", 2, 4, 3),), ("reduced",)),
                      ((draw("q", 2, 4),), ("complete",)), ((draw("q", 4, 2, dtype=np.float32),), ("complete",)),
                      ((draw("q", 4, 2, dtype=np.float32),), ("r",))],
     doc="(Q, R) of A = Q R; mode reduced, complete or r (Q is empty then).")


def _lu_infer(attrs: Any, a: Aval) -> tuple[Aval, Aval, Aval]:
    require_float("linalg.lu_factor", a)
    return a, _with_batch(a, min(a.shape[-2:]), dt=int32), _with_batch(a, dt=int32)


def _lu_np(attrs: Any, a: np.ndarray) -> Any:
    lu, pivots, info = K.lu(a)
    _fail(attrs[0], info, "U[{info},{info}] is zero and using it on lu_solve would result in a division by zero. If you still "
          "want to perform the factorization, consider calling linalg.lu(A, pivot) or linalg.lu_factor_ex(A, pivot)")
    return lu, pivots, info


def _lu_vjp(ctx: Any, g: Any) -> Any:
    """Of A = P [L1; L2] [U1 U2] in the packed factor: Q = L1^H gL1 - gU2 U2^H and so on, then P (..) of the three parts."""
    if g[0] is None:
        return (None,)
    lu, pivots, _ = ctx.out
    g = g[0]
    nd = lu.aval.ndim
    m, n = lu.aval.shape[-2:]
    k = min(m, n)
    top, gtop = P.narrow(lu, nd - 2, 0, k), P.narrow(g, nd - 2, 0, k)
    sq, gsq = P.narrow(top, nd - 1, 0, k), P.narrow(gtop, nd - 1, 0, k)
    l1 = P.add(band(sq, True, -1), eye_like(sq))
    u1 = band(sq, False)
    below = P.matmul(adjoint(l1), band(gsq, True, -1))
    above = P.matmul(band(gsq, False), adjoint(u1))
    if n > k:
        u2, gu2 = P.narrow(top, nd - 1, k, n - k), P.narrow(gtop, nd - 1, k, n - k)
        below = P.sub(below, P.matmul(gu2, adjoint(u2)))
    if m > k:
        l2, gl2 = P.narrow(lu, nd - 2, k, m - k), P.narrow(g, nd - 2, k, m - k)
        above = P.sub(above, P.matmul(adjoint(l2), gl2))
    inner = P.add(band(below, True, -1), band(above, False))
    ga = solve_triangular_right(adjoint(u1), inner, False)
    if n > k:
        ga = P.concat((ga, gu2), nd - 1)
    ga = solve_triangular(adjoint(l1), ga, True, True)
    if m > k:
        ga = P.concat((ga, solve_triangular_right(adjoint(u1), gl2, False)), nd - 2)
    back = apply(OPS["pivot_order"], (pivots,), (m, True))
    return (P.gather(ga, P.expand(P.unsqueeze(back, nd - 1), ga.aval.shape), nd - 2),)


prim("linalg_lu_factor_ex", kind="opaque", attrs=("check",), infer=_lu_infer, eval_np=_lu_np, loop="library", vjp=_lu_vjp,
     saves=("out",), n_out=3,
     samples=lambda: [((draw("l", 3, 3),), ("",)), ((draw("l", 2, 4, 2),), ("",)), ((draw("l", 2, 4),), ("",)),
                      ((_well("l", 40, 40),), ("",)), ((np.zeros((0, 2, 2)),), ("",))],
     doc="(L below and U at and above the diagonal, 1-based row swaps, info = first zero pivot).")


def _order_np(attrs: Any, pivots: np.ndarray) -> np.ndarray:
    order = K.permutation(pivots, attrs[0])
    return np.argsort(order, -1) if attrs[1] else order


prim("pivot_order", kind="opaque", attrs=("rows", "inverse"),
     infer=lambda attrs, p: aval((*p.shape[:-1], attrs[0]), int64, p.device), eval_np=_order_np, loop="library", vjp=None,
     saves=(), samples=lambda: [((np.array([3, 3, 3], np.int32),), (4, False)), ((np.array([[2, 2]], np.int32),), (2, True))],
     doc="Row i of the swapped matrix is row order[i] of the original (inverse: the other way round).")


# --------------------------------------------------------------------------------------------------------- determinants
def _det_infer(attrs: Any, a: Aval) -> Aval:
    _square("linalg.det", a)
    return _with_batch(a)


def _det_vjp(ctx: Any, g: Any) -> Any:
    return (P.mul(as_matrix(g), conj(apply(OPS["cofactor"], (ctx.ins[0],)))),)


prim("linalg_det", kind="opaque", attrs=(), infer=_det_infer, eval_np=lambda attrs, a: np.linalg.det(a), loop="library",
     vjp=_det_vjp, saves=(0,),
     samples=lambda: [((_well("d", 3, 3),), ()), ((draw("d", 2, 2, 2),), ()), ((np.zeros((2, 0, 0)),), ())],
     doc="Determinants.")


def _cofactor_vjp(ctx: Any, g: Any) -> Any:
    c = conj(ctx.out)
    d = conj(apply(OPS["linalg_det"], (ctx.ins[0],)))
    nd = c.aval.ndim
    inner = P.sum(P.mul(g, c), (nd - 2, nd - 1), True)
    return (P.div(P.sub(P.mul(inner, c), P.matmul(P.matmul(c, P.transpose(g)), c)), as_matrix(d)),)


def _cofactor_infer(attrs: Any, a: Aval) -> Aval:
    _square("linalg.det", a)
    return a


prim("cofactor", kind="opaque", attrs=(), infer=_cofactor_infer, eval_np=lambda attrs, a: K.cofactor(a), loop="library",
     vjp=_cofactor_vjp, saves=(0, "out"), samples=lambda: [((_well("f", 3, 3),), ()), ((draw("f", 2, 2, 2),), ())],
     doc="Matrices of cofactors (the derivative of det), singular matrices included; its own derivative needs regular ones.")


def _slogdet_infer(attrs: Any, a: Aval) -> tuple[Aval, Aval]:
    _square("linalg.slogdet", a)
    return _with_batch(a), _with_batch(a, dt=a.dtype.to_real())


def _slogdet_vjp(ctx: Any, g: Any) -> Any:
    gsign, glog = g
    a, sign = ctx.ins[0], ctx.out[0]
    scale = None if glog is None else P.cast(glog, a.aval.dtype)
    if gsign is not None and a.aval.dtype.is_complex:  # the sign is e^(i t): d sign = i sign dt, where dt = Im tr(A^-1 dA)
        z = P.mul(conj(gsign), sign)
        turn = P.mul(P.sub(z, conj(z)), 0.5)  # i Im z
        scale = P.neg(turn) if scale is None else P.sub(scale, turn)
    if scale is None:
        return (None,)
    return (P.mul(as_matrix(scale), adjoint(inverse(a)[0])),)


prim("linalg_slogdet", kind="opaque", attrs=(), infer=_slogdet_infer, eval_np=lambda attrs, a: tuple(np.linalg.slogdet(a)),
     loop="library", vjp=_slogdet_vjp, saves=(0, "out"), n_out=2,
     samples=lambda: [((_well("g", 3, 3),), ()), ((draw("g", 2, 2, 2),), ()), ((np.zeros((2, 0, 0)),), ())],
     doc="(sign, log |det|).")


# ----------------------------------------------------------------------------------------------------- matrix functions
def _expm_vjp(ctx: Any, g: Any) -> Any:
    """The upper right block of exp([[A^H, G], [0, A^H]]) is the derivative of exp at A^H in the direction G."""
    h = adjoint(ctx.ins[0])
    n, nd = h.aval.shape[-1], h.aval.ndim
    block = P.concat((P.concat((h, g), nd - 1), P.concat((P.zeros_like(h), h), nd - 1)), nd - 2)
    e = apply(OPS["linalg_matrix_exp"], (block,))
    return (P.narrow(P.narrow(e, nd - 2, 0, n), nd - 1, n, n),)


prim("linalg_matrix_exp", kind="opaque", attrs=(), infer=_cofactor_infer, eval_np=lambda attrs, a: K.expm(a), loop="library",
     vjp=_expm_vjp, saves=(0,), samples=lambda: [((draw("x", 3, 3),), ()), ((draw("x", 2, 2, 2, lo=-9, hi=9),), ()),
                                                 ((np.zeros((0, 2, 2)),), ())], doc="Matrix exponential.")


def _pinv_infer(attrs: Any, a: Aval, atol: Aval, rtol: Aval) -> Aval:
    require_float("linalg.pinv", a)
    return _with_batch(a, a.shape[-1], a.shape[-2])


prim("linalg_pinv", kind="opaque", attrs=(), infer=_pinv_infer,
     eval_np=lambda attrs, a, atol, rtol: _converged("linalg.pinv", K.pinv, a, atol, rtol), loop="library",
     vjp=lambda ctx, g: (pinv_gradient(ctx.ins[0], ctx.out, g), None, None), saves=(0, "out"),
     samples=lambda: [((draw("p", 4, 3), np.array(0.0), np.array(1e-12)), ()),
                      ((draw("p", 2, 2, 3), np.zeros(2), np.zeros(2)), ()),
                      ((np.zeros((0, 3)), np.array(0.0), np.array(1e-12)), ())],
     doc="Moore-Penrose inverse of A with tolerances (absolute, relative to the largest singular value).")


def _lstsq_infer(attrs: Any, a: Aval, b: Aval) -> Aval:
    require_float("linalg.lstsq", a)
    return _with_batch(a, a.shape[-1], b.shape[-1])


def _lstsq_vjp(ctx: Any, g: Any) -> Any:
    a, b = ctx.ins
    lead, real = a.aval.shape[:-2], a.aval.dtype.to_real()
    p = pinv(a, P.full(lead, 0.0, real, a.aval.device), P.full(lead, ctx.attrs[0], real, a.aval.device))
    ga = pinv_gradient(a, p, P.matmul(g, adjoint(b))) if ctx.needs[0] else None
    return ga, P.matmul(adjoint(p), g) if ctx.needs[1] else None


prim("linalg_lstsq", kind="opaque", attrs=("rcond",), infer=_lstsq_infer,
     eval_np=lambda attrs, a, b: _converged("linalg.lstsq", K.lstsq, a, b, attrs[0]), loop="library", vjp=_lstsq_vjp,
     saves=(0, 1),
     samples=lambda: [((draw("o", 4, 2), draw("b", 4, 3)), (1e-12,)), ((draw("o", 2, 2, 3), draw("b", 2, 2, 1)), (1e-12,))],
     doc="Least-squares solution of least norm.")


# ------------------------------------------------------------------------------------- general eigenvalues, reflectors
def _eig_infer(attrs: Any, a: Aval) -> tuple[Aval, Aval]:
    _square("linalg.eig", a)
    dt = a.dtype.to_complex()
    return _with_batch(a, a.shape[-1], dt=dt), _with_batch(a, *a.shape[-2:], dt=dt)


def _eig_np(attrs: Any, a: np.ndarray) -> Any:
    if not np.isfinite(a).all():
        raise LinAlgError("torch.linalg.eig: input tensor should not contain infs or NaNs.")
    return tuple(_converged("linalg.eig", np.linalg.eig, a))


def _eig_vjp(ctx: Any, g: Any) -> Any:
    w, v = ctx.out
    gw, gv = g
    inner = None if gw is None else diag_matrix(gw)
    vh = adjoint(v)
    if gv is not None:
        both = P.matmul(vh, gv)
        along = P.where(on_diagonal(both), both, P.zeros_like(both))  # vectors have norm 1: no change along themselves
        both = P.sub(both, P.matmul(P.matmul(vh, v), P.mul(P.add(along, conj(along)), 0.5)))
        nd = w.aval.ndim
        gap = conj(P.sub(P.unsqueeze(w, nd - 1), P.unsqueeze(w, nd)))
        diagonal = on_diagonal(both)
        both = P.where(diagonal, P.zeros_like(both), P.div(both, P.where(diagonal, P.full_like(gap, 1), gap)))
        inner = _plus(inner, both)
    if inner is None:
        return (None,)
    return (P.cast(solve(vh, P.matmul(inner, vh))[0], ctx.in_avals[0].dtype),)


prim("linalg_eig", kind="opaque", attrs=(), infer=_eig_infer, eval_np=_eig_np, loop="library", vjp=_eig_vjp, saves=("out",),
     n_out=2, samples=lambda: [((draw("n", 3, 3),), ()), ((draw("n", 2, 4, 4, dtype=np.float32),), ()),
                               ((np.zeros((0, 2, 2)),), ())],
     doc="(eigenvalues, eigenvectors of norm 1 as columns), complex.")


def _geqrf_np(attrs: Any, a: np.ndarray) -> Any:
    h, tau = np.linalg.qr(a, "raw")
    return np.swapaxes(h, -1, -2), tau


prim("geqrf", kind="opaque", attrs=(), infer=lambda attrs, a: (a, _with_batch(a, min(a.shape[-2:]))), eval_np=_geqrf_np,
     loop="library", vjp=None, saves=(), n_out=2, samples=lambda: [((draw("h", 4, 3),), ()), ((draw("h", 2, 2, 3),), ())],
     doc="(R with the reflectors' vectors below it, their factors) of the QR factorization.")
