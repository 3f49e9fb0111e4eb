"""Products: matmul and its relatives, einsum, linear."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import AutogradError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.infer import broadcast_shapes
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply
from ..tensor import Tensor, wrap
from ._common import binary_values, number, products, to_out, val


def _same_dtype(a: Value, b: Value) -> None:
    if a.aval.dtype is not b.aval.dtype:
        names = {"float32": "float", "float64": "double", "float16": "c10::Half", "bfloat16": "c10::BFloat16",
                 "int64": "long", "int32": "int"}
        x, y = (names.get(v.aval.dtype.name, v.aval.dtype.name) for v in (a, b))
        raise DTypeError(f"expected m1 and m2 to have the same dtype, but got: {x} != {y}")


def _fit(a: Value, b: Value) -> None:
    if a.aval.shape[-1] != b.aval.shape[-2]:
        m, k = math.prod(a.aval.shape[:-1]), a.aval.shape[-1]
        k2, n = b.aval.shape[-2:]
        raise ShapeError(f"mat1 and mat2 shapes cannot be multiplied ({m}x{k} and {k2}x{n})")


def matmul_value(a: Value, b: Value) -> Value:
    """PyTorch's matmul rules at the level of Values."""
    if a.aval.ndim == 0 or b.aval.ndim == 0:
        raise AutogradError("both arguments to matmul need to be at least 1D, but they are "
                            f"{a.aval.ndim}D and {b.aval.ndim}D")
    a, b = products(a, b)
    _same_dtype(a, b)
    if a.aval.ndim == 1 and b.aval.ndim == 1:
        if a.aval.shape != b.aval.shape:
            raise ShapeError(f"inconsistent tensor size, expected tensor {list(a.aval.shape)} and src "
                             f"{list(b.aval.shape)} to have the same number of elements, but got {a.aval.size} and "
                             f"{b.aval.size} elements respectively")
        return P.contract(a, b, ((), ()), ((0,), (0,)))
    if a.aval.ndim == 1:
        return P.reshape(r := matmul_value(P.unsqueeze(a, 0), b), (*r.aval.shape[:-2], r.aval.shape[-1]))
    if b.aval.ndim == 1:
        return P.reshape(r := matmul_value(a, P.unsqueeze(b, 1)), r.aval.shape[:-1])
    _fit(a, b)
    na, nb = a.aval.ndim, b.aval.ndim
    if nb == 2:  # any leading dims of a are rows
        return P.contract(a, b, ((), ()), ((na - 1,), (0,)))
    lead = broadcast_shapes("matmul", a.aval.shape[:-2], b.aval.shape[:-2])
    a = P.expand(a, (*lead, *a.aval.shape[-2:]))
    b = P.expand(b, (*lead, *b.aval.shape[-2:]))
    return P.matmul(a, b)


def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Matrix product with PyTorch's rules for 1-D arguments and broadcasting of leading dimensions."""
    return to_out(out, matmul_value(val(input), val(other, "other")))


def _ranked(name: str, t: Tensor, nd: int, arg: str) -> Value:
    v = val(t, arg)
    if v.aval.ndim != nd:
        raise ShapeError(f"{name}: {arg} must be a {nd}-D tensor, got {v.aval.ndim}-D of shape {list(v.aval.shape)}")
    return v


def mm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Product of two matrices."""
    return to_out(out, matmul_value(_ranked("mm", input, 2, "self"), _ranked("mm", mat2, 2, "mat2")))


def bmm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Products of two batches of matrices."""
    a, b = _ranked("bmm", input, 3, "batch1"), _ranked("bmm", mat2, 3, "batch2")
    if a.aval.shape[0] != b.aval.shape[0] or a.aval.shape[2] != b.aval.shape[1]:
        raise ShapeError(f"Expected size for first two dimensions of batch2 tensor to be: [{a.aval.shape[0]}, "
                         f"{a.aval.shape[2]}] but got: [{b.aval.shape[0]}, {b.aval.shape[1]}].")
    return to_out(out, matmul_value(a, b))


def mv(input: Tensor, vec: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Matrix times vector."""
    return to_out(out, matmul_value(_ranked("mv", input, 2, "input"), _ranked("mv", vec, 1, "vec")))


def dot(input: Tensor, tensor: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Inner product of two vectors."""
    a, b = val(input), val(tensor)
    if a.aval.ndim != 1 or b.aval.ndim != 1:
        raise AutogradError(f"1D tensors expected, but got {a.aval.ndim}D and {b.aval.ndim}D tensors")
    return to_out(out, matmul_value(a, b))


vdot = dot


def inner(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Sum over the last dimension of both."""
    a, b = val(input), val(other)
    if a.aval.ndim == 0 or b.aval.ndim == 0:
        return to_out(out, P.mul(a, b))
    return to_out(out, P.contract(a, b, ((), ()), ((a.aval.ndim - 1,), (b.aval.ndim - 1,))))


def outer(input: Tensor, vec2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Outer product of two vectors."""
    a, b = binary_values("outer", input, vec2)
    if a.aval.ndim != 1 or b.aval.ndim != 1:
        raise ShapeError(f"outer: Expected 1-D arguments, got {a.aval.ndim}-D and {b.aval.ndim}-D")
    return to_out(out, P.mul(P.unsqueeze(a, 1), P.unsqueeze(b, 0)))


ger = outer


def _scaled_add(input: Tensor, prod: Value, beta: Any, alpha: Any, out: Tensor | None) -> Tensor:
    dt = prod.aval.dtype
    if alpha != 1:
        prod = P.mul(prod, number(alpha, dt))
    if beta == 0:
        return to_out(out, prod)
    (x,) = products(val(input))
    if beta != 1:
        x = P.mul(x, number(beta, dt))
    return to_out(out, P.add(x, prod))


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1, out: Tensor | None = None) -> Tensor:
    """beta * input + alpha * mat1 @ mat2."""
    return _scaled_add(input, val(mm(mat1, mat2)), beta, alpha, out)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1, out: Tensor | None = None) -> Tensor:
    return _scaled_add(input, val(mv(mat, vec)), beta, alpha, out)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1, out: Tensor | None = None) -> Tensor:
    return _scaled_add(input, val(outer(vec1, vec2)), beta, alpha, out)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1,
            out: Tensor | None = None) -> Tensor:
    """beta * input + alpha * batch1 @ batch2."""
    return _scaled_add(input, val(bmm(batch1, batch2)), beta, alpha, out)


def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1,
           out: Tensor | None = None) -> Tensor:
    return _scaled_add(input, P.reduce("add", val(bmm(batch1, batch2)), (0,)), beta, alpha, out)


def multi_dot(tensors: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor:
    """Product of several matrices, left to right."""
    r = tensors[0]
    for t in tensors[1:]:
        r = matmul(r, t)
    return r if out is None else to_out(out, val(r))


def chain_matmul(*matrices: Tensor) -> Tensor:
    return multi_dot(matrices)


def tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: Tensor | None = None) -> Tensor:
    """Sum over pairs of dimensions: an int (last of a with first of b) or two lists."""
    va, vb = val(a), val(b)
    if isinstance(dims, int):
        da: Any = tuple(range(va.aval.ndim - dims, va.aval.ndim))
        db: Any = tuple(range(dims))
    else:
        da, db = ([d] if isinstance(d, int) else list(d) for d in dims)
    from ._common import norm_dim

    da = tuple([norm_dim(d, va.aval.ndim) for d in da])
    db = tuple([norm_dim(d, vb.aval.ndim) for d in db])
    ones = [(i, j) for i, j in zip(da, db)
            if va.aval.shape[i] != vb.aval.shape[j] and 1 in (va.aval.shape[i], vb.aval.shape[j])]
    if ones:  # a dimension of size 1 broadcasts: the other operand is summed over its own first
        wide_a = tuple([i for i, _ in ones if va.aval.shape[i] != 1])
        wide_b = tuple([j for _, j in ones if vb.aval.shape[j] != 1])
        va = P.reduce("add", va, wide_a, True) if wide_a else va
        vb = P.reduce("add", vb, wide_b, True) if wide_b else vb
    for i, j in zip(da, db):
        if va.aval.shape[i] != vb.aval.shape[j]:
            raise ShapeError(f"contracted dimensions need to match, but first has size {va.aval.shape[i]} in dim {i} and "
                             f"second has size {vb.aval.shape[j]} in dim {j}")
    return to_out(out, P.contract(va, vb, ((), ()), (da, db)))


def kron(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Kronecker product."""
    a, b = binary_values("kron", input, other)
    n = max(a.aval.ndim, b.aval.ndim)
    sa, sb = (1,) * (n - a.aval.ndim) + a.aval.shape, (1,) * (n - b.aval.ndim) + b.aval.shape
    a = P.reshape(a, tuple([x for d in sa for x in (d, 1)]))
    b = P.reshape(b, tuple([x for d in sb for x in (1, d)]))
    return to_out(out, P.reshape(P.mul(a, b), tuple([x * y for x, y in zip(sa, sb)])))


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``: input (*, in), weight (out, in) or (in,), bias (out,)."""
    if input.__class__ is Tensor and isinstance(weight, Tensor) and isinstance(bias, Tensor):  # the calls of val() saved
        x = input._v if input._alias is None else input._read()
        w = weight._v if weight._alias is None else weight._read()
        b = bias._v if bias._alias is None else bias._read()
        return wrap(apply(OPS["linear"], (x, w, b)))
    x, w = val(input), val(weight, "weight")
    return wrap(apply(OPS["linear"], (x, w) if bias is None else (x, w, val(bias, "bias"))))


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y_k = x1^T W_k x2 + b_k."""
    y = einsum("...i,kij,...j->...k", input1, weight, input2)
    return y if bias is None else y + bias


# --------------------------------------------------------------------------------------------------------------- einsum
def _parse(equation: str, vs: list[Value]) -> tuple[list[list[str]], list[str], dict[str, int]]:
    """Labels of each operand and of the output; ellipsis dims become labels "0", "1", ... counted from the right."""
    eq = equation.replace(" ", "")
    lhs, arrow, rhs = eq.partition("->")
    terms = lhs.split(",")
    if len(terms) != len(vs):
        raise AutogradError(f"einsum(): the number of operands specified in the equation ({len(terms)}) does not match the "
                            f"number of operands provided ({len(vs)})")
    labels: list[list[str]] = []
    widest = 0
    for term, v in zip(terms, vs):
        head, dots, tail = term.partition("...")
        n = v.aval.ndim - len(head) - len(tail)
        if n < 0 or (not dots and n):
            raise AutogradError(f"einsum(): the number of subscripts in the equation ({len(head) + len(tail)}) does not match "
                                f"the number of dimensions ({v.aval.ndim}) for operand {len(labels)}")
        widest = max(widest, n)
        labels.append([*head, *[str(k) for k in range(n - 1, -1, -1)], *tail])
    ell = [str(k) for k in range(widest - 1, -1, -1)]
    if arrow:
        head, dots, tail = rhs.partition("...")
        out = [*head, *(ell if dots else []), *tail]
    else:
        flat = [c for t in labels for c in t if not c.isdigit()]
        out = ell + sorted(c for c in set(flat) if flat.count(c) == 1)
    sizes: dict[str, int] = {}
    for t, v in zip(labels, vs):
        for c, d in zip(t, v.aval.shape):
            if sizes.get(c, 1) == 1:
                sizes[c] = d
            elif d not in (1, sizes[c]):
                raise ShapeError(f"einsum(): subscript {c} has size {d} for operand {labels.index(t)} which does not "
                                 f"broadcast with previously seen size {sizes[c]}")
    for c in out:
        if c not in sizes:
            raise AutogradError(f"einsum(): output subscript {c} does not appear in the equation for any input operand")
    return labels, out, sizes


def _take_diagonals(v: Value, labels: list[str]) -> tuple[Value, list[str]]:
    from ..dtypes import int64

    while len(set(labels)) < len(labels):
        c = next(x for x in labels if labels.count(x) > 1)
        i = labels.index(c)
        j = labels.index(c, i + 1)
        perm = tuple([k for k in range(len(labels)) if k not in (i, j)] + [i, j])
        v = P.permute(v, perm)
        n = v.aval.shape[-1]
        lead = v.aval.shape[:-2]
        v = P.take(P.reshape(v, (*lead, n * n)), P.mul(P.iota(n, int64, v.aval.device), n + 1), len(lead))
        labels = [labels[k] for k in perm[:-2]] + [c]
    return v, labels


def _sum_out(v: Value, labels: list[str], drop: set[str]) -> tuple[Value, list[str]]:
    axes = tuple([i for i, c in enumerate(labels) if c in drop])
    return (P.reduce("add", v, axes), [c for c in labels if c not in drop]) if axes else (v, labels)


def _pair(a: Value, la: list[str], b: Value, lb: list[str], keep: set[str], sizes: dict[str, int]) -> tuple[Value, list[str]]:
    """Contract two operands; labels in ``keep`` survive."""
    a, la = _sum_out(a, la, set(la) - set(lb) - keep)
    b, lb = _sum_out(b, lb, set(lb) - set(la) - keep)
    shared = [c for c in la if c in lb]
    for c in shared:  # size-1 broadcasting on one side
        i, j = la.index(c), lb.index(c)
        if a.aval.shape[i] != b.aval.shape[j]:
            if a.aval.shape[i] == 1:
                a = P.expand(a, tuple([sizes[c] if k == i else d for k, d in enumerate(a.aval.shape)]))
            else:
                b = P.expand(b, tuple([sizes[c] if k == j else d for k, d in enumerate(b.aval.shape)]))
    batch = [c for c in shared if c in keep]
    summed = [c for c in shared if c not in keep]
    out = P.contract(a, b, (tuple([la.index(c) for c in batch]), tuple([lb.index(c) for c in batch])),
                     (tuple([la.index(c) for c in summed]), tuple([lb.index(c) for c in summed])))
    return out, batch + [c for c in la if c not in shared] + [c for c in lb if c not in shared]


def einsum(equation: Any, *operands: Any) -> Tensor:
    """Einstein summation with PyTorch's syntax: ellipsis, repeated labels, implicit output; contracted left to right."""
    if not isinstance(equation, str):
        operands, equation = _sublists((equation, *operands))
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    vs = [val(o, "operands") for o in operands]
    labels, out, sizes = _parse(equation, vs)
    pairs = [_take_diagonals(v, t) for v, t in zip(vs, labels)]
    v, la = pairs[0]
    for i in range(1, len(pairs)):
        b, lb = pairs[i]
        v, b = products(v, b)
        _same_dtype(v, b)
        later = {c for _, t in pairs[i + 1:] for c in t}
        v, la = _pair(v, la, b, lb, set(out) | later, sizes)
    v, la = _sum_out(v, la, set(la) - set(out))
    v = P.permute(v, tuple([la.index(c) for c in out]))
    return wrap(P.expand(v, tuple([sizes[c] for c in out])))


def _sublists(args: tuple[Any, ...]) -> tuple[tuple[Any, ...], str]:
    """The operand, sublist, operand, sublist, ..., [output] form."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

    def text(sub: Any) -> str:
        return "".join("..." if s is Ellipsis else letters[s] for s in sub)

    ops, subs, i = [], [], 0
    while i + 1 < len(args):
        ops.append(args[i])
        subs.append(text(args[i + 1]))
        i += 2
    eq = ",".join(subs) + (f"->{text(args[i])}" if i < len(args) else "")
    return tuple(ops), eq


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0,
          compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """Pairwise p-norm distances between rows: (*, P, M) and (*, R, M) give (*, P, R)."""
    from .reduction import norm_value

    a, b = val(x1), val(x2)
    if a.aval.shape[-1] != b.aval.shape[-1]:
        raise ShapeError(f"X1 and X2 must have the same number of columns. X1: {a.aval.shape[-1]} X2: {b.aval.shape[-1]}")
    d = P.sub(P.unsqueeze(a, a.aval.ndim - 1), P.unsqueeze(b, b.aval.ndim - 2))
    return wrap(norm_value(d, float(p), (d.aval.ndim - 1,), False))


def cross(input: Tensor, other: Tensor, dim: int | None = None, *, out: Tensor | None = None) -> Tensor:
    """Cross product along a dimension of size 3."""
    from .rearrange import roll
    from .shape import broadcast_tensors

    a, b = broadcast_tensors(input, other)
    d = next((i for i, n in enumerate(a.shape) if n == 3), -1) if dim is None else dim
    if a.shape[d] != 3:
        raise ShapeError(f"inputs dimension {d} must have length 3. Got {a.shape[d]}")
    y = roll(a, -1, d) * roll(b, 1, d) - roll(a, 1, d) * roll(b, -1, d)
    return y if out is None else to_out(out, y._read())


def _install() -> None:
    Tensor.__matmul__ = lambda self, other: matmul(self, other) if isinstance(other, Tensor) else NotImplemented  # type: ignore
    Tensor.__rmatmul__ = lambda self, other: matmul(other, self)  # type: ignore[attr-defined]
    from .methods import in_place

    for f in (addmm, baddbmm, addmv, addr, addbmm):
        setattr(Tensor, f.__name__ + "_", in_place(f, f.__name__ + "_"))


_install()
