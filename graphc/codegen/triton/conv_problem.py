"""What a convolution is to its template: geometry, the product it is, and which kernels can be printed behind it."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...dtypes import bfloat16, dtype, float16, float32, float64
from ...ir.node import Aval
from .. import index
from ..loop_ir import Kernel
from ..native.contraction import Product
from . import matmul, opcodes
from .printer import NONE, Printer, Val, X, Y
from .tiling import Sizes, Tiling

# Every entry was compiled for sm_80 and sm_90 with the kernels a ResNet has behind its convolutions: none spills.
_SINGLE = ((128, 64, 32, 8, 3), (64, 64, 32, 4, 3), (64, 32, 32, 4, 3), (32, 64, 32, 4, 3), (32, 32, 32, 4, 3),
           (16, 64, 32, 4, 3), (64, 16, 32, 4, 3))
_HALF = ((128, 128, 64, 8, 3), (128, 64, 64, 8, 3), (64, 128, 64, 8, 3), (64, 64, 64, 4, 3), (64, 32, 64, 4, 3),
         (32, 64, 64, 4, 3), (32, 32, 64, 4, 3), (16, 64, 32, 4, 3), (64, 16, 32, 4, 3))
_DOUBLE = ((64, 64, 16, 4, 3), (32, 32, 16, 4, 3))
CANDIDATES: dict[dtype, tuple[Sizes, ...]] = {float32: _SINGLE, float16: _HALF, bfloat16: _HALF, float64: _DOUBLE}


@dataclass(frozen=True)
class Problem:
    """One convolution: geometry, and the product it is."""

    kind: str
    images: int
    groups: int
    channels: int  # of the input, per group
    outputs: int  # channels of the output, per group
    space: tuple[int, ...]  # of the input
    out: tuple[int, ...]  # of the output
    window: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]
    product: Product

    @property
    def taps(self) -> int:
        """Positions of the window."""
        return math.prod(self.window)

    @property
    def by_class(self) -> bool:
        """Whether an input gradient goes over pixels class by class."""
        return self.kind == "conv_input_grad_last" and by_class(self.stride, self.dilation)

    @property
    def levels(self) -> matmul.Levels:
        """Axes of the result, last first."""
        p = self.product
        if self.kind == "conv_weight_grad_last":
            return matmul.product_levels(p)
        pixels = self.images * math.prod(self.out if self.kind == "conv_last" else self.space)
        return [("column", p.n * self.groups, frozenset(Y)), ("row", pixels, frozenset(X))]

    @property
    def rows(self) -> int:
        """Rows of the result as a matrix."""
        return self.levels[1][1]


def problem(name: str, attrs: Any, ins: Sequence[Aval], result: Aval) -> Problem:
    """The problem of a node of :data:`layout.ROWS`."""
    stride, lo, _, dilation, groups = attrs[:5]
    a, b = ins
    images = a.shape[0]
    if name == "conv_last":
        space, out, window = a.shape[1:-1], result.shape[1:-1], b.shape[1:-1]
        channels, outputs = b.shape[-1], b.shape[0] // groups
        sizes = (images * math.prod(out), outputs, channels * math.prod(window))
    elif name == "conv_input_grad_last":
        space, out, window = result.shape[1:-1], a.shape[1:-1], b.shape[1:-1]
        channels, outputs = b.shape[-1], b.shape[0] // groups
        sizes = (images * math.prod([-(-n // s) for n, s in zip(space, stride)]), channels, outputs * math.prod(window))
    else:
        space, out, window = a.shape[1:-1], b.shape[1:-1], tuple(attrs[5])
        channels, outputs = a.shape[-1] // groups, b.shape[-1] // groups
        sizes = (outputs, channels * math.prod(window), images * math.prod(out))
    batch = groups
    if name == "conv_input_grad_last":
        if by_class(stride, dilation):
            batch *= math.prod(stride)
            sizes = (*sizes[:2], sizes[2] // min(math.prod(window), math.prod(stride)))
        else:
            sizes = (images * math.prod(space), *sizes[1:])
    p = Product((batch,), *sizes, (0,), (0,), (2, 2), (2, 2))  # strides that promise nothing
    return Problem(name, images, groups, channels, outputs, space, out, window, stride, lo, dilation, p)


def by_class(stride: Sequence[int], dilation: Sequence[int]) -> bool:
    """Whether the pixels of an input gradient fall into classes that meet different taps."""
    return max(stride) > 1 and all(math.gcd(s, d) == 1 for s, d in zip(stride, dilation))


def fitting(c: Problem, dt: dtype) -> list[Sizes]:
    """Blocks most of which lie within the result: few programs are not worth arithmetic on nothing."""
    return [t for t in CANDIDATES[dt] if t[1] < 2 * c.product.n or t[1] == 16] or list(CANDIDATES[dt])


def summed_rows(epilogue: Kernel | None) -> int:
    """Rows a kernel sums at a time; 0 if it sums none."""
    return math.prod(epilogue.extents[epilogue.kept:]) if epilogue is not None and epilogue.kept < len(epilogue.extents) else 0


# ----------------------------------------------------------------------------------------------------------- epilogues
def axes_of(c: Problem, k: Kernel, slot: Any) -> list[int] | None:
    """The axes of a kernel from outer to inner as they lie in a convolution's result, if the kernel can be printed behind it:
    every element read once at its own point, and no sum over anything but the rows of one tile."""
    if any(s.op == "argreduce" or s.op == "reduce" and (s.attr != "add" or not s.dtype.is_floating_point) for s in k.stmts):
        return None
    loads = {s.attr for s in k.stmts if s.op == "load" and k.buffers[s.attr.buffer].slot == slot}
    (_, columns, _), *outer = c.levels
    size = math.prod([n for _, n, _ in outer]) * columns
    if len(loads) != 1 or math.prod(k.extents) != size:
        return None
    (a,) = loads
    if a.guards or a.ix.const or not index.is_affine(a.ix):
        return None
    strides = [index.coefficient(a.ix, d) or 0 for d in range(len(k.extents))]
    order = sorted(range(len(k.extents)), key=lambda d: -strides[d])
    if [strides[d] for d in order] != [math.prod([k.extents[e] for e in order[n + 1:]]) for n in range(len(order))]:
        return None
    if c.kind == "conv_weight_grad_last" and order != list(range(len(order))):
        return None  # a large result that would be written (and updated) element by element
    rows = summed_rows(k)
    if rows:
        summed = [d for d in order if columns <= strides[d] < columns * rows]
        if c.kind == "conv_weight_grad_last" or c.by_class or sorted(summed) != list(range(k.kept, len(k.extents))):
            return None
        if not any(t[0] == rows for t in fitting(c, next(b.dtype for b in k.buffers if b.slot == slot))):
            return None
    return order if matmul.positions([k.extents[d] for d in order], _levels(c, rows)) is not None else None


def _levels(c: Problem, rows: int) -> matmul.Levels:
    """Axes of the result, last first; with ``rows`` cut into the rows of a tile and the tile."""
    if not rows:
        return c.levels
    return [c.levels[0], ("(x - pm * BX)", rows, frozenset(X)), ("pm", c.rows // rows, NONE)]


class Behind(matmul.Epilogue):
    """Prints a kernel behind a convolution: pointwise work, and sums over the rows of the tile."""

    def __init__(self, k: Kernel, slot: Any, c: Problem, tile: matmul.Tile):
        axes = tuple(range(len(k.extents)))
        Printer.__init__(self, k, Tiling((), axes, (), tile.m, tile.n, False, tile.warps))
        self.slot, self.rank = slot, 2
        self.buffer_names = [f"e{i}" for i in range(len(k.buffers))]
        self.texts: dict[int, str] = {}
        order = axes_of(c, k, slot)
        assert order is not None
        places = matmul.positions([k.extents[d] for d in order], _levels(c, summed_rows(k)))
        assert places is not None
        for d, (text, shape) in zip(order, places):
            self.side[d], self.texts[d] = shape, text
        self.columns = c.product.n * c.groups

    def coefficient(self, c: int) -> str:
        """A distance in memory; rows of the result are an argument apart."""
        if c % self.columns:
            return str(c)
        return "columns" if c == self.columns else f"({c // self.columns} * columns)"

    def statement(self, i: int, env: dict[int, Val]) -> Val:
        s = self.k.stmts[i]
        if s.op != "reduce":
            return super().statement(i, env)
        dt = self.k.stmts[s.args[0]].dtype
        total = opcodes.rounded(dt, f"tl.sum({self.whole(env[s.args[0]], dt)}, 0, keep_dims=True)")
        return Val(self.let(self.name(i), total, self.note(i)), frozenset(Y))


__all__ = ["CANDIDATES", "Behind", "Problem", "axes_of", "by_class", "fitting", "problem", "summed_rows"]
