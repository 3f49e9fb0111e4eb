"""Compute large intermediates again where they are read, when that moves fewer bytes than storing and loading them.

Algorithm. The graph is partitioned as for fusion. A pointwise value that is stored only because kernels of other groups read
it could instead be computed there from *roots*: what is in memory anyway (inputs, results of products, values stored for
somebody else) and small values (a number a row). In topological order, each such value whose bytes (one store and a load per
reader) exceed those of the roots that its readers do not load yet, and of roots that must be stored now, is copied into its
readers. So softmax and normalisations keep a few numbers a row for the backward pass, activations their input in 16 bits.

A copy must not fall back into the group it came from: its operands then come through ``AFTER`` a value that its reader waits
for and that depends on that group. All operations are the same, so the bits are too.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...ir.marks import AFTER
from ...ir.node import Graph, GraphBuilder, Node
from ...ir.passes.dce import dce
from ..fuse import Group, Partition
from . import conv

LARGE = 1 << 16  # elements worth the trouble
MAX_CHAIN = 24  # nodes computed again
SMALL = 16  # times smaller: roots that may be stored for nothing
MOVES = ("reshape", "expand")
PRODUCTS = ("contract", *conv.NAMES)


@dataclass
class Copied:
    """A value computed again: its roots, and by group of readers the slot whose completion the copy waits for."""

    roots: frozenset[int]
    gates: dict[int, int | None]


class _Finder:
    """Decides what is computed again."""

    def __init__(self, graph: Graph):
        self.graph, self.part = graph, Partition(graph, set(), gather=True)
        self.avals = graph.slot_avals()
        self.reads = {g.id: set(g.reads) for g in self.part.groups.values()}
        self.readers: dict[int, list[Group]] = {}
        for g in self.part.groups.values():
            for s in g.reads:
                self.readers.setdefault(s, []).append(g)
        self.place = {n.slot: i for i, n in enumerate(graph.nodes)}
        self.chosen: dict[int, Copied] = {}

    def find(self) -> dict[int, Copied]:
        """The values, in topological order."""
        for node in self.graph.nodes:
            g = self.part.group_at(node.slot) if node.avals else None
            if g is None or g.library or node.op.kind != "pointwise" or node.avals[0].size < LARGE:  # type: ignore[union-attr]
                continue
            readers = self.readers.get(node.slot, [])
            if not readers or node.slot in self.part.outputs or any(r.library for r in readers):
                continue
            found = self.copied(node, g, readers)
            if found is not None:
                self.chosen[node.slot] = found
                for r in readers:
                    self.reads[r.id] = self.reads[r.id] - {node.slot} | found.roots
        return self.chosen

    def copied(self, node: Node, g: Group, readers: list[Group]) -> Copied | None:
        """How a value is computed again, or None where that does not pay."""
        roots = self.roots(node, g)
        if roots is None:
            return None
        size = self.avals[node.slot].nbytes
        saved = size * (1 + len(readers))
        for r in roots:
            nbytes = self.avals[r].nbytes
            saved -= sum(nbytes for x in readers if r not in self.reads[x.id])
            saved -= 0 if self.in_memory(r) else nbytes
        if saved * 8 < size:
            return None
        gates: dict[int, int | None] = {}
        for x in readers:
            gate = self.gate(node, x, roots)
            if gate == -1:
                return None
            gates[x.id] = gate
        return Copied(frozenset(roots), gates)

    def in_memory(self, slot: int) -> bool:
        """Whether a value is stored whatever is decided here."""
        node = self.part.producer[slot]
        if node.op.kind == "leaf" or slot in self.part.outputs:  # type: ignore[union-attr]
            return True
        g = self.part.group_at(slot)
        readers = self.readers.get(slot, [])
        if g is not None and g.library:  # a product's only reader may take it from registers
            alone = len(readers) == 1 and readers[0].width is None and not readers[0].library
            return node.op.name not in PRODUCTS or not alone  # type: ignore[union-attr]
        return bool(readers) and slot not in self.chosen

    def roots(self, node: Node, g: Group) -> set[int] | None:
        """What the value is computed from; None where it is not a little pointwise code."""
        todo, seen, roots, length = list(node.ins), {node.slot}, set(), 1
        while todo:
            s = todo.pop()
            if s in seen:
                continue
            seen.add(s)
            made = self.part.producer[s]
            op = made.op
            assert op is not None
            home = self.part.group_at(s)
            small = self.avals[s].size * SMALL <= node.avals[0].size
            if op.kind == "leaf" or home is not None and (home.library or op.kind != "pointwise"):
                if op.kind == "reduce" and not small:
                    return None
                roots.add(s)
            elif home is not None and (small or s in self.readers and s not in self.chosen):
                roots.add(s)
            elif op.kind == "pointwise" or op.name in ("const", "iota", *MOVES) or home is None and op is not AFTER:
                if home is None and op.kind == "view" and op.name not in MOVES:
                    return None
                length += op.kind == "pointwise"
                todo += made.ins
            else:
                return None
            if length > MAX_CHAIN:
                return None
        return roots

    def gate(self, node: Node, reader: Group, roots: set[int]) -> int | None:
        """A slot the copy waits for; None if it need not wait, -1 if there is none."""
        from_groups = 0
        for r in roots:
            h = self.part.group_at(r)
            if h is not None and not h.library:
                from_groups |= 1 << h.id
        if not from_groups:
            return None
        first = min(self.place[n.slot] for n in reader.nodes if node.slot in self.sources(n))
        for s in sorted(self.part.groups[reader.id].reads | roots, reverse=True):
            h = self.part.group_at(s)
            if h is not None and not from_groups & ~h.ancestors and self.place[self.part.producer[s].slot] < first:
                return s
        return -1

    def sources(self, n: Node) -> set[int]:
        """What a node reads, movement looked through."""
        return {x for s in n.ins for x in self.part.sources[s]}


def recompute(graph: Graph) -> Graph:
    """An equal graph in which large values are computed again where that moves fewer bytes."""
    if not graph.nodes or max([a.size for a in graph.slot_avals()], default=0) < LARGE:
        return graph
    finder = _Finder(graph)
    chosen = finder.find()
    return dce(_Writer(finder, chosen).graph()) if chosen else graph


class _Writer:
    """The new program."""

    def __init__(self, f: _Finder, chosen: dict[int, Copied]):
        self.f, self.part, self.chosen = f, f.part, chosen
        self.b = GraphBuilder()
        self.new: list[int] = []
        self.memo: dict[Any, int] = {}

    def graph(self) -> Graph:
        """All nodes in their order, copies before their first reader."""
        for node in self.f.graph.nodes:
            g = self.part.group_at(node.slot) if node.avals else None
            ins = tuple([self.read(s, g) for s in node.ins])
            self.new.extend(self.b.copy(node, ins))
        return self.b.graph(tuple([self.new[s] for s in self.f.graph.outputs]))

    def read(self, slot: int, g: Group | None) -> int:
        """A value as a group reads it."""
        if g is None:
            return self.new[slot]
        mine = {t for t in self.part.sources[slot] if t in self.chosen and g.id in self.chosen[t].gates}
        if not mine:
            return self.new[slot]
        return self.copy(slot, g, None)

    def copy(self, root: int, g: Group, within: int | None) -> int:
        """A copy for group ``g`` of a value computed again, or of movement of one; ``within``: the value whose chain it is."""
        todo: list[tuple[int, int | None]] = [(root, within)]
        while todo:
            slot, t = todo[-1]
            key = (g.id, slot, t)
            if key in self.memo:
                todo.pop()
                continue
            if t is None and slot in self.chosen and g.id in self.chosen[slot].gates:
                t = slot
            elif t is None and not any(x in self.chosen and g.id in self.chosen[x].gates for x in self.part.sources[slot]):
                self.memo[key] = self.new[slot]
                continue
            elif t is not None and slot in self.chosen[t].roots:
                self.memo[key] = self.after(slot, g, t)
                continue
            node = self.part.producer[slot]
            missing = [(s, t) for s in node.ins if (g.id, s, t) not in self.memo]
            if missing:
                todo += missing
                continue
            ins = tuple([self.memo[g.id, s, t] for s in node.ins])
            self.memo[key] = self.b.add(node.op, ins, node.attrs, node.avals, node.loc)  # type: ignore[arg-type]
        return self.memo[g.id, root, within]

    def after(self, slot: int, g: Group, t: int) -> int:
        """A root, read when the gate is complete."""
        gate, h = self.chosen[t].gates[g.id], self.part.group_at(slot)
        if gate is None or h is None or h.library or gate == slot:
            return self.new[slot]
        key = (g.id, slot, "after", gate)
        if key not in self.memo:
            self.memo[key] = self.b.emit(AFTER, (self.new[slot], self.new[gate]))
        return self.memo[key]


__all__ = ["recompute"]
