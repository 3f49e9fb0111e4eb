"""``torch.testing``: comparison with a readable failure."""
from __future__ import annotations

from typing import Any

import numpy as np

from . import dtypes
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


def make_tensor(*shape: Any, dtype: Any, device: Any, low: float | None = None, high: float | None = None,
                requires_grad: bool = False, noncontiguous: bool = False, exclude_zero: bool = False,
                memory_format: Any = None) -> Tensor:
    """Random numbers in [low, high) for tests: by default [-9, 9] for floating and signed dtypes, [0, 9] for uint8, 0 and 1 for
    bool; complex ones in both parts.

    ``noncontiguous``: every second element of a larger tensor; ``exclude_zero``: zeros become the smallest positive number (1
    for integers). ValueError for an empty range, or gradients of integers.
    """
    from . import ops

    sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    if dtype.category == 0:
        ends = (0, 2)
    elif dtype.category == 1:
        ends = (0 if not dtype.is_signed else -9, 10)
    else:
        ends = (-9, 9)
    low, high = ends[0] if low is None else low, ends[1] if high is None else high
    if not low < high:
        raise ValueError(f"make_tensor: expected low < high, got {low} and {high}")
    if requires_grad and dtype.category < 2:
        raise ValueError(f"`requires_grad=True` is not supported for boolean and integral dtypes, but got {dtype}")
    wide = noncontiguous and bool(sizes) and int(np.prod(sizes)) > 1
    full = (*sizes[:-1], 2 * sizes[-1]) if wide else sizes
    if dtype.category < 2:
        t = ops.randint(int(np.ceil(low)), int(np.ceil(high)), full, device=device).to(dtype)
    else:
        part = {"complex64": "float32", "complex128": "float64"}.get(dtype.name, dtype.name)
        real = getattr(dtypes, part)
        draws = [(ops.rand(full, device=device, dtype=dtypes.float64) * (high - low) + low).to(real)
                 for _ in range(1 + dtype.is_complex)]
        t = ops.complex(*draws) if dtype.is_complex else draws[0]
    t = t[..., ::2] if wide else t
    if exclude_zero:
        t = ops.where(t == 0, 1 if dtype.category < 2 else dtypes.finfo(dtype).tiny, t).to(dtype)
    return t.detach().requires_grad_() if requires_grad else t
