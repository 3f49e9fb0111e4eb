"""The functions of ``functional`` on tensors (..., C, H, W).

Small images that are already computed (a loader's samples) are flipped, cropped and normalised by NumPy at once:
recording would cost more than the work, and random crops would grow the trie with programs that never repeat.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import ops
from ...dtypes import dtype, float32, float64, int64, uint8
from ...ir.recorder import state
from ...tensor import Tensor, to_numpy
from ...utils.data._utils.host import adopt, computed
from . import _resample

_SMALL = 1 << 20  # elements


def _image(img: Tensor) -> Tensor:
    if img.ndim < 2:
        raise TypeError(f"Tensor is not a torch image: it needs at least 2 dimensions, shape is {tuple(img.shape)}")
    return img


def get_dimensions(img: Tensor) -> list[int]:
    """[channels, height, width]."""
    _image(img)
    return [1 if img.ndim == 2 else img.shape[-3], img.shape[-2], img.shape[-1]]


def _channels(img: Tensor, permitted: Sequence[int] = (1, 3)) -> int:
    c = get_dimensions(img)[0]
    if c not in permitted:
        raise TypeError(f"Input image tensor permitted channel values are {list(permitted)}, but found {c}")
    return c


def host_data(img: Tensor) -> np.ndarray:
    """The image on the host, for reading (16-bit floats as float32)."""
    arr = computed(img)
    arr = to_numpy(img.detach()) if arr is None else arr
    return arr.astype(np.float32) if arr.dtype.itemsize == 2 and img.is_floating_point() else arr


def _small(img: Tensor) -> np.ndarray | None:
    """The data of a small, already computed image outside compiled calls, else None."""
    return computed(img) if not state.hold and not state.tracing and img.numel() <= _SMALL else None


def _max_value(dt: dtype) -> int:
    return 1 if dt.category != 1 else (1 << (dt.itemsize * 8 - dt.is_signed)) - 1


# --------------------------------------------------------------------------------------------------------- conversions
def convert_image_dtype(image: Tensor, dt: dtype) -> Tensor:
    """See ``functional.convert_image_dtype``."""
    source = image.dtype
    if source is dt:
        return image
    if source.is_floating_point:
        if dt.is_floating_point:
            return image.to(dt)
        if (source is float32 and dt.itemsize >= 4) or (source is float64 and dt is int64):
            raise RuntimeError(f"The cast from {source} to {dt} cannot be performed safely.")
        return image.mul(_max_value(dt) + 1.0 - 1e-3).to(dt)  # evenly many floats for every integer
    if dt.is_floating_point:
        return image.to(dt) / _max_value(source)
    have, want = _max_value(source) + 1, _max_value(dt) + 1
    if have > want:
        return ops.div(image, have // want, rounding_mode="floor").to(dt)
    return image.to(dt) * (want // have)


def normalize(tensor: Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool) -> Tensor:
    """See ``functional.normalize``."""
    _image(tensor)
    if not tensor.is_floating_point():
        raise TypeError(f"Input tensor should be a float tensor. Got {tensor.dtype}.")
    if tensor.ndim < 3:
        raise ValueError("Expected tensor to be a tensor image of size (..., C, H, W). Got tensor.size() = "
                         f"{tensor.size()}")
    arr = None if inplace or tensor.dtype.itemsize < 4 else _small(tensor)
    m, s = _per_channel(mean, tensor.dtype), _per_channel(std, tensor.dtype)
    if (s == 0).any():
        raise ValueError(f"std evaluated to zero after conversion to {tensor.dtype}, leading to division by zero.")
    if arr is not None:
        out = arr - m
        out /= s
        return adopt(out)
    mt, st = adopt(m).to(tensor.device), adopt(s).to(tensor.device)
    return tensor.sub_(mt).div_(st) if inplace else tensor.sub(mt).div(st)


def _per_channel(values: Any, dt: dtype) -> np.ndarray:
    data = to_numpy(values.detach()) if isinstance(values, Tensor) else np.asarray(values)
    data = data.astype(dt.np)
    return data.reshape(-1, 1, 1) if data.ndim == 1 else data


# ------------------------------------------------------------------------------------------------------------ geometry
def hflip(img: Tensor) -> Tensor:
    arr = _small(_image(img))
    return img.flip(-1) if arr is None else adopt(arr[..., ::-1])


def vflip(img: Tensor) -> Tensor:
    arr = _small(_image(img))
    return img.flip(-2) if arr is None else adopt(arr[..., ::-1, :])


def crop(img: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """The box at (top, left), 0 outside the image."""
    _, h, w = get_dimensions(img)
    right, bottom = left + width, top + height
    if left < 0 or top < 0 or right > w or bottom > h:
        around = (max(min(right, 0) - left, 0), max(min(bottom, 0) - top, 0),
                  max(right - max(w, left), 0), max(bottom - max(h, top), 0))
        inner = img[..., max(top, 0):max(bottom, 0), max(left, 0):max(right, 0)]
        return pad(inner, around, 0, "constant")
    arr = _small(img)
    return img[..., top:bottom, left:right] if arr is None else adopt(np.array(arr[..., top:bottom, left:right], order="C"))


def pad(img: Tensor, padding: tuple[int, int, int, int], fill: Any, padding_mode: str) -> Tensor:
    """``padding`` is (left, top, right, bottom)."""
    left, top, right, bottom = padding
    if min(padding) < 0:
        h, w = img.shape[-2:]
        img = img[..., max(-top, 0):h - max(-bottom, 0), max(-left, 0):w - max(-right, 0)]
        left, top, right, bottom = (max(p, 0) for p in padding)
    h, w = img.shape[-2:]
    if padding_mode == "constant":
        if isinstance(fill, (tuple, list)):
            if len(fill) != 1:
                raise TypeError(f"Got inappropriate fill arg for a tensor: {fill!r}; use one number")
            fill = fill[0]
        arr = _small(img)
        if arr is not None:
            out = np.full((*arr.shape[:-2], h + top + bottom, w + left + right), fill, arr.dtype)
            out[..., top:top + h, left:left + w] = arr
            return adopt(out)
        canvas = img.new_full((*img.shape[:-2], h + top + bottom, w + left + right), fill)
        canvas[..., top:top + h, left:left + w] = img
        return canvas
    if padding_mode == "reflect" and (max(left, right) >= w or max(top, bottom) >= h):
        raise RuntimeError(f"Padding size should be less than the corresponding input dimension, but got padding {padding} "
                           f"(left, top, right, bottom) for an image of height {h} and width {w}")
    return _select(img, np.pad(np.arange(h), (top, bottom), padding_mode),  # type: ignore[call-overload]
                   np.pad(np.arange(w), (left, right), padding_mode))  # type: ignore[call-overload]


def _select(img: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """The image made of these rows and columns."""
    arr = _small(img)
    if arr is not None:
        return adopt(arr[..., rows[:, None], columns])
    dev = img.device
    return img.index_select(-2, adopt(rows).to(dev)).index_select(-1, adopt(columns).to(dev))


def resize(img: Tensor, size: Sequence[int], mode: str, antialias: bool) -> Tensor:
    """To (h, w) by nearest, nearest-exact, bilinear or bicubic. Raises NotImplementedError for other modes."""
    h, w = _image(img).shape[-2:]
    if mode in ("nearest", "nearest-exact"):
        exact = mode == "nearest-exact"
        return _select(img, _resample.nearest(h, size[0], exact), _resample.nearest(w, size[1], exact))
    if mode not in ("bilinear", "bicubic"):
        raise NotImplementedError(f"interpolation {mode!r} is for PIL images; tensors support nearest, nearest-exact, "
                                  "bilinear and bicubic")
    dt = img.dtype
    x = img if dt is float64 else img.to(float32)
    rows = adopt(_resample.weights(h, size[0], mode, antialias)).to(x.dtype).to(img.device)
    columns = adopt(_resample.weights(w, size[1], mode, antialias)).to(x.dtype).to(img.device)
    return _back(rows @ x @ columns.t(), dt)


def _back(x: Tensor, dt: dtype) -> Tensor:
    """``x`` in ``dt``: rounded and, for 8 bits, clamped."""
    if x.dtype is dt:
        return x
    if not dt.is_floating_point:
        x = x.round()
        if dt is uint8:
            x = x.clamp(0, 255)
    return x.to(dt)


def erase(img: Tensor, i: int, j: int, h: int, w: int, v: Any, inplace: bool) -> Tensor:
    """``v`` in the (h, w) box at (i, j)."""
    arr = None if inplace else _small(img)
    value = _small(v) if isinstance(v, Tensor) else v
    if arr is None or value is None:
        out = img if inplace else img.clone()
        out[..., i:i + h, j:j + w] = v
        return out
    erased = np.array(arr, order="C")
    erased[..., i:i + h, j:j + w] = value
    return adopt(erased)


def affine(img: Tensor, matrix: Sequence[float], mode: str, fill: Any, expand: bool) -> Tensor:
    """Sample the image where ``matrix`` (2x3, about the image's centre) sends each output pixel; ``fill`` (number or
    one per channel) outside. ``expand`` makes the output large enough for the whole image."""
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f"interpolation {mode!r} is not supported for tensors; use nearest or bilinear")
    _, h, w = get_dimensions(img)
    out_h, out_w = _expanded_size(matrix, h, w) if expand else (h, w)
    m = np.asarray(matrix, np.float64).reshape(2, 3)
    y, x = np.mgrid[0:out_h, 0:out_w]
    x, y = x - (out_w - 1) * 0.5, y - (out_h - 1) * 0.5
    sx = m[0, 0] * x + m[0, 1] * y + m[0, 2] + (w - 1) * 0.5
    sy = m[1, 0] * x + m[1, 1] * y + m[1, 2] + (h - 1) * 0.5
    dt = img.dtype
    source = img if dt.is_floating_point and dt.itemsize >= 4 else img.to(float32)
    if mode == "nearest":
        pixels, inside = _gather(source, np.rint(sy).astype(np.int64), np.rint(sx).astype(np.int64))
        return _back(ops.where(adopt(inside).to(img.device), pixels, _fill_tensor(fill, source)), dt)
    x0, y0 = np.floor(sx).astype(np.int64), np.floor(sy).astype(np.int64)
    fx, fy = sx - x0, sy - y0
    mixed: Any = 0.0
    covered = np.zeros_like(fx)  # how much of an output pixel lies inside the image
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        pixels, inside = _gather(source, y0 + dy, x0 + dx)
        weight = (fy if dy else 1 - fy) * (fx if dx else 1 - fx) * inside
        covered += weight
        mixed = pixels * adopt(weight.astype(source.dtype.np)).to(img.device) + mixed
    if fill is not None:  # as torchvision blends: what is mixed already fades to 0 at the border
        mask = adopt(covered.astype(source.dtype.np)).to(img.device)
        mixed = mixed * mask + (1.0 - mask) * _fill_tensor(fill, source)
    return _back(mixed, dt)


def _fill_tensor(fill: Any, img: Tensor) -> Tensor:
    """``fill`` as a tensor that broadcasts against (..., C, H, W)."""
    values = np.asarray(0.0 if fill is None else fill, img.dtype.np).reshape(-1)
    if len(values) not in (1, get_dimensions(img)[0]):
        raise ValueError("The number of elements in 'fill' cannot broadcast to match the number of channels of the image "
                         f"({len(values)} != {get_dimensions(img)[0]})")
    return adopt(values.reshape(-1, 1, 1) if len(values) > 1 else values).to(img.device)


def _gather(img: Tensor, y: np.ndarray, x: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Pixels at integer positions (any pixel outside the image), and which positions are inside."""
    h, w = img.shape[-2:]
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    flat = np.where(inside, y * w + x, 0).reshape(-1)
    pixels = img.reshape(*img.shape[:-2], h * w).index_select(-1, adopt(flat).to(img.device))
    return pixels.reshape(*img.shape[:-2], *y.shape), inside


def _expanded_size(matrix: Sequence[float], h: int, w: int) -> tuple[int, int]:
    """(height, width) of the smallest image that holds all corners."""
    m = np.asarray(matrix, np.float64).reshape(2, 3)
    corners = np.array([[-0.5 * w, -0.5 * h], [-0.5 * w, 0.5 * h], [0.5 * w, 0.5 * h], [0.5 * w, -0.5 * h]])
    moved = corners @ m[:, :2].T + m[:, 2] + [w * 0.5, h * 0.5]
    moved = moved.round(4)  # quarter turns end at whole pixels
    width, height = (np.ceil(moved.max(0)) - np.floor(moved.min(0))).astype(int)
    return int(height), int(width)


# -------------------------------------------------------------------------------------------------------------- colour
def _blend(a: Tensor, b: Any, ratio: float) -> Tensor:
    """``ratio a + (1 - ratio) b``, clamped to a's range."""
    bound = _max_value(a.dtype)
    mixed = a * float(ratio) if b is None else a * float(ratio) + b * (1.0 - ratio)
    return mixed.clamp(0, bound).to(a.dtype)


def adjust_brightness(img: Tensor, factor: float) -> Tensor:
    _channels(img)
    return _blend(img, None, factor)


def adjust_contrast(img: Tensor, factor: float) -> Tensor:
    grey = rgb_to_grayscale(img, 1) if _channels(img) == 3 else img
    dims = tuple(range(-min(3, img.ndim), 0))
    mean = (grey if img.is_floating_point() else grey.to(float32)).mean(dim=dims, keepdim=True)
    return _blend(img, mean, factor)


def adjust_saturation(img: Tensor, factor: float) -> Tensor:
    return img if _channels(img) == 1 else _blend(img, rgb_to_grayscale(img, 1), factor)


def rgb_to_grayscale(img: Tensor, channels: int) -> Tensor:
    if img.ndim < 3:
        raise TypeError(f"Input image tensor should have at least 3 dimensions, but found {img.ndim}")
    if _channels(img) == 3:
        r, g, b = img.unbind(-3)
        grey = (0.2989 * r + 0.587 * g + 0.114 * b).to(img.dtype).unsqueeze(-3)
    else:
        grey = img.clone()
    return grey.expand(*img.shape[:-3], 3, *img.shape[-2:]) if channels == 3 else grey


def adjust_hue(img: Tensor, factor: float) -> Tensor:
    if _channels(img) == 1:
        return img
    h, s, v = _rgb_to_hsv(convert_image_dtype(img, float32))
    return convert_image_dtype(_hsv_to_rgb((h + factor) % 1.0, s, v), img.dtype)


def _rgb_to_hsv(img: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation, value in [0, 1] (Smith 1978, as in Pillow): the hue is measured from the largest channel."""
    r, g, b = img.unbind(-3)
    high, low = img.amax(dim=-3), img.amin(dim=-3)
    span, one = high - low, ops.ones_like(high)
    s = span / ops.where(span == 0, one, high)  # grey: 0 / 1, never 0 / 0
    div = ops.where(span == 0, one, span)
    rc, gc, bc = (high - r) / div, (high - g) / div, (high - b) / div
    h = ops.where(high == r, bc - gc, ops.where(high == g, 2.0 + rc - bc, 4.0 + gc - rc))
    return (h / 6.0 + 1.0) % 1.0, s, high


def _hsv_to_rgb(h: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """Channel n is ``v - v s clamp(min(k, 4 - k), 0, 1)`` with ``k = (n + 6 h) mod 6``, n = 5, 3, 1."""
    def channel(n: int) -> Tensor:
        k = (h * 6.0 + n) % 6.0
        return v - v * s * ops.minimum(k, 4.0 - k).clamp(0.0, 1.0)

    return ops.stack([channel(5), channel(3), channel(1)], -3)


def adjust_gamma(img: Tensor, gamma: float, gain: float) -> Tensor:
    _channels(img)
    x = img if img.is_floating_point() else convert_image_dtype(img, float32)
    return convert_image_dtype((gain * x.pow(gamma)).clamp(0, 1), img.dtype)


def invert(img: Tensor) -> Tensor:
    _channels(img)
    return _max_value(img.dtype) - img


def posterize(img: Tensor, bits: int) -> Tensor:
    if img.dtype is not uint8:
        raise TypeError(f"Only torch.uint8 image tensors are supported, but found {img.dtype}")
    step = 1 << (8 - bits)
    return (img.to(int64) // step * step).to(uint8)


def solarize(img: Tensor, threshold: float) -> Tensor:
    _channels(img)
    if threshold > _max_value(img.dtype):
        raise TypeError(f"Threshold should be less than bound of img, got {threshold}")
    return ops.where(img >= threshold, invert(img), img)


def gaussian_blur(img: Tensor, kernel_size: Sequence[int], sigma: Sequence[float]) -> Tensor:
    """A separable Gaussian (kx, ky) as two banded matrix products; the edges are reflected."""
    h, w = img.shape[-2:]
    x = img if img.dtype is float64 else img.to(float32)
    rows, columns = (adopt(_band(n, k, s).astype(x.dtype.np)).to(img.device)
                     for n, k, s in ((h, kernel_size[1], sigma[1]), (w, kernel_size[0], sigma[0])))
    return _back(rows @ x @ columns.t(), img.dtype)


def _band(n: int, size: int, sigma: float) -> np.ndarray:
    """(n, n) matrix that blurs a row of n pixels."""
    half = (size - 1) // 2
    if half >= n:
        raise RuntimeError(f"kernel_size {size} is too large for an edge of {n} pixels: reflecting needs at least {half + 1}")
    taps = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    source = np.pad(np.arange(n), half, "reflect")
    out = np.zeros((n, n))
    for k, weight in enumerate(taps / taps.sum()):
        np.add.at(out, (np.arange(n), source[k:k + n]), weight)
    return out
