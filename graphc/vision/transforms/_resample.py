"""Resizing as two matrix products: output = R_h @ image @ R_w^T, where row i of R holds the weights of output pixel i.

Weights (Pillow's ``Resample.c``, PyTorch's ``UpSampleKernel``): output pixel i looks at input position
``c = (i + 0.5) * scale``; input pixel j has weight ``filter((j + 0.5 - c) / s)``, normalised to sum 1, where
``s = max(scale, 1)`` when anti-aliasing (the filter is stretched to cover what shrinks to one pixel) and 1 otherwise.
"""
from __future__ import annotations

from functools import lru_cache

import numpy as np


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel with parameter ``a``."""
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = a * (((x - 5.0) * x + 8.0) * x - 4.0)
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


@lru_cache(maxsize=256)
def weights(source: int, target: int, mode: str, antialias: bool) -> np.ndarray:
    """The (target, source) matrix, float32. ``mode`` is bilinear or bicubic."""
    scale = source / target
    stretch = max(scale, 1.0) if antialias else 1.0
    centre = (np.arange(target)[:, None] + 0.5) * scale
    radius = 1 if mode == "bilinear" else 2
    if antialias:
        x = (np.arange(source)[None, :] + 0.5 - centre) / stretch
        w = _triangle(x) if mode == "bilinear" else _cubic(x, -0.5)
        return (w / w.sum(1, keepdims=True)).astype(np.float32)
    first = np.floor(centre - 0.5).astype(np.int64) - (radius - 1)
    taps = first + np.arange(2 * radius)[None, :]
    x = taps + 0.5 - centre
    if mode == "bilinear":
        x = taps + 0.5 - np.maximum(centre, 0.5)  # PyTorch clamps the position, not the pixels, at the left edge
        taps = np.maximum(np.floor(np.maximum(centre - 0.5, 0.0)).astype(np.int64) + np.arange(2)[None, :], 0)
        x = taps + 0.5 - np.maximum(centre, 0.5)
    w = _triangle(x) if mode == "bilinear" else _cubic(x, -0.75)
    out = np.zeros((target, source))
    np.add.at(out, (np.arange(target)[:, None], np.clip(taps, 0, source - 1)), w)  # pixels beyond the edge repeat it
    return out.astype(np.float32)


def nearest(source: int, target: int, exact: bool) -> np.ndarray:
    """Index of the input pixel of each output pixel."""
    i = np.arange(target)
    position = (i + 0.5) * (source / target) if exact else i * np.float32(source / target)
    return np.minimum(np.floor(position).astype(np.int64), source - 1)
