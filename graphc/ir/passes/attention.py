"""Attention written by hand, as attention: products, softmax and what lies between become nodes without a scores matrix.

Algorithm, for every product that may be q k^T. (1) Walk forward from the scores over pointwise code, reductions and views;
the walk must end in products only, else somebody else reads the scores or the probabilities and nothing is done. (2) Take
the argument x of the maximum over the last axis for the softmax's input and write everything after it in the algebra of
:mod:`.attention_algebra`; the product of the cotangent and v^T, found where it is multiplied in, is the symbol G. (3) The
products at the end must be, each at most once: P v (the output), P^T dO (gradient of v), and a matrix D with k and D^T with q
(gradients of q and k), D being reached by pointwise code from a value whose normal form is that of the softmax's gradient.
Operands are compared with those of the forward products, layout included. (4) The code from the scores to x, and that from
the gradient of x to D, is lifted as it stands into the small graphs of a :class:`~..composites.scored_attention.Recipe`;
masks at its end (``masked_fill``, ``where``, an added ``where(mask, number, 0)``) are kept apart, as whole blocks of keys can
be skipped where the number is -inf at run time.

Rounding to 16 bits between the products is dropped (the kernel computes in float32). Nothing else changes: no dropout, no
reader of the probabilities, no softmax without its maximum subtracted; rows with no key at all give NaN as they did.
"""
from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ...dtypes import bool_
from ..node import Aval, Graph, Node
from ..optable import OPS
from . import attention_algebra as alg
from .dce import dce

MAX_REGION = 200  # nodes between the products
FLOATS = frozenset(("add", "sub", "mul", "div", "neg", "abs", "maximum", "minimum", "exp", "exp2", "expm1", "log", "log2",
                    "log1p", "tanh", "sin", "cos", "sqrt", "rsqrt", "reciprocal", "sign", "erf", "floor", "ceil", "round",
                    "trunc"))
POINTWISE = FLOATS | frozenset(("where", "cast", "eq", "ne", "lt", "le", "logical_not", "bit_and", "bit_or", "bit_xor",
                                "bit_not", "isnan", "isinf", "copy"))
VIEWS = frozenset(("reshape", "permute", "expand", "slice"))
Fits = Callable[[Aval, Aval, Aval], bool]


class Refused(Exception):
    """This product is not the beginning of an attention that can be rewritten."""


class Operand(NamedTuple):
    """A factor of a product with axes (lead..., row, column): permute ``slot`` by ``perm``, reshape the leading axes."""

    slot: int
    perm: tuple[int, ...]
    lead: tuple[int, ...]


class Mask(NamedTuple):
    """``number`` (a zero-dim slot) set ("where") or added ("add") where ``slot``, or its negation, is True."""

    kind: str
    slot: int
    negated: bool
    number: int


class Product(NamedTuple):
    """A product of a matrix of scores with something."""

    node: Node
    matrix: int
    over_keys: bool  # whether the matrix's last axis is summed
    other: Operand  # axes (lead..., summed, free)
    layout: tuple[int, ...]  # the result is the canonical (lead..., row, column) permuted by this


@dataclass
class Found:
    """One attention."""

    score: Node
    q: Operand
    k: Operand
    v: Operand
    out: Product
    x: int
    dq: Product | None = None
    dk: Product | None = None
    dv: Product | None = None
    gradient: Product | None = None  # of the output times v^T: matrix is the slot that is G
    cotangent: Operand | None = None
    masks: list[Mask] = field(default_factory=list)  # outermost first
    inner: int = -1  # where the masks begin
    shape: tuple[int, ...] = ()  # of the masked scores: the leading axes may be cut otherwise than the products'


def recognise_attention(graph: Graph, fits: Fits) -> Graph:
    """An equal graph in which attention is one node forward and one backward; ``fits`` gets the avals of q, k, v."""
    from .attention_write import Writing, rebuilt

    if not any(n.op is OPS["reduce"] and n.attrs[0] == "max" for n in graph.nodes):
        return graph
    graph = dce(graph)
    look = Look(graph)
    found = []
    for node in graph.nodes:
        if node.op is OPS["contract"]:
            try:
                m = Matcher(look, node)
                found.append(Writing(look, m, m.match(), fits))
            except Refused:
                continue
    return rebuilt(look, found) if found else graph


class Look:
    """Who makes and who reads what."""

    def __init__(self, graph: Graph):
        self.graph, self.producer, self.avals = graph, graph.producer(), graph.slot_avals()
        self.outputs = set(graph.outputs)
        self.readers: list[list[Node]] = [[] for _ in self.avals]
        for n in graph.nodes:
            for s in dict.fromkeys(n.ins):
                self.readers[s].append(n)

    def traced(self, slot: int) -> tuple[int, tuple[int, ...]]:
        """(slot before permutes, their composition)."""
        perm = tuple(range(self.avals[slot].ndim))
        while self.producer[slot].op is OPS["permute"]:
            node = self.producer[slot]
            perm = tuple([node.attrs[0][p] for p in perm])
            slot = node.ins[0]
        return slot, perm

    def uniform(self, slot: int) -> int | None:
        """The zero-dim slot a value is an expansion of."""
        while self.producer[slot].op is not None and self.producer[slot].op.name in ("expand", "reshape", "copy"):  # type: ignore[union-attr]
            slot = self.producer[slot].ins[0]
        return slot if self.avals[slot].ndim == 0 else None

    def constant(self, slot: int) -> float | None:
        """The number a value consists of, if the program says so."""
        at = self.uniform(slot)
        if at is None or self.producer[at].op is not OPS["const"]:
            return None
        return float(np.frombuffer(self.producer[at].attrs[0], self.producer[at].attrs[1].np)[0])


class Matcher:
    """Tries one product as q k^T."""

    def __init__(self, look: Look, score: Node):
        self.look, self.score = look, score
        av = score.avals[0]
        if av.ndim < 2 or not av.dtype.is_floating_point or len(score.attrs[2]) != 1:
            raise Refused
        n = len(score.attrs[0])
        if any(a.ndim != n + 2 for a in score.in_avals) or av.shape[-1] < 2:
            raise Refused
        self.rows, self.keys, self.size = av.shape[-2], av.shape[-1], av.size
        self.region: dict[int, Node] = {}  # slots that depend on the scores (or on G), and their nodes
        self.ends: dict[int, Node] = {}  # products that read them
        self.value: dict[int, Any] = {}  # slot -> polynomial or Log
        self.x = -1

    def match(self) -> Found:
        """The attention. Raises Refused."""
        self.explore(self.score)
        tops = [n for n in self.region.values() if n.op is OPS["reduce"] and n.attrs[0] == "max" and self.is_matrix(n.ins[0])]
        if len(tops) != 1 or tops[0].attrs[1] != (tops[0].in_avals[0].ndim - 1,):
            raise Refused
        self.x = tops[0].ins[0]
        self.evaluate()
        products = [self.product(n) for n in self.ends.values()]
        outs = [p for p in products if p.over_keys and self.value.get(p.matrix) == alg.symbol(alg.P)]
        if len(outs) != 1:
            raise Refused
        q, k = self.operand(self.score, 0), self.operand(self.score, 1)
        f = Found(self.score, q, k, outs[0].other, outs[0], self.x)
        gradient = self.find_gradient(f)
        if gradient is not None:
            f.gradient, f.cotangent = gradient
            self.explore(gradient[0].node)
            self.evaluate(gradient[0].matrix)
            products = [self.product(n) for n in self.ends.values()]
        self.classify(f, [p for p in products if p.node is not outs[0].node])
        self.peel(f)
        return f

    # ------------------------------------------------------------------------------------------------------ the region
    def explore(self, start: Node) -> None:
        """Everything that depends on the result of ``start``, up to products."""
        todo = [(start.slot, start.slot)]
        while todo:
            slot, _ = heapq.heappop(todo)
            if slot in self.look.outputs:
                raise Refused
            for n in self.look.readers[slot]:
                assert n.op is not None
                if n.op is OPS["contract"] and n is not self.score:
                    self.ends[n.slot] = n
                elif n.op.kind in ("pointwise", "reduce") or n.op.name in VIEWS:
                    if n.slot not in self.region:
                        self.region[n.slot] = n
                        heapq.heappush(todo, (n.slot, n.slot))
                else:
                    raise Refused
            if len(self.region) > MAX_REGION:
                raise Refused
        self.region[start.slot] = start

    def is_matrix(self, slot: int) -> bool:
        """Whether a value has the scores' shape (but for its leading axes)."""
        av = self.look.avals[slot]
        return av.ndim >= 2 and av.size == self.size and av.shape[-2:] == (self.rows, self.keys)

    def is_row(self, shape: tuple[int, ...]) -> bool:
        """Whether a shape has one element a row."""
        if math.prod(shape) != self.size // self.keys:
            return False
        return shape[-2:] == (self.rows, 1) or shape[-1:] == (self.rows,)

    # ----------------------------------------------------------------------------------------------------- the algebra
    def evaluate(self, gradient: int = -1) -> None:
        """Normal forms of what follows the softmax's input; ``gradient``: the slot that is G."""
        self.value = {}
        for slot in sorted(self.region):
            node = self.region[slot]
            if slot == self.x:
                self.value[slot] = alg.Log({})
            elif slot == gradient:
                self.value[slot] = alg.symbol(alg.G)
            elif any(s in self.value for s in node.ins):
                got = self.formula(node)
                if got is None and node.avals[0].dtype is bool_ and self.is_matrix(slot):
                    got = alg.symbol(("opaque", slot))
                if got is not None:
                    self.value[slot] = got

    def factor(self, slot: int, like: tuple[int, ...]) -> Any:
        """An operand of pointwise code whose result has shape ``like``."""
        av = self.look.avals[slot]
        if slot in self.value:
            whole = self.is_matrix(slot) and av.shape == like or self.is_row(like) and av.shape == like
            return self.value[slot] if whole or av.shape == (*like[:-1], 1) and self.is_row(av.shape) else None
        c = self.look.constant(slot)
        if c is not None and math.isfinite(c):
            return alg.number(c)
        at = self.look.uniform(slot)
        return alg.symbol(("number", at)) if at is not None and at not in self.region and av.dtype.is_floating_point else None

    def formula(self, node: Node) -> Any:
        """The normal form of a node, or None."""
        assert node.op is not None
        name, av, x = node.op.name, node.avals[0], self.value.get(node.ins[0])
        if name in ("reshape", "expand"):
            return self.moved(node, x)
        if name == "cast":
            return x if av.dtype.is_floating_point else None
        if name == "reduce":
            kind, axes = node.attrs
            if not self.is_matrix(node.ins[0]) or axes != (node.in_avals[0].ndim - 1,) or x is None:
                return None
            if kind == "max":
                return alg.symbol(alg.M) if isinstance(x, alg.Log) and not x.rows else None
            return self.total(x) if kind == "add" and not isinstance(x, alg.Log) else None
        if name == "where":
            return self.guarded(node)
        ins = [self.factor(s, av.shape) for s in node.ins]
        if any(i is None for i in ins) or not (self.is_matrix(node.slot) or self.is_row(av.shape)):
            return None
        return _pointwise(name, ins)

    def guarded(self, node: Node) -> Any:
        """``where(isinf(m), 0, m)``, which logsumexp writes for the maximum m: infinite ones give NaN either way."""
        test, top = self.look.producer[node.ins[0]], alg.symbol(alg.M)
        if test.op is not OPS["isinf"] or self.look.constant(node.ins[1]) != 0:
            return None
        return top if self.value.get(test.ins[0]) == top == self.value.get(node.ins[2]) else None

    def total(self, x: Any) -> Any:
        """The sum of a row."""
        return alg.row_sum(x, self.keys)

    def moved(self, node: Node, x: Any) -> Any:
        """A reshape or expand that keeps rows rows."""
        if x is None:
            return None
        before, after = node.in_avals[0].shape, node.avals[0].shape
        if self.is_matrix(node.ins[0]):
            return x if self.is_matrix(node.slot) else None
        if not self.is_row(before) or isinstance(x, alg.Log):
            return None
        if node.op is OPS["reshape"]:
            return x if self.is_row(after) else None
        return x if before == (*after[:-1], 1) and after[-2:] == (self.rows, self.keys) else None

    # ---------------------------------------------------------------------------------------------------- the products
    def operand(self, node: Node, which: int) -> Operand:
        """A factor of the scores: axes (lead..., row, depth)."""
        at = node.attrs
        batch, summed = at[which], at[2 + which]
        free = [i for i in range(node.in_avals[which].ndim) if i not in batch and i not in summed]
        slot, perm = self.look.traced(node.ins[which])
        return Operand(slot, tuple([perm[i] for i in (*batch, *free, *summed)]), self.lead)

    @property
    def lead(self) -> tuple[int, ...]:
        """Leading axes of the scores."""
        return self.score.avals[0].shape[:-2]

    def product(self, node: Node) -> Product:
        """A product at the end, its matrix and its other factor."""
        sides = [w for w in (0, 1) if self.look.traced(node.ins[w])[0] in self.region]
        if len(sides) != 1 or len(node.attrs[2]) != 1:
            raise Refused
        w = sides[0]
        matrix, perm = self.look.traced(node.ins[w])
        if not self.is_matrix(matrix):
            raise Refused
        return self.roles(node, w, matrix, perm)

    def roles(self, node: Node, w: int, matrix: int, perm: tuple[int, ...]) -> Product:
        """The product of a matrix (operand ``w``) and something, its axes named."""
        n = self.look.avals[matrix].ndim - 2
        batch, summed = [perm[i] for i in node.attrs[w]], [perm[i] for i in node.attrs[2 + w]]
        other = node.in_avals[1 - w]
        if sorted(batch) != list(range(n)) or len(summed) != 1 or other.ndim != n + 2:
            raise Refused
        by_axis = dict(zip(batch, node.attrs[1 - w]))
        o_batch, o_summed = [by_axis[i] for i in range(n)], node.attrs[3 - w][0]
        o_free = next(i for i in range(other.ndim) if i not in o_batch and i != o_summed)
        slot, before = self.look.traced(node.ins[1 - w])
        operand = Operand(slot, tuple([before[i] for i in (*o_batch, o_summed, o_free)]), self.look.avals[matrix].shape[:-2])
        layout = (*batch, n, n + 1) if w == 0 else (*batch, n + 1, n)
        return Product(node, matrix, summed[0] == n + 1, operand, layout)

    def find_gradient(self, f: Found) -> tuple[Product, Operand] | None:
        """The product of the cotangent and v^T that is multiplied in somewhere behind the softmax."""
        for slot in sorted(self.region):
            node = self.region[slot]
            for s in node.ins if node.op.kind == "pointwise" else ():  # type: ignore[union-attr]
                if s in self.region or not self.is_matrix(s):
                    continue
                top = s
                while self.look.producer[top].op in (OPS["cast"], OPS["permute"], OPS["reshape"]):
                    top = self.look.producer[top].ins[0]
                made = self.look.producer[top]
                if made.op is OPS["contract"]:
                    got = self.gradient_of(made, f)
                    if got is not None:
                        return got
        return None

    def gradient_of(self, node: Node, f: Found) -> tuple[Product, Operand] | None:
        """A product as cotangent times v^T, or None."""
        if len(node.attrs[2]) != 1 or any(a.ndim != len(f.v.perm) for a in node.in_avals):
            return None
        av = node.avals[0]
        for w in (0, 1):  # which one is the cotangent
            go, v = self.operand(node, w), self.operand(node, 1 - w)
            v = Operand(v.slot, v.perm, f.v.lead)
            if v != f.v:
                continue
            matrix = node.slot
            if w == 1:
                n = av.ndim
                swap = ((*range(n - 2), n - 1, n - 2),)
                readers = self.look.readers[matrix]
                if len(readers) != 1 or readers[0].op is not OPS["permute"] or readers[0].attrs != swap:
                    return None
                matrix = readers[0].slot
            if not self.is_matrix(matrix):
                return None
            layout = tuple(range(av.ndim))
            return Product(node, matrix, False, go, layout), Operand(go.slot, go.perm, f.v.lead)
        return None

    def classify(self, f: Found, products: Sequence[Product]) -> None:
        """The gradients among the products."""
        for p in products:
            if self.value.get(p.matrix) == alg.symbol(alg.P):
                ok, name = not p.over_keys and f.dv is None and (f.cotangent is None or self.same(p.other, f.cotangent)), "dv"
                f.cotangent = p.other
            elif p.over_keys:
                ok, name = f.dq is None and self.same(p.other, f.k), "dq"
            else:
                ok, name = f.dk is None and self.same(p.other, f.q), "dk"
            if not ok:
                raise Refused
            setattr(f, name, p)
        if (f.gradient is None) != (f.dq is None and f.dk is None):
            raise Refused
        if f.dq is not None and f.dk is not None and f.dq.matrix != f.dk.matrix:
            raise Refused
        if f.cotangent is not None and self.look.avals[f.cotangent.slot].dtype is not self.look.avals[f.v.slot].dtype:
            raise Refused

    @staticmethod
    def same(a: Operand, b: Operand) -> bool:
        """Equal but for how the leading axes are cut."""
        return a.slot == b.slot and a.perm == b.perm

    # ------------------------------------------------------------------------------------------------------- the masks
    def peel(self, f: Found) -> None:
        """Masks applied last, and where the code under them ends."""
        slot, look = self.x, self.look
        while slot != self.score.slot:
            node = self.region[slot]
            name = node.op.name  # type: ignore[union-attr]
            if name == "cast" or name == "reshape" and self.is_matrix(node.ins[0]) and not f.masks:
                slot = node.ins[0]
                continue
            found = self.mask_of(node) if name in ("where", "add") else None
            if found is None:
                break
            if not f.masks:
                f.shape = node.avals[0].shape
            slot, mask = found
            f.masks.append(mask)
        f.inner, f.shape = slot, f.shape or look.avals[self.x].shape
        if look.avals[slot].dtype is bool_:
            raise Refused

    def mask_of(self, node: Node) -> tuple[int, Mask] | None:
        """(what is masked, the mask) of a node, or None."""
        look, name = self.look, node.op.name  # type: ignore[union-attr]
        if name == "where":
            c, a, b = node.ins
            if c in self.region or (a in self.region) == (b in self.region):
                return None
            inside, fill = (b, a) if b in self.region else (a, b)
            at = look.uniform(fill)
            if at is None or not self.is_matrix(inside):
                return None
            return inside, Mask("where", c, inside == a, at)
        a, b = node.ins
        if (a in self.region) == (b in self.region):
            return None
        inside, added = (a, b) if a in self.region else (b, a)
        while look.producer[added].op is OPS["cast"]:
            added = look.producer[added].ins[0]
        made = look.producer[added]
        if made.op is not OPS["where"] or not self.is_matrix(inside):
            return None
        c, yes, no = made.ins
        negated = look.constant(yes) == 0
        at = look.uniform(no if negated else yes)
        if at is None or look.constant(yes if negated else no) != 0:
            return None
        return inside, Mask("add", c, negated, at)


def _pointwise(name: str, ins: list[Any]) -> Any:
    """The algebra's rule of an op."""
    logs = [isinstance(i, alg.Log) for i in ins]
    if any(logs):
        if name == "exp":
            return alg.exp(ins[0])
        if name in ("add", "sub") and logs[0] and not logs[1]:
            rows = alg.add(ins[0].rows, ins[1], 1.0 if name == "add" else -1.0)
            return None if any(alg.is_matrix(m) for m in rows) else alg.Log(rows)
        return None
    if name in ("add", "sub"):
        return alg.add(ins[0], ins[1], 1.0 if name == "add" else -1.0)
    if name == "neg":
        return alg.add({}, ins[0], -1.0)
    if name == "mul":
        return alg.mul(ins[0], ins[1])
    if name in ("div", "reciprocal"):
        below = alg.inverse(ins[-1])
        if below is None or any(alg.is_matrix(m) for m in below):
            return None
        return alg.mul(ins[0], below) if name == "div" else below
    return alg.log(ins[0]) if name == "log" else None
