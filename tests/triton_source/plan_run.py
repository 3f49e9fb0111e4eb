"""Carry out a whole GPU plan under the interpreter: memory by key as bytes, filled with a pattern that is NaN as a float."""
from __future__ import annotations

from typing import Any

import numpy as np
from triton_run import IndexFault

from graphc.codegen.native.jobs import Cursor
from graphc.codegen.triton.compiler import H100
from graphc.codegen.triton.plan import Copy, Host, Launch, Repeat, lower_plan, prepared
from graphc.ir.interpret import run_node

_TYPES = {"u8": np.uint8, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64, "u32": np.uint32, "fp16": np.float16,
          "bf16": np.uint16, "fp32": np.float32, "fp64": np.float64}


class Memory:
    """Buffers by key."""

    def __init__(self, graph: Any, sched: Any, interpreter: Any):
        self.graph, self.sched, self.it = graph, sched, interpreter
        self.avals = graph.slot_avals()
        self.bytes: dict[Any, np.ndarray] = {}
        self.hosts: list[str] = []
        self.own: dict[Any, int] = {}

    def at(self, key: Any, t: int) -> np.ndarray:
        """The bytes a pointer means in iteration ``t``."""
        if isinstance(key, Cursor):
            return self.at(key.key, t)[key.start + t * key.step:]
        if key not in self.bytes:
            self.bytes[key] = np.full(self.own[key] if key in self.own else self.avals[key].nbytes, 0xFF, np.uint8)
        return self.bytes[key]

    def reserve(self, steps: Any) -> None:
        """Note the buffers steps need for themselves."""
        for s in steps:
            if isinstance(s, (Launch, Repeat)):
                self.own.update(s.own)
            if isinstance(s, Repeat):
                self.reserve(s.body)

    def run(self, steps: Any, t: int = 0) -> None:
        for s in steps:
            if isinstance(s, Launch):
                self.launch(s, t)
            elif isinstance(s, Copy):
                self.at(s.dst, t)[:s.nbytes] = self.at(s.src, t)[:s.nbytes].copy()
            elif isinstance(s, Repeat):
                for i in range(s.length):
                    self.run(s.body, i)
            else:
                self.host(s)

    def launch(self, s: Launch, t: int) -> None:
        args, places = [], []
        for a in s.printed.args:
            if a.value == "err":
                args.append(np.zeros(1, np.int32))
            elif a.type[0] == "*":
                raw = self.at(a.value, t)
                dt = np.dtype(_TYPES[a.type[1:]])
                args.append(raw[:raw.size // dt.itemsize * dt.itemsize].view(dt).copy())
                places.append((len(args) - 1, raw))
            else:
                args.append(a.value)
        p = s.printed
        out = self.it.run(p.source, p.symbol, (p.programs(),), args, [a.type for a in p.args], dict(p.constants))
        for a, new in zip(p.args, out):
            if a.value == "err" and new[0]:
                raise IndexFault
        keys = s.keys
        for (n, raw), key in zip(places, keys):
            if (key.key if isinstance(key, Cursor) else key) in s.writes:
                raw[:out[n].nbytes] = out[n].view(np.uint8)
            else:
                assert np.array_equal(raw[:out[n].nbytes], out[n].view(np.uint8)), "a kernel wrote what it only reads"

    def host(self, s: Host) -> None:
        node = s.node
        self.hosts.append(node.op.name)
        for k, o in enumerate(run_node(node, [self.whole(x) for x in node.ins])):
            self.bytes[node.slot + k] = np.ascontiguousarray(o).reshape(-1).view(np.uint8)

    def whole(self, slot: int) -> np.ndarray:
        """A value as an array."""
        av = self.avals[slot]
        if slot in self.sched.views:
            base, ix = self.sched.views[slot]
            flat, strides = self.bytes[base].view(av.dtype.np), dict(ix.terms)
            return np.lib.stride_tricks.as_strided(flat[ix.const:], av.shape,
                                                   [strides.get(d, 0) * flat.itemsize for d in range(av.ndim)])
        return self.bytes[slot].view(av.dtype.np).reshape(av.shape)


def run_plan(interpreter: Any, graph: Any, arrays: list[Any], target: Any = None) -> tuple[list[np.ndarray], list[str]]:
    """(outputs, ops the host had to evaluate) of an optimised graph."""
    target = target or H100
    graph, sched = prepared(graph, target)
    steps = lower_plan(graph, sched, target)
    mem = Memory(graph, sched, interpreter)
    for leaf, a in zip(graph.inputs, arrays):
        mem.bytes[leaf.slot] = np.array(a, leaf.avals[0].dtype.np, order="C").reshape(-1).view(np.uint8).copy()
    mem.reserve(steps)
    with np.errstate(all="ignore"):
        mem.run(steps)
    return [mem.whole(s) for s in graph.outputs], mem.hosts
