"""``torch.overrides``: which functions are public, and the tools for ``__torch_function__``.

Every public function asks the ``__torch_function__`` of its arguments: Tensor subclasses, which by default keep their type,
and foreign classes that have the method. How it is done at no cost while there are none: ``tensor_overriding.py``. The switch
is thrown by the first subclass of Tensor, by a mode, by a module that imports graphc and defines a foreign class that
overrides (``_importers.py``), by the helpers below when they are shown an instance of one, and by a public function that
refuses one: where nothing else told of the class, that first call fails, so show it before (``is_tensor_like``).

Not as in PyTorch: one function object serves where PyTorch has two of one meaning (``torch.relu`` and ``nn.functional.relu``,
``torch.det`` and ``linalg.det``, ``torch.abs`` and ``torch.absolute``); handlers get arguments as they were written, defaults
not filled in; ``types`` never holds Tensor itself; flags such as ``is_sparse`` are constants that ask nobody; there is no
``__torch_dispatch__``.
"""
from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType
from typing import Any

from .tensor import Tensor
from .tensor_info import TensorInfo
from .tensor_overriding import (
    LOCAL,
    NOWRAP,
    SWITCH,
    DisableTorchFunction,
    DisableTorchFunctionSubclass,
    Exchange,
    dispatch,
    foreign,
    overriders,
    overriding,
    unless_mode,
)

NAMESPACES = ("nn.functional", "", "linalg", "fft", "special")  # modules of public functions below graphc; first names win
_LATER = {"nn.functional": ("linear_cross_entropy",)}  # names that __all__ lacks because they load with their first use
_PACKAGE = __name__.partition(".")[0]
_INTERNAL = frozenset("""
acc_dtype as_array at_least bits broadcast_into builtins_abs clone_as finish flat_argmax fresh legacy_type p_norm
reduced reduction_name replay reshape_strides scan tuple_of wide word_pairs work_dtype T mT is_tensor
broadcast_shapes can_cast promote_types default_generator manual_seed seed initial_seed get_rng_state set_rng_state
fork_rng numpy_names infer_size unsupported from_dlpack
""".split())
# Functions that make tensors from other things: modes are asked, arguments are not.
_FACTORIES = frozenset("""
tensor as_tensor asarray zeros ones empty full rand randn randint randperm arange range range_ linspace logspace eye
scalar_tensor frombuffer empty_strided empty_permuted bartlett_window blackman_window hamming_window hann_window
kaiser_window tril_indices triu_indices complex_
""".split())
_UNASKED_METHODS = frozenset("""
__new__ __init__ __hash__ __iter__ __init_subclass__ __torch_function__ as_subclass restore getitem setitem matmul_value
linear bilinear
""".split())
_ASKED_AS = {"__add__": "add", "__radd__": "add", "__sub__": "sub", "__mul__": "mul", "__rmul__": "mul", "__truediv__": "div",
             "__mod__": "remainder", "__matmul__": "matmul", "__rand__": "bitwise_and", "__ror__": "bitwise_or",
             "__rxor__": "bitwise_xor", "__lt__": "lt", "__le__": "le", "__gt__": "gt", "__ge__": "ge", "__ne__": "ne",
             "__iadd__": "add_", "__isub__": "sub_", "__imul__": "mul_", "__itruediv__": "div_", "__imod__": "remainder_",
             "__ifloordiv__": "floor_divide_", "__neg__": "neg", "__pos__": "positive", "__abs__": "abs",
             "__str__": "__repr__", "ndimension": "dim", "nelement": "numel"}
_OPERATORS = frozenset(f"__{p}{n}__" for p in ("", "r", "i") for n in """add sub mul truediv floordiv mod pow matmul and or xor
lshift rshift lt le gt ge eq ne""".split())


# ------------------------------------------------------------------------------------------------------ what is public
def _functions() -> Iterator[tuple[str, str, FunctionType]]:
    """(namespace, name, function) of every public function, each once."""
    seen: set[int] = set()
    for where in NAMESPACES:
        module = importlib.import_module(f"{_PACKAGE}.{where}" if where else _PACKAGE)
        names = [*module.__all__, *_LATER.get(where, ())] if where else list(vars(module))
        for name in names:
            fn = getattr(module, name)
            if not isinstance(fn, FunctionType) or name.startswith("_") or name in _INTERNAL or id(fn) in seen:
                continue
            home = fn.__module__ or ""
            if name.endswith("_value") or not home.startswith(("graphc.ops", "graphc.nn")) or \
                    home.endswith(("._common", "._generator", ".methods", "._linalg_common", "._reduction")):
                continue
            seen.add(id(fn))
            yield f"torch.{where}" if where else "torch", name, fn
    grad = importlib.import_module(f"{_PACKAGE}.autograd").grad
    yield "torch.autograd", "grad", grad


def _members() -> Iterator[tuple[str, Any]]:
    """(name, function or property) of Tensor's public members."""
    for cls in (Tensor, TensorInfo):
        for name, x in list(vars(cls).items()):
            if isinstance(x, (FunctionType, property)) and name not in _UNASKED_METHODS and \
                    (not name.startswith("_") or name.startswith("__") or name in ("_base", "_version")):
                yield name, x


def exchanges() -> list[Exchange]:
    """Every function that asks once the switch is thrown."""
    from .compile.replay import MISS, Replay

    NOWRAP.update(get_default_nowrap_functions())
    short: Any = Replay.short
    find: Any = Replay.find
    out = [Exchange(short, MISS, "", asker=unless_mode), Exchange(find, None, "", asker=unless_mode)]  # a mode sees every call
    done: set[int] = set()
    for where, name, fn in _functions():
        done.add(id(fn))
        out.append(Exchange(fn, fn, f"{where}.{name}", name not in _FACTORIES))
    for name, x in _members():
        if isinstance(x, property):
            for part, accessor in ((x.fget, "__get__"), (x.fset, "__set__"), (x.fdel, "__delete__")):
                if isinstance(part, FunctionType) and id(part) not in done:
                    done.add(id(part))
                    out.append(Exchange(part, getattr(x, accessor), f"torch.Tensor.{name}.{accessor}"))
        elif id(x) not in done:
            done.add(id(x))
            public = _ASKED_AS.get(name, name)
            out.append(Exchange(x, getattr(Tensor, public), f"torch.Tensor.{public}", True, name in _OPERATORS))
    return out


@functools.lru_cache(None)
def _names() -> dict[Any, str]:
    """The name of each public function and property accessor."""
    out: dict[Any, str] = {}
    for name, x in _members():
        if isinstance(x, property):
            out.update({getattr(x, a): f"torch.Tensor.{name}.{a}" for a in ("__get__", "__set__", "__delete__")})
        else:
            out.setdefault(x, f"torch.Tensor.{name}")
    for where, name, fn in _functions():
        out[fn] = f"{where}.{name}"
    return out


def resolve_name(f: Any) -> str | None:
    """The full name of a public function, ``torch.Tensor.add`` say, or None."""
    try:
        return _names().get(f)
    except TypeError:  # not hashable
        return None


def get_overridable_functions() -> dict[Any, list[Callable[..., Any]]]:
    """The functions that ask, by the module or class they belong to."""
    out: dict[Any, list[Callable[..., Any]]] = {}
    for where, name, fn in _functions():
        if name not in _FACTORIES:
            out.setdefault(importlib.import_module(_PACKAGE + where.removeprefix("torch")), []).append(fn)
    for _, x in _members():
        out.setdefault(Tensor, []).append(x.__get__ if isinstance(x, property) else x)
    return out


def get_ignored_functions() -> set[Callable[..., Any]]:
    """Public functions that ask no argument."""
    return {fn for _, name, fn in _functions() if name in _FACTORIES} | {
        getattr(Tensor, n) for n in _UNASKED_METHODS if callable(getattr(Tensor, n, None))}


def get_testing_overrides() -> dict[Callable[..., Any], Callable[..., Any]]:
    """A function of the same signature that returns -1 for each overridable function."""
    out: dict[Callable[..., Any], Callable[..., Any]] = {}
    for functions in get_overridable_functions().values():
        for fn in functions:
            dummy: Any = lambda *args, **kwargs: -1
            with contextlib.suppress(ValueError, TypeError):
                dummy.__signature__ = inspect.signature(fn)
            out[fn] = dummy
    return out


def get_default_nowrap_functions() -> set[Callable[..., Any]]:
    """Functions whose results ``Tensor.__torch_function__`` returns as they are."""
    return {vars(Tensor)["grad"].__get__, vars(TensorInfo)["_base"].__get__}


def is_tensor_method_or_property(func: Callable[..., Any]) -> bool:
    """Whether ``func`` is a method of Tensor or the accessor of one of its properties."""
    return getattr(func, "__name__", "") in ("__get__", "__set__", "__delete__") or \
        (resolve_name(func) or "").startswith("torch.Tensor.")


# --------------------------------------------------------------------------------------------------------------- asking
def is_tensor_like(inp: Any) -> bool:
    """Whether ``inp`` is a tensor or has ``__torch_function__``."""
    foreign(inp)
    return type(inp) is Tensor or hasattr(inp, "__torch_function__")


def has_torch_function(relevant_args: Iterable[Any]) -> bool:
    """Whether any argument wants to take a call over: a Tensor subclass, or another object with ``__torch_function__``."""
    if LOCAL.skip:
        LOCAL.skip = False
        return False
    if LOCAL.modes and LOCAL.all:
        return True
    return LOCAL.subclasses and any(overriding(type(a)) and foreign(a) for a in relevant_args)


def has_torch_function_unary(obj: Any) -> bool:
    """:func:`has_torch_function` of one argument."""
    return has_torch_function((obj,))


def has_torch_function_variadic(*args: Any) -> bool:
    """:func:`has_torch_function` of arguments one by one."""
    return has_torch_function(args)


def handle_torch_function(public_api: Callable[..., Any], relevant_args: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
    """The first answer to ``public_api`` that is not NotImplemented, of a mode or an argument, plain tensors among them;
    TypeError without one."""
    name = resolve_name(public_api) or f"{public_api.__module__}.{public_api.__name__}"
    return dispatch(public_api, name, overriders(relevant_args, True), args, kwargs, True)


def redispatch_function(func: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
    """Run ``func`` itself, for handlers: nobody is asked about this call, but about those inside it as always."""
    own = _originals().get(func) if SWITCH.exchanges else None
    if own is not None:
        return own(*args, **(kwargs or {}))
    LOCAL.skip = True
    try:
        return func(*args, **(kwargs or {}))
    finally:
        LOCAL.skip = False


@functools.lru_cache(None)
def _originals() -> dict[Any, Callable[..., Any]]:
    """What public functions and accessors of properties run when nobody overrides them."""
    own = {id(e.fn): e.original for e in SWITCH.exchanges}
    out: dict[Any, Callable[..., Any]] = {e.fn: e.original for e in SWITCH.exchanges}
    for _, x in _members():
        if isinstance(x, property):
            for part, accessor in ((x.fget, "__get__"), (x.fset, "__set__"), (x.fdel, "__delete__")):
                if part is not None and id(part) in own:
                    out[getattr(x, accessor)] = own[id(part)]
    return out


def wrap_torch_function(dispatcher: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator: ask the arguments that ``dispatcher`` picks before running the function."""
    def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            relevant = dispatcher(*args, **kwargs)
            if has_torch_function(relevant):
                return handle_torch_function(wrapped, relevant, *args, **kwargs)
            return fn(*args, **kwargs)

        return wrapped

    return decorate


# ---------------------------------------------------------------------------------------------------------------- modes
class TorchFunctionMode:
    """Takes every public function over inside a ``with`` block, whatever its arguments.

    Override ``__torch_function__(self, func, types, args=(), kwargs=None)``; while it runs, the mode itself is not asked.
    The innermost mode is asked first, and modes before arguments. Each thread has its own.
    """

    inner: TorchFunctionMode

    def __init__(self) -> None:
        pass

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError

    def __enter__(self) -> Any:
        SWITCH.mode(True)
        LOCAL.modes.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        LOCAL.modes.pop()
        SWITCH.mode(False)

    @classmethod
    def push(cls, *args: Any, **kwargs: Any) -> Any:
        """An instance, for programs that still write ``with Mode.push():``."""
        return cls(*args, **kwargs)


class BaseTorchFunctionMode(TorchFunctionMode):
    """A mode that runs what it is asked."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def enable_reentrant_dispatch() -> Iterator[None]:
    """In this block a handler's own calls ask subclasses again."""
    before = LOCAL.subclasses, LOCAL.all
    LOCAL.subclasses = LOCAL.all = True
    try:
        yield
    finally:
        LOCAL.subclasses, LOCAL.all = before


@contextlib.contextmanager
def _no_torch_function_mode() -> Iterator[None]:
    """No mode is asked in this block."""
    before, LOCAL.modes = LOCAL.modes, []
    try:
        yield
    finally:
        LOCAL.modes = before


def _get_current_function_mode() -> Any:
    return LOCAL.modes[-1] if LOCAL.modes else None


def _get_current_function_mode_stack() -> list[Any]:
    return list(LOCAL.modes)


__all__ = ["BaseTorchFunctionMode", "DisableTorchFunction", "DisableTorchFunctionSubclass", "TorchFunctionMode",
           "enable_reentrant_dispatch", "get_default_nowrap_functions", "get_ignored_functions", "get_overridable_functions",
           "get_testing_overrides", "handle_torch_function", "has_torch_function", "has_torch_function_unary",
           "has_torch_function_variadic", "is_tensor_like", "is_tensor_method_or_property", "redispatch_function",
           "resolve_name", "wrap_torch_function"]
