"""``mode="replay"``: calls that skip Python, for steps so small that Python is what takes the time.

A call is *observed*: what the function can see is walked before (``scene.py``); afterwards the recorded region
tells which values it read, which it wrote where, what it returned, how far the random streams moved. If two calls in a row
observe the same, everything visible stayed as it was, and every value the region leaves behind is accounted for, then a third
call with equal guards needs no Python: its region is put together from the observation (:meth:`Variant.run`) and flushed
like any other, so plans, donation and recovery from errors are those of the default mode.

Run-time numbers that differ between observations must have a source: a random stream's offset, an optimizer's learning rate or
its bias correction. Otherwise the function is not replayed. Every n-th call is an *audit*: Python runs and what it records is
compared; a difference raises StaleReplayError. So a replayed function can be stale only through what neither the walk nor two
equal calls show, and no longer than until the next audit.
"""
from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np

from ..errors import StaleReplayError
from ..ir import recorder
from ..ir.location import format_location
from ..ir.node import Value, leaf_value
from ..ir.recorder import SCALAR, Region, region_graph
from ..ir.tape import alias_value
from ..tensor import Tensor, wrap
from .observe import Arguments, Observation, Rates, Unfit, step_of
from .report import difference
from .scene import Hidden, Watch, modes, same_state
from .shortcut import MISS, shortcut

FIRST_AUDITS = 3  # audits of the first calls after learning
_MAX_VARIANTS = 8
_PATIENCE = 12  # observations in a row that lead nowhere before observing stops
_RATE_NAMES = frozenset(("lr", "param_groups", "get_last_lr", "get_lr"))
_MASK = (1 << 64) - 1


class Variant:
    """A program that can be run without Python, and the guards under which it may be."""

    def __init__(self, history: list[Observation]):
        o = self.seen = history[-1]
        self.key, self.calls = o.key(), 0
        moved = [r for r in o.rates if len({h.rates[r] for h in history if r in h.rates}) > 1]
        self.live_rates = frozenset(() if o.scene.names & _RATE_NAMES else moved)  # groups whose rate is an input
        self.numbers = [self._number(k, history) for k in range(len(o.numbers))]
        for k, c in enumerate(o.constants):
            if any(h.constants[k].buffer.tobytes() != c.buffer.tobytes() for h in history[-2:]):
                raise Unfit("it reads a value it makes from Python data, and that differs between calls")
            if history[-2].constants[k].buffer is c.buffer:
                raise Unfit("it reads a value that is kept where it was not found")
        self.groups = [g for opt in o.scene.optimizers for g in opt.param_groups]
        self.watch = Watch(o.scene.guards, self.live_rates)
        self.leaves = [k for k, (kind, _) in enumerate(o.sources) if kind != "number"]
        self.tensors = list(zip(o.scene.tensors, o.scene.states))
        self.shortcut = shortcut(self)

    def _number(self, k: int, history: list[Observation]) -> Any:
        """The source of scalar ``k``: a constant, or the name of something that moved as it did."""
        seen = [h.numbers[k] for h in history]
        if all(type(x) is type(seen[0]) and x == seen[0] for x in seen):
            return ("constant", seen[0])
        names = set(history[0].candidates)
        for h in history:
            names &= set(h.candidates)
        for n in sorted(names, key=repr):
            deltas = {x - h.candidates[n] for x, h in zip(seen, history)}
            if n[0] == "rng" and len(deltas) == 1 and isinstance(seen[0], int):
                return ("rng", n[1], deltas.pop())
            if n[0] != "rng" and all(x == h.candidates[n] for x, h in zip(seen, history)):
                return ("rate", n[0], n[1], n[2])
        raise Unfit(f"it computes a number in Python that differs between calls ({seen[-2]!r}, {seen[-1]!r})")

    def fits(self, a: Arguments) -> bool:
        o = self.seen
        if a.outline != o.arguments.outline or a.shapes != o.arguments.shapes or modes() != o.modes:
            return False
        if self.watch.changed() or [g._seed for g in o.scene.generators] != o.seeds:
            return False
        for t, state in self.tensors:
            if not same_state(t, state):
                return False
        return True

    def scalars(self) -> list[Any]:
        """The numbers of the call about to happen."""
        o, out = self.seen, []
        counts = [step_of(t) for t in o.steps]
        for n in self.numbers:
            if n[0] == "constant":
                out.append(n[1])
            elif n[0] == "rng":
                out.append(o.scene.generators[n[1]]._offset + n[2])
            else:
                out.append(Rates.value(n[1], self.groups[n[2]], counts[n[3]] + 1 if n[3] >= 0 else 1))
        return out

    def bindings(self, args: list[Tensor]) -> list[Any] | None:
        """Leaf Values and numbers in binding order; None if one is not to be had."""
        o, numbers = self.seen, self.scalars()
        out: list[Any] = []
        for kind, x in o.sources:
            if kind == "number":
                out.append(numbers[x])
                continue
            v = o.constants[x] if kind == "constant" else _held(kind, x, args)
            if v is None or v.region is not None or v.__class__ is not Value:
                return None
            out.append(alias_value(v) if len(out) in o.handles else v)
        if any(getattr(_held(kind, x, args), "buffer", None) is not out[n].buffer for n, more in o.shared for kind, x in more):
            return None
        return out if len({id(out[k]) for k in self.leaves}) == len(self.leaves) else None

    def run(self, args: list[Tensor], bindings: list[Any]) -> tuple[Any, list[Value]]:
        """Put the region together, rebind what it writes; returns the function's result, pending, and all its values."""
        o, reg = self.seen, Region()
        reg.cursor, reg.bindings = o.end, bindings
        for k in self.leaves:
            reg.leaf_slots[bindings[k]] = k
        recorder.state.region = reg
        values = []
        for slot, av, edge in o.live:
            v = Value(av, reg, slot)
            v.gfn = edge
            values.append(v)
        reg.live += map(weakref.ref, values)
        log, slots = list.append, reg.slots
        for kind, x, k in o.writes:
            if kind == "tensor":
                log(reg.writes, (x, x._v, slots))
                x._v = values[k]
            elif kind == "storage":
                log(reg.writes, (x, x.value, slots))
                x.value = values[k]
                x.version += 1
            elif kind == "view":
                x._v = values[k]
                x._alias.version = x._alias.storage.version
            elif kind == "arg":
                reg.writes.append((args[x], args[x]._v))
                args[x]._v = values[k]
            elif kind == "grad":
                reg.writes.append((x._grad, x._grad._v))
                x._grad._v = values[k]
            else:
                x._grad = wrap(values[k]) if k >= 0 else None
        for t in o.steps:
            reg.writes.append((t, t._v))
            t._v = leaf_value(t._v.aval, np.array(step_of(t) + 1, t._v.aval.dtype.np))
        for g, n in zip(o.scene.generators, o.moved):
            g._offset = (g._offset + n) & _MASK
        return _rebuilt(o.template, values, args), values


def _held(kind: str, x: Any, args: list[Tensor]) -> Value | None:
    """The Value a place holds now; None for a view that must be read anew and a gradient seen through one."""
    if kind == "tensor":
        return x._v
    if kind == "storage":
        return x.value
    if kind == "arg":
        return args[x]._v
    if kind == "view":
        return x._v if x._alias.version == x._alias.storage.version else None
    if kind == "grad":
        return x._grad._v if x._grad is not None and x._grad._alias is None else None
    return args[x]._alias.storage.value if kind == "arg storage" else None  # type: ignore[union-attr]


def _rebuilt(x: Any, values: list[Value], args: list[Tensor]) -> Any:
    kind = x[0]
    if kind == "new":
        return wrap(values[x[1]])
    if kind == "same":
        return x[2]
    if kind == "arg":
        return args[x[1]]
    if kind == "visible":
        return x[1]
    if kind == "dict":
        return {k: _rebuilt(e, values, args) for k, e in x[1:]}
    return kind([_rebuilt(e, values, args) for e in x[1:]])


class Replay:
    """What a function in replay mode has learned."""

    def __init__(self, fn: Any, every: int):
        self.fn, self.every = fn, every
        self.lock = threading.Lock()  # around what threads learn; what they use is replaced, never changed
        self.variants: list[Variant] = []
        self.latest: Variant | None = None  # the one a shortcut was taken for last
        self.history: list[Observation] = []
        self.off = ""  # why observing has stopped
        self.why = ""  # why the latest call could not be learned from
        self.fruitless = self.unused = self.replayed = self.audits = 0  # unused: calls observed since the last fit

    # ---------------------------------------------------------------------------------------------------------- skipping
    def short(self, args: tuple[Any, ...]) -> Any:
        """The result of a call that a shortcut fits, or MISS: also when an audit is due."""
        latest = self.latest
        for v in (latest, *self.variants) if latest is not None else self.variants:
            if v.shortcut is not None and v.calls >= FIRST_AUDITS and (v.calls + 1) % self.every:
                out = v.shortcut(args)
                if out is not MISS:
                    v.calls += 1
                    self.unused = 0
                    self.replayed += 1
                    self.latest = v
                    return out
        return MISS

    def find(self, a: Arguments) -> Variant | None:
        for v in self.variants:
            if v.fits(a):
                self.unused = 0
                return v
        return None

    def due(self, v: Variant) -> bool:
        """Whether this call of ``v`` is an audit."""
        v.calls += 1
        return v.calls <= FIRST_AUDITS or v.calls % self.every == 0

    # ---------------------------------------------------------------------------------------------------------- learning
    def observe(self, a: Arguments) -> Observation | None:
        if self.off:
            return None
        try:
            return Observation(self.fn, a)
        except Hidden as error:
            self.off = self.why = f"it uses {error}"
        except Unfit as error:
            self._fruitless(str(error))
        return None

    def read_inside(self) -> None:
        """A call that read a value on the host, or did not finish, teaches nothing."""
        self._fruitless("it reads a value on the host")

    def _fruitless(self, why: str) -> None:
        self.why = why
        self.history = []
        self.fruitless += 1
        if self.fruitless >= _PATIENCE:
            self.off = why

    def learn(self, o: Observation, out: Any, args: Any, kwargs: Any, audited: Variant | None) -> None:
        """Finish an observation; two equal ones in a row make a variant, unless it confirms the one under audit."""
        try:
            o.finish(recorder.state.region, out, args, kwargs)
            with self.lock:
                self._remember(o, audited)
        except Unfit as error:
            self._fruitless(str(error))

    def _remember(self, o: Observation, audited: Variant | None) -> None:
        self.unused += 1
        if self.unused > 4 * _MAX_VARIANTS:
            self.off = self.why = "what it is called with, or what it sees, never comes again"
        same = self.history if self.history and self.history[-1].key() == o.key() else []
        self.history = [*same, o][-4:]
        if audited is not None and audited.key == o.key() or not same or same[-1].scene.changed(None):
            return
        fresh = Variant(self.history)
        others = [v for v in self.variants if v.key != fresh.key or not fresh.live_rates]
        self.variants, self.latest = [fresh, *others][:_MAX_VARIANTS], None
        self.fruitless, self.why = 0, ""

    def audit(self, v: Variant, o: Observation | None, numbers: list[Any]) -> str:
        """What differs between a variant and the call that just ran with its Python, or ''."""
        self.audits += 1
        if o is None:  # something NumPy shares, say: nothing to compare, and nothing replayed while it is so
            return ""
        if o.slots is None:
            return "it reads a value on the host"
        old, new = region_graph(v.seen.end, v.seen.slots or ()), region_graph(o.end, o.slots)
        if old != new:
            return difference(new, [old])
        alone = threading.active_count() == 1  # other threads may draw from the same random stream meanwhile
        for node, was, now, source in zip([n for n in new.inputs if n.op is SCALAR], numbers, o.numbers, v.numbers):
            if was != now and not (was != was and now != now) and (alone or source[0] == "constant"):
                return f"a number at {format_location(node.loc)} is {now!r}, replayed as {was!r}"
        if not o.complete or o.key()[1:] != v.key[1:]:
            self.latest = None
            self.variants = [x for x in self.variants if x is not v]  # the same program for another reason: learn it again
        return ""

    def refuse(self, v: Variant, why: str) -> None:
        """Drop a variant an audit refuted. StaleReplayError."""
        self.variants, self.history, self.latest = [], [], None
        self.off = f"an audit found that {why}"
        raise StaleReplayError(f"mode='replay' skipped the Python of {getattr(self.fn, '__qualname__', self.fn)}, but it has "
                               f"changed: {why}. Results since the last audit may be stale; use the default mode, or pass "
                               "what changes as an argument")


__all__ = ["MISS", "Replay", "Variant"]
