"""A plan of the native back end: kernels in waves, run by one native call, with library calls in between.

Steps of the schedule are put into *waves*: steps of one wave do not depend on each other, and the thread pool walks from
wave to wave with a barrier in between, without coming back to Python. A step that needs Python (a NumPy library
call) ends the native stretch before it.

Every kernel has an argument block of 64-bit words in one array. Addresses that never change (arena, scalars) are written
once; addresses of inputs and results change with every call and are patched by the first job of each stretch, which
reads them out of the NumPy array objects themselves, so that Python hands over one list of ids and nothing else.
"""
from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ... import config
from ...dtypes import dtype
from ...errors import OutOfMemoryError
from ...ir.interpret import compile_numpy
from ...ir.node import Graph, Node
from ...ir.optable import Prim
from ...ir.recorder import SCALAR, scalar_buffer
from ...runtime import jit, memory, pool, threads
from .. import memory as memory_plan
from ..fuse import Schedule, schedule
from ..loop_ir import Kernel, stage_of, to_text
from .kernel import print_kernel
from .llvm import Function, module

PARALLEL_WORK = 1 << 15  # points below which waking threads costs more than it saves
_OBJECT_DATA = object.__basicsize__  # where a NumPy array object keeps its data pointer
_FORMATS = {"bool": "?7x", "uint8": "B7x", "int8": "b7x", "int16": "h6x", "int32": "i4x", "int64": "q", "uint32": "I4x",
            "float32": "f4x", "float64": "d"}


@dataclass
class Job:
    """One native call: symbol, text, and the words of its argument block by kind."""

    symbol: str
    text: str
    pointers: list[Any]  # slot, or "err" / "scratch"
    numbers: tuple[int, ...]
    reads: set[int]
    writes: set[int]
    scratch: int
    work: int
    checks: bool = False
    kernel: Kernel | None = None

    @property
    def label(self) -> str:
        """Readable form."""
        return self.symbol if self.kernel is None else to_text(self.kernel)


@dataclass
class Call:
    """One library call through Python: ``fn(*arrays) -> arrays``."""

    node: Node
    fn: Callable[..., Any]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    label: str = ""


@dataclass
class Stretch:
    """Consecutive waves of native jobs."""

    waves: list[list[Job]]
    program: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    patches: list[tuple[int, int]] = field(default_factory=list)  # (object number, word)
    address: int = 0
    keep: Any = None  # arrays the program points into


class Unsupported(Exception):
    """The native back end can't run this graph."""


def overwritable(k: Kernel) -> list[tuple[int, int]]:
    """(written slot, read slot) pairs of a kernel where every read of the second is at the index of the store."""
    last = max(stage_of(k.stmts), default=0)
    stages = stage_of(k.stmts)
    out = []
    for st in k.stores:
        if stages[st.value] != last or st.access.guards:
            continue
        for b in k.reads:
            loads = [s.attr for s in k.stmts if s.op == "load" and s.attr.buffer == b]
            if all(a.ix == st.access.ix and not a.guards for a in loads):
                out.append((k.buffers[st.access.buffer].slot, k.buffers[b].slot))
    return out


def _patch_text() -> str:
    """Job that copies data pointers of array objects into argument words: args = (ids, table, count)."""
    f = Function("gc_patch")
    ids, table, n = f.arg(0, "ptr"), f.arg(1, "ptr"), f.arg(2)

    def one(i: str) -> None:
        src = f.load("i64", f.at("i64", table, f.mul(i, "2")))
        word = f.load("ptr", f.at("ptr", table, f.add(f.mul(i, "2"), "1")))
        obj = f.load("ptr", f.at("ptr", ids, src))
        data = f.load("i64", f.let(f"getelementptr i8, ptr {obj}, i64 {_OBJECT_DATA}"))
        f.store("i64", data, word)

    f.loop("0", n, one)
    return module([f])


class Program:
    """A prepared native plan. Call with the region's bindings; returns the output buffers."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.schedule: Schedule = schedule(graph)
        self.producer = graph.producer()
        self.avals = graph.slot_avals()
        self.inputs = graph.inputs
        self.steps: list[Job | Call] = [self.step(s) for s in self.schedule.steps]
        self.outputs = graph.outputs
        self.fallback: Callable[[list[Any]], list[Any]] | None = None
        self.place_scalars()
        self.assign_waves()
        self.find_donors()
        self.place_intermediates()
        self.compile()
        self.link()

    # ---------------------------------------------------------------------------------------------------- preparation
    def step(self, s: Kernel | Node) -> Job | Call:
        """A kernel as a native job; a library node as a native job where there is one, else as a NumPy call."""
        if isinstance(s, Kernel):
            p = print_kernel(s, jit.vector_bits())
            slots: list[Any] = [b.slot for b in s.buffers]
            return Job(p.symbol, p.text, [*slots, "err", "scratch"], p.numbers, {s.buffers[b].slot for b in s.reads},
                       {s.buffers[b].slot for b in s.writes}, p.scratch, p.work * max(1, len(s.stmts) // 4), p.checks, s)
        assert isinstance(s.op, Prim)
        op, attrs = s.op, s.attrs
        return Call(s, lambda *arrays: op.eval_np(attrs, *arrays), s.ins, tuple(range(s.slot, s.end)), op.name)

    def base_of(self, slot: int) -> int:
        """The slot in memory a movement view reads."""
        while slot in self.schedule.views:
            slot = self.producer[slot].ins[0]
        return slot

    def place_scalars(self) -> None:
        """One 8-byte cell per run-time scalar."""
        self.scalar_words: dict[int, int] = {}
        formats, self.scalar_at, self.array_at = ["<"], [], []
        self.scalar_dtypes: list[dtype] = []
        self.plain_scalars = True
        for k, node in enumerate(self.inputs):
            if node.op is SCALAR:
                dt = node.avals[0].dtype
                self.scalar_words[node.slot] = len(self.scalar_at)
                self.scalar_at.append(k)
                self.scalar_dtypes.append(dt)
                self.plain_scalars &= dt.name in _FORMATS
                formats.append(_FORMATS.get(dt.name, "q"))
            else:
                self.array_at.append(k)
        self.pack_scalars = struct.Struct("".join(formats))
        self.scalar_cells = np.zeros(max(1, len(self.scalar_at)) + 8, np.int64)

    def assign_waves(self) -> None:
        """Greedy: a step joins the last wave unless it depends on it; a library call is a wave of its own."""
        self.wave_of: dict[int, int] = {}  # slot -> wave that writes it
        self.waves: list[list[Job | Call]] = []
        for s in self.steps:
            reads = {self.base_of(x) for x in s.reads}
            need = max([self.wave_of.get(x, -1) for x in reads], default=-1) + 1
            last = len(self.waves) - 1
            if isinstance(s, Call) or last < need or isinstance(self.waves[last][0], Call):
                self.waves.append([s])
            else:
                self.waves[last].append(s)
            for x in s.writes:
                self.wave_of[x] = len(self.waves) - 1

    def find_donors(self) -> None:
        """Results that may overwrite an input nobody else holds: DESIGN's rule, by waves.

        The kernel writing the result reads the input at the identical index, every other reader of the input runs in an
        earlier wave, and nothing that can fail (an index check, a library call) runs in that wave or later, so that a
        failed plan has never touched the user's tensors.
        """
        readers: dict[int, list[tuple[int, int]]] = {}
        safe = 0
        for w, wave in enumerate(self.waves):
            for s in wave:
                for x in s.reads:
                    readers.setdefault(self.base_of(x), []).append((w, id(s)))
                if isinstance(s, Call) or s.checks:
                    safe = w + 1
        leaves = {n.slot: k for k, n in enumerate(self.inputs) if n.op is not SCALAR}
        outputs = set(self.outputs)
        self.donor_of: dict[int, int] = {}  # result slot -> binding number
        taken: set[int] = set()
        self.first_donation = len(self.waves)
        for w in range(safe, len(self.waves)):
            for s in self.waves[w]:
                if not isinstance(s, Job) or s.kernel is None:
                    continue
                for out, slot in overwritable(s.kernel):
                    if (out in outputs and slot in leaves and slot not in outputs and slot not in taken
                            and out not in self.donor_of and self.avals[out] is self.avals[slot]
                            and all(v < w or j == id(s) for v, j in readers[slot])):
                        self.donor_of[out] = leaves[slot]
                        taken.add(slot)
                        self.first_donation = min(self.first_donation, w)
        self.donors = tuple(self.donor_of.values())

    def place_intermediates(self) -> None:
        """Memory plan of everything that is neither input nor result nor made by a library call."""
        last: dict[int, int] = {}
        for w, wave in enumerate(self.waves):
            for s in wave:
                for x in s.reads:
                    last[self.base_of(x)] = w
        by_call = {x for s in self.steps if isinstance(s, Call) for x in s.writes}
        self.by_call = by_call
        outputs = set(self.outputs)
        self.lives = [memory_plan.Life(x, self.avals[x].nbytes, w, last.get(x, w)) for x, w in self.wave_of.items()
                      if x not in outputs and x not in by_call]
        self.offsets, self.arena_bytes = memory_plan.plan(self.lives)
        if config.VERIFY:
            memory_plan.check(self.lives, self.offsets)
        self.scratch_at = self.arena_bytes
        self.nthreads = threads.get_num_threads()
        scratch = 0
        for wave in self.waves:  # kernels of one wave run at the same time
            scratch = max(scratch, sum(s.scratch * self.nthreads for s in wave if isinstance(s, Job)))
        self.arena_bytes += scratch

    def compile(self) -> None:
        """Machine code of all jobs."""
        texts = {s.symbol: s.text for s in self.steps if isinstance(s, Job)}
        texts["gc_patch"] = _patch_text()
        self.address = jit.engine().functions(texts)

    def link(self) -> None:
        """Argument blocks and programs. Objects are numbered: array inputs, results, then library results."""
        self.object_of: dict[int, int] = {}
        for n, k in enumerate(self.array_at):
            self.object_of[self.inputs[k].slot] = n
        self.fresh: list[tuple[int, tuple[int, ...], np.dtype]] = []  # results: (donor's binding or -1, shape, dtype)
        n = len(self.array_at)
        for x in dict.fromkeys(self.outputs):
            if x in self.wave_of and x not in self.by_call:
                self.object_of[x] = n
                self.fresh.append((self.donor_of.get(x, -1), self.avals[x].shape, self.avals[x].dtype.np))
                n += 1
        for x in sorted(self.by_call):
            self.object_of[x] = n
            n += 1
        self.n_objects = n
        self.ids = np.zeros(max(1, n), np.int64)
        self.err = np.zeros(2, np.int64)
        self.checks = any(s.checks for s in self.steps if isinstance(s, Job))
        self.stretches: list[Stretch | Call] = []
        jobs: list[tuple[Job, int, int]] = []  # (job, first word, scratch offset)
        words = 0
        for w, wave in enumerate(self.waves):
            if isinstance(wave[0], Call):
                self.stretches.append(wave[0])
                continue
            if not self.stretches or isinstance(self.stretches[-1], Call) or (self.checks and w == self.first_donation):
                self.stretches.append(Stretch([]))
            stretch = self.stretches[-1]
            assert isinstance(stretch, Stretch)
            stretch.waves.append([s for s in wave if isinstance(s, Job)])
            scratch = self.scratch_at
            for s in stretch.waves[-1]:
                jobs.append((s, words, scratch))
                words += len(s.pointers) + len(s.numbers)
                scratch += s.scratch * self.nthreads
        self.args = np.zeros(max(1, words), np.int64)
        self.arena_words: list[tuple[int, int]] = []
        block: dict[int, int] = {}
        for s, at, scratch in jobs:
            block[id(s)] = at
            self.fill_block(s, at, scratch)
        self.base = -1
        for st in self.stretches:
            if isinstance(st, Stretch):
                self.assemble(st, block)
        self.arena_word_array = np.array([w for w, _ in self.arena_words], np.int64)
        self.arena_offset_array = np.array([o for _, o in self.arena_words], np.int64)

    def fill_block(self, s: Job, at: int, scratch: int) -> None:
        """Fixed words of a job's argument block."""
        for k, p in enumerate(s.pointers):
            if p == "err":
                self.args[at + k] = self.err.ctypes.data
            elif p == "scratch":
                self.arena_words.append((at + k, scratch))
            elif p in self.scalar_words:
                self.args[at + k] = self.scalar_cells.ctypes.data + 8 * self.scalar_words[p]
            elif p in self.offsets:
                self.arena_words.append((at + k, self.offsets[p]))
        n = len(s.pointers)
        self.args[at + n:at + n + len(s.numbers)] = s.numbers

    def assemble(self, st: Stretch, block: dict[int, int]) -> None:
        """The program words of a stretch: a patch job, then the waves."""
        for wave in st.waves:
            for s in wave:
                for k, p in enumerate(s.pointers):
                    if p in self.object_of:
                        st.patches.append((self.object_of[p], block[id(s)] + k))
        base = self.args.ctypes.data
        table = np.array([(obj, base + 8 * word) for obj, word in st.patches], np.int64).reshape(-1)
        patch_args = np.array([self.ids.ctypes.data, table.ctypes.data, len(st.patches)], np.int64)
        st.keep = (table, patch_args)
        words = [len(st.waves) + 1, 1, 0, self.address["gc_patch"], patch_args.ctypes.data]
        for wave in st.waves:
            parallel = self.nthreads > 1 and sum(s.work for s in wave) >= PARALLEL_WORK
            words += [len(wave), int(parallel)]
            for s in wave:
                words += [self.address[s.symbol], base + 8 * block[id(s)]]
        st.program = np.array(words, np.int64)
        st.address = st.program.ctypes.data

    # ------------------------------------------------------------------------------------------------------- execution
    def __call__(self, bindings: list[Any], free: Collection[int] = ()) -> list[Any]:
        """``free`` are the binding numbers (of :attr:`donors`) that nobody else holds: they may be overwritten."""
        with memory.plan_lock():
            return self.run(bindings, free)

    def run(self, bindings: list[Any], free: Collection[int]) -> list[Any]:
        """Bind, execute, hand out the results."""
        if self.nthreads != threads.get_num_threads():
            self.place_intermediates()
            self.link()
        if self.arena_bytes:
            self.rebase()
        if self.scalar_at:
            self.write_scalars(bindings)
        objects: list[Any] = [bindings[k].buffer for k in self.array_at]
        for a in objects:
            if not a.flags.c_contiguous:
                objects = [np.ascontiguousarray(a) for a in objects]
                break
        for donor, shape, dt in self.fresh:
            objects.append(bindings[donor].buffer if donor in free else memory.empty(shape, dt))
        objects += [None] * (self.n_objects - len(objects))
        for st in self.stretches:
            if isinstance(st, Stretch):
                self.ids[:self.n_objects] = [id(o) for o in objects]
                pool.run(st.address)
                if self.checks and self.err[0]:
                    return self.failed(bindings)
            else:
                self.call(st, objects, bindings)
        return self.results(objects, bindings)

    def rebase(self) -> None:
        """Point the argument blocks at the arena, if it moved."""
        try:
            base = memory.arena(self.arena_bytes)
        except OutOfMemoryError as error:
            big = sorted(self.lives, key=lambda x: -x.nbytes)[:3]
            sizes = ", ".join(f"{self.avals[x.slot]} ({x.nbytes / 2**20:,.1f} MiB)" for x in big)
            raise OutOfMemoryError(f"{error}; intermediates of this plan need {self.arena_bytes / 2**20:,.1f} MiB at once, "
                                   f"the largest are {sizes}") from None
        if base != self.base:
            self.args[self.arena_word_array] = self.arena_offset_array + base
            self.base = base

    def write_scalars(self, bindings: list[Any]) -> None:
        numbers = [bindings[k] for k in self.scalar_at]
        if self.plain_scalars:
            try:
                self.pack_scalars.pack_into(self.scalar_cells, 0, *numbers)
                return
            except (struct.error, OverflowError, TypeError):
                pass  # a float for an integer slot, a value out of range: the slow, exact way
        cells = self.scalar_cells.view(np.uint8)
        for n, (x, dt) in enumerate(zip(numbers, self.scalar_dtypes)):
            raw = np.frombuffer(scalar_buffer(x, dt).tobytes(), np.uint8)
            cells[8 * n:8 * n + len(raw)] = raw

    def array(self, slot: int, objects: list[Any], bindings: list[Any]) -> np.ndarray:
        """A slot's value as an array, for a library call."""
        if slot in self.schedule.views:
            node = self.producer[slot]
            assert isinstance(node.op, Prim)
            return node.op.eval_np(node.attrs, *[self.array(s, objects, bindings) for s in node.ins])
        if slot in self.object_of:
            return objects[self.object_of[slot]]
        av = self.avals[slot]
        if slot in self.scalar_words:
            return scalar_buffer(bindings[self.scalar_at[self.scalar_words[slot]]], av.dtype)
        return memory.arena_view(self.offsets[slot], av.shape, av.dtype.np)

    def call(self, c: Call, objects: list[Any], bindings: list[Any]) -> None:
        """A library call; its errors name the user's line."""
        from ...ir.recorder import with_location

        try:
            with np.errstate(all="ignore"):
                out = c.fn(*[self.array(s, objects, bindings) for s in c.reads])
        except Exception as error:
            raise with_location(error, c.node) from None
        outs = out if isinstance(out, tuple) else (out,)
        for x, o in zip(c.writes, outs):
            a = np.ascontiguousarray(o, self.avals[x].dtype.np).reshape(self.avals[x].shape)
            if a.base is not None or any(a is b for b in objects):
                a = a.copy()
            objects[self.object_of[x]] = a

    def results(self, objects: list[Any], bindings: list[Any]) -> list[Any]:
        """Output buffers; each belongs to one value alone."""
        out: list[Any] = []
        seen: set[int] = set()
        for x in self.outputs:
            a = self.array(x, objects, bindings)
            if x in seen or x not in self.wave_of:
                a = a.copy()
            seen.add(x)
            out.append(a)
        return out

    def failed(self, bindings: list[Any]) -> list[Any]:
        """A kernel met an index out of range: the interpreter raises the user's error."""
        self.err[:] = 0
        if self.fallback is None:
            self.fallback = compile_numpy(self.graph)
        return self.fallback(bindings)

    # ------------------------------------------------------------------------------------------------------ inspection
    def kernels(self) -> list[str]:
        """What runs: one entry per kernel or library call; jobs of one wave with the same code count once."""
        out = []
        for wave in self.waves:
            seen = set()
            for s in wave:
                if isinstance(s, Call):
                    out.append(s.label)
                elif s.symbol not in seen:
                    seen.add(s.symbol)
                    out.append(s.symbol.rsplit("_", 1)[0])
        return out

    def to_text(self) -> str:
        """The plan as text: waves, kernels, memory."""
        lines = [f"# {len(self.kernels())} kernels, {self.arena_bytes:,} bytes of intermediates"]
        for w, wave in enumerate(self.waves):
            for s in wave:
                lines.append(f"wave {w}: {s.label}")
        return "\n".join(lines)
