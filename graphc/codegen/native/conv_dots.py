"""The gradient of a convolution to its filter with positions of a row in the lanes: for few output channels per group.

A tile is ``lanes`` output channels x ``rows`` triples (c, h, i) x ``cols`` filter columns j, one vector of sums each. Every
vector of positions loads the gradient once per channel and the input once per (c, h, i, j), and multiplies and adds. At the
end the lanes of a sum are added in halves. Planes (n, z) are split into parts by sizes alone.
"""
from __future__ import annotations

from functools import cache
from typing import NamedTuple

from .conv_pack import COPY_WORDS, copy_planes, scalar_type, zero_scratch
from .llvm import Function, module, vec

WORDS = ("parts", "per_part", "groups", "tiles", "row_tiles", "n", "depth", "a", "b", "lanes", "rows", "kd", "kh", "kw", "in_n",
         "in_g", "in_c", "in_kz", "in_z", "in_ky", "in_y", "in_off", "in_phase")


class Shape(NamedTuple):
    """The tile, and input columns between neighbouring positions and taps. With a step above 1 ``cols`` is the filter's."""

    lanes: int
    rows: int
    cols: int
    step: int
    tap_step: int
    bordered: bool  # the kernel copies images into a border of zeros itself, in its scratch memory: all channels of a group


@cache
def dots_kernel(name: str, width: int, shape: Shape) -> tuple[str, str]:
    """(symbol, text). Words: input, gradient [n, g, o, z, y, x], sums [part, g, o, c, h, i, j], then :data:`WORDS`.

    Input column q is element (q mod step) * ``in_phase`` + q div step of its row. A bordered kernel has a fourth pointer,
    scratch, and at the end ``conv_pack.COPY_WORDS``, the channels of a group and bytes of scratch a thread.
    """
    symbol = f"conv_dots_{name}_{width}_" + "_".join(str(int(x)) for x in shape)
    return symbol, module([_Dots(symbol, name, width, shape).f])


class _Dots:
    """Prints the kernel: threads share tasks (part of the planes, group, tile of channels, tile of rows)."""

    def __init__(self, symbol: str, name: str, width: int, shape: Shape):
        self.shape, self.width, self.s = shape, width, scalar_type(name)
        self.ty = vec(width, self.s)
        f = self.f = Function(symbol)
        self.src, self.g, self.dst = (f.arg(k, "ptr") for k in range(3))
        first, names = (4, (*WORDS, *COPY_WORDS, "channels", "bytes")) if shape.bordered else (3, WORDS)
        z = self.word = {name: f.arg(first + k) for k, name in enumerate(names)}
        self.area = f.mul(z["a"], z["b"])
        self.volume = f.mul(self.area, z["depth"])
        self.blocks = f.mul(z["groups"], z["tiles"])
        lo, hi = f.share(f.mul(f.mul(z["parts"], self.blocks), z["row_tiles"]))
        if shape.bordered:
            self.scratch = zero_scratch(f, f.arg(3, "ptr"), z["bytes"], f.cmp("slt", "i64", lo, hi))
            z["in_n"] = "0"
        f.loop(lo, hi, self.task)

    def task(self, t: str) -> None:
        """One tile of the filter's gradient over one part of the planes. Channels and rows too many repeat the last one."""
        f, z, s, shape = self.f, self.word, self.s, self.shape
        first_row, t = f.mul(f.rem(t, z["row_tiles"]), str(shape.rows)), f.div(t, z["row_tiles"])
        ob, part = f.rem(t, self.blocks), f.div(t, self.blocks)
        g, first = f.div(ob, z["tiles"]), f.mul(f.rem(ob, z["tiles"]), str(shape.lanes))
        lo = f.mul(part, z["per_part"])
        hi = f.min(f.add(lo, z["per_part"]), f.mul(z["n"], z["depth"]))
        base = f.mul(g, z["lanes"])
        grads = []
        for o in range(shape.lanes):
            lane = f.add(base, f.min(f.add(first, str(o)), f.sub(z["lanes"], "1")))
            grads.append(f.at(s, self.g, f.mul(lane, self.volume)))
        src = f.at(s, self.src, f.add(z["in_off"], f.mul(g, z["in_g"])))
        if self.shape.bordered:
            self.raw, src = f.at(s, self.src, f.mul(g, z["raw_g"])), self.scratch
        kd_kh, lines = f.mul(z["kd"], z["kh"]), []
        for k in range(shape.rows):
            r = f.min(f.add(first_row, str(k)), f.sub(z["rows"], "1"))
            plane, i = f.div(f.rem(r, kd_kh), z["kh"]), f.rem(r, z["kh"])
            at = f.add(f.mul(f.div(r, kd_kh), z["in_c"]), f.add(f.mul(plane, z["in_kz"]), f.mul(i, z["in_ky"])))
            lines.append(f.at(s, src, at))
        place = f.add(f.mul(part, f.mul(z["groups"], z["lanes"])), f.add(base, first))

        def columns(j: str) -> None:
            left = f.min(j, f.sub(z["kw"], str(shape.cols)))
            # with a step, all columns are in one tile and start at 0
            here = [f.at(s, p, f.mul(left, str(shape.tap_step))) for p in lines] if shape.step == 1 else lines
            sums = self.sums((lo, hi), here, grads)
            for o in range(shape.lanes):
                for k in range(shape.rows):
                    inside = f.op("and", "i1", f.cmp("slt", "i64", f.add(first, str(o)), z["lanes"]),
                                  f.cmp("slt", "i64", f.add(first_row, str(k)), z["rows"]))
                    with f.when(inside):
                        row = f.add(f.mul(f.add(place, str(o)), z["rows"]), f.add(first_row, str(k)))
                        to = f.at(s, self.dst, f.add(f.mul(row, z["kw"]), left))
                        for c in range(shape.cols):
                            f.store(s, self.total(sums[(o * shape.rows + k) * shape.cols + c]), f.at(s, to, str(c)))

        f.loop("0", z["kw"], columns, step=shape.cols)

    def sums(self, planes: tuple[str, str], lines: list[str], grads: list[str]) -> list[str]:
        """The tile's vectors of sums."""
        f, z, s, ty, shape = self.f, self.word, self.s, self.ty, self.shape
        count = shape.lanes * shape.rows * shape.cols
        g_n = f.mul(f.mul(z["groups"], z["lanes"]), self.volume)

        def plane(p: str, *outer: str) -> list[str]:
            n, d = f.div(p, z["depth"]), f.rem(p, z["depth"])
            if shape.bordered:
                copy_planes(f, ty, f.at(s, self.raw, f.mul(n, z["raw_n"])), self.scratch, z["channels"], z)
            x_at, g_at = f.add(f.mul(n, z["in_n"]), f.mul(d, z["in_z"])), f.add(f.mul(n, g_n), f.mul(d, self.area))

            def line(y: str, *inner: str) -> list[str]:
                x_row, g_row = f.add(x_at, f.mul(y, z["in_y"])), f.add(g_at, f.mul(y, z["b"]))
                xs, gs = [f.at(s, q, x_row) for q in lines], [f.at(s, q, g_row) for q in grads]
                return f.loop("0", z["b"], lambda x, *v: self.step(x, xs, gs, v), [(ty, v) for v in inner], step=self.width)

            return f.loop("0", z["a"], line, [(ty, v) for v in outer])

        return f.loop(*planes, plane, [(ty, "zeroinitializer")] * count)

    def step(self, x: str, lines: list[str], grads: list[str], sums: tuple[str, ...]) -> list[str]:
        """One vector of positions; those beyond the row's end are not read and add zero."""
        f, s, ty, shape = self.f, self.s, self.ty, self.shape
        mask = f.lane_mask(self.width, f.sub(self.word["b"], x))
        now = list(sums)
        gv = [f.load(ty, f.at(s, p, x), mask) for p in grads]
        for k, p in enumerate(lines):
            for j in range(shape.cols):
                q = j * shape.tap_step
                at = f.add(x, f.add(f.mul(self.word["in_phase"], str(q % shape.step)), str(q // shape.step)))
                v = f.load(ty, f.at(s, p, at), mask)
                for o in range(shape.lanes):
                    n = (o * shape.rows + k) * shape.cols + j
                    now[n] = f.fma(ty, v, gv[o], now[n])
        return now

    def total(self, x: str) -> str:
        """The sum of the lanes, by halves."""
        f, half = self.f, self.width // 2
        while half:
            pick = ", ".join(f"i32 {(j + half) % self.width}" for j in range(self.width))
            y = f.let(f"shufflevector {self.ty} {x}, {self.ty} poison, <{self.width} x i32> <{pick}>")
            x = f.op("fadd", self.ty, x, y)
            half //= 2
        return f.let(f"extractelement {self.ty} {x}, i64 0") if self.width > 1 else x
