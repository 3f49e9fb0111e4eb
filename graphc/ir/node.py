"""The data structures of the graph IR: what a value is, what a node is, what a graph is. Data only.

* :class:`Aval` - abstract value: shape, dtype, device. Interned, so equality is identity.
* :class:`Node` - one operation of a recorded program. Nodes form a *trie*: every node knows the node recorded before
  it (``parent``) and the ones that ever followed it (``next`` is the latest, ``alts`` all of them). A program that
  repeats walks the same path again and allocates nothing; see ``recorder.py``.
* :class:`Value` - a run-time result: either pending (``region`` and ``slot`` say which node makes it) or evaluated
  (``region is None``, ``buffer`` holds the data).
* :class:`Graph` - a closed program in static single assignment, what passes and back ends work on.

Slots number the results of a program: node ``n`` with ``k`` outputs owns slots ``n.slot .. n.slot + k - 1``.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..device import CPU, device
from ..dtypes import dtype

if TYPE_CHECKING:
    from .optable import Op

Loc = tuple[Any, int] | None  # (code object, instruction offset); made into file:line only when printed


class Aval:
    """Shape, dtype and device of a value. Build with :func:`aval`; compare with ``is``."""

    __slots__ = ("shape", "dtype", "device", "size", "ndim", "nbytes")

    def __init__(self, shape: tuple[int, ...], dt: dtype, dev: device):
        self.shape, self.dtype, self.device = shape, dt, dev
        self.size = math.prod(shape)
        self.ndim = len(shape)
        self.nbytes = self.size * dt.itemsize

    def __repr__(self) -> str:
        dims = ",".join(map(str, self.shape))
        return f"{self.dtype.short}[{dims}]" + ("" if self.device.type == "cpu" else f"{{{self.device}}}")


_AVALS: dict[tuple[tuple[int, ...], dtype, device], Aval] = {}


def aval(shape: tuple[int, ...], dt: dtype, dev: device) -> Aval:
    """The one Aval with this shape, dtype and device."""
    key = (shape, dt, dev)
    found = _AVALS.get(key)
    if found is None:
        if len(_AVALS) > 200_000:  # programs with ever-changing shapes must not grow memory; losing an entry
            _AVALS.clear()  # costs re-recording only, since old Avals stay valid wherever they are held
        found = _AVALS[key] = Aval(shape, dt, dev)
    return found


DEVICE_SHARE = 6  # results on a device count 2**-6 of their bytes towards the cap, which is about the host's memory


MAX_BLOCKS = 8  # per node


class Node:
    """One recorded operation. ``ins`` are slots; ``attrs`` is a hashable tuple in the op's attribute order."""

    __slots__ = ("op", "ins", "attrs", "avals", "in_avals", "slot", "end", "loc", "parent", "next", "alts", "plans",
                 "full", "cum_bytes", "blocks", "turn")

    def __init__(self, op: Op | None, ins: tuple[int, ...], attrs: Any, avals: tuple[Aval, ...],
                 in_avals: tuple[Aval, ...], slot: int, loc: Loc = None, parent: Node | None = None):
        self.op, self.ins, self.attrs, self.avals, self.in_avals = op, ins, attrs, avals, in_avals
        self.slot, self.end = slot, slot + len(avals)
        self.loc, self.parent = loc, parent
        self.next: Node | None = None
        self.alts: dict[Any, Node] | None = None
        self.blocks: dict[Any, Any] | None = None  # backward passes and steps that began here: see keep_block
        self.plans: dict[Any, Any] | None = None  # live slots -> plan, when a region ended here
        own = avals[0].nbytes if len(avals) == 1 else sum([a.nbytes for a in avals])
        if avals and avals[0].device is not CPU:
            own >>= DEVICE_SHARE
        self.cum_bytes: int = own + (parent.cum_bytes if parent is not None else 0)
        self.full = False  # recording must flush after this node
        self.turn = 0  # whether a backward pass began or ended here: flags of marks.py


    def keep_block(self, key: Any, block: Any) -> None:
        """Remember nodes that were recorded after this one, to record them again at once."""
        if self.blocks is None or len(self.blocks) >= MAX_BLOCKS:
            self.blocks = {}
        self.blocks[key] = block


class Value:
    """A tensor value: pending in a region, or evaluated. ``gfn`` is its gradient edge (None: constant)."""

    __slots__ = ("aval", "region", "slot", "gfn", "buffer", "__weakref__")
    aval: Aval
    region: Any
    slot: int
    gfn: Any
    buffer: Any

    def __init__(self, av: Aval, region: Any, slot: int):
        self.aval = av
        self.region = region
        self.slot = slot
        self.gfn = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.aval.shape

    @property
    def dtype(self) -> dtype:
        return self.aval.dtype

    @property
    def device(self) -> device:
        return self.aval.device

    @property
    def ndim(self) -> int:
        return self.aval.ndim

    @property
    def size(self) -> int:
        return self.aval.size

    def __repr__(self) -> str:
        return f"<{self.aval} {'pending' if self.region is not None else 'evaluated'}>"


class SharedValue(Value):
    """An evaluated value whose buffer somebody outside graphc may hold and change (``numpy()``, DLPack)."""

    __slots__ = ()


class PoisonedValue(Value):
    """A value whose computation failed; ``buffer`` holds the exception to raise on every read."""

    __slots__ = ()


def leaf_value(av: Aval, buffer: Any) -> Value:
    """An evaluated value owning ``buffer``."""
    v = Value(av, None, -1)
    v.buffer = buffer
    return v


class Graph:
    """A closed program. ``nodes`` are in topological order with consecutive slots; ``inputs`` are the slots of
    leaf and scalar nodes in binding order; ``outputs`` are slots. ``budget`` is the share of the bytes kept for backward
    passes that its plan may use (see passes/recompute.py), part of what it is; ``figures`` what came of it.
    ``tune``: whether a plan for a device is made of measured block sizes."""

    __slots__ = ("nodes", "outputs", "budget", "tune", "figures", "_key")

    def __init__(self, nodes: list[Node], outputs: tuple[int, ...]):
        self.nodes, self.outputs = nodes, outputs
        self.budget = 1.0
        self.tune = False
        self.figures: Any = None
        self._key: Any = None

    @property
    def inputs(self) -> list[Node]:
        """Leaf and scalar nodes in binding order."""
        return [n for n in self.nodes if n.op is not None and n.op.kind == "leaf"]

    def producer(self) -> list[Node]:
        """For each slot the node that makes it."""
        return [n for n in self.nodes for _ in n.avals]

    def slot_avals(self) -> list[Aval]:
        """For each slot its aval."""
        return [a for n in self.nodes for a in n.avals]

    def key(self) -> tuple[Any, ...]:
        """Canonical structural key: equal keys mean the same program over leaves of the same avals."""
        if self._key is None:
            self._key = (tuple((n.op, n.ins, n.attrs) for n in self.nodes), self.outputs, self.budget, self.tune)
        return self._key

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Graph) and self.key() == other.key())

    def __hash__(self) -> int:
        return hash(self.key())


class GraphBuilder:
    """Appends nodes with consecutive slots: how passes make a new Graph out of an old one."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.avals: list[Aval] = []

    def add(self, op: Op, ins: tuple[int, ...], attrs: Any, avals: tuple[Aval, ...], loc: Loc = None) -> int:
        """Append a node; returns its first slot."""
        node = Node(op, ins, attrs, avals, tuple(self.avals[i] for i in ins), len(self.avals), loc)
        self.nodes.append(node)
        self.avals.extend(avals)
        return node.slot

    def copy(self, node: Node, ins: tuple[int, ...]) -> range:
        """Append a node like ``node`` that reads ``ins``; the slots of its results."""
        first = self.add(node.op, ins, node.attrs, node.avals, node.loc)  # type: ignore[arg-type]
        return range(first, first + len(node.avals))

    def emit(self, op: Op, ins: tuple[int, ...], attrs: Any = (), loc: Loc = None) -> int:
        """Append a node, inferring its output avals."""
        return self.add(op, ins, attrs, op.infer_avals(attrs, tuple(self.avals[i] for i in ins)), loc)

    def graph(self, outputs: tuple[int, ...]) -> Graph:
        return Graph(self.nodes, outputs)
