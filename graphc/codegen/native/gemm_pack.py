"""Copies of matrices into the panels the product kernels read, and the sum of partial products.

A packed operand is an array [matrix, panel, k, lane] of the register dtype, ``span`` lanes per panel: rows of A or columns
of B. Lanes beyond the edge of the matrix hold zeros or copies of the last lane; they only meet results that are not stored.
"""
from __future__ import annotations

from functools import cache

from .gemm_kernel import DTYPES, batch_offsets, load_values, register_scalar, store_values
from .llvm import Function, byte_size, module, vec
from .opcodes import memory_type

PACK_WORDS = ("length", "steps", "across", "along", "offset", "span", "panels", "chunk", "matrices", "rank")


@cache
def pack_kernel(dt: str, kind: str, width: int) -> tuple[str, str]:
    """(symbol, text): pack in columns of ``width`` lanes; ``kind`` says which stride is 1: "across", "along" (k) or "none"."""
    symbol = f"mm_pack_{dt}_{kind}_{width}"
    return symbol, module([_Pack(symbol, dt, kind, width).f])


class _Pack:
    """Prints the kernel: threads share (matrix, panel, chunk of k)."""

    def __init__(self, symbol: str, dt: str, kind: str, width: int):
        self.dt, self.kind, self.width = dt, kind, width
        self.scalar = register_scalar(dt)
        self.keep = "float64" if dt == "float64" else "float32"
        self.ty = vec(width, self.scalar)
        f = self.f = Function(symbol)
        self.src, self.dst = f.arg(0, "ptr"), f.arg(1, "ptr")
        self.w = {name: f.arg(2 + i) for i, name in enumerate(PACK_WORDS)}
        w = self.w
        self.chunks = f.ceil_div(w["steps"], w["chunk"])
        lo, hi = f.share(f.mul(f.mul(w["matrices"], w["panels"]), self.chunks))
        f.loop(lo, hi, self.task)

    def task(self, t: str) -> None:
        """One chunk of k of one panel."""
        f, w = self.f, self.w
        chunk, t = f.rem(t, self.chunks), f.div(t, self.chunks)
        panel, matrix = f.rem(t, w["panels"]), f.div(t, w["panels"])
        base = f.add(batch_offsets(f, matrix, 2 + len(PACK_WORDS), w["rank"], 1)[0], w["offset"])
        k0 = f.mul(chunk, w["chunk"])
        k1 = f.min(f.add(k0, w["chunk"]), w["steps"])
        dst = f.mul(f.mul(t, w["steps"]), w["span"])
        first = f.mul(panel, w["span"])

        def column(lane: str) -> None:
            at = f.add(first, lane)
            with f.when(f.cmp("slt", "i64", at, w["length"])):
                {"across": self.across, "along": self.along, "none": self.strided}[self.kind](
                    f.add(base, f.mul(at, w["across"])), f.sub(w["length"], at), f.add(dst, lane), k0, k1)

        f.loop("0", w["span"], column, step=self.width)

    def source(self, index: str) -> str:
        """Address of an element of the matrix."""
        return self.f.at(memory_type(DTYPES[self.dt]), self.src, index)

    def put(self, value: str, at: str, k: str) -> None:
        """Store the lanes of one k."""
        f = self.f
        f.store(self.ty, value, f.at(self.scalar, self.dst, f.add(at, f.mul(k, self.w["span"]))))

    def across(self, base: str, left: str, dst: str, k0: str, k1: str) -> None:
        """Lanes are neighbours in memory."""
        f, w = self.f, self.w
        mask = f.lane_mask(self.width, left)

        def step(k: str) -> None:
            at = self.source(f.add(base, f.mul(k, w["along"])))
            self.put(load_values(f, self.dt, self.ty, at, mask), dst, k)

        f.loop(k0, k1, step)

    def along(self, base: str, left: str, dst: str, k0: str, k1: str) -> None:
        """Steps of k are neighbours in memory: square tiles are transposed. Lanes beyond the edge repeat the last one."""
        f, w, n = self.f, self.w, self.width
        rows = [f.add(base, f.mul(f.min(str(r), f.sub(left, "1")), w["across"])) for r in range(n)]

        def tile(k: str) -> None:
            rest = f.sub(k1, k)
            mask = f.lane_mask(n, rest)
            out = f.transpose(self.ty, [load_values(f, self.dt, self.ty, self.source(f.add(x, k)), mask) for x in rows])
            self.put(out[0], dst, k)
            for j in range(1, n):
                with f.when(f.cmp("sgt", "i64", rest, str(j))):
                    self.put(out[j], dst, f.add(k, str(j)))

        f.loop(k0, k1, tile, step=n)

    def strided(self, base: str, left: str, dst: str, k0: str, k1: str) -> None:
        """Any strides, element by element."""
        f, w = self.f, self.w
        lanes = [f.add(base, f.mul(f.min(str(r), f.sub(left, "1")), w["across"])) for r in range(self.width)]

        def step(k: str) -> None:
            at, value = f.mul(k, w["along"]), "poison"
            for r, x in enumerate(lanes):
                one = load_values(f, self.dt, self.scalar, self.source(f.add(x, at)))
                value = f.let(f"insertelement {self.ty} {value}, {self.scalar} {one}, i64 {r}")
            self.put(value, dst, k)

        f.loop(k0, k1, step)


@cache
def sum_kernel(dt: str, out: str, bits: int) -> tuple[str, str]:
    """(symbol, text): out[i] = parts[0, i] + parts[1, i] + ... in that order. Words: out, parts, count of i, of parts."""
    symbol = f"mm_sum_{dt}_{out}_{bits}"
    f = Function(symbol)
    scalar = register_scalar(dt)
    width = bits // (8 * byte_size(scalar))
    ty = vec(width, scalar)
    dst, parts, size, count = f.arg(0, "ptr"), f.arg(1, "ptr"), f.arg(2), f.arg(3)
    lo, hi = f.share(size, width)

    def some(i: str) -> None:
        mask = f.lane_mask(width, f.sub(hi, i))

        def one(part: str, total: str) -> list[str]:
            return [f.op("fadd", ty, total, f.load(ty, f.at(scalar, parts, f.add(i, f.mul(part, size))), mask))]

        total = f.loop("1", count, one, [(ty, f.load(ty, f.at(scalar, parts, i), mask))])[0]
        store_values(f, out, ty, total, f.at(memory_type(DTYPES[out]), dst, i), mask)

    f.loop(lo, hi, some, step=width)
    return symbol, module([f])
