"""Fusion: partition a graph of primitives into kernels and library calls.

Algorithm. Nodes are visited once in topological order. Movement ops, constants and arithmetic on single host scalars
belong to no group: they are folded into whoever reads them. Every other node either calls a library (contractions,
sorts, ...: a group of its own) or is *loop code*: pointwise, gather-like reads, reductions.

A group of loop code has a space: ``rows`` x ``width``. A pointwise group has width None (not decided); its first
reduction decides it. A node may join the group of one of its producers when its size is that of the rows or of the
full space (a reduction: when its kept and reduced sizes are the group's), and it then pulls in its other producers'
groups likewise: so producers and consumers, row-wise chains (softmax, norms, cross entropy) and reductions with their
epilogues each become one kernel. After the sweep, independent groups over the same space that read a common large value
are merged too (siblings).

A merge is legal when no path runs from one group to the other through a third one, and when no member needs another
member's *whole* result (a ``hard`` input: what a library call gives, or a cut). Paths are kept as one int bitset of ancestors a
group. Every rejected merge keeps its reason in :attr:`Schedule.rejected`.

What the lowering can't express in one kernel comes back as a cut: the value named must be read from memory by its
consumers, and the partition is made again.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..dtypes import bfloat16, bool_, float16, float32, float64, int8, int16, int32, int64, uint8, uint32
from ..ir.marks import AFTER
from ..ir.node import Graph, Node
from . import index
from .index import Ix
from .loop_ir import Kernel
from .lower import Piece, Unfusable, lower_group, strided_view

LOOP_DTYPES = frozenset((bool_, uint8, int8, int16, int32, int64, uint32, float16, bfloat16, float32, float64))
MAX_NODES = 160  # of one group: bounds registers and compile time
MAX_BUFFERS = 32
SHORT = 16  # elements of a window
TINY, REACH = 1 << 16, 8  # elements of groups that are merged to start fewer kernels, and how many such groups are looked at
TOGETHER = 16  # values such a kernel may read: each takes registers
MAX_JOINED = 4  # operands of a concat that is folded into its reader
MAX_GUARDS = 16  # of the movement ops behind a value: a tensor that grows by concatenation would become one endless condition
SHRINKS = 4  # times fewer bytes that a group stores than it reads, so that running it early saves memory
_INT_CHECKED = ("fmod", "remainder", "floordiv")  # on integers: divisors must be looked at, a library call does
_SCALAR_CHAIN = 16  # host-scalar ops folded into each reader


@dataclass
class Group:
    """Nodes that run together. ``width`` is None for pointwise groups."""

    id: int
    nodes: list[Node]
    rows: int
    width: int | None
    library: bool = False
    ancestors: int = 0  # bitset of group ids that must run before
    hard: int = 0  # bitset of groups whose results must be complete before
    reads: set[int] = field(default_factory=set)  # slots read from outside
    windows: bool = False  # reduces short windows that do not lie in a row in memory (pooling)

    @property
    def full(self) -> int:
        return self.rows * (self.width or 1)


@dataclass
class Schedule:
    """What runs, in order: kernels, and nodes evaluated by a library."""

    steps: list[Kernel | Node]
    views: dict[int, tuple[int, Ix]]  # slot a library call reads in place: (slot in memory, element index over its axes)
    rejected: list[str]
    waits: dict[int, frozenset[int]] = field(default_factory=dict)  # place of a step -> slots to be complete before, not read


def _loopable(node: Node) -> bool:
    """Whether the node can be loop code."""
    op = node.op
    assert op is not None
    avals = (*node.avals, *node.in_avals)
    if any(a.dtype not in LOOP_DTYPES or a.size == 0 for a in avals):
        return False
    if op.kind in ("pointwise", "reduce"):
        if op.name in _INT_CHECKED or op.name == "pow":
            return node.avals[0].dtype.is_floating_point
        return True
    if op.name in ("rng_bits", "take", "gather"):
        return True
    return op.name == "slice_set" and all(s == 1 for s in node.attrs[2])


def _foldable(node: Node) -> bool:
    """Whether the node is a movement op (or constant) its readers absorb."""
    op = node.op
    assert op is not None
    if op.name in ("const", "iota"):
        return node.avals[0].dtype in LOOP_DTYPES and node.avals[0].size > 0
    if op.kind != "view" or any(a.dtype not in LOOP_DTYPES or a.size == 0 for a in (*node.avals, *node.in_avals)):
        return False
    return op.name != "concat" or len(node.ins) <= MAX_JOINED


class Partition:
    """One attempt at grouping, under given cuts."""

    def __init__(self, graph: Graph, cuts: set[int], gather: bool = False):
        self.graph, self.cuts = graph, cuts
        self.producer = graph.producer()
        self.groups: dict[int, Group] = {}
        self.opened = 0
        self.home: dict[int, int] = {}  # first slot of a grouped node -> group id
        self.folded: set[int] = set()  # slots of movement ops, constants and host-scalar chains
        self.sources: list[frozenset[int]] = []  # slot -> slots of grouped nodes and leaves it is made of
        self.waits: dict[int, frozenset[int]] = {}  # folded slot -> grouped slots that must be complete before it is read
        self.chain: dict[int, int] = {}  # folded host-scalar slot -> length of its chain
        self.guards: dict[int, int] = {}  # folded slot -> guards of the movement ops it is made by
        self.rejected: list[str] = []
        self.outputs = set(graph.outputs)
        self.alone = self.outputs - {s for n in graph.nodes for s in n.ins} if gather else set()  # outputs nobody reads
        for node in graph.nodes:
            self.place(node)
        self.siblings()
        if gather:
            self.sink()
            self.gather()

    # ------------------------------------------------------------------------------------------------------ placing
    def place(self, node: Node) -> None:
        """Fold the node, or give it a group."""
        op = node.op
        assert op is not None
        if op.kind == "leaf":
            self.sources.append(frozenset((node.slot,)))
            return
        guards = sum([self.guards.get(s, 0) for s in node.ins])
        guards += len(node.ins) - 1 if op.name == "concat" else op.name == "pad"
        if _foldable(node) and guards <= MAX_GUARDS or node.slot not in self.alone and self.is_scalar_chain(node):
            self.folded.add(node.slot)
            self.guards[node.slot] = guards
            gates = self.sources[node.ins[1]] if node.op is AFTER else frozenset()
            parts = node.ins[:1] if node.op is AFTER else node.ins
            self.sources.append(frozenset().union(*[self.sources[s] for s in parts]))
            waits = gates.union(*[self.waits[s] for s in parts if s in self.waits])
            if waits:
                self.waits[node.slot] = waits
            return
        self.sources.extend(frozenset((s,)) for s in range(node.slot, node.end))
        if _loopable(node):
            self.join(node)
        else:
            self.open(node, library=True)

    def is_scalar_chain(self, node: Node) -> bool:
        """Cheap arithmetic on zero-dim inputs, recomputed by every reader rather than stored."""
        if node.op.kind != "pointwise" or not _loopable(node) or node.avals[0].size != 1:  # type: ignore[union-attr]
            return False
        length = 1
        for s in node.ins:
            p = self.producer[s]
            if p.op.kind == "leaf" and p.avals[0].ndim == 0 or p.op.name == "const":  # type: ignore[union-attr]
                continue
            if s not in self.chain and not (s in self.folded and not self.sources[s]):
                return False
            length += self.chain.get(s, 0)
        if length > _SCALAR_CHAIN:
            return False
        self.chain[node.slot] = length
        return True

    def open(self, node: Node, library: bool = False) -> Group:
        """A new group of one node."""
        rows, width = _space(node) if not library else (0, None)
        g = Group(self.opened, [node], rows, width, library, windows=self.slides(node))
        self.opened += 1
        self.groups[g.id] = g
        self.home[node.slot] = g.id
        self.attach(g, node)
        return g

    def group_at(self, slot: int) -> Group | None:
        """The group computing a slot, None for leaves."""
        gid = self.home.get(self.producer[slot].slot)
        return None if gid is None else self.groups[gid]

    def attach(self, g: Group, node: Node) -> None:
        """Record what the node makes its group depend on."""
        new = 0
        for gate in self.gates(node):
            if gate is not g:
                new |= gate.ancestors | 1 << gate.id
                g.hard |= 1 << gate.id
        for s in (x for i in node.ins for x in self.sources[i]):
            h = self.group_at(s)
            if h is None or h is not g:
                g.reads.add(s)
            if h is not None and h is not g:
                new |= h.ancestors | 1 << h.id
                if s in self.cuts or g.library or h.library:
                    g.hard |= 1 << h.id
        g.ancestors |= new
        if new:
            bit = 1 << g.id
            for other in self.groups.values():
                if other.ancestors & bit:
                    other.ancestors |= new

    def gates(self, node: Node) -> list[Group]:
        """Groups that must be complete before the node, though it reads nothing of theirs."""
        found = {h.id: h for i in node.ins for s in self.waits.get(i, ()) if (h := self.group_at(s)) is not None}
        return list(found.values())

    def join(self, node: Node) -> None:
        """Put a loop node into the latest producer group that takes it, merging its other producers in; else open one."""
        direct: dict[int, Group] = {}
        blocked = 0  # groups that must be complete before the node
        for gate in self.gates(node):
            blocked |= gate.ancestors | 1 << gate.id
        for s in (x for i in node.ins for x in self.sources[i]):
            h = self.group_at(s)
            if h is None:
                continue
            if h.library or s in self.cuts:
                blocked |= h.ancestors | 1 << h.id
            else:
                direct[h.id] = h
        order = sorted(direct.values(), key=lambda h: (-h.ancestors.bit_count(), -h.id))
        target: Group | None = None
        for h in order:
            if target is None:
                if self.takes(h, node, blocked, direct):
                    target = h
                    h.nodes.append(node)
                    self.home[node.slot] = h.id
                    if h.width is None and node.op.kind == "reduce":  # type: ignore[union-attr]
                        h.rows, h.width = _space(node)
                        h.windows = self.slides(node)
                    self.attach(h, node)
            elif self.mergeable(target, h):
                self.merge(target, h)
        if target is None:
            self.open(node)

    def slides(self, node: Node) -> bool:
        """Whether a reduction's rows are short and gathered by movement: values of full size are laid out differently, and
        storing them from such a kernel means writing single elements."""
        if node.op.kind != "reduce" or _space(node)[1] > SHORT:  # type: ignore[union-attr, operator]
            return False
        s = node.ins[0]
        while s in self.folded and self.producer[s].ins and self.producer[s].op.name == "reshape":  # type: ignore[union-attr]
            s = self.producer[s].ins[0]
        return s in self.folded and bool(self.producer[s].ins)

    def takes(self, g: Group, node: Node, blocked: int, direct: dict[int, Group]) -> bool:
        """Whether the node may become a member."""
        bit = 1 << g.id
        if blocked & bit or any(h.ancestors & bit for h in direct.values() if h is not g):
            return self.reject(g, node, "a path runs through another group")
        if len(g.nodes) >= MAX_NODES or len(g.reads) >= MAX_BUFFERS:
            return self.reject(g, node, "the kernel would be too large")
        if not _fits(g, node):
            return self.reject(g, node, "iteration spaces differ")
        return True

    def reject(self, g: Group, node: Node, why: str) -> bool:
        self.rejected.append(f"{node.op.name} (slot {node.slot}) not into group {g.id}: {why}")  # type: ignore[union-attr]
        return False

    # ------------------------------------------------------------------------------------------------------- merging
    def mergeable(self, a: Group, b: Group) -> bool:
        """Whether two groups may become one kernel."""
        if a is b or a.library or b.library or len(a.nodes) + len(b.nodes) > MAX_NODES:
            return False
        if len(a.reads | b.reads) > MAX_BUFFERS or not _same_space(a, b):
            return False
        abit, bbit = 1 << a.id, 1 << b.id
        if a.hard & bbit or b.hard & abit:
            return False
        if any(s in self.cuts for s in a.reads if self.group_at(s) is b) or \
                any(s in self.cuts for s in b.reads if self.group_at(s) is a):
            return False
        for g, h in ((a, b), (b, a)):  # a path g -> other -> h
            gbit = 1 << g.id
            if h.ancestors & gbit and any(h.ancestors >> x.id & 1 and x.ancestors & gbit for x in self.groups.values()
                                          if x is not g and x is not h):
                return False
        return True

    def merge(self, a: Group, b: Group) -> None:
        """Make ``b`` part of ``a``."""
        a.nodes = sorted([*a.nodes, *b.nodes], key=lambda n: n.slot)
        if a.width is None and b.width is not None:
            a.rows, a.width, a.windows = b.rows, b.width, b.windows
        elif a.width is None:
            a.rows = max(a.rows, b.rows)
        abit, bbit = 1 << a.id, 1 << b.id
        a.ancestors = (a.ancestors | b.ancestors) & ~(abit | bbit)
        a.hard = (a.hard | b.hard) & ~(abit | bbit)
        for n in b.nodes:
            self.home[n.slot] = a.id
        del self.groups[b.id]
        a.reads = {s for s in a.reads | b.reads if self.group_at(s) is not a}
        for g in self.groups.values():
            if g.ancestors & bbit or g.ancestors & abit:
                g.ancestors = (g.ancestors & ~bbit) | abit | a.ancestors
            if g.hard & bbit:
                g.hard = (g.hard & ~bbit) | abit

    def siblings(self) -> None:
        """Merge independent groups over the same space that read a common value of full size."""
        readers: dict[tuple[int, int, int | None], list[int]] = {}
        for g in list(self.groups.values()):
            if g.library:
                continue
            for s in sorted(g.reads):
                if self.aval(s).size == g.full and g.full > 1:
                    readers.setdefault((s, g.rows, g.width), []).append(g.id)
        for ids in readers.values():
            live = [self.groups[i] for i in ids if i in self.groups]
            for other in live[1:]:
                if other.id in self.groups and live[0].id in self.groups and self.mergeable(live[0], other):
                    self.merge(live[0], other)

    def sink(self) -> None:
        """Move pointwise work on one large value to the group that reads its result, where that is another: then the value it
        is made of is stored, which others often read too, and not a second one."""
        readers: dict[int, set[int]] = {}
        for g in self.groups.values():
            for n in g.nodes:
                for s in {x for i in n.ins for x in self.sources[i]}:
                    readers.setdefault(s, set()).add(g.id)
        fixed = {x for s in self.outputs for x in self.sources[s]} | self.cuts
        for g in sorted(self.groups.values(), key=lambda g: -g.nodes[-1].slot):
            for n in g.nodes[::-1] if not g.library else ():
                ids = readers.get(n.slot, set())
                if n.op.kind != "pointwise" or n.slot in fixed or len(ids) != 1 or g.id in ids or len(g.nodes) == 1:  # type: ignore[union-attr]
                    continue
                h = self.groups[next(iter(ids))]
                made_of = {x for i in n.ins for x in self.sources[i]}
                large = [s for s in made_of if self.aval(s).size * SHORT > n.avals[0].size]
                if h.library or h.windows or n.avals[0].size != h.full or len(h.nodes) >= MAX_NODES or len(large) != 1:
                    continue
                kept = self.group_at(large[0]) is not g or readers[large[0]] != {g.id} or large[0] in fixed
                if n.avals[0].nbytes * (2 if kept else 1) < self.aval(large[0]).nbytes:
                    continue  # the result takes less memory
                g.nodes.remove(n)
                h.nodes = sorted([*h.nodes, n], key=lambda m: m.slot)
                self.home[n.slot] = h.id
                self.attach(h, n)
                for x in (g, h):
                    x.reads = {s for m in x.nodes for i in m.ins for s in self.sources[i] if self.group_at(s) is not x}
                for s in made_of:
                    readers[s] = {self.home[m.slot] for y in (g, h) for m in y.nodes for i in m.ins if s in self.sources[i]} | (
                        readers[s] - {g.id})

    def gather(self) -> None:
        """Merge small groups over the same space that no path connects, near ones first, though they read nothing in common:
        where starting a kernel takes longer than running it."""
        alike: dict[tuple[int, int | None], list[int]] = {}
        for g in sorted(self.groups.values(), key=lambda g: g.nodes[0].slot):
            if not g.library and g.full <= TINY:
                alike.setdefault((g.rows, g.width), []).append(g.id)
        for ids in alike.values():
            for n, first in enumerate(ids):
                if first not in self.groups:
                    continue
                for other in ids[n + 1:n + 1 + (REACH if self.groups[first].full > 1 else len(ids))]:
                    if other not in self.groups or not self.mergeable(self.groups[first], self.groups[other]):
                        continue
                    a, b = self.groups[first], self.groups[other]
                    if a.full == 1 or len(a.reads | b.reads) <= TOGETHER:
                        self.merge(a, b)

    def aval(self, slot: int):  # type: ignore[no-untyped-def]
        n = self.producer[slot]
        return n.avals[slot - n.slot]

    # ----------------------------------------------------------------------------------------------------- execution
    def due(self, g: Group, wanted: set[int]) -> int:
        """Slot after which the group should run: where its last node was recorded, or where its last operand was if it turns
        much into little. ``wanted``: slots read by other groups, and results."""
        made = [s for s in g.reads if self.producer[s].op.kind != "leaf"]  # type: ignore[union-attr]
        results = sum(a.nbytes for n in g.nodes for k, a in enumerate(n.avals) if n.slot + k in wanted)
        if g.library or not made or sum(self.aval(s).nbytes for s in made) < SHRINKS * results:
            return max(n.slot for n in g.nodes)
        return max(made)

    def ordered(self) -> list[Group]:
        """Groups in an order that respects dependences, keeping the recorded order where free: always the first that can
        run, so that a group delayed by another does not wait for everything else (and its operands with it). What
        turns much into little runs at once: merged with what an optimizer does with it, it would keep large operands alive."""
        wanted = {s for g in self.groups.values() for s in g.reads}.union(*[self.sources[s] for s in self.graph.outputs])
        todo = sorted(self.groups.values(), key=lambda g: self.due(g, wanted))
        done, out = 0, []
        while todo:
            k = next((k for k, g in enumerate(todo) if g.ancestors & ~done == 0), None)
            assert k is not None, "groups depend on each other"
            g = todo.pop(k)
            out.append(g)
            done |= 1 << g.id
        return out


def _space(node: Node) -> tuple[int, int | None]:
    if node.op.kind == "reduce":  # type: ignore[union-attr]
        rows = node.avals[0].size
        return rows, node.in_avals[0].size // max(rows, 1)
    return node.avals[0].size, None


def _fits(g: Group, node: Node) -> bool:
    rows, width = _space(node)
    if width is not None:
        if g.width is not None:
            return (g.rows, g.width) == (rows, width)
        return g.rows == rows * width
    if g.width is None:
        return g.rows == rows
    return rows == g.full and not g.windows or rows == g.rows


def _same_space(a: Group, b: Group) -> bool:
    if a.width is not None and b.width is not None:
        return (a.rows, a.width) == (b.rows, b.width) and a.windows == b.windows
    if a.width is None and b.width is None:
        return a.rows == b.rows
    wide, flat = (a, b) if a.width is not None else (b, a)
    return flat.rows == wide.rows or flat.rows == wide.full and not wide.windows


# ------------------------------------------------------------------------------------------------------------ schedule
def schedule(graph: Graph, gather: bool = False) -> Schedule:
    """Partition and lower ``graph`` (primitives only). ``gather``: also merge what is small and independent."""
    cuts: set[int] = set()
    while True:
        found: list[Unfusable] = []
        lowered = _lower_all(Partition(graph, cuts, gather), found)
        if not found:
            return lowered
        for cut in found:
            if cut.slot in cuts:
                raise AssertionError(f"cutting at slot {cut.slot} did not help: {cut}") from None
        cuts |= {cut.slot for cut in found}


def _readable(found: tuple[int, Ix], shape: tuple[int, ...], node: Node) -> bool:
    """Whether a library call can read a strided view: contractions take any strides, others the buffer as it is."""
    if node.op.name == "contract":  # type: ignore[union-attr]
        return True
    return found[1] == index.flatten([index.var(d) if n != 1 else index.ZERO for d, n in enumerate(shape)], shape)


def _needed(part: Partition) -> tuple[set[int], dict[int, tuple[int, Ix]]]:
    """Slots that must be in memory, and the movement results library calls read in place."""
    producer = part.producer
    needed = {s for s in part.outputs if producer[s].op.kind != "leaf"}  # type: ignore[union-attr]
    views: dict[int, tuple[int, Ix]] = {}
    solid = {n.slot + k for n in part.graph.nodes if n.slot not in part.folded for k in range(len(n.avals))}
    for g in part.groups.values():
        if not g.library:
            needed |= {s for s in g.reads if producer[s].op.kind != "leaf"}  # type: ignore[union-attr]
            continue
        for s in g.nodes[0].ins:
            if s in views:
                continue
            found = strided_view(producer, s, solid) if s in part.folded else None
            if found is not None and _readable(found, part.aval(s).shape, g.nodes[0]):
                views[s] = found
                s = found[0]
            if producer[s].op.kind != "leaf":  # type: ignore[union-attr]
                needed.add(s)
    return needed, views


def _lower_all(part: Partition, cuts: list[Unfusable]) -> Schedule:
    """Kernels and library calls in order. Movement results that must exist in memory (``loose``) are stored by the group
    that computes what they are made of when they have its size, else by a copy kernel of their own; the operands of a
    concatenation each by the group that computes them. ``cuts`` receives why groups cannot be lowered as they are, of all
    groups at once: a program of many alike parts would else be grouped anew for each of them."""
    producer = part.producer
    needed, views = _needed(part)
    loose: list[Loose] = sorted(s for s in needed if s in part.folded)
    for s in loose:
        needed |= {x for x in part.sources[s] if producer[x].op.kind != "leaf"}  # type: ignore[union-attr, index]
    order = part.ordered()
    ready = {s: i for i, g in enumerate(order) for n in g.nodes for s in range(n.slot, n.end)}
    loose = [u for s in loose for u in _pieces(part, s, order, ready)]  # type: ignore[arg-type]
    steps: list[tuple[int, int, Kernel | Node, frozenset[int]]] = []
    for i, g in enumerate(order):
        waits = frozenset().union(*[part.waits[s] for n in g.nodes for s in n.ins if s in part.waits])
        if g.library:
            steps.append((2 * i, g.nodes[0].slot, g.nodes[0], waits))
            continue
        extra = [u for u in loose if _home(part, u, ready) == i and _size_of(part, u) in (g.full, g.rows)]
        try:
            k, stored = _lower_one(part, g, needed, loose, extra, len(steps))
        except Unfusable as cut:
            cuts.append(cut)
            continue
        loose = [u for u in loose if u not in stored]
        if k is not None:
            steps.append((2 * i, g.nodes[0].slot, k, waits))
    for u in loose if not cuts else ():
        node = producer[u] if isinstance(u, int) else u.concat
        try:
            k = lower_group(part.graph, producer, [node], part.folded, [u], _name([node], len(steps)))
        except Unfusable as cut:
            cuts.append(cut)
            continue
        waits = _waits(part, u)
        at = max([2 * ready[x] + 1 for x in _sources(part, u) | waits if x in ready], default=-1)
        steps.append((at, node.slot, k, waits))
    steps.sort(key=lambda t: t[:2])
    return Schedule([t[2] for t in steps], views, part.rejected, {i: t[3] for i, t in enumerate(steps) if t[3]})


Loose = int | Piece


def _sources(part: Partition, u: Loose) -> frozenset[int]:
    """What a movement result, or a piece of one, is made of."""
    return part.sources[u if isinstance(u, int) else u.concat.ins[u.operand]]


def _waits(part: Partition, u: Loose) -> frozenset[int]:
    """What must be complete before a movement result, or a piece of one, is made."""
    return part.waits.get(u if isinstance(u, int) else u.concat.ins[u.operand], frozenset())


def _size_of(part: Partition, u: Loose) -> int:
    return part.aval(u).size if isinstance(u, int) else u.concat.in_avals[u.operand].size


def _home(part: Partition, u: Loose, ready: dict[int, int]) -> int | None:
    """The place of the one group that computes what a movement result is made of, if it need not wait for another."""
    groups = {ready[x] for x in _sources(part, u) if x in ready}
    return groups.pop() if len(groups) == 1 and not _waits(part, u) else None


def _pieces(part: Partition, slot: int, order: list[Group], ready: dict[int, int]) -> list[Loose]:
    """A concatenation as its operands where some group can store one of them into place; anything else as it is."""
    node = part.producer[slot]
    while node.op.name == "reshape":  # type: ignore[union-attr]
        node = part.producer[node.ins[0]]
    if node.op.name != "concat" or node.slot not in part.folded:  # type: ignore[union-attr]
        return [slot]
    pieces = [Piece(slot, node, k) for k, av in enumerate(node.in_avals) if av.size]
    for u in pieces:
        i = _home(part, u, ready)
        if i is not None and not order[i].library and u.concat.in_avals[u.operand].size in (order[i].full, order[i].rows):
            return list(pieces)
    return [slot]


def _lower_one(part: Partition, g: Group, needed: set[int], loose: Sequence[Loose], extra: Sequence[Loose],
               k: int) -> tuple[Kernel | None, Sequence[Loose]]:
    """The kernel of a group and the movement results it stores as well."""
    inside = part.folded | {n.slot for n in g.nodes}
    name = _name(g.nodes, k)
    if extra:
        only_views = {x for u in extra for x in _sources(part, u)}  # values needed for nothing but those results
        for s in part.graph.outputs:
            only_views.discard(s)
        for h in part.groups.values():
            if h is not g:
                only_views -= h.reads
        for u in loose:
            if u not in extra:
                only_views -= _sources(part, u)
        stores: list[Loose] = [n.slot for n in g.nodes if n.slot in needed and n.slot not in only_views]
        try:
            return lower_group(part.graph, part.producer, g.nodes, inside, [*stores, *extra], name), extra
        except Unfusable:
            pass
    slots = [n.slot for n in g.nodes if n.slot in needed]
    return (lower_group(part.graph, part.producer, g.nodes, inside, slots, name), []) if slots else (None, [])


def _name(nodes: Sequence[Node], k: int) -> str:
    """A readable kernel name from the ops it fuses."""
    names = [n.op.name for n in nodes if n.op.name not in ("cast", "where")]  # type: ignore[union-attr]
    picked = list(dict.fromkeys(names))[:6] or ["copy"]
    return f"k{k}_" + "_".join(picked)


def kernel_count(s: Schedule) -> int:
    """Number of kernels and library calls."""
    return len(s.steps)


def total_bytes(s: Schedule) -> int:
    """Estimated bytes all kernels move (library calls: inputs and outputs once)."""
    out = 0
    for k in s.steps:
        if isinstance(k, Kernel):
            out += k.bytes_moved()
        else:
            out += sum(a.nbytes for a in (*k.avals, *k.in_avals))
    return out


__all__ = ["Group", "Partition", "Schedule", "kernel_count", "schedule", "total_bytes", "math"]
