"""Where a kernel reads and writes: index expressions, guards, loads and stores (scalars, vectors, gathers, patterns, tiles) and
the scratch rows kept between sweeps."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...runtime import memory
from .. import index
from ..index import Ix
from ..loop_ir import Access, Guard
from . import opcodes
from .kernel_layout import Env, Layout, Val
from .llvm import byte_size, lanes, vec

STREAM = 3 / 8  # of the last cache: larger results are written past the caches


class Accesses(Layout):
    """Index expressions and memory."""

    # --------------------------------------------------------------------------------------------- index expressions
    def scalar_ix(self, ix: Ix, place: tuple[object, ...], env: Env, skip: object = None) -> str:
        """The uniform part of an expression as an i64 register (the term of atom ``skip`` left out)."""
        f = self.f
        total = "0" if ix.const == 0 else self.coef((*place, "c"), ix.const)
        for n, (atom, c) in enumerate(ix.terms):
            if atom == skip and skip is not None:
                continue
            if isinstance(atom, int):
                v = self.dims[atom]
            elif atom[0] == "data":
                v = env[atom[1]].regs[0]
            else:
                inner = self.scalar_ix(atom[1], (*place, n), env)
                d = self.coef((*place, n, "d"), atom[2])
                v = f.div(inner, d) if atom[0] == "//" else f.rem(inner, d)
            total = f.add(total, f.mul(v, self.coef((*place, n), c)))
        return total

    def varies(self, ix: Ix, env: Env) -> bool:
        """Whether the expression differs between lanes."""
        return self.vaxis is not None and (self.vaxis in index.variables(ix) or any(not env[d].uniform for d in index.data(ix)))

    def vector_ix(self, ix: Ix, place: tuple[object, ...], env: Env, u: int) -> str:
        """An expression as a vector of i64, one per lane of unrolled vector ``u``."""
        f, ln = self.f, self.lanes
        assert ln is not None
        t = vec(ln.width, "i64")
        total = f.splat(t, "0" if ix.const == 0 else self.coef((*place, "c"), ix.const))
        for n, (atom, c) in enumerate(ix.terms):
            if atom == self.vaxis:
                v = f.op("add", t, f.splat(t, ln.starts[u]), f.ramp(t))
            elif isinstance(atom, int):
                v = f.splat(t, self.dims[atom])
            elif atom[0] == "data":
                val = env[atom[1]]
                v = f.splat(t, val.regs[0]) if val.uniform else val.regs[u]
            elif self.is_pattern(atom):
                kind, _, part = atom
                steps = [lane // part if kind == "//" else lane % part for lane in range(ln.width)]
                v = "<" + ", ".join(f"i64 {x}" for x in steps) + ">"
                if kind == "//":
                    v = f.op("add", t, f.splat(t, f.div(ln.starts[u], str(part))), v)
            else:
                inner = self.vector_ix(atom[1], (*place, n), env, u)
                d = f.splat(t, self.coef((*place, n, "d"), atom[2]))
                v = f.op("udiv" if atom[0] == "//" else "urem", t, inner, d)
            total = f.op("add", t, total, f.op("mul", t, v, f.splat(t, self.coef((*place, n), c))) if c != 1 else v)
        return total

    def is_pattern(self, atom: Any) -> bool:
        """Whether an atom is the vector axis divided by (or modulo) a small power of two: lanes then form a fixed pattern."""
        return (not isinstance(atom, int) and atom[0] in ("//", "%") and self.width % atom[2] == 0 and atom[2] <= 8
                and atom[1] == Ix(0, ((self.vaxis, 1),)))

    def condition(self, guards: Sequence[Guard], place: tuple[object, ...], env: Env) -> Val | None:
        """All guards together as i1, or None when there are none."""
        f = self.f
        if not guards:
            return None
        vector = any(self.varies(g.ix, env) for g in guards)
        out = []
        for u in range(len(self.lanes.starts) if vector and self.lanes else 1):
            w = self.width if vector else 1
            t, b = vec(w, "i64"), vec(w, "i1")
            total = ""
            for n, g in enumerate(guards):
                here = (*place, "g", n)
                v = self.vector_ix(g.ix, here, env, u) if vector else self.scalar_ix(g.ix, here, env)
                lo, hi = f.splat(t, self.coef((*here, "lo"), g.lo)), f.splat(t, self.coef((*here, "hi"), g.hi))
                c = f.op("and", b, f.cmp("sge", t, v, lo), f.cmp("slt", t, v, hi))
                total = f.op("and", b, total, c) if total else c
            out.append(total)
        return Val(out, vec(self.width, "i1") if vector else "i1")

    def spread(self, a: Val) -> Val:
        """A uniform value as a vector."""
        if not a.uniform:
            return a
        t = vec(self.width, a.ty)
        return Val([self.f.splat(t, a.regs[0])], t)

    # --------------------------------------------------------------------------------------------------------- loads
    def load(self, i: int, a: Access, env: Env) -> Val:
        """Read a buffer: a scalar, a contiguous vector or a gather, under guards and the lane mask."""
        f = self.f
        dt = self.k.buffers[a.buffer].dtype
        base = self.pointers[a.buffer]
        mem, reg = opcodes.memory_type(dt), opcodes.register_type(dt)
        cond = self.condition(a.guards, (i,), env)
        vector = self.varies(a.ix, env)
        if not vector and (cond is None or cond.uniform):
            at = self.scalar_ix(a.ix, (i,), env)
            if cond is not None:
                at = f.select("i64", cond.regs[0], at, "0")
            return Val([opcodes.load_convert(f, dt, reg, f.load(mem, f.at(mem, base, at)))], reg)
        assert self.lanes is not None and self.vaxis is not None
        t, w = vec(self.width, reg), self.width
        whole = self.load_pattern(i, a, env) if cond is None and w > 1 else None
        if whole is not None:
            return Val([opcodes.load_convert(f, dt, t, x) for x in whole], t)
        stride = index.coefficient(a.ix, self.vaxis) if all(env[d].uniform for d in index.data(a.ix)) else None
        near = stride is not None and abs(stride) * w < 1 << 31  # offsets within a vector fit 32 bits: faster gathers
        start = self.scalar_ix(a.ix, (i,), env, self.vaxis) if near else ""
        offsets = ""
        if near and stride != 1:
            t32 = vec(w, "i32")
            step = self.coef((i, "step"), stride or 0)
            offsets = f.op("mul", t32, f.ramp(t32), f.splat(t32, f.cast("trunc", "i64", step, "i32")))
        out = []
        for u, first in enumerate(self.lanes.starts):
            mask = self.masked(cond, u)
            if stride == 1:
                x = f.load(vec(w, mem), f.at(mem, base, f.add(start, first)), mask)
            elif near:
                x = f.gather(vec(w, mem), f.at(mem, base, f.add(start, f.mul(first, step))), offsets, mask, "i32")
            else:
                x = f.gather(vec(w, mem), base, self.vector_ix(a.ix, (i,), env, u), mask)
            out.append(opcodes.load_convert(f, dt, t, x))
        return Val(out, t)

    def load_pattern(self, i: int, a: Access, env: Env) -> list[str] | None:
        """Loads with lanes in a fixed pattern, as whole vectors and a shuffle: backwards, every second element, or each
        element repeated.

        None where the access is something else.
        """
        f, w, ln = self.f, self.width, self.lanes
        assert ln is not None
        mem = opcodes.memory_type(self.k.buffers[a.buffer].dtype)
        base, ty = self.pointers[a.buffer], vec(w, mem)
        mine = [(atom, c) for atom, c in a.ix.terms if self.varies(Ix(0, ((atom, c),)), env)]
        if len(mine) != 1:
            return None
        (atom, c), out = mine[0], []
        if atom == self.vaxis and c == 2:
            start = self.scalar_ix(a.ix, (i,), env, atom)
            need = f.sub(f.mul(ln.count, "2"), "1") if ln.mask is not None else str(2 * w - 1)
            masks = [f.lane_mask(w, need) if ln.mask is not None else None, f.lane_mask(w, f.max(f.sub(need, str(w)), "0"))]
            picks = ", ".join(f"i32 {2 * x}" for x in range(w))
            for first in ln.starts:
                at = f.add(start, f.mul(first, "2"))
                low = f.load(ty, f.at(mem, base, at), masks[0])
                high = f.load(ty, f.at(mem, base, f.add(at, str(w))), masks[1])
                out.append(f.let(f"shufflevector {ty} {low}, {ty} {high}, <{w} x i32> <{picks}>"))
            return out
        if atom == self.vaxis and c == -1:
            start = f.sub(self.scalar_ix(a.ix, (i,), env, atom), str(w - 1))
            t = vec(w, "i64")
            mask = None
            if ln.mask is not None:
                mask = f.cmp("uge", t, f.ramp(t), f.splat(t, f.max(f.sub(str(w), ln.count), "0")))
            picks = ", ".join(f"i32 {w - 1 - x}" for x in range(w))
            for first in ln.starts:
                x = f.load(ty, f.at(mem, base, f.sub(start, first)), mask)
                out.append(f.let(f"shufflevector {ty} {x}, {ty} poison, <{w} x i32> <{picks}>"))
            return out
        if c == 1 and self.is_pattern(atom) and atom[0] == "//" and w // atom[2] > 1:
            start, part = self.scalar_ix(a.ix, (i,), env, atom), atom[2]
            few = vec(w // part, mem)
            picks = ", ".join(f"i32 {x // part}" for x in range(w))
            for first in ln.starts:
                mask = f.lane_mask(w // part, f.ceil_div(ln.count, part)) if ln.mask is not None else None
                x = f.load(few, f.at(mem, base, f.add(start, f.div(first, str(part)))), mask)
                out.append(f.let(f"shufflevector {few} {x}, {few} poison, <{w} x i32> <{picks}>"))
            return out
        return None

    def tile_load(self, i: int, a: Access, env: Env) -> list[str]:
        """The values of a transposed load, one vector along the vector axis for each step along the second axis."""
        f, w = self.f, self.width
        assert self.lanes is not None and self.vaxis is not None
        dt = self.k.buffers[a.buffer].dtype
        mem, base = opcodes.memory_type(dt), self.pointers[a.buffer]
        start = self.scalar_ix(a.ix, (i,), env, self.vaxis)
        stride = self.coef((i, "step"), index.coefficient(a.ix, self.vaxis) or 0)
        rows = []
        for j in range(w):
            row = f.add(self.lanes.starts[0], str(j))
            if self.lanes.mask is not None:  # beyond the edge: any row inside will do
                row = f.min(row, f.sub(self.extents[self.vaxis], "1"))
            rows.append(f.load(vec(w, mem), f.at(mem, base, f.add(start, f.mul(row, stride)))))
        reg = vec(w, opcodes.register_type(dt))
        return [opcodes.load_convert(f, dt, reg, x) for x in f.transpose(vec(w, mem), rows)]

    def masked(self, cond: Val | None, u: int) -> str | None:
        """Lane mask and guard together for unrolled vector ``u``."""
        assert self.lanes is not None
        if cond is None:
            return self.lanes.mask
        c = self.spread(cond).regs
        c0 = c[u % len(c)]
        return c0 if self.lanes.mask is None else self.f.op("and", vec(self.width, "i1"), c0, self.lanes.mask)

    # ------------------------------------------------------------------------------------------------ stores, scratch
    def store(self, n: int, env: Env) -> None:
        """Write a value at its place."""
        f = self.f
        st = self.k.stores[n]
        a, val = st.access, env[st.value]
        dt = self.k.buffers[a.buffer].dtype
        base, mem = self.pointers[a.buffer], opcodes.memory_type(dt)
        place = ("s", n)
        if not self.varies(a.ix, env):
            x = opcodes.store_convert(f, dt, val.ty, val.regs[0])
            f.store(mem, x, f.at(mem, base, self.scalar_ix(a.ix, place, env)))
            return
        assert self.lanes is not None and self.vaxis is not None
        val = self.spread(val)
        w = self.width
        contiguous = index.coefficient(a.ix, self.vaxis) == 1
        out = [opcodes.store_convert(f, dt, val.ty, val.regs[u % len(val.regs)]) for u in range(len(self.lanes.starts))]
        if not contiguous:
            for u, x in enumerate(out):
                f.scatter(vec(w, mem), x, base, self.vector_ix(a.ix, place, env, u), self.lanes.mask)
            return
        start = self.scalar_ix(a.ix, place, env, self.vaxis)
        at = [f.at(mem, base, f.add(start, first)) for first in self.lanes.starts]
        streams = self.streams(n, vec(w, mem), at[0])
        if streams is not None:
            with f.when(streams):
                for x, p in zip(out, at):
                    f.store(vec(w, mem), x, p, meta=", !nontemporal !{i32 1}", align=w * byte_size(mem))
            with f.when(f.op("xor", "i1", streams, "true")):
                for x, p in zip(out, at):
                    f.store(vec(w, mem), x, p)
            return
        for x, p in zip(out, at):
            f.store(vec(w, mem), x, p, self.lanes.mask)

    def streams(self, n: int, ty: str, address: str) -> str | None:
        """Whether a store goes past the caches: results larger than they are, in whole aligned vectors (i1; None: never)."""
        assert self.lanes is not None
        size = lanes(ty) * byte_size(ty)
        if self.lanes.mask is not None or size < 16 or size & size - 1:
            return None
        f, b = self.f, self.k.buffers[self.k.stores[n].access.buffer]
        large = self.flag(("stream", n), b.size * b.dtype.itemsize >= STREAM * memory.last_level_cache())
        self.streaming = True
        low = f.op("and", "i64", f.let(f"ptrtoint ptr {address} to i64"), str(size - 1))
        return f.op("and", "i1", f.cmp("eq", "i64", low, "0"), f.cmp("ne", "i64", large, "0"))

    def scratch_at(self, i: int, u: int) -> str:
        """Address of unrolled vector ``u`` of a kept value in this thread's scratch rows (8 bytes an element)."""
        f, k = self.f, self.k
        assert self.lanes is not None
        pos = "0"
        for d in range(k.kept, len(k.extents)):
            pos = f.add(f.mul(pos, self.extents[d]), self.lanes.starts[u] if d == self.vaxis else self.dims[d])
        row = f.add(f.mul(self.scratch_length, str(self.spill[i])), pos)
        return f.at("i64", self.scratch_base, row) if lanes(self.k_type(i)) == 1 else f.let(
            f"getelementptr i8, ptr {self.scratch_base}, i64 {f.mul(row, '8')}")

    def k_type(self, i: int) -> str:
        return vec(self.width, opcodes.register_type(self.k.stmts[i].dtype))

    def scratch_store(self, i: int, v: Val) -> None:
        assert self.lanes is not None
        v = self.spread(v)
        for u in range(len(self.lanes.starts)):
            self.f.store(v.ty, v.regs[u % len(v.regs)], self.scratch_at(i, u), self.lanes.mask)

    def scratch_load(self, i: int) -> Val:
        assert self.lanes is not None
        t = self.k_type(i)
        return Val([self.f.load(t, self.scratch_at(i, u), self.lanes.mask) for u in range(len(self.lanes.starts))], t)
