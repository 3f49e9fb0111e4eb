"""Reductions of a kernel: their accumulators, one step of each, and how unrolled sets and lanes are combined at the end."""
from __future__ import annotations

from ...dtypes import bool_
from ..loop_ir import Stmt
from . import opcodes
from .kernel_layout import Env, Val
from .kernel_statements import Statements
from .llvm import const, lanes, vec


class Reductions(Statements):
    """Accumulators from start to result."""

    def start(self, r: int) -> list[tuple[str, str]]:
        """(type, initial value) of the accumulators of a reduction."""
        s = self.k.stmts[r]
        dt = self.k.stmts[s.args[0]].dtype
        w = self.width if self.vaxis is not None else 1
        ty = vec(w, opcodes.register_type(dt))
        if s.op == "reduce":
            return [(ty, opcodes.identity(s.attr, dt, ty))]
        t = vec(w, "i64")
        return [(ty, opcodes.identity(s.attr[0], dt, ty)), (t, const(t, (1 << 63) - 1))]

    def steps(self, s: int, env: Env, acc: list[str]) -> list[str]:
        """One step of every reduction of sweep ``s``: the accumulators' next values."""
        f = self.f
        ln = self.lanes
        count = len(ln.starts) if ln else 1
        per = len(acc) // count
        out = []
        for u in range(count):
            mine = acc[u * per:(u + 1) * per]
            at = 0
            for r in self.reduces[s]:
                st = self.k.stmts[r]
                dt = self.k.stmts[st.args[0]].dtype
                x = env[st.args[0]]
                if ln is not None and self.width > 1:
                    x = self.spread(x)
                v = x.regs[u % len(x.regs)]
                if st.op == "reduce":
                    new = opcodes.combine(f, st.attr, dt, x.ty, mine[at], v)
                    out.append(self.keep_live(x.ty, new, mine[at]))
                    at += 1
                    continue
                t = vec(lanes(x.ty), "i64")
                pos = self.vector_ix(st.attr[1], (r, "p"), env, u) if self.varies(st.attr[1], env) else f.splat(
                    t, self.scalar_ix(st.attr[1], (r, "p"), env))
                a, b = opcodes.better(f, st.attr[0], dt, x.ty, (mine[at], mine[at + 1]), (v, pos))
                out += [self.keep_live(x.ty, a, mine[at]), self.keep_live(t, b, mine[at + 1])]
                at += 2
        return out

    def keep_live(self, ty: str, new: str, old: str) -> str:
        """In row mode, lanes beyond the row leave the accumulator alone."""
        if self.row_mode and self.lanes is not None and self.lanes.mask is not None:
            return self.f.select(ty, self.lanes.mask, new, old)
        return new

    def finish(self, s: int, names: list[str], per: int, env: Env) -> None:
        """Results of the sweep's reductions: in row mode combine unrolled sets, then lanes."""
        at = 0
        sets = [names[i:i + per] for i in range(0, len(names), per)] if per else []
        for r in self.reduces[s]:
            st = self.k.stmts[r]
            dt = self.k.stmts[st.args[0]].dtype
            k = 1 if st.op == "reduce" else 2
            ty = self.start(r)[0][0]
            parts = [tuple(x[at:at + k]) for x in sets]
            at += k
            if not self.row_mode:
                regs = [self.result(st, dt, ty, p) for p in parts]
                env[r] = Val(regs, vec(lanes(ty), opcodes.register_type(st.dtype)))
                continue
            total = parts[0]
            for p in parts[1:]:
                total = self.join(st, dt, ty, total, p)
            w = lanes(ty)
            while w > 1:
                w //= 2
                low = [self.half(t, x, w, 0) for t, x in zip((ty, vec(lanes(ty), "i64")), total)]
                high = [self.half(t, x, w, w) for t, x in zip((ty, vec(lanes(ty), "i64")), total)]
                ty = vec(w, opcodes.register_type(dt))
                total = self.join(st, dt, ty, tuple(low), tuple(high))
            env[r] = Val([self.result(st, dt, ty, total)], opcodes.register_type(st.dtype))

    def half(self, ty: str, x: str, w: int, start: int) -> str:
        """Lanes start .. start+w-1 (a scalar for one lane)."""
        if w == 1:
            return self.f.let(f"extractelement {ty} {x}, i64 {start}")
        picks = ", ".join(f"i32 {start + j}" for j in range(w))
        return self.f.let(f"shufflevector {ty} {x}, {ty} poison, <{w} x i32> <{picks}>")

    def join(self, st: Stmt, dt: object, ty: str, a: tuple[str, ...], b: tuple[str, ...]) -> tuple[str, ...]:
        if st.op == "reduce":
            return (opcodes.combine(self.f, st.attr, dt, ty, a[0], b[0]),)  # type: ignore[arg-type]
        return opcodes.better(self.f, st.attr[0], dt, ty, a, b)  # type: ignore[arg-type]

    def result(self, st: Stmt, dt: object, ty: str, total: tuple[str, ...]) -> str:
        """The reduction's value in its own dtype."""
        if st.op == "argreduce":
            return total[1]
        if opcodes.is_half(st.dtype):
            return opcodes.rounded(self.f, st.dtype, ty, total[0])
        return opcodes.cast(self.f, dt, ty, total[0], st.dtype) if st.dtype is bool_ else total[0]  # type: ignore[arg-type]
