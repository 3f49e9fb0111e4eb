"""Running a function on one example and replaying what it recorded on all of them.

The function runs on the first example, in a region that continues the one being recorded: its nodes are ordinary nodes, and
values from outside need no special care. Then the nodes its results need are recorded once more by the rules of
``_batching.py``; nodes that do not depend on an example are used as they are, and the example's own nodes, which nothing
reads any more, fall to dead-code elimination.

The tape is replayed along: a node that is on the example's tape is recorded again with gradients on, its inputs carrying
the edges that correspond to those of the example's gradient node. So ``detach``, ``no_grad`` and transforms inside the
function mean what they say, and values from outside get their gradients.
"""
from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from ..ir import build as P
from ..ir.node import Node, PoisonedValue, Value
from ..ir.optable import OPS
from ..ir.recorder import SCALAR, Region, _evaluate_foreign, _pressure, apply, state
from ..ir.tape import AccumulateGrad, GradNode, OutputEdge, alias_value, next_sequence
from ..ops._generator import rng_slots
from ..tensor import Tensor
from ._batching import batched, lift
from ._rules import RuleProgram

_RANDOM_ERROR = ("vmap: called random operation while in randomness error mode. Please either use the 'same' or 'different' "
                 "randomness flags on vmap or perform the randomness operation out of vmap")
_ESCAPED = ("vmap: a value that depends on a mapped input was written to, or kept in, something that lives outside of the "
            "function; return it instead")
_IN_PLACE = ("vmap: inplace arithmetic(self, *extra_args) is not possible because there exists a Tensor `other` in extra_args "
             "that has more elements than `self`. This happened due to `other` being vmapped over but `self` not being vmapped "
             "over in a vmap. Please try to use out-of-place operators instead of inplace arithmetic.")


def example_of(v: Value) -> Value:
    """The first example of a batched value (zeros if there is none)."""
    sh = v.aval.shape
    if not sh[0]:
        return P.full(sh[1:], 0, v.aval.dtype, v.aval.device)
    return P.reshape(P.narrow(v, 0, 0, 1), sh[1:])


class _Slots(dict):  # type: ignore[type-arg]
    """Slots of leaves; values pending in the regions that are continued keep theirs, those left pending in regions that
    ended (numbers a tape saved) are computed."""

    __slots__ = ("outer",)

    def __init__(self, region: Region):
        super().__init__(region.leaf_slots)
        self.outer: tuple[Region, ...] = (region, *getattr(region.leaf_slots, "outer", ()))

    def get(self, v: Value, default: Any = None) -> Any:
        if v.region is None:
            return dict.get(self, v, default)
        if v.region in self.outer:
            return v.slot
        tracing, state.tracing = state.tracing, 0
        try:
            _evaluate_foreign(v)
        finally:
            state.tracing = tracing
        return default


class Continuation:
    """A region that goes on where this thread's stands, in a ``with`` block. Unlike there, every write to a tensor from
    outside is logged. At the end :meth:`join` makes it the region itself; without that, it has never been."""

    def __init__(self) -> None:
        self.outer = outer = state.region
        self.region = reg = Region()
        reg.cursor, reg.bindings, reg.must_flush = outer.cursor, list(outer.bindings), outer.must_flush
        reg.leaf_slots, reg.token = _Slots(outer), outer.token

    def __enter__(self) -> Continuation:
        state.region = self.region
        state.tracing += 1
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        state.tracing -= 1
        state.region = self.outer
        if kind is not None:
            self.undo(self.region.writes)

    def undo(self, entries: Sequence[Any]) -> None:
        """Give tensors the values they had before these writes."""
        for holder, old, *_ in reversed(entries):
            cell = _cell(holder)
            if isinstance(cell, Tensor):
                cell._v = old
            else:
                cell.value = old
                cell.version += 1

    def join(self) -> None:
        """Make the outer region stand where this one does."""
        outer, reg = self.outer, self.region
        for ref in reg.live:
            v = ref()
            if v is not None and v.region is reg:
                v.region = outer
                outer.live.append(ref)
        outer.cursor, outer.bindings, outer.must_flush = reg.cursor, reg.bindings, reg.must_flush
        outer.leaf_slots.update(reg.leaf_slots)
        list.extend(outer.writes, [w for w in reg.writes if w[1].region is not outer])
        if outer.must_flush or outer.cursor.full:
            _pressure(outer)


class Recording:
    """What is recorded in a continuation, until :meth:`replay`."""

    def __init__(self, size: int, randomness: str, inputs: Sequence[Value], examples: Sequence[Value]):
        reg = state.region
        self.region, self.size, self.randomness = reg, size, randomness
        self.start, self.first_binding = reg.slots, len(reg.bindings)
        self.outside: dict[int, Value] = {}  # values all examples share, of a rule replayed in another region
        self.grads = True  # replay the tape, too
        self.sequence = next_sequence()
        self.values: dict[int, Value] = {}  # slot of an example's value -> value for all examples, without edge
        self.edges: dict[Any, Any] = {}  # the example's gradient edge (by _key) -> edge for all examples
        self.tape: dict[int, GradNode] = {}  # slot of a node -> its gradient node
        self.drawn: set[int] = set()  # slots of the nodes that draw random numbers here
        self.numbers: dict[int, Any] = {}  # slots of numbers -> number
        self.random: dict[tuple[Any, Any], tuple[Value, Value]] = {}  # seed and offset -> fresh ones
        for v, ex in zip(inputs, examples):
            self.values[ex.slot] = alias_value(v)
            if ex.gfn is not None:
                self.edges[_key(ex.gfn)] = v.gfn

    def nodes(self) -> list[Node]:
        """The nodes recorded so far, in order."""
        out: list[Node] = []
        node: Node | None = self.region.cursor
        while node is not None and node.op is not None and node.slot >= self.start:
            out.append(node)
            node = node.parent
        return out[::-1]

    def replay(self, outs: Sequence[Value]) -> list[tuple[Value, bool]]:
        """Record for all examples what ``outs`` need: each one's value and whether it depends on the example."""
        middle = self.region.slots
        rules = [(last, RuleProgram(gn, listed)) for last, gn, listed in self._collect_tape([v.gfn for v in outs])]
        self._collect_tape([r.gfn for _, p in rules for r in p.results if r is not None])
        nodes = self.nodes()
        depends = self._depending(nodes)
        mine = [v.region is self.region and v.slot in depends for v in outs]
        wanted = [v.slot for v, m in zip(outs, mine) if m]
        for _, program in rules:
            wanted += program.choose(nodes, middle, depends, self.region)
        needed = _needed(nodes, wanted, depends)
        self.shared = self._shared_edges(outs, mine)
        before, pending = state.grad, list(rules)
        try:
            for node in nodes:
                if node.slot in needed:
                    self._settle(pending, node.slot)
                    self.node(node)
            self._settle(pending, self.region.slots)
            for _, program in rules:
                program.capture(self)
        finally:
            state.grad = before
        return [(self._output(v), True) if m else (v, False) for v, m in zip(outs, mine)]

    def _depending(self, nodes: list[Node]) -> set[int]:
        """Slots that differ between examples. Raises RuntimeError for random ops that were not allowed."""
        found = set(self.values)
        bindings = iter(self.region.bindings[self.first_binding:])
        for node in nodes:
            if node.op.kind == "leaf":  # type: ignore[union-attr]
                number = next(bindings)
                if node.op is SCALAR:
                    self.numbers[node.slot] = number
            # a seed from outside means bits drawn outside, which the gradient of dropout draws again
            random = (node.op is OPS["rng_bits"] or node.op is OPS["dropout"]) and _seed_slots(node)[0] in self.numbers
            if random:
                self.drawn.add(node.slot)
            if random and self.randomness == "error":
                raise RuntimeError(_RANDOM_ERROR)
            if random and self.randomness == "different" or any(s in found for s in node.ins):
                found.update(range(node.slot, node.end))
        self.depends = found
        return found

    # ------------------------------------------------------------------------------------------------------------- tape
    def _collect_tape(self, roots: Sequence[Any]) -> list[tuple[int, GradNode, bool]]:
        """Fill ``tape`` with the gradient nodes of this recording that edges lead to. Returns those with rules of their own,
        each with the slot of the last op before it and whether it has several outputs, in order."""
        found: list[GradNode] = []
        seen: set[int] = set()
        listed: set[int] = set()
        stack = list(roots)
        while stack:
            e = stack.pop()
            gn = e.gn if e.__class__ is OutputEdge else e
            if gn.__class__ is not GradNode or gn.seq < self.sequence:
                continue
            if gn is not e:
                listed.add(id(gn))
            if id(gn) not in seen:
                seen.add(id(gn))
                found.append(gn)
                stack.extend(gn.edges or ())
        found.sort(key=lambda g: g.seq)
        ruled: list[tuple[int, GradNode, bool]] = []
        last = self.start - 1
        for gn in found:
            if gn.rule is not None:
                ruled.append((last, gn, id(gn) in listed))
            elif not gn.released:
                last = gn.node.slot
                self.tape[last] = gn
        return ruled

    def _shared_edges(self, outs: Sequence[Value], mine: Sequence[bool]) -> set[Any]:
        """Edges of values that are the same for all examples, as far as ops and results show."""
        pairs = [(v.gfn, m) for v, m in zip(outs, mine)]
        for gn in self.tape.values():
            pairs += [(e, s in self.depends) for e, s in zip(gn.edges or (), gn.node.ins)]
        return {_key(e) for e, m in pairs if e is not None and not m}

    def _settle(self, pending: list[tuple[int, RuleProgram]], before: int) -> None:
        """Edges for the outputs of the rules' functions that were called before slot ``before``."""
        while pending and pending[0][0] < before:
            _, program = pending.pop(0)
            gn, inner = program.gn, program.gn.edges or ()
            edges = tuple([self.edge(e) for e in inner])
            mapped = tuple([_key(e) in self.edges or e.__class__ is OutputEdge and e.gn in self.edges for e in inner])
            self.edges[gn] = program.node(edges, mapped, self.size, self.shared)

    def edge(self, e: Any) -> Any:
        """The edge for all examples that corresponds to the example's edge ``e``."""
        if e is None:
            return None
        key = _key(e)
        if key in self.edges:
            return self.edges[key]
        if e.__class__ is OutputEdge and e.gn in self.edges:
            return OutputEdge(self.edges[e.gn], e.index)
        if e.__class__ is AccumulateGrad and e.seq >= self.sequence:
            return None  # a leaf made inside: nobody outside can ask for its gradient
        return e

    def with_edge(self, v: Value, edge: Any) -> Value:
        out = alias_value(v)
        out.gfn = edge
        return out

    def value(self, slot: int, node: Node, k: int) -> tuple[Value, bool]:
        found = self.values.get(slot)
        if found is not None:
            return found, True
        if slot in self.outside:
            return self.outside[slot], False
        v = Value(node.in_avals[k], self.region, slot)
        self.region.live.append(weakref.ref(v))
        return v, False

    # ------------------------------------------------------------------------------------------------------------ nodes
    def node(self, node: Node) -> None:
        gn = self.tape.get(node.slot)
        pairs = [self.value(s, node, k) for k, s in enumerate(node.ins)]
        ins, flags = [v for v, _ in pairs], [f for _, f in pairs]
        state.grad = gn is not None and self.grads
        if gn is not None:
            ins = [self.with_edge(v, self.edge(e)) for v, e in zip(ins, gn.edges or ())]
        assert node.op is not None
        if node.op is OPS["rng_bits"] or node.op is OPS["dropout"]:
            outs: Sequence[Value] = (self._random(node, ins, flags),)
        else:
            outs = batched(node.op, node.attrs, ins, flags, self.size)
        for k, o in zip(range(node.end - node.slot), outs):
            self.values[node.slot + k] = alias_value(o)
            if gn is not None:
                self.edges[(gn, k) if node.op.n_out != 1 else gn] = o.gfn

    def _random(self, node: Node, ins: list[Value], flags: list[bool]) -> Value:
        """Random bits, and dropout, which contains them: shared by the examples or drawn for each."""
        dropout = node.op is OPS["dropout"]
        x = ins[0] if dropout else None
        shape = node.attrs[0] if node.attrs[0] is not None else node.in_avals[0].shape
        if self.randomness == "different" and node.slot in self.drawn:
            seed, offset = _seed_slots(node)
            at = self.numbers[seed], self.numbers[offset]
            if at not in self.random:  # its gradient, or a second run of a checkpoint, draws the same bits
                n = self.size
                for d in shape:
                    n *= d
                self.random[at] = rng_slots(n, None)
            slots = self.random[at]
            shape = (self.size, *shape)
        else:
            slots = tuple(ins[1:3] if dropout else ins)  # type: ignore[assignment]
        if x is None:
            return apply(OPS["rng_bits"], slots, (shape,))
        x, p = lift(x, flags[0], self.size), ins[3]
        if flags[3]:  # the row takes one probability; its meaning takes any that broadcasts
            p = P.reshape(p, (self.size, *[1] * (x.aval.ndim - 1)))
            return OPS["dropout"].expand((shape,), x, *slots, p)  # type: ignore[attr-defined]
        return apply(OPS["dropout"], (x, *slots, p), (shape,))

    def _output(self, v: Value) -> Value:
        return self.with_edge(self.values[v.slot], self.edge(v.gfn))

    # ------------------------------------------------------------------------------------------------- what may not leave
    def check_writes(self) -> None:
        """Raises RuntimeError if a value that depends on an example was written to a tensor from outside."""
        log = self.region.writes
        suspects = []
        for holder, old, *_ in log:
            cell = _cell(holder)
            now = cell._v if isinstance(cell, Tensor) else cell.value
            if now.region is self.region and now.slot in self.depends:
                suspects.append((weakref.ref(holder), old))
        if not suspects:
            return
        inside = {id(ref()) for ref, _ in suspects}
        kept = [entry for entry in log if id(entry[0]) not in inside]
        del log[:], holder, cell, now
        list.extend(log, kept)
        alive = [(h, old) for ref, old in suspects if (h := ref()) is not None]  # those made inside are gone by now
        if alive:
            list.extend(log, alive)
            raise RuntimeError(_IN_PLACE)

    def close(self) -> None:
        """Values of an example that somebody still holds must not be mistaken for results: reading them is an error."""
        for ref in self.region.live:
            v = ref()
            if v is not None and v.region is self.region and v.slot in self.depends:
                v.region = None
                v.__class__ = PoisonedValue  # type: ignore[assignment]
                v.buffer = RuntimeError(_ESCAPED)


def _cell(holder: Any) -> Any:
    """What holds the value of a written tensor or storage now: a view of it may have moved it into a storage."""
    alias = getattr(holder, "_alias", None)
    return holder if alias is None else alias.storage


def _seed_slots(node: Node) -> tuple[int, int]:
    """Slots of the seed and the offset of random bits or dropout."""
    return (node.ins[1], node.ins[2]) if node.op is OPS["dropout"] else (node.ins[0], node.ins[1])


def _key(edge: Any) -> Any:
    return (edge.gn, edge.index) if edge.__class__ is OutputEdge else edge


def _needed(nodes: list[Node], wanted: Sequence[int], depends: set[int]) -> set[int]:
    """First slots of the nodes to replay: those that depend on an example and that ``wanted`` slots need."""
    slots = set(wanted)
    out: set[int] = set()
    for node in reversed(nodes):
        if node.slot in depends and any(s in slots for s in range(node.slot, node.end)):
            out.add(node.slot)
            slots.update(node.ins)
    return out
