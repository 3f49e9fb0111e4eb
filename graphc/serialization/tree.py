"""Nested Python values as a flat JSON table, and back.

The table is a list of nodes; containers refer to each other by index, so depth costs no recursion, an object that
appears twice stays one object, and cycles through lists and dicts round-trip. A *slot* is what a container holds:

    null, true, false, "text", 12, 1.5      themselves
    [7]                                      node 7
    ["i", "-ff"]   ["f", "7ff8..."]          an int of 64 bits or more; a float that JSON lacks (hex of its bits)

A node is ``[kind, ...]`` with a kind of ``_FILL`` (mutable, made empty first, filled last) or ``_MAKE`` (made from
lower-numbered nodes).
"""
from __future__ import annotations

import argparse
import base64
import pathlib
import struct
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..device import device
from ..dtypes import dtype
from ..errors import CheckpointError
from .dtype_table import BY_NAME
from .limits import KeyGuard, check_key_size
from .records import Builder, TensorRecord, from_array

_INLINE_BYTES = 4096  # longer byte strings are stored beside the tensors instead of as base64
_FACTORIES: dict[str, Any] = {"none": None, "list": list, "dict": dict, "set": set, "int": int, "float": float,
                              "str": str, "bool": bool, "tuple": tuple, "OrderedDict": OrderedDict}
_MAPPINGS: dict[Any, str] = {dict: "dict", OrderedDict: "odict", Counter: "counter", defaultdict: "defaultdict"}
_SEQUENCES: dict[Any, str] = {list: "list", set: "set", deque: "deque"}
_NAMESPACES: dict[Any, str] = {argparse.Namespace: "argparse", types.SimpleNamespace: "simple"}

Path = tuple[Any, Any] | None  # (path of the parent, key): linked, so that deep nesting stays cheap
Leaf = Callable[[Any], "TensorRecord | None"]


def render_path(path: Path, root: str = "obj") -> str:
    """``obj['model'][3]`` for messages; long paths keep their end."""
    parts: list[str] = []
    while path is not None and len(parts) < 20:
        path, key = path[0], path[1]
        parts.append(key if isinstance(key, _Attribute) else f"[{key!r:.60}]")
    return (root if path is None else "...") + "".join(reversed(parts))


def path_name(path: Path) -> str:
    """``model.layers.0.weight``: the name of the tensor at ``path`` in the file."""
    parts: list[str] = []
    while path is not None and len(parts) < 30:
        path, key = path[0], path[1]
        parts.append(str(key).lstrip(".") if isinstance(key, (str, int)) else type(key).__name__)
    return ".".join(reversed(parts)).encode(errors="replace").decode()[-400:]


class _Attribute(str):
    """A path step that is an attribute: rendered ``.name``."""


class Encoder:
    """Turns one object into ``nodes`` and the list of ``tensors`` they mention, each with its path."""

    def __init__(self, leaf: Leaf):
        self.nodes: list[list[Any]] = []
        self.tensors: list[tuple[TensorRecord, Path]] = []
        self._leaf = leaf
        self._typed: Callable[[Any], tuple[Any, ...] | None] = getattr(leaf, "typed", lambda obj: None)
        self._index: dict[int, int] = {}
        self._keep: list[Any] = []  # ids stay valid while the objects live
        self._pending: deque[tuple[Any, list[Any], Path]] = deque()

    def encode(self, obj: Any) -> Any:
        """The root slot. Raises TypeError, naming the place, for an object that is neither data nor a tensor."""
        root = self._slot(obj, None)
        while self._pending:
            value, node, path = self._pending.popleft()
            self._fill(value, node, path)
        return root

    def _slot(self, obj: Any, path: Path) -> Any:
        """The slot of ``obj``; immutable containers are descended with an explicit stack."""
        frames: list[tuple[Any, list[Any], list[Any], str, Path]] = []
        while True:
            slot = self._simple(obj, path)
            if slot is _DESCEND:
                typed = self._typed(obj)
                kind, inside = _immutable_parts(obj, path) if typed is None else ("typed", list(typed))
                frames.append((obj, inside, [], kind, path))
            while True:
                if slot is not _DESCEND:
                    if not frames:
                        return slot
                    frames[-1][2].append(slot)
                owner, inside, slots, kind, base = frames[-1]
                if len(slots) < len(inside):
                    obj, path = inside[len(slots)], (base, len(slots))
                    break
                frames.pop()
                slot = [self._add(owner, [kind, *slots])]

    def _add(self, obj: Any, node: list[Any]) -> int:
        self._index[id(obj)] = len(self.nodes)
        self._keep.append(obj)
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _simple(self, obj: Any, path: Path) -> Any:
        """The slot of anything but an immutable container not met before (_DESCEND)."""
        kind = type(obj)
        if obj is None or kind in (bool, str):
            return obj
        if kind is int:
            return obj if -(1 << 63) <= obj < 1 << 63 else ["i", format(obj, "x")]
        if kind is float:
            return obj if obj - obj == 0.0 else ["f", struct.pack(">d", obj).hex()]
        found = self._index.get(id(obj))
        if found is not None:
            return [found]
        if kind in _MAPPINGS or kind in _SEQUENCES or kind in _NAMESPACES:
            index = self._add(obj, [])
            self._pending.append((obj, self.nodes[index], path))
            return [index]
        if kind in (tuple, frozenset, slice) or _is_size(kind) or self._typed(obj) is not None:
            return _DESCEND
        node = self._atom(obj, path)
        return [self._add(obj, node)]

    def _atom(self, obj: Any, path: Path) -> list[Any]:
        record = self._leaf(obj)
        if record is not None:
            self.tensors.append((record, path))
            return ["tensor", len(self.tensors) - 1]
        if isinstance(obj, (bytes, bytearray)) and type(obj) in (bytes, bytearray):
            return [type(obj).__name__, *self._raw(bytes(obj), path)]
        if type(obj) is np.ndarray:
            return self._array(obj, path)
        if isinstance(obj, np.generic):
            _plain_dtype(obj.dtype, path)
            return ["scalar", _dtype_name(obj.dtype), np.asarray(obj).tobytes().hex()]
        if type(obj) is complex:
            return ["complex", struct.pack(">dd", obj.real, obj.imag).hex()]
        if type(obj) is range:
            return ["range", *(format(v, "x") for v in (obj.start, obj.stop, obj.step))]
        if isinstance(obj, dtype):
            return ["dtype", obj.name]
        if isinstance(obj, device):
            return ["device", obj.type, obj.index]
        if isinstance(obj, np.dtype):
            _plain_dtype(obj, path)
            return ["npdtype", _dtype_name(obj)]
        if isinstance(obj, pathlib.PurePath):
            return ["path", str(obj)]
        if obj is Ellipsis:
            return ["ellipsis"]
        raise TypeError(refusal(obj, path))

    def _raw(self, data: bytes, path: Path) -> list[Any]:
        if len(data) <= _INLINE_BYTES:
            return [base64.b64encode(data).decode()]
        self.tensors.append((from_array(np.frombuffer(data, np.uint8)), path))
        return [len(self.tensors) - 1]

    def _array(self, array: np.ndarray, path: Path) -> list[Any]:
        _plain_dtype(array.dtype, path)
        if array.dtype.name in BY_NAME:
            self.tensors.append((from_array(array), path))
            return ["array", len(self.tensors) - 1]
        return ["rawarray", array.dtype.str, list(array.shape), *self._raw(array.tobytes(), path)]

    def _fill(self, value: Any, node: list[Any], path: Path) -> None:
        kind = type(value)
        if kind in _NAMESPACES:
            node += ["namespace", _NAMESPACES[kind]]
            for name, item in vars(value).items():
                node += [self._slot(name, path), self._slot(item, (path, _Attribute("." + str(name))))]
            return
        if kind in _SEQUENCES:
            node.append(_SEQUENCES[kind])
            if kind is deque:
                node.append(value.maxlen)
            node += [self._slot(item, (path, i)) for i, item in enumerate(value)]
            return
        node.append(_MAPPINGS[kind])
        if kind is OrderedDict:  # nn.Module.state_dict() keeps format versions in this attribute
            node.append(self._slot(getattr(value, "_metadata", None), (path, _Attribute("._metadata"))))
        elif kind is defaultdict:
            node.append(_factory_name(value.default_factory, path))
        for key, item in value.items():
            try:
                check_key_size(key)
            except CheckpointError as error:
                raise ValueError(f"{render_path(path)}: {error}") from None
            node += [self._slot(key, (path, key)), self._slot(item, (path, key))]


_DESCEND = object()


def _is_size(kind: type) -> bool:
    return kind.__name__ == "Size" and issubclass(kind, tuple)


def _immutable_parts(obj: Any, path: Path) -> tuple[str, list[Any]]:
    if type(obj) is slice:
        return "slice", [obj.start, obj.stop, obj.step]
    if type(obj) is frozenset:
        return "frozenset", list(obj)
    return ("size" if _is_size(type(obj)) else "tuple"), list(obj)


def _factory_name(factory: Any, path: Path) -> str:
    for name, known in _FACTORIES.items():
        if factory is known:
            return name
    raise TypeError(f"{render_path(path)}: a defaultdict of {factory!r} can't be saved, because loading would have to "
                    "call it; convert it with dict(...)")


def _dtype_name(kind: np.dtype) -> str:
    return kind.name if kind.name.startswith(("bfloat", "float8")) else kind.str  # ml_dtypes have no code


def _plain_dtype(kind: np.dtype, path: Path) -> None:
    if kind.kind not in "biufcSUmM" and kind.name not in BY_NAME:
        raise TypeError(f"{render_path(path)}: NumPy data of dtype {kind} can't be saved; use numbers, bools, text or "
                        "dates")


def refusal(obj: Any, path: Path) -> str:
    """Why ``obj`` can't be saved and what to save instead."""
    where, kind = render_path(path), f"{type(obj).__module__}.{type(obj).__qualname__}"
    if not isinstance(obj, type) and hasattr(obj, "state_dict") and hasattr(obj, "load_state_dict"):
        return (f"{where} is a whole {kind} object. graphc saves data only and runs no code on load: save its "
                "state_dict() and load it into a new object with load_state_dict()")
    if callable(obj):
        return f"{where} is {kind} {getattr(obj, '__name__', '')!r}: code can't be saved, only data"
    if isinstance(obj, tuple) and hasattr(obj, "_asdict"):
        return f"{where} is a named tuple {kind}; save its _asdict() or tuple(...) instead"
    for base in (dict, list, set, str, int, float, tuple):
        if isinstance(obj, base):
            return f"{where} is a {kind}, a subclass of {base.__name__}; save {base.__name__}(...) of it instead"
    hint = "; save dataclasses.asdict(...) of it" if hasattr(obj, "__dataclass_fields__") else ""
    return (f"{where} is a {kind}, which can't be saved. Checkpoints hold tensors, arrays, numbers, text, bytes and "
            f"containers of them{hint}")


class Decoder:
    """Rebuilds the object from a table that may be hostile. ``tensors``: the objects that tensor nodes stand for;
    ``records``: what the file holds at the same indices, for arrays and bytes stored beside the tensors."""

    def __init__(self, nodes: Any, tensors: Sequence[Any], records: Sequence[TensorRecord], builder: Builder):
        if not isinstance(nodes, list) or not all(isinstance(n, list) and n and type(n[0]) is str for n in nodes):
            raise CheckpointError("the object table must be a list of nodes")
        self._nodes, self._tensors, self._records, self._builder = nodes, tensors, records, builder
        self._made: list[Any] = [_MISSING] * len(nodes)
        self._guard = KeyGuard()

    def decode(self, root: Any) -> Any:
        """The object of the root slot; CheckpointError for anything malformed."""
        for i, node in enumerate(self._nodes):
            shell = _SHELLS.get(node[0])
            if shell is not None:
                self._made[i] = shell(node)
        for i, node in enumerate(self._nodes):
            if self._made[i] is _MISSING:
                self._made[i] = self._make(node[0], node[1:])
        for i, node in enumerate(self._nodes):
            if node[0] in _SHELLS:
                self._fill(self._made[i], node)
        return self._value(root)

    def _value(self, slot: Any) -> Any:
        if slot is None or type(slot) in (bool, str, int, float):
            return slot
        if isinstance(slot, list) and len(slot) == 1 and type(slot[0]) is int and 0 <= slot[0] < len(self._made):
            value = self._made[slot[0]]
            if value is not _MISSING:
                return value
        elif isinstance(slot, list) and len(slot) == 2 and type(slot[1]) is str:
            if slot[0] == "i":
                return int(slot[1], 16)
            if slot[0] == "f":
                return struct.unpack(">d", bytes.fromhex(slot[1]))[0]
        raise CheckpointError("the object table holds a reference to nothing")

    def _make(self, kind: str, args: list[Any]) -> Any:
        if kind == "tuple":
            return tuple(self._value(s) for s in args)
        if kind == "frozenset":
            values = [self._value(s) for s in args]
            return frozenset(self._guard(v, values) for v in values)
        if kind == "slice":
            start, stop, step = (self._value(s) for s in args)
            return slice(start, stop, step)
        if kind == "size":
            return self._builder.size(_ints([self._value(s) for s in args]))
        if kind == "typed" and len(args) == 3:
            value, attributes = self._value(args[1]), self._value(args[2])
            return self._builder.typed(value, self._value(args[0]), attributes)
        maker = _MAKERS.get(kind)
        if maker is None:
            raise CheckpointError(f"the object table holds a node of unknown kind {kind[:40]!r}; was it written by a "
                                  "newer graphc?")
        return maker(self, *args)

    def _fill(self, value: Any, node: list[Any]) -> None:
        kind, args = node[0], node[1:]
        if kind in ("list", "set", "deque"):
            items = args[1:] if kind == "deque" else args
            if kind == "set":
                value.update(self._guard(self._value(s), value) for s in items)
            else:
                value.extend(self._value(s) for s in items)
            return
        if kind in ("odict", "defaultdict", "namespace"):
            head, args = args[0], args[1:]
            if kind == "odict" and head is not None:
                value._metadata = self._value(head)
        if len(args) % 2:
            raise CheckpointError("a mapping in the object table lacks its last value")
        target = vars(value) if kind == "namespace" else value
        for key, item in zip(args[::2], args[1::2]):
            name = self._value(key)
            if kind == "namespace" and type(name) is not str:
                raise CheckpointError("a namespace in the object table has an attribute that is not a name")
            target[self._guard(name, value)] = self._value(item)

    def tensor(self, index: Any) -> Any:
        return self._tensors[self._checked(index)]

    def array(self, index: Any) -> np.ndarray:
        return self._records[self._checked(index)].array()

    def raw(self, value: Any) -> bytes:
        """Bytes stored inline (base64 text) or beside the tensors (an index)."""
        return base64.b64decode(value, validate=True) if type(value) is str else self.array(value).tobytes()

    def _checked(self, index: Any) -> int:
        if type(index) is not int or not 0 <= index < len(self._tensors):
            raise CheckpointError("the object table refers to a tensor that the file doesn't have")
        return index

    @property
    def builder(self) -> Builder:
        return self._builder


_MISSING = object()


def _ints(values: Sequence[Any]) -> tuple[int, ...]:
    if not all(type(v) is int for v in values):
        raise CheckpointError("a size in the object table holds something other than integers")
    return tuple(values)


def _new_deque(node: list[Any]) -> deque[Any]:
    if len(node) < 2 or not (node[1] is None or type(node[1]) is int):
        raise CheckpointError("a deque in the object table lacks its length")
    return deque(maxlen=node[1])


def _new_defaultdict(node: list[Any]) -> defaultdict[Any, Any]:
    if len(node) < 2 or type(node[1]) is not str or node[1] not in _FACTORIES:
        raise CheckpointError("a defaultdict in the object table names an unknown factory")
    return defaultdict(_FACTORIES[node[1]])


def _new_namespace(node: list[Any]) -> Any:
    for cls, name in _NAMESPACES.items():
        if len(node) > 1 and node[1] == name:
            return cls()
    raise CheckpointError("a namespace in the object table has an unknown type")


def _np_dtype(name: Any) -> np.dtype:
    if type(name) is not str or len(name) > 40:
        raise CheckpointError("a NumPy dtype in the object table is not a name")
    np_type = BY_NAME[name].np if name in BY_NAME else np.dtype(name)
    if np_type.name not in BY_NAME and np_type.kind not in "biufcSUmM":
        raise CheckpointError(f"a NumPy dtype in the object table is {np_type}, which is not plain data")
    return np_type


def _scalar(decoder: Decoder, name: Any, text: str) -> Any:
    np_type, raw = _np_dtype(name), bytes.fromhex(text)
    if len(raw) != np_type.itemsize:
        raise CheckpointError(f"a NumPy scalar of {np_type} has {len(raw)} bytes")
    if not raw:
        return np.zeros((), np_type)[()]
    return np.frombuffer(raw, np_type)[0]


def _raw_array(decoder: Decoder, name: Any, shape: Any, stored: Any) -> np.ndarray:
    np_type, raw = _np_dtype(name), decoder.raw(stored)
    dims = _ints(shape)
    count = 1
    for n in dims:
        count *= n
    if min(dims, default=0) < 0 or count * np_type.itemsize != len(raw) or (not np_type.itemsize and count > 1 << 20):
        raise CheckpointError(f"a NumPy array of {np_type} and shape {dims} has {len(raw)} bytes")
    return np.ndarray(dims, np_type, bytearray(raw)) if raw else np.zeros(dims, np_type)


def _device_node(decoder: Decoder, kind: Any, index: Any) -> Any:
    if type(kind) is not str or not (index is None or type(index) is int):
        raise CheckpointError("a device in the object table is malformed")
    return decoder.builder.device(kind, index)


_SHELLS: dict[str, Callable[[list[Any]], Any]] = {
    "list": lambda node: [], "set": lambda node: set(), "dict": lambda node: {}, "odict": lambda node: OrderedDict(),
    "counter": lambda node: Counter(), "deque": _new_deque, "defaultdict": _new_defaultdict,
    "namespace": _new_namespace,
}
_MAKERS: dict[str, Callable[..., Any]] = {
    "tensor": Decoder.tensor,
    "array": Decoder.array,
    "rawarray": _raw_array,
    "scalar": _scalar,
    "bytes": lambda d, value: d.raw(value),
    "bytearray": lambda d, value: bytearray(d.raw(value)),
    "complex": lambda d, text: complex(*struct.unpack(">dd", bytes.fromhex(text))),
    "range": lambda d, *parts: range(*(int(p, 16) for p in parts)),
    "dtype": lambda d, name: d.builder.dtype(name),
    "device": _device_node,
    "npdtype": lambda d, name: _np_dtype(name),
    "path": lambda d, text: pathlib.Path(text),
    "ellipsis": lambda d: Ellipsis,
}
