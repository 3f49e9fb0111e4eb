"""Data types, PyTorch's promotion rules and NumPy's counterparts.

A :class:`dtype` is an interned object compared by identity. ``np`` is resolved lazily because bfloat16 needs
``ml_dtypes``, which most programs never import.
"""
from __future__ import annotations

from typing import Any

import numpy as np

# Category order of PyTorch's promotion lattice.
BOOL, INT, FLOAT, COMPLEX = 0, 1, 2, 3


class dtype:
    """A tensor element type. ``itemsize`` is in bytes; ``name`` is PyTorch's name without the module prefix."""

    __slots__ = ("name", "category", "itemsize", "is_floating_point", "is_complex", "is_signed", "_np", "short", "_rank")

    def __init__(self, name: str, category: int, itemsize: int, np_type: Any, short: str, signed: bool = True,
                 rank: int = 0):
        self.name, self.category, self.itemsize, self._np, self.short = name, category, itemsize, np_type, short
        self.is_floating_point = category == FLOAT
        self.is_complex = category == COMPLEX
        self.is_signed = signed
        self._rank = rank

    @property
    def np(self) -> np.dtype:
        """The NumPy dtype (``ml_dtypes.bfloat16`` for bfloat16)."""
        if self._np is None:
            import ml_dtypes

            self._np = np.dtype(ml_dtypes.bfloat16)
        return self._np

    def __repr__(self) -> str:
        return f"torch.{self.name}"  # PyTorch's spelling: programs print it and compare strings

    def __reduce__(self) -> tuple[Any, ...]:
        return by_name, (self.name,)

    def __copy__(self) -> dtype:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> dtype:
        return self

    def to_real(self) -> dtype:
        return {complex64: float32, complex128: float64}.get(self, self)

    def to_complex(self) -> dtype:
        return {float64: complex128, complex128: complex128}.get(self, complex64)


def _int(name: str, size: int, short: str, signed: bool, rank: int) -> dtype:
    return dtype(name, INT, size, np.dtype(name), short, signed, rank)


bool_ = dtype("bool", BOOL, 1, np.dtype(np.bool_), "b1", False)
uint8 = _int("uint8", 1, "u8", False, 1)
int8 = _int("int8", 1, "i8", True, 1)
int16 = _int("int16", 2, "i16", True, 2)
int32 = _int("int32", 4, "i32", True, 3)
int64 = _int("int64", 8, "i64", True, 4)
uint32 = _int("uint32", 4, "u32", False, 3)  # random bits; PyTorch's limited-support unsigned type
float16 = dtype("float16", FLOAT, 2, np.dtype(np.float16), "f16", rank=1)
bfloat16 = dtype("bfloat16", FLOAT, 2, None, "bf16", rank=1)
float32 = dtype("float32", FLOAT, 4, np.dtype(np.float32), "f32", rank=2)
float64 = dtype("float64", FLOAT, 8, np.dtype(np.float64), "f64", rank=3)
complex64 = dtype("complex64", COMPLEX, 8, np.dtype(np.complex64), "c64", rank=2)
complex128 = dtype("complex128", COMPLEX, 16, np.dtype(np.complex128), "c128", rank=3)

ALL = (bool_, uint8, int8, int16, int32, int64, uint32, float16, bfloat16, float32, float64, complex64, complex128)
_BY_NAME = {d.name: d for d in ALL}
BY_SHORT = {d.short: d for d in ALL}
ALIASES = {"half": float16, "float": float32, "double": float64, "short": int16, "int": int32, "long": int64,
           "cfloat": complex64, "cdouble": complex128}
_FROM_NP = {d._np: d for d in ALL if d._np is not None}


def by_name(name: str) -> dtype:
    """The dtype named ``name`` ("float32", "bool", ...)."""
    return _BY_NAME[name]


def from_numpy(np_dtype: Any) -> dtype:
    """graphc's dtype for a NumPy dtype. Raises TypeError for one PyTorch has no counterpart of."""
    nd = np.dtype(np_dtype)
    found = _FROM_NP.get(nd)
    if found is None:
        if nd.name == "bfloat16":
            return bfloat16
        if nd.newbyteorder("=") in _FROM_NP:
            return _FROM_NP[nd.newbyteorder("=")]
        raise TypeError(f"can't convert np.ndarray of type {nd}. The only supported types are: float64, float32, "
                        "float16, complex64, complex128, int64, int32, int16, int8, uint8, and bool.")
    return found


class _Default:
    """The default floating dtype (``set_default_dtype``): a documented process-wide setting."""

    float = float32


def get_default_dtype() -> dtype:
    """The dtype Python floats take when they become tensors."""
    return _Default.float


def set_default_dtype(d: dtype) -> None:
    """Set the default floating dtype. Raises TypeError when ``d`` is not floating."""
    if not isinstance(d, dtype) or not d.is_floating_point:
        raise TypeError(f"only floating-point types are supported as the default type, got {d}")
    _Default.float = d


def _promote_uncached(a: dtype, b: dtype) -> dtype:
    if a is b:
        return a
    if a.category != b.category:
        hi, lo = (a, b) if a.category > b.category else (b, a)
        if hi.category == COMPLEX and lo is float64:
            return complex128
        return hi
    if a.category == FLOAT and a.itemsize == 2 and b.itemsize == 2:
        return float32  # float16 with bfloat16
    if a.category == INT and a.is_signed != b.is_signed:
        u, s = (a, b) if not a.is_signed else (b, a)
        if s.itemsize > u.itemsize:
            return s
        return {1: int16, 2: int32, 4: int64}.get(u.itemsize, int64)
    return a if a._rank >= b._rank else b


_PROMOTE = {(a, b): _promote_uncached(a, b) for a in ALL for b in ALL}


def promote_types(a: dtype, b: dtype) -> dtype:
    """PyTorch's ``promote_types``: the smallest dtype both convert to."""
    return _PROMOTE[a, b]


def scalar_category(x: Any) -> int:
    """Promotion category of a Python scalar."""
    if isinstance(x, (bool, np.bool_)):
        return BOOL
    if isinstance(x, (int, np.integer)):
        return INT
    if isinstance(x, complex):
        return COMPLEX
    return FLOAT


def default_for_category(cat: int) -> dtype:
    """The dtype a lone Python scalar of this category becomes."""
    return (bool_, int64, _Default.float, _Default.float.to_complex())[cat]


def promote_with_scalar(d: dtype, x: Any) -> dtype:
    """Result dtype of a dimensioned tensor of dtype ``d`` with the Python scalar ``x``."""
    cat = scalar_category(x)
    if cat <= d.category:
        return d
    if cat == COMPLEX:
        return d.to_complex() if d.category == FLOAT else default_for_category(COMPLEX)
    return default_for_category(cat)


class finfo:
    """Limits of a floating dtype, with PyTorch's attribute names."""

    def __init__(self, d: dtype | None = None):
        d = d or _Default.float
        if not (d.is_floating_point or d.is_complex):
            raise TypeError(f"torch.finfo() requires a floating point input type. Use torch.iinfo to handle '{d}'")
        if d is bfloat16:
            import ml_dtypes

            info: Any = ml_dtypes.finfo(d.np)
        else:
            info = np.finfo(d.to_real().np)
        self.dtype = d.name
        self.bits, self.eps, self.max, self.min = info.bits, float(info.eps), float(info.max), float(info.min)
        self.tiny = self.smallest_normal = float(info.tiny)
        self.resolution = float(info.resolution)

    def __repr__(self) -> str:
        return (f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
                f"smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})")


class iinfo:
    """Limits of an integer dtype."""

    def __init__(self, d: dtype):
        if d.category != INT:
            raise TypeError(f"torch.iinfo() requires an integer input type. Use torch.finfo to handle '{d}'")
        info = np.iinfo(d.np)
        self.dtype, self.bits, self.max, self.min = d.name, info.bits, int(info.max), int(info.min)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"


_PYTHON_TYPES = {int: int64, float: float64, complex: complex128, bool: bool_}


def as_dtype(x: Any) -> dtype:
    """A dtype argument: a dtype, or Python's ``int``, ``float``, ``complex`` or ``bool``. TypeError for anything else."""
    if isinstance(x, dtype):
        return x
    found = _PYTHON_TYPES.get(x) if isinstance(x, type) else None
    if found is None:
        raise TypeError(f"argument 'dtype' must be torch.dtype, not {x.__name__ if isinstance(x, type) else type(x).__name__}")
    return found
