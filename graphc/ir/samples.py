"""Sample inputs for rows of the op table.

A sample is ``(arrays, attrs)``. The test sweep runs every sample through the NumPy meaning, each back end and, in
float64, gradcheck. Arrays are drawn from a fixed seed per call so that rows are independent.
"""
from __future__ import annotations

import zlib
from typing import Any

import numpy as np

Sample = tuple[tuple[np.ndarray, ...], Any]


def draw(tag: str, *shape: int, lo: float = -2.0, hi: float = 2.0, dtype: Any = np.float64) -> np.ndarray:
    """Uniform values in [lo, hi); integers are drawn inclusive of lo, exclusive of hi; booleans fairly."""
    rng = np.random.default_rng(zlib.crc32(f"{tag}{shape}{lo}{hi}".encode()))
    dt = np.dtype(dtype)
    if dt == np.bool_:
        return rng.random(shape) < 0.5
    if dt.kind in "iu":
        return rng.integers(int(lo), max(int(hi), int(lo) + 1), size=shape).astype(dt)
    return rng.uniform(lo, hi, size=shape).astype(dt)


def unary(lo: float = -2.0, hi: float = 2.0, attrs: Any = ()) -> Any:
    """Samples for a unary op on the domain (lo, hi)."""
    return lambda: [((draw("u", 3, 4, lo=lo, hi=hi),), attrs), ((draw("u0", lo=lo, hi=hi),), attrs),
                    ((draw("ue", 0, 3),), attrs)]


def binary(lo: float = -2.0, hi: float = 2.0, dtype: Any = np.float64, lo2: float | None = None,
           hi2: float | None = None) -> Any:
    """Samples for a binary op, equal shapes and broadcasting."""
    a2, b2 = lo if lo2 is None else lo2, hi if hi2 is None else hi2

    def make() -> list[Sample]:
        return [((draw("a", 3, 4, lo=lo, hi=hi, dtype=dtype), draw("b", 3, 4, lo=a2, hi=b2, dtype=dtype)), ()),
                ((draw("a", 3, 1, lo=lo, hi=hi, dtype=dtype), draw("b", 4, lo=a2, hi=b2, dtype=dtype)), ()),
                ((draw("a", lo=lo, hi=hi, dtype=dtype), draw("b", 2, 0, lo=a2, hi=b2, dtype=dtype)), ())]

    return make
