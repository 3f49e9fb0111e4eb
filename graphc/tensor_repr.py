"""Tensor printing, character for character as PyTorch does it, from NumPy arrays alone.

The rules (fixed width per tensor, scientific notation when the magnitudes spread over more than 1000 or leave
[1e-4, 1e8], summarising above ``threshold`` items) are those of PyTorch 2.x's ``torch/_tensor_str.py``.
"""
from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass
class _PrintOptions:
    """Process-wide print options, changed by :func:`set_printoptions` only."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


PRINT_OPTS = _PrintOptions()
_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}
_COMPLEX_OF = {"float64": "complex128"}  # the default complex dtype that goes with a default float dtype


def set_printoptions(precision: int | None = None, threshold: float | None = None, edgeitems: int | None = None,
                     linewidth: int | None = None, profile: str | None = None, sci_mode: bool | None = None) -> None:
    """Set how tensors print. ``profile`` ("default", "short" or "full") is applied first, then the other options.

    ``sci_mode`` forces scientific notation on or off; None, its value whenever it is not given, chooses by magnitude.
    """
    changes = dict(_PROFILES.get(profile, {})) if profile is not None else {}
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    changes.update({name: value for name, value in given.items() if value is not None})
    for name, value in changes.items():
        setattr(PRINT_OPTS, name, value)
    PRINT_OPTS.sci_mode = sci_mode


def get_printoptions() -> dict[str, Any]:
    """The current options as a dict that :func:`set_printoptions` takes as keywords."""
    return asdict(PRINT_OPTS)


@contextlib.contextmanager
def printoptions(**kwargs: Any) -> Iterator[None]:
    """Context manager: :func:`set_printoptions` inside, the old options again afterwards."""
    old = get_printoptions()
    set_printoptions(**kwargs)
    try:
        yield
    finally:
        set_printoptions(**old)


class _Formatter:
    """Formats every element of one tensor (or one part of a complex tensor) to a common width."""

    def __init__(self, array: np.ndarray, floating: bool):
        self.floating = floating
        self.int_mode = True
        self.sci_mode = False
        self.width = 1
        if floating:
            self._plan_floats(array)
        else:
            self.width = max((len(str(v)) for v in array.ravel().tolist()), default=1)

    def _plan_floats(self, array: np.ndarray) -> None:
        values = array.ravel().astype(np.float64)
        values = values[np.isfinite(values) & (values != 0)]
        if values.size == 0:
            return
        self.int_mode = bool((values == np.ceil(values)).all())
        self.sci_mode = self._wants_sci(np.abs(values)) if PRINT_OPTS.sci_mode is None else PRINT_OPTS.sci_mode
        # In int mode a "." follows the digits so that the tensor reads as floating: one more character.
        spec, extra = self._spec(), int(self.int_mode and not self.sci_mode)
        self.width = max(1, max(len(format(v, spec)) for v in values.tolist()) + extra)

    @staticmethod
    def _wants_sci(magnitudes: np.ndarray) -> bool:
        low, high = magnitudes.min(), magnitudes.max()
        with np.errstate(over="ignore"):
            return bool(high / low > 1000.0 or high > 1.0e8 or low < 1.0e-4)

    def _spec(self) -> str:
        if self.sci_mode:
            return f".{PRINT_OPTS.precision}e"
        return ".0f" if self.int_mode else f".{PRINT_OPTS.precision}f"

    def format(self, value: Any) -> str:
        """``value`` (a Python scalar) right-aligned to the common width."""
        if not self.floating:
            text = str(value)
        else:
            text = format(value, self._spec())
            if self.int_mode and not self.sci_mode and math.isfinite(value):
                text += "."
        return text.rjust(self.width)


class _Printer:
    """Lays the formatted elements of one tensor out in nested brackets."""

    def __init__(self, array: np.ndarray, indent: int):
        self.summarize = array.size > PRINT_OPTS.threshold
        self.indent = indent
        sample = _summary(array) if self.summarize else array
        self.imag: _Formatter | None = None
        if array.dtype.kind == "c":
            self.real, self.imag = _Formatter(sample.real, True), _Formatter(sample.imag, True)
        else:
            self.real = _Formatter(sample, array.dtype.kind not in "biu")

    def one(self, value: Any) -> str:
        """One element; complex numbers as ``a+bj``."""
        if self.imag is None:
            return self.real.format(value)
        imag = (self.imag.format(value.imag) + "j").lstrip()
        return self.real.format(value.real) + ("" if imag[0] in "+-" else "+") + imag

    def vector(self, array: np.ndarray, indent: int) -> str:
        """A 1-d array, wrapped to the line width."""
        edge = PRINT_OPTS.edgeitems
        length = self.real.width + 2 + (self.imag.width + 1 if self.imag is not None else 0)
        per_line = max(1, math.floor((PRINT_OPTS.linewidth - indent) / length))
        if self.summarize and not edge:
            data = ["..."]
        elif self.summarize and len(array) > 2 * edge:
            data = [*map(self.one, array[:edge].tolist()), " ...", *map(self.one, array[-edge:].tolist())]
        else:
            data = [self.one(v) for v in array.tolist()]
        lines = [", ".join(data[i:i + per_line]) for i in range(0, len(data), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"

    def nested(self, array: np.ndarray, indent: int) -> str:
        """Any array; recursion depth is the number of dimensions (NumPy allows 64)."""
        if array.ndim == 0:
            return self.one(array.item())
        if array.ndim == 1:
            return self.vector(array, indent)
        edge, rows = PRINT_OPTS.edgeitems, len(array)
        if self.summarize and rows > 2 * edge:
            parts = [self.nested(array[i], indent + 1) for i in range(edge)] + ["..."]
            parts += [self.nested(array[i], indent + 1) for i in range(rows - edge, rows)]
        else:
            parts = [self.nested(array[i], indent + 1) for i in range(rows)]
        return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def _summary(array: np.ndarray) -> np.ndarray:
    """The elements that a summarised print shows, from which the width is computed."""
    edge = PRINT_OPTS.edgeitems
    if array.ndim > 1 and not edge:
        return array[(slice(0),) * array.ndim]
    for axis in range(array.ndim):
        if array.shape[axis] > 2 * edge:
            head, tail = [slice(None)] * array.ndim, [slice(None)] * array.ndim
            head[axis], tail[axis] = slice(edge), slice(-edge, None)
            array = np.concatenate([array[tuple(head)], array[tuple(tail)]], axis)
    return array


def _join_suffixes(text: str, suffixes: Sequence[str], indent: int) -> str:
    """Append ``, suffix`` parts, on a new line where the line would grow too long, and the closing parenthesis."""
    last = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if last + len(suffix) + 2 > PRINT_OPTS.linewidth:
            text += ",\n" + " " * indent + suffix
            last = indent + len(suffix)
        else:
            text += ", " + suffix
            last += len(suffix) + 2
    return text + ")"


def _suffixes(shape: tuple[int, ...], dtype_name: str, device: str, requires_grad: bool, grad_fn_name: str | None,
              default_dtype: str, meta: bool) -> list[str]:
    """The ``device=``, ``size=``, ``dtype=`` and gradient parts, in PyTorch's order."""
    found = [] if device.partition(":")[0] == "cpu" else [f"device='{device}'"]
    empty = 0 in shape
    if meta or (empty and len(shape) != 1) or (not empty and not PRINT_OPTS.edgeitems):
        found.append(f"size={shape}")
    # An empty or meta tensor shows no element from which int64, bool or complex could be told.
    plain = {default_dtype}
    if not (meta or empty):
        plain |= {_COMPLEX_OF.get(default_dtype, "complex64"), "int64", "bool"}
    if dtype_name not in plain:
        found.append(f"dtype=torch.{dtype_name}")
    if grad_fn_name is not None:
        found.append(f"grad_fn=<{grad_fn_name}>")
    elif requires_grad:
        found.append("requires_grad=True")
    return found


def tensor_repr(array: np.ndarray | None, *, dtype_name: str | None = None, device: str = "cpu",
                requires_grad: bool = False, grad_fn_name: str | None = None, default_dtype: str = "float32",
                prefix: str = "tensor(", shape: Sequence[int] | None = None) -> str:
    """The text PyTorch prints for a tensor.

    ``array``: the values, of any shape and any numeric, bool or complex dtype (``ml_dtypes.bfloat16`` included); None
    for a tensor without data (meta), which prints as ``...`` and needs ``shape`` and ``dtype_name``. ``dtype_name``
    and ``default_dtype`` are PyTorch's names ("float32"); ``device`` prints when it is not the CPU; ``grad_fn_name``
    is the class name of the backward node; ``prefix`` differs for subclasses. Raises ValueError when ``array`` is
    None and ``shape`` or ``dtype_name`` is missing.
    """
    meta = array is None
    if meta and (shape is None or dtype_name is None):
        raise ValueError("tensor_repr() of a tensor without data needs both shape and dtype_name")
    dims = tuple(int(n) for n in (shape if shape is not None else np.shape(array)))  # type: ignore[arg-type]
    name = dtype_name if dtype_name is not None else str(array.dtype.name)  # type: ignore[union-attr]
    if array is None:
        body = "..."
    else:
        body = "[]" if array.size == 0 else _Printer(array, len(prefix)).nested(array, len(prefix))
    suffixes = _suffixes(dims, name, str(device), requires_grad, grad_fn_name, default_dtype, meta)
    return _join_suffixes(prefix + body, suffixes, len(prefix))
