"""Persistent products through tensor descriptors: 16-bit operands, devices with a tensor memory accelerator (TMA).

One program per processor takes one tile after the other. Blocks of the operands are fetched by the copy engine from
descriptors that each program makes at its start (in scratch memory the launch provides), so no thread computes addresses
or masks: what lies outside an operand reads as zero. The two loops are flattened into one, so that the first blocks of the
next tile are fetched while the last one is written; for the same reason the end of a tile counts tiles with a variable of
its own, ``done``. The finished block is stored through a descriptor too where its rows are multiples of 16 bytes.
"""
from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ...dtypes import dtype
from ..native.contraction import Product
from . import opcodes
from .matmul import GROUP, Template
from .printer import Arg
from .tiling import Tile


class Persistent(Template):
    """State of printing one product. ``processors``: programs that run at a time; ``alone``: whether nothing is printed behind
    it (with an epilogue, its stores and the product's share their way through shared memory)."""

    def __init__(self, p: Product, dt: dtype, tile: Tile, offsets: tuple[int, int], keys: tuple[Any, Any], processors: int,
                 alone: bool):
        super().__init__(p, dt, tile, offsets, keys)
        self.processors = processors
        self.by_descriptor = alone and tile.parts == 1 and p.n * dt.itemsize % 16 == 0

    def descriptor(self, name: str, base: str, batch: str, sizes: tuple[str, str], step: str, block: tuple[str, str]) -> None:
        """A descriptor of a matrix whose last stride is one; ``batch``: the stride between matrices, if there are several."""
        shape, strides, blocks = list(sizes), [step, "1"], list(block)
        if batch:
            shape, strides, blocks = [str(math.prod(self.p.batch)), *shape], [batch, *strides], ["1", *blocks]
        self.line(f"{name} = tl.make_tensor_descriptor({base}, shape=[{', '.join(shape)}], strides=[{', '.join(strides)}], "
                  f"block_shape=[{', '.join(blocks)}])")

    def header(self) -> None:
        """Descriptors, and the loop over tiles."""
        p, t = self.p, self.tile
        self.numbers += [Arg(n, "i32", v, math.gcd(v, 16)) for n, v in (("m", p.m), ("n", p.n), ("k", p.k))]
        for name, offset in zip("ab", self.offsets):
            if offset:
                self.line(f"{name} += {offset}")
        self.turned = (p.a[1] != 1, p.b[1] != 1)
        a, b = ("k", "m") if self.turned[0] else ("m", "k"), ("n", "k") if self.turned[1] else ("k", "n")
        self.steps = [next((s for s in strides if s != 1), 1) for strides in (p.a, p.b)]
        batches = [strides[0] if strides else 0 for strides in (p.batch_a, p.batch_b)]
        self.batched = [bool(s) for s in batches]
        blocks = {"m": "BX", "n": self.columns, "k": "BK"}
        for which, (name, sizes) in enumerate((("a", a), ("b", b))):
            between = self.number(f"batch_{name}", batches[which]) if self.batched[which] else ""
            step = self.number(f"step_{name}", self.steps[which])
            self.descriptor(f"d{name}", name, between, sizes, step, (blocks[sizes[0]], blocks[sizes[1]]))
        if self.by_descriptor:
            self.descriptor("dc", "c", "m * n" if p.batch else "", ("m", "n"), "n", ("BX", "BY"))
        self.line(f"tiles_m, tiles_n = tl.cdiv(m, BX), tl.cdiv(n, {self.columns})")
        every = math.prod(p.batch) * t.parts
        self.line(f"tiles = tiles_m * tiles_n{f' * {every}' if every > 1 else ''}")
        flat = t.parts == 1  # a part may be empty, and parts are made where there are few tiles
        if flat:
            self.line("done = tl.program_id(0) - tl.num_programs(0)")
        self.line(f"for item in tl.range(tl.program_id(0), tiles, tl.num_programs(0){', flatten=True' if flat else ''}):")
        self.inside = 1
        self.place("item")

    def place(self, item: str) -> None:
        """Which tile, which part of the sum, which element of the batch a work item is."""
        p, t = self.p, self.tile
        tile = item
        if p.batch or t.parts > 1:
            self.line(f"tile, z = {item} % (tiles_m * tiles_n), {item} // (tiles_m * tiles_n)")
            tile = "tile"
        if t.parts > 1:
            self.line(f"part, z = z % {t.parts}, z // {t.parts}")
        self.line(f"first = {tile} // ({GROUP} * tiles_n) * {GROUP}  # rows of tiles in groups, for the L2 cache")
        self.line(f"rows = tl.minimum(tiles_m - first, {GROUP})")
        self.line(f"pm, pn = first + {tile} % ({GROUP} * tiles_n) % rows, {tile} % ({GROUP} * tiles_n) // rows")

    def fetch(self, which: int) -> str:
        """The block of an operand at step k0."""
        here = ("pm * BX", f"pn * {self.columns}")[which]
        if which == 0:
            at, block = ("k0", here) if self.turned[0] else (here, "k0"), "BK, BX" if self.turned[0] else "BX, BK"
        else:
            at = (here, "k0") if self.turned[1] else ("k0", here)
            block = f"{self.columns}, BK" if self.turned[1] else f"BK, {self.columns}"
        name = "ab"[which]
        text = f"d{name}.load([{'z, ' if self.batched[which] else ''}{', '.join(at)}])"
        if self.batched[which]:
            text += f".reshape({block})"
        return text + (".T" if self.turned[which] else "")

    def loop(self) -> None:
        """acc = the tile's sum over its part of k."""
        t = self.tile
        lo, hi = "0", "k"
        if t.parts > 1:
            self.line(f"lo = part * (tl.cdiv(k, {t.parts} * BK) * BK)")
            self.line(f"hi = tl.minimum(lo + tl.cdiv(k, {t.parts} * BK) * BK, k)")
            lo, hi = "lo", "hi"
        self.line(f"acc = tl.zeros((BX, {self.columns}), tl.float32)")
        self.line(f"for k0 in range({lo}, {hi}, BK):")
        self.line(f"ta = {self.fetch(0)}", 2)
        self.line(f"tb = {self.fetch(1)}", 2)
        self.line("acc = tl.dot(ta, tb, acc)", 2)

    def pieces(self) -> Iterator[str]:
        """The block or its halves."""
        t = self.tile
        if t.parts == 1:
            self.line("done += tl.num_programs(0)")
            self.place("done")
        wide = ".to(tl.int64)" if self.big else ""
        if self.big and (self.p.batch or t.parts > 1):
            self.line("z = z.to(tl.int64)")
        elif not self.p.batch and t.parts == 1:
            self.line("z = 0")
        self.line(f"x = (pm * BX + tl.arange(0, BX)[:, None]){wide}")
        if self.p.m % t.m:
            self.line("mx = x < m")
        if t.halves == 1:
            self.line("y0 = pn * BY")
            self.line(f"y = (y0 + tl.arange(0, BY)[None, :]){wide}")
            if self.p.n % t.n:
                self.line("my = y < n")
        yield from super().pieces()

    def store(self, dt: dtype, rows: str = "z") -> None:
        """Write the accumulator as the dense result."""
        if not self.by_descriptor:
            super().store(dt, rows)
            return
        value, at = opcodes.stored(dt, "acc"), "pm * BX, y0"
        if self.p.batch:
            value, at = f"({value}).reshape(1, BX, BY)", f"{'z.to(tl.int32)' if self.big else 'z'}, {at}"
        self.line(f"dc.store([{at}], {value})")

    def grid(self) -> list[tuple[str | int, int]]:
        """A program per processor, or fewer."""
        p, t = self.p, self.tile
        return [(min(-(-p.m // t.m) * -(-p.n // t.n) * math.prod(p.batch) * t.parts, self.processors), 1)]


__all__ = ["Persistent"]
