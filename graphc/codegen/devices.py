"""A recorded program over several devices, cut into programs on one device each.

Where a node runs follows from the device of its results. A copy between devices is no node of any part: whoever reads its
result reads its source, moved there. Work on the host that starts from nothing but numbers (constants, random words) and is
needed on one device only moves to that device with its readers, so that ``randn(..., device="cuda")`` never touches host
memory. Parts are numbered by how often the longest way to them changes the device; those of one number are independent.

The graphs of parts say "cpu" everywhere: back ends and passes need not know about devices.
"""
from __future__ import annotations

from typing import Any, NamedTuple

from ..device import CPU, device
from ..ir.node import Aval, Graph, GraphBuilder, Node, aval
from ..ir.passes.dce import dce
from ..ir.recorder import LEAF, SCALAR

_FREE = ("const",)  # cheaper to make again in every part than to move


class Part(NamedTuple):
    """A program on one device. ``reads`` name the slot of the whole program behind each input of ``graph``, ``writes`` those
    its outputs are. Zero-dim host operands of a device's program are scalars of its graph."""

    device: device
    graph: Graph
    reads: tuple[int, ...]
    writes: tuple[int, ...]


class Split(NamedTuple):
    """Parts in order. ``outputs``: (slot, device) of each output of the program, to be moved there if it lies elsewhere.
    ``leaves``: (number of the binding, slot, device); ``numbers``: (number of the binding, slot)."""

    parts: tuple[Part, ...]
    outputs: tuple[tuple[int, device], ...]
    leaves: tuple[tuple[int, int, device], ...]
    numbers: tuple[tuple[int, int], ...]
    home: dict[int, device]  # where a slot is made


def on_devices(graph: Graph) -> bool:
    """Whether something of a program lives elsewhere than on the host."""
    return any(a.device is not CPU for n in graph.nodes for a in n.avals)


def split(graph: Graph) -> Split:
    """Cut a program."""
    return _Splitter(dce(graph), graph.budget).split()


class _Splitter:
    def __init__(self, graph: Graph, budget: float):
        self.graph, self.nodes, self.budget = graph, graph.nodes, budget
        self.turns = [n for n in graph.nodes if n.turn]  # where backward passes begin and end
        self.avals = graph.slot_avals()
        self.maker = [k for k, n in enumerate(graph.nodes) for _ in n.avals]
        self.root: list[int] = []  # slot -> slot behind copies
        self.place: list[device | None] = []  # node -> where it runs; None: anywhere
        self.level: list[int] = []

    def split(self) -> Split:
        self.find_places()
        self.sink()
        self.find_levels()
        groups: dict[tuple[int, bool, str], list[Node]] = {}
        for k, node in enumerate(self.nodes):
            where = self.place[k]
            if where is not None and node.op is not LEAF and not self.is_copy(node):
                # devices first: the host works while they do
                groups.setdefault((self.level[k], where is CPU, str(where)), []).append(node)
        outputs = tuple([(self.root[s], self.avals[s].device) for s in self.graph.outputs])
        needed = {s for s, _ in outputs}
        inside = {key: {s for n in nodes for s in range(n.slot, n.end)} for key, nodes in groups.items()}
        for key, nodes in groups.items():
            needed |= {self.root[s] for n in nodes for s in n.ins} - inside[key]
        parts = tuple([self.part(groups[key], needed) for key in sorted(groups)])
        free = [n for k, n in enumerate(self.nodes) if self.place[k] is None and n.op is not SCALAR and n.slot in needed]
        wanted = {s for s, _ in outputs}
        alone = [n for n in free if n.slot in wanted]  # constants that are results themselves
        if alone:
            parts = (self.part(alone, needed, CPU), *parts)
        leaves, numbers = [], []
        for b, node in enumerate(self.graph.inputs):
            if node.op is SCALAR:
                numbers.append((b, node.slot))
            else:
                leaves.append((b, node.slot, node.avals[0].device))
        home = {s: self.place[k] or CPU for k, n in enumerate(self.nodes) for s in range(n.slot, n.end)}
        return Split(parts, outputs, tuple(leaves), tuple(numbers), home)

    @staticmethod
    def is_copy(node: Node) -> bool:
        return node.op is not None and node.op.name == "copy"

    def find_places(self) -> None:
        """Where each node's results say it runs, and what lies behind copies."""
        for node in self.nodes:
            assert node.op is not None
            for s in range(node.slot, node.end):
                self.root.append(self.root[node.ins[0]] if self.is_copy(node) else s)
            if node.op is SCALAR or node.op.name in _FREE:
                self.place.append(None)
            else:
                self.place.append(next((a.device for a in node.avals if a.device is not CPU), CPU))

    def sink(self) -> None:
        """Move host work that starts from numbers to the only device that needs it."""
        made: list[bool] = []  # node -> whether it is host work on nothing but numbers
        for k, node in enumerate(self.nodes):
            free = self.place[k] is None
            made.append(free or self.place[k] is CPU and node.op is not LEAF and not self.is_copy(node)
                        and all(made[self.maker[s]] for s in node.ins))
        readers: list[set[device | None]] = [set() for _ in self.nodes]
        for s in self.graph.outputs:
            readers[self.maker[s]].add(self.avals[s].device)
        for k in range(len(self.nodes) - 1, -1, -1):
            node, wanted = self.nodes[k], readers[k]
            if made[k] and self.place[k] is CPU and len(wanted) == 1 and CPU not in wanted:
                self.place[k] = next(iter(wanted))
            for s in node.ins:
                readers[self.maker[s]] |= wanted if self.place[k] is None else {self.place[k]}

    def find_levels(self) -> None:
        """How often the longest way to a node changes the device."""
        for k, node in enumerate(self.nodes):
            level = 0
            for s in node.ins:
                j = self.maker[s]
                still = self.place[j] is None or self.place[j] is self.place[k] or self.nodes[j].op is LEAF
                level = max(level, self.level[j] + (not still))
            self.level.append(level)

    def part(self, nodes: list[Node], needed: set[int], where: device | None = None) -> Part:
        """The graph of some nodes of one device."""
        b = GraphBuilder()
        where = where or self.place[self.maker[nodes[0].slot]] or CPU
        new: dict[int, int] = {}
        reads: list[int] = []

        def slot_of(s: int) -> int:
            s = self.root[s]
            if s not in new:
                node, av = self.nodes[self.maker[s]], stripped_aval(self.avals[s])
                if self.place[self.maker[s]] is None and node.op is not SCALAR:
                    new[s] = b.add(node.op, (), node.attrs, (av,), node.loc)  # type: ignore[arg-type]
                else:
                    number = node.op is SCALAR or where is not CPU and av.ndim == 0 and self.home(s) is CPU
                    number = number and (where is CPU or not av.dtype.is_complex)  # cells hold no complex numbers
                    new[s] = b.add(SCALAR if number else LEAF, (), (av,), (av,), node.loc)
                    reads.append(s)
            return new[s]

        turns = 0
        for node in nodes:
            while turns < len(self.turns) and self.turns[turns].slot < node.slot:
                if b.nodes:
                    b.nodes[-1].turn |= self.turns[turns].turn
                turns += 1
            ins = tuple([slot_of(s) for s in node.ins])
            avals = tuple([stripped_aval(a) for a in node.avals])
            first = b.add(node.op, ins, stripped(node.attrs), avals, node.loc)  # type: ignore[arg-type]
            for i in range(len(avals)):
                new[node.slot + i] = first + i
        for node in self.turns[turns:]:
            b.nodes[-1].turn |= node.turn
        mine = [s for n in nodes for s in range(n.slot, n.end) if s in needed]
        graph = b.graph(tuple([new[s] for s in mine]))
        graph.budget = self.budget
        return Part(where, graph, tuple(reads), tuple(mine))

    def home(self, slot: int) -> device:
        return self.place[self.maker[slot]] or CPU


def stripped_aval(av: Aval) -> Aval:
    """The same on the host."""
    return av if av.device is CPU else aval(av.shape, av.dtype, CPU)


def stripped(x: Any) -> Any:
    """Attributes with every device replaced by the host, sub-graphs included."""
    if isinstance(x, device):
        return CPU
    if isinstance(x, tuple):
        made = tuple([stripped(e) for e in x])
        return x if all(a is b for a, b in zip(made, x)) else made
    if isinstance(x, Aval):
        return stripped_aval(x)
    return stripped_graph(x) if isinstance(x, Graph) and on_devices(x) else x


def stripped_graph(graph: Graph) -> Graph:
    """The same program on the host, copies left out."""
    b = GraphBuilder()
    new: list[int] = []
    for node in graph.nodes:
        ins = tuple([new[s] for s in node.ins])
        if node.op is not None and node.op.name == "copy":
            new.append(ins[0])
            continue
        avals = tuple([stripped_aval(a) for a in node.avals])
        first = b.add(node.op, ins, stripped(node.attrs), avals, node.loc)  # type: ignore[arg-type]
        new.extend(range(first, first + len(avals)))
    return b.graph(tuple([new[s] for s in graph.outputs]))
