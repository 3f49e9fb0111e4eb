"""Sums over the rows of channels-last values (batch statistics, their gradients, bias gradients), made for tiles of products.

Three rewrites, each exact but for rounding:

1. A factor that does not vary along the rows leaves the sum: sum(x * w) = w * sum(x).
2. A sum over rows becomes sums over runs of rows, then a small sum of those. The run is what one program of the convolution
   behind the value computes, so the first step is printed into that convolution and reads no memory
   (:class:`conv_problem.Behind`). The variance keeps its two passes within a run: with a run's sum s, m = s/R and
   q = sum((x - m)^2), the whole sum of squares is sum(q + R (m - mean)^2) (Chan, Golub and LeVeque, "Updating formulae and a
   pairwise algorithm for computing sample variances", 1979), which is as accurate as two passes over memory.
3. A cheap function of one large value and of vectors is computed again by readers that run later (the normalised input in the
   backward pass), so that the large value alone is kept.
"""
from __future__ import annotations

import math

import numpy as np

from ...dtypes import dtype, float32
from ...ir.node import Graph, GraphBuilder, Node
from ...ir.optable import OPS
from ...ir.passes.cse import merge_common
from ...ir.passes.dce import dce
from . import conv, opcodes
from .compiler import Target

AFFINE = frozenset(("add", "sub", "mul", "div", "neg", "cast"))
SMALL = 8  # a value of less than 1/8 of another's elements is small beside it
RUNS = (64, 32, 16)  # rows of a run where no convolution is behind the value


def in_runs(graph: Graph, target: Target) -> Graph:
    """An equal graph with its sums over rows in two steps; as it is where no convolution is."""
    if not any(n.op is not None and n.op.name in conv.NAMES for n in graph.nodes):
        return graph
    return dce(again(dce(merge_common(_Runs(graph, target).run()))))


def _sums_rows(node: Node) -> bool:
    """Whether a node sums everything but the last axis of an image."""
    if node.op is not OPS["reduce"] or node.attrs[0] != "add" or not node.avals[0].dtype.is_floating_point:
        return False
    n = node.in_avals[0].ndim
    return n >= 3 and tuple(node.attrs[1]) == tuple(range(n - 1)) and node.in_avals[0].shape[-1] > 1


class _Runs:
    """State of rewrites 1 and 2."""

    def __init__(self, graph: Graph, target: Target):
        self.graph, self.target = graph, target
        self.producer, self.avals = graph.producer(), graph.slot_avals()
        self.b = GraphBuilder()
        self.new: list[int] = []
        self.run_of: dict[int, int] = {}

    def run(self) -> Graph:
        """The new graph."""
        for node in self.graph.nodes:
            slot = self.rewrite(node) if _sums_rows(node) else None
            if slot is not None:
                self.new.append(slot)
                continue
            ins = tuple([self.new[s] for s in node.ins])
            self.new.extend(self.b.copy(node, ins))
        return self.b.graph(tuple([self.new[s] for s in self.graph.outputs]))

    def rewrite(self, node: Node) -> int | None:
        """The sum of a node, or None to leave it."""
        x = node.ins[0]
        rows = self.rows(x)
        if not rows:
            return None
        squares = self.squares(node)
        if squares is not None:
            return self.chan(node, *squares, rows)
        large, vectors = self.factors(x)
        if not large:
            return None
        loc = node.loc
        y = self.new[large[0]]
        for s in large[1:]:
            y = self.b.emit(OPS["mul"], (y, self.new[s]), (), loc)
        if self.b.avals[y].shape != self.avals[x].shape:
            return None
        total = self.b.emit(OPS["reduce"], (self.parts(y, rows, node),), ("add", (0,)), loc)
        if self.b.avals[total].dtype is not node.avals[0].dtype:
            total = self.b.emit(OPS["cast"], (total,), (node.avals[0].dtype,), loc)
        for s in vectors:
            v = self.new[s]
            if self.avals[s].size > 1:
                v = self.b.emit(OPS["reshape"], (v,), (node.avals[0].shape,), loc)
            elif self.avals[s].ndim:
                v = self.b.emit(OPS["reshape"], (v,), ((),), loc)
            total = self.b.emit(OPS["mul"], (total, v), (), loc)
        return total

    def parts(self, y: int, rows: int, node: Node) -> int:
        """Sums over runs (runs, channels) of a new value, never in 16 bits."""
        av = self.b.avals[y]
        if opcodes.is_half(av.dtype):
            y = self.b.emit(OPS["cast"], (y,), (float32,), node.loc)
        y = self.b.emit(OPS["reshape"], (y,), ((av.size // av.shape[-1] // rows, rows, av.shape[-1]),), node.loc)
        return self.b.emit(OPS["reduce"], (y,), ("add", (1,)), node.loc)

    def factors(self, x: int) -> tuple[list[int], list[int]]:
        """A product's large factors, in one order, and those that do not vary along the rows."""
        large: list[int] = []
        vectors: list[int] = []
        todo = [x]
        shape = self.avals[x].shape
        while todo:
            s = todo.pop()
            node, av = self.producer[s], self.avals[s]
            if av.shape != shape:
                vectors.append(s)
            elif node.op is OPS["mul"] and len(large) + len(todo) < 4 and any(
                    self.varies_not(i, shape) for i in self.factors_in(node)):
                todo += node.ins
            else:
                large.append(s)
        if any(not self.varies_not(s, shape) for s in vectors):
            return [], []
        return sorted(large), sorted(vectors)

    def factors_in(self, node: Node) -> list[int]:
        """The factors of a product, and of the products that are its factors."""
        out = list(node.ins)
        for s in node.ins:
            if self.producer[s].op is OPS["mul"]:
                out += self.producer[s].ins
        return out

    def varies_not(self, s: int, shape: tuple[int, ...]) -> bool:
        """Whether a value broadcasts along the rows."""
        av = self.avals[s]
        return av.size in (1, shape[-1]) and (av.size == 1 or av.shape[-1] == shape[-1])

    def rows(self, x: int) -> int:
        """Rows of a run of a large value: what a program of the last convolution it is made of computes."""
        shape = self.avals[x].shape
        rows = math.prod(shape[:-1])
        seen, todo, found = {x}, [x], None
        while todo:
            node = self.producer[todo.pop()]
            if node.op is not None and node.op.name in conv.NAMES:
                if found is None or node.slot > found.slot:
                    found = node
            elif node.op is not None and node.op.kind in ("pointwise", "view"):
                new = [s for s in node.ins if s not in seen and self.avals[s].shape == shape]
                seen.update(new)
                todo += new
        if found is not None:
            dt = found.avals[0].dtype
            c = conv.problem(found.op.name, found.attrs, found.in_avals, found.avals[0])  # type: ignore[union-attr]
            at_once = conv.rows_at_once(c, dt, self.target) if c.kind != "conv_weight_grad_last" else 0
            if at_once:
                return at_once if rows // at_once > 1 else 0
        return next((r for r in RUNS if rows % r == 0 and rows >= r * r), 0)

    # -------------------------------------------------------------------------------------------------------- variance
    def squares(self, node: Node) -> tuple[int, Node, int] | None:
        """(x, the node that sums x, the mean's slot) where ``node`` sums (x - mean(x))^2."""
        square = self.producer[node.ins[0]]
        if square.op is not OPS["mul"] or square.ins[0] != square.ins[1]:
            return None
        d = self.producer[square.ins[0]]
        if d.op is not OPS["sub"]:
            return None
        x, mean = d.ins
        q = self.producer[self.source(mean)]
        if q.op is not OPS["div"] or q.slot != self.source(mean):
            return None
        total, count = self.producer[self.source(q.ins[0])], self.producer[q.ins[1]]
        if total.op is not OPS["reduce"] or total.ins != (x,) or total.attrs != node.attrs or count.op is None:
            return None
        n = math.prod(self.avals[x].shape[:-1])
        if count.op.name != "const" or self.avals[x].shape != node.in_avals[0].shape or _number(count) != n:
            return None
        return x, total, q.slot

    def source(self, s: int) -> int:
        """What a value is, before reshapes."""
        while self.producer[s].op is OPS["reshape"]:
            s = self.producer[s].ins[0]
        return s

    def chan(self, node: Node, x: int, total: Node, mean: int, rows: int) -> int:
        """The sum of squared deviations by runs."""
        b, loc, dt = self.b, node.loc, node.avals[0].dtype
        sums = self.parts(self.new[x], rows, node)
        runs, channels = b.avals[sums].shape
        means = b.emit(OPS["div"], (sums, self.number(rows, b.avals[sums].dtype)), (), loc)
        y = b.emit(OPS["reshape"], (self.new[x],), ((runs, rows, channels),), loc)
        d = b.emit(OPS["sub"], (y, b.emit(OPS["reshape"], (means,), ((runs, 1, channels),), loc)), (), loc)
        inside = b.emit(OPS["reduce"], (b.emit(OPS["mul"], (d, d), (), loc),), ("add", (1,)), loc)
        whole = b.emit(OPS["reshape"], (self.new[mean],), ((1, channels),), loc)
        count = self.number(rows, dt)
        off = b.emit(OPS["sub"], (sums, b.emit(OPS["mul"], (whole, count), (), loc)), (), loc)  # R (m - mean)
        between = b.emit(OPS["div"], (b.emit(OPS["mul"], (off, off), (), loc), count), (), loc)
        return b.emit(OPS["reduce"], (b.emit(OPS["add"], (inside, between), (), loc),), ("add", (0,)), loc)

    def number(self, n: int, dt: dtype) -> int:
        """A constant."""
        return self.b.emit(OPS["const"], (), (np.array(n, dt.np).tobytes(), dt))


def _number(node: Node) -> float:
    """The value of a zero-dim constant."""
    return np.frombuffer(node.attrs[0], node.avals[0].dtype.np)[0].item()  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------------------------------------- computed again
def again(graph: Graph) -> Graph:
    """Rewrite 3: every loop-code reader of a later stage gets a cheap function of its own; a stage ends at a product or a
    reduction. Where the copy turns out to run beside its original the two cost one computation too many, no memory."""
    level: list[int] = []
    b = GraphBuilder()
    new: list[int] = []
    cheap: dict[int, Node] = {}  # slot -> the node
    for node in graph.nodes:
        op = node.op
        assert op is not None
        inside = max([level[s] for s in node.ins], default=0)
        local: dict[int, int] = {}
        if op.kind in ("pointwise", "reduce"):
            ins = tuple([_copy(s, inside, level, cheap, local, b, new) for s in node.ins])
        else:
            ins = tuple([new[s] for s in node.ins])
        new.extend(b.copy(node, ins))
        level += [inside + (op.kind not in ("pointwise", "view", "leaf"))] * len(node.avals)
        large = {s: a for s, a in zip(node.ins, node.in_avals) if a.size * SMALL > node.avals[0].size}
        if op.name in AFFINE and node.avals[0].size > 1 and len(large) == 1:
            (of,) = large.values()
            if of.dtype.itemsize <= node.avals[0].dtype.itemsize:  # else the result is what takes less memory
                cheap[node.slot] = node
    return b.graph(tuple([new[s] for s in graph.outputs]))


def _copy(s: int, at: int, level: list[int], cheap: dict[int, Node], copies: dict[int, int], b: GraphBuilder,
          new: list[int]) -> int:
    """The new slot of a value as a reader whose operands are of stage ``at`` sees it."""
    todo = [s]
    while todo:
        t = todo[-1]
        if t in copies:
            todo.pop()
            continue
        if t not in cheap or level[t] >= at:
            copies[t] = new[t]
            continue
        node = cheap[t]
        missing = [i for i in node.ins if i not in copies]
        if missing:
            todo += missing
            continue
        ins = tuple([copies[i] for i in node.ins])
        copies[t] = b.add(node.op, ins, node.attrs, node.avals, node.loc)  # type: ignore[arg-type]
        todo.pop()
    return copies[s]


__all__ = ["again", "in_runs"]
