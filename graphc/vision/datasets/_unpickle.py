"""Reading pickles that hold nothing but NumPy arrays and Python's plain containers."""
from __future__ import annotations

import pickle
from typing import Any

import numpy as np


def _empty_array(subtype: Any, shape: Any, code: Any) -> np.ndarray:
    """Stands for NumPy's ``_reconstruct``: the data and the real shape follow, whatever size the file asks for here."""
    return np.ndarray((0,), np.uint8)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: str, axis_order: Any = None) -> np.ndarray:
    """NumPy's ``_frombuffer`` (protocol 5), into memory of its own."""
    if axis_order is not None:
        raise pickle.UnpicklingError("arrays with permuted axes are not supported")
    return np.frombuffer(data, dtype=dtype).reshape(shape, order=order).copy()  # type: ignore[call-overload]


def _encode(text: str, encoding: str = "latin1", errors: str = "strict") -> bytes:
    """How Python 3 writes bytes into old pickles; ``_codecs.encode`` itself would accept any codec."""
    if encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise pickle.UnpicklingError(f"codec {encoding!r} is not allowed")
    return text.encode(encoding, errors)


_PLAIN: dict[str, Any] = {t.__name__: t for t in (list, tuple, dict, set, frozenset, int, float, complex, bool, str, bytes,
                                                  bytearray)}
_PLAIN |= {"long": int, "unicode": str}  # Python 2
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    **{(module, "_reconstruct"): _empty_array for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{(module, "_frombuffer"): _from_buffer for module in ("numpy.core.numeric", "numpy._core.numeric")},
    **{(module, name): kind for module in ("builtins", "__builtin__") for name, kind in _PLAIN.items()},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not allowed here") from None


def load_plain(f: Any) -> Any:
    """The object in a pickle of arrays and plain containers (text of Python 2 is read as latin-1).

    Nothing the pickle names can run. Raises pickle.UnpicklingError or another exception for anything else.
    """
    return _Unpickler(f, encoding="latin1").load()
