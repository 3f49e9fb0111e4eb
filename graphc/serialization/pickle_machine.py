"""A stack machine for the pickles inside PyTorch checkpoints. It calls nothing that a file names.

A global is looked up in a fixed table (``pickle_globals.py``) and becomes an inert :class:`Function`, whose handler
here checks its arguments and builds plain data. There is no import, no attribute access by name, no ``__setstate__``
of a class from the file, and no way to extend the table from outside.
"""
from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .limits import KeyGuard
from .pickle_ops import decode
from .records import Builder

_MAPPINGS = (dict, OrderedDict, Counter)


class Token:
    """Something a pickle names that is not data by itself: a function, a storage class, a foreign dtype."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"a reference to {self.name}"


class Function(Token):
    """A global that REDUCE may apply: ``handler(machine, args)`` returns the result."""

    __slots__ = ("handler",)

    def __init__(self, name: str, handler: Callable[[Machine, tuple[Any, ...]], Any]):
        super().__init__(name)
        self.handler = handler


class Machine:
    """Runs one pickle stream. ``persistent(id)`` answers BINPERSID, ``resolve(module, name, builder)`` a global."""

    def __init__(self, data: bytes, start: int, builder: Builder, resolve: Callable[[str, str, Builder], Any],
                 persistent: Callable[[Any], Any]):
        self.data, self.start, self.builder = data, start, builder
        self._resolve, self._persistent = resolve, persistent
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self.guard = KeyGuard()

    def run(self) -> Any:
        """The object of the stream. Raises CheckpointError for whatever isn't a well-formed, admitted program."""
        for name, argument, _ in decode(self.data, self.start):
            if name in _PUSH:
                self._stack.append(argument)
            elif name in _MAKE:
                self._stack.append(_MAKE[name]())
            elif name in _STEPS:
                _STEPS[name](self, argument)
        if len(self._stack) != 1 or self._marks:
            raise CheckpointError("the pickle stream does not leave exactly one object")
        return self._stack[0]

    # Stack access: an empty stack is a malformed stream.
    def _pop(self) -> Any:
        if not self._stack:
            raise CheckpointError("the pickle stream takes from an empty stack")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack:
            raise CheckpointError("the pickle stream takes from an empty stack")
        return self._stack[-1]

    def _pop_mark(self) -> list[Any]:
        if not self._marks:
            raise CheckpointError("the pickle stream closes a MARK that it didn't open")
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _mark(self, _: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _short_string(self, raw: bytes) -> None:
        """Python 2 text: a str where it is one, else bytes."""
        try:
            self._stack.append(raw.decode())
        except UnicodeDecodeError:
            self._stack.append(raw)

    def _tuple(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append(tuple(items))

    def _tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise CheckpointError("the pickle stream takes from an empty stack")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _append(self, _: Any) -> None:
        item = self._pop()
        self._extend([item])

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise CheckpointError(f"refused: the pickle stream appends to a {type(target).__name__}")
        target.extend(items)

    def _set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) not in _MAPPINGS:
            raise CheckpointError(f"refused: the pickle stream sets items of a {type(target).__name__}")
        if len(items) % 2:
            raise CheckpointError("the pickle stream sets a key without a value")
        for key, value in zip(items[::2], items[1::2]):
            target[self.guard(key, target)] = value

    def _add_items(self, _: Any) -> None:
        items, target = self._pop_mark(), self._top()
        if type(target) is not set:
            raise CheckpointError(f"refused: the pickle stream adds members to a {type(target).__name__}")
        target.update(self.guard(item, target) for item in items)

    def _frozenset(self, _: Any) -> None:
        items = self._pop_mark()
        self._stack.append(frozenset(self.guard(item, items) for item in items))

    def _global(self, argument: tuple[str, str]) -> None:
        self._stack.append(self._resolve(*argument, self.builder))

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise CheckpointError("a pickled global must be named by text")
        self._global((module, name))

    def _reduce(self, _: Any) -> None:
        args, function = self._pop(), self._pop()
        if not isinstance(function, Function):
            raise CheckpointError(f"refused: the pickle stream calls {_describe(function)}")
        if type(args) is not tuple:
            raise CheckpointError(f"the arguments of {function.name} are not a tuple")
        self._stack.append(function.handler(self, args))

    def _new_object(self, _: Any) -> None:
        self._pop()
        raise CheckpointError(f"refused: the pickle stream creates an object of {_describe(self._pop())}")

    def _build(self, _: Any) -> None:
        state, target = self._pop(), self._top()
        if type(target) is OrderedDict:
            # nn.Module.state_dict() keeps format versions in this one attribute.
            if type(state) is not dict or set(state) != {"_metadata"}:
                raise CheckpointError("refused: the pickle stream sets attributes of an OrderedDict")
            target._metadata = state["_metadata"]  # type: ignore[attr-defined]
        elif isinstance(target, np.dtype):
            _set_byte_order(target, state)
        elif type(target) is np.ndarray:
            _set_array(target, state)
        else:
            raise CheckpointError(f"refused: the pickle stream sets the state of {_describe(target)}")

    def _persistent_id(self, _: Any) -> None:
        self._stack.append(self._persistent(self._pop()))

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise CheckpointError(f"the pickle stream recalls object {index}, which it never stored")
        self._stack.append(self._memo[index])

    def _put(self, index: int) -> None:
        self._memo[index] = self._top()

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._top()


def _describe(value: Any) -> str:
    return value.name if isinstance(value, Token) else f"a {type(value).__name__}"


def check_plain_dtype(dtype: np.dtype) -> np.dtype:
    """``dtype`` if its items are plain bytes (numbers, text); CheckpointError for object, structured and others."""
    if dtype.kind not in "biufcSU" or dtype.hasobject:
        raise CheckpointError(f"refused: a NumPy dtype that is not plain data: {dtype.kind!r}")
    return dtype


def _set_byte_order(dtype: np.dtype, state: Any) -> None:
    """The state numpy pickles for a simple dtype: (version, order, None, None, None, size, alignment, flags)."""
    kinds = [int, str, type(None), type(None), type(None), int, int, int]
    valid = type(state) is tuple and [type(part) for part in state] == kinds and state[0] in (3, 4)
    if not valid or state[1] not in "<>|=" or state[7] not in (0, 8) or state[5] not in (-1, dtype.itemsize):
        raise CheckpointError("refused: a NumPy dtype with a state that simple dtypes don't have")
    if state[1] in ("<", ">"):
        # Only a fresh copy made by our own handler gets here, and the tuple is built here, not the file's.
        size = (dtype.itemsize, dtype.alignment) if dtype.kind in "SU" else (-1, -1)
        dtype.__setstate__((3, state[1], None, None, None, *size, 0))  # type: ignore[attr-defined]


def _set_array(array: np.ndarray, state: Any) -> None:
    """The state numpy pickles for an array: (version, shape, dtype, fortran order, bytes)."""
    if type(state) is not tuple or len(state) != 5 or array.shape != (0,):
        raise CheckpointError("a pickled NumPy array has a malformed state")
    _, shape, dtype, fortran, raw = state
    raw = raw.encode() if type(raw) is str else raw  # Python 2 text that happened to be UTF-8
    check_array_parts(shape, dtype, raw)
    array.__setstate__((1, shape, dtype, fortran is True, bytes(raw)))  # type: ignore[arg-type]


def check_array_parts(shape: Any, dtype: Any, raw: Any) -> None:
    """CheckpointError unless ``raw`` is exactly the bytes of an array of ``shape`` and ``dtype``."""
    if type(shape) is not tuple or len(shape) > 64 or any(type(n) is not int or n < 0 for n in shape):
        raise CheckpointError("a pickled NumPy array has a malformed shape")
    if not isinstance(dtype, np.dtype) or type(raw) not in (bytes, bytearray):
        raise CheckpointError("a pickled NumPy array has a malformed dtype or data")
    count = check_plain_dtype(dtype).itemsize
    for n in shape:
        count *= n
    if count != len(raw) or max(shape, default=0) > 1 << 40:
        raise CheckpointError(f"a pickled NumPy array of shape {shape} and dtype {dtype} has {len(raw)} bytes")


_PUSH = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
         "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_MAKE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_TUPLE": tuple, "EMPTY_LIST": list,
    "EMPTY_DICT": dict, "EMPTY_SET": set,
}
_STEPS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine._mark, "BINSTRING": Machine._short_string, "SHORT_BINSTRING": Machine._short_string,
    "BYTEARRAY8": lambda m, raw: m._stack.append(bytearray(raw)),
    "TUPLE": Machine._tuple, "TUPLE1": lambda m, _: m._tuple_of(1), "TUPLE2": lambda m, _: m._tuple_of(2),
    "TUPLE3": lambda m, _: m._tuple_of(3),
    "APPEND": Machine._append, "APPENDS": lambda m, _: m._extend(m._pop_mark()),
    "SETITEM": Machine._set_item, "SETITEMS": lambda m, _: m._set_items(m._pop_mark()),
    "ADDITEMS": Machine._add_items, "FROZENSET": Machine._frozenset,
    "GLOBAL": Machine._global, "STACK_GLOBAL": Machine._stack_global, "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._new_object, "BUILD": Machine._build, "BINPERSID": Machine._persistent_id,
    "BINGET": Machine._get, "LONG_BINGET": Machine._get, "BINPUT": Machine._put, "LONG_BINPUT": Machine._put,
    "MEMOIZE": Machine._memoize,
}
