"""Jacobians and Hessians: pullbacks or pushforwards mapped over a basis."""
from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ..dtypes import int64
from ..ir import build as P
from ..ir.node import Aval, Value
from ..tensor import Tensor, wrap
from ..utils._pytree import TreeSpec, tree_unflatten
from ._derivatives import Argnums, Pullback, Pushforward, pullback
from ._vmap import vmap


def basis(a: Aval) -> Value:
    """The standard basis (n, *shape) of tensors like ``a``, which has n elements."""
    n = a.size
    row, column = P.iota(n, int64, a.device), P.reshape(P.iota(n, int64, a.device), (n, 1))
    return P.reshape(P.cast(P.eq(column, row), a.dtype), (n, *a.shape))


def reverse_rows(back: Pullback, k: int, chunk_size: int | None = None) -> list[Value]:
    """The Jacobian of output ``k`` with respect to every input, (*output shape, *input shape)."""
    out = back.outs[k].aval
    shapes = [v.aval.shape for v in back.wrt]

    def row(cot: Tensor) -> tuple[Tensor, ...]:
        cots: list[Value | None] = [None] * len(back.outs)
        cots[k] = cot._read()
        return tuple([wrap(v) for v in back.flat(cots)])

    rows = vmap(row, randomness="same", chunk_size=chunk_size)(wrap(basis(out)))
    return [P.reshape(r._read(), (*out.shape, *s)) for r, s in zip(rows, shapes)]


def forward_columns(push: Pushforward, k: int, chunk_size: int | None = None) -> list[Value]:
    """The Jacobian of every output with respect to input ``k``, (*output shape, *input shape)."""
    a = push.in_avals[k]

    def column(tangent: Tensor) -> tuple[Tensor, ...]:
        tangents: list[Value | None] = [None] * len(push.in_avals)
        tangents[k] = tangent._read()
        return tuple([wrap(v) for v in push.flat(tangents)])

    columns = vmap(column, out_dims=-1, randomness="same", chunk_size=chunk_size)(wrap(basis(a)))
    return [P.reshape(c._read(), (*v.aval.shape, *a.shape)) for c, v in zip(columns, push.values)]


def _nested(table: Sequence[Sequence[Value]], out_spec: TreeSpec, in_spec: TreeSpec) -> Any:
    """``table[output][input]`` as a tree of trees."""
    return tree_unflatten([tree_unflatten([wrap(v) for v in row], in_spec) for row in table], out_spec)


def jacrev(func: Callable[..., Any], argnums: Argnums = 0, *, has_aux: bool = False, chunk_size: int | None = None,
           _preallocate_and_copy: bool = False) -> Callable[..., Any]:
    """A function returning the Jacobian of ``func`` with respect to argument ``argnums``, by reverse mode: a tree like the
    outputs whose leaves are trees like the argument (a tuple of them for a tuple), each of shape (*output, *input).

    ``chunk_size`` bounds the rows computed together. With ``has_aux``, (Jacobian, aux).
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError("jacrev: `chunk_size` should be greater than 0.")

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        _, spec, back, aux = pullback(func, args, kwargs, argnums, has_aux, "jacrev")
        table = [reverse_rows(back, k, chunk_size) for k in range(len(back.outs))]
        out = _nested(table, spec, back.in_spec)
        return (out, aux) if has_aux else out

    return wrapper


def jacfwd(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *,
           randomness: str = "error") -> Callable[..., Any]:
    """Like :func:`jacrev`, by forward mode: better where outputs outnumber inputs. ``func`` runs once, so its random
    numbers are shared by all columns, whatever ``randomness`` says."""
    if randomness not in ("error", "different", "same"):
        raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        push = Pushforward(func, args, kwargs, argnums, has_aux, "jacfwd")
        columns = [forward_columns(push, k) for k in range(len(push.in_avals))]
        table = [[c[i] for c in columns] for i in range(len(push.values))]
        out = _nested(table, push.spec, push.in_spec)
        return (out, push.aux) if has_aux else out

    return wrapper


def hessian(func: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """A function returning the Hessian of ``func``: forward mode over reverse mode."""
    return jacfwd(jacrev(func, argnums), argnums)

