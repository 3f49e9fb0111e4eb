"""What a compiled function can tell about itself: figures, plans, and what made it compile again."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from ..ir.location import format_location

_ALIVE = 8  # values listed one by one


class Recompile(NamedTuple):
    """A call that built a new plan after the first call had built some."""

    call: int
    reason: str


class Alive(NamedTuple):
    """A value that is alive when a plan needs most memory."""

    nbytes: int
    what: str
    where: str  # the user's line


class Memory(NamedTuple):
    """What a plan needs, in bytes."""

    inputs: int  # tensors it reads
    results: int  # tensors it makes
    reused: int  # bytes of results that may overwrite inputs nobody else holds
    arena: int  # intermediates and scratch, all at once
    alive: list[Alive]  # intermediates at that moment, largest first
    kept_before: int  # forward values the backward pass reads, if nothing is computed again
    kept: int  # the same within the memory budget
    recomputed: int  # values computed again
    flops: int  # of the products and convolutions among them

    @property
    def peak(self) -> int:
        """Inputs, results and intermediates at once."""
        return self.inputs + self.results - self.reused + self.arena

    def __str__(self) -> str:
        def mib(n: int) -> str:
            return f"{n / 2**20:,.2f} MiB"

        lines = [f"memory: {mib(self.peak)} at once: inputs {mib(self.inputs)}, results {mib(self.results)} "
                 f"({mib(self.reused)} of them over inputs), intermediates {mib(self.arena)}"]
        lines += [f"  {mib(a.nbytes)} {a.what} at {a.where}" for a in self.alive[:_ALIVE]]
        if len(self.alive) > _ALIVE:
            lines.append(f"  {mib(sum(a.nbytes for a in self.alive[_ALIVE:]))} in {len(self.alive) - _ALIVE} smaller ones")
        if self.kept_before:
            lines.append(f"kept for backward: {mib(self.kept)}"
                         + (f" of {mib(self.kept_before)}; {mib(self.recomputed)} computed again, {self.flops / 1e9:,.2f} GFLOP"
                            if self.recomputed or self.kept != self.kept_before else ""))
        return "\n".join(lines)


class Explanation:
    """Figures of a compiled function; ``str()`` gives a readable report."""

    def __init__(self, calls: int, plans: int, breaks: dict[str, int], plan: Any, recompiles: list[Recompile],
                 recompile_count: int, replay: Any = None):
        self.calls, self.plans, self.breaks, self.plan = calls, plans, breaks, plan
        self.recompiles, self.recompile_count = recompiles, recompile_count
        self.replayed: int = getattr(replay, "replayed", 0)  # calls that skipped Python
        self.replay_refused: str = "" if replay is None else replay.off or replay.why

    @property
    def graph(self) -> Any:
        """The optimised graph of the latest plan, or None."""
        return getattr(self.plan, "graph", None)

    @property
    def kernels(self) -> list[str]:
        """Names of the kernels and library calls the latest plan runs; empty on the NumPy back end."""
        run = getattr(self.plan, "run", None)
        return run.kernels() if run is not None and hasattr(run, "kernels") else []

    @property
    def memory(self) -> Memory | None:
        """What the latest plan needs; None before there is one."""
        return None if self.graph is None else _memory(self.plan)

    def __str__(self) -> str:
        lines = [f"calls: {self.calls}", f"plans built: {self.plans}", f"recompiled: {self.recompile_count} calls"]
        lines += [f"  call {r.call}: {r.reason}" for r in self.recompiles]
        lines += [f"graph breaks: {sum(self.breaks.values())}"]
        lines += [f"  {where}: {n} host read{'s' if n > 1 else ''}" for where, n in self.breaks.items()]
        if self.replayed or self.replay_refused:
            lines.append(f"replayed without Python: {self.replayed} calls"
                         + (f"; not replayed: {self.replay_refused}" if self.replay_refused else ""))
        if self.graph is not None:
            from ..ir.dump import to_text

            lines += [str(self.memory), f"latest plan: {len(self.graph.nodes)} nodes", to_text(self.graph)]
            if self.kernels:
                lines.append(self.plan.run.to_text())
        return "\n".join(lines)


def _memory(plan: Any) -> Memory:
    from ..ir.recorder import SCALAR

    run = plan.run
    graph = getattr(run, "graph", plan.graph)  # a back end may have rewritten it
    parts = getattr(plan, "parts", ())  # of a plan over several devices
    programs = [getattr(p, "program", None) or getattr(getattr(p, "plan", None), "run", None) for p in parts] or [run]
    avals = graph.slot_avals()
    inputs = [n for n in graph.inputs if n.op is not SCALAR]
    own = {n.slot for n in inputs}
    donors = getattr(run, "donor_of", {})
    return Memory(sum(n.avals[0].nbytes for n in inputs), sum(avals[s].nbytes for s in set(graph.outputs) - own),
                  sum(avals[s].nbytes for s in set(graph.outputs) - own if s in donors),
                  sum(getattr(p, "arena_bytes", 0) for p in programs),
                  _alive(run) if hasattr(run, "lives") else [], *_kept(plan))


def _alive(run: Any) -> list[Alive]:
    """Intermediates of a native plan in the wave that needs most, largest first."""
    change = [0] * (len(run.waves) + 1)
    for x in run.lives:
        change[x.first] += x.nbytes
        change[x.last + 1] -= x.nbytes
    sums = list(accumulate(change))
    peak = max(range(len(sums)), key=sums.__getitem__)
    producer = run.graph.producer()
    out = []
    for x in sorted(run.lives, key=lambda x: -x.nbytes):
        if x.first <= peak <= x.last:
            slot = _slot_of(x.slot)
            node = None if slot is None else producer[slot]
            name = "?" if node is None else node.op.name if x.slot is slot else f"working memory of {node.op.name}"
            what = f"{run.avals[x.slot]!r} {name}" if x.slot is slot else name
            out.append(Alive(x.nbytes, what, format_location(None if node is None else node.loc)))
    return out


def _slot_of(key: Any) -> int | None:
    """The slot a buffer belongs to: steps name theirs by tuples with a slot somewhere inside."""
    todo = [key]
    while todo:
        k = todo.pop(0)
        if isinstance(k, int):
            return k
        if isinstance(k, tuple):
            todo += k
    return None


def _kept(plan: Any) -> tuple[int, int, int, int]:
    """Bytes kept for backward without and with recomputation, bytes and flops computed again."""
    from ..ir.marks import with_turns, without_turns
    from ..ir.passes import PASSES
    from ..ir.passes.recompute import Boundary

    graphs = [p.part.graph for p in getattr(plan, "parts", ())] or [plan.recorded]
    figures = [g.figures for g in graphs if g.figures is not None]
    if figures:
        kept_before, kept, recomputed, _, flops = [sum(column) for column in zip(*figures)]
        return kept_before, kept, recomputed, flops
    graph = with_turns(plan.recorded)
    for p in PASSES:
        graph = p(graph)
    graph, walks = without_turns(graph)
    kept = sum(Boundary(graph, start, walks[:k]).kept_before for k, (start, _) in enumerate(walks))
    return kept, kept, 0, 0


def difference(graph: Any, known: Sequence[Any]) -> str:
    """What part of ``graph``'s key differs from the closest of the ``known`` graphs, as half a sentence."""
    if not known:
        return "no program was compiled before"
    return _describe(graph, max(reversed(known), key=lambda g: _likeness(graph, g)))


def _likeness(a: Any, b: Any) -> float:
    """Share of equal keys at equal places."""
    pairs = zip(a.nodes, b.nodes)
    equal = sum([2 if x.ins == y.ins and x.attrs == y.attrs else 1 for x, y in pairs if x.op is y.op])
    return equal / (2 * max(len(a.nodes), len(b.nodes), 1))


def _describe(new: Any, old: Any) -> str:
    inputs = list(zip(new.inputs, old.inputs))
    same_ops = len(new.nodes) == len(old.nodes) and all(x.op is y.op for x, y in zip(new.nodes, old.nodes))
    if same_ops:
        for k, (x, y) in enumerate(inputs):
            if x.attrs != y.attrs:
                return f"input {k} at {format_location(x.loc)} is {x.avals[0]!r}, was {y.avals[0]!r}"
    for x, y in zip(new.nodes, old.nodes):
        what = _node_difference(x, y)
        if what:
            return what
    if len(new.nodes) > len(old.nodes):
        return f"it goes on with {_named(new.nodes[len(old.nodes)])}"
    if len(new.nodes) < len(old.nodes):
        return f"it ends before {_named(old.nodes[len(new.nodes)])}"
    gone, more = len(set(old.outputs) - set(new.outputs)), len(set(new.outputs) - set(old.outputs))
    return f"other results are kept: {more} that were dropped before, {gone} fewer of the others"


def _node_difference(x: Any, y: Any) -> str:
    if x.op is not y.op:
        return f"{_named(x)} came where {_named(y)} was"
    if x.attrs != y.attrs:
        if x.op.kind == "leaf":
            return f"an input at {format_location(x.loc)} is {x.avals[0]!r}, was {y.avals[0]!r}"
        return f"{_named(x)} has {_attributes(x, y)}"
    return f"{_named(x)} takes other operands" if x.ins != y.ins else ""


def _attributes(x: Any, y: Any) -> str:
    """The attributes that differ, by name where the op names them."""
    names = getattr(x.op, "attrs", ())
    a, b = (x.attrs, y.attrs) if isinstance(x.attrs, tuple) else ((x.attrs,), (y.attrs,))
    if len(a) == len(b) == len(names):
        parts = [f"{n}={_short(p)} (was {_short(q)})" for n, p, q in zip(names, a, b) if p != q]
        return ", ".join(parts)
    return f"attributes {_short(a)}, had {_short(b)}"


def _named(node: Any) -> str:
    name = "an input" if node.op.kind == "leaf" else node.op.name
    return f"{name} at {format_location(node.loc)}"


def _short(x: Any) -> str:
    text = repr(x)
    return text if len(text) <= 60 else text[:57] + "..."


__all__ = ["Alive", "Explanation", "Memory", "Recompile", "difference"]
