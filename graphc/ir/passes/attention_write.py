"""Writes a recognised attention: lifts the code around the softmax into small graphs and builds the new program."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ...dtypes import float32
from ..composites.scored_attention import SCORED, SCORED_BACKWARD, Recipe
from ..node import Aval, Graph, GraphBuilder, Node, aval
from ..optable import OPS
from ..recorder import LEAF
from . import attention_algebra as alg
from .algebra import simplify
from .attention import POINTWISE, VIEWS, Fits, Found, Look, Matcher, Operand, Product, Refused
from .cse import merge_common
from .dce import dce

MAX_LIFTED = 40  # nodes of one lifted expression that does not depend on the scores


class Summed(NamedTuple):
    """A gradient summed over the query heads of each group: its slot, its axes in terms of the canonical ones, the nodes that
    lead to it."""

    slot: int
    layout: tuple[int, ...]
    nodes: tuple[Node, ...]


class Writing:
    """The small graphs of one attention and the nodes that replace it."""

    def __init__(self, look: Look, m: Matcher, f: Found, fits: Fits):
        self.look, self.m, self.f = look, m, f
        self.extras: dict[int, int] = {}  # slot -> number
        self.taken: set[int] = set()  # slots whose nodes are copied
        self.masks = list(reversed(f.masks))
        self.operands = (f.q, f.k, f.v)
        self.sums: dict[str, Summed] = {}
        self.group = self.find_group()
        q, k, v = [self.canonical(o) for o in self.operands]
        if q.dtype is not k.dtype or q.dtype is not v.dtype or not fits(q, k, v):
            raise Refused
        self.recipe = self.make()

    def canonical(self, o: Operand) -> Aval:
        """The aval of a factor with the attention's leading axes."""
        av = self.look.avals[o.slot]
        shape = tuple([av.shape[p] for p in o.perm])
        lead = shape[:-2] if o not in (self.f.q, self.f.k, self.f.v) else self.f.shape[:-2]
        dt = av.dtype if o in (self.f.q, self.f.k, self.f.v) else self.look.avals[self.f.k.slot].dtype  # casts stay
        return aval((*lead, *shape[-2:]), dt, av.device)

    # --------------------------------------------------------------------------------------------------- heads in groups
    def find_group(self) -> int:
        """How many query heads share a key head: k and v are then read before they are repeated, and the sums over a group in
        the backward pass become part of the kernel. 1 where that does not fit."""
        f = self.f
        found = [self.unrepeated(o) for o in (f.k, f.v)]
        if len(f.shape) < 3 or any(x is None for x in found) or f.score.avals[0].shape != f.shape:
            return 1
        (k, n), (v, other) = found  # type: ignore[misc]
        if n != other or self.look.avals[f.out.matrix].shape != f.shape:
            return 1
        for name, p in (("dk", f.dk), ("dv", f.dv)):
            if p is not None:
                got = self.summed(p, n)
                if got is None:
                    self.sums.clear()
                    return 1
                self.sums[name] = got
        self.operands = (f.q, k, v)
        return n

    def unrepeated(self, o: Operand) -> tuple[Operand, int] | None:
        """A factor before its heads were repeated, each n times in a row."""
        producer, avals, slot, perm = self.look.producer, self.look.avals, o.slot, o.perm
        while producer[slot].op in (OPS["cast"], OPS["permute"]):
            if producer[slot].op is OPS["permute"]:
                perm = tuple([producer[slot].attrs[0][p] for p in perm])
            slot = producer[slot].ins[0]
        if avals[slot].dtype is not avals[o.slot].dtype and not avals[slot].dtype.is_floating_point:
            return None
        whole, chain = avals[slot].shape, []
        for name in ("reshape", "expand", "reshape"):
            if producer[slot].op is not OPS[name]:
                return None
            slot = producer[slot].ins[0]
            chain.append(avals[slot].shape)
        repeated, single, before = chain
        axis = perm[len(perm) - 3]
        if len(repeated) != len(whole) + 1 or len(before) != len(whole):
            return None
        n = repeated[axis + 1]
        fits = single == (*before[:axis + 1], 1, *before[axis + 1:]) and repeated == (*before[:axis + 1], n, *before[axis + 1:])
        if not fits or whole != (*before[:axis], before[axis] * n, *before[axis + 1:]) or n < 2:
            return None
        return Operand(slot, perm, o.lead), n

    def summed(self, p: Product, n: int) -> Summed | None:
        """The sum over each group of heads that is all that reads a gradient."""
        labels: list[Any] = list(p.layout)
        head, slot, between = len(labels) - 3, p.node.slot, []
        while slot not in self.look.outputs and len(self.look.readers[slot]) == 1:
            node = self.look.readers[slot][0]
            between.append(node)
            slot = node.slot
            if node.op is OPS["permute"]:
                labels = [labels[a] for a in node.attrs[0]]
            elif node.op is OPS["reshape"]:
                shape, at = node.in_avals[0].shape, labels.index(head)
                if node.avals[0].shape != (*shape[:at], shape[at] // n, n, *shape[at + 1:]):
                    return None
                labels[at:at + 1] = [head, "member"]
            elif node.op is OPS["reduce"] and "member" in labels and node.attrs == ("add", (labels.index("member"),)):
                labels.remove("member")
                return Summed(slot, tuple(labels), tuple(between))
            elif node.op is not OPS["cast"] or not node.avals[0].dtype.is_floating_point:
                return None
        return None

    def make(self) -> Recipe:
        """The recipe. Raises Refused where the code cannot be lifted."""
        f = self.f
        tile = aval(f.shape, float32, f.score.avals[0].device)
        self.collect([f.inner], {f.score.slot})
        self.collect([s for m in self.masks for s in (m.slot, m.number)], set())
        gradient = f.dq or f.dk
        starts: tuple[int, ...] = ()
        if gradient is not None:
            starts = tuple([s for s, v in self.m.value.items() if v == alg.GRADIENT])
            self.collect([gradient.matrix], {*starts, f.score.slot, *[m.slot for m in self.masks]})
        tiles: list[tuple[Aval, tuple[int, ...]]] = [(tile, (f.score.slot,))]
        body = self.build(f.inner, tiles)
        masks = self.build_masks() if self.masks else None
        slope = None
        if f.dv or gradient:
            tiles += [(tile, starts), *[(self.look.avals[m.slot], (m.slot,)) for m in self.masks]]
            slope = self.build(gradient.matrix if gradient else -1, tiles)
        return Recipe(body, masks, tuple([m.kind for m in self.masks]), slope, self.skips())

    # ------------------------------------------------------------------------------------------------------ collecting
    def collect(self, roots: Sequence[int], stops: set[int]) -> None:
        """Decide which nodes of an expression are copied and which values are read."""
        todo, seen = list(roots), set(stops)
        while todo:
            slot = todo.pop()
            if slot in seen:
                continue
            seen.add(slot)
            node = self.look.producer[slot]
            assert node.op is not None
            if slot not in self.m.region:
                self.independent(slot, stops)
            elif node.op.name in POINTWISE or node.op.name in ("reshape", "expand") and self.m.is_matrix(node.ins[0]):
                if not self.m.is_matrix(slot):
                    raise Refused
                self.taken.add(slot)
                todo += node.ins
            else:
                raise Refused

    def independent(self, root: int, stops: set[int]) -> None:
        """A value that does not depend on the scores: computed in the tile where that is a little pointwise code."""
        todo, seen, read = [root], set(), []
        while todo:
            slot = todo.pop()
            if slot in seen or slot in stops:
                continue
            seen.add(slot)
            node = self.look.producer[slot]
            name = node.op.name  # type: ignore[union-attr]
            if name in POINTWISE or name in VIEWS or name in ("const", "iota"):
                todo += node.ins
            else:
                read.append(slot)
        if len(seen) > MAX_LIFTED:
            seen, read = {root}, [root]
        for s in read:
            self.extras.setdefault(s, len(self.extras))
        self.taken |= seen - set(read)

    # -------------------------------------------------------------------------------------------------------- building
    def build(self, root: int, tiles: Sequence[tuple[Aval, tuple[int, ...]]]) -> Graph:
        """The graph of ``root`` over tiles (aval, the slots it stands for) and all extras; root -1: the second tile."""
        b, have = self.leaves(tiles)
        for m in self.masks if len(tiles) > 1 else ():  # the tile is the mask as it is applied
            if m.negated:
                have[m.slot] = b.emit(OPS["logical_not"], (have[m.slot],))
        out = self.copy(b, have, root) if root >= 0 else 1
        if b.avals[out].dtype is not float32:
            raise Refused
        return dce(b.graph((self.shaped(b, out, self.f.shape),)))

    @staticmethod
    def shaped(b: GraphBuilder, slot: int, shape: tuple[int, ...]) -> int:
        """Another cut of the leading axes."""
        return slot if b.avals[slot].shape == shape else b.emit(OPS["reshape"], (slot,), (shape,))

    def leaves(self, tiles: Sequence[tuple[Aval, tuple[int, ...]]]) -> tuple[GraphBuilder, dict[int, int]]:
        """A builder that begins with the tiles and the extras."""
        b = GraphBuilder()
        first = [b.add(LEAF, (), (av,), (av,)) for av, _ in tiles]
        extras = {s: b.add(LEAF, (), (self.look.avals[s],), (self.look.avals[s],)) for s in self.extras}
        have = {s: self.shaped(b, at, self.look.avals[s].shape) for at, (_, slots) in zip(first, tiles) for s in slots}
        return b, extras | have

    def copy(self, b: GraphBuilder, have: dict[int, int], root: int) -> int:
        """Copy the expression of a slot; what depends on the scores is computed in float32."""
        todo = [root]
        while todo:
            slot = todo[-1]
            if slot in have:
                todo.pop()
                continue
            node = self.look.producer[slot]
            assert slot in self.taken, slot
            missing = [s for s in node.ins if s not in have]
            if missing:
                todo += missing
                continue
            ins = [have[s] for s in node.ins]
            if slot not in self.m.region:
                have[slot] = b.add(node.op, tuple(ins), node.attrs, node.avals, node.loc)  # type: ignore[arg-type]
                continue
            if node.op is OPS["cast"] and node.avals[0].dtype.is_floating_point and b.avals[ins[0]].dtype.is_floating_point:
                have[slot] = ins[0]
                continue
            ins = [self.widened(b, i) for i in ins]
            have[slot] = b.emit(node.op, tuple(ins), node.attrs, node.loc)  # type: ignore[arg-type]
        return have[root]

    @staticmethod
    def widened(b: GraphBuilder, slot: int) -> int:
        """A float in float32."""
        dt = b.avals[slot].dtype
        return b.emit(OPS["cast"], (slot,), (float32,)) if dt.is_floating_point and dt is not float32 else slot

    def build_masks(self) -> Graph:
        """(mask, number) of every mask."""
        b, have = self.leaves([])
        outs: list[int] = []
        for m in self.masks:
            at = self.copy(b, have, m.slot)
            if m.negated:
                at = b.emit(OPS["logical_not"], (at,))
            outs += [at, self.widened(b, self.copy(b, have, m.number))]
        return dce(b.graph(tuple(outs)))


    def skips(self) -> bool:
        """Whether blocks may be skipped: the masks' numbers may be -inf, and looking through the masks costs little."""
        numbers = [self.look.constant(m.number) for m in self.masks]
        if not numbers or any(n is not None and n != -math.inf for n in numbers):
            return False
        n, avals = len(self.f.shape), [self.look.avals[m.slot] for m in self.masks]
        lead = math.prod([max([1, *[a.shape[d - n] for a in avals if a.ndim >= n - d]]) for d in range(n - 2)])
        return lead == 1 or lead * 4 <= math.prod(self.f.shape[:-2])


class _Draft:
    """The new program before its nodes have an order: old slots, and new ones numbered behind them."""

    def __init__(self, look: Look):
        self.look = look
        self.avals = list(look.avals)
        self.made: dict[int, tuple[Any, tuple[int, ...], Any, int, Any]] = {}  # new slot -> op, ins, attrs, first slot, loc
        self.alias: dict[int, int] = {}  # old slot -> the new one that replaces it

    def add(self, op: Any, ins: tuple[int, ...], attrs: Any, loc: Any) -> int:
        """A new node; its first slot."""
        first = len(self.avals)
        avals = op.infer_avals(attrs, tuple([self.avals[s] for s in ins]))
        for k in range(len(avals)):
            self.made[first + k] = (op, ins, attrs, first, loc)
        self.avals += avals
        return first

    def permuted(self, slot: int, perm: tuple[int, ...], loc: Any) -> int:
        return slot if perm == tuple(range(len(perm))) else self.add(OPS["permute"], (slot,), (perm,), loc)

    def shaped(self, slot: int, shape: tuple[int, ...], loc: Any) -> int:
        return slot if self.avals[slot].shape == shape else self.add(OPS["reshape"], (slot,), (shape,), loc)

    def typed(self, slot: int, dt: Any, loc: Any) -> int:
        return slot if self.avals[slot].dtype is dt else self.add(OPS["cast"], (slot,), (dt,), loc)

    def operand(self, o: Operand, lead: tuple[int, ...], loc: Any) -> int:
        """A factor as the kernels take it; permutes on both sides of a cast cancel."""
        producer, slot, perm, casts = self.look.producer, o.slot, o.perm, []
        while producer[slot].op in (OPS["cast"], OPS["permute"]):
            node = producer[slot]
            if node.op is OPS["cast"]:
                casts.append(node)
            else:
                perm = tuple([node.attrs[0][p] for p in perm])
            slot = node.ins[0]
        if perm != tuple(range(len(perm))):
            slot, perm, casts = o.slot, o.perm, []
        slot = self.permuted(slot, perm, loc)
        for node in reversed(casts):
            slot = self.add(node.op, (slot,), node.attrs, node.loc)
        return self.shaped(slot, (*lead, *self.avals[slot].shape[-2:]), loc)

    def write(self, w: Writing) -> None:
        """The nodes of one attention."""
        f, loc, recipe = w.f, w.f.out.node.loc, w.recipe
        lead = f.shape[:-2]
        q = self.operand(f.q, lead, loc)
        kv_lead = lead if w.group == 1 else (*lead[:-1], lead[-1] // w.group)
        k, v = [self.typed(self.operand(o, kv_lead, loc), self.avals[q].dtype, loc) for o in w.operands[1:]]
        extras = tuple(w.extras)
        out = self.add(SCORED, (q, k, v, *extras), (replace(recipe, slope=None),), loc)
        self.replace(f.out, out)
        products = (f.dq, f.dk, f.dv)
        if any(p is not None for p in products):
            assert f.cotangent is not None
            loc = next(p for p in products if p is not None).node.loc
            go = self.operand(f.cotangent, lead, loc)
            first = self.add(SCORED_BACKWARD, (q, k, v, out, out + 1, go, *extras), (recipe,), loc)
            for i, (name, p) in enumerate(zip(("dq", "dk", "dv"), products)):
                if name in w.sums:
                    got = w.sums[name]
                    slot = self.permuted(first + i, got.layout, loc)
                    self.alias[got.slot] = self.typed(slot, self.avals[got.slot].dtype, loc)
                elif p is not None:
                    self.replace(p, first + i)

    def replace(self, p: Product, slot: int) -> None:
        """Readers of a product read a new value."""
        n = len(p.layout) - 2
        av, loc = p.node.avals[0], p.node.loc
        lead = self.look.avals[p.matrix].shape[:-2]
        slot = self.shaped(slot, (*lead, *self.avals[slot].shape[-2:]), loc)
        assert len(lead) == n and av.dtype is self.avals[slot].dtype
        self.alias[p.node.slot] = self.permuted(slot, p.layout, loc)

    def graph(self, dead: set[int]) -> Graph:
        """The program in an order that keeps the old nodes' as far as possible; inputs come first."""
        b, new = GraphBuilder(), {}
        for node in self.look.graph.inputs:
            new[node.slot] = b.add(node.op, (), node.attrs, node.avals, node.loc)  # type: ignore[arg-type]
        wanted = [n.slot for n in self.look.graph.nodes if n.slot not in dead and n.slot not in self.alias]
        for first_wanted in (*wanted, *self.look.graph.outputs):
            todo = [first_wanted]
            while todo:
                slot = self.alias.get(todo[-1], todo[-1])
                if slot in new:
                    todo.pop()
                    continue
                op, ins, attrs, first, loc = self.parts(slot)
                ins = tuple([self.alias.get(s, s) for s in ins])
                missing = [s for s in ins if s not in new]
                if missing:
                    todo += missing
                    continue
                at = b.emit(op, tuple([new[s] for s in ins]), attrs, loc)
                new.update({first + k: at + k for k in range(len(b.nodes[-1].avals))})
        return b.graph(tuple([new[self.alias.get(s, s)] for s in self.look.graph.outputs]))

    def parts(self, slot: int) -> tuple[Any, tuple[int, ...], Any, int, Any]:
        """Op, ins, attributes, first slot and place of the node of a slot."""
        if slot in self.made:
            return self.made[slot]
        node = self.look.producer[slot]
        return node.op, node.ins, node.attrs, node.slot, node.loc


def rebuilt(look: Look, found: Sequence[Writing]) -> Graph:
    """The program with its attentions replaced."""
    draft = _Draft(look)
    dead: set[int] = set()
    for w in found:
        draft.write(w)
        dead |= {n.slot for x in w.sums.values() for n in x.nodes}
        dead |= set(w.m.region) | {p.node.slot for p in (w.f.out, w.f.dq, w.f.dk, w.f.dv) if p is not None}
    return merge_common(simplify(dce(draft.graph(dead))))
