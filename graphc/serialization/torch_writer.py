"""Writing files that ``torch.load(f, weights_only=True)`` reads, without PyTorch and without pickling objects.

The pickle stream is printed opcode by opcode (protocol 2, PyTorch's default) and holds only what PyTorch's restricted
unpickler admits. Archive layout: PyTorch's ``torch/serialization.py``, ``_save``.
"""
from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..device import device
from ..dtypes import dtype
from .dtype_table import little_endian_bytes
from .records import TensorRecord, row_major
from .tree import Leaf, Path, refusal, render_path
from .zip_format import write_zip

_ROOT = "archive"
_ENTRIES = 1000  # items per SETITEMS / APPENDS, as Python's pickler does


def write(obj: Any, leaf: Leaf) -> Iterator[Any]:
    """The bytes of a .pt file of ``obj`` in chunks; TypeError, naming the place, for what PyTorch wouldn't read."""
    printer = _Printer(leaf)
    data = printer.print(obj)
    records: list[tuple[str, Any]] = [("data.pkl", data), (".format_version", b"1"), (".storage_alignment", b"64"),
                                      ("byteorder", b"little")]
    for key, (record, whole) in enumerate(printer.storages):
        assert record.storage.data is not None
        records.append((f"data/{key}", little_endian_bytes(record.array()) if not whole else _storage_bytes(record)))
    records.append(("version", b"3\n"))
    return write_zip((f"{_ROOT}/{name}", content) for name, content in records)


def _storage_bytes(record: TensorRecord) -> memoryview:
    assert record.storage.data is not None
    size = record.element.itemsize
    data = record.storage.data
    return little_endian_bytes(data.view(record.element.np) if data.size % size == 0 else data)


class _Printer:
    """Prints one object. Work is kept on a list, so depth costs no recursion; tensors are printed last, when it is
    known which of them share a storage."""

    def __init__(self, leaf: Leaf):
        self._leaf = leaf
        self._out: list[bytes | TensorRecord] = [b"\x80\x02"]
        self._memo: dict[int, int] = {}
        self._open: set[int] = set()  # tuples being printed
        self._keep: list[Any] = []
        self._work: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.storages: list[tuple[TensorRecord, bool]] = []  # a tensor of each storage; whether to write all of it

    def print(self, obj: Any) -> bytes:
        """The whole stream."""
        self._work.append((self._object, (obj, None)))
        while self._work:
            step, args = self._work.pop()
            step(*args)
        self._out.append(b".")
        return self._with_tensors()

    def _with_tensors(self) -> bytes:
        records = [part for part in self._out if isinstance(part, TensorRecord)]
        uses = Counter(id(r.storage) for r in records)
        keys: dict[int, int] = {}
        texts: dict[int, bytes] = {}
        for r in records:
            alone = uses[id(r.storage)] == 1 and r.nbytes <= r.storage.nbytes
            if id(r.storage) not in keys:
                keys[id(r.storage)] = len(keys)
                self.storages.append((r, not alone))
            texts[id(r)] = _tensor(r, keys[id(r.storage)], alone)
        return b"".join(texts[id(p)] if isinstance(p, TensorRecord) else p for p in self._out)

    def _emit(self, data: bytes) -> None:
        self._out.append(data)

    def _later(self, *steps: tuple[Any, ...]) -> None:
        """Do ``steps`` (function, arguments...) next, in order."""
        self._work.extend((s[0], s[1:]) for s in reversed(steps))

    def _remember(self, obj: Any) -> None:
        index = self._memo[id(obj)] = len(self._memo)
        self._keep.append(obj)
        self._emit(b"q" + bytes([index]) if index < 256 else b"r" + struct.pack("<I", index))

    def _object(self, obj: Any, path: Path) -> None:
        scalar = _scalar(obj)
        if scalar is not None:
            return self._emit(scalar)
        index = self._memo.get(id(obj))
        if index is not None:
            return self._emit(b"h" + bytes([index]) if index < 256 else b"j" + struct.pack("<I", index))
        kind = type(obj)
        printer = _CONTAINERS.get(kind)
        if printer is not None:
            return printer(self, obj, path)
        if kind.__name__ == "Size" and isinstance(obj, tuple):
            self._emit(_global("torch", "Size"))
            self._later((self._object, tuple(obj), path), (self._emit, b"\x85R"), (self._remember, obj))
            return None
        record = self._leaf(obj)
        if record is None and isinstance(obj, (np.ndarray, np.generic)):
            raise TypeError(f"{render_path(path)} is NumPy data, which torch.load(weights_only=True) refuses; convert "
                            "it to a tensor or, with .item(), to a Python number")
        if record is None:
            raise TypeError(refusal(obj, path))
        self._out.append(record)
        self._remember(obj)
        return None

    def _list(self, obj: list[Any], path: Path) -> None:
        self._emit(b"]")
        self._remember(obj)
        self._batches(obj, path, b"e")

    def _batches(self, items: Any, path: Path, close: bytes) -> None:
        steps: list[tuple[Any, ...]] = []
        for i, item in enumerate(items):
            if i % _ENTRIES == 0:
                steps += [(self._emit, close)] * (i > 0) + [(self._emit, b"(")]
            steps.append((self._object, item, (path, i)))
        if steps:
            self._later(*steps, (self._emit, close))

    def _tuple(self, obj: tuple[Any, ...], path: Path) -> None:
        if not obj:
            return self._emit(b")")
        if id(obj) in self._open:
            raise ValueError(f"{render_path(path)} contains itself through a tuple, which this format can't hold")
        self._open.add(id(obj))
        self._emit(b"(")
        self._later(*[(self._object, item, (path, i)) for i, item in enumerate(obj)], (self._close_tuple, obj))
        return None

    def _close_tuple(self, obj: tuple[Any, ...]) -> None:
        self._open.discard(id(obj))
        self._emit(b"t")
        self._remember(obj)

    def _dict(self, obj: dict[Any, Any], path: Path) -> None:
        if type(obj) is dict:
            self._emit(b"}")
        else:
            self._emit(_global("collections", type(obj).__name__) + b")R")
        self._remember(obj)
        steps: list[tuple[Any, ...]] = []
        for i, (key, value) in enumerate(obj.items()):
            if i % _ENTRIES == 0:
                steps += [(self._emit, b"u")] * (i > 0) + [(self._emit, b"(")]
            steps += [(self._object, key, (path, key)), (self._object, value, (path, key))]
        if steps:
            steps.append((self._emit, b"u"))
        metadata = getattr(obj, "_metadata", None)
        if metadata is not None:  # nn.Module.state_dict() keeps format versions in this attribute
            steps += [(self._emit, b"}" + _text("_metadata")), (self._object, metadata, path), (self._emit, b"sb")]
        self._later(*steps)

    def _set(self, obj: set[Any], path: Path) -> None:
        self._emit(_global("__builtin__", "set") + b"](")
        self._later(*[(self._object, item, path) for item in obj], (self._emit, b"e\x85R"), (self._remember, obj))


_CONTAINERS: dict[type, Callable[[_Printer, Any, Path], None]] = {
    list: _Printer._list, tuple: _Printer._tuple, dict: _Printer._dict, OrderedDict: _Printer._dict,
    Counter: _Printer._dict, set: _Printer._set,
}


def _global(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _int(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    if len(raw) > 255:
        raise TypeError("PyTorch's restricted reader takes integers of at most 255 bytes")
    return b"\x8a" + bytes([len(raw)]) + raw


def _encoded(value: bytes) -> bytes:
    """Protocol 2 has no bytes: they travel as Latin-1 text."""
    return _global("_codecs", "encode") + _text(value.decode("latin-1")) + _text("latin1") + b"\x86R"


def _scalar(obj: Any) -> bytes | None:
    """The opcodes of a value that holds no other values, or None."""
    kind = type(obj)
    if obj is None:
        return b"N"
    if kind is bool:
        return b"\x88" if obj else b"\x89"
    if kind is int:
        return _int(obj)
    if kind is float:
        return b"G" + struct.pack(">d", obj)
    if kind is str:
        return _text(obj)
    if kind is bytes:
        return _encoded(obj)
    if kind is bytearray:
        return _global("__builtin__", "bytearray") + _encoded(bytes(obj)) + b"\x85R"
    if kind is complex:
        return _global("__builtin__", "complex") + struct.pack(">cdcd", b"G", obj.real, b"G", obj.imag) + b"\x86R"
    if isinstance(obj, dtype):
        return _global("torch", obj.name)
    if isinstance(obj, device):
        index = b"\x85" if obj.index is None else _int(obj.index) + b"\x86"
        return _global("torch", "device") + _text(obj.type) + index + b"R"
    return None


def _tensor(record: TensorRecord, key: int, compact: bool) -> bytes:
    """A call of ``_rebuild_tensor_v2``, or v3 for dtypes without a storage class of their own."""
    element, storage = record.element, record.storage
    shape, strides = record.shape, record.strides
    nbytes = record.nbytes if compact else storage.nbytes
    if compact:
        strides = row_major(shape)
    typed = element.storage is not None and nbytes % element.itemsize == 0
    kind = _global("torch", str(element.storage)) if typed else _global("torch.storage", "UntypedStorage")
    count = nbytes // element.itemsize if typed else nbytes
    pid = b"(" + _text("storage") + kind + _text(str(key)) + _text(storage.location) + _int(count) + b"tQ"
    args = pid + _int(0 if compact else record.offset) + _ints(shape) + _ints(strides)
    args += (b"\x88" if record.requires_grad and not record.parameter else b"\x89") + _EMPTY_HOOKS
    if not typed:
        args += _global("torch", element.name)
    call = _global("torch._utils", "_rebuild_tensor_v2" if typed else "_rebuild_tensor_v3") + b"(" + args
    call += (b"" if compact else _flags(record)) + b"tR"
    if not record.parameter:
        return call
    flag = b"\x88" if record.requires_grad else b"\x89"
    return _global("torch._utils", "_rebuild_parameter") + call + flag + _EMPTY_HOOKS + b"\x87R"


_EMPTY_HOOKS = _global("collections", "OrderedDict") + b")R"


def _flags(record: TensorRecord) -> bytes:
    names = [name for name, on in (("conj", record.conj), ("neg", record.neg)) if on]
    return b"}" + b"".join(_text(name) + b"\x88s" for name in names) if names else b""


def _ints(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_int, values)) + b"t"
