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

import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from operator import attrgetter, itemgetter, sub
from typing import Any

import numpy as np

from .. import config
from ..device import CPU
from ..dtypes import bool_, dtype, float64, int64
from ..errors import GraphcError
from .location import format_location, user_location
from .node import Aval, Graph, Node, PoisonedValue, SharedValue, Value, aval, leaf_value
from .optable import Op, Prim
from .tape import GradNode, OutputEdge, alias_value

_ref = weakref.ref
_slot = attrgetter("slot")
_alive = weakref.ref.__call__
_TRIE_LIMIT = 400_000  # nodes; then the trie is dropped and grows again
_WEIGHTLESS = frozenset(("reshape", "permute", "expand", "slice", "window", "const", "iota"))  # no memory of their own
_SNAPSHOT_BYTES = 1 << 20  # an exported leaf up to this size is copied when read, a larger one is read at once


def _no_attr_infer(attrs: Any, *ins: Aval) -> Aval:
    return attrs[0]


def _not_evaluated(*_: Any) -> Any:  # leaves and scalars are bound, never computed
    raise AssertionError("a leaf has no evaluation")


LEAF = Prim("leaf", kind="leaf", attrs=("aval",), infer=_no_attr_infer, eval_np=_not_evaluated, loop="load", vjp=None,
            saves=(), samples=tuple, doc="An evaluated value the region reads.")
SCALAR = Prim("scalar", kind="leaf", attrs=("aval",), infer=_no_attr_infer, eval_np=_not_evaluated, loop="scalar",
              vjp=None, saves=(), samples=tuple,
              doc="A Python number as a run-time slot: changing it never changes the program.")


class _Trie:
    """Root of all recorded programs (a documented process-wide cache)."""

    root = Node(None, (), (), (), (), 0)
    count = 0


class _Writes(list):  # type: ignore[type-arg]
    """What a region wrote, in order: (holder, value before its first write here, number of slots recorded by then)."""

    __slots__ = ()

    def append(self, entry: tuple[Any, Value]) -> None:
        list.append(self, (*entry, state.region.slots))


class Region:
    """The program being recorded: a cursor in the trie plus this walk's bindings and live values."""

    __slots__ = ("numbers", "cursor", "bindings", "leaf_slots", "live", "writes", "must_flush", "token")

    def __init__(self) -> None:
        self.cursor: Node = _Trie.root
        self.bindings: list[Any] = []  # leaf Values and scalar numbers in binding order
        self.leaf_slots: dict[Value, int] = {}
        self.live: list[weakref.ref[Value]] = []
        self.writes: _Writes = _Writes()  # (holder, value before its first write here): for restoring
        self.must_flush = False
        self.numbers: dict[int, int] | None = None  # slots of scalars -> binding number, once someone asked
        self.token = object()  # tells this region's gradient nodes

    @property
    def slots(self) -> int:
        """Number of slots recorded."""
        return self.cursor.end


class _State(threading.local):
    """Per-thread recording state."""

    def __init__(self) -> None:
        self.region = Region()
        self.grad = True  # record gradients
        self.hold = 0  # >0: inside a compiled call or a trace; soft flush points are ignored
        self.tracing = 0  # >0: building a sub-graph; reading a value is an error
        self.program = 0  # the depth of tracing at which the user's own code runs: autocast is for what it calls
        self.watch: Any = None  # the compiled call running in this thread: told of flushes and of new plans
        self.budget = 1.0  # share of the bytes kept for backward passes that plans may use
        self.tune = False  # whether plans for a device are made of measured block sizes
        self.walks = 0  # >0: inside a backward walk


state = _State()
CASTS: list[Callable[[Op, tuple[Value, ...]], tuple[Value, ...]]] = []  # autocast's, while a block is open somewhere
_scalar_avals: dict[dtype, Aval] = {}


def scalar_aval(dt: dtype) -> Aval:
    """Aval of a zero-dim value of ``dt`` on the host."""
    found = _scalar_avals.get(dt)
    if found is None:
        found = _scalar_avals[dt] = aval((), dt, CPU)
    return found


# --------------------------------------------------------------------------------------------------------- recording
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
        node = _advance(reg.cursor, op, slots, attrs, ins)
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
            _pressure(reg)
        return out
    return _apply_multi(op, ins, node, reg)


def _apply_multi(op: Op, ins: tuple[Value, ...], node: Node, reg: Region) -> tuple[Value, ...]:
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
        _pressure(reg)
    return tuple(outs)


def apply_each(op: Op, columns: Sequence[Sequence[Value]], more: Sequence[tuple[Value, ...]], attrs: Any) -> list[list[Value]]:
    """Record ``op``, which has several outputs, for every i on the inputs ``(columns[0][i], columns[1][i], ..., *more[i])``,
    without gradients; returns columns of results. What was recorded at this point of the program before is recorded again as
    one block: an optimizer's step over its parameters."""
    reg = state.region
    slots = [v.slot if v.region is reg else _bind(reg, v) for column in columns for v in column]
    distinct = {id(m): m for m in more}.values()
    for values in distinct:
        slots += [v.slot if v.region is reg else _bind(reg, v) for v in values]
    if len(distinct) > 1:
        slots += [m[0].slot for m in more]
    start, key, bound = reg.cursor, (op, attrs, len(more), *slots), len(reg.bindings)
    block = start.blocks.get(key) if start.blocks and not (CASTS or reg.must_flush) else None
    if block is None:
        before, state.grad = state.grad, False
        try:
            made = [apply(op, (*row, *m), attrs) for *row, m in zip(*columns, more)]
        finally:
            state.grad = before
        results = [list(column) for column in zip(*made)]
        if state.region is reg and len(reg.bindings) == bound and not (CASTS or reg.must_flush):
            if start.blocks is None or len(start.blocks) >= 8:
                start.blocks = {}
            start.blocks[key] = reg.cursor, [[(v.aval, v.slot) for v in column] for column in results]
        return results
    reg.cursor, known = block
    results = [[Value(av, reg, slot) for av, slot in column] for column in known]
    reg.live += map(_ref, chain.from_iterable(zip(*results)))  # in the order they were first recorded in
    return results


def scalars(numbers: Sequence[Any], dt: dtype) -> tuple[Value, ...]:
    """Python numbers as run-time inputs of dtype ``dt``."""
    reg = state.region
    av = scalar_aval(dt)
    start, key = reg.cursor, (SCALAR, av, len(numbers))
    known = start.blocks.get(key) if start.blocks is not None else None
    if known is None:
        node, slots = start, []
        for _ in numbers:
            after = node.next
            same = after is not None and after.op is SCALAR and after.attrs[0] is av
            node = after if same else _advance(node, SCALAR, (), (av,), ())  # type: ignore[assignment]
            slots.append(node.slot)
        known = node, slots
        if start.op is not None and slots:
            if start.blocks is None or len(start.blocks) >= 8:
                start.blocks = {}
            start.blocks[key] = known
    reg.cursor, slots = known
    reg.bindings += numbers
    return tuple([Value(av, reg, slot) for slot in slots])


def scalar(number: Any, dt: dtype) -> Value:
    """A Python number as a run-time input of dtype ``dt``."""
    return scalars((number,), dt)[0]


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
        alts.clear()  # shapes or constants that never repeat: remember only recent branches
    node = Node(op, slots, attrs, avals, in_avals, cur.end if cur.op is not None else 0,
                loc or user_location(2), cur)
    if op.kind == "leaf" or op.name in _WEIGHTLESS:
        node.cum_bytes = cur.cum_bytes
    node.full = node.end >= config.NODE_CAP or node.cum_bytes >= config.BYTE_CAP or config.EAGER
    alts[key] = node
    if cur is not _Trie.root:
        cur.next = node
    _Trie.count += 1
    if _Trie.count > _TRIE_LIMIT:
        _Trie.root, _Trie.count = Node(None, (), (), (), (), 0), 0
    return node


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
            node = _advance(reg.cursor, LEAF, (), (v.aval,), ())
        reg.cursor = node
        reg.bindings.append(v)
        reg.leaf_slots[v] = slot = node.slot
        return slot
    if v.region is not None:
        _evaluate_foreign(v)
    return _bind_special(reg, v)


def _enter_leaf(reg: Region, v: Value) -> int:
    node = reg.cursor.next
    if node is None or node.op is not LEAF or node.attrs[0] is not v.aval:
        node = _advance(reg.cursor, LEAF, (), (v.aval,), ())
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


def is_exported(v: Value) -> bool:
    """Whether something outside graphc holds this value's buffer (or an array it is a view of)."""
    buf = v.buffer
    if buf.__class__ is not np.ndarray:  # memory of a device: nobody tells when the last reader is gone
        return True
    known = _EXPORTS.get(id(buf))
    if known is not None:
        return known[1]() is not None
    return buf.base is not None or sys.getrefcount(buf) > 3


class _Exported:
    """Owner of the arrays given out over one buffer: alive as long as one of them, or of their views, is."""

    __slots__ = ("buffer", "__array_interface__", "__weakref__")

    def __init__(self, buffer: np.ndarray):
        self.buffer = buffer
        self.__array_interface__ = (buffer.view(np.uint16) if buffer.dtype.kind == "V" else buffer).__array_interface__


_EXPORTS: dict[int, tuple[Any, Any]] = {}  # id of a buffer -> (weak reference to it, and to the owner of what was given out)


def export(buf: np.ndarray) -> np.ndarray:
    """An array over ``buf``'s memory for the outside. :func:`is_exported` knows whether it, or a view of it, still lives."""
    known = _EXPORTS.get(id(buf))
    owner = known[1]() if known is not None else None
    if owner is None:
        owner, key = _Exported(buf), id(buf)
        _EXPORTS[key] = _ref(buf, lambda _: _EXPORTS.pop(key, None)), _ref(owner)
    out = np.asarray(owner)
    return out if out.dtype == buf.dtype else out.view(buf.dtype)


# ---------------------------------------------------------------------------------------------------------- flushing
_planner: list[Callable[[Graph], Any]] = []
PLANS: dict[Any, Any] = {}  # canonical key -> plan, insertion-ordered, bounded
_PLAN_LIMIT = 4096
counters = {"flushes": 0, "plans_built": 0, "plan_hits": 0}


def set_planner(fn: Callable[[Graph], Any]) -> None:
    """Install the code generator: it turns a Graph into a callable ``plan(bindings, free) -> buffers`` with ``donors``,
    the numbers of the bindings it would overwrite if they are ``free`` (held by nobody else)."""
    _planner[:] = [fn]


def _pressure(reg: Region) -> None:
    if state.tracing:
        return
    reg.must_flush = False
    flush("cap")


def soft_flush() -> None:
    """A natural boundary of eager programs (end of an optimizer step); ignored inside compiled calls."""
    if not state.hold:
        flush("step")


def flush(reason: str = "read") -> None:
    """Compute everything live values of this thread's region need. Raises the first failing op's error at the line
    that recorded it; values that do not depend on that op are still computed, and written tensors get their old
    value back when their new one failed."""
    reg = state.region
    if reg.cursor is _Trie.root or not reg.bindings and not reg.live:
        return
    if state.tracing:
        raise GraphcError("a value was read while a sub-graph (scan body, checkpoint, export) is being traced; "
                          "use graphc operations instead of Python branches on values here")
    if state.watch is not None:
        state.watch.on_flush(reason)
    state.region = Region()
    counters["flushes"] += 1
    drop_dead_writes(reg)
    live = [v for v in filter(None, map(_alive, reg.live)) if v.region is reg]
    if not live:
        return
    signature = tuple(map(_slot, live))
    end = reg.cursor
    plans = end.plans
    if plans is None:
        plans = end.plans = {}
    plan = None
    try:
        key: Any = signature if state.budget == 1.0 and not state.tune else (signature, state.budget, state.tune)
        plan = plans.get(key)
        if plan is None:
            plan = _find_plan(end, signature)
            if len(plans) >= 64:
                plans.clear()
            plans[key] = plan
        buffers = plan(reg.bindings, _unheld(reg, plan.donors) if plan.donors else ())
    except Exception as error:
        _recover(reg, live, error, reason != "read" or state.hold > 0, plan)
        raise
    for v, buf in zip(live, buffers):
        v.buffer = buf
        v.region = None


def drop_dead_writes(reg: Region) -> None:
    """Forget writes into tensors that only the log still holds (gradients clipped, used and dropped): nobody can see them, so
    they need no result."""
    writes = reg.writes
    if writes and min(map(_count, map(_first, writes))) <= _LOGGED:
        writes[:] = [w for w, n in zip(writes, [*map(_count, map(_first, writes))]) if n > _LOGGED]


def _holders(reg: Region, donors: Sequence[int]) -> tuple[list[Value], list[int], list[Any], list[int]]:
    """Values of these bindings, how many hold each beyond the log of writes; their buffers, how many hold each. In columns: an
    optimizer's step gives away hundreds. The log is read by ids, since a list of its values would hold them itself."""
    ids = [*map(id, map(_second, reg.writes))]
    written = dict.fromkeys(ids, 1)
    if len(written) != len(ids):
        written = Counter(ids)
    values = [reg.bindings[k] for k in donors]
    held = [*map(sub, map(_count, values), map(written.get, map(id, values), repeat(0)))]
    buffers = [*map(_buffer, values)]
    return values, held, buffers, [*map(_count, buffers)]


def _unheld(reg: Region, donors: Sequence[int]) -> Sequence[int]:
    """Those bindings of ``donors`` whose value and buffer nothing but this region holds."""
    values, held, buffers, shared = _holders(reg, donors)
    n = len(donors)
    if (held == [_HELD] * n and shared == [_BUFFER] * n and all(map(_writeable, buffers))
            and [*map(type, values)] == [Value] * n):
        return donors
    return [k for k, v, h, b, c in zip(donors, values, held, buffers, shared)
            if h == _HELD and c == _BUFFER and v.__class__ is Value and b.flags.writeable]


_count = sys.getrefcount
_first, _second, _buffer, _writeable = itemgetter(0), itemgetter(1), attrgetter("buffer"), attrgetter("flags.writeable")


def _held_by_region() -> tuple[int, int]:
    """Reference counts :func:`_holders` sees of a value only its region holds, and of its buffer (they differ between Python
    versions)."""
    reg = Region()
    reg.bindings.append(leaf_value(scalar_aval(float64), np.zeros(())))
    reg.leaf_slots[reg.bindings[0]] = 0
    _, held, _, shared = _holders(reg, (0,))
    return held[0], shared[0]


_HELD, _BUFFER = _held_by_region()
_LOGGED = min(map(_count, map(_first, [(object(), None)])))  # reference count of what only a tuple of a list holds


def region_graph(end: Node, outputs: tuple[int, ...]) -> Graph:
    """The path from the trie's root to ``end`` as a Graph."""
    nodes: list[Node] = []
    node: Node | None = end
    while node is not None and node.op is not None:
        nodes.append(node)
        node = node.parent
    nodes.reverse()
    return Graph(nodes, outputs)


def known_plan(end: Node, signature: tuple[int, ...]) -> Any:
    """The plan of the region that ends at ``end`` with these live slots, or None if it was not run yet."""
    key: Any = signature if state.budget == 1.0 and not state.tune else (signature, state.budget, state.tune)
    return None if end.plans is None else end.plans.get(key)


def _find_plan(end: Node, signature: tuple[int, ...]) -> Any:
    graph = region_graph(end, signature)
    graph.budget, graph.tune = state.budget, state.tune
    key = graph.key()
    plan = PLANS.get(key)
    if plan is None:
        counters["plans_built"] += 1
        plan = _planner[0](graph)
        if state.watch is not None:
            state.watch.on_plan(graph)
        if len(PLANS) >= _PLAN_LIMIT:
            PLANS.pop(next(iter(PLANS)))
        PLANS[key] = plan
    else:
        counters["plan_hits"] += 1
    return plan


def _recover(reg: Region, live: list[Value], error: BaseException, atomic: bool, plan: Any) -> None:
    """After a failed plan: compute what still can be computed, poison the rest, undo writes that failed.

    ``atomic``: the caller sees one step fail as a whole (a compiled call, an optimizer step), so nothing recorded after the
    failing op may have happened, whether it depends on that op or not: an update must not be made from half a loss.
    """
    from .interpret import evaluate_each

    graph = region_graph(reg.cursor, tuple(v.slot for v in live))
    if all(a.device is CPU for n in graph.nodes for a in n.avals):
        results = evaluate_each(graph, reg.bindings)
    elif plan is not None:
        results = plan.evaluate_each(reg.bindings, set(graph.outputs), error)
    else:
        results = [error] * graph.nodes[-1].end
    first = next((k for k, r in enumerate(results) if isinstance(r, BaseException)), len(results)) if atomic else len(results)
    for v in live:
        out = results[v.slot] if v.slot < first else results[first]
        v.region = None
        if isinstance(out, BaseException):
            v.__class__ = PoisonedValue
            v.buffer = out
        else:
            v.buffer = out
    for holder, old, at in reversed(reg.writes):
        alias = getattr(holder, "_alias", None)
        if alias is not None:  # a view of it was made since it was written: its value moved into a storage
            holder = alias.storage
        if at > first:
            _poison(holder, error)
        holder.restore(old)


def _poison(holder: Any, error: BaseException) -> None:
    """Mark what ``holder`` holds as failed, so that it is restored."""
    name = "_v" if hasattr(holder, "_v") else "value"  # a tensor, or a storage
    bad = leaf_value(getattr(holder, name).aval, error)
    bad.__class__ = PoisonedValue
    setattr(holder, name, bad)


def _evaluate_foreign(v: Value) -> None:
    """Compute a value pending in another thread's region from its immutable nodes."""
    reg = v.region
    if reg is None:
        return
    if state.tracing:
        raise GraphcError("a value of an enclosing recording leaked into a sub-graph; pass it as an input")
    end = reg.cursor
    bindings = list(reg.bindings)
    if not v.aval.shape and (k := _scalar_number(reg, v.slot)) is not None:
        v.buffer = scalar_buffer(bindings[k], v.aval.dtype)
        v.region = None
        return
    graph = region_graph(end, (v.slot,))
    n_inputs = len(graph.inputs)
    while n_inputs > len(bindings):  # the owner is between entering a leaf and binding it
        bindings = list(reg.bindings)
    buf = _planner[0](graph)(bindings[:n_inputs])[0]
    v.buffer = buf
    v.region = None


def _scalar_number(reg: Region, slot: int) -> int | None:
    """The binding number of a run-time scalar, or None if the slot is none: gradient nodes save scalars, which a flush of their
    region does not evaluate, and planning the region again for each would take quadratic time."""
    if reg.numbers is None:
        leaves = [n for n in region_graph(reg.cursor, ()).nodes if n.op is LEAF or n.op is SCALAR]
        reg.numbers = {n.slot: k for k, n in enumerate(leaves) if n.op is SCALAR}
    return reg.numbers.get(slot)


def evaluated(v: Value) -> Any:
    """The buffer of ``v``, flushing if it is pending. Raises the recorded error of a failed value."""
    if v.region is not None:
        if v.region is state.region:
            flush()
        else:
            _evaluate_foreign(v)
    if v.__class__ is PoisonedValue:
        raise v.buffer
    return v.buffer


def fetched(v: Value) -> np.ndarray:
    """The data of ``v`` on the host, from whatever device; not to be written. Raises the recorded error of a failed value."""
    buf = evaluated(v)
    return buf if isinstance(buf, np.ndarray) else buf.fetch()


def with_location(error: BaseException, node: Node) -> BaseException:
    """``error`` with the line that recorded ``node`` added to its message."""
    where = format_location(node.loc)
    text = str(error)
    if isinstance(error, GraphcError):
        if "recorded at" not in text:
            error.args = (f"{text}\n  recorded at {where}", *error.args[1:])
        return error
    return error


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


def scalar_buffer(number: Any, dt: dtype) -> np.ndarray:
    """The zero-dim array a run-time scalar of ``dt`` becomes (integers wrap as in C)."""
    if dt.category == 1 and isinstance(number, int):
        bits = dt.itemsize * 8
        number &= (1 << bits) - 1
        if dt.is_signed and number >> (bits - 1):
            number -= 1 << bits
    return np.asarray(number, dt.np)


__all__ = ["LEAF", "SCALAR", "SharedValue", "apply", "bool_", "evaluated", "flush", "float64", "inline", "int64", "scalar",
           "soft_flush", "state", "trace"]
