"""``torch.testing``: comparison with a readable failure."""
from __future__ import annotations

from typing import Any

import numpy as np

from .tensor import Tensor, to_numpy

_TOLERANCES = {"float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5), "float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7)}


def assert_close(actual: Any, expected: Any, *, allow_subclasses: bool = True, rtol: float | None = None,
                 atol: float | None = None, equal_nan: bool = False, check_device: bool = True, check_dtype: bool = True,
                 check_layout: bool = True, check_stride: bool = False, msg: Any = None) -> None:
    """Raise AssertionError unless both agree in type, shape, dtype and, within tolerance, in value. Default tolerances
    are PyTorch's per dtype."""
    if isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected), f"The length of the sequences mismatch: {len(actual)} != {len(expected)}"
        for a, e in zip(actual, expected):
            assert_close(a, e, rtol=rtol, atol=atol, equal_nan=equal_nan, check_dtype=check_dtype, msg=msg)
        return
    if isinstance(actual, Tensor) and isinstance(expected, Tensor):
        if tuple(actual.shape) != tuple(expected.shape):
            raise AssertionError(f"The values for attribute 'shape' do not match: {actual.shape} != {expected.shape}.")
        if check_dtype and actual.dtype is not expected.dtype:
            raise AssertionError(f"The values for attribute 'dtype' do not match: {actual.dtype} != {expected.dtype}.")
        name = expected.dtype.name
    else:
        name = "float64" if isinstance(expected, float) else ""
    r, a_tol = _TOLERANCES.get(name, (0.0, 0.0))
    x, y = (to_numpy(t).astype(np.float64) if isinstance(t, Tensor) else np.asarray(t, np.float64)
            for t in (actual, expected))
    np.testing.assert_allclose(x, y, rtol=r if rtol is None else rtol, atol=a_tol if atol is None else atol,
                               equal_nan=equal_nan, err_msg="" if msg is None else str(msg))


def assert_allclose(actual: Any, expected: Any, rtol: float | None = None, atol: float | None = None,
                    equal_nan: bool = True, msg: str = "") -> None:
    """The older, looser comparison: dtypes may differ and NaNs are equal."""
    assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=equal_nan, check_dtype=False, msg=msg or None)
