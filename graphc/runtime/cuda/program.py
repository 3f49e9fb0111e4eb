"""A GPU plan made executable: kernels compiled and loaded, intermediates in one arena, launches in lists that become graphs.

Every pointer of a launch is an offset into one of: the arena, the scalars' cells, the error word, an input, a result. A call
therefore hands over one address per input and result; all arguments were packed when the plan was built. Steps only the host
can carry out end a list: their operands are copied to the host and their results back.
"""
from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np

from ...codegen import memory as memory_plan
from ...codegen.loop_ir import Kernel
from ...codegen.native.jobs import Cursor, overwritable
from ...codegen.triton import autotune, compiler
from ...codegen.triton.compiler import Target
from ...codegen.triton.plan import Copy, Host, Launch, Lowering, Repeat, Step, launches, lower_plan, plain, prepared
from ...errors import CompileError, IndexOutOfRangeError
from ...ir.interpret import run_node
from ...ir.node import Graph
from ...ir.recorder import SCALAR
from . import buffer as buffers
from . import device as devices
from . import measure
from .buffer import DeviceBuffer
from .device import Device, Event, Stream
from .graph import CELL, Cells, Replay
from .interop import Array, contiguous, extent
from .launch import LaunchList, Pointer, load
from .results import Results

ARENA, CELLS, ERROR, FIRST = 0, 1, 2, 3  # numbers of the addresses a call hands over
ERROR_BYTES = 256
Compile = Callable[[Iterable[Any]], dict[str, Any]]


def target_of(owner: Device) -> Target:
    """What kernels for a device are compiled for."""
    return Target("cuda", owner.properties.major * 10 + owner.properties.minor)


def arena(stream: Stream, nbytes: int) -> DeviceBuffer:
    """The memory for intermediates of plans on a stream; grows. Plans of one stream run one after the other and share it."""
    arenas, key = stream.owner.arenas, stream.key
    found = arenas.get(key)
    if found is None or found.nbytes < nbytes:
        arenas.pop(key, None)
        found = None  # the old one goes first: both may not fit
        found = arenas[key] = buffers.empty(nbytes, stream.owner.index, stream, "intermediates of plans")
    return found


def distance(k: Kernel, out: Any, slot: Any) -> int:
    """Statements on the shortest way from a value read to a value written in a kernel; many where there is none."""
    away: list[int] = []
    for s in k.stmts:
        found = s.op == "load" and k.buffers[s.attr.buffer].slot == slot
        away.append(0 if found else 1 + min([away[i] for i in s.args], default=len(k.stmts)))
    return min(away[st.value] for st in k.stores if k.buffers[st.access.buffer].slot == out)


class Program:
    """A plan on a device. Call with a buffer per array input and a number per scalar, in the order of ``graph.inputs``.

    ``compile``: printed kernels to compiled ones by symbol (default: Triton). Raises CompileError for kernels that cannot
    be compiled or loaded there.
    """

    def __init__(self, graph: Graph, owner: Device, compile: Compile | None = None, label: str = "plan"):
        target = target_of(owner)
        self.owner, self.label = owner, label
        self.graph, self.sched = prepared(graph, target)
        self.avals = self.graph.slot_avals()
        with autotune.tuning(measure.tuner_of(owner, target, compile) if autotune.wanted() else autotune.current()):
            self.steps = lower_plan(self.graph, self.sched, target)
        self.steps += self.own_results(target)
        self.code = (compile or compiler.compiler(target).get)([x.printed for x in launches(self.steps)])
        self.lock = threading.Lock()
        self.last: Stream | None = None
        self.checks = any(x.printed.checks for x in launches(self.steps))
        self.place_inputs()
        self.place_rest()
        self.find_donors()
        wanted = [(self.donor_of.get(slot, -1), self.nbytes[slot]) for slot in self.fresh]
        self.results = Results(owner, wanted, f"result of {label}")
        self.given = [self.result(slot) for slot in self.graph.outputs]
        self.link()

    # ---------------------------------------------------------------------------------------------------- preparation
    def own_results(self, target: Target) -> list[Step]:
        """Copies that give every result memory of its own in C order; results over the whole of others or of inputs share."""
        self.copied: dict[int, Any] = {}  # result -> key of its copy
        numbers = {leaf.slot for leaf in self.graph.inputs if leaf.op is SCALAR}
        strided = [s for s in dict.fromkeys(self.graph.outputs) if self.avals[s].size and (
            self.base(s) in numbers or s in self.sched.views and not self.is_whole(s))]
        if not strided:
            return []
        low = Lowering(self.graph, self.sched, target)
        steps: list[Step] = []
        for s in strided:
            self.copied[s] = ("result", s)
            base, ix = self.sched.views.get(s, (s, None))
            steps.append(low.copy(s, base, ix, self.copied[s], tuple(range(self.avals[s].ndim))))
        return steps

    def is_whole(self, slot: int) -> bool:
        """Whether a view shows all of its memory in order."""
        av, (key, start, strides) = self.avals[slot], self.place_of(slot)
        return av.size == self.avals[key].size and start == 0 and all(
            n == 1 or s == t for n, s, t in zip(av.shape, strides, contiguous(av.shape)))

    def base(self, slot: Any) -> Any:
        """The slot in memory that a value is read from."""
        return self.sched.views[slot][0] if slot in self.sched.views else slot

    def place_inputs(self) -> None:
        """Scalars get cells, arrays an address each."""
        self.at: dict[Any, Pointer] = {}
        self.scalars = [k for k, leaf in enumerate(self.graph.inputs) if leaf.op is SCALAR]
        self.arrays = [k for k, leaf in enumerate(self.graph.inputs) if leaf.op is not SCALAR]
        for n, k in enumerate(self.scalars):
            self.at[self.graph.inputs[k].slot] = Pointer(CELLS, CELL * n)
        for n, k in enumerate(self.arrays):
            self.at[self.graph.inputs[k].slot] = Pointer(FIRST + n)
        self.input_of = {leaf.slot: k for k, leaf in enumerate(self.graph.inputs)}

    def place_rest(self) -> None:
        """Results get memory of their own in every call, everything else a place in the arena by the memory plan."""
        self.nbytes: dict[Any, int] = {}
        first: dict[Any, int] = {}
        last: dict[Any, int] = {}
        for n, step in enumerate(self.steps):
            reads, writes, own = self.touched(step)
            self.nbytes.update(own)
            for key in writes:
                first.setdefault(key, n)
            for key in reads | writes:
                last[key] = n
        for key in first:
            if key not in self.nbytes:
                self.nbytes[key] = self.avals[key].nbytes
        self.fresh: list[Any] = []
        for slot in dict.fromkeys(self.copied.get(s, self.base(s)) for s in self.graph.outputs):
            if slot not in self.at:
                self.at[slot] = Pointer(FIRST + len(self.arrays) + len(self.fresh))
                self.nbytes.setdefault(slot, self.avals[slot].nbytes if isinstance(slot, int) else 0)
                self.fresh.append(slot)
        lives = [memory_plan.Life(key, self.nbytes[key], n, last[key]) for key, n in first.items() if key not in self.at]
        self.lives = lives
        self.offsets, self.arena_bytes = memory_plan.plan(lives)
        memory_plan.check(lives, self.offsets)
        self.at.update({key: Pointer(ARENA, offset) for key, offset in self.offsets.items()})

    def find_donors(self) -> None:
        """Results that may take the memory of an input nobody else holds: the launch that writes the result reads the input at
        the same index and is the last to read it, and no step of the host, which may fail, comes later. A result that is next
        to the input in the formula comes first: a parameter stays where it is from step to step, and so do graphs."""
        last: dict[Any, int] = {}
        written: Counter[Any] = Counter()
        safe = 0
        for n, step in enumerate(self.steps):
            reads, writes, _ = self.touched(step)
            last.update(dict.fromkeys(reads, n))
            written.update(writes)
            safe = n + 1 if isinstance(step, Host) else safe
        arrays = {self.graph.inputs[k].slot: k for k in self.arrays}
        kept = {self.base(s) for s in self.graph.outputs}
        pairs: list[tuple[int, Any, Any]] = []
        for n, step in enumerate(self.steps[safe:], safe):
            if not isinstance(step, Launch) or step.printed.kernel is None:
                continue
            pairs += [(distance(step.printed.kernel, out, slot), out, slot) for out, slot in overwritable(step.printed.kernel)
                      if out in step.writes and out in self.fresh and written[out] == 1 and slot in arrays and slot not in kept
                      and last[slot] == n and step.keys.count(slot) == 1 and self.avals[slot].nbytes == self.nbytes[out]]
        self.donor_of: dict[Any, int] = {}  # result -> number of the input
        for _, out, slot in sorted(pairs, key=lambda p: p[0]):
            if out not in self.donor_of and arrays[slot] not in self.donor_of.values():
                self.donor_of[out] = arrays[slot]

    def touched(self, step: Step) -> tuple[set[Any], set[Any], dict[Any, int]]:
        """(keys read, keys written, bytes of buffers that are no slots)."""
        if isinstance(step, Launch):
            return {plain(k) for k in step.keys} - step.writes, set(step.writes), dict(step.own)
        if isinstance(step, Copy):
            return {plain(step.src)}, {plain(step.dst)}, {}
        if isinstance(step, Host):
            node = step.node
            return {self.base(s) for s in node.ins}, {node.slot + k for k in range(len(node.avals))}, {}
        reads, writes, own = set(), set(), dict(step.own)
        for inner in step.body:
            r, w, o = self.touched(inner)
            reads |= r
            writes |= w
            own.update(o)
        return reads, writes, own

    # --------------------------------------------------------------------------------------------------------- linking
    def link(self) -> None:
        """Lists of launches with the host's steps between them."""
        self.stretches: list[Replay | LaunchList | Host] = []
        current: LaunchList | None = None
        for step in self.steps:
            if isinstance(step, Host):
                current = None
                self.stretches.append(step)
                continue
            if current is None:
                current = LaunchList(self.owner, self.label)
                self.stretches.append(current)
            self.add(current, step, 0)
        self.stretches = [Replay(s) if isinstance(s, LaunchList) else s for s in self.stretches]
        names = [self.graph.inputs[k].avals[0].dtype.name for k in self.scalars]
        self.cells = Cells(self.owner, names) if names else None
        if self.checks:
            self.error: DeviceBuffer | None = buffers.empty(ERROR_BYTES, self.owner.index, tag="index errors")
            buffers.fill(self.error, 0, devices.current_stream(self.owner.index))
            self.found = buffers.pinned((1,), np.int32, "index errors")
            self.found[0] = 0
            self.asked: Event | None = None
        else:
            self.error = None

    def add(self, to: LaunchList, step: Step, t: int) -> None:
        """Append a step in iteration ``t`` of the loop around it."""
        if isinstance(step, Repeat):
            for i in range(step.length):
                for inner in step.body:
                    self.add(to, inner, i)
        elif isinstance(step, Copy):
            to.add_copy(self.address(step.dst, t), self.address(step.src, t), step.nbytes)
        elif isinstance(step, Launch):
            p = step.printed
            if p.programs():
                to.add_kernel(load(self.owner, self.code[p.symbol]), (p.programs(),), [a.type for a in p.args],
                              [self.address(a.value, t) if a.type[0] == "*" else a.value for a in p.args],
                              lines=compiler.lines_of(p).removeprefix(" (recorded at ").removesuffix(")"))
        else:
            raise CompileError(f"{self.label}: a step for the host inside a loop: {step}")

    def address(self, key: Any, t: int) -> Pointer:
        """Where a pointer argument points in iteration ``t``."""
        if isinstance(key, str) and key == "err":
            return Pointer(ERROR)
        if isinstance(key, Cursor):
            at = self.at[key.key]
            return Pointer(at.number, at.offset + key.start + t * key.step)
        return self.at[key]

    # --------------------------------------------------------------------------------------------------------- running
    def __call__(self, values: Sequence[Any], stream: Stream, free: Collection[int] = ()) -> list[Array]:
        """The results, in order with the stream's work. Inputs of numbers in ``free`` may be overwritten. Raises
        OutOfMemoryError, CudaError."""
        with self.lock:
            if self.last is not stream and self.last is not None and self.last != stream:
                stream.follow(self.last)  # one set of cells and arguments
            self.last = stream
            given = [values[k] for k in self.arrays]
            for b in given:
                if b.stream is not stream and b.stream != stream:
                    stream.follow(b.stream)
                    b.record_stream(stream)
            if self.cells is not None:
                self.cells.write([values[k] for k in self.scalars], stream)
            fresh = self.results.take(values, frozenset(free), stream)
            work = arena(stream, self.arena_bytes) if self.arena_bytes else None
            memory = [work, self.cells.memory if self.cells else None, self.error, *given, *fresh]
            pointers = tuple([0 if b is None else b.ptr for b in memory])
            for s in self.stretches:
                if isinstance(s, Host):
                    self.on_host(s, values, memory, stream)
                else:
                    assert isinstance(s, Replay)
                    s.run(stream, pointers)
            if self.error is not None:
                self.ask_indices(stream)
            memory = self.results.copied_out(memory, stream)
            return [Array(memory[n] if start < 0 else memory[n].view(start, size), shape, strides, dt)
                    for n, start, size, shape, strides, dt in self.given]

    def ask_indices(self, stream: Stream) -> None:
        """Fetch the word that tells whether an index was out of range, without waiting for it: kernels neither read nor write
        outside, so that it is enough to look when the host waits for something. CUDA_LAUNCH_BLOCKING=1 looks at once."""
        assert self.error is not None
        buffers.to_host(self.error, self.found, stream, non_blocking=True)
        self.asked = stream.mark(self.asked)
        self.owner.unchecked[self] = None
        if os.environ.get("CUDA_LAUNCH_BLOCKING", "0") not in ("", "0"):
            self.asked.synchronize()
            self.check_indices()

    def check_indices(self) -> None:
        """Raise IndexOutOfRangeError if a call that is over found an index out of range."""
        assert self.error is not None and self.asked is not None
        if not self.asked.query():
            return
        self.owner.unchecked.pop(self, None)
        if self.found[0]:
            self.found[0] = 0
            buffers.fill(self.error, 0, self.last)
            where = dict.fromkeys(x.label + compiler.lines_of(x.printed) for x in launches(self.steps) if x.printed.checks)
            raise IndexOutOfRangeError(f"index out of range in one of: {', '.join(where)}")

    def memory_of(self, key: Any, memory: list[Any]) -> DeviceBuffer:
        """The bytes of a key in this call."""
        at, nbytes = self.at[key], self.nbytes_of(key)
        whole: DeviceBuffer | None = memory[at.number]
        assert whole is not None or not nbytes
        if whole is None:
            return buffers.empty(0, self.owner.index)
        return whole if nbytes == whole.nbytes and not at.offset else whole.view(at.offset, nbytes)

    def place_of(self, slot: int) -> tuple[Any, int, tuple[int, ...]]:
        """(key in memory, first element, strides in elements) of a value."""
        shape = self.avals[slot].shape
        if slot not in self.sched.views:
            return slot, 0, contiguous(shape)
        base, ix = self.sched.views[slot]
        strides: dict[Any, int] = dict(ix.terms)
        return base, ix.const, tuple([strides.get(d, 0) for d in range(len(shape))])

    def result(self, slot: int) -> tuple[int, int, int, tuple[int, ...], tuple[int, ...], np.dtype]:
        """How a result becomes an array: number of its memory, first byte (-1 for all of it), bytes, shape, strides, dtype."""
        key, start, strides = self.place_of(slot)
        av = self.avals[slot]
        if slot in self.copied:
            key, start, strides = self.copied[slot], 0, contiguous(av.shape)
        elif start == 0 and av.size == self.avals[key].size:
            strides = contiguous(av.shape)  # sides of one element may have any
        size, place = av.dtype.itemsize, self.at[key]
        nbytes = extent(av.shape, strides) * size
        first = place.offset + start * size
        if not first and self.nbytes_of(key) == nbytes:
            first = -1
        return place.number, first, nbytes, av.shape, strides, av.dtype.np

    def nbytes_of(self, key: Any) -> int:
        """Bytes of a key's memory."""
        return self.nbytes[key] if key in self.nbytes else self.avals[key].nbytes

    def on_host(self, step: Host, values: Sequence[Any], memory: list[Any], stream: Stream) -> None:
        """Carry out a node with NumPy."""
        node = step.node
        operands = []
        for slot in node.ins:
            av, k = self.avals[slot], self.input_of.get(slot, -1)
            if k in self.scalars:
                operands.append(np.asarray(values[k], av.dtype.np))
                continue
            if not av.size:
                operands.append(np.empty(av.shape, av.dtype.np))
                continue
            key, start, strides = self.place_of(slot)
            flat = np.empty(self.avals[key].shape, av.dtype.np).reshape(-1)
            buffers.to_host(self.memory_of(key, memory), flat, stream)
            operands.append(np.lib.stride_tricks.as_strided(flat[start:], av.shape, [s * flat.itemsize for s in strides]))
        for k, out in enumerate(run_node(node, operands)):
            target = self.memory_of(node.slot + k, memory) if node.slot + k in self.at else None
            if target is not None:
                buffers.from_host(target, np.ascontiguousarray(out, node.avals[k].dtype.np), stream)

    def kernels(self) -> list[Launch]:
        """Every launch once."""
        return launches(self.steps)

    def to_text(self) -> str:
        """The lists of launches as text."""
        return "\n".join(f"host: {s.node.op.name}" if isinstance(s, Host) else s.launches.describe()  # type: ignore[union-attr]
                         for s in self.stretches)
