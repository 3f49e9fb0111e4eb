"""A schedule as a list of GPU launches: printed kernels, products with what follows them, loops over time, library kernels.

Pointwise work that reads a product elementwise is printed into the product's kernel (bias and activation in the forward
pass, the optimizer's update behind a weight gradient), so the product itself never goes through memory unless somebody
else reads it. What no kernel here can carry out stays a :class:`Host` step, named in the plan's text.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ...errors import CompileError
from ...ir.location import format_location
from ...ir.node import Aval, Graph, Node
from ...ir.passes import run_passes
from .. import index
from ..fuse import Schedule, schedule
from ..index import Ix
from ..loop_ir import Access, Buf, Kernel, Stmt, Store
from ..lower import tidy
from ..native.contraction import Product, View, dense_strides, product, view_of
from ..native.jobs import Cursor, Key
from . import attention, autotune, conv, matmul, roofline
from .compiler import H100, Target
from .library import Library, library_kernels
from .passes import split_for
from .printer import Arg, Printed, assemble, print_kernel
from .recompute import recompute
from .tiling import pow2

MAX_EPILOGUE_BUFFERS = 8  # arrays of full size an epilogue may touch: each needs registers beside the accumulator


@dataclass(frozen=True)
class Launch:
    """One kernel. Pointer arguments name memory by key (a slot of the graph, or a buffer listed in ``own`` with its bytes)."""

    printed: Printed
    writes: frozenset[Key]
    own: dict[Key, int] = field(default_factory=dict)
    label: str = ""
    flops: int = 0  # operations, estimated; products count two for each multiplication

    @property
    def keys(self) -> list[Any]:
        """What its pointer arguments point to, in order."""
        return [a.value for a in self.printed.args if a.type[0] == "*" and a.value != "err"]

    @property
    def reads(self) -> set[Key]:
        """Keys read."""
        return {plain(k) for k in self.keys} - self.writes


@dataclass(frozen=True)
class Copy:
    """dst[:nbytes] = src[:nbytes]; a key or a cursor each."""

    dst: Any
    src: Any
    nbytes: int


@dataclass(frozen=True)
class Repeat:
    """``body`` run ``length`` times; cursors in it move from iteration to iteration."""

    body: tuple[Step, ...]
    length: int
    own: dict[Key, int]


@dataclass(frozen=True)
class Host:
    """A node that only the host can evaluate so far."""

    node: Node


Step = Launch | Copy | Repeat | Host


def plain(key: Any) -> Key:
    """The memory a key or cursor is about."""
    return key.key if isinstance(key, Cursor) else key


def lower_plan(graph: Graph, sched: Schedule | None = None, target: Target = H100) -> list[Step]:
    """The launches that carry out an optimised graph, in order. Raises CompileError for a kernel that cannot be printed.

    Without ``sched`` the graph's long reductions are split first; the slots named then are those of that graph, which is
    why callers who need them pass the result of :func:`prepared`.
    """
    if sched is None:
        graph, sched = prepared(graph, target)
    return Lowering(graph, sched, target).all()


def prepared(graph: Graph, target: Target = H100) -> tuple[Graph, Schedule]:
    """The graph a plan is made of and its schedule."""
    graph = recompute(split_for(graph, target))
    return graph, schedule(graph, gather=True)


class Tiled(NamedTuple):
    """A contraction as a tiled product: ``print(epilogue, keep)`` gives copies to make first, the kernels, the parts of
    the sum; ``fits`` tells whether a kernel can be printed behind it."""

    product: Product
    fits: Callable[[Kernel], bool]
    print: Callable[[Kernel | None, bool], tuple[list[Step], list[Printed], int]]


class Lowering:
    """Chooses the launches of one schedule's items."""

    def __init__(self, graph: Graph, sched: Schedule, target: Target, aligned: bool = True):
        self.graph, self.sched, self.target = graph, sched, target
        self.aligned = aligned  # every operand starts at a multiple of 16 bytes: not what moves along a loop
        self.avals = graph.slot_avals()
        self.copied: dict[int, Key] = {}
        self.readers: dict[Any, list[int]] = {}  # slot in memory -> numbers of the items that read it
        for i, item in enumerate(sched.steps):
            slots = {item.buffers[b].slot for b in item.reads} if isinstance(item, Kernel) else {self.base(s) for s in item.ins}
            for s in slots:
                self.readers.setdefault(s, []).append(i)
        self.bypassed: dict[int, tuple[int, View]] = {}  # what attention reads elsewhere: slot -> (slot in memory, strides)
        self.placed: dict[int, tuple[int, View]] = {}  # results that attention writes elsewhere: a copy of them alone is stored
        self.find_copies()
        self.products: dict[int, Tiled] = {}  # slot of a contraction -> its kernel-to-be
        self.follower: dict[int, int] = {}  # item number of a kernel -> contraction slot it continues
        self.find_followers()

    def base(self, slot: int) -> int:
        """The slot in memory that a value is read from."""
        return self.sched.views[slot][0] if slot in self.sched.views else slot

    def all(self) -> list[Step]:
        """The whole plan."""
        out: list[Step] = []
        postponed = set(self.follower.values())
        for i, item in enumerate(self.sched.steps):
            if isinstance(item, Kernel):
                slot = self.follower.get(i)
                if self.is_skipped(item):
                    continue
                out += [kernel_launch(item)] if slot is None else self.multiply(slot, item)
            elif item.slot in self.products:
                if item.slot not in postponed:
                    out += self.multiply(item.slot, None)
            else:
                out += self.node(item)
        return out

    def is_skipped(self, k: Kernel) -> bool:
        """Whether a kernel is a copy that attention makes unnecessary."""
        made = {k.buffers[b].slot for b in k.writes}
        return any(s in self.bypassed for s in made) or any(s in made for s, _ in self.placed.values())

    def find_copies(self) -> None:
        """Copies around attention, which reads and writes strides: those that it alone reads, and those of its result."""
        for item in self.sched.steps:
            found = strided_copy(item) if isinstance(item, Kernel) else None
            if found is None:
                continue
            slot, base, view, back = found
            if slot in self.graph.outputs and base in self.graph.outputs or slot in self.sched.views:
                continue
            shape = self.avals[slot].shape
            if slot not in self.graph.outputs and self.attention_alone(slot):
                strides = view(shape)
                if strides is not None and (shape[-1] == 1 or strides.strides[-1] == 1):
                    self.bypassed[slot] = (base, strides)
            elif base in self.made_by_attention and base not in self.placed and self.attention_alone(base, besides=item):
                strides = back(self.avals[base].shape) if base not in self.graph.outputs else None
                if strides is not None and strides.strides[-1] == 1:
                    self.placed[base] = self.bypassed[base] = (slot, strides)

    @property
    def made_by_attention(self) -> set[int]:
        """Results of attention."""
        return {n.slot for n in self.sched.steps if isinstance(n, Node) and n.op.name in attention.NAMES  # type: ignore[union-attr]
                and len(n.avals) == 2}

    def attention_alone(self, slot: int, besides: Kernel | Node | None = None) -> bool:
        """Whether only attention reads a value, and where it takes any layout."""
        readers = [self.sched.steps[i] for i in self.readers.get(slot, []) if self.sched.steps[i] is not besides]
        if not readers and besides is None:
            return False
        for r in readers:
            if isinstance(r, Kernel) or r.op.name not in attention.NAMES:  # type: ignore[union-attr]
                return False
            free = attention.STRIDED[len(r.avals) == 3]
            if slot not in r.ins or any(s == slot and at not in free for at, s in enumerate(r.ins)):
                return False
        return True

    # ------------------------------------------------------------------------------------------------------- products
    def find_followers(self) -> None:
        """Contractions on tensor cores, and for each the first reader if it can be printed behind it."""
        for node in self.sched.steps:
            if isinstance(node, Kernel) or node.avals[0].dtype not in matmul.CANDIDATES or not node.avals[0].size:
                continue
            found = self.tiled(node)
            if found is None:
                continue
            self.products[node.slot] = found
            readers = self.readers.get(node.slot, [])
            k = self.sched.steps[readers[0]] if readers else None
            if isinstance(k, Kernel) and readers[0] not in self.follower and self.may_follow(k, node.slot, found.fits):
                self.follower[readers[0]] = node.slot

    def tiled(self, node: Node) -> Tiled | None:
        """How a contraction runs on tensor cores, or None."""
        name, dt = node.op.name, node.avals[0].dtype  # type: ignore[union-attr]
        if name in conv.NAMES:
            c = conv.problem(name, node.attrs, node.in_avals, node.avals[0])

            def print_conv(k: Kernel | None, keep: bool) -> tuple[list[Step], list[Printed], int]:
                keys, copies = self.dense(node.ins)
                names, partial = (keys[0], keys[1], node.slot), ("parts", node.slot)
                nbytes = node.in_avals[0].nbytes, node.in_avals[1].nbytes
                tile = autotune.conv_tile(c, dt, self.target, k, keep, names, partial, nbytes)
                printed = conv.print_conv(c, dt, names, tile, k, keep, partial)
                return copies, printed, tile.parts

            return Tiled(c.product, lambda k: conv.can_end_in(c, k, node.slot), print_conv)
        if name != "contract":
            return None
        copies, p, ((ka, oa), (kb, ob)) = self.operands(node)
        if p.m == 1 or p.n == 1 or p.k < 2:
            return None

        def print_product(k: Kernel | None, keep: bool) -> tuple[list[Step], list[Printed], int]:
            keys, partial = (ka, kb, node.slot), ("parts", node.slot)
            tile = autotune.product_tile(p, dt, self.target, (oa, ob), k, keep, keys, partial, self.aligned)
            printed = matmul.print_product(p, dt, keys, self.target, (oa, ob), k, keep, tile, partial)
            return copies, printed, tile.parts

        return Tiled(p, lambda k: matmul.can_end_in(k, node.slot, matmul.product_levels(p)), print_product)

    def may_follow(self, k: Kernel, slot: int, fits: Callable[[Kernel], bool]) -> bool:
        """Whether a kernel becomes the epilogue of a product."""
        size = self.avals[slot].size
        if sum(1 for b in k.buffers if b.size >= size) > MAX_EPILOGUE_BUFFERS:
            return False
        if self.is_skipped(k):
            return False
        return fits(k)

    def multiply(self, slot: int, epilogue: Kernel | None) -> list[Step]:
        """The launches of a product."""
        made = self.products[slot]
        p = made.product
        others = self.readers.get(slot, [])[1:] if epilogue is not None else [0]
        keep = bool(others) or slot in self.graph.outputs
        copies, printed, parts = made.print(epilogue, keep)
        writes: set[Key] = {slot} if keep else set()
        if epilogue is not None:
            writes |= {epilogue.buffers[b].slot for b in epilogue.writes}
        flops, after = 2 * math.prod(p.batch) * p.m * p.n * p.k, 0 if epilogue is None else epilogue.flops()
        if len(printed) == 1:
            return [*copies, Launch(printed[0], frozenset(writes), label=label_of(printed[0]), flops=flops + after)]
        partial = ("parts", slot)
        nbytes = parts * math.prod(p.batch) * p.m * p.n * max(4, self.avals[slot].dtype.itemsize)
        return [*copies, Launch(printed[0], frozenset((partial,)), {partial: nbytes}, label_of(printed[0]), flops),
                Launch(printed[1], frozenset(writes), {}, label_of(printed[1]), after)]

    def operands(self, node: Node) -> tuple[list[Step], Product, tuple[tuple[Key, int], tuple[Key, int]]]:
        """(copies, product, (key, offset) of both operands); operands whose axes do not merge are copied."""
        attrs, (a, b) = node.attrs, node.in_avals
        found = [(base, ix) for base, ix in (self.sched.views.get(s, (s, None)) for s in node.ins)]
        places: list[tuple[Key, View]] = [(base, view_of(av, ix)) for (base, ix), av in zip(found, (a, b))]
        copies: list[Step] = []
        p = product(attrs, a, b, places[0][1], places[1][1])
        for which in (1, 0):
            if p is None:
                (base, ix), av = found[which], node.in_avals[which]
                free = [i for i in range(av.ndim) if i not in attrs[which] and i not in attrs[2 + which]]
                order = (*attrs[0], *free, *attrs[2]) if which == 0 else (*attrs[1], *attrs[3], *free)
                key = ("ordered", node.slot, which)
                copies.append(self.copy(node.ins[which], base, ix, key, order))
                strides = dense_strides(tuple([av.shape[d] for d in order]))
                places[which] = (key, View(0, tuple([strides[order.index(d)] for d in range(av.ndim)])))
                p = product(attrs, a, b, places[0][1], places[1][1])
        assert p is not None
        (ka, va), (kb, vb) = places
        return copies, p, ((ka, va.offset), (kb, vb.offset))

    def plain_product(self, node: Node) -> list[Step]:
        """A product with a vector, of integers, or over nothing to sum, as a printed kernel."""
        copies, p, ((ka, oa), (kb, ob)) = self.operands(node)
        sizes = [self.memory_size(k, s) for k, s in ((ka, node.ins[0]), (kb, node.ins[1]))]
        k = matmul.vector_kernel(p, node.avals[0].dtype, (ka, kb, node.slot), (sizes[0], sizes[1]), (oa, ob))
        return [*copies, kernel_launch(tidy(k))]

    def memory_size(self, key: Key, slot: int) -> int:
        """Elements of the memory of an operand."""
        return self.avals[key].size if isinstance(key, int) else self.avals[slot].size

    # -------------------------------------------------------------------------------------------------- everything else
    def node(self, node: Node) -> list[Step]:
        """A node that is no loop code."""
        name = node.op.name  # type: ignore[union-attr]
        if any(a.size == 0 for a in node.avals):  # nothing to do, unless some other result has elements
            return [Host(node)] if any(a.size for a in node.avals) else []
        if name == "contract" and not node.avals[0].dtype.is_complex and math.prod(
                [node.in_avals[0].shape[d] for d in node.attrs[2]]):
            return self.plain_product(node)
        if name == "loop_scan":
            keys, copies = self.dense(node.ins)
            loop = lower_loop(node, keys, self.target)
            return [Host(node)] if loop is None else [*copies, *loop]
        before = dict(self.copied)
        views = [self.bypassed[s][1] if s in self.bypassed else None for s in node.ins]
        keys, copies = self.dense([self.bypassed[s][0] if s in self.bypassed else s for s in node.ins])
        if name == "bitcast":
            return [*copies, Copy(node.slot, keys[0], node.avals[0].nbytes)]
        made = library_kernels(Library(node, node.in_avals, node.avals, keys, self.target, views, self.placed.get(node.slot)))
        if made is None:
            self.copied = before
            return [Host(node)]
        flops = attention.flops(node)
        return [*copies, *[Launch(p, frozenset(w), own, label_of(p), flops.get(label_of(p), 0)) for p, w, own in made]]

    def dense(self, slots: Sequence[int]) -> tuple[list[Key], list[Step]]:
        """Keys where the slots lie contiguous, and the copies of those that do not."""
        keys: list[Key] = []
        steps: list[Step] = []
        for s in slots:
            base, ix = self.sched.views.get(s, (s, None))
            shape = self.avals[s].shape
            if ix is None or ix == index.flatten([index.var(d) if n != 1 else Ix(0, ()) for d, n in enumerate(shape)], shape):
                keys.append(base)
                continue
            if s not in self.copied:
                self.copied[s] = ("dense", s)
                steps.append(self.copy(s, base, ix, self.copied[s], tuple(range(len(shape)))))
            keys.append(self.copied[s])
        return keys, steps

    def copy(self, slot: int, base: int, ix: Ix | None, key: Key, order: tuple[int, ...]) -> Launch:
        """The copy of a (strided) value into the buffer ``key``, its axes in ``order``."""
        av = self.avals[slot]
        buffers = (Buf(base, av.dtype, self.avals[base].size), Buf(key, av.dtype, av.size))  # type: ignore[arg-type]
        at = [index.var(d) if n != 1 else Ix(0, ()) for d, n in enumerate(av.shape)]
        flat = index.flatten([at[d] for d in order], tuple([av.shape[d] for d in order]))
        ix = index.flatten(at, av.shape) if ix is None else ix
        k = tidy(Kernel("k_copy", av.shape, av.ndim, buffers, (Stmt("load", (), av.dtype, Access(0, ix, ()), None),),
                        (Store(Access(1, flat, ()), 0),)))
        made = kernel_launch(k)
        return replace(made, own={key: av.nbytes})


Layout = Callable[[tuple[int, ...]], View | None]


def strided_copy(k: Kernel) -> tuple[int, int, Layout, Layout] | None:
    """(written slot, read slot, strides of the written value in what is read, and the other way round) of a kernel that only
    moves a value."""
    if len(k.stmts) != 1 or k.stmts[0].op != "load" or len(k.stores) != 1 or k.kept != len(k.extents):
        return None
    load, store = k.stmts[0].attr, k.stores[0].access
    if load.guards or store.guards or not index.is_affine(load.ix) or index.data(load.ix) or \
            not index.covers(store.ix, range(k.kept), k.extents, k.buffers[store.buffer].size):
        return None
    whole = index.covers(load.ix, range(k.kept), k.extents, k.buffers[load.buffer].size)
    back = layout_in(k, load.ix, store.ix) if whole else lambda shape: None
    return k.buffers[store.buffer].slot, k.buffers[load.buffer].slot, layout_in(k, store.ix, load.ix), back


def layout_in(k: Kernel, of: Ix, other: Ix) -> Layout:
    """Where the elements of a value lie: the kernel meets them at ``of`` in their own order, in memory at ``other``."""
    there = dict(other.terms)
    size = math.prod(k.extents)

    def offset(position: np.ndarray) -> np.ndarray:
        return sum([position // c % k.extents[d] * there.get(d, 0) for d, c in of.terms], np.zeros_like(position))

    def view(shape: tuple[int, ...]) -> View | None:
        dense = dense_strides(shape)
        strides = tuple([int(offset(np.array(s))) if n > 1 else 0 for n, s in zip(shape, dense)])
        points = np.random.default_rng(0).integers(0, size, 4096)  # axes may be cut so that no strides say where they lie
        every = [np.arange(n) * s for n, s in zip(shape, dense)]
        for at in (points, *every):
            if np.any(offset(at) != sum([at // s % n * t for n, s, t in zip(shape, dense, strides)], np.zeros_like(at))):
                return None
        return View(other.const, strides)

    return view


def kernel_launch(k: Kernel) -> Launch:
    """The launch of a loop-IR kernel. Raises CompileError for a statement the printer does not know."""
    try:
        p = print_kernel(k, autotune.loop_tiling(k))
    except NotImplementedError as error:
        lines = dict.fromkeys(format_location(s.loc) for s in k.stmts if s.loc is not None)
        where = f" (recorded at {', '.join(lines)})" if lines else ""
        raise CompileError(f"kernel {k.name}: no Triton code for {error}{where}") from error
    return Launch(p, frozenset([k.buffers[b].slot for b in k.writes]), label=label_of(p), flops=k.flops())


def label_of(p: Printed) -> str:
    """The kernel's name without its digest."""
    return p.symbol.rsplit("_", 1)[0]


# --------------------------------------------------------------------------------------------------- loops over time
def lower_loop(node: Node, keys: Sequence[Key], target: Target) -> list[Step] | None:
    """A ``loop_scan`` as repeated launches, or None when its body needs the host.

    Carries live in buffers of the loop, overwritten by copies at the end of an iteration; stacked inputs and outputs are
    cursors. What does not depend on the iteration runs once, before the loop.
    """
    body, n_carry, n_xs, length, reverse, _ = node.attrs
    if not length:
        return None
    graph, sched = prepared(run_passes(body), target)
    steps = Lowering(graph, sched, target, aligned=False).all()
    if any(isinstance(s, (Host, Repeat)) for s in steps):
        return None
    names = _Names(node, keys, graph, n_carry, n_xs, length, reverse)
    before: list[Step] = list(names.before)
    inside: list[Step] = []
    fixed = set(keys[n_carry + n_xs:])
    for s in steps:
        made = names.renamed(s)
        assert isinstance(made, Launch)
        if made.reads <= fixed and not any(isinstance(k, Cursor) for k in made.keys):
            before.append(made)
            fixed |= made.writes
        else:
            inside.append(made)
    inside += names.ends()
    return [*before, Repeat(tuple(inside), length, names.own), *names.after]


class _Names:
    """Keys of a loop body's slots in the plan around it."""

    def __init__(self, node: Node, keys: Sequence[Key], graph: Graph, n_carry: int, n_xs: int, length: int, reverse: bool):
        self.node, self.graph, self.n_carry = node, graph, n_carry
        self.tag = ("loop", node.slot)
        self.avals = graph.slot_avals()
        self.length, self.reverse = length, reverse
        self.own: dict[Key, int] = {}
        self.before: list[Copy] = []
        self.after: list[Copy] = []
        self.key_of: dict[Any, Any] = {}
        for i, leaf in enumerate(graph.inputs):
            nbytes = leaf.avals[0].nbytes
            if i < n_carry:
                key = (*self.tag, "carry", i)
                self.own[key] = nbytes
                self.key_of[leaf.slot] = key
                self.before.append(Copy(key, keys[i], nbytes))
                self.after.append(Copy(node.slot + i, key, nbytes))
            else:
                self.key_of[leaf.slot] = self.cursor(keys[i], nbytes) if i < n_carry + n_xs else keys[i]
        self.inputs = {leaf.slot for leaf in graph.inputs}
        self.uses: dict[int, int] = {}
        for s in graph.outputs:
            self.uses[s] = self.uses.get(s, 0) + 1
        for k, s in enumerate(graph.outputs[n_carry:]):
            if s not in self.inputs and self.uses[s] == 1:  # written straight into the stacked result
                self.key_of[s] = self.cursor(node.slot + n_carry + k, self.avals[s].nbytes)

    def cursor(self, key: Key, nbytes: int) -> Cursor:
        return Cursor(key, (self.length - 1) * nbytes if self.reverse else 0, -nbytes if self.reverse else nbytes)

    def key(self, slot: Any) -> Any:
        """The enclosing plan's name."""
        if slot not in self.key_of:
            self.key_of[slot] = (*self.tag, slot)
            if isinstance(slot, int):
                self.own[self.key_of[slot]] = self.avals[slot].nbytes
        return self.key_of[slot]

    def renamed(self, s: Step) -> Launch:
        """A launch of the body with the enclosing plan's keys. Cursors of odd element counts lose their alignment."""
        assert isinstance(s, Launch)
        args = []
        for a in s.printed.args:
            if a.type[0] == "*" and a.value != "err":
                key = self.key(a.value)
                a = replace(a, value=key, divisor=alignment(key))
            args.append(a)
        printed = s.printed if tuple(args) == s.printed.args else s.printed.with_args(tuple(args))
        own = {self.key(k): n for k, n in s.own.items()}
        return Launch(printed, frozenset([plain(self.key(k)) for k in s.writes]), own, s.label, s.flops)

    def ends(self) -> list[Step]:
        """What an iteration ends with: results that are also carries or inputs to their place, and the new carries. One
        kernel for all of the same size, which reads every source of an element before it writes."""
        moves: list[tuple[Any, Any, int]] = []
        for k, s in enumerate(self.graph.outputs[self.n_carry:]):
            if s in self.inputs or self.uses[s] != 1:
                nbytes = self.avals[s].nbytes
                moves.append((self.cursor(self.node.slot + self.n_carry + k, nbytes), self.key(s), nbytes))
        one_size = len({self.avals[s].nbytes for s in self.graph.outputs[:self.n_carry]}) == 1
        late: list[tuple[Any, Any, int]] = []
        for i, s in enumerate(self.graph.outputs[:self.n_carry]):
            mine, nbytes = (*self.tag, "carry", i), self.avals[s].nbytes
            source = self.key(s)
            if source == mine:
                continue
            if s in self.inputs and not one_size:  # a carry that is another carry: through a buffer of its own
                moved = (*self.tag, "moved", i)
                self.own[moved] = nbytes
                moves.append((moved, source, nbytes))
                source = moved
            late.append((mine, source, nbytes))
        if one_size:
            return moves_of(moves + late)
        return moves_of(moves) + moves_of(late)


def moves_of(moves: Sequence[tuple[Any, Any, int]]) -> list[Step]:
    """Copies (to, from, bytes), those of one size in one kernel."""
    out: list[Step] = []
    for nbytes in dict.fromkeys(n for _, _, n in moves):
        same = [(dst, src) for dst, src, n in moves if n == nbytes]
        unit = math.gcd(nbytes, 4)
        if len(same) == 1 or unit != 4:
            out += [Copy(dst, src, nbytes) for dst, src in same]
            continue
        sources = list(dict.fromkeys(src for _, src in same))
        lines = ["    i = tl.program_id(0) * BX + tl.arange(0, BX)"]
        lines += [f"    v{k} = tl.load(s{k} + i, mask=i < n)" for k in range(len(sources))]
        lines += [f"    tl.store(d{k} + i, v{sources.index(src)}, mask=i < n)" for k, (_, src) in enumerate(same)]
        args = [Arg(f"s{k}", "*i32", src, alignment(src)) for k, src in enumerate(sources)]
        args += [Arg(f"d{k}", "*i32", dst, alignment(dst)) for k, (dst, _) in enumerate(same)]
        n = nbytes // 4
        args.append(Arg("n", "i32", n, math.gcd(n, 16)))
        bx = min(1024, max(32, pow2(n)))
        p = assemble("k_move", [f"{len(same)} copies."], lines, args, [("BX", bx)], [("n", bx)], max(1, bx // 256), set())
        out.append(Launch(p, frozenset(plain(dst) for dst, _ in same), label=label_of(p)))
    return out


def alignment(key: Any) -> int:
    """Bytes an address is known to be a multiple of."""
    return math.gcd(key.step, 16) if isinstance(key, Cursor) else 16


# ----------------------------------------------------------------------------------------------------------- inspection
def launches(steps: Iterable[Step]) -> list[Launch]:
    """Every launch once, those inside loops included."""
    out: list[Launch] = []
    for s in steps:
        if isinstance(s, Launch):
            out.append(s)
        elif isinstance(s, Repeat):
            out += launches(s.body)
    return out


def count(steps: Iterable[Step]) -> int:
    """Kernels and copies that run, loops unrolled."""
    return sum(s.length * count(s.body) if isinstance(s, Repeat) else 1 for s in steps)


def to_text(steps: Sequence[Step], avals: Sequence[Aval] | None = None, device: str = "H100") -> str:
    """The plan, one line a step; with the graph's ``avals`` also estimated bytes and operations and the least time they take
    on a device of :data:`.roofline.DEVICES`, and their sums."""
    if avals is None:
        return "\n".join(_lines(steps, lambda s: ""))
    own, rates = roofline.buffers_of(steps), roofline.DEVICES[device]
    lines = _lines(steps, lambda s: ": " + roofline.text(roofline.cost(s, avals, own, rates)))
    return "\n".join([*lines, f"total on {device}: {roofline.text(roofline.total(steps, avals, rates))} at least"])


def _lines(steps: Sequence[Step], more: Callable[[Launch], str]) -> list[str]:
    lines = []
    for s in steps:
        if isinstance(s, Launch):
            lines.append(f"{s.label}: {s.printed.programs()} programs of {s.printed.warps} warps{more(s)}")
        elif isinstance(s, Repeat):
            lines.append(f"repeat {s.length} times:")
            lines += ["  " + x for x in _lines(s.body, more)]
        elif isinstance(s, Copy):
            lines.append(f"copy {s.nbytes} bytes")
        else:
            lines.append(f"host: {s.node.op.name}")  # type: ignore[union-attr]
    return lines
