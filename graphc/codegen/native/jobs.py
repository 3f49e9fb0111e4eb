"""What a native plan is made of: jobs (one native function over one argument block), library calls, loops.

Memory is named by *keys*: a slot of the graph, or any other hashable for buffers a step needs for itself (listed in its
``own``). Pointers of a job are keys, ``"err"``, ``"scratch"``, or a :class:`Cursor` into a key.
"""
from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ...ir.node import Node
from .. import index
from ..index import Ix
from ..loop_ir import Access, Kernel, stage_of, to_text
from .llvm import Function, module

Key = Hashable
OBJECT_DATA = object.__basicsize__  # where a NumPy array object keeps its data pointer


class Cursor(NamedTuple):
    """A pointer that moves with the iterations of a loop: ``start`` + t * ``step`` bytes into the buffer of ``key``."""

    key: Key
    start: int
    step: int


class Space(NamedTuple):
    """Memory that a job touches: (key, bytes of an element, index over ``extents``). The job called as thread b of n, where n
    is a product of leading axes (of the first ``leading`` ones), does the b-th n-th of the points in C order."""

    extents: tuple[int, ...]
    leading: int
    accesses: tuple[tuple[Key, int, Ix], ...]


def kernel_space(k: Kernel, leading: int, unused: int = -1) -> Space:
    """What a loop kernel touches; buffer ``unused`` is never followed."""
    loads = [s.attr for s in k.stmts if s.op == "load" and s.attr.buffer != unused]
    return Space(k.extents, leading, tuple([(k.buffers[a.buffer].slot, k.buffers[a.buffer].dtype.itemsize, pinned(a))
                                            for a in (*loads, *[st.access for st in k.stores])]))


def pinned(a: Access) -> Ix:
    """The index of an access, axes that its guards allow only one position of replaced by that position."""
    ix = a.ix
    for g in a.guards:
        if g.hi == g.lo + 1 and len(g.ix.terms) == 1 and g.ix.terms[0][1] == 1 and isinstance(g.ix.terms[0][0], int):
            d, c = g.ix.terms[0][0], index.coefficient(ix, g.ix.terms[0][0])
            if c is not None:
                ix = Ix(ix.const + c * (g.lo - g.ix.const), tuple([t for t in ix.terms if t[0] != d]))
    return ix


@dataclass
class Job:
    """One native function and the words of its argument block: pointers, then numbers."""

    symbol: str
    text: str
    pointers: list[Any]
    numbers: tuple[int, ...]
    reads: set[Key]
    writes: set[Key]
    scratch: int = 0  # bytes per thread
    work: int = 0  # about how many points; decides whether threads are woken
    checks: bool = False  # may report an index out of range
    kernel: Kernel | None = None
    own: dict[Key, int] = field(default_factory=dict)  # buffers of its own: bytes
    epilogue: Kernel | None = None  # what a product's tiles pass through on their way to memory
    spaces: tuple[Space, ...] = ()  # how its work divides, if it can be called slice by slice
    matrices: int = 0  # how many independent products it computes
    row_tiles: int = 0  # in how many equal parts the rows of each can be cut at most; 0: they are not even
    by_rows: Callable[[int], Job] | None = None  # the job with so many parts of rows as the next axis of its work
    streams: tuple[tuple[Key, int], ...] = ()  # (buffer, number that says whether stores to it go past the caches)
    waits: frozenset[Key] = frozenset()  # what must be written before, though it is not read
    tests: tuple[Any, ...] = ()  # all that it checks: (key of the indices, size, whether they may count from the end)

    @property
    def name(self) -> str:
        """Short form."""
        return self.symbol.rsplit("_", 1)[0]

    @property
    def code(self) -> Hashable:
        """Equal for jobs that run the same code."""
        return self.symbol

    def parts(self) -> list[Job]:
        """The jobs it is made of, and itself."""
        return [self]

    @property
    def label(self) -> str:
        """Readable form."""
        if self.epilogue is not None:
            return f"{self.symbol}, its tiles through {to_text(self.epilogue)}"
        return self.symbol if self.kernel is None else to_text(self.kernel)


def parts_of(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, each after those it is made of."""
    return [part for j in jobs for part in j.parts()]


@dataclass
class Call:
    """One library call through Python: ``fn(*arrays) -> arrays``."""

    node: Node
    fn: Callable[..., Any]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    label: str = ""


@dataclass
class Loop:
    """Waves of jobs repeated ``length`` times, with jobs before and after; see loop.py."""

    waves: list[list[Job]]
    length: int
    before: list[Job]
    after: list[Job]
    reads: set[Key]
    writes: set[Key]
    own: dict[Key, int]
    label: str = "loop"

    @property
    def checks(self) -> bool:
        """May report an index out of range."""
        return any(j.checks for w in self.waves for j in w)

    def jobs(self) -> list[Job]:
        """Every job once."""
        return [*self.before, *[j for w in self.waves for j in w], *self.after]


Step = Job | Call | Loop


@dataclass
class Stretch:
    """Consecutive steps that run in one native call."""

    waves: list[list[Job | Loop]]
    program: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    patches: list[tuple[int, int]] = field(default_factory=list)  # (object number, word)
    address: int = 0
    keep: list[Any] = field(default_factory=list)  # arrays the program points into
    labels: list[str] = field(default_factory=list)  # one per wave of the program


def overwritable(k: Kernel) -> list[tuple[int, int]]:
    """(written slot, read slot) pairs of a kernel where every read of the second is at the index of the store."""
    stages = stage_of(k.stmts)
    last = max(stages, default=0)
    out = []
    for st in k.stores:
        if stages[st.value] != last or st.access.guards:
            continue
        for b in k.reads:
            loads = [s.attr for s in k.stmts if s.op == "load" and s.attr.buffer == b]
            if all(a.ix == st.access.ix and not a.guards for a in loads):
                out.append((k.buffers[st.access.buffer].slot, k.buffers[b].slot))
    return out


def checked_whole(k: Kernel) -> set[tuple[Any, int, bool]]:
    """(slot, size, whether negative ones count from the end) of index buffers a kernel checks every element of."""
    out = set()
    for s in k.stmts:
        load = k.stmts[s.args[0]] if s.op == "check" else None
        if load is None or load.op != "load" or load.attr.guards or s.attr[2]:
            continue
        buffer, terms = k.buffers[load.attr.buffer], load.attr.ix.terms
        if load.attr.ix.const or not all(isinstance(d, int) for d, _ in terms):
            continue
        span = 1
        for stride, extent in sorted((stride, k.extents[d]) for d, stride in terms):
            span = span * extent if stride == span else 0
        if span == buffer.size:
            out.add((buffer.slot, s.attr[0], s.attr[1]))
    return out


def copy_job(dst: Any, src: Any, nbytes: int) -> Job:
    """dst[:nbytes] = src[:nbytes]."""
    reads = {src.key if isinstance(src, Cursor) else src}
    writes = {dst.key if isinstance(dst, Cursor) else dst}
    return Job("gc_copy", SUPPORT["gc_copy"], [dst, src], (nbytes,), reads, writes, work=nbytes // 8)


# ------------------------------------------------------------------------------------------------- small support kernels
def _patch() -> str:
    """Copy data pointers out of array objects into argument words: args = (ids, table of (object, word), count). The first id
    becomes 0: so a program that was interrupted is known to have run."""
    f = Function("gc_patch")
    ids, table, n = f.arg(0, "ptr"), f.arg(1, "ptr"), f.arg(2)

    def one(i: str) -> None:
        src = f.load("i64", f.at("i64", table, f.mul(i, "2")))
        word = f.load("ptr", f.at("ptr", table, f.add(f.mul(i, "2"), "1")))
        obj = f.load("ptr", f.at("ptr", ids, src))
        f.store("i64", f.load("i64", f.let(f"getelementptr i8, ptr {obj}, i64 {OBJECT_DATA}")), word)

    f.loop("0", n, one)
    f.store("i64", "0", ids)
    return module([f])


def _reset() -> str:
    """Set words to other words plus an offset: args = (table of (word, source word, offset), count)."""
    f = Function("gc_reset")
    table, n = f.arg(0, "ptr"), f.arg(1)

    def one(i: str) -> None:
        at = f.mul(i, "3")
        word, src = f.load("ptr", f.at("ptr", table, at)), f.load("ptr", f.at("ptr", table, f.add(at, "1")))
        offset = f.load("i64", f.at("i64", table, f.add(at, "2")))
        f.store("i64", f.add(f.load("i64", src), offset), word)

    f.loop("0", n, one)
    return module([f])


def _bump() -> str:
    """Add to words: args = (table of (word, amount), count)."""
    f = Function("gc_bump")
    table, n = f.arg(0, "ptr"), f.arg(1)

    def one(i: str) -> None:
        word = f.load("ptr", f.at("ptr", table, f.mul(i, "2")))
        amount = f.load("i64", f.at("i64", table, f.add(f.mul(i, "2"), "1")))
        f.store("i64", f.add(f.load("i64", word), amount), word)

    f.loop("0", n, one)
    return module([f])


def _pipeline() -> str:
    """Run a list of jobs slice by slice: args = (area, template, bytes of it, bytes of a thread's area, table of (word, offset,
    step), count, table of (function, offset of its block), count, slices, how many of the jobs run once). Each thread has a
    copy of all argument blocks at the start of its area; before slice b, every ``word`` of it is set to the area's address +
    offset - b * step. The first jobs of the list run whole, in every thread, before its first slice."""
    f = Function("gc_pipeline")
    area, template, size, stride = f.arg(0, "ptr"), f.arg(1, "ptr"), f.arg(2), f.arg(3)
    moves, n_moves, calls, n_calls, slices, once = f.arg(4, "ptr"), f.arg(5), f.arg(6, "ptr"), f.arg(7), f.arg(8), f.arg(9)
    base = f.at("i8", area, f.mul(stride, "%tid"))
    start = f.let(f"ptrtoint ptr {base} to i64")
    lo, hi = f.share(slices)
    with f.when(f.cmp("slt", "i64", lo, hi)):
        f.call("llvm.memcpy.p0.p0.i64", "void", ("ptr", base), ("ptr", template), ("i64", size), ("i1", "false"))

    def one(b: str) -> None:
        def move(i: str) -> None:
            row = f.at("i64", moves, f.mul(i, "3"))
            word, offset, step = (f.load("i64", f.at("i64", row, str(k))) for k in range(3))
            f.store("i64", f.sub(f.add(start, offset), f.mul(b, step)), f.at("i64", base, word))

        def call(i: str, part: str, parts: str) -> None:
            row = f.at("i64", calls, f.mul(i, "2"))
            function, offset = f.load("ptr", row), f.load("i64", f.at("i64", row, "1"))
            f.emit(f"call void {function}(ptr {f.at('i8', base, offset)}, i64 {part}, i64 {parts})")

        f.loop("0", n_moves, move)
        first = f.select("i64", f.cmp("eq", "i64", b, lo), once, "0")
        f.loop("0", first, lambda i: call(i, "0", "1"))
        f.loop(once, n_calls, lambda i: call(i, b, slices))

    f.loop(lo, hi, one)
    return module([f])


def _copy() -> str:
    """Copy bytes, shared among threads: args = (to, from, bytes)."""
    f = Function("gc_copy")
    to, src, n = f.arg(0, "ptr"), f.arg(1, "ptr"), f.arg(2)
    lo, hi = f.share(n, 4096)
    f.call("llvm.memcpy.p0.p0.i64", "void", ("ptr", f.at("i8", to, lo)), ("ptr", f.at("i8", src, lo)),
           ("i64", f.max(f.sub(hi, lo), "0")), ("i1", "false"))
    return module([f])


SUPPORT = {"gc_patch": _patch(), "gc_reset": _reset(), "gc_bump": _bump(), "gc_copy": _copy(), "gc_pipeline": _pipeline()}
