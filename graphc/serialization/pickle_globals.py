"""The globals a PyTorch checkpoint may name, and what each becomes. Everything else is refused.

Semantics of the ``_rebuild_*`` functions: PyTorch's ``torch/_utils.py``.
"""
from __future__ import annotations

import contextlib
import re
from collections import Counter, OrderedDict
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .dtype_table import BY_NAME, BY_STORAGE, ElementType, by_name
from .pickle_machine import Function, Machine, Token, check_array_parts, check_plain_dtype
from .records import Builder, StorageRecord, TensorRecord, check_dims

_DTYPE_CODE = re.compile(r"b1|[iufc](1|2|4|8|16)|[SU][0-9]{1,6}")


class StorageClass(Token):
    """``torch.FloatStorage`` and the like; ``element`` is its dtype (uint8 for an untyped storage)."""

    __slots__ = ("element",)

    def __init__(self, name: str, element: ElementType):
        super().__init__(name)
        self.element = element


class StorageRef(Token):
    """What a persistent id stands for: a storage seen as elements of one type. Not data by itself."""

    __slots__ = ("record", "element")

    def __init__(self, record: StorageRecord, element: ElementType):
        super().__init__("a bare storage (save tensors, not storages)")
        self.record, self.element = record, element


class ForeignDType(Token):
    """A dtype that only some tensor of the file needs, such as uint16; graphc has no object for it."""


def resolve(module: str, name: str, builder: Builder) -> Any:
    """The inert value for a global; CheckpointError, saying what to do instead, for any other."""
    module = {"__builtin__": "builtins", "torch.tensor": "torch._tensor"}.get(module, module)
    module = module.replace("numpy._core", "numpy.core") if module.startswith("numpy._core") else module
    function = _FUNCTIONS.get(f"{module}.{name}")
    if function is not None:
        return function
    if module in ("torch", "torch.cuda", "torch.storage") and name.endswith("Storage"):
        element = BY_NAME["uint8"] if name == "UntypedStorage" else BY_STORAGE.get(name)
        if element is not None:
            return StorageClass(f"{module}.{name}", element)
    if module == "torch" and name in BY_NAME:
        try:
            return builder.dtype(name)
        except CheckpointError:
            return ForeignDType(f"torch.{name}")
    raise CheckpointError(_refusal(module, name))


def _refusal(module: str, name: str) -> str:
    full = f"{module}.{name}"[:200]
    text = f"refused: the file names {full!r}, and graphc runs no code from a file"
    if module == "__main__" or "nn.modules" in module or module.startswith(("torchvision.", "timm.", "transformers.")):
        return text + (". It holds a whole pickled model; load it with PyTorch where you trust it and save its "
                       "state_dict()")
    if "sparse" in name or "_rebuild_q" in name or "nested" in name or "meta_tensor" in name:
        return text + ". Sparse, quantised, nested and meta tensors aren't supported; save a dense tensor"
    return text + ". Only tensors and plain data are read; save a state_dict() instead"


def storage_from_id(pid: Any, fields: int) -> tuple[StorageClass, str, str, int, Any]:
    """Validate ``("storage", class, key, location, numel[, view])``: (class, key, location, numel, view)."""
    valid = type(pid) is tuple and len(pid) == fields and type(pid[0]) in (str, bytes)
    if not valid or pid[0] not in ("storage", b"storage") or not isinstance(pid[1], StorageClass):
        raise CheckpointError("refused: a persistent id that is not a storage")
    _, kind, key, location, numel = pid[:5]
    key = key.decode("ascii") if type(key) is bytes else key
    location = location.decode("ascii") if type(location) is bytes else location
    if type(key) not in (str, int) or type(location) is not str or len(location) > 100:
        raise CheckpointError("a storage with a malformed key or location")
    if type(numel) is not int or not 0 <= numel < 1 << 60:
        raise CheckpointError("a storage with a malformed size")
    return kind, str(key), location, numel, pid[5] if fields == 6 else None


def _arity(name: str, args: tuple[Any, ...], *allowed: int) -> tuple[Any, ...]:
    if len(args) not in allowed:
        raise CheckpointError(f"{name} with {len(args)} arguments")
    return args


def _tensor(machine: Machine, args: tuple[Any, ...], element: ElementType | None, flag: Any, metadata: Any) -> Any:
    ref, offset, size, stride = args[:4]
    if not isinstance(ref, StorageRef):
        raise CheckpointError("a tensor without a storage")
    record = TensorRecord(ref.record, element or ref.element, check_dims(size, "size"), check_dims(stride, "stride"),
                          offset, flag is True)
    if metadata is not None:
        if type(metadata) is not dict or not set(metadata) <= {"conj", "neg"}:
            raise CheckpointError("a tensor with unknown metadata")
        record.conj, record.neg = metadata.get("conj") is True, metadata.get("neg") is True
    record.check()
    return machine.builder.tensor(record)


def _rebuild_tensor(machine: Machine, args: tuple[Any, ...]) -> Any:
    return _tensor(machine, _arity("_rebuild_tensor", args, 4), None, False, None)


def _rebuild_tensor_v2(machine: Machine, args: tuple[Any, ...]) -> Any:
    _arity("_rebuild_tensor_v2", args, 6, 7)
    return _tensor(machine, args, None, args[4], args[6] if len(args) == 7 else None)


def _rebuild_tensor_v3(machine: Machine, args: tuple[Any, ...]) -> Any:
    _arity("_rebuild_tensor_v3", args, 7, 8)
    dtype = args[6]
    name = dtype.name.removeprefix("torch.") if isinstance(dtype, ForeignDType) else getattr(dtype, "name", None)
    return _tensor(machine, args, by_name(name), args[4], args[7] if len(args) == 8 else None)


def _rebuild_parameter(machine: Machine, args: tuple[Any, ...]) -> Any:
    _arity("_rebuild_parameter", args, 3, 4)  # the fourth, user attributes of the parameter, is dropped
    return machine.builder.parameter(args[0], args[1] is True)


def _rebuild_from_type(machine: Machine, args: tuple[Any, ...]) -> Any:
    """(function, type, arguments, attributes): a tensor with Python attributes, which are dropped."""
    function, kind, inner, _ = _arity("_rebuild_from_type_v2", args, 4)
    if not isinstance(function, Function) or function.handler not in _REBUILDERS or type(inner) is not tuple:
        raise CheckpointError("refused: _rebuild_from_type_v2 of something other than a tensor")
    if not isinstance(kind, Token) or kind.name not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
        raise CheckpointError("refused: a tensor subclass; save plain tensors")
    return function.handler(machine, inner)


def _ordered_dict(machine: Machine, args: tuple[Any, ...]) -> Any:
    out: OrderedDict[Any, Any] = OrderedDict()
    for pair in _arity("OrderedDict", args, 0, 1)[0] if args and type(args[0]) is list else ():
        if type(pair) not in (list, tuple) or len(pair) != 2:
            raise CheckpointError("an OrderedDict made of something other than pairs")
        out[machine.guard(pair[0], out)] = pair[1]
    if args and type(args[0]) is not list:
        raise CheckpointError("an OrderedDict made of something other than a list of pairs")
    return out


def _counter(machine: Machine, args: tuple[Any, ...]) -> Any:
    if args and (len(args) > 1 or type(args[0]) is not dict):
        raise CheckpointError("a Counter made of something other than a dict")
    out: Counter[Any] = Counter()
    dict.update(out, args[0] if args else {})
    return out


def _members(machine: Machine, args: tuple[Any, ...]) -> list[Any]:
    if args and (len(args) > 1 or type(args[0]) not in (list, tuple)):
        raise CheckpointError("a set made of something other than a list")
    items = list(args[0]) if args else []
    return [machine.guard(item, items) for item in items]


def _bytes(machine: Machine, args: tuple[Any, ...]) -> bytes:
    """``bytes()``, ``bytes(data)`` or ``bytes(text, encoding)``; never ``bytes(n)``, which allocates at will."""
    if not args:
        return b""
    if len(args) == 1 and type(args[0]) in (bytes, bytearray):
        return bytes(args[0])
    if len(args) == 2 and type(args[0]) is str and type(args[1]) is str and args[1] in ("latin1", "latin-1"):
        with contextlib.suppress(UnicodeEncodeError):
            return args[0].encode("latin-1")
    raise CheckpointError("bytes made of something other than Latin-1 text")


def _complex(machine: Machine, args: tuple[Any, ...]) -> complex:
    if not all(type(a) in (int, float) for a in _arity("complex", args, 1, 2)):
        raise CheckpointError("a complex number made of something other than numbers")
    return complex(*args)


def _range(machine: Machine, args: tuple[Any, ...]) -> range:
    if not all(type(a) is int for a in _arity("range", args, 1, 2, 3)) or (len(args) == 3 and args[2] == 0):
        raise CheckpointError("a range made of something other than integers")
    return range(*args)


def _size(machine: Machine, args: tuple[Any, ...]) -> Any:
    return machine.builder.size(check_dims(_arity("torch.Size", args, 1)[0], "size"))


def _device(machine: Machine, args: tuple[Any, ...]) -> Any:
    kind, index = (*_arity("torch.device", args, 1, 2), None)[:2]
    if type(kind) is not str or len(kind) > 100 or not (index is None or type(index) is int):
        raise CheckpointError("a malformed torch.device")
    return machine.builder.device(kind, index)


def _np_dtype(machine: Machine, args: tuple[Any, ...]) -> np.dtype:
    code = _arity("numpy.dtype", args, 1, 3)[0]
    if type(code) is not str or not _DTYPE_CODE.fullmatch(code):
        raise CheckpointError("refused: a NumPy dtype that is not plain numbers or text")
    try:
        return np.dtype(code, copy=True)  # type: ignore[call-overload]
    except TypeError:
        raise CheckpointError(f"NumPy has no dtype {code!r}") from None


def _np_scalar(machine: Machine, args: tuple[Any, ...]) -> Any:
    dtype, raw = _arity("numpy scalar", args, 2)
    raw = raw.encode() if type(raw) is str else raw
    check_array_parts((), dtype, raw)
    return np.frombuffer(raw, dtype)[0] if raw else np.zeros((), dtype)[()]


def _np_reconstruct(machine: Machine, args: tuple[Any, ...]) -> np.ndarray:
    kind, shape, _ = _arity("numpy _reconstruct", args, 3)
    plain = isinstance(kind, Token) and kind.name == "numpy.ndarray"
    if not plain or type(shape) is not tuple or [type(n) for n in shape] != [int] or shape[0]:
        raise CheckpointError("refused: a NumPy array subclass or a malformed array")
    return np.empty(0, np.int8)  # BUILD follows and sets the rest


def _np_frombuffer(machine: Machine, args: tuple[Any, ...]) -> np.ndarray:
    raw, dtype, shape, order = _arity("numpy _frombuffer", args, 4)
    check_array_parts(shape, dtype, raw)
    if type(order) is not str or order not in ("C", "F"):
        raise CheckpointError("a pickled NumPy array with an unknown memory order")
    return np.frombuffer(bytearray(raw), check_plain_dtype(dtype)).reshape(shape, order="C" if order == "C" else "F")


def _never(machine: Machine, args: tuple[Any, ...]) -> Any:
    raise CheckpointError("refused: the pickle stream calls a class")


_REBUILDERS = (_rebuild_tensor, _rebuild_tensor_v2, _rebuild_tensor_v3, _rebuild_parameter)
_FUNCTIONS = {name: Function(name, handler) for name, handler in {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Tensor": _never, "torch.nn.parameter.Parameter": _never, "numpy.ndarray": _never,
    "torch.Size": _size, "torch.device": _device,
    "collections.OrderedDict": _ordered_dict, "collections.Counter": _counter,
    "builtins.set": lambda m, args: set(_members(m, args)),
    "builtins.frozenset": lambda m, args: frozenset(_members(m, args)),
    "builtins.bytes": _bytes, "builtins.bytearray": lambda m, args: bytearray(_bytes(m, args)),
    "_codecs.encode": _bytes, "builtins.complex": _complex,
    "builtins.slice": lambda m, args: slice(*_arity("slice", args, 1, 2, 3)),
    "builtins.range": _range, "builtins.xrange": _range,
    "numpy.dtype": _np_dtype, "numpy.core.multiarray.scalar": _np_scalar,
    "numpy.core.multiarray._reconstruct": _np_reconstruct, "numpy.core.numeric._frombuffer": _np_frombuffer,
}.items()}
