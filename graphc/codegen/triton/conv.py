"""Convolutions as implicit matrix products: operands are read through the window's geometry, no patches in memory.

Rows, columns and summed index by kind (g: group, taps: positions of the kernel window; NCHW layout):

* ``conv``: (image, output pixel) x (output channel), sum over (input channel, tap);
* ``conv_input_grad``: (image, input pixel) x (input channel), sum over (output channel, tap); with a stride only taps that
  hit the grid of outputs count;
* ``conv_weight_grad``: (output channel) x (input channel, tap), sum over (image, output pixel), in parts where the result is
  small, added in fixed order.

Where the channels fill blocks the sum runs tap by tap, so that positions and borders are computed per row only.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...dtypes import bfloat16, dtype, float16, float32
from ...ir.node import Aval
from ..loop_ir import Kernel
from ..native.contraction import Product
from . import matmul, opcodes
from .compiler import Target
from .printer import Printed, X, Y
from .tiling import WIDE

_SINGLE = ((128, 64, 16, 8, 3), (64, 128, 16, 8, 3), (64, 64, 16, 4, 3), (64, 32, 32, 4, 3), (32, 64, 16, 4, 3),
           (32, 32, 32, 4, 3), (16, 64, 16, 4, 3), (64, 16, 32, 4, 3))
_HALF = ((128, 64, 32, 8, 3), (64, 128, 32, 8, 3), (64, 64, 32, 8, 3), (32, 64, 32, 4, 3), (64, 32, 32, 4, 3),
         (32, 32, 32, 4, 3), (16, 64, 32, 4, 3), (64, 16, 32, 4, 3))
CANDIDATES = {float32: _SINGLE, float16: _HALF, bfloat16: _HALF}  # compiled for sm_80 and sm_90: none spills
NAMES = ("conv", "conv_input_grad", "conv_weight_grad")


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
    pad_hi: tuple[int, ...]
    dilation: tuple[int, ...]
    product: Product

    @property
    def taps(self) -> int:
        """Positions of the window."""
        return math.prod(self.window)

    @property
    def levels(self) -> matmul.Levels:
        """Axes of the result, last first."""
        if self.kind == "conv_weight_grad":
            return matmul.product_levels(self.product)
        n, pixels = self.product.n, math.prod(self.out if self.kind == "conv" else self.space)
        return [("pixel", pixels, frozenset(X)), (f"z * {n} + y", n * self.groups, frozenset(Y)),
                ("image", self.images, frozenset(X))]


def problem(name: str, attrs: Any, ins: Sequence[Aval], result: Aval) -> Problem:
    """The problem of a node."""
    stride, lo, hi, dilation, groups = attrs[:5]
    a, b = ins
    if name == "conv":
        images, space, out, window = a.shape[0], a.shape[2:], result.shape[2:], b.shape[2:]
        channels, outputs = b.shape[1], b.shape[0] // groups
        sizes = (images * math.prod(out), outputs, channels * math.prod(window))
    elif name == "conv_input_grad":
        images, space, out, window = a.shape[0], result.shape[2:], a.shape[2:], b.shape[2:]
        channels, outputs = b.shape[1], b.shape[0] // groups
        sizes = (images * math.prod(space), channels, outputs * math.prod(window))
    else:
        images, space, out, window = a.shape[0], a.shape[2:], b.shape[2:], tuple(attrs[5])
        channels, outputs = a.shape[1] // groups, b.shape[1] // groups
        sizes = (outputs, channels * math.prod(window), images * math.prod(out))
    p = Product((groups,), *sizes, (0,), (0,), (2, 2), (2, 2))  # strides that promise nothing
    return Problem(name, images, groups, channels, outputs, space, out, window, stride, lo, hi, dilation, p)


def choose(c: Problem, dt: dtype, target: Target, epilogue: Kernel | None = None) -> matmul.Tile:
    """Block sizes; only the weight's gradient is summed in parts."""
    t = matmul.choose(c.product, dt, target, candidates=CANDIDATES.get(dt), epilogue=epilogue)
    return t if c.kind == "conv_weight_grad" else matmul.Tile(t.m, t.n, t.k, t.warps, t.stages, 1)


def print_conv(c: Problem, dt: dtype, keys: tuple[Any, Any, Any], tile: matmul.Tile, epilogue: Kernel | None, keep: bool,
               partial: Any) -> list[Printed]:
    """The kernels of a convolution in launch order; arguments as for :func:`matmul.print_product`."""
    t = {"conv": _Forward, "conv_input_grad": _InputGrad, "conv_weight_grad": _WeightGrad}[c.kind](c, dt, tile, keys[:2])
    return matmul.finished(t, f"k_{c.kind}", keys[2], c.levels, epilogue, keep, partial)


class _Conv(matmul.Template):
    """What the three kinds share."""

    def __init__(self, c: Problem, dt: dtype, tile: matmul.Tile, keys: tuple[Any, Any]):
        super().__init__(c.product, dt, tile, (0, 0), keys)
        self.c = c
        channels = (c.channels * math.prod(c.space), c.outputs * math.prod(c.out))
        self.big = max(c.images * c.groups * max(channels), c.product.n * c.product.k) + (1 << 20) >= WIDE

    def batch(self) -> None:
        """The group is part of the addresses."""

    def unravel(self, text: str, sizes: Sequence[int], name: str, depth: int = 1) -> list[str]:
        """Coordinates name0, name1, .. of a flat position."""
        names = [f"{name}{d}" for d in range(len(sizes))]
        for d in range(len(sizes) - 1, 0, -1):
            self.line(f"{names[d]}, {name}r{d} = {text} % {sizes[d]}, {text} // {sizes[d]}", depth)
            text = f"{name}r{d}"
        self.line(f"{names[0]} = {text}", depth)
        return names

    def flat(self, names: Sequence[str], sizes: Sequence[int]) -> str:
        """C-order position of coordinates."""
        parts = [n if not (stride := math.prod(sizes[d + 1:])) != 1 else f"{n} * {stride}" for d, n in enumerate(names)]
        return " + ".join(parts)

    def accumulate(self, depth: int = 2) -> None:
        acc = self.accumulator()
        how = ', input_precision="tf32x3"' if acc == "tl.float32" and self.dt.itemsize == 4 else ""
        self.line(f"acc = tl.dot(ta, tb, acc{how}, out_dtype={acc})", depth)

    def accumulator(self) -> str:
        return "tl.float64" if self.dt.itemsize == 8 else "tl.float32"

    def start(self) -> tuple[str, str]:
        """The accumulator, the block's part of the sum."""
        t = self.tile
        if t.parts > 1:
            self.line(f"lo = part * (tl.cdiv(k, {t.parts} * BK) * BK)")
            self.line(f"hi = tl.minimum(lo + tl.cdiv(k, {t.parts} * BK) * BK, k)")
        self.line("r = tl.arange(0, BK)")
        self.line(f"acc = tl.zeros((BX, BY), {self.accumulator()})")
        return ("lo", "hi") if t.parts > 1 else ("0", "k")

    def load(self, name: str, address: str, conds: Sequence[str]) -> None:
        mask = f", mask={' & '.join(conds)}, other=0" if conds else ""
        self.line(f"{name} = tl.load({address}{mask})", 2)

    def rows(self) -> list[str]:
        return ["mx"] if self.p.m % self.tile.m else []

    def columns(self) -> list[str]:
        return ["my"] if self.p.n % self.tile.n else []


class _ByPixel(_Conv):
    """Rows are pixels: the forward product and the input's gradient."""

    pixels: tuple[int, ...]  # the result's space
    source: tuple[int, ...]  # the space of what is read through the window
    deep: int  # channels summed over
    read: str  # channels of the operand read through the window, all groups: text

    def loop(self) -> None:
        c, t = self.c, self.tile
        self.line(f"pixel, image = x % {math.prod(self.pixels)}, x // {math.prod(self.pixels)}")
        at = self.unravel("pixel", self.pixels, "i")
        self.origins(at)
        area = math.prod(self.source)
        self.line(f"base = (image * {self.deep * c.groups} + z * {self.deep}) * {area}")
        lo, hi = self.start()
        by_tap = self.deep % t.k == 0 and c.taps > 1 or c.taps == 1
        if by_tap:
            blocks = -(-self.deep // t.k)
            self.line(f"for step in range(0, {c.taps * blocks}):")
            self.line(f"tap, deep = step // {blocks}, step % {blocks} * BK + r", 2)
            ends = self.deep % t.k != 0
        else:
            self.line(f"for k0 in range({lo}, {hi}, BK):")
            self.line(f"deep, tap = (k0 + r) // {c.taps}, (k0 + r) % {c.taps}", 2)
            ends = self.p.k % t.k != 0
        taps = self.unravel("tap", c.window, "t", 2)
        names, conds = self.through([n if by_tap else f"{n}[None, :]" for n in taps])
        last = ([f"(deep < {self.deep})[None, :]"] if ends else [])
        self.load("ta", f"a + base + {self.flat(names, self.source)} + (deep * {area})[None, :]", [*self.rows(), *conds, *last])
        self.load("tb", f"b + {self.weight()}", [*self.columns(), *([f"(deep < {self.deep})[:, None]"] if ends else [])])
        self.accumulate()

    def origins(self, at: Sequence[str]) -> None:
        raise NotImplementedError

    def through(self, taps: Sequence[str]) -> tuple[list[str], list[str]]:
        """(coordinates read, conditions under which they exist), printed at depth 2."""
        raise NotImplementedError

    def weight(self) -> str:
        """The weight's address for (deep, tap) and column y."""
        raise NotImplementedError

    def store(self, dt: dtype, rows: str = "z") -> None:
        """Write the accumulator as (image, channel, pixel)."""
        mask = " & ".join([*self.rows(), *self.columns()])
        n = self.p.n
        place = f"(image * {n * self.c.groups} + z * {n} + y) * {math.prod(self.pixels)} + pixel"
        self.line(f"tl.store(c + {place}, {opcodes.stored(dt, 'acc')}{f', mask={mask}' if mask else ''})")


class _Forward(_ByPixel):
    def __init__(self, c: Problem, dt: dtype, tile: matmul.Tile, keys: tuple[Any, Any]):
        super().__init__(c, dt, tile, keys)
        self.pixels, self.source, self.deep = c.out, c.space, c.channels

    def origins(self, at: Sequence[str]) -> None:
        for d, n in enumerate(at):
            self.line(f"o{d} = {n} * {self.c.stride[d]} - {self.c.pad[d]}")

    def through(self, taps: Sequence[str]) -> tuple[list[str], list[str]]:
        c, conds = self.c, []
        for d, tap in enumerate(taps):
            self.line(f"s{d} = o{d} + {tap} * {c.dilation[d]}", 2)
            reach = (c.out[d] - 1) * c.stride[d] - c.pad[d] + (c.window[d] - 1) * c.dilation[d]
            conds += [f"(s{d} >= 0)"] if c.pad[d] > 0 else []
            conds += [f"(s{d} < {c.space[d]})"] if reach >= c.space[d] else []
        return [f"s{d}" for d in range(len(taps))], conds

    def weight(self) -> str:
        c = self.c
        return f"(z * {c.outputs} + y) * {c.channels * c.taps} + " + _deep("deep", "tap", c)


def _deep(deep: str, tap: str, c: Problem) -> str:
    """Offset of (channel, tap) along the rows of a block; both may be vectors or one number."""
    return f"({deep} * {c.taps} + {tap})[:, None]"


class _InputGrad(_ByPixel):
    def __init__(self, c: Problem, dt: dtype, tile: matmul.Tile, keys: tuple[Any, Any]):
        super().__init__(c, dt, tile, keys)
        self.pixels, self.source, self.deep = c.space, c.out, c.outputs

    def origins(self, at: Sequence[str]) -> None:
        for d, n in enumerate(at):
            self.line(f"o{d} = {n} + {self.c.pad[d]}")

    def through(self, taps: Sequence[str]) -> tuple[list[str], list[str]]:
        c, conds = self.c, []
        for d, tap in enumerate(taps):
            self.line(f"s{d} = o{d} - {tap} * {c.dilation[d]}", 2)
            conds.append(f"(s{d} >= 0)")
            if c.stride[d] != 1:
                conds.append(f"(s{d} % {c.stride[d]} == 0)")
                self.line(f"q{d} = s{d} // {c.stride[d]}", 2)
            else:
                self.line(f"q{d} = s{d}", 2)
            conds.append(f"(q{d} < {c.out[d]})")
        return [f"q{d}" for d in range(len(taps))], conds

    def weight(self) -> str:
        c = self.c
        return f"y * {c.taps} + ((z * {c.outputs} + deep) * {c.channels * c.taps} + tap)[:, None]"


class _WeightGrad(_Conv):
    """a is the input, b the cotangent; rows are output channels, columns (input channel, tap)."""

    def loop(self) -> None:
        c, t = self.c, self.tile
        area, pixels = math.prod(c.space), math.prod(c.out)
        self.line(f"channel, tap = y // {c.taps}, y % {c.taps}")
        taps = self.unravel("tap", c.window, "t")
        for d, n in enumerate(taps):
            self.line(f"o{d} = {n} * {c.dilation[d]} - {c.pad[d]}")
        lo, hi = self.start()
        self.line(f"for k0 in range({lo}, {hi}, BK):")
        wide = ".to(tl.int64)" if self.big else ""
        self.line(f"image, pixel = ((k0 + r) // {pixels}){wide}, (k0 + r) % {pixels}", 2)
        at = self.unravel("pixel", c.out, "i", 2)
        conds: list[str] = []
        for d, n in enumerate(at):
            self.line(f"s{d} = o{d} + ({n} * {c.stride[d]})[:, None]", 2)
            reach = (c.out[d] - 1) * c.stride[d] - c.pad[d] + (c.window[d] - 1) * c.dilation[d]
            conds += [f"(s{d} >= 0)"] if c.pad[d] > 0 else []
            conds += [f"(s{d} < {c.space[d]})"] if reach >= c.space[d] else []
        ends = self.p.k % t.k != 0 or t.parts > 1
        last = f"(k0 + r < {hi})"
        rows = f"(image * {c.outputs * c.groups} + z * {c.outputs})[None, :] * {pixels} + x * {pixels} + pixel[None, :]"
        self.load("ta", f"b + {rows}", [*self.rows(), *([f"{last}[None, :]"] if ends else [])])
        place = f"((image * {c.channels * c.groups} + z * {c.channels}) * {area})[:, None] + channel * {area}"
        names = [f"s{d}" for d in range(len(at))]
        self.load("tb", f"a + {place} + {self.flat(names, c.space)}",
                  [*self.columns(), *conds, *([f"{last}[:, None]"] if ends else [])])
        self.accumulate()


__all__ = ["NAMES", "Problem", "choose", "print_conv", "problem"]
