"""Sampling of images at arbitrary points: ``grid_sample`` and ``affine_grid``."""
from __future__ import annotations

import itertools
import warnings
from typing import Any

from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor
from . import joining, pointwise
from .creation import linspace, ones
from .indexing import gather
from .pointwise import floor, round

_MODES, _PADDINGS = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
_CUBIC = -0.75  # Keys' parameter, as in PyTorch's bicubic interpolation


def _clip(x: Tensor, size: int) -> Tensor:
    """Into [0, size - 1]; the gradient is zero on the ends too."""
    low = pointwise.le(x, 0)
    return _where(low, 0.0, _where(pointwise.ge(x, size - 1), float(size - 1), x))


def _where(condition: Tensor, a: Any, b: Any) -> Tensor:
    from .indexing import where

    return where(condition, a, b)


def _reflect(x: Tensor, twice_low: int, twice_high: int) -> Tensor:
    """Mirrored at both ends of [twice_low / 2, twice_high / 2] until inside."""
    if twice_low == twice_high:
        return x * 0
    low, span = twice_low / 2, (twice_high - twice_low) / 2
    away = (x - low).abs()
    rest, flips = pointwise.fmod(away, span), floor(away / span)
    return _where(pointwise.remainder(flips, 2) == 0, rest + low, span - rest + low)


def _positions(x: Tensor, size: int, padding: str, align: bool) -> Tensor:
    """Pixel positions moved into the image as the padding says ("zeros": unchanged)."""
    if padding == "border":
        return _clip(x, size)
    if padding == "reflection":
        x = _reflect(x, 0, 2 * (size - 1)) if align else _reflect(x, -1, 2 * size - 1)
        return _clip(x, size)
    return x


class _Image:
    """Pixels of (N, C, *sizes) read at integer positions (N, points) per dimension; zero outside."""

    def __init__(self, image: Tensor):
        self.sizes = tuple(image.shape[2:])
        self.flat = image.reshape(tuple(image.shape[:2]) + (-1,))

    def at(self, corner: list[Tensor]) -> Tensor:
        """(N, C, points)."""
        index: Any = None
        inside: Any = None
        for i, n in zip(corner, self.sizes):
            ok = pointwise.logical_and(i >= 0, i <= n - 1)
            inside = ok if inside is None else pointwise.logical_and(inside, ok)
            whole = i.clamp(0, n - 1).long()
            index = whole if index is None else index * n + whole
        channels = self.flat.shape[1]
        index = index.unsqueeze(1).expand(-1, channels, -1)
        return gather(self.flat, 2, index) * inside.unsqueeze(1).to(self.flat.dtype)


def _linear(image: _Image, points: list[Tensor]) -> Tensor:
    floors = [floor(x).detach() for x in points]
    out: Any = None
    for corner in itertools.product((0, 1), repeat=len(points)):
        weight: Any = 1.0
        for bit, x, f in zip(corner, points, floors):
            weight = weight * (x - f if bit else f + 1 - x)
        term = image.at([f + bit for bit, f in zip(corner, floors)]) * weight.unsqueeze(1)
        out = term if out is None else out + term
    return out


def _cubic_weights(t: Tensor) -> list[Tensor]:
    """Weights of the pixels at -1, 0, 1, 2 for a point at t in [0, 1) (Keys 1981)."""
    a = _CUBIC

    def near(d: Tensor) -> Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Tensor) -> Tensor:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _bicubic(image: _Image, points: list[Tensor], padding: str, align: bool) -> Tensor:
    floors = [floor(x).detach() for x in points]
    weights = [_cubic_weights(x - f) for x, f in zip(points, floors)]
    out: Any = None
    for i, j in itertools.product(range(4), repeat=2):
        corner = [_positions(f + (k - 1), n, padding, align) for f, k, n in zip(floors, (i, j), image.sizes)]
        corner = [round(c) for c in corner] if padding == "reflection" else corner
        term = image.at(corner) * (weights[0][i] * weights[1][j]).unsqueeze(1)
        out = term if out is None else out + term
    return out


def grid_sample(input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
                align_corners: bool | None = None) -> Tensor:
    """``input`` (N, C, H, W) or (N, C, D, H, W) read at ``grid`` (N, *out, 2 or 3), whose last dimension holds x, y (, z) in
    [-1, 1]: -1 and 1 are the centres of the corner pixels (``align_corners``) or the image's edges.

    Raises ShapeError for shapes that do not fit and ValueError for unknown modes.
    """
    if mode not in _MODES:
        raise ArgumentError(f"nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: "
                            f"'{mode}'")
    if padding_mode not in _PADDINGS:
        raise ArgumentError("nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', but "
                            f"got: '{padding_mode}'")
    if align_corners is None:
        warnings.warn("Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0.",
                      stacklevel=2)
    align = bool(align_corners)
    n = input.ndim - 2
    if n not in (2, 3) or grid.ndim != input.ndim or grid.shape[-1] != n or grid.shape[0] != input.shape[0]:
        raise ShapeError("grid_sampler(): expected 4D or 5D input and grid with same number of dimensions and batch size, and "
                         f"grid to have size {max(n, 0)} in last dimension, but got input with sizes {list(input.shape)} and "
                         f"grid with sizes {list(grid.shape)}")
    if 0 in input.shape[2:]:
        raise ShapeError(f"grid_sampler(): expected input to have non-empty spatial dimensions, but input has sizes "
                         f"{list(input.shape)}")
    if mode == "bicubic" and n == 3:
        raise ShapeError("grid_sampler(): bicubic interpolation only supports 4D input")
    image, out_shape = _Image(input), tuple(grid.shape[1:-1])
    flat = grid.reshape(grid.shape[0], -1, n)
    points = []
    for d, size in enumerate(image.sizes):
        x = flat[:, :, n - 1 - d]
        x = (x + 1) * ((size - 1) / 2) if align else ((x + 1) * size - 1) / 2
        points.append(x if mode == "bicubic" else _positions(x, size, padding_mode, align))
    if mode == "bicubic":
        y = _bicubic(image, points, padding_mode, align)
    elif mode == "nearest":
        y = image.at([round(x).detach() for x in points])
    else:
        y = _linear(image, points)
    return y.reshape(tuple(input.shape[:2]) + out_shape)


def affine_grid(theta: Tensor, size: Any, align_corners: bool | None = None) -> Tensor:
    """The grid of an affine map: ``theta`` (N, 2, 3) or (N, 3, 4), ``size`` of the output (N, C, [D,] H, W)."""
    if not theta.is_floating_point():
        raise ArgumentError(f"Expected theta to have floating point type, but got {theta.dtype}")
    if align_corners is None:
        warnings.warn("Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0.",
                      stacklevel=2)
    n = len(size) - 2
    if n not in (2, 3) or theta.ndim != 3 or tuple(theta.shape[1:]) != (n, n + 1):
        raise ArgumentError(f"Expected a batch of {max(n, 2)}D affine matrices of shape Nx{max(n, 2)}x{max(n, 2) + 1} for size "
                            f"{tuple(size)}. Got {tuple(theta.shape)}.")
    if min(size) <= 0:
        raise ArgumentError(f"Expected non-zero, positive output size. Got {tuple(size)}")
    sizes = tuple(size[2:])
    axes = []
    for d in reversed(range(n)):  # x first
        k = sizes[d]
        line = linspace(-1, 1, k, dtype=theta.dtype, device=theta.device) if k > 1 else ones(1, dtype=theta.dtype) * 0
        if not align_corners:
            line = line * ((k - 1) / k)
        view = [1] * n
        view[d] = k
        axes.append(line.reshape(view).expand(sizes))
    base = joining.stack([*axes, ones(sizes, dtype=theta.dtype, device=theta.device)], -1).reshape(1, -1, n + 1)
    return (base @ theta.transpose(1, 2)).reshape((theta.shape[0], *sizes, n))


NAMES = ["grid_sample", "affine_grid"]
