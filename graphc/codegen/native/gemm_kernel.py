"""The register-blocked matrix product as LLVM text.

C[batch, m, n] = sum over k of A[batch, m, k] B[batch, k, n]. A tile of C is ``rows`` x ``vectors`` accumulator vectors with
lanes along n; elements of A are broadcast, vectors of B loaded (masked at the right edge). All sizes and strides are words,
so packed and unpacked operands run through the same text. k is cut into blocks whose panels stay in cache; blocks after the
first start from what the previous one stored, so every element is one chain of fused multiply-adds in increasing k,
whatever the tiling and the number of threads. Goto and van de Geijn, "Anatomy of high-performance matrix multiplication",
ACM TOMS 34(3), 2008.
"""
from __future__ import annotations

import hashlib
from functools import cache, lru_cache

from ...dtypes import bfloat16, float16, float32, float64
from ...runtime import memory
from ..loop_ir import Kernel
from . import vmath
from .epilogue import Epilogue
from .kernel import anonymous, named
from .llvm import Function, byte_size, module, scalar_of, vec
from .opcodes import load_convert, memory_type, rounded, store_convert

DTYPES = {"float32": float32, "float64": float64, "bfloat16": bfloat16, "float16": float16}
UNROLL = 4


def register_scalar(dt: str) -> str:
    """LLVM scalar that products of a dtype are accumulated in."""
    return "double" if dt == "float64" else "float"


def load_values(f: Function, dt: str, ty: str, address: str, mask: str | None = None) -> str:
    """Memory of dtype ``dt`` as a register vector of type ``ty``."""
    d = DTYPES[dt]
    width = 1 if ty[0] != "<" else int(ty[1:ty.index(" ")])
    return load_convert(f, d, ty, f.load(vec(width, memory_type(d)), address, mask))


def store_values(f: Function, dt: str, ty: str, value: str, address: str, mask: str | None = None) -> None:
    """Store registers as dtype ``dt``, rounded once to nearest even."""
    d = DTYPES[dt]
    width = 1 if ty[0] != "<" else int(ty[1:ty.index(" ")])
    f.store(vec(width, memory_type(d)), store_convert(f, d, ty, rounded(f, d, ty, value)), address, mask)


def batch_offsets(f: Function, which: str, at: int, rank: str, operands: int) -> list[str]:
    """Element offsets of matrix ``which``; words from ``at`` hold (size, stride per operand) of each axis, last first."""
    words = f.at("i64", "%args", str(at))

    def axis(d: str, rest: str, *sums: str) -> list[str]:
        row = f.at("i64", words, f.mul(d, str(1 + operands)))
        size = f.load("i64", row)
        i = f.rem(rest, size)
        out = [f.add(s, f.mul(i, f.load("i64", f.at("i64", row, str(1 + j))))) for j, s in enumerate(sums)]
        return [f.div(rest, size), *out]

    return f.loop("0", rank, axis, [("i64", which), *[("i64", "0")] * operands])[1:]


# words of the kernel after its four pointers A, B, C, partials
WORDS = ("m", "n", "k", "k_block", "tiles", "panels", "m_tasks", "n_tasks", "matrices", "parts", "k_part", "a_offset", "a_tile",
         "a_row", "a_col", "b_offset", "b_panel", "b_row", "rank")


@cache
def product_kernel(dt: str, out: str, rows: int, vectors: int, bits: int) -> tuple[str, str]:
    """(symbol, text) for operands of dtype ``dt`` and a result of dtype ``out``; partial sums are in the register dtype."""
    symbol = f"mm_{dt}_{out}_{rows}x{vectors}_{bits}"
    return symbol, module([_Product(symbol, dt, out, rows, vectors, bits).f])


def fused_kernel(dt: str, rows: int, vectors: int, bits: int, k: Kernel,
                 slot: int) -> tuple[str, str, tuple[int, ...], tuple[tuple[int, int], ...]]:
    """(symbol, text, numbers, streams) of a product whose tiles pass through ``k``, which reads the product as ``slot``.
    Argument block: A, B, unused, partial sums; the pointers of ``k``'s buffers, error block and scratch; ``numbers``; WORDS."""
    k, slots = anonymous(k)
    symbol, text, numbers, streams = _fused(dt, rows, vectors, bits, k, slots.index(slot), memory.last_level_cache())
    return symbol, text, numbers, named(streams, slots)


@lru_cache(512)
def _fused(dt: str, rows: int, vectors: int, bits: int, k: Kernel, slot: int,
           cache: int) -> tuple[str, str, tuple[int, ...], tuple[tuple[int, int], ...]]:
    width = bits // (8 * byte_size(register_scalar(dt)))
    e = Epilogue(k, slot, width * vectors, bits, "EPILOGUE")
    words = len(k.buffers) + 2 + len(e.numbers)
    body = module([_Product("KERNEL", dt, dt, rows, vectors, bits, words).f, e.f], vmath.definitions(e.f.helpers))
    digest = hashlib.sha256(body.encode()).hexdigest()[:16]
    symbol = f"mm_{dt}_{rows}x{vectors}_{k.name.split('_', 1)[-1][:32]}_{digest}"
    text = body.replace("@KERNEL(", f"@{symbol}(").replace("@EPILOGUE(", f"@{symbol}_tile(")
    return symbol, text, tuple(e.numbers), e.streams_of()


class _Product:
    """Prints the kernel: threads share tasks (part of k, matrix, column group, row group)."""

    def __init__(self, symbol: str, dt: str, out: str, rows: int, vectors: int, bits: int, epilogue: int = 0):
        """``epilogue``: words of the argument block of the function every tile passes through, 0 for none."""
        self.dt, self.out, self.rows, self.vectors = dt, out, rows, vectors
        self.epilogue, self.first_word = epilogue, 4 + epilogue
        self.scalar = register_scalar(dt)
        self.width = bits // (8 * byte_size(self.scalar))
        self.ty = vec(self.width, self.scalar)
        self.size = byte_size(memory_type(DTYPES[dt]))
        self.in_place = not epilogue and scalar_of(memory_type(DTYPES[out])) == self.scalar  # C itself holds partial sums
        f = self.f = Function(symbol)
        self.a, self.b, self.c, self.partial = (f.arg(i, "ptr") for i in range(4))
        self.w = {name: f.arg(self.first_word + i) for i, name in enumerate(WORDS)}
        w = self.w
        self.stack = f.alloca(self.scalar, rows * vectors * self.width) if epilogue else ""
        self.per_matrix = f.mul(w["m_tasks"], w["n_tasks"])
        self.per_part = f.mul(self.per_matrix, w["matrices"])
        lo, hi = f.share(f.mul(self.per_part, w["parts"]))
        f.loop(lo, hi, self.task)

    def task(self, t: str) -> None:
        """A rectangle of tiles of one matrix, over one part of k."""
        f, w = self.f, self.w
        part, t = f.div(t, self.per_part), f.rem(t, self.per_part)
        matrix, t = f.div(t, self.per_matrix), f.rem(t, self.per_matrix)
        col, row = f.div(t, w["m_tasks"]), f.rem(t, w["m_tasks"])
        first_k = f.mul(part, w["k_part"])
        last_k = f.min(w["k"], f.add(first_k, w["k_part"]))
        a, b = batch_offsets(f, matrix, self.first_word + len(WORDS), w["rank"], 2)
        a, b = f.add(a, w["a_offset"]), f.add(b, w["b_offset"])
        c = f.mul(f.add(f.mul(part, w["matrices"]), matrix), f.mul(w["m"], w["n"]))
        self.first_row = f.mul(matrix, w["m"])
        p0, i0 = self.cut(col, w["n_tasks"], w["panels"]), self.cut(row, w["m_tasks"], w["tiles"])
        p1 = self.cut(f.add(col, "1"), w["n_tasks"], w["panels"])
        i1 = self.cut(f.add(row, "1"), w["m_tasks"], w["tiles"])

        def block(k0: str) -> None:
            k1 = f.min(f.add(k0, w["k_block"]), last_k)
            f.loop(p0, p1, lambda p: self.panel(p, a, b, c, (i0, i1), (k0, k1), (first_k, last_k)))

        f.loop(first_k, f.max(last_k, f.add(first_k, "1")), block, step=w["k_block"])

    def cut(self, i: str, parts: str, total: str) -> str:
        """Where part ``i`` of ``total`` begins."""
        return self.f.div(self.f.mul(i, total), parts)

    def panel(self, p: str, a: str, b: str, c: str, tiles: tuple[str, str], block: tuple[str, str],
              part: tuple[str, str]) -> None:
        """One panel of columns over one block of k: all row tiles of the task."""
        f, w, mt = self.f, self.w, vec(self.width, "i1")
        col = f.mul(p, str(self.width * self.vectors))
        left = f.sub(w["n"], col)
        self.col, self.cols = col, f.min(left, str(self.width * self.vectors))
        masks = [f.lane_mask(self.width, f.max(f.sub(left, str(v * self.width)), "0")) for v in range(self.vectors)]
        older = f.splat(mt, f.cmp("sgt", "i64", block[0], part[0]))
        seen = [f.op("and", mt, x, older) for x in masks]
        last = f.cmp("eq", "i64", block[1], part[1])
        bp = f.at(memory_type(DTYPES[self.dt]), self.b, f.add(b, f.add(f.mul(p, w["b_panel"]), f.mul(block[0], w["b_row"]))))
        f.loop(tiles[0], tiles[1], lambda i: self.tile(i, a, bp, f.add(c, col), block, masks, seen, last))

    def tile(self, i: str, a: str, b: str, c: str, block: tuple[str, str], masks: list[str], seen: list[str],
             last: str) -> None:
        """One tile of C over one block of k. Rows beyond the edge repeat the last one and store the same values."""
        f, w, ty, W = self.f, self.w, self.ty, self.width
        first = f.mul(i, str(self.rows))
        edge = f.sub(f.sub(w["m"], "1"), first)
        at = [f.min(str(r), edge) if r else "0" for r in range(self.rows)]
        a0 = f.at(memory_type(DTYPES[self.dt]), self.a, f.add(a, f.add(f.mul(i, w["a_tile"]), f.mul(block[0], w["a_col"]))))
        a_rows = [f.at(memory_type(DTYPES[self.dt]), a0, f.mul(x, w["a_row"])) for x in at]
        c_rows = [f.add(c, f.mul(f.add(first, x), w["n"])) for x in at]
        sums = self.c if self.in_place else self.partial
        acc = []
        for r in range(self.rows):
            p = f.at(self.scalar, sums, c_rows[r])
            acc += [f.load(ty, f.at(self.scalar, p, str(v * W)), seen[v]) for v in range(self.vectors)]
        acc = self.multiply(a_rows, b, f.sub(block[1], block[0]), acc, masks)
        self.finish(sums, c_rows, acc, masks, last, first)

    def multiply(self, a_rows: list[str], b: str, count: str, acc: list[str], masks: list[str]) -> list[str]:
        """``count`` steps of k added to the accumulators."""
        f, w, ty, V = self.f, self.w, self.ty, self.vectors
        a_step, b_step = f.mul(w["a_col"], str(self.size)), f.mul(w["b_row"], str(self.size))

        def steps(unroll: int, at: str, bp: str, now: list[str]) -> list[str]:
            for _ in range(unroll):
                bv = [load_values(f, self.dt, ty, self.byte(bp, str(v * self.width * self.size)), masks[v]) for v in range(V)]
                for r in range(self.rows):
                    x = f.splat(ty, load_values(f, self.dt, self.scalar, self.byte(a_rows[r], at)))
                    now[r * V:r * V + V] = [f.fma(ty, x, bv[v], now[r * V + v]) for v in range(V)]
                at, bp = f.add(at, a_step), self.byte(bp, b_step)
            return [at, bp, *now]

        whole = f.mul(f.div(count, str(UNROLL)), str(UNROLL))
        state = [("i64", "0"), ("ptr", b), *[(ty, x) for x in acc]]
        mid = f.loop("0", whole, lambda _, at, bp, *x: steps(UNROLL, at, bp, list(x)), state, UNROLL)
        state = [(t, x) for (t, _), x in zip(state, mid)]
        return f.loop(whole, count, lambda _, at, bp, *x: steps(1, at, bp, list(x)), state)[2:]

    def byte(self, p: str, offset: str) -> str:
        """Address ``offset`` bytes further."""
        return self.f.at("i8", p, offset)

    def finish(self, sums: str, c_rows: list[str], acc: list[str], masks: list[str], last: str, first: str) -> None:
        """Store a tile: to C after the last block of k, before that to where partial sums are kept."""
        f = self.f

        def put(dt: str, base: str) -> None:
            for r, c in enumerate(c_rows):
                for v in range(self.vectors):
                    p = f.at(memory_type(DTYPES[dt]), base, f.add(c, str(v * self.width)))
                    store_values(f, dt, self.ty, acc[r * self.vectors + v], p, masks[v])

        if self.in_place:
            put(self.out, self.c)
            return
        with f.when(last):
            if self.epilogue:
                self.pass_on(acc, first)
            else:
                put(self.out, self.c)
        with f.when(f.op("xor", "i1", last, "true")):
            put("float64" if self.scalar == "double" else "float32", sums)

    def pass_on(self, acc: list[str], first: str) -> None:
        """Hand a finished tile, on the stack, to the epilogue."""
        f, span = self.f, self.width * self.vectors
        for i, x in enumerate(acc):
            r, v = divmod(i, self.vectors)
            f.store(self.ty, x, f.at(self.scalar, self.stack, str(r * span + v * self.width)))
        args = f.let("getelementptr i64, ptr %args, i64 4")
        rows = f.min(str(self.rows), f.sub(self.w["m"], first))
        f.emit(f"call void @EPILOGUE(ptr {args}, ptr {self.stack}, i64 {f.add(self.first_row, first)}, i64 {rows}, "
               f"i64 {self.col}, i64 {self.cols})")
