"""``torch.signal.windows``: windows of ``M`` elements, 1 at their largest, symmetric by default (``sym``) or periodic.

All take ``dtype``, ``layout``, ``device`` and ``requires_grad``; ValueError for a negative ``M``, parameters out of range and
dtypes that are not floating point. An empty window for M = 0, one 1 for M = 1.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..device import require
from ..dtypes import dtype as DType
from ..dtypes import float32, float64, get_default_dtype
from ..ops.special_functions import i0
from ..tensor import Tensor, from_array, to_numpy

__all__ = ["bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine", "general_hamming", "hamming", "hann",
           "kaiser", "nuttall"]


def _window(name: str, M: int, sym: bool, fn: Callable[[np.ndarray, int], np.ndarray], dtype: DType | None, layout: Any,
            device: Any, requires_grad: bool) -> Tensor:
    """``fn(0..M-1, number of steps in a period)``."""
    if M < 0:
        raise ValueError(f"{name} requires non-negative window length, got M={M}")
    dt = dtype or get_default_dtype()
    if dt not in (float32, float64):
        raise ValueError(f"{name} expects float32 or float64 dtypes, got: {dt}")
    w = np.ones(M) if M <= 1 else fn(np.arange(M, dtype=np.float64), M - 1 if sym else M)
    t = from_array(w.astype(dt.np), dev=require(device))
    return t.requires_grad_(True) if requires_grad else t


def _cosines(k: np.ndarray, n: int, a: Iterable[float]) -> np.ndarray:
    return sum(((-1) ** i * c * np.cos(2 * math.pi * i * k / n) for i, c in enumerate(a)), np.zeros_like(k))


def bartlett(M: int, *, sym: bool = True, dtype: DType | None = None, layout: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """1 - |2 k / N - 1|: a triangle."""
    return _window("bartlett", M, sym, lambda k, n: 1 - np.abs(2 * k / n - 1), dtype, layout, device, requires_grad)


def blackman(M: int, *, sym: bool = True, dtype: DType | None = None, layout: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """0.42 - 0.5 cos(2 pi k / N) + 0.08 cos(4 pi k / N)."""
    return general_cosine(M, a=[0.42, 0.5, 0.08], sym=sym, dtype=dtype, layout=layout, device=device,
                          requires_grad=requires_grad)


def cosine(M: int, *, sym: bool = True, dtype: DType | None = None, layout: Any = None, device: Any = None,
           requires_grad: bool = False) -> Tensor:
    """sin(pi (k + 1/2) / M): half a wave."""
    return _window("cosine", M, sym, lambda k, n: np.sin(math.pi * (k + 0.5) / (n + 1)), dtype, layout, device, requires_grad)


def exponential(M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True, dtype: DType | None = None,
                layout: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """e^(-|k - center| / tau); the centre is the middle, and may be given for periodic windows only."""
    if tau <= 0:
        raise ValueError(f"Tau must be positive, got: {tau} instead.")
    if sym and center is not None:
        raise ValueError("Center must be None for symmetric windows")
    return _window("exponential", M, sym, lambda k, n: np.exp(-np.abs(k - (n / 2 if center is None else center)) / tau), dtype,
                   layout, device, requires_grad)


def gaussian(M: int, *, std: float = 1.0, sym: bool = True, dtype: DType | None = None, layout: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """e^(-((k - N / 2) / std)^2 / 2)."""
    if std <= 0:
        raise ValueError(f"Standard deviation must be positive, got: {std} instead.")
    return _window("gaussian", M, sym, lambda k, n: np.exp(-0.5 * ((k - n / 2) / std) ** 2), dtype, layout, device,
                   requires_grad)


def general_cosine(M: int, *, a: Iterable[float], sym: bool = True, dtype: DType | None = None, layout: Any = None,
                   device: Any = None, requires_grad: bool = False) -> Tensor:
    """The sum of (-1)^i a_i cos(2 pi i k / N). TypeError unless ``a`` is a list of numbers, ValueError for an empty one."""
    if not isinstance(a, Iterable):
        raise TypeError("Coefficients must be a list/tuple")
    weights = list(a)
    if not weights:
        raise ValueError("Coefficients cannot be empty")
    return _window("general_cosine", M, sym, lambda k, n: _cosines(k, n, weights), dtype, layout, device, requires_grad)


def general_hamming(M: int, *, alpha: float = 0.54, sym: bool = True, dtype: DType | None = None, layout: Any = None,
                    device: Any = None, requires_grad: bool = False) -> Tensor:
    """alpha - (1 - alpha) cos(2 pi k / N)."""
    return general_cosine(M, a=[alpha, 1.0 - alpha], sym=sym, dtype=dtype, layout=layout, device=device,
                          requires_grad=requires_grad)


def hamming(M: int, *, sym: bool = True, dtype: DType | None = None, layout: Any = None, device: Any = None,
            requires_grad: bool = False) -> Tensor:
    """0.54 - 0.46 cos(2 pi k / N)."""
    return general_hamming(M, sym=sym, dtype=dtype, layout=layout, device=device, requires_grad=requires_grad)


def hann(M: int, *, sym: bool = True, dtype: DType | None = None, layout: Any = None, device: Any = None,
         requires_grad: bool = False) -> Tensor:
    """(1 - cos(2 pi k / N)) / 2."""
    return general_hamming(M, alpha=0.5, sym=sym, dtype=dtype, layout=layout, device=device, requires_grad=requires_grad)


def kaiser(M: int, *, beta: float = 12.0, sym: bool = True, dtype: DType | None = None, layout: Any = None, device: Any = None,
           requires_grad: bool = False) -> Tensor:
    """I_0(beta sqrt(1 - (2 k / N - 1)^2)) / I_0(beta)."""
    if beta < 0:
        raise ValueError(f"beta must be non-negative, got: {beta} instead.")

    def values(k: np.ndarray, n: int) -> np.ndarray:
        x = beta * np.sqrt(np.maximum(1 - (2 * k / n - 1) ** 2, 0))
        return to_numpy(i0(from_array(x))) / float(to_numpy(i0(from_array(np.array(float(beta))))))

    return _window("kaiser", M, sym, values, dtype, layout, device, requires_grad)


def nuttall(M: int, *, sym: bool = True, dtype: DType | None = None, layout: Any = None, device: Any = None,
            requires_grad: bool = False) -> Tensor:
    """Nuttall's minimum four-term Blackman-Harris window."""
    return general_cosine(M, a=[0.3635819, 0.4891775, 0.1365995, 0.0106411], sym=sym, dtype=dtype, layout=layout, device=device,
                          requires_grad=requires_grad)
