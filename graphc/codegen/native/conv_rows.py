"""Direct convolution with positions of a row in the lanes: for few output channels per group, where channels would leave
lanes empty (first layers, their gradients, depthwise convolutions).

A tile is ``rows`` x ``vectors`` vectors of positions times ``lanes`` output channels, all in registers. Every step (channel,
filter row, filter column) loads the tile's input, broadcasts one filter element per output channel and multiplies and adds.
With a stride the columns of the image are sorted by their residue, so that a tap reads neighbours.
"""
from __future__ import annotations

from functools import cache
from typing import NamedTuple

from .conv_pack import COPY_WORDS, copy_planes, scalar_type, zero_scratch
from .llvm import Function, module, vec

WORDS = ("n", "groups", "tiles", "y_blocks", "depth", "a", "b", "red", "kd", "kh", "chunks", "in_n", "in_g", "in_c", "in_kz",
         "in_z", "in_ky", "in_y", "in_off", "in_phase", "out_n", "out_o", "out_z", "out_y", "out_x", "out_off", "lanes")


class Shape(NamedTuple):
    """What is unrolled."""

    rows: int
    vectors: int
    lanes: int  # output channels
    step: int  # input columns between neighbouring output columns
    taps: int  # filter columns
    tap_step: int  # input columns between filter columns
    deep: bool  # several filter planes
    dense: bool  # neighbouring positions are neighbours in the result
    bordered: bool  # the kernel copies images into a border of zeros itself, in its scratch memory


@cache
def rows_kernel(name: str, width: int, shape: Shape) -> tuple[str, str]:
    """(symbol, text). Words: input, filter [g, tile, c, h, i, j, lane], result, then :data:`WORDS` (strides in elements).

    Input column q is element (q mod step) * ``in_phase`` + q div step of its row. A bordered kernel has a fourth pointer,
    scratch, and at the end ``conv_pack.COPY_WORDS`` and its bytes of scratch a thread.
    """
    symbol = f"conv_rows_{name}_{width}_" + "_".join(str(int(x)) for x in shape)
    return symbol, module([_Rows(symbol, name, width, shape).f])


class _Rows:
    """Prints the kernel: threads share tasks (image, plane, block of channels, block of rows)."""

    def __init__(self, symbol: str, name: str, width: int, shape: Shape):
        self.shape, self.width, self.s = shape, width, scalar_type(name)
        self.ty = vec(width, self.s)
        f = self.f = Function(symbol)
        self.src, self.w, self.dst = (f.arg(k, "ptr") for k in range(3))
        first, names = (4, (*WORDS, *COPY_WORDS, "copy_bytes")) if shape.bordered else (3, WORDS)
        z = self.word = {name: f.arg(first + k) for k, name in enumerate(names)}
        self.row_of_filter = f.mul(f.mul(z["chunks"], str(shape.taps)), str(shape.lanes))
        if not shape.deep:
            z["kd"] = "1"
        self.filter_plane = f.mul(self.row_of_filter, z["kh"])
        self.filter_c = f.mul(self.filter_plane, z["kd"])
        self.y_tiles = f.ceil_div(z["a"], shape.rows)
        self.y_per = f.ceil_div(self.y_tiles, z["y_blocks"])
        if not shape.dense:
            it = vec(width, "i64")
            self.index = f.op("mul", it, f.ramp(it), f.splat(it, z["out_x"]))
        lo, hi = f.share(f.mul(f.mul(f.mul(z["n"], z["depth"]), f.mul(z["groups"], z["tiles"])), z["y_blocks"]))
        if shape.bordered:
            self.scratch = zero_scratch(f, f.arg(3, "ptr"), z["copy_bytes"], f.cmp("slt", "i64", lo, hi))
        f.loop(lo, hi, self.task)

    def task(self, t: str) -> None:
        """All tiles of one plane of an image (or some of its rows) and one block of channels."""
        f, z, s = self.f, self.word, self.s
        yb, t = f.rem(t, z["y_blocks"]), f.div(t, z["y_blocks"])
        blocks = f.mul(z["groups"], z["tiles"])
        nz, ob = f.div(t, blocks), f.rem(t, blocks)
        n, plane = f.div(nz, z["depth"]), f.rem(nz, z["depth"])
        g, first = f.div(ob, z["tiles"]), f.mul(f.rem(ob, z["tiles"]), str(self.shape.lanes))
        src = f.at(s, self.src, f.add(z["in_off"], f.add(f.mul(n, z["in_n"]), f.mul(g, z["in_g"]))))
        src = f.at(s, src, f.mul(plane, z["in_z"]))
        if self.shape.bordered:
            raw = f.at(s, self.src, f.add(f.mul(n, z["raw_n"]), f.mul(g, z["raw_g"])))
            copy_planes(f, self.ty, raw, self.scratch, z["red"], z)
            src = f.at(s, self.scratch, z["in_off"])
        w = f.at(s, self.w, f.mul(ob, f.mul(self.filter_c, z["red"])))
        channel = f.add(f.mul(g, z["lanes"]), first)
        dst = f.at(s, self.dst, f.add(z["out_off"], f.add(f.mul(n, z["out_n"]), f.mul(channel, z["out_o"]))))
        dst = f.at(s, dst, f.mul(plane, z["out_z"]))
        left = f.sub(z["lanes"], first)
        y_lo = f.mul(yb, self.y_per)
        y_hi = f.min(f.add(y_lo, self.y_per), self.y_tiles)

        def line(yt: str) -> None:  # tiles at the lower edge move back inside and write some rows again
            y = f.min(f.mul(yt, str(self.shape.rows)), f.sub(z["a"], str(self.shape.rows)))

            def tile(x: str) -> None:
                at = f.at(s, src, f.add(f.mul(y, z["in_y"]), x))
                self.micro(at, w, f.at(s, dst, f.add(f.mul(y, z["out_y"]), f.mul(x, z["out_x"]))), left, f.sub(z["b"], x))

            f.loop("0", z["b"], tile, step=self.width * self.shape.vectors)

        f.loop(y_lo, y_hi, line)

    def micro(self, src: str, w: str, dst: str, left: str, rest: str) -> None:
        """One tile: the sum over channels and filter, then the store."""
        f, z, s, ty, shape, width = self.f, self.word, self.s, self.ty, self.shape, self.width
        masks = [f.lane_mask(width, f.max(f.sub(rest, str(v * width)), "0")) for v in range(shape.vectors)]
        rows = [f.mul(z["in_y"], str(r)) for r in range(shape.rows)]

        def taps(at: str, wp: str, values: tuple[str, ...]) -> list[str]:
            now = list(values)
            for k in range(shape.taps):
                wv = [f.splat(ty, f.load(s, f.at(s, wp, str(k * shape.lanes + o)))) for o in range(shape.lanes)]
                q = k * shape.tap_step
                here = f.at(s, at, f.add(f.mul(z["in_phase"], str(q % shape.step)), str(q // shape.step)))
                for p in range(shape.rows * shape.vectors):
                    r, v = divmod(p, shape.vectors)
                    x = f.load(ty, f.at(s, f.at(s, here, rows[r]), str(v * width)), masks[v])
                    for o in range(shape.lanes):
                        now[p * shape.lanes + o] = f.fma(ty, x, wv[o], now[p * shape.lanes + o])
            return now

        def filter_row(base: str, wp: str, values: tuple[str, ...]) -> list[str]:
            def chunk(j: str, *x: str) -> list[str]:  # several chunks only with a stride of 1 and one tap each
                return taps(f.at(s, base, f.mul(j, str(shape.taps * shape.tap_step))),
                            f.at(s, wp, f.mul(j, str(shape.taps * shape.lanes))), x)

            return f.loop("0", z["chunks"], chunk, [(ty, v) for v in values])

        def plane(base: str, wp: str, values: tuple[str, ...]) -> list[str]:
            return f.loop("0", z["kh"], lambda i, *x: filter_row(
                f.at(s, base, f.mul(i, z["in_ky"])), f.at(s, wp, f.mul(i, self.row_of_filter)), x), [(ty, v) for v in values])

        def channel(c: str, *values: str) -> list[str]:
            base, wp = f.at(s, src, f.mul(c, z["in_c"])), f.at(s, w, f.mul(c, self.filter_c))
            if not shape.deep:
                return plane(base, wp, values)
            return f.loop("0", z["kd"], lambda i, *x: plane(
                f.at(s, base, f.mul(i, z["in_kz"])), f.at(s, wp, f.mul(i, self.filter_plane)), x), [(ty, v) for v in values])

        acc = f.loop("0", z["red"], channel, [(ty, "zeroinitializer")] * (shape.rows * shape.vectors * shape.lanes))
        for o in range(shape.lanes):
            with f.when(f.cmp("slt", "i64", str(o), left)):
                for p in range(shape.rows * shape.vectors):
                    r, v = divmod(p, shape.vectors)
                    to = f.at(s, dst, f.add(f.mul(str(o), z["out_o"]), f.mul(str(r), z["out_y"])))
                    self.store(acc[p * shape.lanes + o], to, v, masks[v])

    def store(self, x: str, row: str, v: str | int, mask: str) -> None:
        """One vector of positions."""
        f, z = self.f, self.word
        if self.shape.dense:
            f.store(self.ty, x, f.at(self.s, row, str(int(v) * self.width)), mask)
        else:
            f.scatter(self.ty, x, f.at(self.s, row, f.mul(str(int(v) * self.width), z["out_x"])), self.index, mask)


@cache
def filter_rows_kernel(name: str, block: int) -> tuple[str, str]:
    """(symbol, text): dst[g, tile, r, h, i, j, lane] from a (small) filter of any strides; lanes beyond the last are 0.

    Words: src, dst, offset, groups, tiles, lanes of a group, R, KD, KH, KW, then the source's strides of g, lane, r, h, i, j.
    """
    symbol = f"conv_filter_rows_{name}_{block}"
    f, s = Function(symbol), scalar_type(name)
    src, dst = f.arg(0, "ptr"), f.arg(1, "ptr")
    off, groups, tiles, lanes, red, kd, kh, kw, sg, sl, sr, sh, si, sj = (f.arg(2 + k) for k in range(14))
    lo, hi = f.share(f.mul(f.mul(groups, tiles), red))
    area = f.mul(kh, kw)
    taps = f.mul(kd, area)

    def one(t: str) -> None:
        tile, r = f.div(t, red), f.rem(t, red)
        g, first = f.div(tile, tiles), f.mul(f.rem(tile, tiles), str(block))
        at = f.at(s, src, f.add(off, f.add(f.add(f.mul(g, sg), f.mul(first, sl)), f.mul(r, sr))))
        to = f.at(s, dst, f.mul(f.mul(t, taps), str(block)))

        def tap(k: str) -> None:
            base = f.at(s, at, f.add(f.mul(f.div(k, area), sh), f.mul(f.div(f.rem(k, area), kw), si)))
            base = f.at(s, base, f.mul(f.rem(k, kw), sj))
            for lane in range(block):
                inside = f.cmp("slt", "i64", f.add(first, str(lane)), lanes)
                x = f.load(s, f.at(s, base, f.select("i64", inside, f.mul(sl, str(lane)), "0", "i1")))
                f.store(s, f.select(s, inside, x, "0.0", "i1"), f.at(s, to, f.add(f.mul(k, str(block)), str(lane))))

        f.loop("0", taps, tap)

    f.loop(lo, hi, one)
    return symbol, module([f])
