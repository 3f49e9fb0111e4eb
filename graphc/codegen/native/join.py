"""Joining many arrays along an axis (concat, and with it stack): every thread copies a share of the rows of every operand."""
from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from ...ir.node import Aval
from .jobs import Job, Key
from .llvm import Function
from .scatter import seal

SHORT = 32  # bytes: shorter rows are copied element by element
MOST = 1024  # operands of one node
GRAIN = 4096  # bytes one thread copies at least


@cache
def _kernel(operands: int, itemsize: int) -> tuple[str, str]:
    """Args: (out, operands...), then rows, bytes of a row of the result, and for each operand bytes of a row and where its
    rows start in those of the result."""
    f = Function("KERNEL")
    out, rows, row = f.arg(0, "ptr"), f.arg(1 + operands), f.arg(2 + operands)
    ty = f"i{8 * itemsize}"

    def operand(k: str) -> None:
        src = f.load("ptr", f.at("i64", "%args", f.add(k, "1")))
        words = f.add(f.mul(k, "2"), str(3 + operands))
        size = f.load("i64", f.at("i64", "%args", words))
        to = f.at("i8", out, f.load("i64", f.at("i64", "%args", f.add(words, "1"))))
        grain = f.max(f.div(str(GRAIN), size), "1")
        lo, hi = f.share(rows, grain)
        short = f.cmp("ule", "i64", size, str(SHORT))

        def one(r: str) -> None:
            d, s = f.at("i8", to, f.mul(r, row)), f.at("i8", src, f.mul(r, size))
            with f.when(short):
                f.loop("0", f.div(size, str(itemsize)), lambda i: f.store(ty, f.load(ty, f.at(ty, s, i)), f.at(ty, d, i)))
            with f.when(f.op("xor", "i1", short, "true")):
                f.call("llvm.memcpy.p0.p0.i64", "void", ("ptr", d), ("ptr", s), ("i64", size), ("i1", "false"))

        f.loop(lo, hi, one)

    f.loop("0", str(operands), operand)
    return seal("join", f)


@cache
def _long_kernel(operands: int) -> tuple[str, str]:
    """One row of each operand: threads share its bytes. Args: (out, operands...), then for each bytes and where they go."""
    f = Function("KERNEL")
    out = f.arg(0, "ptr")

    def operand(k: str) -> None:
        src = f.load("ptr", f.at("i64", "%args", f.add(k, "1")))
        words = f.add(f.mul(k, "2"), str(1 + operands))
        size = f.load("i64", f.at("i64", "%args", words))
        to = f.at("i8", out, f.load("i64", f.at("i64", "%args", f.add(words, "1"))))
        lo, hi = f.share(size, GRAIN)
        f.call("llvm.memcpy.p0.p0.i64", "void", ("ptr", f.at("i8", to, lo)), ("ptr", f.at("i8", src, lo)),
               ("i64", f.max(f.sub(hi, lo), "0")), ("i1", "false"))

    f.loop("0", str(operands), operand)
    return seal("join_long", f)


def concat_jobs(attrs: Any, ins: Sequence[Aval], out: Aval, keys: Sequence[Key], to: Key) -> list[Job] | None:
    """``concat`` (axis) of any number of contiguous operands of any dtype."""
    axis, size = attrs[0], out.dtype.itemsize
    inner = size
    for n in out.shape[axis + 1:]:
        inner *= n
    rows = out.nbytes // (inner * out.shape[axis])
    parts: list[tuple[Key, int, int]] = []  # operand, bytes of a row, where in the result's row
    at = 0
    for key, a in zip(keys, ins):
        n = a.shape[axis] * inner
        if n:
            parts.append((key, n, at))
        at += n
    if len(parts) > MOST:
        return None
    pointers = [to, *[p[0] for p in parts]]
    numbers = [x for p in parts for x in p[1:]]
    if rows == 1:
        kernel = _long_kernel(len(parts))
    else:
        kernel = _kernel(len(parts), min(size, 8))
        numbers = [rows, at, *numbers]
    return [Job(*kernel, pointers, tuple(numbers), {p[0] for p in parts}, {to}, work=out.nbytes // 8)]
