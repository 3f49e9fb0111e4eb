"""The rest of ``torch.linalg``: norms, condition numbers, products of matrices and vectors, tensor equations."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..dtypes import dtype as DType
from ..dtypes import int64
from ..errors import AutogradError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.infer import broadcast_shapes
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.prims import linalg_values as F
from ..ir.recorder import apply
from ..tensor import Tensor, wrap
from . import linalg as L
from ._common import binary_values, norm_dim, norm_dims, to_out, val
from ._linalg_common import c_name, check_square, matrices, same_dtype
from .indexing import diagonal as _diagonal
from .reduction import norm_value


# ---------------------------------------------------------------------------------------------------------------- norms
def magnitude(v: Value) -> Value:
    """Absolute values, real for complex numbers."""
    return apply(OPS["magnitude"], (v,)) if v.aval.dtype.is_complex else P.abs(v)


def _norm_input(name: str, A: Any, dtype: DType | None) -> Value:
    v = val(A)
    if v.aval.dtype.category < 2:
        raise DTypeError(f"{name}: Expected a floating point or complex tensor as input. Got {c_name(v)}")
    if dtype is None:
        return v
    if dtype.category < v.aval.dtype.category:
        raise DTypeError(f"{name}: the dtype of the input ({c_name(v)}) should be convertible without narrowing to the "
                         f"specified dtype ({dtype.name})")
    return P.cast(v, dtype)


def _vector_norm(v: Value, p: float, axes: tuple[int, ...], keepdim: bool) -> Value:
    count = math.prod([v.aval.shape[i] for i in axes])
    if not count and (p == math.inf or p < 0):
        which = "on an empty tensor" if not v.aval.size and len(axes) == v.aval.ndim else "on an empty dimension"
        raise ShapeError(f"linalg.vector_norm cannot compute the {p:g} norm {which} because the operation does not have an "
                         "identity")
    if p == 0:
        return norm_value(v, 0, axes, keepdim) if not v.aval.dtype.is_complex else norm_value(magnitude(v), 0, axes, keepdim)
    return norm_value(magnitude(v) if v.aval.dtype.is_complex else v, p, axes, keepdim)


def vector_norm(x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None,
                out: Tensor | None = None) -> Tensor:
    """(sum |x|^ord)^(1/ord) over ``dim`` (default all); inf: largest, -inf: smallest, 0: number of nonzeros."""
    v = _norm_input("linalg.vector_norm", x, dtype)
    return to_out(out, _vector_norm(v, float(ord), norm_dims(dim, v.aval.ndim), bool(keepdim)))


def _matrix_dims(v: Value, dim: Any) -> tuple[int, int]:
    if len(dim) != 2:
        raise ShapeError(f"linalg.matrix_norm: dim must be a 2-tuple. Got {' '.join(map(str, dim))}")
    a, b = (norm_dim(d, v.aval.ndim) for d in dim)
    if a == b:
        raise ShapeError(f"linalg.matrix_norm: dims must be different. Got ({a}, {b})")
    return a, b


def _keep(v: Value, dims: tuple[int, int]) -> Value:
    for d in sorted(dims):
        v = P.unsqueeze(v, d)
    return v


def _spectral(v: Value, dims: tuple[int, int], keepdim: bool, kind: str) -> Value:
    """Sum, largest or smallest of the singular values."""
    rest = tuple([d for d in range(v.aval.ndim) if d not in dims])
    s = L.singular_values(P.permute(v, (*rest, *dims)))
    r = P.reduce(kind, s, (s.aval.ndim - 1,))
    return _keep(r, dims) if keepdim else r


def _abs_sum(v: Value, dims: tuple[int, int], keepdim: bool, over: int, kind: str) -> Value:
    """Largest or smallest sum of absolute values along one of the two dims."""
    s = P.reduce("add", magnitude(v), (dims[over],), True)
    s = P.reduce(kind, s, (dims[1 - over],), True)
    return s if keepdim else P.reshape(s, tuple([d for i, d in enumerate(s.aval.shape) if i not in dims]))


def _matrix_norm(v: Value, ord: Any, dims: tuple[int, int], keepdim: bool) -> Value:
    if ord in (2, -2, "nuc"):
        return _spectral(v, dims, keepdim, {2: "max", -2: "min", "nuc": "add"}[ord])
    if ord in (1, -1, math.inf, -math.inf):
        return _abs_sum(v, dims, keepdim, 0 if abs(ord) == 1 else 1, "max" if ord > 0 else "min")
    if ord == "fro":
        return _vector_norm(v, 2.0, tuple(sorted(dims)), keepdim)
    raise AutogradError(f"linalg.matrix_norm: Order {ord} not supported.")


def matrix_norm(A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: DType | None = None,
                out: Tensor | None = None) -> Tensor:
    """Norm of matrices: "fro", "nuc", 2 and -2 (singular values), 1 and -1 (column sums), inf and -inf (row sums)."""
    v = _norm_input("linalg.matrix_norm", A, dtype)
    if v.aval.ndim < 2:
        raise ShapeError("linalg.matrix_norm: The input tensor A must have at least 2 dimensions.")
    return to_out(out, _matrix_norm(v, ord, _matrix_dims(v, dim), bool(keepdim)))


def norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, out: Tensor | None = None,
         dtype: DType | None = None) -> Tensor:
    """2-norm of all elements, or with ``ord`` the vector norm of 1 dim (or a 1-D tensor), the matrix norm of 2 dims."""
    dims = None if dim is None else tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    if ord is None:
        return vector_norm(A, 2, dims, keepdim, dtype=dtype, out=out)
    if dims is None:
        if A.ndim not in (1, 2) or isinstance(ord, str) and A.ndim != 2:
            raise ShapeError("linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got "
                             f"{A.ndim}D." if not isinstance(ord, str) or A.ndim != 1 else
                             "linalg.matrix_norm: The input tensor A must have at least 2 dimensions.")
        dims = (-1,) if A.ndim == 1 else (-2, -1)
    elif len(dims) not in (1, 2):
        raise ShapeError(f"linalg.norm: If dim is specified, it must be of length 1 or 2. Got {list(dims)}")
    if len(dims) == 1 and not isinstance(ord, str):
        return vector_norm(A, ord, dims, keepdim, dtype=dtype, out=out)
    return matrix_norm(A, ord, dims, keepdim, dtype=dtype, out=out)


def cond(A: Tensor, p: Any = None, *, out: Tensor | None = None) -> Tensor:
    """Condition numbers: norm(A) * norm(A^-1) in the norm ``p``; by singular values for None, 2 and -2."""
    v = matrices("linalg.cond", A)
    if p in (None, 2, -2):
        s = L.singular_values(v)
        nd, k = s.aval.ndim, s.aval.shape[-1]
        if not k:
            return to_out(out, P.full(s.aval.shape[:-1], 0.0, s.aval.dtype, s.aval.device))
        hi, lo = (P.reshape(P.narrow(s, nd - 1, i, 1), s.aval.shape[:-1]) for i in (0, k - 1))
        return to_out(out, P.div(lo, hi) if p == -2 else P.div(hi, lo))
    if p not in ("fro", "nuc", 1, -1, math.inf, -math.inf):
        raise AutogradError(f"linalg.cond got an invalid norm type: {p}")
    check_square(f"linalg.cond(ord={p})", v)
    x, info = F.inverse(v)
    dims = (v.aval.ndim - 2, v.aval.ndim - 1)
    bad = P.ne(info, 0)
    x = P.where(F.as_matrix(bad), P.zeros_like(x), x)
    c = P.mul(_matrix_norm(v, p, dims, False), _matrix_norm(x, p, dims, False))
    return to_out(out, P.where(bad, P.full_like(c, math.inf), c))


# ------------------------------------------------------------------------------------------------------------- products
def cross(input: Tensor, other: Tensor, *, dim: int = -1, out: Tensor | None = None) -> Tensor:
    """Cross products along ``dim``, which must have size 3 in both."""
    a, b = binary_values("linalg.cross", input, other)
    if a.aval.ndim != b.aval.ndim:
        raise ShapeError("linalg.cross: inputs must have the same number of dimensions.")
    d = norm_dim(dim, a.aval.ndim)
    if not a.aval.ndim or a.aval.shape[d] != 3 or b.aval.shape[d] != 3:
        raise ShapeError(f"linalg.cross: inputs dimension {dim} must have length 3. Got {a.aval.shape[d]} and "
                         f"{b.aval.shape[d]}")
    shape = broadcast_shapes("linalg.cross", a.aval.shape, b.aval.shape)
    a, b = P.expand(a, shape), P.expand(b, shape)

    def turned(v: Value, by: int) -> Value:
        return P.concat((P.narrow(v, d, by, 3 - by), P.narrow(v, d, 0, by)), d)

    return to_out(out, P.sub(P.mul(turned(a, 1), turned(b, 2)), P.mul(turned(a, 2), turned(b, 1))))


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1, out: Tensor | None = None) -> Tensor:
    """sum of conj(x) * y along ``dim``."""
    a, b = val(x, "x"), val(y, "y")
    if a.aval.dtype is not b.aval.dtype:
        raise DTypeError(f"linalg.vecdot: Expected vectors with the same dtype, got {c_name(a)} and {c_name(b)}")
    v = P.mul(F.conj(a), b)
    d = norm_dim(dim, v.aval.ndim)
    return to_out(out, P.reduce("add", v, (d,)) if v.aval.ndim else v)


def _order(sizes: list[int]) -> list[tuple[int, int]]:
    """Pairs of neighbours to multiply, in order, for the fewest operations (dynamic programming, Cormen et al. 15.2)."""
    n = len(sizes) - 1
    cost = [[0] * n for _ in range(n)]
    cut = [[0] * n for _ in range(n)]
    for length in range(2, n + 1):
        for i in range(n - length + 1):
            j = i + length - 1
            trials = [(cost[i][k] + cost[k + 1][j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)]
            cost[i][j], cut[i][j] = min(trials)
    todo, steps = [(0, n - 1)], []
    while todo:
        i, j = todo.pop()
        if i < j:
            steps.append((i, cut[i][j] + 1))
            todo += [(i, cut[i][j]), (cut[i][j] + 1, j)]
    return steps[::-1]  # inner products come after the outer ones they belong to


def multi_dot(tensors: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor:
    """Product of two or more matrices (the first and last may be vectors) in the cheapest order."""
    n = len(tensors)
    if n < 2:
        raise AutogradError(f"multi_dot(): expected at least 2 tensors but got {n}")
    vs = [val(t, "tensors") for t in tensors]
    for i, v in enumerate(vs):
        if v.aval.ndim != 2 and not (i in (0, n - 1) and v.aval.ndim == 1):
            what = "the first tensor must be 1D or 2D" if i == 0 else f"tensor {i} must be 2D"
            what = "the last tensor must be 1D or 2D" if i == n - 1 else what
            raise ShapeError(f"multi_dot(): {what} but got {v.aval.ndim}D")
        same_dtype("multi_dot()", vs[0], v)
    first, last = vs[0].aval.ndim == 1, vs[-1].aval.ndim == 1
    vs[0] = P.unsqueeze(vs[0], 0) if first else vs[0]
    vs[-1] = P.unsqueeze(vs[-1], 1) if last else vs[-1]
    for i, (a, b) in enumerate(zip(vs, vs[1:])):
        if a.aval.shape[1] != b.aval.shape[0]:
            raise ShapeError(f"multi_dot(): tensors {i} and {i + 1} with shapes {list(tensors[i].shape)} and "
                             f"{list(tensors[i + 1].shape)} cannot be multiplied")
    product: dict[int, Value] = dict(enumerate(vs))
    for i, k in _order([vs[0].aval.shape[0], *[v.aval.shape[1] for v in vs]]):
        product[i] = P.matmul(product[i], product[k])
    shape = product[0].aval.shape
    return to_out(out, P.reshape(product[0], (() if first else shape[:1]) + (() if last else shape[1:])))


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonal of two dims (default the last two), a view."""
    return _diagonal(A, offset, dim1, dim2)


def vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """Rows 1, x, x^2, ..., x^(N-1) for every element of the last dimension."""
    v = val(x, "x")
    if v.aval.dtype.category == 0:
        v = P.cast(v, int64)
    n = (v.aval.shape[-1] if v.aval.ndim else 1) if N is None else int(N)
    if n <= 1:
        raise AutogradError("N must be greater than 1.")
    if v.aval.ndim == 0:
        v = P.reshape(v, (1,))
    wide = P.expand(P.unsqueeze(v, v.aval.ndim), (*v.aval.shape, n))
    return wrap(P.pow(wide, P.iota(n, v.aval.dtype, v.aval.device)))


def householder_product(A: Tensor, tau: Tensor, *, out: Tensor | None = None) -> Tensor:
    """First n columns of the product of the reflectors I - tau_i v_i v_i^H; v_i is column i of A, below a 1 at (i, i).

    As one product I - V T V^H with T upper triangular (Schreiber and Van Loan 1989), T^-1 = diag(1/tau) + triu(V^H V, 1).
    """
    name = "torch.linalg.householder_product"
    v, t = matrices(name, A, "input"), val(tau, "tau")
    m, n = v.aval.shape[-2:]
    if m < n:
        raise ShapeError(f"{name}: input.shape[-2] must be greater than or equal to input.shape[-1]")
    k = t.aval.shape[-1]
    if k > n:
        raise ShapeError(f"{name}: input.shape[-1] must be greater than or equal to tau.shape[-1]")
    same_dtype(name, v, t)
    nd = v.aval.ndim
    head = P.narrow(v, nd - 1, 0, k)
    w = P.where(F.on_diagonal(head), P.full_like(head, 1), F.band(head, True, -1))
    inner = F.scale_rows(t, F.band(P.matmul(F.adjoint(w), w), False, 1))
    tri = F.solve_triangular(inner, F.diag_matrix(t), True, True)
    top = F.adjoint(P.narrow(w, nd - 2, 0, n))
    return to_out(out, P.sub(F.eye_like(v), P.matmul(w, P.matmul(tri, top))))


# ----------------------------------------------------------------------------------------------------- tensor equations
def tensorsolve(A: Tensor, B: Tensor, dims: Any = None, *, out: Tensor | None = None) -> Tensor:
    """X of tensordot(A, X, X.ndim) = B; ``dims`` of A are moved to its end first."""
    a = val(A, "A")
    if dims is not None:
        moved = [norm_dim(d, a.aval.ndim) for d in dims]
        a = P.permute(a, tuple([d for d in range(a.aval.ndim) if d not in moved] + moved))
    shape = a.aval.shape[B.ndim:]
    n, rows = math.prod(shape), math.prod(a.aval.shape[:B.ndim])
    if n != rows:
        raise ShapeError("Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == "
                         f"prod(self.shape[:other.ndim]), but got {n} != {rows}")
    x = L.solve(wrap(P.reshape(a, (rows, n))), wrap(P.reshape(val(B), (B.numel(),))))
    return to_out(out, P.reshape(val(x), shape))


def tensorinv(A: Tensor, ind: int = 2, *, out: Tensor | None = None) -> Tensor:
    """The tensor whose tensordot over ``ind`` dims undoes A's."""
    if ind <= 0:
        raise AutogradError("Expected a strictly positive integer for 'ind', but got " + str(ind))
    v = val(A, "A")
    head, tail = v.aval.shape[:ind], v.aval.shape[ind:]
    if math.prod(tail) != math.prod(head):
        raise ShapeError("Expected self to satisfy the requirement prod(self.shape[ind:]) == prod(self.shape[:ind]), but got "
                         f"{math.prod(tail)} != {math.prod(head)}")
    x = L.inv(wrap(P.reshape(v, (math.prod(head), math.prod(tail)))))
    return to_out(out, P.reshape(val(x), tail + head))
