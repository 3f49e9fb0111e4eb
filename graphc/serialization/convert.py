"""Between Tensors and the records of ``records.py``: what is shared in memory is shared in the file and again after.

The only module of the readers and writers that knows how a Tensor holds its data.
"""
from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from ..device import CPU, device, require
from ..errors import CheckpointError
from ..tensor import Size, Tensor, from_numpy_copy, make_alias, to_numpy, wrap
from ..tensor_overriding import DisableTorchFunctionSubclass, as_class, overriding
from .dtype_table import of_array
from .records import Builder, StorageRecord, TensorRecord, row_major

_MAX_EXPANSION = 64 << 20  # bytes a view may take beyond four times its storage once something evaluates it


class Records:
    """Makes records of the Tensors of one object; tensors that share a storage get records that share one."""

    def __init__(self) -> None:
        self._storages: dict[int, tuple[Any, StorageRecord, np.ndarray]] = {}

    def __call__(self, obj: Any) -> TensorRecord | None:
        """The record of a Tensor; None for anything else. Evaluates what is pending."""
        if not isinstance(obj, Tensor):
            return None
        from ..nn.parameter import Parameter

        obj = as_class(obj, Tensor) if overriding(type(obj)) else obj
        flags = {"requires_grad": bool(obj.requires_grad), "parameter": isinstance(obj, Parameter)}
        alias = obj._alias
        value = obj._read()
        if alias is None or alias.storage.value.aval.dtype is not value.aval.dtype:
            # Nothing shares with it, or it reinterprets the bits of what it shares: stored on its own.
            storage, base = self._storage(obj, value)
            return TensorRecord(storage, of_array(base), tuple(obj.shape), row_major(obj.shape), **flags)
        storage, base = self._storage(alias.storage, alias.storage.value)
        return TensorRecord(storage, of_array(base), tuple(obj.shape), tuple(obj.stride()), int(obj.storage_offset()),
                            **flags)

    def typed(self, obj: Any) -> tuple[str, Tensor, dict[str, Any]] | None:
        """The class, the plain tensor and the attributes of an instance of a class that overrides functions, else None."""
        cls = type(obj)
        if not isinstance(obj, Tensor) or not overriding(cls):
            return None
        if "<locals>" in cls.__qualname__:
            raise TypeError(f"a tensor of the class {cls.__qualname__}, which is made inside a function, could not be loaded "
                            "again; save .as_subclass(Tensor) of it")
        return f"{cls.__module__}:{cls.__qualname__}", as_class(obj, Tensor), obj.__dict__

    def _storage(self, owner: Any, value: Any) -> tuple[StorageRecord, np.ndarray]:
        found = self._storages.get(id(owner))
        if found is None:
            array = _host_array(value)
            record = StorageRecord(array.nbytes, np.ravel(array).view(np.uint8), str(value.aval.device),
                                   element=of_array(array))
            found = self._storages[id(owner)] = (owner, record, array)
        return found[1], found[2]


def _host_array(value: Any) -> np.ndarray:
    """The evaluated data, C-contiguous, on the host. Copied when the outside may change it before it is written."""
    from ..ir.node import SharedValue
    from ..ir.recorder import evaluated

    if value.aval.device is not CPU or isinstance(value, SharedValue):
        return to_numpy(wrap(value))
    array = evaluated(value)
    return array if array.flags.c_contiguous else np.array(array, order="C")


class TensorBuilder(Builder):
    """Makes Tensors on the devices that ``map_location`` chooses; ``plain``: no instances of the program's own classes."""

    def __init__(self, map_location: Any = None, plain: bool = False):
        self._place, self._plain = _placement(map_location), plain
        self._bases: dict[int, tuple[StorageRecord, Any, Tensor]] = {}
        self._devices: dict[int, tuple[StorageRecord, device]] = {}

    def tensor(self, record: TensorRecord) -> Tensor:
        """A Tensor of its own, or a view of the Tensor made for the storage when others share it."""
        from ..autograd import no_grad

        if record.nbytes > _MAX_EXPANSION + 4 * record.storage.nbytes:
            raise CheckpointError(f"a tensor of size {record.shape} repeats {record.storage.nbytes} stored bytes to "
                                  f"{record.nbytes}; save the tensor before expanding it")
        with no_grad():
            result = self._shared(record) if _is_view(record) else None
            if result is None:
                result = self._alone(record)
        if record.requires_grad and not record.parameter:
            result.requires_grad_(True)
        return result

    def parameter(self, value: Any, requires_grad: bool) -> Any:
        from ..nn.parameter import Parameter

        if not isinstance(value, Tensor):
            raise CheckpointError(f"a Parameter made of a {type(value).__name__}")
        return Parameter(value, requires_grad)

    def typed(self, value: Any, name: str, attributes: Any) -> Any:
        """An instance of a subclass of Tensor that the program has made already: nothing is imported, no code of it runs."""
        if not isinstance(value, Tensor) or type(name) is not str or type(attributes) is not dict:
            raise CheckpointError("a malformed tensor of a class")
        if self._plain:
            return value
        module, _, path = name.partition(":")
        found: Any = sys.modules.get(module)
        for part in path.split("."):
            found = None if found is None else vars(found).get(part) if isinstance(found, (type, ModuleType)) else None
        if not isinstance(found, type) or not issubclass(found, Tensor):
            raise CheckpointError(f"a tensor of the class {name[:200]!r}, which is not there: import its module first, or load "
                                  "with weights_only=True, which makes plain tensors")
        with DisableTorchFunctionSubclass():
            result = make_alias(value, found, value.requires_grad)
        result.__dict__ = attributes  # filled later
        return result

    def size(self, dims: tuple[int, ...]) -> Size:
        return Size(dims)

    def _alone(self, record: TensorRecord) -> Tensor:
        result = self._on_device(record.array(), record.storage)
        if record.storage.uses == 1:
            record.storage.data = None  # nothing else needs it: halves the peak memory of loading
        return result

    def _shared(self, record: TensorRecord) -> Tensor | None:
        """A view of the storage's own Tensor, or None when the view can't be expressed (it is then copied)."""
        found = self._bases.get(id(record.storage))
        if found is not None and found[1] is not record.element:
            return None  # the same bytes under another dtype
        if found is None:
            size, data = record.element.itemsize, record.storage.data
            assert data is not None
            flat = TensorRecord(record.storage, record.element, (data.size // size,), (1,))
            found = (record.storage, record.element, self._on_device(flat.array(), record.storage))
            self._bases[id(record.storage)] = found
        return view_of(found[2], record.shape, record.strides, record.offset)

    def _on_device(self, array: np.ndarray, storage: StorageRecord) -> Tensor:
        try:
            result = from_numpy_copy(array)
        except TypeError as error:
            raise CheckpointError(f"a tensor of dtype {array.dtype} has no counterpart in graphc: {error}") from None
        where = self._device(storage)
        return result if where is CPU else result.to(where)

    def _device(self, storage: StorageRecord) -> device:
        found = self._devices.get(id(storage))
        if found is None:
            found = self._devices[id(storage)] = (storage, self._place(storage))
        return found[1]


def _is_view(record: TensorRecord) -> bool:
    if record.conj or record.neg:
        return False
    return record.storage.uses > 1 or record.nbytes > record.storage.nbytes


def view_of(base: Tensor, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Tensor | None:
    """The elements ``offset + sum(i * stride)`` of the 1-d ``base`` as a view, or None.

    The view is made of slices, reshapes, permutations and expansions; None when strides don't nest (sliding windows).

    The dimensions are sorted by stride and the base is cut into blocks, those into smaller blocks and so on, one level
    per dimension; each dimension is then a (stepped) slice of its level.
    """
    if 0 in shape:
        return None
    order = sorted((i for i, (n, s) in enumerate(zip(shape, strides)) if n > 1 and s > 0), key=lambda i: -strides[i])
    steps = [strides[i] for i in order]
    last = offset + sum((shape[i] - 1) * strides[i] for i in order)
    view = _nested(base, [shape[i] for i in order], steps, offset, last)
    if view is None:
        return None
    # Back to the order asked for: the sorted dimensions, then size-1 and expanded ones in their places.
    rank = {axis: position for position, axis in enumerate(order)}
    view = view.permute([rank[i] for i in range(len(shape)) if i in rank]) if order else view
    view = view.view([shape[i] if i in rank else 1 for i in range(len(shape))])
    return view.expand(list(shape)) if tuple(view.shape) != tuple(shape) else view


def _nested(base: Tensor, sizes: list[int], steps: list[int], offset: int, last: int) -> Tensor | None:
    """The view of dimensions with falling strides ``steps``; ``last`` is its greatest element."""
    if not sizes:
        return base[offset:offset + 1].view([])
    if len(sizes) == 1:
        return base[offset:last + 1:steps[0]]
    length = int(base.shape[0])
    for unit in (math.gcd(steps[0], length), steps[0]):
        first, rest = divmod(offset, unit)
        end = first + (sizes[0] - 1) * (steps[0] // unit) + 1
        found = _levels(sizes[1:], steps[1:], unit, rest)
        if end * unit <= length and found is not None:
            pitches, index = found
            blocks = base[first * unit:end * unit].view([end - first, *pitches])
            where = (slice(0, None, steps[0] // unit), *index)
            return blocks[where]
    return None


def _levels(sizes: list[int], steps: list[int], unit: int, rest: int) -> tuple[list[int], list[Any]] | None:
    """How to cut a block of ``unit`` elements for the remaining dimensions, whose first element is ``rest``.

    Returns the sizes of the cuts and the index that picks the elements; None when a dimension leaves the block.
    """
    pitches: list[int] = []
    index: list[Any] = []
    for size, step in zip(sizes, steps):
        inner = math.gcd(unit, step)
        start, rest = divmod(rest, inner)
        end = start + (size - 1) * (step // inner) + 1
        if end > unit // inner:
            return None
        pitches.append(unit // inner)
        index.append(slice(start, end, step // inner))
        unit = inner
    return [*pitches, unit], [*index, rest]


class LoadedStorage:
    """What a callable ``map_location`` receives: enough of PyTorch's storage to say where it should go."""

    def __init__(self, nbytes: int, where: device = CPU):
        self._nbytes, self.device = nbytes, where

    def nbytes(self) -> int:
        """Its size in bytes."""
        return self._nbytes

    size = __len__ = nbytes

    def cpu(self) -> LoadedStorage:
        """Keep it in host memory."""
        return LoadedStorage(self._nbytes)

    def cuda(self, index: Any = None) -> LoadedStorage:
        """Send it to a CUDA device (the current one without ``index``)."""
        where = index if isinstance(index, (str, device)) else device("cuda", index)
        return LoadedStorage(self._nbytes, device(where))

    def to(self, where: Any = None, **options: Any) -> LoadedStorage:
        """Send it to a device."""
        return LoadedStorage(self._nbytes, device(options.get("device", where)))


def _placement(map_location: Any) -> Callable[[StorageRecord], device]:
    """``map_location`` as a function from a storage to its device: None, str, device, dict or callable, as PyTorch."""
    if map_location is None:
        return lambda storage: _saved_device(storage.location)
    if isinstance(map_location, (str, device)):
        fixed = require(map_location)
        return lambda storage: fixed
    if isinstance(map_location, dict):
        table = {str(key): value for key, value in map_location.items()}
        return lambda storage: _saved_device(table.get(storage.location, storage.location))
    if not callable(map_location):
        raise TypeError("map_location must be None, a string, a device, a dict or a callable, not "
                        f"{type(map_location).__name__}")

    def ask(storage: StorageRecord) -> device:
        answer = map_location(LoadedStorage(storage.nbytes), storage.location)
        if answer is None:
            return _saved_device(storage.location)
        return require(answer if isinstance(answer, (str, device)) else answer.device)

    return ask


def _saved_device(location: Any) -> device:
    try:
        return require(location)
    except RuntimeError as error:
        raise CheckpointError(f"Attempting to deserialize object on device '{location}', which this process does not "
                              f"have ({error}) If you want it on the CPU, use map_location='cpu'.") from None
