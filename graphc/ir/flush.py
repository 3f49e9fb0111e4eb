"""Flushing: everything live values of a region can still reach is computed in one plan, found at the node it ends at.

A flush happens when a value is needed on the host, when a region is full, and where the optimizer or a compiled call says so.
A plan that fails leaves what does not depend on the failing operation computed, and tensors it wrote with their old values.
"""
from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np

from ..device import CPU
from ..dtypes import float64
from ..errors import GraphcError
from .location import format_location
from .node import Graph, Node, PoisonedValue, SharedValue, Value, leaf_value
from .region import LEAF, SCALAR, Region, _Trie, region_graph, scalar_aval, scalar_buffer, state

_slot = attrgetter("slot")
_alive = weakref.ref.__call__
_planner: list[Callable[[Graph], Any]] = []
PLANS: dict[Any, Any] = {}  # canonical key -> plan, insertion-ordered, bounded
_PLAN_LIMIT, _NODE_LIMIT = 4096, 400_000  # plans, and nodes of the programs they were made from: about 0.8 GB
_FINISHED = "_graphc_finished"
counters = {"flushes": 0, "plans_built": 0, "plan_hits": 0, "plan_nodes": 0}


def set_planner(fn: Callable[[Graph], Any]) -> None:
    """Install the code generator: it turns a Graph into a callable ``plan(bindings, free) -> buffers`` with ``donors``,
    the numbers of the bindings it would overwrite if they are ``free`` (held by nobody else)."""
    _planner[:] = [fn]


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
    reg.must_flush = True  # whoever was recording on it when this came in between finds out
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
    except BaseException as error:
        done = finished(error, plan)
        if done is not None:
            _settle(live, done)
        elif isinstance(error, Exception):
            _recover(reg, live, error, reason != "read" or state.hold > 0, plan)
        elif state.region.cursor.op is None:  # Ctrl-C before anything was done: all is pending as before
            reg.must_flush = any([b.__class__ is SharedValue for b in reg.bindings])
            state.region = reg
        raise
    try:
        _settle(live, buffers)
    except BaseException:  # Ctrl-C: the plan may have overwritten what it was made from
        _settle(live, buffers)
        raise


def _settle(live: list[Value], buffers: Sequence[Any]) -> None:
    """Values are evaluated to what their plan gave."""
    for v, buf in zip(live, buffers):
        v.buffer = buf
        v.region = None


def note_finished(error: BaseException, program: Any, buffers: Sequence[Any]) -> None:
    """Tell whoever called a plan that ``error`` came from outside (Ctrl-C, a signal's handler) when its program had run: its
    results must not be lost, since what it was given may be overwritten."""
    error.__dict__[_FINISHED] = program, buffers


def finished(error: BaseException, plan: Any) -> Sequence[Any] | None:
    """The results of a plan that had run when ``error`` came from outside, or None."""
    program, buffers = error.__dict__.pop(_FINISHED, (None, None))
    return None if plan is None or program is not getattr(plan, "run", None) else buffers


def drop_dead_writes(reg: Region) -> None:
    """Forget writes into tensors that only the log still holds (gradients clipped, used and dropped): nobody can see them, so
    they need no result."""
    writes = reg.writes
    if writes and min(map(_count, map(_first, writes))) <= _LOGGED:
        writes[:] = [w for w, n in zip(writes, [*map(_count, map(_first, writes))]) if n > _LOGGED]


def _unheld(reg: Region, donors: Sequence[int]) -> list[int]:
    """Those bindings of ``donors`` whose value and buffer nothing but this region holds."""
    written: dict[int, int] = {}
    for key in [id(w[1]) for w in reg.writes]:  # ids: a loop variable would hold the last value itself
        written[key] = written.get(key, 0) + 1
    return [k for k in donors if is_unheld(reg.bindings[k], written)]


def is_unheld(v: Value, written: dict[int, int]) -> bool:
    """Whether only two places and the log of writes (``written``: entries by id) hold a value, and only it its buffer. The two
    are the region's list and table of leaves, or whatever the caller knows of."""
    return (_count(v) - written.get(id(v), 0) == _HELD and v.__class__ is Value and _count(v.buffer) == _BUFFER
            and v.buffer.flags.writeable)


_count = sys.getrefcount
_first = itemgetter(0)


def _held_twice() -> tuple[int, int]:
    """Reference counts :func:`is_unheld` sees of such a value and its buffer (they differ between Python versions)."""
    two = [leaf_value(scalar_aval(float64), np.zeros(()))] * 2

    def seen(v: Value) -> tuple[int, int]:
        return _count(v), _count(v.buffer)

    return seen(two[0])


_HELD, _BUFFER = _held_twice()
_LOGGED = min(map(_count, map(_first, [(object(), None)])))  # reference count of what only a tuple of a list holds


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
        counters["plan_nodes"] += len(graph.nodes)
        if len(PLANS) >= _PLAN_LIMIT or counters["plan_nodes"] > _NODE_LIMIT:
            _make_room(len(graph.nodes))
        PLANS[key] = plan
    else:
        counters["plan_hits"] += 1
    return plan


def _make_room(more: int) -> None:
    """Forget the oldest plans, also where programs end, so that shapes that never come again do not fill the memory."""
    sizes = {key: len(getattr(plan, "recorded", plan).nodes) for key, plan in [*PLANS.items()]}
    total, count = sum(sizes.values()) + more, len(sizes)
    for key, size in sizes.items():
        if count <= _PLAN_LIMIT * 3 // 4 and total <= _NODE_LIMIT * 3 // 4:  # a quarter goes, so that this is rare
            break
        total, count = total - size, count - 1
        plan = PLANS.pop(key)
        known = getattr(plan, "recorded", plan).nodes[-1].plans or {}
        for signature in [s for s, p in [*known.items()] if p is plan]:
            known.pop(signature, None)
    counters["plan_nodes"] = total


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
        if v.region is not None:
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
