"""Direct convolution with output channels in the lanes: the kernel of conv and of its gradient to the input.

A tile is ``rows`` x ``cols`` output positions times ``vectors`` vectors of output channels, all in registers. Every step of
the sum (channel, filter row, filter column) loads the filter's vectors, broadcasts one input element per position and
multiplies and adds. A tile is transposed when it is stored. Georganas et al., "Anatomy of high-performance deep learning
convolutions on SIMD architectures", SC 2018.
"""
from __future__ import annotations

from functools import cache
from typing import NamedTuple

from .conv_pack import COPY_WORDS, copy_planes, scalar_type, zero_scratch
from .llvm import Function, module, vec

WORDS = ("n", "groups", "tiles", "y_blocks", "depth", "a", "b", "red", "kd", "kh", "chunks", "in_n", "in_g", "in_c", "in_kz",
         "in_z", "in_ky", "in_y", "in_off", "w_o", "w_c", "w_kz", "w_ky", "w_off", "out_n", "out_o", "out_z", "out_y", "out_x",
         "out_off", "lanes", "o_outer")


class Shape(NamedTuple):
    """What is unrolled: tile, columns of the filter in one go, steps between neighbouring positions and taps."""

    rows: int
    cols: int
    vectors: int
    step: int  # input elements between neighbouring output columns
    taps: int  # filter columns unrolled
    tap_step: int  # input elements between filter columns
    filter_step: int  # filter columns between those taken one after the other, negative for a reversed filter
    deep: bool  # several filter planes
    tall: bool  # several filter rows
    wide: bool  # more filter columns than are unrolled
    pitch: int  # elements of the result between neighbouring positions of a tile; 0: not known, or not the same everywhere
    bordered: bool  # the kernel copies an image into a border of zeros itself, in its scratch memory


@cache
def lanes_kernel(name: str, width: int, shape: Shape) -> tuple[str, str]:
    """(symbol, text). Words: input, packed filter, result, then :data:`WORDS` (strides in elements).

    A bordered kernel has a fourth pointer, scratch, and at the end ``conv_pack.COPY_WORDS`` and its bytes of scratch a thread.
    """
    tag = "_".join(str(int(x)) for x in shape)
    symbol = f"conv_lanes_{name}_{width}_{tag}"
    return symbol, module([_Lanes(symbol, name, width, shape).f])


class _Lanes:
    """Prints the kernel: threads share tasks (image, plane, block of channels, block of rows)."""

    def __init__(self, symbol: str, name: str, width: int, shape: Shape):
        self.shape, self.width, self.s = shape, width, scalar_type(name)
        self.ty, self.block = vec(width, self.s), width * shape.vectors
        f = self.f = Function(symbol)
        self.src, self.w, self.dst = (f.arg(k, "ptr") for k in range(3))
        first, names = (4, (*WORDS, *COPY_WORDS, "copy_bytes")) if shape.bordered else (3, WORDS)
        self.word = {name: f.arg(first + k) for k, name in enumerate(names)}
        z = self.word
        if not shape.tall:
            z["kh"] = "1"
        if not shape.wide:
            z["chunks"] = "1"
        self.y_tiles = f.ceil_div(z["a"], shape.rows)
        self.y_per = f.ceil_div(self.y_tiles, z["y_blocks"])
        if shape.pitch != 1:
            self.index = self.positions()
        self.stack = f.alloca(self.s, self.block * shape.rows * shape.cols)
        self.images = f.mul(z["n"], z["depth"])
        if shape.bordered:
            lo, hi = f.share(f.mul(z["n"], z["groups"]))
            self.scratch = zero_scratch(f, f.arg(3, "ptr"), z["copy_bytes"], f.cmp("slt", "i64", lo, hi))
            f.loop(lo, hi, self.image)
            return
        total = f.mul(f.mul(self.images, f.mul(z["groups"], z["tiles"])), z["y_blocks"])
        lo, hi = f.share(total)
        f.loop(lo, hi, self.task)

    def positions(self) -> str:
        """Offsets of a tile's positions in the result, as a vector per ``width`` of them."""
        f, it = self.f, vec(self.count(), "i64")
        cols = self.shape.cols
        y = "<" + ", ".join(f"i64 {p // cols}" for p in range(self.count())) + ">" if self.count() > 1 else "0"
        x = "<" + ", ".join(f"i64 {p % cols}" for p in range(self.count())) + ">" if self.count() > 1 else "0"
        ys = f.op("mul", it, y, f.splat(it, self.word["out_y"]))
        return f.op("add", it, ys, f.op("mul", it, x, f.splat(it, self.word["out_x"])))

    def count(self) -> int:
        """Positions of a tile."""
        return self.shape.rows * self.shape.cols

    def task(self, t: str) -> None:
        """All tiles of one plane of an image (or some of its rows) and one block of channels."""
        f, z, s = self.f, self.word, self.s
        yb, t = f.rem(t, z["y_blocks"]), f.div(t, z["y_blocks"])
        blocks = f.mul(z["groups"], z["tiles"])
        outer = f.cmp("ne", "i64", z["o_outer"], "0")
        ob = f.select("i64", outer, f.div(t, self.images), f.rem(t, blocks), "i1")
        nz = f.select("i64", outer, f.rem(t, self.images), f.div(t, blocks), "i1")
        n, plane = f.div(nz, z["depth"]), f.rem(nz, z["depth"])
        g = f.div(ob, z["tiles"])
        src = f.at(s, self.src, f.add(z["in_off"], f.add(f.mul(n, z["in_n"]), f.mul(g, z["in_g"]))))
        self.channels(f.at(s, src, f.mul(plane, z["in_z"])), n, plane, ob, g, yb)

    def image(self, t: str) -> None:
        """One image (or group of channels of one): its copy, then all tiles."""
        f, z, s = self.f, self.word, self.s
        n, g = f.div(t, z["groups"]), f.rem(t, z["groups"])
        raw = f.at(s, self.src, f.add(f.mul(n, z["raw_n"]), f.mul(g, z["raw_g"])))
        copy_planes(f, self.ty, raw, self.scratch, z["red"], z)
        src = f.at(s, self.scratch, z["in_off"])
        f.loop("0", z["tiles"], lambda tile: self.channels(src, n, "0", f.add(f.mul(g, z["tiles"]), tile), g, "0"))

    def channels(self, src: str, n: str, plane: str, ob: str, g: str, yb: str) -> None:
        """One block of channels: all tiles of a plane, or of one of the blocks of its rows."""
        f, z, s = self.f, self.word, self.s
        first = f.mul(f.rem(ob, z["tiles"]), str(self.block))
        w = f.at(s, self.w, f.add(f.mul(ob, z["w_o"]), z["w_off"]))
        channel = f.add(f.mul(g, z["lanes"]), first)
        dst = f.at(s, self.dst, f.add(z["out_off"], f.add(f.mul(n, z["out_n"]), f.mul(channel, z["out_o"]))))
        dst = f.at(s, dst, f.mul(plane, z["out_z"]))
        left = f.sub(z["lanes"], first)
        y_lo = f.mul(yb, self.y_per)
        y_hi = f.min(f.add(y_lo, self.y_per), self.y_tiles)

        def line(yt: str) -> None:  # tiles at the edge move back inside and write some positions again
            y = f.min(f.mul(yt, str(self.shape.rows)), f.sub(z["a"], str(self.shape.rows)))

            def tile(xt: str) -> None:
                x = f.min(xt, f.sub(z["b"], str(self.shape.cols)))
                at = f.at(s, src, f.add(f.mul(y, z["in_y"]), f.mul(x, str(self.shape.step))))
                self.micro(at, w, f.at(s, dst, f.add(f.mul(y, z["out_y"]), f.mul(x, z["out_x"]))), left)

            f.loop("0", z["b"], tile, step=self.shape.cols)

        f.loop(y_lo, y_hi, line)

    def micro(self, src: str, w: str, dst: str, left: str) -> None:
        """One tile: the sum over channels and filter, then the store."""
        f, z, ty, shape = self.f, self.word, self.ty, self.shape
        next_tap = shape.filter_step * self.block
        zero = [(ty, "zeroinitializer")] * (self.count() * shape.vectors)
        rows = [f.mul(z["in_y"], str(r)) for r in range(shape.rows)]

        def taps(at: list[str], wp: str, values: tuple[str, ...]) -> list[str]:
            now = list(values)
            for k in range(shape.taps):
                wv = [f.load(ty, f.at(self.s, wp, str(k * next_tap + v * self.width))) for v in range(shape.vectors)]
                for p in range(self.count()):
                    i = p % shape.cols * shape.step + k * shape.tap_step
                    x = f.splat(ty, f.load(self.s, f.at(self.s, at[p // shape.cols], str(i))))
                    for v in range(shape.vectors):
                        n = p * shape.vectors + v
                        now[n] = f.fma(ty, x, wv[v], now[n])
            return now

        def filter_row(base: str, wp: str, values: tuple[str, ...]) -> list[str]:
            if not shape.wide:
                return taps([f.at(self.s, base, r) for r in rows], wp, values)

            def chunk(j: str, *x: str) -> list[str]:
                here = f.at(self.s, base, f.mul(j, str(shape.taps * shape.tap_step)))
                return taps([f.at(self.s, here, r) for r in rows],
                            f.at(self.s, wp, f.mul(j, str(shape.taps * next_tap))), x)

            return f.loop("0", z["chunks"], chunk, [(ty, v) for v in values])

        def plane(base: str, wp: str, values: tuple[str, ...]) -> list[str]:
            if not shape.tall:
                return filter_row(base, wp, values)
            return f.loop("0", z["kh"], lambda i, *x: filter_row(
                f.at(self.s, base, f.mul(i, z["in_ky"])), f.at(self.s, wp, f.mul(i, z["w_ky"])), x),
                [(ty, v) for v in values])

        def channel(c: str, *values: str) -> list[str]:
            base, wp = f.at(self.s, src, f.mul(c, z["in_c"])), f.at(self.s, w, f.mul(c, z["w_c"]))
            if not shape.deep:
                return plane(base, wp, values)
            return f.loop("0", z["kd"], lambda i, *x: plane(
                f.at(self.s, base, f.mul(i, z["in_kz"])), f.at(self.s, wp, f.mul(i, z["w_kz"])), x),
                [(ty, v) for v in values])

        acc = f.loop("0", z["red"], channel, zero)
        full = f.cmp("sge", "i64", left, str(self.block))
        with f.when(full):
            self.store_full(acc, dst)
        with f.when(f.op("xor", "i1", full, "true")):
            self.store_some(acc, dst, f.min(left, str(self.block)))

    def store_full(self, acc: list[str], dst: str) -> None:
        """All channels of the block: tiles transposed in registers, rows of positions stored."""
        f, z, s, width = self.f, self.word, self.s, self.width
        for v in range(self.shape.vectors):
            for p0 in range(0, self.count(), width):
                k = min(width, self.count() - p0)
                part = [acc[(p0 + p) * self.shape.vectors + v] for p in range(k)]
                columns = f.transpose(self.ty, part + ["poison"] * (width - k)) if width > 1 else part
                kt = vec(k, s)
                for j, x in enumerate(columns):
                    to = f.at(s, dst, f.mul(str(v * width + j), z["out_o"]))
                    if self.shape.pitch > 1:
                        self.spread(x, f.at(s, to, str(p0 * self.shape.pitch)), k)
                        continue
                    if k < width:
                        pick = ", ".join(f"i32 {i}" for i in range(k))
                        x = f.let(f"shufflevector {self.ty} {x}, {self.ty} poison, <{k} x i32> <{pick}>") if k > 1 else f.let(
                            f"extractelement {self.ty} {x}, i64 0")
                    if self.shape.pitch == 1:
                        f.store(kt, x, f.at(s, to, str(p0)))
                    else:
                        self.scattered(kt, x, to, p0, k)

    def spread(self, x: str, to: str, k: int) -> None:
        """The first ``k`` lanes to every ``pitch``-th element: expanded vectors under a mask."""
        f, width, pitch = self.f, self.width, self.shape.pitch
        for first in range(0, k, -(-width // pitch)):
            source = [first + j // pitch if j % pitch == 0 and first + j // pitch < k else -1 for j in range(width)]
            pick = ", ".join(f"i32 {i}" if i >= 0 else "i32 poison" for i in source)
            mask = "<" + ", ".join("i1 true" if i >= 0 else "i1 false" for i in source) + ">"
            y = f.let(f"shufflevector {self.ty} {x}, {self.ty} poison, <{width} x i32> <{pick}>")
            f.store(self.ty, y, f.at(self.s, to, str(first * pitch)), mask)

    def scattered(self, kt: str, x: str, to: str, p0: int, k: int) -> None:
        """Positions p0 .. p0 + k of one channel to places that are not neighbours."""
        f, count = self.f, self.count()
        for i in range(k):
            where = f.let(f"extractelement {vec(count, 'i64')} {self.index}, i64 {p0 + i}") if count > 1 else "0"
            one = f.let(f"extractelement {kt} {x}, i64 {i}") if k > 1 else x
            f.store(self.s, one, f.at(self.s, to, where))

    def store_some(self, acc: list[str], dst: str, left: str) -> None:
        """The last block of channels, element by element."""
        f, z, s, vectors = self.f, self.word, self.s, self.shape.vectors
        for k, x in enumerate(acc):
            f.store(self.ty, x, f.at(s, self.stack, str(k // vectors * self.block + k % vectors * self.width)))

        def one(j: str) -> None:
            to = f.at(s, dst, f.mul(j, z["out_o"]))
            for p in range(self.count()):
                x = f.load(s, f.at(s, self.stack, f.add(str(p * self.block), j)))
                if self.shape.pitch == 1:
                    f.store(s, x, f.at(s, to, str(p)))
                else:
                    self.scattered(s, x, to, p, 1)

        f.loop("0", left, one)
