"""Convolutions, channels last, as implicit matrix products: rows are read through the window's geometry, no patches in memory.

Rows, columns and what is summed over, by kind (arrays as :mod:`layout` leaves them: images (N, *S, C), weights (O, *K, C/g)):

* ``conv``: (image, output pixel) x (output channel), sum over (tap, input channel);
* ``conv_input_grad``: (image, input pixel) x (input channel), sum over (tap, output channel). With a stride, pixels are taken
  class by class (position modulo stride): all pixels of a class meet the same taps, so no product is with a zero;
* ``conv_weight_grad``: (output channel) x (tap, input channel), sum over (image, output pixel), in parts where the result is
  small; the parts are added in fixed order.

The sum runs tap by tap over blocks of channels, so positions and borders cost one comparison a row, and a block's row lies in
one piece. Few channels (an image's three) are summed over (tap, channel) flattened. All sizes are run-time arguments: layers
that differ in sizes only share their code. What follows in the same kernel is a pointwise kernel (:class:`matmul.Epilogue`) or
one that also sums a tile's rows (:class:`conv_problem.Behind`).
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...dtypes import dtype, float32, float64
from ..loop_ir import Kernel
from . import matmul, opcodes
from .compiler import Target
from .conv_problem import CANDIDATES, Behind, Problem, axes_of, fitting, problem, summed_rows
from .printer import Arg, Printed, X, Y, assemble
from .tiling import WIDE, Sizes, estimate, ranked

NAMES = ("conv_last", "conv_input_grad_last", "conv_weight_grad_last")
FEW = 16  # channels below which taps and channels are summed together


def choose(c: Problem, dt: dtype, target: Target, epilogue: Kernel | None = None) -> matmul.Tile:
    """Block sizes; only the weight's gradient is summed in parts."""
    return tiles(c, dt, target, epilogue)[0]


def tiles(c: Problem, dt: dtype, target: Target, epilogue: Kernel | None = None) -> list[matmul.Tile]:
    """Block sizes that can be used, the ones with the least estimated time first."""
    rows = summed_rows(epilogue)
    deep = {"conv_last": c.channels, "conv_input_grad_last": c.outputs}.get(c.kind)
    found = [t for t in fitting(c, dt) if not rows or t[0] == rows]
    if deep is not None and deep >= FEW:  # the last block of a tap's channels may be padding
        found = [t for t in found if deep % t[2] == 0] or [(m, n, max(16, math.gcd(deep, k)), w, s) for m, n, k, w, s in found]
    if c.kind == "conv_weight_grad_last" and c.channels >= FEW:
        found = [t for t in found if c.channels % t[1] == 0] or found
    return _ordered(c, dt, target, found, epilogue)


def _ordered(c: Problem, dt: dtype, target: Target, candidates: Sequence[Sizes],
             epilogue: Kernel | None = None) -> list[matmul.Tile]:
    """Tiles by their estimated time; a weight's gradient in as many parts as fill the device some times over."""
    whole: list[matmul.Tile] = []
    for fewer in (0, 1, 2):  # stages, where a device has less shared memory than the table was made for
        found = [(*t[:4], t[4] - fewer) for t in candidates]
        whole = whole or [t for t in ranked(c.product, dt, target, candidates=found, epilogue=epilogue) if t.parts == 1]
    if c.kind != "conv_weight_grad_last":
        return whole
    p = c.product
    every = []
    for t in whole:
        blocks = -(-p.m // t.m) * -(-p.n // t.n) * math.prod(p.batch)
        parts = {min(max(1, target.processors * full // blocks), max(1, p.k // (4 * t.k))) for full in (1, 2, 3, 4)}
        every += [replace(t, parts=n) for n in sorted(parts | {1})]
    return sorted(every, key=lambda t: estimate(t, p, dt, target))


def rows_at_once(c: Problem, dt: dtype, target: Target) -> int:
    """How many rows of its result one program of a convolution can sum: 0 where rows are no run of the result's."""
    if c.kind == "conv_weight_grad_last" or c.by_class:
        return 0
    found = [t for t in fitting(c, dt) if c.rows % t[0] == 0]
    if not found:
        return 0
    return _ordered(c, dt, target, found)[0].m


def can_end_in(c: Problem, k: Kernel, slot: Any) -> bool:
    """Whether a kernel can be printed behind a convolution."""
    return axes_of(c, k, slot) is not None


def print_conv(c: Problem, dt: dtype, keys: tuple[Any, Any, Any], tile: matmul.Tile, epilogue: Kernel | None, keep: bool,
               partial: Any) -> list[Printed]:
    """The kernels of a convolution in launch order; arguments as for :func:`matmul.print_product`."""
    t = _KINDS[c.kind](c, dt, tile, keys)
    t.header()
    t.loop()
    name = "k_" + c.kind.removesuffix("_last")
    doc = [f"{c.kind} of {c.images} images in {dt.name}."]
    if tile.parts > 1:
        wide = float64 if dt is float64 else float32
        t.store(wide, partial=True)
        first = t.finished(f"{name}_parts", [*doc, "Parts of the sum."], [Arg("c", opcodes.pointer_type(wide), partial, 16)])
        size = math.prod(c.product.batch) * c.product.m * c.product.n
        if epilogue is not None:
            return [first, matmul.combine_parts(size, dt, keys[2], partial, tile.parts, epilogue, keep)]
        return [first, add_parts(size, dt, keys[2], partial, tile.parts)]
    pointers: list[Arg] = []
    if keep or epilogue is None:
        t.store(dt)
        pointers.append(Arg("c", opcodes.pointer_type(dt), keys[2], 16))
    if epilogue is None:
        return [t.finished(name, doc, pointers)]
    e = Behind(epilogue, keys[2], c, tile)
    e.big = e.big or t.big
    e.masks = frozenset([s for s, on in ((X, "mx"), (Y, "my")) if on in t.masked])
    e.lines = t.lines
    e.print("acc")
    name += "_" + epilogue.name.split("_", 1)[-1]
    return [t.finished(name, [*doc, "Then " + e.describe()[0]], [*pointers, *e.arguments()], e.helpers, e.checks, epilogue)]


def add_parts(size: int, dt: dtype, out: Any, partial: Any, parts: int) -> Printed:
    """The sum of partial results in their order, rounded once."""
    wide = float64 if dt is float64 else float32
    lines = ["    i = tl.program_id(0) * BX + tl.arange(0, BX)", f"    acc = tl.zeros((BX,), {opcodes.register(wide)})",
             "    for part in range(0, parts):", "        acc += tl.load(a + i, mask=i < n)", "        a += n",
             f"    tl.store(o + i, {opcodes.stored(dt, 'acc')}, mask=i < n)"]
    args = [Arg("a", opcodes.pointer_type(wide), partial, 16), Arg("o", opcodes.pointer_type(dt), out, 16),
            Arg("n", "i32", size, _hint(size)), Arg("parts", "i32", parts, 1)]
    return assemble("k_add_parts", ["The parts of a sum added in order."], lines, args, [("BX", 512)], [("n", 512)], 4, set())


def _hint(n: int) -> int:
    """A number's divisor as far as it matters: 16-byte accesses."""
    return 16 if n % 16 == 0 else 1


# ------------------------------------------------------------------------------------------------------------- templates
class _Conv:
    """State of printing one convolution."""

    def __init__(self, c: Problem, dt: dtype, tile: matmul.Tile, keys: tuple[Any, Any, Any]):
        self.c, self.p, self.dt, self.tile, self.keys = c, c.product, dt, tile, keys
        self.lines: list[str] = []
        self.numbers: list[Arg] = []
        self.masked: set[str] = set()
        channels = (c.channels * math.prod(c.space), c.outputs * math.prod(c.out))
        weight = c.groups * c.outputs * c.channels * c.taps
        self.big = max(c.images * c.groups * max(channels), weight * tile.parts) + (1 << 20) >= WIDE
        self.dims = range(len(c.window))
        self.grouped = self.p.batch[0] > 1

    def line(self, text: str, depth: int = 1) -> None:
        self.lines.append("    " * depth + text)

    def number(self, name: str, value: int, hint: bool = False) -> str:
        """A run-time argument; ``hint``: addresses depend on its divisibility."""
        if all(a.name != name for a in self.numbers):
            self.numbers.append(Arg(name, "i64" if self.big else "i32", value, _hint(value) if hint else 1))
        return name

    @property
    def wide(self) -> str:
        return ".to(tl.int64)" if self.big else ""

    # ----------------------------------------------------------------------------------------------------------- parts
    def header(self) -> None:
        """Which tile, which group (or class of pixels), which part of the sum."""
        p, t = self.p, self.tile
        self.numbers += [Arg("m", "i32", p.m, 1), Arg("n", "i32", p.n, _hint(p.n))]
        self.line("tiles_m, tiles_n = tl.cdiv(m, BX), tl.cdiv(n, BY)")
        self.line("pid = tl.program_id(0)")
        if self.grouped or t.parts > 1:
            self.line("tile, z = pid % (tiles_m * tiles_n), pid // (tiles_m * tiles_n)")
        else:
            self.line("tile = pid")
        self.line(f"first = tile // ({matmul.GROUP} * tiles_n) * {matmul.GROUP}  # rows of tiles in groups, for the L2 cache")
        self.line(f"rows = tl.minimum(tiles_m - first, {matmul.GROUP})")
        self.line(f"pm, pn = first + tile % ({matmul.GROUP} * tiles_n) % rows, tile % ({matmul.GROUP} * tiles_n) // rows")
        self.line(f"x = (pm * BX + tl.arange(0, BX)[:, None]){self.wide}")
        self.line(f"y = (pn * BY + tl.arange(0, BY)[None, :]){self.wide}")
        if p.m % t.m:
            self.line("mx = x < m")
            self.masked.add("mx")
        if p.n % t.n:
            self.line("my = y < n")
            self.masked.add("my")
        if t.parts > 1:
            self.number("parts", t.parts)
            self.line("part, z = z % parts, z // parts")
        if self.big and self.grouped:
            self.line("z = z.to(tl.int64)")

    def loop(self) -> None:
        raise NotImplementedError

    def unravel(self, text: str, sizes: Sequence[str], name: str, depth: int = 1) -> str:
        """Print coordinates name0, name1, .. of a position; returns what is left over the first of them."""
        for d in range(len(sizes) - 1, -1, -1):
            self.line(f"{name}{d}, {name}rest{d} = {text} % {sizes[d]}, {text} // {sizes[d]}", depth)
            text = f"{name}rest{d}"
        return text

    def flat(self, names: Sequence[str], sizes: Sequence[str]) -> str:
        """C-order position of coordinates."""
        text = names[0]
        for name, size in zip(names[1:], sizes[1:]):
            text = f"({text}) * {size} + {name}"
        return text

    def sized(self, name: str, values: Sequence[int]) -> list[str]:
        """One argument per dimension."""
        return [self.number(f"{name}{d}", values[d]) for d in self.dims]

    def geometry(self) -> list[list[str]]:
        """Arguments: stride, padding, dilation and window of every dimension."""
        c = self.c
        every = (("stride", c.stride), ("pad", c.pad), ("dilation", c.dilation), ("window", c.window))
        return [self.sized(name, values) for name, values in every]

    def mask(self, name: str) -> list[str]:
        """The mask of rows (mx) or columns (my) where there is one."""
        return [name] if name in self.masked else []

    def load(self, name: str, address: str, conds: Sequence[str], depth: int = 2) -> None:
        mask = f", mask={' & '.join(conds)}, other=0" if conds else ""
        self.line(f"{name} = tl.load({address}{mask})", depth)

    @property
    def accumulator(self) -> str:
        return "tl.float64" if self.dt is float64 else "tl.float32"

    def accumulate(self, depth: int = 2) -> None:
        how = ', input_precision="tf32x3"' if self.dt is float32 else ""
        self.line(f"acc = tl.dot(ta, tb, acc{how}, out_dtype={self.accumulator})", depth)

    def begin(self) -> None:
        """The accumulator."""
        self.line("r = tl.arange(0, BK)")
        self.line(f"acc = tl.zeros((BX, BY), {self.accumulator})")

    def store(self, dt: dtype, partial: bool = False) -> None:
        """Write the accumulator as the dense result."""
        mask = " & ".join(sorted(self.masked))
        self.line(f"tl.store(c + {self.place(partial)}, {opcodes.stored(dt, 'acc')}{f', mask={mask}' if mask else ''})")

    def place(self, partial: bool) -> str:
        """Address of the result's elements."""
        return "row * columns + column"

    def finished(self, name: str, doc: list[str], pointers: list[Arg], helpers: set[str] | None = None, checks: bool = False,
                 kernel: Any = None) -> Printed:
        t = self.tile
        keys = [Arg(n, opcodes.pointer_type(self.dt), key, 16) for n, key in zip("ab", self.keys)]
        grid: list[tuple[str | int, int]] = [("m", t.m), ("n", t.n), (self.p.batch[0] * t.parts, 1)]
        return assemble(name, doc, self.lines, [*keys, *pointers, *self.numbers], [("BX", t.m), ("BY", t.n), ("BK", t.k)], grid,
                        t.warps, helpers or set(), checks, kernel, t.stages)


class _ByPixel(_Conv):
    """Rows are pixels: the forward product and the input's gradient."""

    def result(self) -> None:
        """Columns of the result; the group's number in z."""
        c = self.c
        self.number("columns", self.p.n * c.groups, True)
        self.line("column = z * n + y" if c.groups > 1 else "column = y")

    def steps(self, deep: int, bounds: Sequence[str], first: Sequence[str], stride: Sequence[str]) -> tuple[str, list[str]]:
        """Print the head of the loop over taps and blocks of channels; returns the depth's channel text and tap texts.

        ``bounds``: numbers of taps a dimension; tap = first + counter * stride."""
        self.number("deep", deep, True)
        self.line(f"steps = tl.cdiv(deep, BK) * {' * '.join(bounds)}")
        self.line("c0 = 0")
        for d in self.dims:
            self.line(f"j{d} = 0")
        self.line("for step in range(0, steps):")
        return "(c0 + r)", [f"({f} + j{d} * {s})" if f != "0" else f"j{d}" for d, (f, s) in enumerate(zip(first, stride))]

    def advance(self, bounds: Sequence[str]) -> None:
        """To the next block of channels, or to the next tap."""
        self.line("c0 += BK", 2)
        self.line("turn = (c0 >= deep).to(tl.int32)", 2)
        self.line("c0 = c0 * (1 - turn)", 2)
        for d in reversed(self.dims):
            self.line(f"j{d} += turn", 2)
            if d:
                self.line(f"turn = (j{d} == {bounds[d]}).to(tl.int32)", 2)
                self.line(f"j{d} = j{d} * (1 - turn)", 2)

    def depth_masked(self, deep: int) -> bool:
        return deep % self.tile.k != 0

    def inside(self, sizes: Sequence[str]) -> list[str]:
        return [f"(s{d} >= 0) & (s{d} < {sizes[d]})" for d in self.dims]


class _Forward(_ByPixel):
    def loop(self) -> None:
        c = self.c
        out, space = self.sized("out", c.out), self.sized("in", c.space)
        self.line("row = x")
        self.result()
        image = self.unravel("x", out, "i")
        stride, pad, dilation, window = self.geometry()
        for d in self.dims:
            self.line(f"o{d} = i{d} * {stride[d]} - {pad[d]}")
        self.number("all", c.channels * c.groups, True)  # channels of a pixel
        if c.channels < FEW:
            return self.flattened(image, window, dilation, space)
        self.begin()
        deep, taps = self.steps(c.channels, window, ["0"] * len(window), ["1"] * len(window))
        for d in self.dims:
            self.line(f"s{d} = o{d} + {taps[d]} * {dilation[d]}", 2)
        ends = [f"({deep} < deep)"] if self.depth_masked(c.channels) else []
        group = "z * deep + " if c.groups > 1 else ""
        pixel = self.flat([image, *[f"s{d}" for d in self.dims]], ["", *space])
        self.load("ta", f"a + ({pixel}) * all + ({group}{deep})[None, :]",
                  [*self.mask("mx"), *self.inside(space), *[f"{e}[None, :]" for e in ends]])
        at = f"({self.flat(taps, window)}) * deep + c0" if ends else "step * BK"
        self.load("tb", f"b + column * {self.number('depth', c.channels * c.taps, True)} + ({at} + r)[:, None]",
                  [*self.mask("my"), *[f"{e}[:, None]" for e in ends]])
        self.accumulate()
        self.advance(window)
        return None

    def flattened(self, image: str, window: Sequence[str], dilation: Sequence[str], space: Sequence[str]) -> None:
        """Sum over (tap, channel) as one axis."""
        c = self.c
        self.number("deep", c.channels)
        self.number("depth", c.channels * c.taps)
        self.begin()
        self.line("for k0 in range(0, depth, BK):")
        self.line("channel = (k0 + r) % deep", 2)
        self.unravel("((k0 + r) // deep)", window, "t", 2)
        for d in self.dims:
            self.line(f"s{d} = o{d} + (t{d} * {dilation[d]})[None, :]", 2)
        group = "z * deep + " if c.groups > 1 else ""
        pixel = self.flat([image, *[f"s{d}" for d in self.dims]], ["", *space])
        self.load("ta", f"a + ({pixel}) * all + ({group}channel)[None, :]",
                  [*self.mask("mx"), *self.inside(space), "(k0 + r < depth)[None, :]"])
        self.load("tb", "b + column * depth + (k0 + r)[:, None]", [*self.mask("my"), "(k0 + r < depth)[:, None]"])
        self.accumulate()


class _InputGrad(_ByPixel):
    def loop(self) -> None:
        c = self.c
        out, space = self.sized("out", c.out), self.sized("in", c.space)
        stride, pad, dilation, window = self.geometry()
        if c.by_class:
            image = self.classes(space, stride, pad, dilation, window)
            bounds, first, jump = [f"taps{d}" for d in self.dims], [f"first{d}" for d in self.dims], list(stride)
        else:
            self.line("row = x")
            image = self.unravel("x", space, "i")
            for d in self.dims:
                self.line(f"o{d} = i{d} + {pad[d]}")
            bounds, first, jump = list(window), ["0"] * len(window), ["1"] * len(window)
        self.result()
        self.begin()
        deep, taps = self.steps(c.outputs, bounds, first, jump)
        conds = self.mask("mx")
        for d in self.dims:
            self.line(f"s{d} = o{d} - j{d} * {dilation[d]}", 2)
            if not c.by_class and max(c.stride) > 1:  # stride and dilation have a common divisor: most taps meet nothing
                self.line(f"whole{d} = s{d} % {stride[d]} == 0", 2)
                self.line(f"s{d} = tl.where(s{d} < 0, -1, s{d} // {stride[d]})", 2)
                conds.append(f"whole{d}")
        ends = [f"({deep} < deep)"] if self.depth_masked(c.outputs) else []
        group = "z * deep + " if c.groups > 1 else ""
        pixel = self.flat([image, *[f"s{d}" for d in self.dims]], ["", *out])
        self.number("all", c.outputs * c.groups, True)
        self.load("ta", f"a + ({pixel}) * all + ({group}{deep})[None, :]",
                  [*conds, *self.inside(out), *[f"{e}[None, :]" for e in ends]])
        self.line(f"tap = {self.flat(taps, window)}", 2)
        count = self.number("count", c.taps)
        self.load("tb", f"b + (({group}{deep}) * {count} + tap)[:, None] * n + y",
                  [*self.mask("my"), *[f"{e}[:, None]" for e in ends]])
        self.accumulate()
        self.advance(bounds)

    def classes(self, space: Sequence[str], stride: Sequence[str], pad: Sequence[str], dilation: Sequence[str],
                window: Sequence[str]) -> str:
        """Pixels of one class: coordinate = class + stride * counter, and the taps that meet them."""
        c = self.c
        rest = f"(z % {self.number('classes', math.prod(c.stride))})"
        for d in reversed(self.dims):
            self.line(f"class{d} = {rest} % {stride[d]}")
            rest = f"({rest} // {stride[d]})"
        if c.groups > 1:
            self.line("z = z // classes")
        per = self.sized("per", [-(-n // s) for n, s in zip(c.space, c.stride)])
        image = self.unravel("x", per, "q")
        for d in self.dims:
            self.line(f"i{d} = q{d} * {stride[d]} + class{d}")
            inverse = self.number(f"inverse{d}", pow(c.dilation[d], -1, c.stride[d]) if c.stride[d] > 1 else 0)
            self.line(f"first{d} = (class{d} + {pad[d]}) * {inverse} % {stride[d]}")
            self.line(f"taps{d} = (window{d} - first{d} + {stride[d]} - 1) // {stride[d]}")
            self.line(f"o{d} = (i{d} + {pad[d]} - first{d} * {dilation[d]}) // {stride[d]}  # divides")
        if any(n % s for n, s in zip(c.space, c.stride)):
            inside = " & ".join(f"(i{d} < {space[d]})" for d in self.dims)
            self.line(f"mx = {'mx & ' if 'mx' in self.masked else ''}{inside}")
            self.masked.add("mx")
        self.line(f"row = {self.flat([image, *[f'i{d}' for d in self.dims]], ['', *space])}")
        return image


class _WeightGrad(_Conv):
    """a is the input, b the cotangent; rows are output channels, columns (tap, input channel)."""

    def loop(self) -> None:
        c, t = self.c, self.tile
        out, space = self.sized("out", c.out), self.sized("in", c.space)
        stride, pad, dilation, window = self.geometry()
        self.number("k", self.p.k)
        self.number("channels", c.channels, True)
        self.number("alla", c.channels * c.groups, True)
        self.number("allb", c.outputs * c.groups, True)
        one_tap = c.channels % t.n == 0
        if one_tap:
            self.line("tap, channel = pn * BY // channels, pn * BY % channels + tl.arange(0, BY)[None, :]")
        else:
            self.line("tap, channel = y // channels, y % channels")
        self.unravel("tap", window, "t")
        for d in self.dims:
            self.line(f"o{d} = t{d} * {dilation[d]} - {pad[d]}")
        if t.parts > 1:
            self.line("span = tl.cdiv(k, parts * BK) * BK")
            self.line("lo, hi = part * span, tl.minimum(part * span + span, k)")
        else:
            self.line("lo, hi = 0, k")
        self.begin()
        self.line("for k0 in range(lo, hi, BK):")
        self.line(f"at = (k0 + r){self.wide}", 2)
        image = self.quotients(out)
        conds = []
        for d in self.dims:
            self.line(f"s{d} = o{d} + (i{d} * {stride[d]})[:, None]", 2)
            conds.append(f"(s{d} >= 0) & (s{d} < {space[d]})")
        ends = self.p.k % t.k != 0 or t.parts > 1
        group = ("z * outputs + ", "z * channels + ") if c.groups > 1 else ("", "")
        if c.groups > 1:
            self.number("outputs", c.outputs, True)
        self.load("ta", f"b + (at * allb)[None, :] + ({group[0]}x)",
                  [*self.mask("mx"), *(["(at < hi)[None, :]"] if ends else [])])
        pixel = self.flat([f"{image}[:, None]", *[f"s{d}" for d in self.dims]], ["", *space])
        self.load("tb", f"a + ({pixel}) * alla + ({group[1]}channel)",
                  [*self.mask("my"), *conds, *(["(at < hi)[:, None]"] if ends else [])])
        self.accumulate()

    def quotients(self, out: Sequence[str]) -> str:
        """Coordinates i0, i1, .. of ``at``; divisions as products, since they are made for every block."""
        rest = "at"
        for d in reversed(self.dims):
            if self.big:
                self.line(f"q{d} = {rest} // {out[d]}", 2)
            else:
                factor, shift = division(self.c.out[d])
                self.numbers += [Arg(f"factor{d}", "i64", factor, 1), Arg(f"shift{d}", "i32", shift, 1)]
                self.line(f"q{d} = (({rest}.to(tl.int64) * factor{d}) >> shift{d}).to(tl.int32)", 2)
            self.line(f"i{d} = {rest} - q{d} * {out[d]}", 2)
            rest = f"q{d}"
        return rest

    def place(self, partial: bool) -> str:
        lead = "part" if partial else ""
        if self.c.groups > 1:
            lead = f"(part * {self.number('groups', self.c.groups)} + z)" if partial else "z"
        return f"({f'{lead} * m + ' if lead else ''}x) * n + y"


_KINDS = {"conv_last": _Forward, "conv_input_grad_last": _InputGrad, "conv_weight_grad_last": _WeightGrad}


def division(d: int) -> tuple[int, int]:
    """(factor, shift) with p // d == p * factor >> shift for 0 <= p < 2^31 (Granlund and Montgomery, PLDI 1994)."""
    bits = (d - 1).bit_length()
    return -(-(1 << 31 + bits) // d), 31 + bits


__all__ = ["CANDIDATES", "NAMES", "Problem", "can_end_in", "choose", "print_conv", "problem", "rows_at_once"]
