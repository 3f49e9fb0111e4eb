"""Triangles and diagonals of matrices."""
from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

from ..dtypes import dtype as DType
from ..dtypes import int32, int64
from ..errors import AutogradError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.node import Value
from ..tensor import Tensor, from_array, wrap
from ._common import norm_dim, to_out, val


def _tri_mask(v: Value, diagonal: int, lower: bool) -> Value:
    m, n = v.aval.shape[-2:]
    r = P.reshape(P.iota(m, int64, v.aval.device), (m, 1))
    c = P.reshape(P.iota(n, int64, v.aval.device), (1, n))
    d = P.sub(c, r)
    return P.le(d, diagonal) if lower else P.ge(d, diagonal)


def _tri(input: Tensor, diagonal: int, lower: bool, out: Tensor | None) -> Tensor:
    v = val(input)
    if v.aval.ndim < 2:
        raise ShapeError(f"{'tril' if lower else 'triu'}: input tensor must have at least 2 dimensions, got {v.aval.ndim}")
    return to_out(out, P.where(_tri_mask(v, diagonal, lower), v, P.zeros_like(v)))


def tril(input: Tensor, diagonal: int = 0, *, out: Tensor | None = None) -> Tensor:
    """Lower triangles of matrices (..., m, n); above ``diagonal`` zero."""
    return _tri(input, diagonal, True, out)


def triu(input: Tensor, diagonal: int = 0, *, out: Tensor | None = None) -> Tensor:
    """Upper triangles of matrices (..., m, n); below ``diagonal`` zero."""
    return _tri(input, diagonal, False, out)


def _indices(found: Any, dtype: DType, device: Any) -> Tensor:
    if dtype not in (int32, int64):
        raise DTypeError(f'"tril_indices" not implemented for \'{dtype.name}\'')
    t = from_array(np.stack(found).astype(dtype.np))
    return t if device is None else t.to(device)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: DType = int64, device: Any = None,
                 layout: Any = None) -> Tensor:
    """(2, n) row and column numbers of the lower triangle."""
    _check_sizes(row, col)
    return _indices(np.tril_indices(row, offset, col), dtype, device)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: DType = int64, device: Any = None,
                 layout: Any = None) -> Tensor:
    """(2, n) row and column numbers of the upper triangle."""
    _check_sizes(row, col)
    return _indices(np.triu_indices(row, offset, col), dtype, device)


def _check_sizes(row: int, col: int) -> None:
    if row < 0 or col < 0:
        raise AutogradError(f"row and col must be non-negative, got {row} and {col}")


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of two dims as a new last dimension; a view, so that writing to it writes to ``input``."""
    n = input.ndim
    a, b = norm_dim(dim1, n), norm_dim(dim2, n)
    if a == b:
        raise ShapeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    rest = [d for d in range(n) if d not in (a, b)]
    rows, cols = input.shape[a], input.shape[b]
    lead = tuple([input.shape[d] for d in rest])
    perm = (*rest, a, b)
    t = input if perm == tuple(range(n)) else input._view("permute", (perm,))
    r0, c0 = max(0, -offset), max(0, offset)
    k = max(0, min(rows - r0, cols - c0))
    flat = t._view("reshape", ((*lead, rows * cols),))  # element (i, i) of a matrix of rows sits at i * (cols + 1)
    start = r0 * cols + c0 if k else 0
    stop = start + (k - 1) * (cols + 1) + 1 if k else 0
    zeros = (0,) * len(lead)
    return flat._view("slice", (zeros + (start,), lead + (stop,), (1,) * len(lead) + (cols + 1,)))


_diagonal = diagonal


def diag(input: Tensor, diagonal: int = 0, *, out: Tensor | None = None) -> Tensor:
    """The diagonal of a matrix as a vector, or a matrix with a vector on its diagonal."""
    if input.ndim == 1:
        return to_out(out, val(diag_embed(input, diagonal)))
    if input.ndim != 2:
        raise ShapeError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")
    return to_out(out, val(_diagonal(input, diagonal)))


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last dimension of ``input`` on a diagonal, zero elsewhere."""
    v, offset = val(input), index(offset)
    if v.aval.ndim == 0:
        raise ShapeError("diag_embed: the input must have at least one dimension")
    n, nd = v.aval.shape[-1], v.aval.ndim
    a, b = norm_dim(dim1, nd + 1), norm_dim(dim2, nd + 1)
    if a == b:
        raise ShapeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    size = n + abs(offset)
    r = P.reshape(P.iota(size, int64, v.aval.device), (size, 1))
    c = P.reshape(P.iota(size, int64, v.aval.device), (1, size))
    # Row i of the matrix holds element i (offset >= 0) or i + offset of the vector: pad so that row i finds it at i.
    lo, hi = (0, size - n) if offset >= 0 else (size - n, 0)
    column = P.unsqueeze(P.pad(v, (0,) * (nd - 1) + (lo,), (0,) * (nd - 1) + (hi,)), nd)
    m = P.where(P.eq(P.sub(c, r), offset), column, P.zeros_like(column))
    perm = list(range(nd - 1))
    for at, axis in sorted([(a, nd - 1), (b, nd)]):
        perm.insert(at, axis)
    return wrap(P.permute(m, tuple(perm)))


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with the flattened ``input`` on a diagonal."""
    v = val(input)
    return diag_embed(wrap(P.reshape(v, (v.aval.size,))), offset)
