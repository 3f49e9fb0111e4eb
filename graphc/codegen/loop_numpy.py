"""Run a loop-IR kernel with NumPy: the reference for the printers, and the fallback where one can't print a kernel.

Every statement becomes one array over the axes it depends on (size 1 along the others, so NumPy's broadcasting does the
rest). Affine reads are strided views of the flat buffer, without a copy. Rows are worked off in tiles of the outermost
kept axis so that intermediates stay in the cache.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dtypes import dtype
from ..ir.optable import OPS
from ..ir.prims.random import philox_words
from ..ir.quiet import quiet
from . import index
from .index import Ix
from .loop_ir import Access, Guard, Kernel, Stmt

TILE = 1 << 16  # points worked on at a time


class IndexFault(Exception):
    """An index was out of range; the graph interpreter raises the user's error."""


class _Tile:
    """Evaluation over rows start .. stop of the first axis (if there is one)."""

    def __init__(self, k: Kernel, buffers: Sequence[np.ndarray], start: int, stop: int):
        self.k, self.buffers, self.start = k, buffers, start
        self.ext = (stop - start, *k.extents[1:]) if k.extents else ()
        self.values: list[np.ndarray] = []

    def axis(self, d: int) -> np.ndarray:
        """Values of iteration variable ``d``, shaped to broadcast."""
        shape = [1] * len(self.ext)
        shape[d] = self.ext[d]
        first = self.start if d == 0 else 0
        return np.arange(first, first + self.ext[d]).reshape(shape)

    def ix(self, e: Ix) -> np.ndarray:
        """An index expression as an integer array."""
        out: Any = np.int64(e.const)
        for atom, c in e.terms:
            if isinstance(atom, int):
                v = self.axis(atom)
            elif atom[0] == "data":
                v = self.values[atom[1]]
            else:
                inner = self.ix(atom[1])
                v = inner // atom[2] if atom[0] == "//" else inner % atom[2]
            out = out + c * v
        return np.asarray(out)

    def condition(self, guards: Sequence[Guard]) -> np.ndarray:
        out: Any = np.True_
        for g in guards:
            v = self.ix(g.ix)
            out = out & (v >= g.lo) & (v < g.hi)
        return np.asarray(out)

    def view(self, a: Access) -> np.ndarray | None:
        """The elements of an affine access as a strided view of the buffer."""
        if a.guards or not index.is_affine(a.ix):
            return None
        flat = self.buffers[a.buffer]
        shape, strides, offset = [1] * len(self.ext), [0] * len(self.ext), a.ix.const
        for d, c in a.ix.terms:
            shape[d], strides[d] = self.ext[d], c * flat.itemsize
            if d == 0:
                offset += c * self.start
        return np.lib.stride_tricks.as_strided(flat[offset:], shape, strides)

    def load(self, a: Access) -> np.ndarray:
        v = self.view(a)
        if v is not None:
            return v
        at = self.ix(a.ix)
        if a.guards:
            at = np.where(self.condition(a.guards), at, 0)
        return self.buffers[a.buffer][at]

    def statement(self, s: Stmt) -> np.ndarray:
        """Evaluate one statement."""
        if s.op == "load":
            return self.load(s.attr)
        if s.op == "const":
            return np.frombuffer(s.attr, s.dtype.np)[0]
        if s.op == "index":
            return self.ix(s.attr).astype(s.dtype.np)
        if s.op == "guard":
            return self.condition(s.attr)
        args = [self.values[a] for a in s.args]
        if s.op == "rng":
            return philox_words(int(np.ravel(args[0])[0]), int(np.ravel(args[1])[0]), self.ix(s.attr))
        if s.op == "check":
            return self.check(s, args[0])
        if s.op in ("reduce", "argreduce"):
            return self.reduction(s, args[0])
        op = OPS[s.op]
        out = op.eval_np((s.dtype,) if s.op == "cast" else (), *[np.asarray(a) for a in args])  # type: ignore[attr-defined]
        return np.asarray(out).astype(s.dtype.np, copy=False)

    def check(self, s: Stmt, x: np.ndarray) -> np.ndarray:
        size, wrap, guards = s.attr
        i = np.asarray(x).astype(np.int64)
        if wrap:
            i = np.where(i < 0, i + size, i)
        ok = (i >= 0) & (i < size)
        if not (ok | ~self.condition(guards)).all():
            raise IndexFault
        return np.where(ok, i, 0)

    def reduction(self, s: Stmt, x: np.ndarray) -> np.ndarray:
        k = self.k
        axes = tuple(range(k.kept, len(self.ext)))
        full = np.broadcast_to(x, (*x.shape[:k.kept], *self.ext[k.kept:]) if x.ndim else self.ext)
        if s.op == "reduce":
            out = OPS["reduce"].eval_np((s.attr, axes), full)  # type: ignore[attr-defined]
            return np.asarray(out, s.dtype.np).reshape((*full.shape[:k.kept], *[1] * len(axes)))  # perhaps no axes at all
        kind, pos = s.attr
        at = np.broadcast_to(self.ix(pos), self.ext[k.kept:] if not k.kept else (*[1] * k.kept, *self.ext[k.kept:]))
        order = np.argsort(at.reshape(-1), kind="stable")
        rows = full.reshape((*full.shape[:k.kept], -1))[..., order]
        best = OPS["argreduce"].eval_np((kind, rows.ndim - 1), rows)  # type: ignore[attr-defined]
        return np.asarray(best).reshape((*full.shape[:k.kept], *[1] * len(axes)))

    def run(self) -> None:
        """All statements, then all stores."""
        for s in self.k.stmts:
            self.values.append(np.asarray(self.statement(s)))
        for st in self.k.stores:
            v = self.view(st.access)
            assert v is not None, "stores are affine"
            v[...] = self.values[st.value]


def run_kernel(k: Kernel, buffers: Sequence[np.ndarray]) -> None:
    """Execute on flat arrays, one per buffer of the kernel. Raises IndexFault for an index out of range."""
    with quiet():
        if not k.extents or k.kept == 0:
            _Tile(k, buffers, 0, k.extents[0] if k.extents else 0).run()
            return
        per = max(1, TILE // max(1, math.prod(k.extents[1:])))
        for start in range(0, k.extents[0], per):
            _Tile(k, buffers, start, min(start + per, k.extents[0])).run()


__all__ = ["IndexFault", "dtype", "run_kernel"]
