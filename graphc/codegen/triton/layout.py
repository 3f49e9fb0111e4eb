"""Convolution networks run channels last inside: activations lie as (N, *S, C), weights as (O, *K, C/groups).

A row of an implicit product is then contiguous along what is summed, so it is read 16 bytes at a time, and a convolution's
result is a plain matrix (pixels) x (channels), which normalisation sums over rows.

Algorithm. Forward sweep; every value has its ordinary form, a channels-last form, or both, and either form is a permutation
of the other, made when it is first asked for. Convolutions become the rows of :data:`ROWS`. Pointwise nodes over values of
a convolution's rank form components joined by values of full size; a component is computed channels last when it is joined to
at least as many convolutions and poolings as to inputs and outputs of the program, which stay as the user laid them out
(so an optimizer's update of a weight stays ordinary, an activation does not). Reductions follow what they read.
Permutations are movement: they cost nothing but where a value has to be rearranged in memory.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.node import Aval, Graph, GraphBuilder, Node, aval
from ...ir.optable import OPS, Prim
from ...ir.passes.cse import merge_common
from ...ir.passes.dce import dce
from .depthwise import Depthwise, is_depthwise


def last_of(n: int) -> tuple[int, ...]:
    """The permutation that puts axis 1 last."""
    return (0, *range(2, n), 1)


def first_of(n: int) -> tuple[int, ...]:
    """The permutation that brings the last axis back to place 1."""
    return (0, n - 1, *range(1, n - 1))


def _row(name: str) -> Prim:
    """The channels-last form of a convolution: all operands and the result permuted."""
    base = OPS[name]
    assert isinstance(base, Prim)

    def infer(attrs: Any, a: Aval, b: Aval) -> Aval:
        ins = tuple([aval(tuple([v.shape[d] for d in first_of(v.ndim)]), v.dtype, v.device) for v in (a, b)])
        out, = base.infer_avals(attrs, ins)
        return aval(tuple([out.shape[d] for d in last_of(out.ndim)]), out.dtype, out.device)

    def evaluate(attrs: Any, a: np.ndarray, b: np.ndarray) -> Any:
        out = base.eval_np(attrs, a.transpose(first_of(a.ndim)), b.transpose(first_of(b.ndim)))
        return np.ascontiguousarray(out.transpose(last_of(out.ndim)))

    return Prim(f"{name}_last", kind="contract", attrs=base.attrs, infer=infer, eval_np=evaluate, loop="contract", vjp=None,
                saves=(), samples=lambda: [([tuple_last(x) for x in ins], at) for ins, at in base.samples()],
                doc=f"{base.doc} All arrays have axis 1 last.")


def tuple_last(x: Any) -> Any:
    """A sample array channels last."""
    return np.ascontiguousarray(np.asarray(x).transpose(last_of(np.ndim(x))))


ROWS = {name: _row(name) for name in ("conv", "conv_input_grad", "conv_weight_grad")}  # rows of GPU plans only


def channels_last(graph: Graph) -> Graph:
    """An equal graph with the convolutions, and what lies between them, channels last."""
    if not any(_is_conv(n) for n in graph.nodes):
        return graph
    return dce(merge_common(_Rewriter(graph).run()))


def _is_conv(node: Node) -> bool:
    op = node.op
    return op is not None and op.name in ROWS and node.avals[0].dtype.is_floating_point and 3 <= node.avals[0].ndim <= 5


def _is_pointwise(node: Node) -> bool:
    return node.op is not None and node.op.kind == "pointwise" and len(node.avals) == 1


def _is_reduction(node: Node) -> bool:
    return node.op is OPS["reduce"] or node.op is OPS["argreduce"]


def _axes(node: Node) -> tuple[int, ...]:
    """The axes a reduction takes away."""
    return tuple(node.attrs[1]) if node.op is OPS["reduce"] else (node.attrs[1],)


class _Rewriter:
    """State of the sweep."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.avals = graph.slot_avals()
        self.producer = graph.producer()
        self.b = GraphBuilder()
        self.plain: list[int | None] = []  # old slot -> new slot, ordinary form
        self.last: dict[int, int] = {}  # old slot -> new slot, channels last
        self.moved: set[int] = set()  # old slots whose memory is channels last, seen through movement
        self.chosen = self.vote()

    # ------------------------------------------------------------------------------------------------------- choosing
    def vote(self) -> set[int]:
        """Slots of pointwise nodes that are computed channels last."""
        parent: dict[int, int] = {}

        def find(s: int) -> int:
            while parent[s] != s:
                parent[s] = parent[parent[s]]
                s = parent[s]
            return s

        ranks = {n.avals[0].ndim for n in self.graph.nodes if _is_conv(n)}
        for n in self.graph.nodes:
            if _is_pointwise(n) and n.avals[0].ndim in ranks:
                parent[n.slot] = n.slot
                for s in n.ins:
                    if s in parent and self.avals[s].shape == n.avals[0].shape:
                        parent[find(s)] = find(n.slot)
        score: dict[int, int] = {}

        def count(s: int, votes: int) -> None:
            score[find(s)] = score.get(find(s), 0) + votes

        for n in self.graph.nodes:
            for s in dict.fromkeys(n.ins):
                if s in parent and (_is_conv(n) or self.pools(n)):
                    count(s, 1)  # the convolution reads it
                elif n.slot in parent and self.avals[s].shape == n.avals[0].shape:
                    source = self.producer[s]
                    if _is_conv(source) or self.pools(source):
                        count(n.slot, 1)
                    elif source.op is not None and source.op.kind == "leaf":
                        count(n.slot, -1)
        for s in self.graph.outputs:
            if s in parent:
                count(s, -1)
        return {s for s in parent if score.get(find(s), 0) >= 0 and find(s) in score}

    def pools(self, node: Node) -> bool:
        """Whether a reduction (or the position of an extreme) gives an image."""
        return _is_reduction(node) and node.avals[0].ndim == node.in_avals[0].ndim - len(_axes(node)) >= 3

    # ----------------------------------------------------------------------------------------------------------- forms
    def ordinary(self, s: int) -> int:
        """The new slot of a value's ordinary form."""
        found = self.plain[s]
        if found is None:
            found = self.plain[s] = self.b.emit(OPS["permute"], (self.last[s],), (first_of(self.avals[s].ndim),),
                                                self.producer[s].loc)
        return found

    def channels(self, s: int, rank: int) -> int:
        """The new slot of a value's channels-last form; of fewer axes: as it broadcasts against ``rank`` axes."""
        if s in self.last:
            return self.last[s]
        av, loc = self.avals[s], self.producer[s].loc
        if av.ndim == 0:
            return self.ordinary(s)
        x, shape = self.ordinary(s), (1,) * (rank - av.ndim) + av.shape
        if av.ndim < rank:
            x = self.b.emit(OPS["reshape"], (x,), (shape,), loc)
        perm = last_of(rank)
        if sum(n != 1 for n in shape) <= 1:  # one axis: nothing moves
            x = self.b.emit(OPS["reshape"], (x,), (tuple([shape[d] for d in perm]),), loc)
        else:
            x = self.b.emit(OPS["permute"], (x,), (perm,), loc)
        if av.ndim == rank:
            self.last[s] = x
        return x

    # ------------------------------------------------------------------------------------------------------------ nodes
    def run(self) -> Graph:
        """The new graph."""
        for node in self.graph.nodes:
            if _is_conv(node):
                rank = node.avals[0].ndim
                ins = tuple([self.channels(s, rank) for s in node.ins])
                self.keep_last(node, Depthwise(self.b, node).build(*ins) if is_depthwise(node) else
                               self.b.emit(ROWS[node.op.name], ins, node.attrs, node.loc))  # type: ignore[union-attr]
                if node.op is OPS["conv_weight_grad"]:
                    self.weight_gradient(node)
            elif node.slot in self.chosen:
                ins = tuple([self.channels(s, node.avals[0].ndim) for s in node.ins])
                self.keep_last(node, self.b.emit(node.op, ins, node.attrs, node.loc))  # type: ignore[arg-type]
            elif _is_reduction(node) and self.reduce(node):
                pass
            else:
                self.copy(node)
        return self.b.graph(tuple([self.ordinary(s) for s in self.graph.outputs]))

    def weight_gradient(self, node: Node) -> None:
        """A weight's gradient in its ordinary form is made by whoever reads it (the optimizer's update) on the way."""
        x = self.ordinary(node.slot)
        self.plain[node.slot] = self.b.emit(OPS["cast"], (x,), (node.avals[0].dtype,), node.loc)

    def keep_last(self, node: Node, slot: int) -> None:
        """Note a result that exists channels last."""
        self.last[node.slot] = slot
        self.plain.append(None)
        self.moved.add(node.slot)

    def copy(self, node: Node) -> None:
        """A node as it is."""
        if node.op is not None and node.op.kind == "view" and any(s in self.moved for s in node.ins):
            self.moved.add(node.slot)
        ins = tuple([self.ordinary(s) for s in node.ins])
        first = self.b.add(node.op, ins, node.attrs, node.avals, node.loc)  # type: ignore[arg-type]
        self.plain.extend(range(first, first + len(node.avals)))

    def reduce(self, node: Node) -> bool:
        """A reduction of a channels-last value over its axes there, or one that gives an image (pooling) in that order."""
        s, kind, axes = node.ins[0], node.attrs[0], _axes(node)
        n = self.avals[s].ndim
        kept = [d for d in range(n) if d not in axes]
        if s in self.last and s in self.moved and node.op is OPS["reduce"]:
            perm = last_of(n)
            x = self.b.emit(OPS["reduce"], (self.last[s],), (kind, tuple(sorted(perm.index(a) for a in axes))), node.loc)
            now = [d for d in perm if d in kept]
            if now != kept:
                x = self.b.emit(OPS["permute"], (x,), (tuple([now.index(d) for d in kept]),), node.loc)
            self.plain.append(x)
            return True
        if s in self.moved and self.pools(node):
            order = (*[kept[d] for d in last_of(len(kept))], *axes)
            x = self.b.emit(OPS["permute"], (self.ordinary(s),), (order,), node.loc)
            at = tuple(range(len(kept), n)) if node.op is OPS["reduce"] else n - 1
            self.keep_last(node, self.b.emit(node.op, (x,), (kind, at), node.loc))  # type: ignore[arg-type]
            return True
        return False


__all__ = ["ROWS", "channels_last", "first_of", "last_of"]
