"""Element types as the file formats name them, and their NumPy counterparts.

Wider than graphc's own dtypes: a file may hold uint16, uint64 or float8 data, which the NumPy level reads bit for bit
and the Tensor level refuses by name.
"""
from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import CheckpointError


@dataclass(frozen=True)
class ElementType:
    """One row: PyTorch's name, safetensors' code (None: none), PyTorch's typed storage class (None: none)."""

    name: str
    code: str | None
    storage: str | None
    itemsize: int
    np_name: str  # a NumPy dtype string, or the attribute of ml_dtypes

    @property
    def np(self) -> np.dtype:
        """The NumPy dtype in native byte order; ``ml_dtypes`` is imported only for bfloat16 and float8."""
        if self.np_name.startswith(("bfloat", "float8")):
            import ml_dtypes

            return np.dtype(getattr(ml_dtypes, self.np_name))
        return np.dtype(self.np_name)


TYPES = (
    ElementType("float32", "F32", "FloatStorage", 4, "f4"),
    ElementType("float64", "F64", "DoubleStorage", 8, "f8"),
    ElementType("float16", "F16", "HalfStorage", 2, "f2"),
    ElementType("bfloat16", "BF16", "BFloat16Storage", 2, "bfloat16"),
    ElementType("complex64", "C64", "ComplexFloatStorage", 8, "c8"),
    ElementType("complex128", None, "ComplexDoubleStorage", 16, "c16"),
    ElementType("int64", "I64", "LongStorage", 8, "i8"),
    ElementType("int32", "I32", "IntStorage", 4, "i4"),
    ElementType("int16", "I16", "ShortStorage", 2, "i2"),
    ElementType("int8", "I8", "CharStorage", 1, "i1"),
    ElementType("uint8", "U8", "ByteStorage", 1, "u1"),
    ElementType("bool", "BOOL", "BoolStorage", 1, "?"),
    ElementType("uint16", "U16", None, 2, "u2"),
    ElementType("uint32", "U32", None, 4, "u4"),
    ElementType("uint64", "U64", None, 8, "u8"),
    ElementType("float8_e4m3fn", "F8_E4M3", None, 1, "float8_e4m3fn"),
    ElementType("float8_e5m2", "F8_E5M2", None, 1, "float8_e5m2"),
    ElementType("float8_e4m3fnuz", "F8_E4M3FNUZ", None, 1, "float8_e4m3fnuz"),
    ElementType("float8_e5m2fnuz", "F8_E5M2FNUZ", None, 1, "float8_e5m2fnuz"),
    ElementType("float8_e8m0fnu", "F8_E8M0", None, 1, "float8_e8m0fnu"),
)
BY_NAME = {t.name: t for t in TYPES}
BY_CODE = {t.code: t for t in TYPES if t.code is not None}
BY_STORAGE = {t.storage: t for t in TYPES if t.storage is not None}


def of_array(array: np.ndarray) -> ElementType:
    """The row of an array's dtype. Raises TypeError for one that no format holds (object, text, dates ...)."""
    found = BY_NAME.get(array.dtype.name)
    if found is None:
        raise TypeError(f"arrays of dtype {array.dtype} can't be saved; use one of {', '.join(sorted(BY_NAME))}")
    return found


def by_name(name: Any) -> ElementType:
    """The row named ``name``; CheckpointError when unknown."""
    found = BY_NAME.get(name) if isinstance(name, str) else None
    if found is None:
        raise CheckpointError(f"unknown dtype {name!r}")
    return found


def little_endian_bytes(array: np.ndarray) -> memoryview:
    """The elements of ``array`` in C order as little-endian bytes (a copy only when layout or order require one)."""
    flat = array.reshape(-1) if array.flags.c_contiguous else np.ravel(array, order="C")
    if sys.byteorder == "big" or flat.dtype.byteorder == ">":
        flat = flat.astype(flat.dtype.newbyteorder("<"))
    return flat.view(np.uint8).data


def swap_elements(raw: np.ndarray, element: ElementType) -> None:
    """Reverse the bytes of every number in ``raw`` (uint8), in place; a complex number is two numbers."""
    step = element.itemsize // 2 if element.name.startswith("complex") else element.itemsize
    if step > 1:
        raw[:] = raw.reshape(-1, step)[:, ::-1].reshape(-1)


def normalise(raw: np.ndarray, element: ElementType) -> None:
    """Make little-endian ``raw`` bytes safe to view as ``element`` here, in place: byte order, and bools of 0 or 1."""
    if sys.byteorder == "big":
        swap_elements(raw, element)
    if element.name == "bool":
        # A bool byte above 1 is undefined behaviour in compiled code; every non-zero byte means True.
        np.minimum(raw, 1, out=raw)
