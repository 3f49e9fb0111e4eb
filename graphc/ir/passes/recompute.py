"""Memory budgets: compute forward values again in the backward pass instead of keeping them.

Algorithm. For every backward pass of the program the nodes before it are *forward*; of those behind it that no product or
other library call of theirs precedes, *light* ones (masks, factors of a derivative) depend on forward values alone; everything
behind the first library calls (*roots*) is *gradient* code. A value that gradient code reads is either kept, at the price of
its bytes, or computed again from values that are there, at the price of the work times a rate. For a given rate the best
choice is a minimum cut of the network with an edge in -> out (capacity: bytes) per value, source -> in (capacity: rate times
work), out -> in' for every reader, and out -> sink where gradient code reads. Work of library calls and reductions counts
``HEAVY`` times, so they come last; among equal values, earlier ones are copied first.

The budget is the share of the bytes kept that may be alive, kept or copied: falling rates are tried, with bisection, until the
estimated peak of the program is lower by the rest. A copy that early gradient code needs for another copy, and late gradient
code again, is as bad as a value kept; so choices in which values read far apart (a residual stream) are never copied are tried
as well. Of all choices that reach the goal, or else come close to the lowest peak, the one with the least work is taken.

A copy is placed before its first reader and reads its operands through ``AFTER`` the library call that this reader waits for
anyway, so no pass can merge it with the forward value or run it earlier. All ops are pure (random bits are a function of
seed and offset), so a copy has the bits of the original wherever equal operations round equally: reductions may be summed in
another order inside another kernel, and are copied only if the budget asks for library calls as well.

The idea of the cut: Zheng et al. 2022 and PyTorch's partitioner of joint graphs; of budgets: Chen et al. 2016.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from ..marks import AFTER
from ..node import Graph, GraphBuilder, Node
from .dce import dce

HEAVY = 1000.0
UNIT = 16  # capacities are integers: sixteenths of a byte
RATES = (64.0, 1.0, *[4.0 ** -k for k in range(1, 11)])  # bytes per unit of work, from copying nothing to everything
STEPS = 6  # of the bisection between two of them
NEAR = 0.1  # share of what can be saved that may be left for less work
WORTH = 0.95  # a lowest peak above this share is not worth any work
FAR = 2  # library calls between two readers
SPREAD = 1.0  # how much dearer the last forward value is than the first: breaks ties between equal layers
_COSTLY = frozenset(("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan",
                     "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "erfinv", "lgamma", "digamma",
                     "trigamma", "pow", "atan2", "rng_bits"))
_LOOP_KINDS = frozenset(("leaf", "pointwise", "view", "reduce", "random"))
_LOOP_INDEX = frozenset(("take", "gather", "slice_set"))
FIXED, FORWARD, LIGHT, ROOT, GRADIENT = range(5)


class Figures(NamedTuple):
    """What a budget did to one program; bytes of values kept for backward passes, and of those computed again."""

    kept_before: int
    kept: int
    recomputed: int  # bytes of the values computed again
    nodes: int  # operations computed again, movement not counted
    flops: int  # of the products and convolutions computed again


class Choice(NamedTuple):
    """Nodes (by place) kept for gradient code, and nodes computed again; bytes of the ones, work of the others."""

    kept: frozenset[int]
    again: frozenset[int]
    nbytes: int
    work: float


def heavy(node: Node) -> bool:
    """Whether the node is a library call, so that fusion ends at it."""
    op = node.op
    assert op is not None
    return op.is_composite or op.kind not in _LOOP_KINDS and op.name not in _LOOP_INDEX


def flops_of(node: Node) -> int:
    """Two per multiply-add of a product or convolution; 0 for other nodes."""
    name = node.op.name  # type: ignore[union-attr]
    if name == "contract":
        return 2 * node.avals[0].size * math.prod([node.in_avals[0].shape[d] for d in node.attrs[2]])
    if name in ("conv", "conv_input_grad", "conv_weight_grad"):
        avals = (*node.avals, *node.in_avals)
        out, window = max(a.size for a in avals), min((a for a in avals if a.ndim > 2), key=lambda a: a.size)
        return 2 * out * max(1, window.size // max(window.shape[:2]))
    return 0


def work_of(node: Node) -> float:
    """Work of computing a node once more, in elements of cheap arithmetic; infinite for what is never copied."""
    op, size = node.op, sum(a.size for a in node.avals)
    assert op is not None
    if op.kind in ("control", "opaque"):
        return math.inf
    if not op.is_composite and op.kind in ("pointwise", "random"):
        return 6.0 * size if op.name in _COSTLY else 1.0 * size
    if not heavy(node) and op.kind != "reduce":
        return 2.0 * size
    flops = flops_of(node)
    return HEAVY * (flops / 16 if flops else 8.0 * (size + sum(a.size for a in node.in_avals)))


class Boundary:
    """One backward pass: the roles of all nodes, and the network of what could be kept."""

    def __init__(self, graph: Graph, start: int, earlier: Sequence[tuple[int, int]]):
        self.graph, self.start = graph, start
        self.nodes = graph.nodes
        self.place = [i for i, n in enumerate(graph.nodes) for _ in n.avals]  # slot -> place of its node
        self.outputs = {self.place[s] for s in graph.outputs}
        self.find_roles(earlier)
        self.find_values()

    def find_roles(self, earlier: Sequence[tuple[int, int]]) -> None:
        """Roles; of nodes behind the boundary also ``gate``: the latest library call before them there, -1 if none."""
        n = len(self.nodes)
        walked = [False] * n
        for a, z in earlier:
            walked[a:z] = [True] * (z - a)
        self.roles, self.gate = [FIXED] * n, [-1] * n
        for i, node in enumerate(self.nodes):
            ins = {self.place[s] for s in node.ins}
            if not ins:
                continue
            if i < self.start:
                self.roles[i] = FIXED if walked[i] else FORWARD
                continue
            self.gate[i] = max([p if p >= self.start and heavy(self.nodes[p]) else self.gate[p] for p in ins])
            if self.gate[i] >= 0:
                self.roles[i] = GRADIENT
            elif heavy(node):
                self.roles[i] = ROOT
            elif any(self.roles[p] in (FORWARD, LIGHT) for p in ins):
                self.roles[i] = LIGHT

    def find_values(self) -> None:
        """``values``: places of forward and light values that gradient code may need; ``bases``: of every node, those its
        operands are views of; ``sinks``: those gradient code reads; ``kept_before``: bytes kept if nothing is done."""
        n = len(self.nodes)
        self.bases: list[tuple[int, ...]] = []
        through: list[frozenset[int]] = []  # place -> values it is made of by movement alone
        for i, node in enumerate(self.nodes):
            of = frozenset().union(*[through[self.place[s]] for s in node.ins])
            self.bases.append(tuple(sorted(of)))
            plain = self.roles[i] not in (FORWARD, LIGHT) or i in self.outputs
            through.append(frozenset() if plain else of if node.op.kind == "view" else frozenset((i,)))  # type: ignore[union-attr]
        self.sinks = {p for i in range(self.start, n) if self.roles[i] == GRADIENT for p in self.bases[i]}
        useful, self.values = set(self.sinks), []
        before: set[int] = set()
        for i in range(n - 1, -1, -1):
            if i in useful and self.roles[i] in (FORWARD, LIGHT):
                self.values.append(i)
                useful.update(self.bases[i])
                if self.roles[i] == LIGHT:
                    before.update(p for p in self.bases[i] if self.roles[p] == FORWARD)
        before.update(p for p in self.sinks if self.roles[p] == FORWARD)
        self.values.reverse()
        self.kept_before = sum(self.nbytes(i) for i in before)
        self.nothing = Choice(frozenset(before), frozenset(), self.kept_before, 0.0)
        depth, self.far = [0] * n, set()
        for i, node in enumerate(self.nodes[:self.start]):
            depth[i] = max([depth[self.place[s]] for s in node.ins], default=0) + heavy(node)
            self.far |= {p for p in self.bases[i] if depth[i] - depth[p] >= FAR}

    def nbytes(self, i: int) -> int:
        return sum(a.nbytes for a in self.nodes[i].avals)

    def work(self, i: int) -> float:
        """Work of computing a node again: none for those that only gradient code reads."""
        return 0.0 if self.roles[i] == LIGHT else work_of(self.nodes[i])

    def cut(self, rate: float, far: bool) -> Choice:
        """The best choice at this rate of bytes per unit of work. ``far``: values read far apart may be copied."""
        import networkx as nx

        g = nx.DiGraph()
        for i in self.values:
            work = self.work(i) * (1 + SPREAD * i / max(1, self.start))
            g.add_edge(2 * i, 2 * i + 1, capacity=UNIT * self.nbytes(i))
            if work == math.inf or not far and i in self.far:
                g.add_edge("source", 2 * i)
            elif work:
                g.add_edge("source", 2 * i, capacity=round(UNIT * rate * work))
            for p in self.bases[i]:
                g.add_edge(2 * p + 1, 2 * i)
            if i in self.sinks:
                g.add_edge(2 * i + 1, "sink")
        if "source" not in g or "sink" not in g:
            return self.nothing
        _, (near, _) = nx.minimum_cut(g, "source", "sink", flow_func=nx.algorithms.flow.boykov_kolmogorov)
        return self.needed({i for i in self.values if 2 * i not in near})

    def needed(self, again: set[int]) -> Choice:
        """The part of a choice that gradient code asks for."""
        kept, copied, todo = set(), set(), list(self.sinks)
        while todo:
            i = todo.pop()
            if i in kept or i in copied:
                continue
            if i in again:
                copied.add(i)
                todo += self.bases[i]
            else:
                kept.add(i)
        return Choice(frozenset(kept), frozenset(copied), sum(map(self.nbytes, kept)), sum(map(self.work, copied)))


class Rewrite:
    """Builds the graph of a choice."""

    def __init__(self, at: Boundary, choice: Choice):
        self.at, self.choice, self.nodes = at, choice, at.nodes
        self.b = GraphBuilder()
        self.new = [-1] * len(at.place)  # slot -> new slot
        self.copies: dict[int, tuple[int, int]] = {}  # place -> (first slot of its copy, gate it waits for)
        self.waiting: dict[tuple[int, int], int] = {}  # (new slot, gate) -> slot that waits
        self.again: list[bool] = []  # copied, or a view of what is
        self.rooted: list[bool] = []  # made of anything but constants
        for i, node in enumerate(self.nodes):
            ins = [at.place[s] for s in node.ins]
            view = node.op.kind == "view" and at.roles[i] in (FORWARD, LIGHT)  # type: ignore[union-attr]
            self.again.append(i in choice.again or view and any(self.again[p] for p in ins))
            self.rooted.append(node.op.kind == "leaf" or any(self.rooted[p] for p in ins))  # type: ignore[union-attr]

    def run(self) -> tuple[Graph, list[int]]:
        """The graph, and for every old place the new place of what was built for it first."""
        at, moved = self.at, []
        for i, node in enumerate(self.nodes):
            if i == at.start:
                self.hoist()
            moved.append(len(self.b.nodes))
            if self.new[node.slot] >= 0:
                continue
            if at.roles[i] == GRADIENT:
                self.add(node, tuple([self.operand(s, at.gate[i]) for s in node.ins]))
            else:
                self.add(node, tuple([self.new[s] for s in node.ins]))
        return self.b.graph(tuple([self.new[s] for s in at.graph.outputs])), moved

    def add(self, node: Node, ins: tuple[int, ...]) -> None:
        first = self.b.add(node.op, ins, node.attrs, node.avals, node.loc)  # type: ignore[arg-type]
        for k in range(len(node.avals)):
            self.new[node.slot + k] = first + k

    def hoist(self) -> None:
        """Light values that are kept, computed before the pass with all they need. Inputs stay in their order."""
        at = self.at
        todo = [i for i in self.choice.kept if at.roles[i] == LIGHT]
        wanted = set(todo)
        while todo:
            for s in self.nodes[todo.pop()].ins:
                p = at.place[s]
                if p >= at.start and p not in wanted:
                    wanted.add(p)
                    todo.append(p)
        if any(self.nodes[i].op.kind == "leaf" for i in wanted):  # type: ignore[union-attr]
            wanted.update(i for i in range(at.start, len(self.nodes)) if self.nodes[i].op.kind == "leaf")  # type: ignore[union-attr]
        for i in sorted(wanted):
            self.add(self.nodes[i], tuple([self.new[s] for s in self.nodes[i].ins]))

    def operand(self, slot: int, gate: int) -> int:
        """Where gradient code behind ``gate`` reads a slot."""
        p = self.at.place[slot]
        if not self.again[p]:
            return self.new[slot]
        todo, order = [p], set()
        while todo:
            q = todo.pop()
            if q not in order and q not in self.copies:
                order.add(q)
                todo += [r for s in self.nodes[q].ins if self.again[r := self.at.place[s]]]
        for q in sorted(order):
            node = self.nodes[q]
            first = self.b.add(node.op, tuple([self.source(s, gate) for s in node.ins]), node.attrs,  # type: ignore[arg-type]
                               node.avals, node.loc)
            self.copies[q] = first, gate
        return self.copies[p][0] + slot - self.nodes[p].slot

    def source(self, slot: int, gate: int) -> int:
        """An operand of a copy that waits for ``gate``."""
        p = self.at.place[slot]
        node = self.nodes[p]
        if self.again[p]:
            first, same = self.copies[p]
            found = first + slot - node.slot
            if same == gate:
                return found
        else:
            found = self.new[slot]
        if not self.rooted[p] or node.op.kind == "leaf" and not node.avals[0].ndim:  # type: ignore[union-attr]
            return found
        key = found, gate
        if key not in self.waiting:
            self.waiting[key] = self.b.emit(AFTER, (found, self.new[self.nodes[gate].slot]), (), node.loc)
        return self.waiting[key]


def peak_bytes(graph: Graph, first: int = 0, stop: int | None = None) -> int:
    """An estimate of the bytes of intermediates alive at once while the nodes from ``first`` to ``stop`` run. Values of loop
    code whose readers all follow the same library call count as fused; results and inputs do not count."""
    place = [i for i, n in enumerate(graph.nodes) for _ in n.avals]
    outputs = {place[s] for s in graph.outputs}
    used = [i in outputs for i in range(len(graph.nodes))]
    for i in range(len(used) - 1, -1, -1):
        if used[i]:
            for s in graph.nodes[i].ins:
                used[place[s]] = True
    era, last = [-1] * len(graph.nodes), [-1] * len(graph.nodes)
    stored = [False] * len(graph.nodes)
    through: list[tuple[int, ...]] = []
    for i, node in enumerate(graph.nodes):
        ins = [place[s] for s in node.ins]
        call, view = heavy(node), node.op.kind == "view"  # type: ignore[union-attr]
        era[i] = max([i if call else -1, *[era[p] for p in ins]])
        made_of = {q for p in (ins[:1] if node.op is AFTER else ins) for q in through[p]}
        through.append(tuple(made_of) if view else (i,))
        if view or not used[i]:
            continue
        for p in made_of:
            last[p] = i
            stored[p] |= call or era[p] != era[i] or heavy(graph.nodes[p])
    change = [0] * (len(graph.nodes) + 1)
    for i, node in enumerate(graph.nodes):
        if stored[i] and i not in outputs and node.ins:
            n = sum(a.nbytes for a in node.avals)
            change[i if heavy(node) else max(era[i], 0)] += n
            change[last[i] + 1] -= n
    alive = list(accumulate(change))
    return max(alive[first:stop], default=0)


def _best(at: Boundary, budget: float, first: int, stop: int) -> Choice:
    """The least work that brings the estimated peak from node ``first`` to ``stop`` down by the bytes the budget leaves out, or
    close to the lowest found."""
    before = peak_bytes(at.graph, first, stop)
    goal = before - (1 - budget) * at.kept_before
    peaks = {at.nothing: before}

    def reached(rate: float, far: bool) -> bool:
        choice = at.cut(rate, far)
        if choice not in peaks:
            graph, moved = Rewrite(at, choice).run()
            peaks[choice] = peak_bytes(graph, moved[first], moved[stop] if stop < len(moved) else None)
        return peaks[choice] <= goal

    for far in (True, False):
        high = RATES[0]
        low = next((r for r in RATES if reached(r, far)), None)
        if low is None or low == high:
            continue
        high = RATES[RATES.index(low) - 1]
        for _ in range(STEPS):
            middle = math.sqrt(high * low)
            high, low = (high, middle) if reached(middle, far) else (middle, low)
    lowest = min(peaks.values())
    if lowest > WORTH * before:
        return at.nothing
    limit = max(goal, lowest + NEAR * (before - lowest))
    return min([c for c, peak in peaks.items() if peak <= limit], key=lambda c: (c.work, peaks[c]))


def recompute(graph: Graph, walks: Sequence[tuple[int, int]], budget: float) -> Graph:
    """An equal graph that keeps about ``budget`` of the bytes for each of its backward passes ``walks`` (first node, node
    behind the last), as far as that lowers the estimated peak; its ``figures`` say what that means."""
    total = Figures(0, 0, 0, 0, 0)
    walks = list(walks)
    for k in range(len(walks)):
        start, stop = walks[k]
        at = Boundary(graph, start, walks[:k])
        choice = _best(at, budget, walks[k - 1][1] if k else 0, stop) if at.sinks else at.nothing
        if choice is not at.nothing:
            graph, moved = Rewrite(at, choice).run()
            moved.append(len(graph.nodes))
            walks = [(moved[a], moved[z]) for a, z in walks]
        copied = [at.nodes[i] for i in choice.again if at.roles[i] == FORWARD]
        more = (at.kept_before, choice.nbytes, sum(a.nbytes for n in copied for a in n.avals), len(copied),
                sum(map(flops_of, copied)))
        total = Figures(*[x + y for x, y in zip(total, more)])
    graph = dce(graph)
    graph.figures = total
    return graph
