"""Tensors as the file formats see them: a view (shape, strides, offset) of a storage of raw bytes.

Nothing here knows ``Tensor``: readers produce :class:`TensorRecord` and hand it to a :class:`Builder`, which makes
NumPy arrays here and Tensors in ``convert.py``.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .dtype_table import ElementType, of_array

MAX_DIMS = 64
_LIMIT = 1 << 62  # no element count or byte offset of a real file comes near


@dataclass(eq=False)
class StorageRecord:
    """Raw little-endian bytes of one storage. ``data`` (1-d uint8) is None until they are read."""

    nbytes: int
    data: np.ndarray | None = None
    location: str = "cpu"
    key: str = ""  # its name in the file, for messages
    uses: int = 0  # tensor records that refer to it
    element: ElementType | None = None


@dataclass(eq=False)
class TensorRecord:
    """A strided view of ``storage``; shape, strides and offset count elements of ``element``."""

    storage: StorageRecord
    element: ElementType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    requires_grad: bool = False
    parameter: bool = False
    conj: bool = False
    neg: bool = False

    @property
    def numel(self) -> int:
        return product(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * self.element.itemsize

    @property
    def contiguous(self) -> bool:
        """Whether the elements follow each other in C order."""
        return 0 in self.shape or all(s == w for n, s, w in zip(self.shape, self.strides, row_major(self.shape))
                                      if n != 1)

    def check(self) -> None:
        """Raise CheckpointError unless every element lies inside the storage. Works in Python integers."""
        check_dims(self.shape, "size")
        check_dims(self.strides, "stride")
        check_dims((self.offset,), "storage offset")
        if len(self.shape) != len(self.strides):
            raise CheckpointError(f"a tensor of {len(self.shape)} dimensions has {len(self.strides)} strides")
        have = self.storage.nbytes // self.element.itemsize
        need = self.offset
        if 0 not in self.shape:
            need += 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides))
        if need > have or not representable(self.shape, self.element.itemsize):
            raise CheckpointError(
                f"a tensor of size {self.shape}, stride {self.strides} and offset {self.offset} needs {need} elements, "
                f"but its storage '{self.storage.key}' has {have}")

    def array(self) -> np.ndarray:
        """The view as an array that shares the storage's memory; read-only where elements overlap themselves."""
        assert self.storage.data is not None
        if 0 in self.shape:
            return np.empty(self.shape, self.element.np)
        raw, size = self.storage.data, self.element.itemsize
        if self.element.name == "bool" and self.storage.element is not self.element:
            raw = np.minimum(raw, 1)  # see dtype_table.normalise
        # NumPy checks shape, strides and offset against the buffer once more.
        out: np.ndarray = np.ndarray(self.shape, self.element.np, raw.data, self.offset * size,
                                     [s * size for s in self.strides])
        if any(s == 0 and n > 1 for n, s in zip(self.shape, self.strides)):
            out.flags.writeable = False
        if self.conj:
            out = np.conj(out)
        return np.negative(out) if self.neg else out


def product(shape: Sequence[int]) -> int:
    """The number of elements of ``shape``, exact."""
    total = 1
    for n in shape:
        total *= n
    return total


def representable(shape: Sequence[int], itemsize: int) -> bool:
    """Whether NumPy can make an array of this shape; even an empty one must not overflow without its zeros."""
    return product([n for n in shape if n]) * itemsize < 1 << 63


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a C-contiguous array."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def check_dims(values: Any, what: str) -> tuple[int, ...]:
    """``values`` as a tuple of true, non-negative ints of sane size; CheckpointError otherwise."""
    if not isinstance(values, (tuple, list)) or len(values) > MAX_DIMS:
        raise CheckpointError(f"a tensor's {what} must be at most {MAX_DIMS} numbers, not {_brief(values)}")
    for v in values:
        if type(v) is not int or not 0 <= v <= _LIMIT:
            raise CheckpointError(f"a tensor's {what} holds {_brief(v)}; non-negative integers are required")
    return tuple(values)


def _brief(value: Any) -> str:
    """A short description that can't itself be a bomb."""
    if type(value) in (int, float, str) and (type(value) is not int or value.bit_length() < 200):
        return repr(value)[:60]
    return f"a {type(value).__name__}"


def from_array(array: np.ndarray, **flags: Any) -> TensorRecord:
    """A record of its own contiguous storage holding a copy of ``array`` only where its layout requires one."""
    element = of_array(array)
    flat = np.ravel(array, order="C")
    if not flat.dtype.isnative:
        flat = flat.astype(flat.dtype.newbyteorder("="))
    storage = StorageRecord(flat.nbytes, flat.view(np.uint8), uses=1, element=element)
    return TensorRecord(storage, element, array.shape, row_major(array.shape), **flags)


class Builder:
    """Makes the objects a reader returns. This one makes NumPy arrays, tuples, and graphc's dtypes and devices."""

    def tensor(self, record: TensorRecord) -> Any:
        """The object for a tensor; called once per tensor of the file, with its bytes loaded."""
        return record.array()

    def parameter(self, value: Any, requires_grad: bool) -> Any:
        """``value``, made by :meth:`tensor`, as a parameter."""
        return value

    def typed(self, value: Any, name: str, attributes: Any) -> Any:
        """``value``, made by :meth:`tensor`, as an instance of the class ``name`` ("module:Class") with ``attributes``."""
        return value

    def size(self, dims: tuple[int, ...]) -> Any:
        """A ``torch.Size``."""
        return dims

    def dtype(self, name: str) -> Any:
        """A dtype object."""
        from ..dtypes import by_name

        try:
            return by_name(name)
        except KeyError:
            raise CheckpointError(f"the dtype torch.{name} has no counterpart in graphc") from None

    def device(self, kind: str, index: int | None) -> Any:
        """A device object."""
        from ..device import device

        try:
            return device(kind, index)
        except (RuntimeError, TypeError) as error:
            raise CheckpointError(f"the file names a device that graphc doesn't know: {error}") from None


class DryBuilder(Builder):
    """Builds nothing: a first pass with it validates a whole file before any tensor is made."""

    def tensor(self, record: TensorRecord) -> Any:
        record.storage.uses += 1
        return record

    def parameter(self, value: Any, requires_grad: bool) -> Any:
        if not isinstance(value, TensorRecord):
            raise CheckpointError(f"a Parameter made of a {type(value).__name__}")
        return value
