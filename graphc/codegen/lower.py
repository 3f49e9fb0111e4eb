"""Lower a fusion group to one loop-IR kernel.

Algorithm. The group's space fixes the iteration axes: kept axes first, then reduced ones. Every value to be stored is
emitted at its own position in that space, and emission walks from there to the operands, carrying the position as index
expressions: a movement op only rewrites the expressions (``pad`` and ``concat`` add guards), a pointwise op emits its
operands at the broadcast position, a reduction emits its operand at (kept position, reduced axes), and a value from
outside the group becomes a load. Values already emitted at the same position are shared. Since positions are
substituted, the result is right whatever the user's spelling; what can't be expressed (a reduction needed at other rows
than the one being computed) raises :class:`Unfusable`, and the fusion pass cuts there.

Afterwards axes are split until no division is left in an index, and neighbours that every access walks contiguously
are merged, so that a reshape costs nothing and equal programs over different ranks give the same kernel.

The walk is a generator per value on an explicit stack: no recursion, whatever the depth of the chain.
"""
from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from ..dtypes import bool_, int64
from ..ir.node import Graph, Node
from . import index
from .index import ZERO, Ix
from .loop_ir import Access, Buf, Guard, Kernel, Stmt, Store, access_variables, expressions_of

Position = tuple[Ix, ...]
Guards = tuple[Guard, ...]
Walk = Generator[tuple[int, Position, Guards], int, int]
NARROW = 8  # axes that stores run along are not split into pieces shorter than this


class Unfusable(Exception):
    """A group can't be one kernel; ``slot`` is the value its consumer has to read from memory instead."""

    def __init__(self, reason: str, slot: int):
        super().__init__(reason)
        self.slot = slot


class Piece(NamedTuple):
    """One operand of a ``concat``, stored where it lies in the result. ``slot`` is the result's memory (the concat itself or a
    reshape of it), ``operand`` the operand's number."""

    slot: int
    concat: Node
    operand: int


class Space:
    """The iteration space of a group: axes, and where values of full and of row size sit in it."""

    def __init__(self, kept: tuple[int, ...], reduced: tuple[int, ...], order: tuple[int, ...]):
        """``order[j]`` is the kernel axis that is axis j of the values of full size."""
        self.extents = kept + reduced
        self.kept = len(kept)
        self.rows = math.prod(kept)
        self.width = math.prod(reduced)
        self.row_flat = index.flatten([index.var(d) for d in range(len(kept))], kept)
        self.full_flat = index.flatten([index.var(d) for d in order], [self.extents[d] for d in order])

    def position(self, shape: tuple[int, ...]) -> Position:
        """Where the elements of a value of full or row size are computed."""
        n = math.prod(shape)
        if n == self.rows * self.width:
            return index.unflatten(self.full_flat, shape, self.extents)
        if n == self.rows:
            return index.unflatten(self.row_flat, shape, self.extents)
        raise ValueError(f"shape {shape} does not fit the space {self.extents[:self.kept]} x {self.extents[self.kept:]}")


def space_of(nodes: Sequence[Node], shape: tuple[int, ...]) -> Space:
    """The space of a group: that of its first reduction, else the given shape."""
    for n in nodes:
        if n.op.name in ("reduce", "argreduce"):  # type: ignore[union-attr]
            full = n.in_avals[0].shape
            axes = n.attrs[1] if n.op.name == "reduce" else (n.attrs[1],)  # type: ignore[union-attr]
            keep = [i for i in range(len(full)) if i not in axes]
            where = {axis: k for k, axis in enumerate([*keep, *axes])}
            return Space(tuple([full[i] for i in keep]), tuple([full[i] for i in axes]),
                         tuple([where[i] for i in range(len(full))]))
    return Space(shape, (), tuple(range(len(shape))))


class Lowering:
    """State of one lowering."""

    def __init__(self, graph: Graph, producer: list[Node], inside: set[int], space: Space):
        self.graph, self.producer, self.inside, self.space = graph, producer, inside, space
        self.ext = space.extents
        self.stmts: list[Stmt] = []
        self.known: dict[Any, int] = {}  # statement key -> number
        self.memo: dict[Any, int] = {}  # (slot, position, guards) -> statement
        self.buffers: list[Buf] = []
        self.buffer_of: dict[int, int] = {}
        self.places: dict[int, set[Position]] = {}

    # -------------------------------------------------------------------------------------------------- small pieces
    def buffer(self, slot: int) -> int:
        """Number of the buffer holding ``slot``."""
        if slot not in self.buffer_of:
            node = self.producer[slot]
            av = node.avals[slot - node.slot]
            self.buffer_of[slot] = len(self.buffers)
            self.buffers.append(Buf(slot, av.dtype, av.size))
        return self.buffer_of[slot]

    def stmt(self, op: str, args: tuple[int, ...], dt: Any, attr: Any = None, loc: Any = None) -> int:
        """Append a statement, or find the equal one."""
        key = (op, args, dt, attr)
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = len(self.stmts)
            self.stmts.append(Stmt(op, args, dt, attr, loc))
        return found

    def guard(self, ix: Ix, lo: int, hi: int) -> Guard | bool:
        """The condition lo <= ix < hi, or its truth value when the ranges decide it."""
        a, b = index.bounds(ix, self.ext)
        if a >= lo and b < hi:
            return True
        return False if b < lo or a >= hi else Guard(ix, lo, hi)

    def load(self, slot: int, pos: Position, guards: Guards) -> int:
        """Read an outside value."""
        node = self.producer[slot]
        av = node.avals[slot - node.slot]
        flat = index.flatten(pos, av.shape)
        return self.stmt("load", (), av.dtype, Access(self.buffer(slot), flat, guards if flat.terms else ()))

    # -------------------------------------------------------------------------------------------------------- emission
    def emit(self, slot: int, pos: Position, guards: Guards = ()) -> int:
        """Statement holding element ``pos`` of ``slot``."""
        stack: list[Walk] = [self.walk(slot, pos, guards)]
        keys: list[Any] = [(slot, pos, guards)]
        result: int | None = self.memo.get(keys[0])
        if result is not None:
            return result
        while stack:
            try:
                want = stack[-1].send(result)  # type: ignore[arg-type]
            except StopIteration as stop:
                result = stop.value
                assert result is not None
                self.memo[keys.pop()] = result
                stack.pop()
                continue
            result = self.memo.get(want)
            if result is None:
                stack.append(self.walk(*want))
                keys.append(want)
        assert result is not None
        return result

    def walk(self, slot: int, pos: Position, guards: Guards) -> Walk:
        """The emission of one value; yields (slot, position, guards) of operands and gets their statements."""
        node = self.producer[slot]
        op = node.op
        name = op.name  # type: ignore[union-attr]
        if name == "const":
            return self.stmt("const", (), node.avals[0].dtype, node.attrs[0])
        if slot not in self.inside:
            return self.load(slot, pos, guards)
        if op.kind == "view" or name == "slice_set":  # type: ignore[union-attr]
            return (yield from self.move(node, pos, guards))
        places = self.places.setdefault(slot, set())
        places.add(pos)
        dt = node.avals[slot - node.slot].dtype
        if name == "iota":
            return self.stmt("index", (), dt, pos[0], node.loc)
        if name == "rng_bits":
            seed = yield node.ins[0], (), ()
            offset = yield node.ins[1], (), ()
            return self.stmt("rng", (seed, offset), dt, index.flatten(pos, node.attrs[0]), node.loc)
        if name in ("reduce", "argreduce"):
            return (yield from self.reduction(node, pos))
        if name in ("take", "gather"):
            return (yield from self.take(node, pos, guards))
        shape = node.avals[0].shape
        args = []
        for s, av in zip(node.ins, node.in_avals):
            lead = len(shape) - av.ndim
            args.append((yield s, tuple([ZERO if n == 1 else p for n, p in zip(av.shape, pos[lead:])]), guards))
        if name == "copy":
            return args[0]
        return self.stmt(name, tuple(args), dt, None, node.loc)

    def reduction(self, node: Node, pos: Position) -> Walk:
        """A monoid over the reduced axes at a kept position."""
        space = self.space
        op = node.op.name  # type: ignore[union-attr]
        shape = node.in_avals[0].shape
        axes = node.attrs[1] if op == "reduce" else (node.attrs[1],)
        sizes = [shape[a] for a in axes]
        flat = index.flatten(pos, node.avals[0].shape)
        kept = range(space.kept)
        if math.prod(sizes) != space.width or not index.covers(flat, kept, self.ext, space.rows):
            raise Unfusable(f"{op} is needed at other rows than the kernel computes", node.slot)
        reduced = range(space.kept, len(self.ext))
        at = index.flatten([index.var(d) for d in reduced], [self.ext[d] for d in reduced])
        inner = iter(index.unflatten(at, sizes, self.ext))
        outer = iter([ZERO if n == 1 else p for n, p in zip(node.avals[0].shape, pos)])
        by_axis = dict(zip(axes, inner))
        full = tuple([by_axis[i] if i in by_axis else next(outer) for i in range(len(shape))])
        x = yield node.ins[0], full, ()  # every row is computed whole: guards are about where it is used
        if op == "reduce" and node.attrs[0] in ("any", "all") and node.in_avals[0].dtype is not bool_:
            x = self.stmt("cast", (x,), bool_, None, node.loc)  # any and all are monoids of bool alone
        attr = node.attrs[0] if op == "reduce" else (node.attrs[0], at)
        return self.stmt(op, (x,), node.avals[0].dtype, attr, node.loc)

    def take(self, node: Node, pos: Position, guards: Guards) -> Walk:
        """The operand at a position of which one coordinate is data, checked."""
        x, idx = node.in_avals
        axis = node.attrs[0]
        if node.op.name == "take":  # type: ignore[union-attr]
            wrap = bool(node.attrs[1])
            at, before, after = pos[axis:axis + idx.ndim], pos[:axis], pos[axis + idx.ndim:]
        else:
            wrap, at, before, after = False, pos, pos[:axis], pos[axis + 1:]
        i = yield node.ins[1], at, guards
        size = x.shape[axis]
        checked = self.stmt("check", (i,), int64, (size, wrap, guards), node.loc)
        here = ZERO if size == 1 else index.datum(checked, size)
        return (yield node.ins[0], (*before, here, *after), guards)

    # ------------------------------------------------------------------------------------------------- movement ops
    def move(self, node: Node, pos: Position, guards: Guards) -> Walk:
        """Rewrite the position; never emits a statement but selections at guards."""
        name, attrs = node.op.name, node.attrs  # type: ignore[union-attr]
        x = node.in_avals[0]
        if name == "pad":
            inner = tuple([index.add(p, index.num(-lo)) for p, lo in zip(pos, attrs[0])])
            conds = [self.guard(p, 0, n) for p, n in zip(inner, x.shape)]
            value = None if all(c is True for c in conds) else (yield node.ins[1], (), ())
            return (yield from self.choose(conds, node.ins[0], inner, value, guards, x.dtype))
        if name == "slice_set":
            starts, stops, steps = attrs
            base = yield node.ins[0], pos, guards
            inner = tuple([index.add(p, index.num(-a)) for p, a in zip(pos, starts)])
            conds = [self.guard(p, 0, n) for p, n in zip(inner, node.in_avals[1].shape)]
            return (yield from self.choose(conds, node.ins[1], inner, base, guards, x.dtype))
        if name == "concat":
            return (yield from self.join(node, pos, guards))
        return (yield node.ins[0], moved(node, pos, self.ext), guards)

    def choose(self, conds: Sequence[Guard | bool], slot: int, pos: Position, other: int | None, guards: Guards,
               dt: Any) -> Walk:
        """Element ``pos`` of ``slot`` where all conditions hold, else the statement ``other``."""
        if any(c is False for c in conds):
            assert other is not None
            return other
        new = tuple([c for c in conds if isinstance(c, Guard)])
        both = tuple(dict.fromkeys(guards + new))
        inner = yield slot, pos, both
        if not new or other is None:
            return inner
        return self.stmt("where", (self.stmt("guard", (), bool_, new), inner, other), dt)

    def join(self, node: Node, pos: Position, guards: Guards) -> Walk:
        """concat: the operand whose range of the axis the position lies in."""
        axis = node.attrs[0]
        at, out = 0, None
        for s, av in zip(node.ins, node.in_avals):
            n = av.shape[axis]
            if n:
                inner = (*pos[:axis], index.add(pos[axis], index.num(-at)), *pos[axis + 1:])
                cond = self.guard(inner[axis], 0, n)
                if cond is not False:
                    out = yield from self.choose([cond] if out is not None else [], s, inner, out,
                                                 guards if out is not None or cond is True else
                                                 tuple(dict.fromkeys((*guards, cond))), av.dtype)  # type: ignore[arg-type]
            at += n
        assert out is not None
        return out


def moved(node: Node, pos: Position, ext: Sequence[int]) -> Position:
    """Position in the operand of element ``pos`` of a movement op without guards."""
    name, attrs, x = node.op.name, node.attrs, node.in_avals[0]  # type: ignore[union-attr]
    if name == "after":
        return pos
    if name == "reshape":
        return index.unflatten(index.flatten(pos, node.avals[0].shape), x.shape, ext)
    if name == "permute":
        out: list[Ix] = [ZERO] * len(pos)
        for p, axis in zip(pos, attrs[0]):
            out[axis] = p
        return tuple(out)
    if name == "expand":
        return tuple([ZERO if n == 1 else p for n, p in zip(x.shape, pos[len(pos) - x.ndim:])])
    if name == "slice":
        return tuple([index.add(index.num(a), index.scale(p, s)) for p, a, s in zip(pos, attrs[0], attrs[2])])
    if name == "window":
        axes, _, strides, dilations = attrs
        at = list(pos[:x.ndim])
        for axis, w, s, d in zip(axes, pos[x.ndim:], strides, dilations):
            at[axis] = index.add(index.scale(at[axis], s), index.scale(w, d))
        return tuple(at)
    raise AssertionError(f"{name} is not a movement op")


def strided_view(producer: list[Node], slot: int, stop: set[int]) -> tuple[int, Ix] | None:
    """(base slot, element index over this value's own axes) when ``slot`` is a plain strided view of a slot in ``stop``."""
    node = producer[slot]
    ext = node.avals[slot - node.slot].shape
    pos: Position = tuple([index.var(d) if n != 1 else ZERO for d, n in enumerate(ext)])
    while slot not in stop:
        if node.op.kind != "view" or node.op.name in ("pad", "concat"):  # type: ignore[union-attr]
            return None
        pos = moved(node, pos, ext)
        slot = node.ins[0]
        node = producer[slot]
    flat = index.flatten(pos, node.avals[slot - node.slot].shape)
    return (slot, flat) if index.is_affine(flat) else None


def lower_group(graph: Graph, producer: list[Node], nodes: Sequence[Node], inside: set[int], stores: Sequence[int | Piece],
                name: str) -> Kernel:
    """One kernel that computes ``stores`` (slots, or pieces of concatenated ones) from what is not ``inside``. Raises
    Unfusable."""
    slots = [s if isinstance(s, int) else s.concat.ins[s.operand] for s in stores]
    biggest = max(slots, key=lambda s: _aval(producer, s).size)
    space = space_of(nodes, _aval(producer, biggest).shape)
    low = Lowering(graph, producer, inside, space)
    out: list[Store] = []
    for store, s in zip(stores, slots):
        av = _aval(producer, s)
        pos = space.position(av.shape)
        value = low.emit(s, pos)
        if isinstance(store, Piece):
            out.append(Store(Access(low.buffer(store.slot), _in_concat(store, pos)), value))
        else:
            out.append(Store(Access(low.buffer(s), index.flatten(pos, av.shape)), value))
    for store in stores:
        if isinstance(store, int) and len(low.places.get(store, ())) > 1:
            raise Unfusable("a stored value is also needed at other positions", store)
    k = tidy(Kernel(name, space.extents, space.kept, tuple(low.buffers), tuple(low.stmts), tuple(out)))
    for store, st in zip(stores, k.stores):  # tidy keeps their order
        if not index.is_affine(st.access.ix):
            raise Unfusable("the operand of a concatenation is computed in another order", slots[stores.index(store)])
    return k


def _in_concat(piece: Piece, pos: Position) -> Ix:
    """Where element ``pos`` of an operand lies in the result of its concat."""
    axis = piece.concat.attrs[0]
    before = sum(av.shape[axis] for av in piece.concat.in_avals[:piece.operand])
    at = (*pos[:axis], index.add(pos[axis], index.num(before)), *pos[axis + 1:])
    return index.flatten(at, piece.concat.avals[0].shape)


def _aval(producer: list[Node], slot: int) -> Any:
    node = producer[slot]
    return node.avals[slot - node.slot]


# --------------------------------------------------------------------------------------------------- tidying of axes
def _expressions(k: Kernel) -> list[Ix]:
    return [e for s in k.stmts for e in expressions_of(s)] + [st.access.ix for st in k.stores]


def _rewritten(k: Kernel, extents: tuple[int, ...], kept: int, new: dict[int, Ix]) -> Kernel:
    """The kernel over other axes: every old variable replaced by an expression over the new ones."""
    def sub(ix: Ix) -> Ix:
        return index.substitute(ix, new, extents)

    def guards(gs: Guards) -> Guards:
        return tuple([Guard(sub(g.ix), g.lo, g.hi) for g in gs])

    def access(a: Access) -> Access:
        return Access(a.buffer, sub(a.ix), guards(a.guards))

    stmts = []
    for s in k.stmts:
        attr = s.attr
        if s.op == "load":
            attr = access(attr)
        elif s.op in ("index", "rng"):
            attr = sub(attr)
        elif s.op == "guard":
            attr = guards(attr)
        elif s.op == "argreduce":
            attr = (attr[0], sub(attr[1]))
        elif s.op == "check":
            attr = (*attr[:2], guards(attr[2]))
        stmts.append(s._replace(attr=attr))
    stores = tuple([Store(access(st.access), st.value) for st in k.stores])
    return Kernel(k.name, extents, kept, k.buffers, tuple(stmts), stores, k.notes)


def tidy(k: Kernel) -> Kernel:
    """Split axes at divisions, drop axes of size 1, order axes by stride, merge contiguous neighbours."""
    for _ in range(16):
        hits = [h for e in _expressions(k) if (h := index.split_at(e, k.extents)) is not None]
        hit = next((h for h in hits if h[1] >= NARROW or not _is_contiguous(k, h[0])), None)
        if hit is None:
            break
        k = split_axis(k, *hit)
    return _merge(_ordered(k))


def _is_contiguous(k: Kernel, d: int) -> bool:
    """Whether a store runs along axis ``d`` with stride 1: splitting it would leave vectors of few lanes."""
    return any(index.coefficient(st.access.ix, d) == 1 for st in k.stores)


def split_axis(k: Kernel, d: int, size: int) -> Kernel:
    """The kernel with axis ``d`` as two, the inner one of ``size``."""
    ext = (*k.extents[:d], k.extents[d] // size, size, *k.extents[d + 1:])
    new = {v: index.var(v if v < d else v + 1) for v in range(len(k.extents)) if v != d}
    new[d] = index.add(index.scale(index.var(d), size), index.var(d + 1))
    return _rewritten(k, ext, k.kept + (d < k.kept), new)


def permute_axes(k: Kernel, order: Sequence[int]) -> Kernel:
    """The kernel with its axes in another order; kept axes stay in front."""
    return _rewritten(k, tuple([k.extents[d] for d in order]), k.kept, {d: index.var(i) for i, d in enumerate(order)})


def _ordered(k: Kernel) -> Kernel:
    """Axes of size 1 dropped; the others from large to small strides of the largest access, kept and reduced apart."""
    loads, stores = [s.attr for s in k.stmts if s.op == "load"], [st.access for st in k.stores]
    accesses = loads + stores if k.kept < len(k.extents) else stores + loads
    main = max(accesses, key=lambda a: (len(access_variables(a)), k.buffers[a.buffer].size))
    strides = {d: index.coefficient(main.ix, d) or 0 for d in range(len(k.extents))}
    axes = [d for d in range(len(k.extents)) if k.extents[d] != 1]
    axes.sort(key=lambda d: (d >= k.kept, -abs(strides[d]) if strides[d] else -1 << 62))
    new = {d: ZERO for d in range(len(k.extents))}
    new.update({d: index.var(i) for i, d in enumerate(axes)})
    return _rewritten(k, tuple([k.extents[d] for d in axes]), sum(d < k.kept for d in axes), new)


def _merge(k: Kernel) -> Kernel:
    """Join neighbouring axes d, d+1 wherever every expression has coefficient(d) = extent(d+1) * coefficient(d+1)."""
    exprs = _expressions(k)
    d = 0
    while d + 1 < len(k.extents):
        if d + 1 == k.kept or not all(_joins(e, d, k.extents[d + 1]) for e in exprs):
            d += 1
            continue
        ext = (*k.extents[:d], k.extents[d] * k.extents[d + 1], *k.extents[d + 2:])
        new = {v: index.var(v if v <= d else v - 1) for v in range(len(k.extents))}
        new[d], new[d + 1] = ZERO, index.var(d)
        k = _rewritten(k, ext, k.kept - (d + 1 < k.kept), new)
        exprs = _expressions(k)
    return k


def _joins(e: Ix, d: int, size: int) -> bool:
    a, b = index.coefficient(e, d), index.coefficient(e, d + 1)
    return a is not None and b is not None and a == b * size
