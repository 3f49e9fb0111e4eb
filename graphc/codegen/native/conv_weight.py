"""The gradient of a convolution to its filter: sums over all positions, output channels in the lanes.

gw[o, c, h, i, j] = sum over n, z, y, x of g[n, o, z, y, x] * image[n, c, z * step_z + h * tap_z, y * step_y + i * tap_y,
x * step_x + j * tap_x].

A tile is ``rows`` triples (c, h, i) x ``cols`` filter columns j x ``vectors`` vectors of output channels, all in registers.
Every step (n, z, y, x) loads the gradient's vectors from a transposed copy, broadcasts one input element per (c, h, i, j)
and multiplies and adds. Positions are walked in chunks that stay in the first-level cache, over which all tiles of a task
pass; sums wait in memory between chunks. Images are split into parts by sizes alone and the parts added in order, so that
the number of threads changes nothing.
"""
from __future__ import annotations

from functools import cache
from typing import NamedTuple

from .conv_pack import COPY_WORDS, copy_planes, scalar_type, zero_scratch
from .llvm import Function, module, vec

WORDS = ("parts", "per_part", "groups", "tiles", "row_blocks", "n", "depth", "a", "b", "rows", "kd", "kh", "kw", "n_chunk",
         "y_chunk", "in_n", "in_g", "in_c", "in_kz", "in_z", "in_ky", "in_y", "in_off")


class Shape(NamedTuple):
    """What is unrolled: the tile and the steps between neighbouring positions and taps."""

    rows: int
    cols: int
    vectors: int
    step: int  # input elements between neighbouring output columns
    tap_step: int  # input elements between filter columns
    bordered: bool = False  # the kernel copies images into a border of zeros itself, in its scratch memory


@cache
def sums_kernel(name: str, width: int, shape: Shape) -> tuple[str, str]:
    """(symbol, text). Words: input, packed gradient [n, g, tile, z, y, x, lane], sums, then :data:`WORDS` (in elements).

    The sums are [part, g, tile, (c, h, i), j, lane], the triple padded to whole tiles; ``cols`` divides kw. Parts and
    chunks count planes (n, z) as images. A bordered kernel has a fourth pointer, scratch, and at the end
    ``conv_pack.COPY_WORDS``, the channels of a task at most and bytes of scratch a thread.
    """
    symbol = f"conv_sums_{name}_{width}_" + "_".join(str(int(x)) for x in shape)
    return symbol, module([_Sums(symbol, name, width, shape).f])


class _Sums:
    """Prints the kernel: threads share tasks (part of the images, block of channels, block of rows)."""

    def __init__(self, symbol: str, name: str, width: int, shape: Shape):
        self.shape, self.width, self.s = shape, width, scalar_type(name)
        self.ty, self.block = vec(width, self.s), width * shape.vectors
        f = self.f = Function(symbol)
        self.src, self.g, self.dst = (f.arg(k, "ptr") for k in range(3))
        first, names = (4, (*WORDS, *COPY_WORDS, "channels", "bytes")) if shape.bordered else (3, WORDS)
        z = self.word = {name: f.arg(first + k) for k, name in enumerate(names)}
        self.row_tiles = f.ceil_div(z["rows"], shape.rows)
        self.row_pitch = f.mul(self.row_tiles, str(shape.rows))
        self.row_per = f.ceil_div(self.row_tiles, z["row_blocks"])
        self.blocks = f.mul(z["groups"], z["tiles"])
        self.g_y = f.mul(z["b"], str(self.block))  # of the packed gradient: one row of one block of channels
        self.g_z = f.mul(self.g_y, z["a"])
        self.g_o = f.mul(self.g_z, z["depth"])
        self.kd_kh = f.mul(z["kd"], z["kh"])
        self.images = f.mul(z["n"], z["depth"])
        self.g_n = f.mul(self.g_o, self.blocks)
        self.sum_row = f.mul(z["kw"], str(self.block))
        lo, hi = f.share(f.mul(f.mul(z["parts"], self.blocks), z["row_blocks"]))
        if shape.bordered:
            self.scratch = zero_scratch(f, f.arg(3, "ptr"), z["bytes"], f.cmp("slt", "i64", lo, hi))
            z["in_n"] = f.mul(z["channels"], z["copy_c"])
        f.loop(lo, hi, self.task)

    def task(self, t: str) -> None:
        """The sums of some rows over one part of the images, chunk after chunk."""
        f, z, s = self.f, self.word, self.s
        rb, t = f.rem(t, z["row_blocks"]), f.div(t, z["row_blocks"])
        ob, part = f.rem(t, self.blocks), f.div(t, self.blocks)
        group = f.div(ob, z["tiles"])
        src = f.at(s, self.src, f.add(z["in_off"], f.mul(group, z["in_g"])))
        g = f.at(s, self.g, f.mul(ob, self.g_o))
        dst = f.at(s, self.dst, f.mul(f.add(f.mul(part, self.blocks), ob), f.mul(self.sum_row, self.row_pitch)))
        if self.shape.bordered:
            src = self.scratch
        n_lo = f.mul(part, z["per_part"])
        n_hi = f.min(f.add(n_lo, z["per_part"]), self.images)
        r_lo = f.mul(rb, self.row_per)
        r_hi = f.min(f.add(r_lo, self.row_per), self.row_tiles)

        self.first_channel = self.first_image = "0"
        if self.shape.bordered:
            per = f.mul(z["kd"], z["kh"])
            top = f.sub(z["rows"], "1")
            self.first_channel = f.div(f.min(f.mul(r_lo, str(self.shape.rows)), top), per)
            last = f.ceil_div(f.min(f.mul(r_hi, str(self.shape.rows)), z["rows"]), per)
            raw = f.at(s, self.src, f.add(f.mul(group, z["raw_g"]), f.mul(self.first_channel, f.mul(z["raw_h"], z["raw_w"]))))

        def images(n: str) -> None:
            n_end = f.min(f.add(n, z["n_chunk"]), n_hi)
            if self.shape.bordered:
                self.first_image = n
                f.loop(n, n_end, lambda i: copy_planes(
                    f, self.ty, f.at(s, raw, f.mul(i, z["raw_n"])), f.at(s, self.scratch, f.mul(f.sub(i, n), z["in_n"])),
                    f.sub(last, self.first_channel), z))

            def lines(y: str) -> None:
                y_end = f.min(f.add(y, z["y_chunk"]), z["a"])
                first = f.op("and", "i1", f.cmp("eq", "i64", n, n_lo), f.cmp("eq", "i64", y, "0"))
                self.chunk((n, n_end), (y, y_end), (r_lo, r_hi), src, g, dst, f.op("xor", "i1", first, "true"))

            f.loop("0", z["a"], lines, step=z["y_chunk"])

        f.loop(n_lo, n_hi, images, step=z["n_chunk"])

    def chunk(self, ns: tuple[str, str], ys: tuple[str, str], tiles: tuple[str, str], src: str, g: str, dst: str,
              seen: str) -> None:
        """All tiles of a task over one chunk of positions. Rows too many repeat the last one; their sums are not used."""
        f, z, shape = self.f, self.word, self.shape
        masks = f.splat(vec(self.width, "i1"), seen)

        def rows(t: str) -> None:
            first = f.mul(t, str(shape.rows))

            def cols(j: str) -> None:
                self.tile(first, j, ns, ys, src, g, dst, masks)

            f.loop("0", z["kw"], cols, step=shape.cols)

        f.loop(tiles[0], tiles[1], rows)

    def tile(self, first: str, left: str, ns: tuple[str, str], ys: tuple[str, str], src: str, g: str, dst: str,
             seen: str) -> None:
        """One tile over one chunk: load the sums so far, add, store."""
        f, z, s, ty, shape = self.f, self.word, self.s, self.ty, self.shape
        at = [f.add(first, str(r)) for r in range(shape.rows)]
        places = [f.at(s, dst, f.add(f.mul(r, self.sum_row), f.mul(left, str(self.block)))) for r in at]
        inputs = []
        for r in [f.min(r, f.sub(z["rows"], "1")) for r in at]:
            plane, i = f.div(f.rem(r, self.kd_kh), z["kh"]), f.rem(r, z["kh"])
            channel = f.sub(f.div(r, self.kd_kh), self.first_channel)
            line = f.add(f.mul(channel, z["in_c"]), f.add(f.mul(plane, z["in_kz"]), f.mul(i, z["in_ky"])))
            inputs.append(f.at(s, src, f.add(line, f.mul(left, str(shape.tap_step)))))
        acc = [f.load(ty, f.at(s, p, str(k * self.width)), seen) for p in places for k in range(shape.cols * shape.vectors)]

        def image(n: str, *outer: str) -> list[str]:
            plane, n = f.rem(n, z["depth"]), f.div(n, z["depth"])
            g_n = f.add(f.mul(n, self.g_n), f.mul(plane, self.g_z))
            x_n = f.add(f.mul(f.sub(n, self.first_image), z["in_n"]), f.mul(plane, z["in_z"]))

            def sweep(y: str, *inner: str) -> list[str]:
                gp, off = f.at(s, g, f.add(g_n, f.mul(y, self.g_y))), f.add(x_n, f.mul(y, z["in_y"]))
                lines = [f.at(s, p, off) for p in inputs]
                return f.loop("0", z["b"], lambda x, *sums: self.step(x, gp, lines, sums), [(ty, v) for v in inner])

            return f.loop(*ys, sweep, [(ty, v) for v in outer])

        acc = f.loop(*ns, image, [(ty, v) for v in acc])
        per = shape.cols * shape.vectors
        for row, p in enumerate(places):
            for k in range(per):
                f.store(ty, acc[row * per + k], f.at(s, p, str(k * self.width)))

    def step(self, x: str, g: str, lines: list[str], sums: tuple[str, ...]) -> list[str]:
        """One position."""
        f, s, ty, shape = self.f, self.s, self.ty, self.shape
        now = list(sums)
        gp, off = f.at(s, g, f.mul(x, str(self.block))), f.mul(x, str(shape.step))
        gv = [f.load(ty, f.at(s, gp, str(v * self.width))) for v in range(shape.vectors)]
        for r, line in enumerate(lines):
            base = f.at(s, line, off)
            for j in range(shape.cols):
                one = f.splat(ty, f.load(s, f.at(s, base, str(j * shape.tap_step))))
                for v in range(shape.vectors):
                    k = (r * shape.cols + j) * shape.vectors + v
                    now[k] = f.fma(ty, one, gv[v], now[k])
        return now


@cache
def gather_kernel(name: str, width: int) -> tuple[str, str]:
    """(symbol, text): dst[g * lanes + tile * block + lane, k] = src[0, g, tile, k, lane] + src[1, ...] + ... in that order.

    Words: src, dst, parts, groups, tiles, lanes of a group, K, values of k in the source, block (a multiple of ``width``).
    """
    symbol = f"conv_gather_{name}_{width}"
    f, s, ty = Function(symbol), scalar_type(name), vec(width, scalar_type(name))
    src, dst = f.arg(0, "ptr"), f.arg(1, "ptr")
    parts, groups, tiles, lanes, k_count, k_pitch, block = (f.arg(2 + k) for k in range(7))
    vectors, k_tiles = f.div(block, str(width)), f.ceil_div(k_count, width)
    part = f.mul(f.mul(f.mul(groups, tiles), k_pitch), block)
    lo, hi = f.share(f.mul(f.mul(f.mul(groups, tiles), vectors), k_tiles))

    def one(t: str) -> None:
        k, t = f.mul(f.rem(t, k_tiles), str(width)), f.div(t, k_tiles)
        v, t = f.mul(f.rem(t, vectors), str(width)), f.div(t, vectors)
        at = f.at(s, src, f.add(f.mul(f.mul(t, k_pitch), block), v))
        first = f.add(f.mul(f.rem(t, tiles), block), v)
        left, rest = f.sub(lanes, first), f.sub(k_count, k)
        rows = [f.mul(f.min(f.add(k, str(j)), f.sub(k_count, "1")), block) for j in range(width)]

        def add(p: str, *sums: str) -> list[str]:
            here = f.at(s, at, f.mul(p, part))
            return [f.op("fadd", ty, x, f.load(ty, f.at(s, here, r))) for x, r in zip(sums, rows)]

        sums = [f.load(ty, f.at(s, at, r)) for r in rows]
        sums = f.loop("1", parts, add, [(ty, x) for x in sums])
        out = f.transpose(ty, sums) if width > 1 else sums
        to = f.at(s, dst, f.add(f.mul(f.add(f.mul(f.div(t, tiles), lanes), first), k_count), k))
        for j, x in enumerate(out):
            with f.when(f.cmp("slt", "i64", str(j), left)):
                f.store(ty, x, f.at(s, to, f.mul(k_count, str(j))), f.lane_mask(width, rest))

    f.loop(lo, hi, one)
    return symbol, module([f])
