"""What recording works on: the trie of all programs, the region being recorded, this thread's state. Data only."""
from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from ..device import CPU
from ..dtypes import dtype
from .node import Aval, Graph, Node, Value, aval
from .optable import Op, Prim


def _no_attr_infer(attrs: Any, *ins: Aval) -> Aval:
    return attrs[0]


def _not_evaluated(*_: Any) -> Any:  # leaves and scalars are bound, never computed
    raise AssertionError("a leaf has no evaluation")


LEAF = Prim("leaf", kind="leaf", attrs=("aval",), infer=_no_attr_infer, eval_np=_not_evaluated, loop="load", vjp=None,
            saves=(), samples=tuple, doc="An evaluated value the region reads.")
SCALAR = Prim("scalar", kind="leaf", attrs=("aval",), infer=_no_attr_infer, eval_np=_not_evaluated, loop="scalar",
              vjp=None, saves=(), samples=tuple,
              doc="A Python number as a run-time slot: changing it never changes the program.")


class _Trie:
    """Root of all recorded programs (a documented process-wide cache)."""

    root = Node(None, (), (), (), (), 0)
    count = 0


class _Writes(list):  # type: ignore[type-arg]
    """What a region wrote, in order: (holder, value before its first write here, number of slots recorded by then)."""

    __slots__ = ()

    def append(self, entry: tuple[Any, Value]) -> None:
        list.append(self, (*entry, state.region.slots))


class Region:
    """The program being recorded: a cursor in the trie plus this walk's bindings and live values."""

    __slots__ = ("numbers", "cursor", "bindings", "leaf_slots", "live", "writes", "must_flush", "token")

    def __init__(self) -> None:
        self.cursor: Node = _Trie.root
        self.bindings: list[Any] = []  # leaf Values and scalar numbers in binding order
        self.leaf_slots: dict[Value, int] = {}
        self.live: list[weakref.ref[Value]] = []
        self.writes: _Writes = _Writes()  # (holder, value before its first write here): for restoring
        self.must_flush = False
        self.numbers: dict[int, int] | None = None  # slots of scalars -> binding number, once someone asked
        self.token = object()  # tells this region's gradient nodes

    @property
    def slots(self) -> int:
        """Number of slots recorded."""
        return self.cursor.end


class _State(threading.local):
    """Per-thread recording state."""

    def __init__(self) -> None:
        self.region = Region()
        self.grad = True  # record gradients
        self.hold = 0  # >0: inside a compiled call or a trace; soft flush points are ignored
        self.tracing = 0  # >0: building a sub-graph; reading a value is an error
        self.program = 0  # the depth of tracing at which the user's own code runs: autocast is for what it calls
        self.watch: Any = None  # the compiled call running in this thread: told of flushes and of new plans
        self.budget = 1.0  # share of the bytes kept for backward passes that plans may use
        self.tune = False  # whether plans for a device are made of measured block sizes
        self.walks = 0  # >0: inside a backward walk


state = _State()
CASTS: list[Callable[[Op, tuple[Value, ...]], tuple[Value, ...]]] = []  # autocast's, while a block is open somewhere
_scalar_avals: dict[dtype, Aval] = {}


def scalar_aval(dt: dtype) -> Aval:
    """Aval of a zero-dim value of ``dt`` on the host."""
    found = _scalar_avals.get(dt)
    if found is None:
        found = _scalar_avals[dt] = aval((), dt, CPU)
    return found


def scalar_buffer(number: Any, dt: dtype) -> np.ndarray:
    """The zero-dim array a run-time scalar of ``dt`` becomes (integers wrap as in C)."""
    if dt.category == 1 and isinstance(number, int):
        bits = dt.itemsize * 8
        number &= (1 << bits) - 1
        if dt.is_signed and number >> (bits - 1):
            number -= 1 << bits
    return np.asarray(number, dt.np)


def region_graph(end: Node, outputs: tuple[int, ...]) -> Graph:
    """The path from the trie's root to ``end`` as a Graph."""
    nodes: list[Node] = []
    node: Node | None = end
    while node is not None and node.op is not None:
        nodes.append(node)
        node = node.parent
    nodes.reverse()
    return Graph(nodes, outputs)
