"""Storage and views: where mutation lives.

Values are immutable. A :class:`Storage` is a mutable cell holding the current Value of a whole allocation; an
:class:`Alias` says which part of it a tensor shows, as a chain of movement ops. Reading replays the chain when the
storage has changed since; writing undoes the chain: reshape and permute are inverted, a slice is written into the value
before it. Earlier reads keep earlier Values, so a write never corrupts them or a pending backward.

Programs whose slices are other ones in every run would be other programs in every run. So outside compiled functions slices
of evaluated Values are taken in memory (:func:`~graphc.view_steps.part`), and parts are overwritten in memory that nobody
else holds (:func:`overwrite`).
"""
from __future__ import annotations

import sys
import threading
import weakref
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .device import CPU
from .dtypes import int64
from .errors import ShapeError
from .ir import build as P
from .ir.node import PoisonedValue, SharedValue, Value, aval, leaf_value
from .ir.optable import OPS
from .ir.recorder import apply, evaluated, flush, is_exported, scalar_buffer, state
from .ir.tape import AccumulateGrad, alias_value
from .view_steps import STRIDED, ViewStep, geometry, is_part, np_view, part, positions

if TYPE_CHECKING:
    from .tensor import Tensor


_GONE = weakref.ref(Value(aval((), int64, CPU), None, -1))


class Storage:
    """A mutable cell shared by a base tensor (``owner``, if it is known) and its views. ``version`` counts writes, ``places``
    how often one went to another part than the last."""

    __slots__ = ("value", "version", "owner", "place", "places", "__weakref__")

    def __init__(self, value: Value, owner: Tensor | None = None):
        self.value = value
        self.version = self.places = 0
        self.owner: Any = _GONE if owner is None else weakref.ref(owner)
        self.place: Any = None

    def restore(self, old: Value) -> None:
        """Undo writes if the computation of the present value failed."""
        if self.value.__class__ is PoisonedValue:
            self.value = old
            self.version += 1


REPEATING = 1 << 20  # bytes; larger views may be ones that only repeat a storage


class Alias:
    """How a tensor looks at a storage. ``detached`` aliases never carry gradient; ``leaf`` is the AccumulateGrad of a
    view that was itself made a leaf, which the first ``depth`` steps of the chain show: further steps are views of it."""

    __slots__ = ("storage", "chain", "version", "detached", "leaf", "depth")

    def __init__(self, storage: Storage, chain: tuple[ViewStep, ...], detached: bool):
        self.storage, self.chain, self.detached = storage, chain, detached
        self.version = storage.version
        self.leaf: AccumulateGrad | None = None
        self.depth = len(chain)

    def geometry(self) -> tuple[tuple[int, ...], int]:
        """(strides in elements, offset) within the contiguous base."""
        return geometry(self.storage.value.aval.shape, self.chain)

    def refresh(self) -> Value:
        """The tensor's current Value, replayed from the storage: with the history it has had from the start, whatever the
        mode of whoever reads it first."""
        v, chain = self.storage.value, self.chain
        grad = state.grad
        try:
            if self.detached or self.leaf is not None:
                if v.gfn is not None:
                    v = alias_value(v)
                state.grad = False
                v = replay(v, chain if self.leaf is None else chain[:self.depth])
                chain = chain[self.depth:] if self.leaf is not None else ()
                if self.leaf is not None:
                    v = alias_value(v)
                    v.gfn = self.leaf
            state.grad = True
            v = replay(v, chain)
        finally:
            state.grad = grad
        # what shows shared memory is read anew every time, also the first time after nobody shares it any more
        self.version = -1 if self.storage.value.__class__ is SharedValue else self.storage.version
        if v.aval.nbytes > REPEATING:
            self.keep_no_result(v)
        return v

    def keep_no_result(self, v: Value) -> None:
        """A view that repeats its storage many times over (``expand``) is no result of a region, though a tensor holds it: it
        would fill memory that nobody asked for. It is made anew wherever it is used."""
        live = state.region.live
        last = len(live) - 1
        if v.aval.size >= 8 * max(1, self.storage.value.aval.size) and live and live[last]() is v:
            live[last] = _GONE  # (nothing is popped: the end of some object may record meanwhile)
            self.version = -1


def is_alone(a: Alias) -> bool:
    """Whether one tensor is all that looks at a storage, and looks at all of it. To be asked with a tensor's attribute."""
    return not a.chain and a.storage.__class__ is Storage and (sys.getrefcount(a), sys.getrefcount(a.storage)) == _ALONE


def _alone() -> tuple[int, int]:
    """Reference counts :func:`is_alone` sees then (they differ between Python versions)."""
    class Holder:
        alias = Alias(Storage(leaf_value(aval((), int64, CPU), None)), (), False)

    def seen(a: Alias) -> tuple[int, int]:
        return sys.getrefcount(a), sys.getrefcount(a.storage)

    return seen(Holder.alias)


_ALONE = _alone()


def replay(v: Value, chain: tuple[ViewStep, ...]) -> Value:
    """Apply a chain of movement ops."""
    if chain and chain[0][0] == "slice" and v.region is None and (found := part(v, chain)) is not None:
        return found
    for name, attrs in chain:
        v = P.take(P.reshape(v, (v.aval.size,)), _positions(attrs, v), 0) if name == STRIDED else apply(OPS[name], (v,), attrs)
    return v


def _by_places(base: Value, chain: tuple[ViewStep, ...], new: Value) -> Value:
    """:func:`put_back` where no step by itself can be undone: element by element, if none is shown twice."""
    shape, n = base.aval.shape, new.aval.size
    at: np.ndarray = np.arange(base.aval.size, dtype=np.int64).reshape(shape)
    known = n <= at.size and not any(name == "bitcast" for name, _ in chain)
    for name, attrs in chain if known else ():
        at = at.reshape(-1)[positions(*attrs)] if name == STRIDED else OPS[name].eval_np(attrs, at)  # type: ignore[attr-defined]
    at = np.ascontiguousarray(at).reshape(-1)
    if not known or len(np.unique(at)) != n:
        raise ShapeError("unsupported operation: more than one element of the written-to tensor refers to a single "
                         "memory location. Please clone() the tensor before performing the operation.")
    index = P.to_device(leaf_value(aval((n,), int64, CPU), at), base.aval.device)
    return P.reshape(P.take_put(P.reshape(base, (base.aval.size,)), index, P.reshape(new, (n,)), 0, "set"), shape)


def _positions(attrs: Any, beside: Value) -> Value:
    at = positions(*attrs)
    return P.to_device(leaf_value(aval(at.shape, int64, CPU), at), beside.aval.device)


def put_back(base: Value, chain: tuple[ViewStep, ...], new: Value) -> Value:
    """``base`` with the part ``chain`` shows replaced by ``new``."""
    befores, whole = [base], new
    for name, attrs in chain[:-1]:
        befores.append(replay(befores[-1], ((name, attrs),)))
    for (name, attrs), before in zip(reversed(chain), reversed(befores)):
        shape = before.aval.shape
        if name == "reshape":
            new = P.reshape(new, shape)
        elif name == "permute":
            perm = attrs[0]
            inverse = [0] * len(perm)
            for i, p in enumerate(perm):
                inverse[p] = i
            new = P.permute(new, tuple(inverse))
        elif name == "slice":
            new = new if new.aval.shape == shape and all(s == 1 for s in attrs[2]) else P.slice_set(before, new, *attrs)
        elif name == "bitcast":
            new = apply(OPS["bitcast"], (new,), (before.aval.dtype,))
        elif name == "expand" and new.aval.size == before.aval.size:
            new = P.reshape(new, shape)
        else:
            return _by_places(base, chain, whole)
    return new


MANY_PLACES = 8  # written to before a loop over the elements of a storage is taken for one
_PLACING = {"slice", "reshape", "permute"}


def overwrite(t: Tensor, x: Value | float) -> bool:
    """Write a value or a number into the part of a storage that a view shows, in memory and at once; False where that must be
    recorded. So a loop that fills its results in is not another program at every index. What is pending is recorded first and
    often the same in every run: it is computed for that only when the places change all the time."""
    a = t._alias
    if a is None or not a.chain:
        return False
    s = a.storage
    if state.hold or state.tracing or state.watch is not None or s.__class__ is not Storage or not _places(a.chain):
        return False
    if t._v.gfn is not None or t._v.aval.device is not CPU:
        return False
    if state.grad and (a.leaf is not None or s.value.gfn is not None and not a.detached):
        return False
    if a.chain != s.place:
        s.place, s.places = a.chain, s.places + 1
    if isinstance(x, Value):
        if x.gfn is not None and state.grad or s.places < MANY_PLACES and (x.region or s.value.region) is not None:
            return False
        data = evaluated(x)
    else:
        data = scalar_buffer(x, s.value.aval.dtype)
    evaluated(s.value)
    t._v, a.version = Value(t._v.aval, None, -1), -1  # holds no memory, and is made anew when it is read
    if _written(s, a.chain, data):
        return True
    if s.places >= MANY_PLACES and state.region.cursor.op is not None:
        flush()
        return _written(s, a.chain, data)
    return False


_writing = threading.RLock()  # threads may write to different rows


def _written(s: Storage, chain: tuple[ViewStep, ...], data: Any) -> bool:
    """Write into memory of an evaluated storage that nobody else sees, if there is such, now."""
    with _writing:
        target = None if s.value.region is not None else _own_memory(s)
        if target is None:
            return False
        for step in chain:
            target = np_view(target, *step)
        target[...] = data
        s.version += 1
        owner = s.owner()
        if owner is not None and owner._v is s.value:
            owner._alias.version = s.version
        return True


@lru_cache(4096)
def _places(chain: tuple[ViewStep, ...]) -> bool:
    """Whether a chain shows a part of a storage, each element once."""
    names = {name for name, _ in chain}
    return "slice" in names and names <= _PLACING


def _own_memory(s: Storage) -> np.ndarray | None:
    """The array of an evaluated storage, which then nobody else sees: a copy, if somebody held it. None if something pending
    may do so."""
    old, owner = s.value, s.owner()
    if old.buffer.__class__ is not np.ndarray:
        return None
    if old.__class__ is SharedValue and is_exported(old):
        return old.buffer if old.buffer.flags.writeable else None
    array = old.buffer
    s.value = new = leaf_value(old.aval, array)
    new.gfn = old.gfn
    if owner is not None and owner._v is old and owner._alias is not None and owner._alias.storage is s:
        owner._v = new
    del old, owner
    if sys.getrefcount(array) != _OWN and state.region.cursor.op is not None:
        return None
    if sys.getrefcount(array) != _OWN or array.base.__class__ is np.ndarray or not array.flags.writeable:
        new.buffer = array = array.copy()
    return array


def _own() -> int:
    """The reference count :func:`_own_memory` sees of an array that only one value holds besides its own variable."""
    new = leaf_value(aval((0,), int64, CPU), np.empty(0, np.int64))
    array = new.buffer
    return sys.getrefcount(array)


_OWN = _own()


def inherit(old: Value, new: Value, view: bool) -> Value:
    """``new`` as the successor of ``old`` in a cell: decides what gradient edge it carries."""
    if state.grad:
        if old.gfn.__class__ is AccumulateGrad:
            what = "a view of a leaf Variable" if view else "a leaf Variable"
            from .errors import AutogradError

            raise AutogradError(f"{what} that requires grad is being used in an in-place operation.")
        return new
    if new.gfn is not old.gfn:
        new = alias_value(new)
        new.gfn = old.gfn
    return new


def settle(old: Value, new: Value) -> Value:
    """When the outside holds ``old``'s buffer, write ``new`` into that buffer at once so that both keep agreeing."""
    if old.__class__ is not SharedValue or not is_exported(old):
        return new
    gfn = new.gfn
    data = evaluated(new)
    if isinstance(data, np.ndarray):
        old.buffer[...] = data
    else:
        old.buffer.overwrite(data)
    out = alias_value(old)
    out.gfn = gfn
    return out


def private_alias(v: Value) -> Value:
    """Another handle on the same result that no write from outside can reach, without gradient edge."""
    out = alias_value(v)
    if out.region is None and out.__class__ is Value and is_part(out.buffer):
        out.buffer = out.buffer.copy()  # not to hold all it lies in
    if out.__class__ is SharedValue:
        out.__class__ = Value  # type: ignore[assignment]
        if is_exported(v):
            out.buffer = v.buffer.copy()
    return out


def log_write(holder: Any, old: Value) -> None:
    """Remember ``old`` so that a failing flush can put it back."""
    reg = state.region
    if old.region is not reg:
        reg.writes.append((holder, old))
