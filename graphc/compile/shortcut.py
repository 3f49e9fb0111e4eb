"""The shortest way to run a replayed program, for calls where microseconds count.

:class:`Variant` puts a region together and flushes it. That is general, and costs three times what the plan's own
preparation does. Where everything is of the plainest kind - whole tensors as positional arguments, whole tensors written,
fresh gradients, fresh results - a :class:`Shortcut` checks the same guards in one pass over the tensors, calls the plan, and
puts the results in place. Whatever is not as expected makes it step aside before anything has happened; so does a plan that
raises, which leaves what it was given as it was: the general way then finds and reports the same error.

A parameter whose new data were written over its old ones keeps its Value: nobody else holds it, or it would not have been
given to be overwritten.
"""
from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import dtypes
from ..ir import recorder
from ..ir.flush import finished, is_unheld
from ..ir.node import Value, leaf_value
from ..ir.picking import picker
from ..tensor import Tensor, wrap
from .observe import step_of

if TYPE_CHECKING:
    from .replay import Variant

MISS = object()  # the shortcut does not fit this call
_MASK = (1 << 64) - 1
_count = sys.getrefcount
_NO_WRITES: dict[int, int] = {}
_WRITES = frozenset(("tensor", "new grad", "no grad"))
_SOURCES = frozenset(("tensor", "arg", "arg storage", "number", "constant"))


class Shortcut:
    """How to run a variant directly; see :func:`shortcut`."""

    def __init__(self, variant: Variant):
        o = variant.seen
        self.variant, self.watch, self.seen = variant, variant.watch, o
        self.signature = tuple([slot for slot, _, _ in o.live])
        self.plan: Any = None
        self.shapes = [s[0] for s in o.arguments.shapes]
        self.tensors = [(t, s[1], s[2], s[3]) for t, s in variant.tensors]
        self.grad, self.dtype, self.casts = o.modes
        self.constants = all(n[0] == "constant" for n in variant.numbers)
        self.numbers = [n[1] for n in variant.numbers] if self.constants else []
        self.generators, self.seeds = o.scene.generators, o.seeds
        self.moved = any(o.moved)
        place: dict[Any, int] = {("arg", i): i for i in range(len(self.shapes))}
        for t, *_ in self.tensors:
            place["tensor", id(t)] = len(place)
        n = len(place)
        at = {"constant": n, "number": n + len(o.constants)}
        order = [at[kind] + x if kind in at else x if kind != "tensor" else place[kind, id(x)] for kind, x in o.sources]
        self.cells = picker(order)
        self.written = [(x, k, o.live[k][2]) for kind, x, k in o.writes if kind == "tensor"]
        self.grads = [(x, k, o.live[k][2]) for kind, x, k in o.writes if kind == "new grad"]
        self.dropped = [x for kind, x, _ in o.writes if kind == "no grad"]
        rewritten = {id(t) for t, _, _ in self.written}
        self.may_free = {k for k, (kind, x) in enumerate(o.sources) if kind == "tensor" and id(x) in rewritten}
        self.donors: list[int] = []
        self.elsewhere = self.written  # what does not land in its old memory when all is given away

    def __call__(self, args: tuple[Any, ...]) -> Any:
        """The function's result, or MISS."""
        if recorder.state.grad is not self.grad or bool(recorder.CASTS) is not self.casts \
                or dtypes.get_default_dtype() is not self.dtype:
            return MISS
        bindings = self.bindings(args)
        if bindings is None:
            return MISS
        try:
            free = [k for k in self.donors if is_unheld(bindings[k], _NO_WRITES)]  # held by its tensor and by bindings
            buffers = self.plan(bindings, free)
        except BaseException as error:
            done = finished(error, self.plan)
            if done is not None:  # Ctrl-C when all was computed
                self.commit(list(done), False)
            elif isinstance(error, Exception):  # the general way computes it again and says what is wrong, at which line
                return MISS
            raise
        return self.commit(buffers, len(free) == len(self.donors))

    def bindings(self, args: tuple[Any, ...]) -> Sequence[Any] | None:
        """What the plan takes, if everything is as it was observed."""
        if len(args) != len(self.shapes):
            return None
        cells: list[Any] = []
        for t, av in zip(args, self.shapes):
            if t.__class__ is not Tensor or t._grad is not None:
                return None
            v, a = t._v, t._alias
            if a is not None and (a.chain or a.detached or a.storage.value is not v or a.version != a.storage.version):
                return None
            if v.aval is not av or v.region is not None or v.__class__ is not Value or v.gfn is not None or v in cells:
                return None
            cells.append(v)
        for t, av, edge, grad in self.tensors:
            v, g = t._v, t._grad
            if v.aval is not av or v.gfn is not edge or v.region is not None or v.__class__ is not Value \
                    or t._alias is not None or edge is not None and (edge.hooks or edge.post_hooks):
                return None
            if (g is not None) if grad is None else (g is None or g._v.aval is not grad or g._alias is not None):
                return None
            cells.append(v)
        if self.watch.changed() or [g._seed for g in self.generators] != self.seeds or not self.planned():
            return None
        cells += self.seen.constants
        cells += self.numbers if self.constants else self.variant.scalars()
        return self.cells(cells)

    def planned(self) -> bool:
        """Whether the plan exists (the general way makes it)."""
        if self.plan is None:
            self.plan = recorder.known_plan(self.seen.end, self.signature)
            if self.plan is None:
                return False
            self.donors = [k for k in self.plan.donors if k in self.may_free]
            home = {id(x): k for k, (kind, x) in enumerate(self.seen.sources) if kind == "tensor"}
            program = self.plan.run
            if self.donors:
                self.elsewhere = [(t, k, edge) for t, k, edge in self.written
                                  if program.donor_of.get(program.outputs[k], -1) != home.get(id(t))]
        return True

    def commit(self, buffers: list[Any], all_free: bool) -> Any:
        """Put the results where the function puts them; its result. ``all_free``: all that might be overwritten was."""
        o = self.seen
        for t, k, edge in self.elsewhere if all_free else self.written:
            buffer = buffers[k]
            if t._v.buffer is not buffer:
                t._v = _made(t._v.aval, buffer, edge)
        for t, k, edge in self.grads:
            g = t._grad
            if g is not None and _count(g) == _TENSOR and g._alias is None and _count(g._v) == _VALUE and g._v.gfn is edge:
                g._v.buffer = buffers[k]  # nobody else has seen the old gradient
            else:
                t._grad = wrap(_made(o.live[k][1], buffers[k], edge))
        for t in self.dropped:
            t._grad = None
        for t in o.steps:
            t._v = leaf_value(t._v.aval, np.array(step_of(t) + 1, t._v.aval.dtype.np))
        if self.moved:
            for g, n in zip(self.generators, o.moved):
                g._offset = (g._offset + n) & _MASK
        return self.result(o.template, buffers)

    def result(self, x: Any, buffers: list[Any]) -> Any:
        """The function's result from its outline."""
        kind = x[0]
        if kind == "new":
            _, av, edge = self.seen.live[x[1]]
            return wrap(_made(av, buffers[x[1]], edge))
        return x[2] if kind == "same" else kind([self.result(e, buffers) for e in x[1:]])


def _made(av: Any, buffer: Any, edge: Any) -> Value:
    v = Value(av, None, -1)
    v.buffer, v.gfn = buffer, edge
    return v


def _counts() -> tuple[int, int]:
    """Reference counts :meth:`Shortcut.commit` sees of a gradient and its Value that nobody else holds (they differ between
    Python versions)."""
    tensor = wrap(leaf_value(recorder.scalar_aval(dtypes.float64), np.zeros(())))
    tensor._grad = wrap(leaf_value(recorder.scalar_aval(dtypes.float64), np.zeros(())))
    g = tensor._grad
    return _count(g), _count(g._v)


_TENSOR, _VALUE = _counts()


def shortcut(variant: Variant) -> Shortcut | None:
    """The shortest way to run a variant, or None where only the general way will do."""
    o = variant.seen
    plain_args = o.arguments.outline == (tuple, (tuple, *[("t", Tensor)] * len(o.arguments.shapes)), ("d",))
    fresh = all(s[1:3] == (i, i) and s[3] in (None, (i, (), False, s[0])) for i, s in enumerate(o.arguments.shapes))
    one = all(o.sources[n] == ("arg storage", i) and more == [("arg", i)] for n, more in o.shared for _, i in more)
    if not plain_args or not fresh or not one or o.handles or any(kind not in _SOURCES for kind, _ in o.sources):
        return None
    if any(kind not in _WRITES for kind, _, _ in o.writes) or any(s[0] is not None or s[4] for _, s in variant.tensors):
        return None
    return Shortcut(variant) if _simple(o.template) else None


def _simple(x: Any) -> bool:
    """Whether a result consists of new tensors and constants."""
    todo = [x]
    while todo:
        x = todo.pop()
        if x[0] in (list, tuple):
            todo += x[1:]
        elif x[0] not in ("new", "same"):
            return False
    return True
