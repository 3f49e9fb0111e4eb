"""Binary search of many values at once, one in each lane."""
from __future__ import annotations

import math
from functools import cache
from typing import Any

from ...dtypes import complex64, complex128, dtype
from ...ir.node import Aval
from . import opcodes
from .jobs import Job, Key
from .llvm import Function, const, vec
from .scatter import seal
from .sort import ordered

I64 = "i64"


@cache
def _kernel(dt: dtype, right: bool, bits: int) -> tuple[str, str]:
    """Args: (out, sorted, values, rows, length of a sorted row, values of a row, steps between sorted rows).

    ``found`` elements are known to be before the value; it grows by falling powers of two as long as the last of them is.
    """
    f = Function("KERNEL")
    out, table, values = [f.arg(k, "ptr") for k in range(3)]
    rows, n, m, step = [f.arg(k) for k in range(3, 7)]
    w, mem = bits // 64, opcodes.memory_type(dt)
    t, i1 = vec(w, I64), vec(w, "i1")
    kt = vec(w, I64 if dt.itemsize == 8 else "i32")
    halvings = f.sub("64", f.call("llvm.ctlz.i64", I64, (I64, n), ("i1", "false")))
    blocks = f.ceil_div(m, w)

    def task(b: str) -> None:
        row, at = f.div(b, blocks), f.mul(f.rem(b, blocks), str(w))
        mask = f.lane_mask(w, f.sub(m, at))
        mine = f.at(mem, table, f.mul(row, step))
        here = f.add(f.mul(row, m), at)
        key = ordered(f, dt, f.load(vec(w, mem), f.at(mem, values, here), mask), w, False)

        def halve(k: str, found: str) -> tuple[str]:
            size = f.op("shl", I64, "1", f.sub(f.sub(halvings, "1"), k))
            next_found = f.op("add", t, found, f.splat(t, size))
            inside = f.op("and", i1, f.cmp("ule", t, next_found, f.splat(t, n)), mask)
            last = f.op("sub", t, next_found, const(t, 1))
            probe = ordered(f, dt, f.gather(vec(w, mem), mine, last, inside), w, False)
            before = f.cmp("sle" if right else "slt", kt, probe, key)
            return (f.select(t, f.op("and", i1, before, inside), next_found, found),)

        found = f.loop("0", halvings, halve, [(t, const(t, 0))])[0]
        f.store(t, found, f.at(I64, out, here), mask)

    f.loop(*f.share(f.mul(rows, blocks)), task)
    return seal(f"search_{dt.short}", f)


def search_jobs(attrs: Any, table: Aval, values: Aval, keys: list[Key], out: Key, bits: int) -> list[Job] | None:
    """``searchsorted`` (right): the position of each value in the sorted rows (or the one row for all) of ``table``."""
    dt = table.dtype
    if dt in (complex64, complex128) or not values.size:
        return None
    n = table.shape[-1]
    rows = 1 if table.ndim == 1 else math.prod(values.shape[:-1])
    numbers = (rows, n, values.size // rows, 0 if table.ndim == 1 else n)
    return [Job(*_kernel(dt, attrs[0], bits), [out, *keys], numbers, set(keys), {out},
                work=values.size * max(1, n.bit_length()))]
