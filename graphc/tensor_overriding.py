"""Who takes calls over: ``__torch_function__`` of Tensor subclasses and of foreign classes.

Asking costs nothing where nobody overrides: recording knows nothing of this module. :class:`Switch` exchanges the code of the
public functions in place the moment an overriding class appears, so functions keep their identity, wherever they were imported
to and whatever table they are keys of. Which functions are public is said in ``overrides.py``; here is how they are asked.
"""
from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType, TracebackType
from typing import Any

from .ir import recorder
from .ir.node import Value
from .ir.tape import AccumulateGrad, alias_value
from .tensor import Tensor, _new, make_alias, wrap

_SILENT_MOST = 4096  # types known not to override; more of them are forgotten


class _Local(threading.local):
    """What this thread asks: subclasses and others, modes, the stack of modes."""

    subclasses = True
    all = True
    skip = False  # the next has_torch_function() says no

    def __init__(self) -> None:
        self.modes: list[Any] = []


LOCAL = _Local()


# ------------------------------------------------------------------------------------------------------ who overrides
class _Disabled:
    """The ``__torch_function__`` of classes that take no call over, such as nn.Parameter."""

    __name__ = "_disabled_torch_function_impl"

    def __call__(self, func: Callable[..., Any], types: Any = (), args: Any = (), kwargs: Any = None) -> Any:
        with DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


disabled_torch_function_impl = _Disabled()
_silent: set[type] = set()


def overriding(cls: type) -> bool:
    """Whether instances of ``cls`` are asked: they have ``__torch_function__``, and not the one of Tensor itself."""
    if cls in _silent:
        return False
    found = getattr(cls, "__torch_function__", None)
    if found is not None and found is not disabled_torch_function_impl and cls is not Tensor:
        return True
    if len(_silent) > _SILENT_MOST:
        _silent.clear()
    if cls is not list and cls is not tuple:  # which are looked into
        _silent.add(cls)
    return False


def overriders(arguments: Iterable[Any], tensors: bool = False) -> list[Any]:
    """The arguments to ask, one of each type, in the order of asking: subclasses before their bases, else left to right.
    Lists and tuples among the arguments are looked into. ``tensors``: plain tensors are asked, too."""
    found: list[Any] = []
    for a in arguments:
        for x in a if type(a) in (list, tuple) else (a,):
            cls = type(x)
            if not (overriding(cls) or tensors and cls is Tensor) or any(type(y) is cls for y in found):
                continue
            at = next((i for i, y in enumerate(found) if issubclass(cls, type(y))), len(found))
            found.insert(at, x)
    return found


def dispatch(public: Any, name: str, found: list[Any], args: Any, kwargs: Any, python: bool = False) -> Any:
    """The first answer that is not NotImplemented: of the innermost mode, then of ``found``. TypeError without one, worded as
    for PyTorch's functions written in Python (``python``) or in C++."""
    if recorder.state.watch is not None:
        _not_replayed(recorder.state.watch)
    types = tuple([type(x) for x in found])
    modes = LOCAL.modes
    mode = None
    if modes and LOCAL.all:
        mode = modes.pop()
        try:
            answer = mode.__torch_function__(public, types, args, kwargs)
        finally:
            modes.append(mode)
        if answer is not NotImplemented:
            return answer
    for x in found if LOCAL.subclasses else ():
        handler = x.__torch_function__
        if getattr(handler, "__self__", None) is x:
            warnings.warn("Defining your `__torch_function__` as a plain method is deprecated and will be an error in future, "
                          "please define it as a classmethod.", DeprecationWarning if python else UserWarning, stacklevel=4)
        answer = handler(public, types, args, kwargs)
        if answer is not NotImplemented:
            return answer
    if python or name.startswith("torch.nn.functional."):
        raise TypeError(f"no implementation found for '{name}' on types that implement __torch_function__: {list(types)}")
    asked = [f"  - mode object {mode}"] if mode is not None else []
    asked += [f"  - tensor subclass {t}" for t in types]
    raise TypeError(f"Multiple dispatch failed for '{name}'; all __torch_function__ handlers returned NotImplemented:\n\n"
                    + "\n".join(asked) + "\n\nFor more information, try re-running with TORCH_LOGS=not_implemented")


def _not_replayed(call: Any) -> None:
    """Handlers are the program's own code: a compiled call that asks one never runs without its Python."""
    owner = getattr(call, "owner", None)  # None where a program is recorded for export
    if owner is None:
        return
    call.flushed = True
    replay = owner._replay
    if replay is not None:
        replay.why = replay.off = "__torch_function__ takes calls over"


# -------------------------------------------------------------------------------------------------- what subclasses do
def as_class(t: Tensor, cls: type) -> Any:
    """``t`` as an instance of ``cls`` on the same storage, with the same history (a view of it where ``t`` is a leaf)."""
    v = t._read()
    if v.gfn is None or not recorder.state.grad:
        shared = t._aliased(alias_value(v) if v.gfn is not None else v, (), v.gfn is not None)
    elif v.gfn.__class__ is AccumulateGrad:
        shape = v.aval.shape
        shared = t._view("reshape", ((1, *shape),))._view("reshape", (shape,))
    else:
        shared = t._aliased(v, (), False)
    out = _new(shared._v, cls)
    out._alias = shared._alias
    return out


def kind(t: Any) -> Any:
    """What makes an instance of an overriding class more than its value: class and attributes. None for other objects."""
    return (type(t), t.__dict__) if isinstance(t, Tensor) and overriding(type(t)) else None


def of_kind(v: Value, kind: Any) -> Any:
    """A tensor with value ``v`` of a :func:`kind`."""
    if kind is None:
        return wrap(v)
    t = _new(v, kind[0])
    t.__dict__.update(kind[1])
    return t


def _converted(t: Tensor, cls: type) -> Any:
    """A result as ``cls``; a tensor nobody else holds hands over what it has."""
    if sys.getrefcount(t) > _FRESH or t._grad is not None:
        return as_class(t, cls)
    v, out = t._v, _new(t._v, cls)
    out._alias = t._alias
    if v.gfn.__class__ is AccumulateGrad:
        out._set_edge(AccumulateGrad(out))
    return out


def _convert(result: Any, cls: type) -> Any:
    """Tensors in a result as ``cls``, unless they are instances of it; also inside tuples and lists."""
    if isinstance(result, Tensor):
        return result if isinstance(result, cls) else as_class(result, cls)
    if isinstance(result, (tuple, list)) and any(isinstance(x, (Tensor, tuple, list)) for x in result):
        parts = [_convert(x, cls) if not isinstance(x, Tensor) or isinstance(x, cls) else as_class(x, cls) for x in result]
        make = getattr(result, "_make", type(result))  # named tuples take their fields apart
        return make(parts)
    return result


def _count(t: Tensor, cls: type) -> int:
    return sys.getrefcount(t)


def _answer(func: Any, args: Any, kwargs: Any, cls: type, convert: Any) -> Any:
    """``func``'s result; a plain tensor converted, counting references just as for :data:`_FRESH`."""
    result = func(*args, **kwargs)
    if type(result) is Tensor:
        return convert(result, cls)
    return result


_FRESH = _answer(Tensor, (), {}, Tensor, _count)  # references of a tensor nobody else holds; differs between Python versions
NOWRAP: set[Any] = set()  # functions whose results keep their type: get_default_nowrap_functions()


@classmethod  # type: ignore[misc]
def _torch_function(cls: type, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None) -> Any:
    """Run ``func`` without asking subclasses; tensors in the result become instances of ``cls``.

    NotImplemented if another type takes part that ``cls`` does not derive from. Subclasses call it by
    ``super().__torch_function__(func, types, args, kwargs)``.
    """
    if not all(issubclass(cls, t) for t in types):
        return NotImplemented
    before, LOCAL.subclasses = LOCAL.subclasses, False
    try:
        if cls is Tensor or func in NOWRAP:
            return func(*args, **(kwargs or {}))
        return _convert(_answer(func, args, kwargs or {}, cls, _converted), cls)
    finally:
        LOCAL.subclasses = before


@classmethod  # type: ignore[misc]
def _init_subclass(cls: type, **kwargs: Any) -> None:
    super(Tensor, cls).__init_subclass__(**kwargs)  # type: ignore[misc]
    if overriding(cls):
        SWITCH.need()


def _make_subclass(cls: type, data: Tensor, require_grad: bool = False, **kwargs: Any) -> Any:
    """An instance of ``cls`` on ``data``'s storage, detached from its history."""
    with DisableTorchFunctionSubclass():
        return make_alias(data, cls, require_grad)


def install() -> None:
    """Give Tensor its ``__torch_function__``. Called once when ``graphc.ops`` is imported."""
    cls: Any = Tensor
    cls.__torch_function__ = _torch_function
    cls.__init_subclass__ = _init_subclass
    cls._make_subclass = staticmethod(_make_subclass)


# ------------------------------------------------------------------------------------------------------------- contexts
class _Closed:
    """A block in which this thread does not ask; also usable as a decorator's guard, as often as wanted."""

    _all = True

    def __init__(self) -> None:
        self._before: list[tuple[bool, bool]] = []

    def __enter__(self) -> None:
        self._before.append((LOCAL.subclasses, LOCAL.all))
        LOCAL.subclasses, LOCAL.all = False, LOCAL.all and self._all

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        LOCAL.subclasses, LOCAL.all = self._before.pop()


class DisableTorchFunctionSubclass(_Closed):
    """Ask no argument in this block; modes are asked."""


class DisableTorchFunction(_Closed):
    """Ask neither arguments nor modes in this block."""

    _all = False


# --------------------------------------------------------------------------------------------------------------- switch
class Exchange:
    """One public function: its code as it is, and the code that asks first.

    ``public`` is what handlers are given. ``arguments``: whether arguments are asked, or modes alone. ``operator``: what the
    TypeError of a refused call is for an operator, NotImplemented, so that Python asks the other operand. ``asker``: what runs
    instead of asking, given the original function.
    """

    __slots__ = ("fn", "code", "kwdefaults", "stub", "ask", "original")

    def __init__(self, fn: FunctionType, public: Any, name: str, arguments: bool = True, operator: bool = False,
                 asker: Callable[..., Callable[[Any, Any], Any]] | None = None):
        self.fn, self.code, self.kwdefaults = fn, fn.__code__, fn.__kwdefaults__
        self.original = twin(fn, fn.__name__, fn.__qualname__)
        asker = asker or (_asker if arguments else _mode_asker)
        ask = asker(public, self.original, name)
        self.stub = _stub(len(fn.__closure__ or ())).replace(co_name=fn.__code__.co_name)
        self.ask = {**(fn.__kwdefaults__ or {}), "_ask_": _operator(ask) if operator else ask}

    def on(self) -> None:
        self.fn.__kwdefaults__ = self.ask  # first: the old code does not look at what the new one needs
        self.fn.__code__ = self.stub
        self.fn.__dict__["__wrapped__"] = self.original  # inspect finds the signature there

    def off(self) -> None:
        self.fn.__code__ = self.code
        self.fn.__kwdefaults__ = self.kwdefaults
        if "__wrapped__" in self.original.__dict__:
            self.fn.__dict__["__wrapped__"] = self.original.__dict__["__wrapped__"]
        else:
            self.fn.__dict__.pop("__wrapped__", None)


def twin(fn: FunctionType, name: str, qualname: str) -> FunctionType:
    """Another function with the code and the variables of ``fn``."""
    out = FunctionType(fn.__code__, fn.__globals__, name, fn.__defaults__, fn.__closure__)
    out.__kwdefaults__ = None if fn.__kwdefaults__ is None else dict(fn.__kwdefaults__)
    out.__doc__, out.__module__, out.__qualname__ = fn.__doc__, fn.__module__, qualname
    out.__annotations__ = fn.__annotations__
    out.__dict__.update(fn.__dict__)
    return out


_STUBS: dict[int, CodeType] = {}  # by the number of closure variables, which an exchange of code must keep


def _stub(cells: int) -> CodeType:
    """Code that hands its arguments to the keyword-only default ``_ask_``."""
    if cells not in _STUBS:
        names = ", ".join(f"c{i}" for i in range(cells))
        text = f"def make({names}):\n def stub(*args, _ask_, **kwargs):\n  return _ask_(args, kwargs)\n"
        text += f"  {names}\n" if names else ""
        scope: dict[str, Any] = {}
        exec(compile(text + " return stub\n", __file__.replace("tensor_overriding.py", "<__torch_function__>"), "exec"), scope)
        _STUBS[cells] = scope["make"](*[None] * cells).__code__
    return _STUBS[cells]


def _asker(public: Any, original: Callable[..., Any], name: str) -> Callable[[Any, Any], Any]:
    local, silent = LOCAL, _silent

    def ask(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if local.subclasses:
            for a in args:
                if type(a) not in silent:
                    found = overriders((*args, *kwargs.values()))
                    if found:
                        return dispatch(public, name, found, args, kwargs)
                    break
            else:
                if kwargs and (found := overriders(kwargs.values())):
                    return dispatch(public, name, found, args, kwargs)
        if local.modes and local.all:
            return dispatch(public, name, [], args, kwargs)
        return original(*args, **kwargs)

    return ask


def _mode_asker(public: Any, original: Callable[..., Any], name: str) -> Callable[[Any, Any], Any]:
    def ask(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if LOCAL.modes and LOCAL.all:
            return dispatch(public, name, [], args, kwargs)
        with DisableTorchFunctionSubclass():
            return original(*args, **kwargs)

    return ask


def unless_mode(public: Any, original: Callable[..., Any], name: str) -> Callable[[Any, Any], Any]:
    """``public`` itself, a value, while a mode is on."""
    def ask(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return public if LOCAL.modes and LOCAL.all else original(*args, **kwargs)

    return ask


def _operator(asker: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def ask(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return asker(args, kwargs)
        except TypeError:
            if overriders(args):
                return NotImplemented
            raise

    return ask


class Switch:
    """Whether public functions ask. ``source`` lists them; it runs once, at the first time they must."""

    def __init__(self) -> None:
        self.source: Callable[[], list[Exchange]] | None = None
        self.exchanges: list[Exchange] = []
        self.is_on = False
        self.kept = False  # on for good: an overriding class exists
        self._modes = 0
        self._lock = threading.RLock()

    def need(self) -> None:
        """An overriding class exists: from now on public functions ask."""
        with self._lock:
            self.kept = True
            self._set(True)

    def mode(self, entered: bool) -> None:
        """A mode was entered or left: without overriding classes public functions ask only while there is one."""
        with self._lock:
            self._modes += 1 if entered else -1
            self._set(self.kept or self._modes > 0)

    def forget(self) -> None:
        """As if no overriding class had ever been seen (for tests)."""
        with self._lock:
            self.kept = False
            self._set(self._modes > 0)

    def _set(self, on: bool) -> None:
        if on == self.is_on or self.source is None:
            return
        if not self.exchanges:
            self.exchanges = self.source()
        for e in self.exchanges:
            e.on() if on else e.off()
        self.is_on = on


SWITCH = Switch()


def foreign(x: Any) -> bool:
    """Whether ``x``, which is no tensor, takes calls over; public functions ask from then on. For refusals of arguments."""
    if not overriding(type(x)):
        return False
    SWITCH.need()
    return True
