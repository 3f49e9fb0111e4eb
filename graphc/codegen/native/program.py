"""A plan of the native back end: kernels in waves, run by one native call, with library calls in between.

Steps of the schedule are put into *waves*: steps of one wave do not depend on each other, and the thread pool walks from
wave to wave without coming back to Python. A step that needs Python (a NumPy library call) ends the native stretch
before it; a loop is a wave whose own waves repeat.

Every job has an argument block of 64-bit words in one array. Addresses that never change (arena, scalars) are written
once; addresses of inputs and results change with every call and are patched by the first job of each stretch, which
reads them out of the NumPy array objects themselves, so that Python hands over one list of ids and nothing else.
"""
from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from operator import attrgetter, itemgetter
from time import perf_counter
from typing import Any

import numpy as np

from ... import config
from ...dtypes import dtype
from ...errors import CompileError, OutOfMemoryError
from ...ir.flush import note_finished
from ...ir.interpret import compile_numpy
from ...ir.node import Graph, Value
from ...ir.picking import picker
from ...ir.quiet import quiet
from ...ir.recorder import SCALAR, scalar_buffer, with_location
from ...runtime import jit, memory, pool, threads
from .. import memory as memory_plan
from ..fuse import Schedule, schedule, total_bytes
from ..split import split_reductions
from ..verify import verify_schedule
from .jobs import SUPPORT, Call, Cursor, Job, Key, Loop, Step, Stretch, checked_whole, overwritable, parts_of
from .pipeline import Pipeline, Pipelines, bytes_inside, local_keys, words
from .printed import where
from .results import Results
from .select import Selector

_buffer, _contiguous = attrgetter("buffer"), attrgetter("flags.c_contiguous")
PARALLEL_WORK = 1 << 15  # points below which waking threads costs more than it saves
_texts: dict[str, str] = {}  # of all functions that were compiled, which stay in memory as well
_FORMATS = {"bool": "?7x", "uint8": "B7x", "int8": "b7x", "int16": "h6x", "int32": "i4x", "int64": "q", "uint32": "I4x",
            "float32": "f4x", "float64": "d"}


def run_waves(st: Stretch, times: list[tuple[str, float]]) -> None:
    """Run the waves of a stretch one by one and measure each."""
    at = 1
    for label in st.labels:
        stop = at + 2 + 2 * int(st.program[at])
        one = np.concatenate(([1], st.program[at:stop]))
        start = perf_counter()
        pool.run(one.ctypes.data)
        times.append((label, perf_counter() - start))
        at = stop


class Program:
    """A prepared native plan. Call with the region's bindings; returns the output buffers."""

    def __init__(self, graph: Graph):
        self.graph = graph = split_reductions(graph)
        self.schedule: Schedule = schedule(graph)
        if config.VERIFY:
            verify_schedule(graph, self.schedule)
        self.avals = graph.slot_avals()
        self.inputs = graph.inputs
        self.steps: list[Step] = self.pipelined(Selector(graph, self.schedule).all())
        self.outputs = graph.outputs
        self.fallback: Callable[[list[Any]], list[Any]] | None = None
        self.place_scalars()
        self.assign_waves()
        self.find_donors()
        self.place_intermediates()
        self.compile()
        self.link()

    # ---------------------------------------------------------------------------------------------------- preparation
    def base_of(self, key: Any) -> Any:
        """The key in memory that a view of a library call reads."""
        return self.schedule.views[key][0] if key in self.schedule.views else key

    def pipelined(self, steps: list[Step]) -> list[Step]:
        """The steps with those that share a batch axis run slice by slice."""
        return Pipelines(steps, self.base_of, lambda x: self.avals[x].nbytes, self.graph.outputs, threads.get_num_threads(),
                         jit.vector_bits()).all()

    def place_scalars(self) -> None:
        """One 8-byte cell per run-time scalar."""
        self.scalar_words: dict[int, int] = {}
        formats: list[str] = ["<"]
        self.scalar_at: list[int] = []
        self.array_at: list[int] = []
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
        self.pick_arrays, self.pick_scalars = picker(self.array_at), picker(self.scalar_at)
        self.pack_scalars = struct.Struct("".join(formats))
        self.scalar_cells = np.zeros(max(1, len(self.scalar_at)) + 8, np.int64)

    def assign_waves(self) -> None:
        """Greedy: a job joins the last wave unless it depends on it; calls and loops are waves of their own."""
        self.wave_of: dict[Key, int] = {}  # key -> wave that writes it last
        self.waves: list[list[Step]] = []
        for s in self.steps:
            need = max([self.wave_of.get(self.base_of(x), -1) for x in s.reads], default=-1) + 1
            need = max([need, *[self.wave_of.get(x, -1) + 1 for x in s.writes]])
            last = len(self.waves) - 1
            if not isinstance(s, Job) or last < need or not isinstance(self.waves[last][0], Job):
                self.waves.append([s])
            else:
                self.waves[last].append(s)
            for x in s.writes:
                self.wave_of[x] = len(self.waves) - 1

    def find_donors(self) -> None:
        """Results that may overwrite an input nobody else holds: DESIGN's rule, by waves.

        The only kernel writing the result reads the input at the identical index, every other reader of the input runs in an
        earlier wave, and nothing that can fail (an index check that did not pass before, a library call) runs in that wave
        or later, so that a failed plan has never touched the user's tensors.
        """
        readers: dict[Key, list[tuple[int, int]]] = {}
        safe, tested = 0, set[Any]()
        for w, wave in enumerate(self.waves):
            for s in wave:
                for x in s.reads:
                    readers.setdefault(self.base_of(x), []).append((w, id(s)))
                tests = getattr(s, "tests", ())
                if isinstance(s, Call) or s.checks and (not tests or not tested.issuperset(tests)):
                    safe = w + 1
            tested.update(*[checked_whole(s.kernel) for s in wave if isinstance(s, Job) and s.kernel is not None])
        leaves = {n.slot: k for k, n in enumerate(self.inputs) if n.op is not SCALAR}
        writers = Counter(x for wave in self.waves for s in wave for x in s.writes)
        outputs = set(self.outputs)
        place = {out: n for n, out in enumerate(self.outputs)}
        self.donor_of: dict[int, int] = {}  # result slot -> binding number
        taken: set[int] = set()
        self.first_donation = len(self.waves)
        for w in range(safe, len(self.waves)):
            for s in self.waves[w]:
                k = (s.kernel or s.epilogue) if isinstance(s, Job) else None
                if k is None:
                    continue
                own = s.pointers[:4] if s.kernel is None else ()  # type: ignore[union-attr]  # a product's operands
                # in the program's order from the end, so that an update is paired with what it updates
                for out, slot in sorted(overwritable(k), key=lambda pair: (place.get(pair[0], -1), pair[1]), reverse=True):
                    if (out in outputs and writers[out] == 1 and out not in self.donor_of and slot in leaves
                            and slot not in outputs and slot not in taken and slot not in own
                            and self.avals[out] is self.avals[slot]
                            and all(v < w or j == id(s) for v, j in readers[slot])):
                        self.donor_of[out] = leaves[slot]
                        taken.add(slot)
                        self.first_donation = min(self.first_donation, w)
        self.donors = tuple(self.donor_of.values())

    def place_intermediates(self) -> None:
        """Memory plan of everything that is neither input nor result nor made by a library call."""
        first: dict[Key, int] = {}
        last: dict[Key, int] = {}
        nbytes: dict[Key, int] = {}
        for w, wave in enumerate(self.waves):
            for s in wave:
                for x in s.reads:
                    last[self.base_of(x)] = w
                for x in s.writes:
                    first.setdefault(x, w)
                    last[x] = max(w, last.get(x, w))
                if not isinstance(s, Call):
                    for x, n in s.own.items():
                        nbytes[x] = n
                        first.setdefault(x, w)
                        last[x] = max(w, last.get(x, w))
        self.by_call = {x for s in self.steps if isinstance(s, Call) for x in s.writes}
        outputs = set(self.outputs)
        self.lives = [memory_plan.Life(x, nbytes[x] if x in nbytes else self.avals[x].nbytes, w, last[x])  # type: ignore
                      for x, w in first.items() if x not in outputs and x not in self.by_call]
        self.offsets, self.arena_bytes = memory_plan.plan(self.lives)
        if config.VERIFY:
            memory_plan.check(self.lives, self.offsets)
        self.nthreads = threads.get_num_threads()
        self.scratch_at = self.arena_bytes
        scratch = 0
        for jobs in self.native_waves():  # kernels of one wave run at the same time
            scratch = max(scratch, sum(j.scratch * self.nthreads for j in jobs))
        self.arena_bytes += scratch

    def native_waves(self) -> list[list[Job]]:
        """Every wave of jobs, those inside loops included."""
        out: list[list[Job]] = []
        for wave in self.waves:
            for s in wave:
                if isinstance(s, Loop):
                    out += [s.before, *s.waves, s.after]
            out.append([s for s in wave if isinstance(s, Job)])
        return out

    def compile(self) -> None:
        """Machine code of all jobs."""
        texts = {**SUPPORT, **self.sources()}
        try:
            self.address = jit.engine().functions(texts)
        except CompileError as error:
            for wave in self.native_waves():
                for s in parts_of(wave):
                    if s.symbol in str(error) and s.kernel is not None:
                        raise CompileError(f"{error}{where(s.kernel)}") from error
            raise
        for wave in self.native_waves():
            for s in parts_of(wave):  # plans for other sizes have the same text: it is kept once
                s.text = _texts.setdefault(s.symbol, s.text)

    def sources(self) -> dict[str, str]:
        """LLVM text of every kernel, by symbol."""
        return {s.symbol: s.text for wave in self.native_waves() for s in parts_of(wave)}

    def link(self) -> None:
        """Argument blocks and programs. Objects are numbered: array inputs, results, then library results."""
        self.object_of: dict[Key, int] = {self.inputs[k].slot: n for n, k in enumerate(self.array_at)}
        made: list[tuple[int, Callable[[], np.ndarray]]] = []
        nbytes = 0
        for x in dict.fromkeys([*self.donor_of, *self.outputs]):
            if x in self.wave_of and x not in self.by_call:
                self.object_of[x] = len(self.object_of)
                av = self.avals[x]
                new = np.empty if av.nbytes < memory.LARGE else memory.empty
                made.append((self.donor_of.get(x, -1), partial(new, av.shape, av.dtype.np)))  # type: ignore[call-overload]
                nbytes += 0 if x in self.donor_of else av.nbytes
        self.memory = Results(made, nbytes)
        for x in sorted(self.by_call, key=str):
            self.object_of[x] = len(self.object_of)
        self.n_objects = len(self.object_of)
        places = [self.object_of.get(x, -1) for x in self.outputs]
        own = len(places) > 1 and all(n >= len(self.array_at) for n in places)  # every result has memory of its own
        self.made: Callable[[list[Any]], Any] | None = itemgetter(*places) if own else None
        self.ids = np.zeros(max(1, self.n_objects), np.int64)
        self.pack_ids = struct.Struct(f"={self.n_objects}q").pack_into
        self.err = np.zeros(2, np.int64)
        self.checks = any(s.checks for s in self.steps if not isinstance(s, Call))
        self.stretches: list[Stretch | Call] = []
        for w, wave in enumerate(self.waves):
            if isinstance(wave[0], Call):
                self.stretches.append(wave[0])
                continue
            if not self.stretches or isinstance(self.stretches[-1], Call) or (self.checks and w == self.first_donation):
                self.stretches.append(Stretch([]))
            self.stretches[-1].waves.append(wave)  # type: ignore[union-attr, arg-type]
        self.blocks: dict[int, int] = {}  # id of a job -> first word of its argument block
        size = 0
        for native in self.native_waves():
            for s in parts_of(native):
                self.blocks[id(s)] = size
                size += words(s)
        self.args = np.zeros(max(1, size), np.int64)
        self.arena_words: list[tuple[int, int]] = []
        self.homes: dict[Key, np.ndarray] = {}  # where a cursor's buffer address is kept
        self.arena_cells: list[tuple[np.ndarray, int]] = []
        for native in self.native_waves():
            scratch = self.scratch_at
            for s in native:
                for part in s.parts():
                    self.fill_block(part, scratch)
                scratch += s.scratch * self.nthreads
        self.base = -1
        for st in self.stretches:
            if isinstance(st, Stretch):
                self.assemble(st)
        self.arena_word_array = np.array([w for w, _ in self.arena_words], np.int64)
        self.arena_offset_array = np.array([o for _, o in self.arena_words], np.int64)

    def fill_block(self, s: Job, scratch: int) -> None:
        """Fixed words of a job's argument block."""
        at = self.blocks[id(s)]
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
        numbers = s.bind(self.args.ctypes.data, self.blocks, self.address) if isinstance(s, Pipeline) else s.numbers
        self.args[at + n:at + n + len(numbers)] = numbers

    # -------------------------------------------------------------------------------------------------------- assembly
    def assemble(self, st: Stretch) -> None:
        """The program words of a stretch: a patch job, then the waves; loops are written out."""
        waves: list[list[int]] = []
        for wave in st.waves:
            if isinstance(wave[0], Loop):
                self.assemble_loop(st, wave[0], waves)
            else:
                waves.append(self.wave_words(st, [s for s in wave if isinstance(s, Job)]))
        table = np.array(st.patches, np.int64).reshape(-1)
        args = np.array([self.ids.ctypes.data, table.ctypes.data, len(st.patches)], np.int64)
        st.keep += [table, args]
        words = [len(waves) + 1, 1, 0, self.address["gc_patch"], args.ctypes.data]
        st.labels.insert(0, "patch addresses")
        for w in waves:
            words += w
        st.program = np.array(words, np.int64)
        st.address = st.program.ctypes.data

    def wave_words(self, st: Stretch, jobs: list[Job]) -> list[int]:
        """One wave: count, flag, (function, argument block) pairs; notes which words to patch with object addresses."""
        base = self.args.ctypes.data
        parallel = self.nthreads > 1 and sum(s.work for s in jobs) >= PARALLEL_WORK
        st.labels.append(" + ".join(s.name if isinstance(s, Pipeline) else s.symbol for s in jobs))
        out = [len(jobs), int(parallel)]
        for s in jobs:
            for part in s.parts():
                at = self.blocks[id(part)]
                for k, p in enumerate(part.pointers):
                    if p in self.object_of:
                        st.patches.append((self.object_of[p], base + 8 * (at + k)))
            out += [self.address[s.symbol], base + 8 * self.blocks[id(s)]]
        return out

    def assemble_loop(self, st: Stretch, loop: Loop, waves: list[list[int]]) -> None:
        """Reset of the cursors, jobs before, then every iteration (its waves, then the cursors move), jobs after."""
        base = self.args.ctypes.data
        reset: list[int] = []
        bump: list[int] = []
        for job in loop.jobs():
            for k, p in enumerate(job.pointers):
                if isinstance(p, Cursor):
                    word = base + 8 * (self.blocks[id(job)] + k)
                    reset += [word, self.home(st, p.key), p.start]
                    bump += [word, p.step]
        tables = [np.array(t, np.int64) for t in (reset, bump)]
        blocks = [np.array([t.ctypes.data, len(t) // n], np.int64) for t, n in zip(tables, (3, 2))]
        st.keep += [*tables, *blocks]
        waves.append([1, 0, self.address["gc_reset"], blocks[0].ctypes.data])
        st.labels.append("start loop")
        if loop.before:
            waves.append(self.wave_words(st, loop.before))
        at = len(st.labels)
        body = [self.wave_words(st, w) for w in loop.waves] + [[1, 0, self.address["gc_bump"], blocks[1].ctypes.data]]
        st.labels[at:] = [*st.labels[at:], "next iteration"] * loop.length
        waves += body * loop.length
        if loop.after:
            waves.append(self.wave_words(st, loop.after))

    def home(self, st: Stretch, key: Key) -> int:
        """Address of a word holding the address of ``key``'s buffer."""
        if key not in self.homes:
            self.homes[key] = np.zeros(1, np.int64)
        word = self.homes[key].ctypes.data
        if key in self.object_of:
            st.patches.append((self.object_of[key], word))
        elif key in self.offsets:
            self.arena_cells.append((self.homes[key], self.offsets[key]))
        return word

    # ------------------------------------------------------------------------------------------------------- execution
    def __call__(self, bindings: list[Any], free: Collection[int] = ()) -> list[Any]:
        """``free`` are the binding numbers (of :attr:`donors`) that nobody else holds: they may be overwritten."""
        out: list[Any] | None = None
        try:
            with memory.Running.lock:
                if memory.Running.now:  # in this thread: a signal's handler or the end of some object computes something
                    return self.interpreted(bindings)
                memory.Running.now = True
                try:
                    out = self.run(bindings, free)
                finally:
                    memory.Running.now = False
            return out
        except BaseException as error:
            if out is not None:  # Ctrl-C when the lock was given back
                note_finished(error, self, out)
            raise

    def timed(self, bindings: list[Any]) -> list[tuple[str, float]]:
        """Run once, wave by wave, overwriting nothing: (kernels of the wave or library call, seconds), in order."""
        times: list[tuple[str, float]] = []
        with memory.Running.lock:
            self.run(bindings, (), times)
        return times

    def run(self, bindings: list[Any], free: Collection[int], times: list[tuple[str, float]] | None = None) -> list[Any]:
        """Bind, execute, hand out the results. With ``times``, one wave at a time, measured."""
        if self.nthreads != threads.get_num_threads():
            self.place_intermediates()
            self.link()
        if self.arena_bytes and not memory.is_arena(self.base, self.arena_bytes):
            self.rebase()
        if self.scalar_at:
            self.write_scalars(bindings)
        objects: list[Any] = [*map(_buffer, self.pick_arrays(bindings))]
        if not all(map(_contiguous, objects)):
            objects = [np.ascontiguousarray(a) for a in objects]
            free = ()  # a result must not land in memory of another layout
        try:
            objects += self.memory.take(bindings, free)
        except OutOfMemoryError as error:
            results = sum(self.avals[x].nbytes for x in dict.fromkeys(self.outputs) if x in self.wave_of)
            raise OutOfMemoryError(f"{error}; results of this plan need {results / 2**20:,.1f} MiB, its intermediates "
                                   f"{self.arena_bytes / 2**20:,.1f} MiB at once") from None
        objects += [None] * (self.n_objects - len(objects))
        begun = None
        try:
            for st in self.stretches:
                if isinstance(st, Stretch):
                    if begun is None:
                        self.pack_ids(self.ids.data, 0, *map(id, objects))
                    elif objects:  # the others are as they were
                        self.ids[0] = id(objects[0])
                    begun = st
                    if times is None:
                        pool.run(st.address)
                    else:
                        run_waves(st, times)
                    if self.checks and self.err[0]:
                        begun = None
                        return self.failed(bindings)
                else:
                    start = perf_counter()
                    begun = None
                    self.call(st, objects, bindings)
                    if times is not None:
                        times.append((st.label, perf_counter() - start))
            return self.results(objects, bindings)
        except BaseException as error:  # maybe Ctrl-C or a signal handler's, after all was done
            wrong, self.err[:] = self.err[0], 0
            if begun is self.stretches[-1] and self.n_objects and not self.ids[0] and not wrong:
                note_finished(error, self, self.results(objects, bindings))
            raise

    def rebase(self) -> None:
        """Point the argument blocks at the arena, if it moved."""
        try:
            base = memory.arena(self.arena_bytes)
        except OutOfMemoryError as error:
            big = sorted(self.lives, key=lambda x: -x.nbytes)[:3]
            sizes = ", ".join(f"{self.avals[x.slot]} ({x.nbytes / 2**20:,.1f} MiB)" for x in big if isinstance(x.slot, int))
            raise OutOfMemoryError(f"{error}; intermediates of this plan need {self.arena_bytes / 2**20:,.1f} MiB at once, "
                                   f"the largest are {sizes}") from None
        if base != self.base:
            self.args[self.arena_word_array] = self.arena_offset_array + base
            for cell, offset in self.arena_cells:
                cell[0] = base + offset
            self.base = base

    def write_scalars(self, bindings: list[Any]) -> None:
        """Run-time scalars into their cells."""
        numbers = self.pick_scalars(bindings)
        if self.plain_scalars:
            try:
                self.pack_scalars.pack_into(self.scalar_cells.data, 0, *numbers)
                return
            except (struct.error, OverflowError, TypeError):
                pass  # a float for an integer slot, a value out of range: the slow, exact way
        cells = self.scalar_cells.view(np.uint8)
        for n, (x, dt) in enumerate(zip(numbers, self.scalar_dtypes)):
            raw = np.frombuffer(scalar_buffer(x, dt).tobytes(), np.uint8)
            cells[8 * n:8 * n + len(raw)] = raw

    def array(self, slot: int, objects: list[Any], bindings: list[Any]) -> np.ndarray:
        """A slot's value as an array, for a library call."""
        av = self.avals[slot]
        if slot in self.schedule.views:
            base, ix = self.schedule.views[slot]
            flat = self.array(base, objects, bindings).reshape(-1)
            strides = dict(ix.terms)
            return np.lib.stride_tricks.as_strided(flat[ix.const:], av.shape,
                                                   [strides.get(d, 0) * flat.itemsize for d in range(av.ndim)])
        if slot in self.object_of:
            return objects[self.object_of[slot]]
        if slot in self.scalar_words:
            return scalar_buffer(bindings[self.scalar_at[self.scalar_words[slot]]], av.dtype)
        return memory.arena_view(self.offsets[slot], av.shape, av.dtype.np)

    def call(self, c: Call, objects: list[Any], bindings: list[Any]) -> None:
        """A library call; its errors name the user's line."""
        try:
            with quiet():
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
        """Output buffers. Equal results share one: whoever wants to change a buffer counts its holders first; only what the
        outside may change without asking is copied."""
        if self.made is not None:
            return list(self.made(objects))
        out: list[Any] = []
        for x in self.outputs:
            if x in self.object_of:
                n = self.object_of[x]
                a = objects[n]
                if n < len(self.array_at) and bindings[self.array_at[n]].__class__ is not Value:
                    a = a.copy()
            else:
                a = self.array(x, objects, bindings).copy()
            out.append(a)
        return out

    def failed(self, bindings: list[Any]) -> list[Any]:
        """A kernel met an index out of range: the interpreter raises the user's error."""
        self.err[:] = 0
        return self.interpreted(bindings)

    def interpreted(self, bindings: list[Any]) -> list[Any]:
        """The same by the interpreter."""
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
                if not isinstance(s, Job):
                    out.append(s.label)
                elif s.code not in seen:
                    seen.add(s.code)
                    out.append(s.name)
        return out

    def bytes_moved(self) -> int:
        """Estimate: every buffer a kernel touches read or written once, but for what stays in the cache."""
        return total_bytes(self.schedule) - bytes_inside(self.schedule, local_keys(self.steps))

    def to_text(self) -> str:
        """The plan as text: waves, kernels, memory."""
        lines = [f"# {len(self.kernels())} kernels, about {self.bytes_moved():,} bytes moved, "
                 f"{self.arena_bytes:,} bytes of intermediates"]
        for w, wave in enumerate(self.waves):
            lines += [f"wave {w}: {s.label}" for s in wave]
        return "\n".join(lines)
