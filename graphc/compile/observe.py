"""One call of a function in replay mode, taken down: what it could see before, what it read, wrote, returned and drew.

Everything an :class:`Observation` says is about places (tensors, storages, gradients, arguments, returned values), never about
data, so that the same can be done again with other data. :class:`Unfit` says why a call can't be repeated without its Python.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..ir.node import Node, Value
from ..ir.recorder import SCALAR, Region, drop_dead_writes, region_graph
from ..ir.tape import AccumulateGrad, GradNode
from ..tensor import Tensor
from ..views import Storage
from .scene import RATE, Scene, first_change, modes

_SMALL = 4096  # elements of a constant made inside the function
_MASK = (1 << 64) - 1


class Unfit(Exception):
    """This call can't be replayed; the message says why."""


# ----------------------------------------------------------------------------------------------------------------- arguments
def flatten(x: Any, tensors: list[Tensor], others: list[Any]) -> Any:
    """A hashable outline of nested arguments; tensors and other objects are appended to the lists."""
    if isinstance(x, Tensor):
        tensors.append(x)
        return ("t", type(x))
    if x.__class__ in (list, tuple):
        return (x.__class__, *[flatten(e, tensors, others) for e in x])
    if x.__class__ is dict:
        return ("d", *[(k, flatten(e, tensors, others)) for k, e in x.items()])
    if x is None or isinstance(x, (bool, int, float, complex, str)):
        return (x.__class__, repr(x))
    others.append(x)
    return ("o", id(x))


def relations(args: list[Tensor]) -> Any:
    """Shapes of argument tensors, and which of them share values or storages with one another. Unfit for arguments that carry
    gradients or are views not yet read."""
    out: list[Any] = []
    first: dict[int, int] = {}
    for i, t in enumerate(args):
        a, v = t._alias, t._v
        if v.gfn is not None or t.grad is not None:
            raise Unfit("an argument that takes part in differentiation")
        if v.region is not None or v.__class__ is not Value:
            raise Unfit("an argument that NumPy shares or that is not evaluated")
        home: Any = None
        if a is not None:
            if a.version != a.storage.version or a.storage.value.region is not None:
                raise Unfit("an argument that is a view of something written since")
            home = first.setdefault(id(a.storage), i), a.chain, a.detached, a.storage.value.aval
        out.append((v.aval, first.setdefault(id(t), i), first.setdefault(id(v), i), home))
    return tuple(out)


class Arguments:
    """The arguments of one call, taken apart."""

    __slots__ = ("tensors", "others", "outline", "shapes")

    def __init__(self, args: Any, kwargs: Any):
        self.tensors: list[Tensor] = []
        self.others: list[Any] = []
        self.outline = flatten((args, kwargs), self.tensors, self.others)
        self.shapes = relations(self.tensors)


# ------------------------------------------------------------------------------------------------------------------- numbers
class Rates:
    """Numbers that optimizers compute from a group's learning rate and step count, by the formulas of ``ops/optim_steps``."""

    FORMULAS: dict[str, Callable[[dict[str, Any], float], float]] = {
        "lr": lambda g, t: g["lr"],
        "adam lr": lambda g, t: g["lr"] / (1 - g["betas"][0] ** t),
        "bias 2": lambda g, t: (1 - g["betas"][1] ** t) ** 0.5,
        "decay": lambda g, t: 1.0 - g["lr"] * g["weight_decay"],
    }

    @staticmethod
    def value(name: str, group: dict[str, Any], t: float) -> float | None:
        try:
            out = Rates.FORMULAS[name](group, t)
        except (KeyError, TypeError, ZeroDivisionError):
            return None
        return out if isinstance(out, float) else None


def step_of(t: Tensor) -> float:
    """The number in a host scalar."""
    return float(t._v.buffer)


def _candidates(scene: Scene, offsets: list[int], steps: list[Tensor], counts: list[float]) -> dict[Any, float]:
    """Every number a scalar could come from, at this call: (kind, ...) -> value."""
    out: dict[Any, float] = {}
    for k, n in enumerate(offsets):
        out["rng", k] = n
    groups = [g for o in scene.optimizers for g in o.param_groups]
    owners = {id(t): k for k, t in enumerate(steps)}
    for gi, group in enumerate(groups):
        found = {owners[id(x)] for o in scene.optimizers for p in group["params"] if p in o.state
                 for x in o.state[p].values() if id(x) in owners}
        for name in Rates.FORMULAS:
            for k in found or {-1}:
                x = Rates.value(name, group, counts[k] + 1 if k >= 0 else 1)
                if x is not None:
                    out[name, gi, k] = x
    return out


# --------------------------------------------------------------------------------------------------------------- observation
class Observation:
    """One call of the function with its Python: state before, and what it did."""

    def __init__(self, fn: Any, arguments: Arguments):
        self.arguments, self.modes, self.complete = arguments, modes(), False
        self.slots: tuple[int, ...] | None = None  # live slots once the call has run
        self.index: dict[int, int] = {}  # id of a live Value -> its number
        self.scene = Scene([fn, *arguments.others])
        self.known = {id(t): t for t in self.scene.tensors}
        self.before: list[tuple[Value, Value | None]] = []  # per visible tensor: its value and its gradient's
        self.origin: dict[int, list[Any]] = {}  # id of a Value, or of its buffer -> every place that holds it
        self.grads: list[Tensor | None] = []
        self.pinned: list[Value] = []
        for t in self.scene.tensors:
            self._tensor(t)
        for i, t in enumerate(arguments.tensors):
            if id(t) in self.known:
                raise Unfit("an argument that the function also reaches otherwise")
            if t._alias is not None:
                if any(t._alias.storage is s._alias.storage for s in self.scene.tensors if s._alias is not None):
                    raise Unfit("an argument that shares memory with what the function reaches otherwise")
                self._place(t._alias.storage.value, "arg storage", i)
            self._place(t._v, "arg", i)
        self.offsets = [g._offset for g in self.scene.generators]
        self.seeds = [g._seed for g in self.scene.generators]
        self.values = [t._v for t in arguments.tensors]

    def _tensor(self, t: Tensor) -> None:
        a, g = t._alias, t.grad
        v = t._v if a is None else a.storage.value
        if v.gfn is not None and v.gfn.__class__ is not AccumulateGrad:
            raise Unfit("a tensor with a history outside the call")
        if v.__class__ is not Value or v.region is not None:
            raise Unfit("a tensor that NumPy shares or that is not evaluated")
        self.before.append((v, None if g is None else g._v))
        self.grads.append(g)
        if a is None:
            self._place(v, "tensor", t)
        else:
            self._place(v, "storage", a.storage)
            if a.version == a.storage.version and t._v is not v:
                self._place(t._v, "view", t)
        if g is not None:
            self._place(g._v, "grad" if g._alias is None else "gradient seen through a view", t)

    def _place(self, v: Value, kind: str, x: Any) -> None:
        if v.__class__ is not Value or v.region is not None:  # say, a gradient another thread has changed but not computed
            raise Unfit("a tensor that NumPy shares or that is not evaluated")
        self.pinned.append(v)  # so that no id is given anew while the call runs
        for key in (id(v), id(v.buffer)):  # by its buffer: another handle on the same data
            places = self.origin.setdefault(key, [])
            if not any(k == kind and y is x for k, y in places):
                places.append((kind, x))

    # ------------------------------------------------------------------------------------------------- after the Python ran
    def finish(self, reg: Region, out: Any, args: Any, kwargs: Any) -> None:
        """Take down what the call did. Unfit if it did anything that can't be repeated without Python."""
        drop_dead_writes(reg)
        self._program(reg)
        again: tuple[list[Any], list[Any]] = ([], [])
        if flatten((args, kwargs), *again) != self.arguments.outline or [id(t) for t in again[0]] != \
                [id(t) for t in self.arguments.tensors]:
            raise Unfit("it changes the containers it is given")
        where = first_change(self.scene.guards, frozenset())
        if where:
            raise Unfit(f"it changes {where}")
        live = self._live(reg)
        self.plain: set[int] = set()  # values that go nowhere when replayed: their tensors give up their history
        self.claimed: set[int] = set()
        self.writes: list[tuple[str, Any, int]] = []
        self.steps: list[Tensor] = []
        self.counts: list[float] = []
        done: set[int] = set()
        for t, (old, _), had in zip(self.scene.tensors, self.before, self.grads):
            self._written(t, old, done)
            self._gradient(t, had)
        for i, t in enumerate(self.arguments.tensors):
            self._argument(i, t)
        homes: set[int] = set()
        self.template = self._outline(out, homes)
        self.live = [(v.slot, v.aval, None if k in self.plain else _edge(v)) for k, v in enumerate(live)]
        missing = [v for v in live if self.index[id(v)] not in self.claimed]
        if missing:
            raise Unfit(f"it leaves a value of shape {list(missing[0].aval.shape)} somewhere that was not found")
        self.moved = [(g._offset - at) & _MASK for g, at in zip(self.scene.generators, self.offsets)]
        if [g._seed for g in self.scene.generators] != self.seeds:
            raise Unfit("it seeds a generator")
        self._bindings(reg)
        self.rates = {id(g[1]): g[3] for g in self.scene.guards if g[0] == RATE}
        self.candidates = _candidates(self.scene, self.offsets, self.steps, self.counts)
        self.complete = True
        self.before, self.grads, self.values, self.pinned = [], [], [], []  # hold no data of this call
        self.index, self.origin = {}, {}
        self.arguments.tensors = []

    def _live(self, reg: Region) -> list[Value]:
        live = [v for r in reg.live if (v := r()) is not None and v.region is reg]
        self.index = {id(v): k for k, v in enumerate(live)}
        return live

    def _program(self, reg: Region) -> None:
        """What was recorded, whether it can be replayed or not."""
        self.end: Node = reg.cursor
        self.slots = tuple([v.slot for v in self._live(reg)])
        self.inputs = region_graph(reg.cursor, ()).inputs
        self.numbers = [b for node, b in zip(self.inputs, reg.bindings) if node.op is SCALAR]

    def _let_go(self, v: Value) -> None:
        """Claim a value that only a detached result still refers to, and what its history keeps."""
        values, done = [v], set()
        nodes: list[Any] = []
        while values or nodes:
            if values:
                v = values.pop()
                k = self.index.get(id(v), -1)
                if k >= 0 and k not in self.claimed:
                    self.claimed.add(k)
                    self.plain.add(k)
                nodes.append(getattr(v.gfn, "gn", v.gfn))
                continue
            gn = nodes.pop()
            if isinstance(gn, GradNode) and gn not in done:
                done.add(gn)
                saved = [*(gn.ins or ()), *(gn.out if isinstance(gn.out, tuple) else (gn.out,))]
                values += [s for s in saved if s is not None]
                nodes += [getattr(e, "gn", e) for e in gn.edges or ()]

    def _claim(self, v: Value) -> int:
        k = self.index.get(id(v), -1)
        if k < 0:
            raise Unfit("it stores a value that was computed elsewhere")
        self.claimed.add(k)
        return k

    def _written(self, t: Tensor, old: Value, done: set[int]) -> None:
        a = t._alias
        cell: Any = t if a is None else a.storage
        new = t._v if a is None else a.storage.value
        if new is not old and id(cell) not in done:
            done.add(id(cell))
            if new.aval is not old.aval:
                raise Unfit("it replaces a tensor by one of another shape")
            if new.region is None and a is None and not new.aval.shape and new.aval.dtype.is_floating_point and \
                    old.region is None and float(new.buffer) == float(old.buffer) + 1:
                self.steps.append(t)
                self.counts.append(float(old.buffer))
            else:
                self.writes.append(("tensor" if a is None else "storage", cell, self._claim(new)))
        if a is not None and id(t._v) in self.index:
            if a.version != a.storage.version:
                raise Unfit("it leaves a view that was read before its last write")
            self.writes.append(("view", t, self._claim(t._v)))

    def _gradient(self, t: Tensor, had: Tensor | None) -> None:
        g = t.grad
        if g is None:
            if had is not None:
                self.writes.append(("no grad", t, -1))
            return
        if g._alias is not None:
            raise Unfit("a gradient that is a view")
        if id(g._v) in self.index:
            self.writes.append(("grad" if g is had else "new grad", t, self._claim(g._v)))
        elif g is not had:
            raise Unfit("a gradient that was computed elsewhere")

    def _argument(self, i: int, t: Tensor) -> None:
        a, v = t._alias, self.values[i]
        if t._v is v and (a is None or a.version == a.storage.version):
            return
        if a is not None:
            raise Unfit("it writes into an argument that is a view")
        self.writes.append(("arg", i, self._claim(t._v)))

    def _outline(self, x: Any, homes: set[int]) -> Any:
        """The returned value with places instead of tensors."""
        if isinstance(x, Tensor):
            for i, t in enumerate(self.arguments.tensors):
                if t is x:
                    return ("arg", i)
            if id(x) in self.known:
                return ("visible", x)
            if type(x) is not Tensor or x.__dict__ or x.grad is not None:
                raise Unfit("it returns a tensor with attributes of its own")
            a = x._alias
            if a is not None:
                written = any(a.storage is s for k, s, _ in self.writes if k == "storage")
                if id(a.storage) in homes or a.chain or a.storage.__class__ is not Storage or written or \
                        a.version != a.storage.version:
                    raise Unfit("it returns a view")
                homes.add(id(a.storage))
                if a.storage.value is not x._v:
                    self._let_go(a.storage.value)
            return ("new", self._claim(x._v))
        if x.__class__ in (list, tuple):
            return (x.__class__, *[self._outline(e, homes) for e in x])
        if x.__class__ is dict:
            return ("dict", *[(k, self._outline(e, homes)) for k, e in x.items()])
        if x is None or isinstance(x, (bool, int, float, str)):
            return ("same", x.__class__, x)
        raise Unfit(f"it returns an object of type {type(x).__name__}")

    def _bindings(self, reg: Region) -> None:
        """Where every leaf comes from, and the numbers."""
        self.sources: list[Any] = []
        self.constants: list[Value] = []
        self.shared: list[tuple[int, list[Any]]] = []
        self.handles: set[int] = set()  # leaves that are a second handle on the data of the place
        count = 0
        for node, b in zip(self.inputs, reg.bindings):
            if node.op is SCALAR:
                self.sources.append(("number", count))
                count += 1
                continue
            places = self.origin.get(id(b))
            if places is None:
                places = self.origin.get(id(b.buffer))
                if places is not None:
                    self.handles.add(len(self.sources))
            if places is None:
                if b.__class__ is not Value or b.aval.size > _SMALL or b.buffer.base is not None:
                    raise Unfit("it reads a value it makes from Python data")
                places = [("constant", len(self.constants))]
                self.constants.append(b)
            elif places[0][0] == "gradient seen through a view":
                raise Unfit("a gradient seen through a view")
            self.sources.append(places[0])
            if len(places) > 1:  # one leaf for all of them, so they must still be one when replayed
                self.shared.append((len(self.sources) - 1, places[1:]))

    def key(self) -> Any:
        """Equal for calls that did the same to the same objects."""
        def name(x: Any) -> Any:
            return x if isinstance(x, (int, str)) else id(x)

        return (self.end, tuple([(s, a) for s, a, _ in self.live]), tuple([(k, name(x), n) for k, x, n in self.writes]),
                named(self.template), tuple([(k, name(x)) for k, x in self.sources]),
                tuple([(n, tuple([(k, name(x)) for k, x in more])) for n, more in self.shared]),
                tuple(sorted(self.handles)), tuple(map(id, self.steps)),
                tuple(self.moved), self.modes, self.arguments.outline, self.arguments.shapes)


def _edge(v: Value) -> Any:
    """What a replayed value may carry as gradient edge."""
    gfn = v.gfn
    gn = getattr(gfn, "gn", gfn)
    if isinstance(gn, GradNode) and not gn.released:
        raise Unfit("it leaves a tensor whose history can still be differentiated")
    return gfn


def named(x: Any) -> Any:
    """A template with ids instead of tensors."""
    if isinstance(x, tuple):
        return tuple([named(e) for e in x])
    return id(x) if isinstance(x, Tensor) else x
