"""Running combinations along an axis (``scan``): a block of rows walks along the axis with what came before as a carry."""
from __future__ import annotations

import math

from . import opcodes
from .library_row import Library, Made
from .printer import Arg, assemble
from .tiling import WIDE, pow2

POINTS = 4096  # elements of a block
_HELPER = {"add": "plus", "mul": "times", "max": "max", "min": "min", "logaddexp": "logaddexp"}


def scan(x: Library) -> list[Made] | None:
    """Inclusive running combination; attrs (kind, axis, reverse). Accumulates as reductions do, in a fixed order."""
    kind, axis, reverse = x.node.attrs
    av = x.ins[0]
    dt = av.dtype
    if dt.name == "bool" or not av.shape or dt.is_complex:
        return None
    n, inner = av.shape[axis], math.prod(av.shape[axis + 1:])
    rows = av.size // n
    helper = _HELPER[kind]
    start = opcodes.identity("max" if kind == "logaddexp" else kind, dt)
    acc = opcodes.register(opcodes.accumulator(dt))
    by = min(pow2(n), POINTS if inner == 1 else 256)
    bx = max(1, min(pow2(rows), POINTS // by))
    big = av.size + (1 << 16) >= WIDE
    wide = ".to(tl.int64)" if big else ""
    lines = [f"    x = (tl.program_id(0) * BX + tl.arange(0, BX)[:, None]){wide}", "    mx = x < nx",
             f"    base = x * {n}" if inner == 1 else f"    base = x // {inner} * {n * inner} + x % {inner}",
             f"    carry = tl.full((BX, 1), {start}, {acc})", "    for y0 in range(0, ny, BY):",
             "        y = y0 + tl.arange(0, BY)[None, :]",
             f"        at = base + {f'({n - 1} - y)' if reverse else 'y'}{f' * {inner}' if inner != 1 else ''}",
             f"        got = tl.load(b + at, mask=mx & (y < ny), other=0).to({acc})",
             f"        got = tl.where(y < ny, got, tl.full([], {start}, {acc}))",
             f"        run = {helper}(tl.broadcast_to(carry, (BX, BY)), tl.associative_scan(got, 1, {helper}))",
             "        tl.store(o + at, run.to(o.dtype.element_ty), mask=mx & (y < ny))",
             "        carry = tl.sum(tl.where(y == y0 + BY - 1, run, tl.zeros_like(run)), 1, keep_dims=True)"]
    size = "i64" if big else "i32"
    args = [Arg("b", opcodes.pointer_type(dt), x.keys[0], 16), Arg("o", opcodes.pointer_type(dt), x.node.slot, 16),
            Arg("nx", size, rows, math.gcd(rows, 16)), Arg("ny", "i32", n, math.gcd(n, 16))]
    doc = [f"Running {kind} along axis {axis} of {tuple(av.shape)}{', from the end' if reverse else ''}."]
    warps = max(1, min(8, bx * by // 256))
    p = assemble(f"k_scan_{kind}", doc, lines, args, [("BX", bx), ("BY", by)], [("nx", bx)], warps, {helper})
    return [(p, {x.node.slot}, {})]
