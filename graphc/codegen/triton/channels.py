"""Tilings of kernels over matrices (pixels) x (channels): blocks whose text does not depend on the number of channels.

A pointwise kernel that also reads vectors along the last axis gets blocks with rows along x and channels along y: no position
is divided, a vector is read once a block, and every width is the same code. A small sum over the first axis (the second step
of a sum over rows) loops over blocks of one fixed size. A weight's update, most of which lies in the weight's order and little
(its gradient) in another with the few taps of a window apart, goes through memory in the weight's order.
"""
from __future__ import annotations

import math

from .. import index
from ..loop_ir import Kernel
from .tiling import STREAM, Tiling, accesses, has_reduction

SIDES = (64, 32, 16)  # channels of a block
FEW = 1 << 16  # elements of a sum that is small
TAPS = 16  # more positions of a window make rows worth a block


def channels_tiling(k: Kernel) -> Tiling | None:
    """The tiling of a kernel over a matrix, or None for others."""
    if has_reduction(k):
        return _small_sum(k)
    if len(k.extents) == 3:
        return _in_order(k)
    if len(k.extents) != 2:
        return None
    rows, columns = k.extents
    side = next((s for s in SIDES if columns % s == 0), 0)
    if not side or rows < STREAM // side:
        return None
    whole = vectors = 0
    for a in accesses(k):
        if index.data(a.ix) or not index.is_affine(a.ix):
            return None
        strides = index.coefficient(a.ix, 0) or 0, index.coefficient(a.ix, 1) or 0
        whole += strides == (columns, 1)
        vectors += strides == (0, 1)
        if strides not in ((columns, 1), (0, 1), (0, 0)):
            return None
    return Tiling((), (0,), (1,), STREAM // side, side, False, 4) if whole and vectors else None


def _in_order(k: Kernel) -> Tiling | None:
    """A kernel over (outputs, inputs, taps) in the order of its stores, where at least half of its loads have that order."""
    own = index.flatten([index.var(d) for d in range(3)], k.extents)
    if k.extents[2] >= TAPS or math.prod(k.extents) < STREAM or any(st.access.ix != own for st in k.stores):
        return None
    large = [s.attr.ix for s in k.stmts if s.op == "load" and len(index.variables(s.attr.ix)) == 3]
    if 2 * sum(ix == own for ix in large) < len(large) or all(ix == own for ix in large):
        return None
    return Tiling((), (0, 1, 2), (), STREAM, 1, False, 4)


def _small_sum(k: Kernel) -> Tiling | None:
    """A sum of few elements over an axis along which they do not lie in a row."""
    reduced = tuple(range(k.kept, len(k.extents)))
    if k.kept != 1 or len(reduced) != 1 or math.prod(k.extents) > FEW or k.extents[0] < 16:
        return None
    for a in accesses(k):
        if 1 in reduced and index.coefficient(a.ix, 1) not in (0, k.extents[0]):
            return None
    return Tiling((), (0,), reduced, 16, 128, True, 4)


__all__ = ["channels_tiling"]
