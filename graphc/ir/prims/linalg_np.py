"""NumPy kernels for the dense linear algebra rows: what ``numpy.linalg`` lacks, and what it does when a matrix is singular.

Everything is batched over leading axes. Where ``numpy.linalg`` raises for one bad matrix of a batch, these return a result
for the others and an ``info`` array (int32, 0 = fine) with LAPACK's meaning.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

BLOCK = 32  # columns handled one by one before a matrix product updates the rest


def tri_solve(a: np.ndarray, b: np.ndarray, upper: bool, unit: bool) -> np.ndarray:
    """X of triangular A X = B by blocked substitution; a zero on the diagonal gives infinities, as in BLAS."""
    n = a.shape[-1]
    x = b.copy()
    starts = range(0, n, BLOCK)
    for s in reversed(starts) if upper else starts:
        e = min(s + BLOCK, n)
        for i in reversed(range(s, e)) if upper else range(s, e):
            done = slice(i + 1, e) if upper else slice(s, i)
            x[..., i, :] -= np.matmul(a[..., i:i + 1, done], x[..., done, :])[..., 0, :]
            if not unit:
                x[..., i, :] /= a[..., i, i, None]
        rest = slice(0, s) if upper else slice(e, n)
        x[..., rest, :] -= a[..., rest, s:e] @ x[..., s:e, :]
    return x


def lu(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """LU with partial pivoting: (L and U in one matrix, 1-based row swaps int32, info = first zero pivot)."""
    m, n = a.shape[-2:]
    k = min(m, n)
    out = a.reshape(math.prod(a.shape[:-2]), m, n).copy()
    batch = np.arange(out.shape[0])
    pivots = np.zeros((out.shape[0], k), np.int32)
    info = np.zeros(out.shape[0], np.int32)
    for s in range(0, k, BLOCK):
        e = min(s + BLOCK, k)
        for j in range(s, e):
            p = np.argmax(np.abs(out[:, j:, j]), 1) + j if out.shape[0] else batch
            pivots[:, j] = p + 1
            rows = out[batch, p]
            out[batch, p] = out[:, j]
            out[:, j] = rows
            d = out[:, j, j]
            info = np.where((info == 0) & (d == 0), j + 1, info).astype(np.int32)
            out[:, j + 1:, j] /= np.where(d == 0, 1, d)[:, None]
            out[:, j + 1:, j + 1:e] -= out[:, j + 1:, j:j + 1] * out[:, j:j + 1, j + 1:e]
        if e < n:
            out[:, s:e, e:] = tri_solve(out[:, s:e, s:e], out[:, s:e, e:], False, True)
            out[:, e:, e:] -= out[:, e:, s:e] @ out[:, s:e, e:]
    return out.reshape(a.shape), pivots.reshape(*a.shape[:-2], k), info.reshape(a.shape[:-2])


def permutation(pivots: np.ndarray, m: int) -> np.ndarray:
    """Row order (..., m) after 1-based swaps (..., k): row i of the swapped matrix is row order[i] of the original."""
    flat = pivots.reshape(math.prod(pivots.shape[:-1]), pivots.shape[-1]).astype(np.int64) - 1
    order = np.tile(np.arange(m), (flat.shape[0], 1))
    batch = np.arange(flat.shape[0])
    for j in range(flat.shape[1]):
        p = flat[:, j]
        moved = order[batch, p]
        order[batch, p] = order[:, j]
        order[:, j] = moved
    return order.reshape(*pivots.shape[:-1], m)


def _one_by_one(fn: Callable[..., np.ndarray], diagnose: Callable[[np.ndarray], int], a: np.ndarray, *rest: np.ndarray) -> Any:
    """``fn`` per matrix of a batch some of which it refuses: infinities and an info number for those."""
    lead = a.shape[:-2]
    info = np.zeros(lead, np.int32)
    last = rest[0] if rest else a
    out = np.full(last.shape, np.inf, a.dtype)
    for i in np.ndindex(*lead):
        try:
            out[i] = fn(a[i], *[r[i] for r in rest])
        except np.linalg.LinAlgError:
            info[i] = diagnose(a[i])
    return out, info


def _zero_pivot(a: np.ndarray) -> int:
    return int(lu(a)[2]) or a.shape[-1]


def inv(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(inverse, info = first zero pivot)."""
    try:
        return np.linalg.inv(a), np.zeros(a.shape[:-2], np.int32)
    except np.linalg.LinAlgError:
        return _one_by_one(np.linalg.inv, _zero_pivot, a)


def solve(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(X of A X = B, info = first zero pivot)."""
    try:
        return np.linalg.solve(a, b), np.zeros(a.shape[:-2], np.int32)
    except np.linalg.LinAlgError:
        return _one_by_one(np.linalg.solve, _zero_pivot, a, b)


def _bad_minor(a: np.ndarray) -> int:
    """Order of the first leading minor that is not positive."""
    n = a.shape[-1]
    low = np.zeros_like(a)
    for j in range(n):
        d = (a[j, j] - np.vdot(low[j, :j], low[j, :j])).real
        if not d > 0:
            return j + 1
        low[j, j] = math.sqrt(d)
        low[j + 1:, j] = (a[j + 1:, j] - low[j + 1:, :j] @ low[j, :j].conj()) / low[j, j]
    return n


def cholesky(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(lower factor, info = order of the first leading minor that is not positive)."""
    try:
        return np.linalg.cholesky(a), np.zeros(a.shape[:-2], np.int32)
    except np.linalg.LinAlgError:
        return _one_by_one(np.linalg.cholesky, _bad_minor, a)


def eigh(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(eigenvalues ascending, eigenvectors); NaN for matrices that hold one, as in PyTorch."""
    if np.isfinite(a).all():
        return tuple(np.linalg.eigh(a))  # type: ignore[return-value]
    w = np.full(a.shape[:-1], np.nan, a.real.dtype)
    v = np.full(a.shape, np.nan, a.dtype)
    for i in np.ndindex(*a.shape[:-2]):
        if np.isfinite(a[i]).all():
            w[i], v[i] = np.linalg.eigh(a[i])
    return w, v


def cofactor(a: np.ndarray) -> np.ndarray:
    """Matrix of cofactors, det(A) A^-T wherever A is regular, and right for singular matrices too (by SVD)."""
    n = a.shape[-1]
    if n == 0 or a.size == 0:
        return a.copy()
    u, s, vh = np.linalg.svd(a)
    others = np.where(np.eye(n, dtype=bool), s.dtype.type(1), s[..., None, :]).prod(-1)
    sign = np.linalg.det(u) * np.linalg.det(vh)
    return (sign[..., None, None] * ((u.conj() * others[..., None, :]) @ vh.conj())).astype(a.dtype)


_PADE13 = (64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0, 129060195264000.0,
           10559470521600.0, 670442572800.0, 33522128640.0, 1323241920.0, 40840800.0, 960960.0, 16380.0, 182.0, 1.0)
_THETA13 = 5.371920351148152


def expm(a: np.ndarray) -> np.ndarray:
    """Matrix exponential by scaling and squaring with the [13/13] Pade approximant (Higham 2005)."""
    n = a.shape[-1]
    if a.size == 0:
        return a.copy()
    norm = np.abs(a).sum(-2).max(-1).astype(np.float64)
    s = np.where(np.isfinite(norm) & (norm > _THETA13), np.ceil(np.log2(np.maximum(norm, 1e-300) / _THETA13)), 0)
    s = np.maximum(s, 0).astype(np.int64)
    x = a * np.exp2(-s.astype(np.float64))[..., None, None].astype(a.real.dtype)
    one = np.eye(n, dtype=a.dtype)
    c = [a.dtype.type(b) / a.dtype.type(_PADE13[0]) for b in _PADE13]  # divided by the first so that float32 has room
    x2 = x @ x
    x4 = x2 @ x2
    x6 = x4 @ x2
    u = x @ (x6 @ (c[13] * x6 + c[11] * x4 + c[9] * x2) + c[7] * x6 + c[5] * x4 + c[3] * x2 + c[1] * one)
    v = x6 @ (c[12] * x6 + c[10] * x4 + c[8] * x2) + c[6] * x6 + c[4] * x4 + c[2] * x2 + c[0] * one
    r, _ = solve(v - u, v + u)
    r = np.where(np.isfinite(norm)[..., None, None], r, np.nan).astype(a.dtype)
    for i in range(int(s.max())):
        r = np.where((s > i)[..., None, None], r @ r, r)
    return r


def pinv(a: np.ndarray, atol: np.ndarray, rtol: np.ndarray) -> np.ndarray:
    """Moore-Penrose inverse: singular values up to max(atol, rtol * largest) count as zero."""
    m, n = a.shape[-2:]
    if a.size == 0:
        return np.zeros((*a.shape[:-2], n, m), a.dtype)
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    keep = s > np.maximum(atol, rtol * s[..., 0])[..., None]
    inverse = np.where(keep, 1 / np.where(keep, s, 1), 0).astype(a.dtype)
    return np.swapaxes(vh.conj(), -1, -2) @ (inverse[..., None] * np.swapaxes(u.conj(), -1, -2))


def lstsq(a: np.ndarray, b: np.ndarray, rcond: float) -> np.ndarray:
    """Least-squares solution of least norm; singular values up to rcond * largest count as zero."""
    if a.size == 0:
        return np.zeros((*a.shape[:-2], a.shape[-1], b.shape[-1]), b.dtype)
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    keep = s > rcond * s[..., :1]
    inverse = np.where(keep, 1 / np.where(keep, s, 1), 0).astype(a.dtype)
    return np.swapaxes(vh.conj(), -1, -2) @ (inverse[..., None] * (np.swapaxes(u.conj(), -1, -2) @ b))
