"""Lazy recording: the hot path of graphc.

A *region* is the program recorded since the last flush. Recording walks a trie of nodes that all earlier regions of
this process built (:class:`~graphc.ir.node.Node`): when the op, its input slots and its attributes equal those of the
node that followed last time, that node is reused and nothing is inferred, hashed or allocated but the result's
handle. A difference takes another branch of the trie, or grows a new one after inferring shapes. So Python always
runs, nothing can be stale, and the node a region ends at *is* the program's identity: its plan is looked up there.

A flush computes everything that live Values of the region can still reach, in one plan. It happens when a value is
needed on the host, when a region is full (nodes or bytes), and where the optimizer or a compiled call says so.

Every thread records its own region. A value pending in another thread's region is computed from that region's
immutable nodes without disturbing it.
"""
from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from .. import config
from ..dtypes import bool_, dtype, float64, int64
from ..errors import GraphcError
from .exports import export, is_exported
from .flush import (
    PLANS,
    _evaluate_foreign,
    _planner,
    counters,
    drop_dead_writes,
    evaluated,
    fetched,
    flush,
    known_plan,
    set_planner,
    soft_flush,
    with_location,
)
from .location import user_location
from .node import Aval, Graph, Node, PoisonedValue, SharedValue, Value, leaf_value
from .optable import Op
from .region import CASTS, LEAF, SCALAR, Region, _Trie, region_graph, scalar_aval, scalar_buffer, state
from .tape import GradNode, OutputEdge, alias_value

_ref = weakref.ref
_TRIE_LIMIT = 400_000  # nodes; then the trie is dropped and grows again
VARIANTS, MANY_NODES = 4, 24  # variants of what follows at a point of an eager program: further ones (another crop, another
# shift) are computed by themselves, so that what follows them, and what comes before if that is much, stays the program it was
_HELD = 16  # times the caps of eager programs that a compiled call may reach
_WEIGHTLESS = frozenset(("reshape", "permute", "expand", "slice", "window", "const", "iota"))  # no memory of their own
_SNAPSHOT_BYTES = 1 << 20  # an exported leaf up to this size is copied when read, a larger one is read at once


def apply(op: Op, ins: tuple[Value, ...], attrs: Any = ()) -> Any:
    """Record ``op`` on ``ins``; returns its Value, or a tuple of Values when it has several outputs.

    Raises the op's own shape or dtype error at once, before anything is recorded.
    """
    if CASTS and state.tracing == state.program:  # expansions of composites keep the dtypes they were recorded with
        ins = CASTS[0](op, ins)
    reg = state.region
    n = len(ins)
    if n == 2:
        a, b = ins
        slots: tuple[int, ...] = (a.slot if a.region is reg else _bind(reg, a), b.slot if b.region is reg else _bind(reg, b))
    elif n == 1:
        a = ins[0]
        slots = (a.slot if a.region is reg else _bind(reg, a),)
    elif n == 3:
        a, b, c = ins
        slots = (a.slot if a.region is reg else _bind(reg, a), b.slot if b.region is reg else _bind(reg, b),
                 c.slot if c.region is reg else _bind(reg, c))
    else:
        slots = tuple([v.slot if v.region is reg else _bind(reg, v) for v in ins])
    node = reg.cursor.next
    if node is None or node.op is not op or node.ins != slots or node.attrs != attrs:
        if _abandoned(reg, ins):
            return apply(op, ins, attrs)
        start = reg.cursor
        if start.end > MANY_NODES and _varies(start, op) and not (state.hold or state.tracing) and \
                (op, slots, attrs) not in start.alts:  # type: ignore[operator]
            flush("variant")
            return apply(op, ins, attrs)
        node = _advance(start, op, slots, attrs, ins)
        if reg.cursor is not start:  # meanwhile something was recorded, by the end of some object or a signal's handler
            return apply(op, ins, attrs)
    reg.cursor = node
    if op.n_out == 1:
        out = Value(node.avals[0], reg, node.slot)
        reg.live.append(_ref(out))
        if state.grad and op.vjp is not None:
            for v in ins:
                if v.gfn is not None:
                    out.gfn = GradNode(node, ins, out, reg.token)
                    break
        if node.full or reg.must_flush:
            if reg is not state.region:  # ... or everything was computed
                return apply(op, ins, attrs)
            _pressure(reg)
        return out
    return _apply_multi(op, ins, attrs, node, reg)


def _abandoned(reg: Region, ins: tuple[Value, ...] = ()) -> bool:
    """Whether nothing of a region can be asked for any more, where the program goes on as it did not before: then a new region
    begins, so that a program that is run again is followed from its start, whatever was left pending before it. ``ins``: values
    in use, maybe scalars."""
    live, start = reg.live, reg.cursor
    if not live or reg.must_flush or state.tracing or state.hold or state.walks or any([v.region is reg for v in ins]):
        return False
    while live:
        last = live[-1]
        if last() is not None:
            return False
        if live and live[-1] is last:  # else the end of some object, or a signal's handler, recorded something meanwhile
            del live[-1]
    new = Region()
    if state.region is not reg or reg.cursor is not start:
        return False
    state.region = new
    return True


def _apply_multi(op: Op, ins: tuple[Value, ...], attrs: Any, node: Node, reg: Region) -> tuple[Value, ...]:
    outs = []
    for k, av in enumerate(node.avals):
        v = Value(av, reg, node.slot + k)
        reg.live.append(_ref(v))
        outs.append(v)
    if state.grad and op.vjp is not None and any(v.gfn is not None for v in ins):
        gn = GradNode(node, ins, None, reg.token)
        for k, v in enumerate(outs):
            if v.aval.dtype.is_floating_point or v.aval.dtype.is_complex:
                v.gfn = OutputEdge(gn, k)
        if op.save_out:
            gn.out = tuple([alias_value(v) for v in outs])
    if node.full or reg.must_flush:
        if reg is not state.region:
            return apply(op, ins, attrs)  # type: ignore[no-any-return]
        _pressure(reg)
    return tuple(outs)


class Numbers(NamedTuple):
    """Run-time scalars that are recorded together with what reads them."""

    dtype: dtype
    values: tuple[Any, ...]


def apply_each(op: Op, columns: Sequence[Sequence[Value]], more: Sequence[tuple[Value, ...] | Numbers],
               attrs: Any) -> list[list[Value]]:
    """Record ``op``, which has several outputs, for every i on the inputs ``(columns[0][i], columns[1][i], ..., *more[i])``,
    without gradients; returns columns of results. What was recorded at this point of the program before is recorded again as
    one block: an optimizer's step over its parameters."""
    reg = state.region
    known_slot = reg.leaf_slots.get
    slots = [v.slot if v.region is reg else v.__class__ is Value and known_slot(v) or _bind(reg, v)
             for column in columns for v in column]
    first, numbers = more[0], ()
    if first.__class__ is Numbers and more.count(first) == len(more):
        numbers = first.values  # type: ignore[union-attr]
    else:
        distinct = {id(m): m for m in more}
        made = {i: scalars(m.values, m.dtype) if isinstance(m, Numbers) else m for i, m in distinct.items()}
        for values in made.values():
            slots += [v.slot if v.region is reg else _bind(reg, v) for v in values]
        slots += [made[id(m)][0].slot for m in more] if len(made) > 1 else ()
    bound = len(reg.bindings) + len(numbers)
    key = (op, attrs, len(more), first.dtype if numbers else None, *slots)  # type: ignore[union-attr]
    start = reg.cursor
    block = start.blocks.get(key) if start.blocks and not (CASTS or reg.must_flush) else None
    if block is None:
        before, state.grad = state.grad, False
        try:
            rest = [scalars(numbers, first.dtype)] * len(more) if numbers else [made[id(m)] for m in more]  # type: ignore[union-attr]
            outs = [apply(op, (*row, *m), attrs) for *row, m in zip(*columns, rest)]
        finally:
            state.grad = before
        results = [list(column) for column in zip(*outs)]
        if state.region is reg and len(reg.bindings) == bound and not (CASTS or reg.must_flush):
            start.keep_block(key, (reg.cursor, [[(v.aval, v.slot) for v in column] for column in results]))
        return results
    if reg.cursor is not start or reg is not state.region:
        return apply_each(op, columns, more, attrs)
    reg.cursor, known = block
    reg.bindings += numbers
    results = [[Value(av, reg, slot) for av, slot in column] for column in known]
    reg.live += map(_ref, chain.from_iterable(zip(*results)))  # in the order they were first recorded in
    return results


def scalars(numbers: Sequence[Any], dt: dtype) -> tuple[Value, ...]:
    """Python numbers as run-time inputs of dtype ``dt``."""
    return tuple([scalar(number, dt) for number in numbers])


def scalar(number: Any, dt: dtype) -> Value:
    """A Python number as a run-time input of dtype ``dt``."""
    reg, av = state.region, scalar_aval(dt)
    start = reg.cursor
    node = start.next
    if node is None or node.op is not SCALAR or node.attrs[0] is not av:
        if start.op is not SCALAR and _abandoned(reg):
            return scalar(number, dt)
        node = _advance(start, SCALAR, (), (av,), ())
        if reg.cursor is not start:
            return scalar(number, dt)
    reg.cursor = node
    reg.bindings.append(number)
    return Value(av, reg, node.slot)


def _advance(cur: Node, op: Op, slots: tuple[int, ...], attrs: Any, ins: Sequence[Value]) -> Node:
    """Slow path: another known successor of ``cur``, or a new one."""
    loc = None
    if cur is _Trie.root:  # programs that start at different lines are kept apart, so that lines are reported right
        if state.watch is not None and not state.watch.flushed:  # ... or in different compiled functions
            key: Any = (op, slots, attrs, state.watch.number)
        else:
            loc = user_location(2)
            key = (op, slots, attrs, loc)
    else:
        key = (op, slots, attrs)
    alts = cur.alts
    if alts is None:
        alts = cur.alts = {}
    else:
        node = alts.get(key)
        if node is not None:
            if cur is not _Trie.root:
                cur.next = node
            return node
    in_avals = tuple([v.aval for v in ins])
    avals = op.infer_avals(attrs, in_avals)
    if len(alts) >= 64 and cur is not _Trie.root:
        del alts[next(iter(alts))]  # shapes or constants that never repeat: remember only recent branches
    node = Node(op, slots, attrs, avals, in_avals, cur.end if cur.op is not None else 0,
                loc or user_location(2), cur)
    if op.kind == "leaf" or op.name in _WEIGHTLESS:
        node.cum_bytes = cur.cum_bytes
    node.full = (node.end >= config.NODE_CAP or node.cum_bytes >= config.BYTE_CAP or config.EAGER
                 or _varies(cur, op))  # (a compiled call goes on)
    alts[key] = node
    if cur is not _Trie.root:
        cur.next = node
    _Trie.count += 1
    if _Trie.count > _TRIE_LIMIT:
        _Trie.root, _Trie.count = Node(None, (), (), (), (), 0), 0
    return node


def _varies(cur: Node, op: Op) -> bool:
    """Whether a program goes on in so many ways at a node that another one, by ``op``, is to be computed by itself."""
    return cur.alts is not None and len(cur.alts) >= VARIANTS and op.kind != "leaf" and cur is not _Trie.root


def _bind(reg: Region, v: Value) -> int:
    """Slot of an evaluated value in this region, entering it as a leaf at first use."""
    if v.__class__ is Value:
        slot = reg.leaf_slots.get(v)
        if slot is not None:
            return slot
        if v.region is not None:
            _evaluate_foreign(v)
        node = reg.cursor.next  # _enter_leaf, without the call
        if node is None or node.op is not LEAF or node.attrs[0] is not v.aval:
            return _enter_leaf(reg, v)
        reg.cursor = node
        reg.bindings.append(v)
        reg.leaf_slots[v] = slot = node.slot
        return slot
    if v.region is not None:
        _evaluate_foreign(v)
    return _bind_special(reg, v)


def _enter_leaf(reg: Region, v: Value) -> int:
    start = reg.cursor
    node = start.next
    if node is None or node.op is not LEAF or node.attrs[0] is not v.aval:
        node = _advance(start, LEAF, (), (v.aval,), ())
        if reg.cursor is not start:
            return _enter_leaf(reg, v)
    reg.cursor = node
    reg.bindings.append(v)
    reg.leaf_slots[v] = slot = node.slot
    return slot


def _bind_special(reg: Region, v: Value) -> int:
    """Leaves whose buffer the outside may change are read now or copied; poisoned ones raise."""
    if v.__class__ is PoisonedValue:
        raise v.buffer
    if not is_exported(v):
        v.__class__ = Value
        return _enter_leaf(reg, v)
    if v.aval.nbytes <= _SNAPSHOT_BYTES:
        return _enter_leaf(reg, leaf_value(v.aval, v.buffer.copy()))
    reg.must_flush = True
    slot = reg.leaf_slots.get(v)
    return _enter_leaf(reg, v) if slot is None else slot


def _pressure(reg: Region) -> None:
    """Flush a full region. What a compiled call holds together may be larger: its plan decides what is in memory at once."""
    if state.tracing:
        return
    if state.hold and not reg.must_flush and not config.EAGER:
        node = reg.cursor
        if node.end < _HELD * config.NODE_CAP and node.cum_bytes < _HELD * config.BYTE_CAP:
            return
    reg.must_flush = False
    flush("cap")


def trace(fn: Callable[..., Any], avals: Sequence[Aval], *, grad: bool = False) -> Graph:
    """The Graph of ``fn`` applied to fresh inputs of these avals. ``fn`` gets and returns Values (or a tuple)."""
    outer, outer_grad = state.region, state.grad
    state.region, state.grad = Region(), grad
    state.tracing += 1
    try:
        reg = state.region
        ins = []
        for av in avals:
            v = leaf_value(av, None)
            _enter_leaf(reg, v)
            ins.append(v)
        n = len(reg.bindings)
        out = fn(*ins)
        outs = out if isinstance(out, tuple) else (out,)
        slots = tuple([o.slot if o.region is reg else _bind(reg, o) for o in outs])
        if len(reg.bindings) != n:
            raise GraphcError("a traced function may only use its arguments and constants")
        return region_graph(reg.cursor, slots)
    finally:
        state.tracing -= 1
        state.region, state.grad = outer, outer_grad


def inline(graph: Graph, args: Sequence[Value]) -> tuple[Value, ...]:
    """Record ``graph``'s nodes on ``args``; returns its outputs as Values."""
    env: list[Any] = []
    it = iter(args)
    for node in graph.nodes:
        assert node.op is not None
        if node.op.kind == "leaf":
            env.append(next(it))
            continue
        out = apply(node.op, tuple([env[i] for i in node.ins]), node.attrs)
        env.extend(out if isinstance(out, tuple) else (out,))
    return tuple([env[s] for s in graph.outputs])


__all__ = ["CASTS", "LEAF", "Numbers", "PLANS", "Region", "SCALAR", "SharedValue", "_Trie", "_bind", "_planner", "apply",
           "apply_each", "bool_", "counters", "drop_dead_writes", "evaluated", "export", "fetched", "float64", "flush",
           "inline", "int64", "is_exported", "known_plan", "region_graph", "scalar", "scalar_aval", "scalar_buffer",
           "scalars", "set_planner", "soft_flush", "state", "trace", "with_location"]
