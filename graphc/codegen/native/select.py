"""Which native code runs each step of a schedule: printed kernels, hand-written kernels, or a NumPy call."""
from __future__ import annotations

from dataclasses import replace

from ...ir.node import Graph, Node
from ...ir.optable import Prim
from ...runtime import jit
from .. import index
from ..fuse import Schedule
from ..index import Ix
from ..loop_ir import Access, Buf, Kernel, Stmt, Store
from ..lower import tidy
from .columns import columns_job, merge_sums
from .contraction import View, dense_strides, product, view_of
from .conv import conv_jobs
from .epilogue import matching, storing
from .gemm import gemm_jobs, takes_epilogue
from .gemm_operand import Operand
from .jobs import Call, Job, Key, Step
from .library import library_jobs, zeros_allowed
from .loop import lower_loop
from .printed import kernel_job, where

CONVOLUTIONS = ("conv", "conv_input_grad", "conv_weight_grad")
NEAR = 8  # steps a product may be delayed whatever it keeps


class Selector:
    """Chooses the steps of one schedule's items, in order."""

    def __init__(self, graph: Graph, sched: Schedule):
        self.graph, self.sched = graph, sched
        self.avals = graph.slot_avals()
        self.producer = graph.producer()
        self.bits = jit.vector_bits()
        self.copied: dict[int, Key] = {}  # views that were copied: where to
        self.epilogues: dict[int, tuple[Node, Kernel]] = {}  # place of a kernel -> the product it finishes, and its form
        self.late: set[int] = set()  # products that run in their epilogue's place

    def all(self) -> list[Step]:
        """The steps of the whole schedule, but for kernels whose results nobody reads (zeros that a job makes itself)."""
        readers: dict[int, list[int]] = {}
        for i, item in enumerate(self.sched.steps):
            for s in {item.buffers[b].slot for b in item.reads} if isinstance(item, Kernel) else set(item.ins):
                readers.setdefault(self.sched.views.get(s, (s, None))[0], []).append(i)
        self.find_epilogues(readers)
        rows, rest = merge_sums(self.sched.steps, readers, set(self.graph.outputs))
        steps: list[Step] = []
        stands: dict[int, frozenset[Key]] = {}  # product -> what its step writes
        for i, item in enumerate(self.sched.steps):
            first = len(steps)
            if i in rows:
                steps.append(columns_job(*rows[i], self.bits))
            elif i in rest:
                steps.append(kernel_job(rest[i], self.bits))
            elif i in self.epilogues:
                steps += self.contraction(*self.epilogues[i])
            elif not isinstance(item, Node) or item.slot not in self.late:
                steps += self.steps(item)
            if i in self.sched.waits:
                waits = frozenset([key for s in self.sched.waits[i] for key in stands.get(s, (s,))])
                steps[first:] = [replace(s, waits=waits) if isinstance(s, Job) else s for s in steps[first:]]
            if i in self.epilogues:  # the product itself may not be stored
                stands[self.epilogues[i][0].slot] = frozenset().union(*[s.writes for s in steps[first:]])
        used = {self.sched.views.get(x, (x,))[0] for s in steps for x in s.reads} | set(self.graph.outputs)  # type: ignore[call-overload]
        return [s for s in steps if not isinstance(s, Job) or s.kernel is None or s.checks or not used.isdisjoint(s.writes)]

    def find_epilogues(self, readers: dict[int, list[int]]) -> None:
        """Pair every product with the kernel that reads it first, where that one can run on the product's tiles. If others
        read the product too, the kernel stores it as well. ``readers``: slot -> places of the steps that read it."""
        outputs = set(self.graph.outputs)
        for place, node in enumerate(self.sched.steps):
            if not isinstance(node, Node) or not _is_product(node) or not readers.get(node.slot):
                continue
            first = readers[node.slot][0]
            item = self.sched.steps[first]
            if not isinstance(item, Kernel) or first in self.epilogues:
                continue
            (a, b), (va, vb) = node.in_avals, [view_of(av, self.sched.views.get(s, (s, None))[1])
                                               for s, av in zip(node.ins, node.in_avals)]
            p = product(node.attrs, a, b, va, vb)
            if p is None or not takes_epilogue(node.avals[0].dtype, p.batch, p.m, p.n, p.k, self.bits):
                continue
            if self.holds(node, place, first, readers) > 2 * node.avals[0].nbytes:
                continue
            k = matching(item, node.slot, p.n)
            if k is not None:
                alone = len(readers[node.slot]) == 1 and node.slot not in outputs
                self.epilogues[first] = node, k if alone else storing(k, node.slot)
                self.late.add(node.slot)

    def holds(self, node: Node, place: int, later: int, readers: dict[int, list[int]]) -> int:
        """Bytes of operands nobody else reads so late that would be kept if the product ran at a later place: weight gradients
        that wait for the optimizer keep activations."""
        if later - place < NEAR:
            return 0
        bases = {self.sched.views.get(s, (s, None))[0] for s in node.ins}
        made = [s for s in bases if self.producer[s].op.kind != "leaf"]  # type: ignore[union-attr]
        return sum([self.avals[s].nbytes for s in made if max(readers[s]) < later])

    def steps(self, item: Kernel | Node) -> list[Step]:
        """The steps that carry out one item."""
        if isinstance(item, Kernel):
            return [kernel_job(item, self.bits)]
        assert isinstance(item.op, Prim)
        if item.op.name == "loop_scan":
            keys, copies = self.dense(item.ins)
            loop = lower_loop(item, keys, lambda graph, sched: Selector(graph, sched).all())
            if loop is not None:
                return [*copies, loop]
        if _is_product(item):
            return self.contraction(item)
        jobs = self.library(item)
        return [_call(item)] if jobs is None else jobs

    def library(self, node: Node) -> list[Step] | None:
        """Hand-written kernels over contiguous operands, or None."""
        assert isinstance(node.op, Prim)
        build = conv_jobs if node.op.name in CONVOLUTIONS else library_jobs
        before = dict(self.copied)
        given = [not (zeros_allowed(node, k) and self.is_zero(s)) for k, s in enumerate(node.ins)]
        dense, copies = self.dense(tuple([s for s, g in zip(node.ins, given) if g]))
        rest = iter(dense)
        keys = [next(rest) if g else None for g in given]
        outs = tuple(range(node.slot, node.end))
        unique = (node.op.name, node.slot)
        if build is conv_jobs:
            jobs = conv_jobs(node.op.name, node.attrs, node.in_avals, node.avals[0], keys, outs[0], unique, self.bits)
        else:
            jobs = library_jobs(node, node.in_avals, node.avals, keys, outs, unique, self.bits)
        if jobs is None:
            self.copied = before  # copies that are not made
            return None
        return [*copies, *jobs]

    def is_zero(self, slot: int) -> bool:
        """Whether a value is a constant of zero bytes, however it is expanded."""
        node = self.producer[slot]
        while node.op is not None and node.op.name in ("expand", "reshape", "permute"):
            node = self.producer[node.ins[0]]
        return node.op is not None and node.op.name == "const" and not any(node.attrs[0])

    def contraction(self, node: Node, epilogue: Kernel | None = None) -> list[Step]:
        """A product of strided operands; operands whose axes do not merge are copied into an order that does."""
        attrs, (a, b) = node.attrs, node.in_avals
        operands = [(base, ix) for base, ix in (self.sched.views.get(s, (s, None)) for s in node.ins)]
        places: list[tuple[Key, View]] = [(base, view_of(av, ix)) for (base, ix), av in zip(operands, (a, b))]
        copies: list[Step] = []
        p = product(attrs, a, b, places[0][1], places[1][1])
        for which in (1, 0):
            if p is None:
                (base, ix), slot, av = operands[which], node.ins[which], node.in_avals[which]
                free = [i for i in range(av.ndim) if i not in attrs[which] and i not in attrs[2 + which]]
                order = (*attrs[0], *free, *attrs[2]) if which == 0 else (*attrs[1], *attrs[3], *free)
                key = ("ordered", node.slot, which)
                copies.append(self.copy(slot, base, ix, key, order))
                strides = dense_strides(tuple([av.shape[d] for d in order]))
                places[which] = (key, View(0, tuple([strides[order.index(d)] for d in range(av.ndim)])))
                p = product(attrs, a, b, places[0][1], places[1][1])
        assert p is not None
        (ka, va), (kb, vb) = places
        left, right = Operand(ka, va.offset, p.batch_a, *p.a), Operand(kb, vb.offset, p.batch_b, *p.b)
        return [*copies, *gemm_jobs(node.avals[0].dtype, p.batch, p.m, p.n, p.k, left, right, node.slot,
                                    ("gemm", node.slot), self.bits, epilogue=epilogue)]

    def dense(self, slots: tuple[int, ...]) -> tuple[list[Key], list[Step]]:
        """Keys where the slots lie contiguous, and the jobs that copy those that do not."""
        keys: list[Key] = []
        jobs: list[Step] = []
        for s in slots:
            base, ix = self.sched.views.get(s, (s, None))
            shape = self.avals[s].shape
            if ix is None or ix == index.flatten([index.var(d) if n != 1 else Ix(0, ()) for d, n in enumerate(shape)], shape):
                keys.append(base)
                continue
            if s not in self.copied:
                self.copied[s] = ("dense", s)
                jobs.append(self.copy(s, base, ix, self.copied[s], tuple(range(len(shape)))))
            keys.append(self.copied[s])
        return keys, jobs

    def copy(self, slot: int, base: int, ix: Ix | None, key: Key, order: tuple[int, ...]) -> Job:
        """The copy of a (strided) value into the buffer ``key``, its axes in ``order``."""
        av = self.avals[slot]
        buffers = (Buf(base, av.dtype, self.avals[base].size), Buf(key, av.dtype, av.size))  # type: ignore[arg-type]
        at = [index.var(d) if n != 1 else Ix(0, ()) for d, n in enumerate(av.shape)]
        flat = index.flatten([at[d] for d in order], tuple([av.shape[d] for d in order]))
        ix = index.flatten(at, av.shape) if ix is None else ix
        k = tidy(Kernel("k_copy", av.shape, av.ndim, buffers, (Stmt("load", (), av.dtype, Access(0, ix, ()), None),),
                        (Store(Access(1, flat, ()), 0),)))
        job = kernel_job(k, self.bits)
        job.own[key] = av.nbytes
        return job


def _is_product(node: Node) -> bool:
    """Whether our own matrix product computes the node."""
    return node.op.name == "contract" and node.avals[0].dtype.is_floating_point and bool(node.avals[0].size)  # type: ignore


def _call(node: Node) -> Call:
    op, attrs = node.op, node.attrs
    assert isinstance(op, Prim)
    run = op.eval_np
    return Call(node, lambda *arrays: run(attrs, *arrays), node.ins, tuple(range(node.slot, node.end)), op.name)


__all__ = ["Selector", "kernel_job", "where"]
