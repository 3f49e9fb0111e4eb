"""What a function can see: a walk over its arguments, closure, globals, modules and optimizers, and guards on all of it.

``mode="replay"`` skips a function's Python. That is allowed only while nothing the Python could have looked at has changed,
so :class:`Scene` walks everything reachable from the function's code: cells, defaults, globals it names, attributes,
containers, methods of the program's own classes. What it can't look into (iterators, files, random.Random, foreign extension
objects, modules with hidden state, ``print``) makes the function not replayable, with a reason. The code of graphc itself is
trusted.
"""
from __future__ import annotations

import builtins
import enum
import functools
import inspect
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from ..device import device
from ..dtypes import dtype
from ..ir import recorder
from ..ir.node import Aval
from ..ops._generator import Generator, default_generator
from ..optim.optimizer import Optimizer
from ..tensor import Tensor

ITEM, VALUE, CELL, CELL_VALUE, LENGTH, RATE, EMPTY = range(7)
_PLAIN = (bool, int, float, complex, str, bytes, type(None), enum.Enum, dtype, device, slice, type(Ellipsis),
          type(NotImplemented))
_OPEN_MODULES = frozenset(("math", "cmath", "operator", "functools", "typing", "collections", "collections.abc", "enum",
                           "dataclasses", "abc", "__future__", "builtins", "contextlib"))
# what modules and optimizers mostly keep empty: one guard says that it still is
_REGISTRIES = frozenset(("_parameters", "_buffers", "_modules", "_backward_pre_hooks", "_backward_hooks", "_forward_hooks",
                         "_forward_pre_hooks", "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"))
# what they read only beside a hook, or for a state dict
_LATENT = frozenset(("_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs",
                     "_is_full_backward_hook", "_non_persistent_buffers_set", "_state_dict_hooks", "_state_dict_pre_hooks",
                     "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks", "_optimizer_state_dict_pre_hooks",
                     "_optimizer_state_dict_post_hooks", "_optimizer_load_state_dict_pre_hooks",
                     "_optimizer_load_state_dict_post_hooks"))
_STATE_DICTS = frozenset(("state_dict", "load_state_dict"))
_RUN = frozenset(("__call__", "__getattr__", "__getattribute__", "__iter__", "__len__", "__getitem__", "__enter__", "__exit__"))
_MOST = 50_000  # guards; checking more would take longer than the Python it saves
_STATELESS = frozenset(("builtins", "typing", "abc", "enum", "collections", "collections.abc", "dataclasses"))
_EFFECTS = frozenset(("print", "input", "open", "exec", "eval", "globals", "locals", "vars", "breakpoint", "id", "next", "iter",
                      "setattr", "delattr", "__import__"))


class Hidden(Exception):
    """Something the function uses can't be looked into; the message says what."""


def ours(name: Any) -> bool:
    """Whether a module name is graphc's own."""
    return isinstance(name, str) and (name == "graphc" or name.startswith("graphc."))


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and those nested in it."""
    todo = [code]
    while todo:
        c = todo.pop()
        yield c
        todo.extend(x for x in c.co_consts if isinstance(x, types.CodeType))


class Scene:
    """Everything reachable from ``roots`` at this moment. Raises :class:`Hidden` for what can't be guarded."""

    def __init__(self, roots: list[Any]):
        self.guards: list[tuple[int, Any, Any, Any]] = []
        self.tensors: list[Tensor] = []
        self.generators: list[Generator] = [default_generator]
        self.optimizers: list[Optimizer] = []
        self.names: set[str] = set()  # every name and string the program's own code mentions
        self._seen: set[Any] = {id(default_generator)}
        self._kept: list[Any] = list(roots)  # ids stay taken while the scene lives
        self._todo: list[Any] = list(roots)
        self._latent: list[tuple[Any, str]] = []
        self._walk()
        if self.names & {"defaults", "add_param_group"}:
            self._todo += [opt.defaults for opt in self.optimizers]
            self._walk()
        if self.names & _STATE_DICTS:
            self.guards += [(EMPTY, x, k, None) for x, k in self._latent]
        self.states = [_tensor_state(t) for t in self.tensors]

    # ------------------------------------------------------------------------------------------------------------ walking
    def _walk(self) -> None:
        while self._todo:
            self._visit(self._todo.pop())
            if len(self.guards) > _MOST:
                raise Hidden(f"more than {_MOST} places that may change")

    def _entry(self, kind: int, container: Any, key: Any, x: Any) -> None:
        """Guard one place and walk on from what it holds."""
        if isinstance(x, _PLAIN):
            self.guards.append((kind + 1 if kind in (ITEM, CELL) else kind, container, key, x))
        elif isinstance(x, (types.MethodType, types.BuiltinMethodType)):
            self.guards.append((kind + 1, container, key, x))  # a bound method is made anew, but equal
            self._push(x)
        else:
            self.guards.append((kind, container, key, x))
            self._push(x)

    def _push(self, x: Any) -> None:
        if not isinstance(x, _PLAIN) and id(x) not in self._seen:
            self._seen.add(id(x))
            self._kept.append(x)
            self._todo.append(x)

    def _visit(self, x: Any) -> None:
        if isinstance(x, Tensor):
            if _hooked(x._v.gfn):
                raise Hidden("a tensor with hooks on its gradient")
            self.tensors.append(x)
            if x.__dict__:
                self._mapping(x.__dict__)
        elif isinstance(x, types.FunctionType):
            self._function(x)
        elif isinstance(x, types.MethodType):
            self._push(x.__func__)
            self._push(x.__self__)
        elif isinstance(x, (list, tuple)):
            self.guards.append((LENGTH, x, None, len(x)))
            for i, e in enumerate(x):
                self._entry(ITEM, x, i, e)
        elif isinstance(x, (dict, types.MappingProxyType)):
            self._mapping(x)
        elif isinstance(x, (set, frozenset)):
            if not all(isinstance(e, _PLAIN) for e in x):
                raise Hidden("a set of objects")
            self.guards.append((LENGTH, x, None, len(x)))
            for e in x:
                self.guards.append((VALUE, _Members(x), e, True))
        elif isinstance(x, type):
            self._class(x, True)
        elif isinstance(x, types.ModuleType):
            self._module(x)
        else:
            self._instance(x)

    def _mapping(self, x: Any) -> None:
        self.guards.append((LENGTH, x, None, len(x)))
        for k, e in x.items():
            if k.__class__ is str and k in _LATENT and not e:
                self._latent.append((x, k))
            elif k.__class__ is str and k in _REGISTRIES and not e:
                self.guards.append((EMPTY, x, k, None))
            else:
                self._entry(ITEM, x, k, e)

    def _function(self, fn: types.FunctionType) -> None:
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or ()):
            try:
                content = cell.cell_contents
            except ValueError:
                raise Hidden(f"variable {name!r}, which has no value yet") from None
            self._entry(CELL, cell, None, content)
        if ours(fn.__globals__.get("__name__")):
            return
        self._push(fn.__defaults__)
        self._push(fn.__kwdefaults__)
        if fn.__dict__:
            self._mapping(fn.__dict__)
        for code in codes(fn.__code__):
            self.names.update(code.co_names, code.co_varnames, [c for c in code.co_consts if isinstance(c, str)])
            if code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR) and \
                    code.co_name != "<genexpr>":
                raise Hidden(f"the generator {code.co_name}")
            for name in code.co_names:
                if name in fn.__globals__:
                    self._entry(ITEM, fn.__globals__, name, fn.__globals__[name])
                elif name in _EFFECTS and hasattr(builtins, name):
                    raise Hidden(f"{name}()")

    def _kind(self, cls: type) -> None:
        """The class of an object."""
        if ("kind", id(cls)) not in self._seen:
            self._seen.add(("kind", id(cls)))
            self._kept.append(cls)
            self._class(cls, False)

    def _class(self, cls: type, calls: bool) -> None:
        """The program's own classes may hold state and code; those of graphc and of Python hold none. ``calls``: whether
        objects may be made of it; an object there already has its ``__init__`` behind it."""
        for c in cls.__mro__:
            if ours(c.__module__) or c.__module__ in _STATELESS:
                continue
            if _foreign(sys.modules.get(c.__module__)):
                raise Hidden(f"an object of type {c.__module__}.{c.__qualname__}")
            self.guards.append((LENGTH, c.__dict__, None, len(c.__dict__)))
            for key, x in c.__dict__.items():
                if key.startswith("__") and key not in _RUN and not (calls and key == "__init__"):
                    continue
                for part in _unwrapped(x):
                    self._entry(ITEM, c.__dict__, key, x) if part is x else self._push(part)

    def _module(self, m: types.ModuleType) -> None:
        if ours(m.__name__) or m.__name__ in _OPEN_MODULES:
            return
        if _foreign(m):
            raise Hidden(f"the module {m.__name__}")
        for name in [n for n in m.__dict__ if n in self.names]:
            self._entry(ITEM, m.__dict__, name, m.__dict__[name])

    def _instance(self, x: Any) -> None:
        cls = type(x)
        if isinstance(x, Generator):
            self.generators.append(x)
            return
        if isinstance(x, weakref.ref):
            target = x()
            self.guards.append((ITEM, _Referent(x), None, target))
            self._push(target)
            return
        if isinstance(x, (types.BuiltinFunctionType, types.WrapperDescriptorType, types.MethodDescriptorType,
                          types.MethodWrapperType, types.GetSetDescriptorType, property, range)):
            owner = getattr(x, "__self__", None)
            if owner is not None and not isinstance(owner, types.ModuleType):
                self._push(owner)
            return
        if isinstance(x, functools.partial):
            for part in (x.func, x.args, x.keywords):
                self._push(part)
            return
        if isinstance(x, Optimizer):
            self._optimizer(x)
            return
        inner = getattr(x, "_fn", None) if ours(cls.__module__) else None
        if inner is not None:  # a compiled function: its figures are no state of the program
            self._push(inner)
            return
        own = getattr(x, "__dict__", None)
        if own is None or any(c.__dict__.get("__slots__") for c in cls.__mro__ if not ours(c.__module__)):
            raise Hidden(f"an object of type {cls.__module__}.{cls.__qualname__}")
        if not ours(cls.__module__):
            self._kind(cls)
        self._mapping(own)

    def _optimizer(self, opt: Optimizer) -> None:
        """As any object, but a learning rate that is a number is guarded apart: a schedule may become an input."""
        self.optimizers.append(opt)
        if not ours(type(opt).__module__):
            self._kind(type(opt))
        for group in opt.param_groups:
            self._seen.add(id(group))
            self.guards.append((LENGTH, group, None, len(group)))
            for k, e in group.items():
                if k == "lr" and type(e) is float:
                    self.guards.append((RATE, group, k, e))
                else:
                    self._entry(ITEM, group, k, e)
        self._seen.add(id(opt.defaults))  # read when a group is added, never by a step
        self._mapping(opt.__dict__)

    # ----------------------------------------------------------------------------------------------------------- guarding
    def changed(self, live: frozenset[int] | None = frozenset()) -> str:
        """What differs from the moment the scene was made, or ''; tensors' values may differ."""
        where = first_change(self.guards, live)
        if where:
            return where
        for t, state in zip(self.tensors, self.states):
            if not same_state(t, state):
                return f"a tensor of shape {list(t._v.aval.shape)}"
        return ""


class _Referent:
    """What a weak reference leads to as an item, for guards."""

    __slots__ = ("of",)

    def __init__(self, of: Any):
        self.of = of

    def __getitem__(self, _: Any) -> Any:
        return self.of()


class _Members:
    """Membership of a set as items, for guards."""

    __slots__ = ("of",)

    def __init__(self, of: Any):
        self.of = of

    def __getitem__(self, e: Any) -> bool:
        return e in self.of


def _foreign(m: Any) -> bool:
    """Whether a module is Python's own, installed, or written in another language: not part of the program."""
    if getattr(m, "__name__", "") == "__main__":
        return False
    origin = getattr(m, "__file__", None)
    return origin is None or "site-packages" in origin or origin.startswith(_LIBRARY)


_LIBRARY = inspect.__file__.rsplit("/", 1)[0] + "/"


def _unwrapped(x: Any) -> list[Any]:
    """The functions in what a class body holds."""
    if isinstance(x, (staticmethod, classmethod)):
        return [x.__func__]
    if isinstance(x, property):
        return [f for f in (x.fget, x.fset) if f is not None]
    if isinstance(x, functools.cached_property):
        return [x.func]
    return [x]


def first_change(guards: list[tuple[int, Any, Any, Any]], live: frozenset[int] | None) -> str:
    """The first guarded place that holds something else now, described, or ''. ``live``: ids of the groups whose learning rates
    may differ; None: all."""
    for kind, c, k, want in guards:
        try:
            if kind == LENGTH:
                if len(c) == want:
                    continue
                return f"the length of a {type(c).__name__}: {len(c)}, was {want}"
            if kind == RATE and (live is None or id(c) in live) and type(c[k]) is float or kind == EMPTY and not c[k]:
                continue
            have = c.cell_contents if kind in (CELL, CELL_VALUE) else c[k]
        except (LookupError, ValueError, TypeError):
            return f"{k!r}, which is gone"
        if have is want or kind in (VALUE, CELL_VALUE, RATE) and type(have) is type(want) and have == want and \
                not (have == 0 and str(have) != str(want)):
            continue
        return f"{'a variable' if k is None else repr(k)}: {_short(have)}, was {_short(want)}"
    return ""


class Watch:
    """Guards as one function of Python's, a comparison each; only a difference is looked at closely."""

    def __init__(self, guards: list[tuple[int, Any, Any, Any]], live: frozenset[int]):
        self.guards, self.live = guards, live
        self.same: Callable[[], bool] | None = None

    def changed(self) -> str:
        """As :func:`first_change`."""
        if self.same is None:
            self.same = compiled(self.guards, self.live)
        try:
            if self.same():
                return ""
        except (LookupError, ValueError, TypeError):
            pass
        return first_change(self.guards, self.live)


def compiled(guards: list[tuple[int, Any, Any, Any]], live: frozenset[int]) -> Callable[[], bool]:
    """A function that tells whether every place holds the very object it held. (One of equal value is a difference to it.)"""
    names: dict[int, str] = {}
    objects: dict[str, Any] = {}

    def name(x: Any) -> str:
        found = names.get(id(x))
        if found is None:
            found = names[id(x)] = f"v{len(names)}"
            objects[found] = x
        return found

    tests: dict[str, None] = {}  # in order, each once
    for kind, c, k, want in guards:
        if kind == LENGTH:
            test = f"len({name(c)}) == {want}"
        elif kind in (CELL, CELL_VALUE):
            test = f"{name(c)}.cell_contents is {name(want)}"
        else:
            place = f"{name(c)}[{repr(k) if type(k) in (str, int) else name(k)}]"
            if kind == EMPTY:
                test = f"not {place}"
            else:
                test = f"type({place}) is float" if kind == RATE and id(c) in live else f"{place} is {name(want)}"
        tests[test] = None
    exec(f"def same(): return ({' and '.join(tests) or True})", objects)
    return objects["same"]  # type: ignore[no-any-return]


def _short(x: Any) -> str:
    if isinstance(x, _PLAIN):
        return repr(x)[:40]
    return f"another {type(x).__name__}"


State = tuple[Any, Aval, Any, Aval | None, bool]


def _tensor_state(t: Tensor) -> State:
    """What must stay as it is for a recorded program to fit: alias, aval, gradient edge, gradient."""
    a = t._alias
    v = t._v if a is None else a.storage.value
    g = t.grad
    return a, v.aval, v.gfn if a is None or a.leaf is None else a.leaf, None if g is None else g._v.aval, \
        g is not None and g._alias is not None


def _hooked(edge: Any) -> bool:
    """Whether something acts when a leaf's gradient arrives."""
    return edge is not None and bool(getattr(edge, "hooks", None) or getattr(edge, "post_hooks", None))


def same_state(t: Tensor, state: State) -> bool:
    a = t._alias
    if a is not state[0]:
        return False
    v = t._v if a is None else a.storage.value
    if v.aval is not state[1] or (v.gfn if a is None or a.leaf is None else a.leaf) is not state[2]:
        return False
    if _hooked(state[2]):
        return False
    g = getattr(t, "_grad", None)
    return state[3] is None if g is None else g._v.aval is state[3] and (g._alias is not None) is state[4]


def modes() -> tuple[Any, ...]:
    """Global switches recording depends on."""
    from ..dtypes import get_default_dtype

    return recorder.state.grad, get_default_dtype(), bool(recorder.CASTS)
