"""The statements of a kernel: each printed once, in the outermost loop that binds all axes it depends on."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...dtypes import int64
from ..loop_ir import Stmt
from . import opcodes
from .kernel_access import Accesses
from .kernel_layout import Env, Val
from .llvm import Function, const, lanes, vec


class Statements(Accesses):
    """Values of statements."""

    def place(self, order: Sequence[int], env: Env, bound: frozenset[int], sweep: int) -> None:
        """Emit the statements of ``order`` whose axes are all bound and that are not in ``env`` yet."""
        for i in order:
            if (i not in env and self.deps[i] <= bound and self.stages[i] <= sweep
                    and self.k.stmts[i].op not in ("reduce", "argreduce")):
                env[i] = self.scratch_load(i) if i in self.spill and self.stages[i] < sweep else self.statement(i, env)
                if i in self.spill and self.stages[i] == sweep and self.inner[i]:
                    self.scratch_store(i, env[i])

    def statement(self, i: int, env: Env) -> Val:
        """Emit one statement."""
        s, f = self.k.stmts[i], self.f
        if s.op == "load":
            return self.load(i, s.attr, env)
        if s.op == "const":
            ty = opcodes.register_type(s.dtype)
            return Val([const(ty, np.frombuffer(s.attr, s.dtype.np)[0].item())], ty)
        if s.op == "guard":
            c = self.condition(s.attr, (i,), env)
            assert c is not None
            return c
        if s.op in ("index", "rng"):
            vector = self.varies(s.attr, env)
            n = len(self.lanes.starts) if vector and self.lanes else 1
            regs = [self.vector_ix(s.attr, (i,), env, u) if vector else self.scalar_ix(s.attr, (i,), env) for u in range(n)]
            t = vec(self.width, "i64") if vector else "i64"
            if s.op == "rng":
                seed, offset = [env[a].regs[0] for a in s.args]
                return Val([philox(f, t, r, seed, offset) for r in regs], vec(lanes(t), "i32"))
            return Val([opcodes.cast(f, int64, t, r, s.dtype) for r in regs], vec(lanes(t), opcodes.register_type(s.dtype)))
        if s.op == "check":
            return self.check(i, s, env)
        return self.pointwise(s, env)

    def pointwise(self, s: Stmt, env: Env) -> Val:
        """An opcode on registers, splatting uniform operands where others are vectors."""
        args = [env[a] for a in s.args]
        vector = any(not a.uniform for a in args)
        src = self.k.stmts[s.args[-1]].dtype
        w = self.width if vector else 1
        ty = vec(w, opcodes.register_type(src))
        n = max(len(a.regs) for a in args)
        spread = [self.spread(a) if vector else a for a in args]
        regs = [opcodes.emit(self.f, s.op, src, ty, [a.regs[u % len(a.regs)] for a in spread], s.dtype) for u in range(n)]
        return Val(regs, vec(w, opcodes.register_type(s.dtype)))

    def check(self, i: int, s: Stmt, env: Env) -> Val:
        """An index, wrapped, reported and set to 0 when out of range."""
        f = self.f
        size, wrap, guards = s.attr
        val = env[s.args[0]]
        cond = self.condition(guards, (i, "w"), env)
        if cond is not None and not cond.uniform:
            val = self.spread(val)
        src = self.k.stmts[s.args[0]].dtype
        t = vec(lanes(val.ty), "i64")
        n = self.coef((i, "size"), size)
        out = []
        for u in range(max(len(val.regs), len(cond.regs) if cond is not None else 1)):  # guards differ
            x = opcodes.cast(f, src, val.ty, val.regs[u % len(val.regs)], int64)
            y = x
            if wrap:
                y = f.select(t, f.cmp("slt", t, x, const(t, 0)), f.op("add", t, x, f.splat(t, n)), x)
            ok = f.cmp("ult", t, y, f.splat(t, n))
            bad = f.op("xor", vec(lanes(t), "i1"), ok, const(vec(lanes(t), "i1"), True))
            if cond is not None:
                c = cond.regs[u % len(cond.regs)]
                bad = f.op("and", vec(lanes(t), "i1"), bad, f.splat(vec(lanes(t), "i1"), c) if cond.uniform else c)
            self.report(bad, t)
            out.append(f.select(t, ok, y, const(t, 0)))
        return Val(out, t)

    def report(self, bad: str, t: str) -> None:
        """Set the error flag if any live lane is bad."""
        f = self.f
        if t[0] == "<":
            b = vec(lanes(t), "i1")
            if self.lanes is not None and self.lanes.mask is not None:
                bad = f.op("and", b, bad, self.lanes.mask)
            bad = f.call(f"llvm.vector.reduce.or.v{lanes(t)}i1", "i1", (b, bad))
        with f.when(bad):
            err = f.arg(len(self.k.buffers), "ptr")
            f.emit(f"store i64 1, ptr {err}, align 8")


def philox(f: Function, t: str, pos: str, seed: str, offset: str) -> str:
    """Word ``pos`` of the Philox4x32-10 stream (seed, offset) for a vector (or scalar) of positions.

    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011: counter (offset + pos // 4, 0, 0), word pos % 4.
    """
    w = lanes(t)
    low = const(t, 0xFFFFFFFF)
    counter = f.op("add", t, f.op("lshr", t, pos, const(t, 2)), f.splat(t, offset))
    c = [f.op("and", t, counter, low), f.op("lshr", t, counter, const(t, 32)), const(t, 0), const(t, 0)]
    k0, k1 = f.op("and", "i64", seed, str(0xFFFFFFFF)), f.op("lshr", "i64", seed, "32")
    for _ in range(10):
        p0, p1 = f.op("mul", t, c[0], const(t, 0xD2511F53)), f.op("mul", t, c[2], const(t, 0xCD9E8D57))
        n0 = f.op("xor", t, f.op("xor", t, f.op("lshr", t, p1, const(t, 32)), c[1]), f.splat(t, k0))
        n2 = f.op("xor", t, f.op("xor", t, f.op("lshr", t, p0, const(t, 32)), c[3]), f.splat(t, k1))
        c = [n0, f.op("and", t, p1, low), n2, f.op("and", t, p0, low)]
        k0 = f.op("and", "i64", f.op("add", "i64", k0, str(0x9E3779B9)), str(0xFFFFFFFF))
        k1 = f.op("and", "i64", f.op("add", "i64", k1, str(0xBB67AE85)), str(0xFFFFFFFF))
    word = f.op("and", t, pos, const(t, 3))
    out = c[3]
    for j in (2, 1, 0):
        out = f.select(t, f.cmp("eq", t, word, const(t, j)), c[j], out)
    return f.cast("trunc", t, out, vec(w, "i32"))
