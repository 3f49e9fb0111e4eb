"""Print a loop-IR kernel as LLVM IR.

Layout of the work. One axis is the *vector axis*: the one along which most accesses are contiguous. If it is a kept
axis, every lane is a row of its own (column mode: pointwise kernels, sums over leading axes); if it is a reduced axis,
lanes walk one row and are combined at its end (row mode: softmax, norms). The kept axes outside the vector axis,
flattened, times blocks of a kept vector axis, are the tasks that threads share. Where an access is contiguous along
another kept axis instead (a transposition), that axis is the innermost loop around single vectors, and square tiles are
loaded along it and transposed in registers, so that every cache line is read once.

A row is a sequence of sweeps over the reduced axes, one per stage of the kernel; before a sweep come the per-row
statements it needs. Statements are placed in the outermost loop that binds all axes they depend on. The vector axis runs
in steps of ``unroll`` vectors, then single vectors with a lane mask for the rest. Expensive values that a later sweep
needs again are kept in a per-thread scratch row instead of being computed twice.

Every extent, stride, bound and divisor is a run-time word of the argument block, except strides -1 .. 4, so the text (and
the compiled code) is the same for every batch size. Argument block: one pointer per buffer, the error block, the
scratch area, then these numbers.
"""
from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from ...runtime import memory
from ..loop_ir import Buf, Kernel, Stmt
from . import opcodes, vmath
from .kernel_layout import Env, Lanes, Val, choose_vector_axis
from .kernel_reductions import Reductions
from .kernel_statements import philox
from .llvm import module, vec

TASK = 8192  # points of a task of a pointwise kernel
RUN = 256  # steps along the second axis of a transposition in one task


@dataclass(frozen=True)
class Printed:
    """Source of a kernel and what its launch needs."""

    symbol: str
    text: str
    numbers: tuple[int, ...]  # words after the pointers
    scratch: int  # bytes per thread
    checks: bool  # may report an index error
    work: int  # points, for deciding whether threads are worth waking
    leading: int = 0  # kept axes that are outermost in the order of tasks
    streams: tuple[tuple[int, int], ...] = ()  # see Job


class Printer(Reductions):
    """The loops around the statements."""

    def vector_loop(self, lo: str, hi: str, body: Callable[[Sequence[str]], Sequence[str]],
                    carried: Sequence[tuple[str, str]]) -> list[str]:
        """Run ``body`` over lo .. hi along the vector axis: unrolled whole vectors, then single masked vectors.

        ``carried`` are per-vector accumulators (type, initial value): each unrolled vector has its own set; the sets are
        returned one after the other (set 0 continues through the masked part).
        """
        f, w, n = self.f, self.width, len(carried)
        outer = self.lanes
        if w == 1:
            def single(i: str, *acc: str) -> Sequence[str]:
                self.lanes = Lanes([i], 1, None)
                return body(acc)

            out = f.loop(lo, hi, single, carried)
            self.lanes = outer
            return out
        step = w * self.unroll
        span = f.max(f.sub(hi, lo), "0")
        end = f.add(lo, f.mul(f.div(span, str(step)), str(step)))

        def whole(i: str, *acc: str) -> Sequence[str]:
            self.lanes = Lanes([f.add(i, str(u * w)) for u in range(self.unroll)], w, None)
            return body(acc)

        sets = f.loop(lo, end, whole, [c for _ in range(self.unroll) for c in carried], step)

        def rest(i: str, *acc: str) -> Sequence[str]:
            left = f.sub(hi, i)
            self.lanes = Lanes([i], w, f.lane_mask(w, left), left)
            return body(acc)

        tail = f.loop(end, hi, rest, [(carried[j][0], sets[j]) for j in range(n)], w)
        self.lanes = outer
        return [*tail, *sets[n:]]

    def find_scratch(self) -> None:
        """This thread's scratch rows."""
        f = self.f
        base = f.arg(len(self.k.buffers) + 1, "ptr")
        self.scratch_length = self.number(scratch_elements(self.k), fixed=False)
        size = f.mul(f.mul(self.scratch_length, str(len(self.spill))), "8")
        self.scratch_base = f.let(f"getelementptr i8, ptr {base}, i64 {f.mul(size, '%tid')}")

    def build(self) -> None:
        """The whole function body: tasks, numbered over the kept axes, blocks of the vector axis and runs of the second."""
        f, k = self.f, self.k
        if self.spill:
            self.find_scratch()
        outer = [d for d in range(k.kept) if d != self.vaxis]
        tasks = "1"
        for d in outer:
            tasks = f.mul(tasks, self.extents[d])
        column = self.vaxis is not None and not self.row_mode
        if column:
            assert self.vaxis is not None
            step = self.width * self.unroll if self.has_reductions or self.across is not None else TASK
            blocks = f.ceil_div(self.extents[self.vaxis], step)
            tasks = f.mul(tasks, blocks)
        if self.across is not None:
            outer.remove(self.across)
            runs = f.ceil_div(self.extents[self.across], RUN)
            tasks = f.mul(f.div(tasks, self.extents[self.across]), runs)
        lo, hi = f.share(tasks)

        def task(t: str) -> None:
            env: Env = {}
            self.dims = {}
            block = run = "0"
            rest = t
            if column:
                block, rest = f.rem(rest, blocks), f.div(rest, blocks)
            if self.across is not None:
                run, rest = f.rem(rest, runs), f.div(rest, runs)
            for d in reversed(outer):
                first = d == outer[0]
                self.dims[d] = rest if first else f.rem(rest, self.extents[d])
                rest = rest if first else f.div(rest, self.extents[d])
            self.place(sorted({i for n in self.all_needs() for i in n}), env, frozenset(outer), 0)
            if not column:
                self.row(env)
                return
            assert self.vaxis is not None
            start = f.mul(block, str(step))
            stop = f.min(f.add(start, str(step)), self.extents[self.vaxis])
            self.vector_loop(start, stop, lambda acc: self.rows(run, env), ())

        f.loop(lo, hi, task)
        if self.streaming:
            f.emit("fence seq_cst")  # what went past the caches is there before other threads are told so

    def rows(self, run: str, env: Env) -> Sequence[str]:
        """What one step along a kept vector axis covers: a row in each lane, or a run of them along the second axis."""
        f = self.f
        if self.across is None:
            self.row(dict(env))
            return ()
        d, first = self.across, f.mul(run, str(RUN))

        def one(i: str) -> None:
            self.dims[d] = i
            self.row(dict(env))

        last = f.min(f.add(first, str(RUN)), self.extents[d])
        whole = first
        if self.tiled:
            whole = f.sub(last, f.rem(f.sub(last, first), str(self.width)))
            f.loop(first, whole, lambda i: self.tile(i, env), step=self.width)
        f.loop(whole, last, one)
        return ()

    def tile(self, first: str, env: Env) -> None:
        """``width`` steps along the second axis at once: transposed loads, then every step's statements."""
        assert self.across is not None
        self.dims[self.across] = first
        columns = {i: self.tile_load(i, self.k.stmts[i].attr, env) for i in self.tiled}
        for u in range(self.width):
            self.dims[self.across] = self.f.add(first, str(u))
            self.row({**env, **{i: Val([regs[u]], vec(self.width, opcodes.register_type(self.k.stmts[i].dtype)))
                                for i, regs in columns.items()}})

    def row(self, env: Env) -> None:
        """All sweeps of one row (or of one block of rows in column mode), then the per-row stores."""
        kept = frozenset(range(self.k.kept))
        for s in range(self.sweeps):
            self.place(self.needs[s], env, kept, s)
            if self.reduces[s] or self.stores[s]:
                self.sweep(s, env)
        self.place(self.all_needs()[-1], env, kept, self.sweeps)
        for n in self.row_stores:
            self.store(n, env)

    def sweep(self, s: int, env: Env) -> None:
        """One pass over the reduced axes."""
        k = self.k
        axes = list(range(k.kept, len(k.extents)))
        if self.row_mode:
            axes = [d for d in axes if d != self.vaxis] + [self.vaxis]  # type: ignore[list-item]
        carried = [c for r in self.reduces[s] for c in self.start(r)]
        sets = self.unroll if self.row_mode and self.width > 1 else len(self.lanes.starts) if self.lanes else 1
        full = [c for _ in range(sets) for c in carried]
        names = self.nest(s, axes, 0, dict(env), frozenset(range(k.kept)), full)
        self.finish(s, names, len(carried), env)

    def nest(self, s: int, axes: list[int], depth: int, env: Env, bound: frozenset[int],
             acc: Sequence[tuple[str, str]]) -> list[str]:
        """The loops over ``axes[depth:]`` (few, by construction) around the sweep's body."""
        f = self.f
        if depth == len(axes):
            return self.body(s, env, bound, [v for _, v in acc])
        d = axes[depth]
        if self.row_mode and d == self.vaxis:
            if self.width == 1:
                return self.vector_loop("0", self.extents[d], lambda a: self.body(s, dict(env), bound | {d}, list(a)), acc)
            n = len(acc) // self.unroll

            def vector_body(a: Sequence[str]) -> Sequence[str]:
                return self.body(s, dict(env), bound | {d}, list(a))

            return self.vector_loop_sets("0", self.extents[d], vector_body, acc, n)

        def scalar_body(i: str, *a: str) -> Sequence[str]:
            self.dims[d] = i
            here = dict(env)
            self.place(self.needs[s], here, bound | {d}, s)
            return self.nest(s, axes, depth + 1, here, bound | {d}, [(t, v) for (t, _), v in zip(acc, a)])

        return f.loop("0", self.extents[d], scalar_body, acc)

    def vector_loop_sets(self, lo: str, hi: str, body: Callable[[Sequence[str]], Sequence[str]],
                         acc: Sequence[tuple[str, str]], n: int) -> list[str]:
        """:meth:`vector_loop` continuing given accumulator sets (``n`` accumulators each) of an outer loop."""
        f, w = self.f, self.width
        step = w * self.unroll
        end = f.mul(f.div(hi, str(step)), str(step))

        def whole(i: str, *a: str) -> Sequence[str]:
            self.lanes = Lanes([f.add(i, str(u * w)) for u in range(self.unroll)], w, None)
            return body(a)

        sets = f.loop(lo, end, whole, acc, step)

        def rest(i: str, *a: str) -> Sequence[str]:
            left = f.sub(hi, i)
            self.lanes = Lanes([i], w, f.lane_mask(w, left), left)
            return body(a)

        tail = f.loop(end, hi, rest, [(acc[j][0], sets[j]) for j in range(n)], w)
        self.lanes = None
        return [*tail, *sets[n:]]

    def body(self, s: int, env: Env, bound: frozenset[int], acc: list[str]) -> list[str]:
        """Innermost code of a sweep: statements, stores, one step of every reduction."""
        self.place(self.needs[s], env, bound, s)
        for n in self.stores[s]:
            self.store(n, env)
        if not self.reduces[s]:
            return acc
        return self.steps(s, env, acc)


def scratch_elements(k: Kernel) -> int:
    """Length of a scratch row: the reduced axes, and room for a vector beyond them."""
    return -(-math.prod(k.extents[k.kept:]) // 64) * 64 + 64


def print_kernel(k: Kernel, vector_bits: int) -> Printed:
    """LLVM module text of a kernel. Raises NotImplementedError for an opcode this back end lacks."""
    k, slots = anonymous(k)
    p = _printed(k, vector_bits, memory.last_level_cache())
    return replace(p, streams=named(p.streams, slots)) if p.streams else p


@lru_cache(1024)
def _printed(k: Kernel, vector_bits: int, cache: int) -> Printed:
    """The layers of a network have the same kernels, but for what they read and write. ``cache`` decides what goes past it."""
    return finished(Printer(k, vector_bits))


def anonymous(k: Kernel) -> tuple[Kernel, tuple[int, ...]]:
    """A kernel whose buffers are only numbered and that comes from nowhere, and the slots that the numbers stand for."""
    slots = tuple(dict.fromkeys([b.slot for b in k.buffers]))
    number = {slot: n for n, slot in enumerate(slots)}
    buffers = tuple([Buf(number[b.slot], b.dtype, b.size) for b in k.buffers])
    stmts = tuple([Stmt(s.op, s.args, s.dtype, s.attr) for s in k.stmts])
    return Kernel("k_" + k.name.split("_", 1)[-1], k.extents, k.kept, buffers, stmts, k.stores), slots


def named(streams: Sequence[tuple[int, int]], slots: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The streams of a kernel that was :func:`anonymous`, by slot."""
    return tuple([(slots[n], at) for n, at in streams])


def finished(p: Printer) -> Printed:
    """The module of a printer."""
    k = p.k
    p.build()
    body = module([p.f], vmath.definitions(p.f.helpers))
    digest = hashlib.sha256(body.encode()).hexdigest()[:16]
    tail = k.name.split("_", 1)[-1][:40]
    symbol = f"{tail}_{digest}"
    scratch = scratch_elements(k) * 8 * len(p.spill)
    return Printed(symbol, body.replace("@KERNEL(", f"@{symbol}("), tuple(p.numbers), scratch,
                   any(s.op == "check" for s in k.stmts), math.prod(k.extents), p.leading, p.streams_of())


__all__ = ["Printed", "Printer", "anonymous", "choose_vector_axis", "named", "philox", "print_kernel"]
