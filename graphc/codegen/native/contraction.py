"""A ``contract`` node as matrix products: which of its axes are rows, columns, sums and batch of strided operands.

Axes of one kind are merged where their strides allow it in every operand that has them; free axes of the first operand
that do not merge become batch axes (the result has them in front anyway). What cannot be expressed by strides is copied
first.
"""
from __future__ import annotations

import math
from itertools import permutations
from typing import NamedTuple

from ...ir.node import Aval
from ..index import Ix


class View(NamedTuple):
    """A strided operand: element offset and the stride of every axis."""

    offset: int
    strides: tuple[int, ...]


class Product(NamedTuple):
    """C[batch, m, n] = sum over k; strides in elements, ``batch_a`` and ``batch_b`` one per batch axis."""

    batch: tuple[int, ...]
    m: int
    n: int
    k: int
    batch_a: tuple[int, ...]
    batch_b: tuple[int, ...]
    a: tuple[int, int]  # strides of row and k
    b: tuple[int, int]  # strides of k and column


def view_of(av: Aval, ix: Ix | None) -> View:
    """Strides of an operand: those of ``ix`` (an affine expression over its axes), else contiguous."""
    if ix is not None:
        terms = dict(ix.terms)
        return View(ix.const, tuple([terms.get(d, 0) for d in range(av.ndim)]))
    return View(0, dense_strides(av.shape))


def dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a contiguous array."""
    strides = [1] * len(shape)
    for d in range(len(shape) - 2, -1, -1):
        strides[d] = strides[d + 1] * shape[d + 1]
    return tuple(strides)


def product(attrs: tuple[tuple[int, ...], ...], a: Aval, b: Aval, va: View, vb: View) -> Product | None:
    """The matrix product of a node's operands, or None when some strides do not fit."""
    ba, bb, da, db = attrs
    fa = [i for i in range(a.ndim) if i not in ba and i not in da]
    fb = [i for i in range(b.ndim) if i not in bb and i not in db]
    ks = _sum_axes([(a.shape[i], va.strides[i], vb.strides[j]) for i, j in zip(da, db)])
    cols = merged([(b.shape[i], (vb.strides[i],)) for i in fb])
    if ks is None or len(cols) > 1:
        return None
    rows = merged([(a.shape[i], (va.strides[i], 0)) for i in fa])
    batch = merged([(a.shape[i], (va.strides[i], vb.strides[j])) for i, j in zip(ba, bb)]) + rows[:-1]
    n, (col,) = cols[0] if cols else (1, (0,))
    m, (row, _) = rows[-1] if rows else (1, (0, 0))
    k, (ka, kb) = ks
    return Product(tuple([size for size, _ in batch]), m, n, k, tuple([s for _, (s, _) in batch]),
                   tuple([s for _, (_, s) in batch]), (row, ka), (kb, col))


def merged(axes: list[tuple[int, tuple[int, ...]]]) -> list[tuple[int, tuple[int, ...]]]:
    """Neighbouring (size, strides) axes joined where the outer strides are the inner ones times the inner size."""
    out: list[tuple[int, tuple[int, ...]]] = []
    for size, strides in axes:
        if size == 1:
            continue
        if out and all(o == s * size for o, s in zip(out[-1][1], strides)):
            out[-1] = (out[-1][0] * size, strides)
        else:
            out.append((size, strides))
    return out


def _sum_axes(axes: list[tuple[int, int, int]]) -> tuple[int, tuple[int, int]] | None:
    """The summed axes as one (size, strides), in whatever order that takes."""
    if any(size == 0 for size, _, _ in axes):
        return 0, (0, 0)
    axes = [x for x in axes if x[0] != 1]
    for order in permutations(axes) if len(axes) <= 4 else [tuple(axes)]:
        joined = merged([(size, (sa, sb)) for size, sa, sb in order])
        if len(joined) <= 1:
            return (joined[0][0], (joined[0][1][0], joined[0][1][1])) if joined else (1, (0, 0))
    return None


def flops(p: Product) -> int:
    """Multiply-adds, counted as two."""
    return 2 * math.prod(p.batch) * p.m * p.n * p.k
