"""Transforms as functions of one image: a Pillow image, or a tensor (..., C, H, W).

Pillow images are handled by Pillow (``_functional_pil``), tensors by graphc (``_functional_tensor``), with the same
arguments and, up to rounding, the same results.
"""
from __future__ import annotations

import math
import numbers
import sys
import warnings
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np

from ... import dtypes
from ...dtypes import dtype, float32
from ...tensor import Tensor
from ...utils.data._utils.host import adopt
from .._pil import image_from_array, is_pil_image
from . import _functional_pil as F_pil
from . import _functional_tensor as F_t


class InterpolationMode(Enum):
    """How values between pixels are found."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


_FROM_INT = {0: InterpolationMode.NEAREST, 1: InterpolationMode.LANCZOS, 2: InterpolationMode.BILINEAR,
             3: InterpolationMode.BICUBIC, 4: InterpolationMode.BOX, 5: InterpolationMode.HAMMING}
pil_modes_mapping = {mode: number for number, mode in _FROM_INT.items()} | {InterpolationMode.NEAREST_EXACT: 0}


def interpolation_mode(mode: Any) -> InterpolationMode:
    """An InterpolationMode from itself or Pillow's number for it. Raises TypeError for anything else."""
    if isinstance(mode, InterpolationMode):
        return mode
    if isinstance(mode, int) and int(mode) in _FROM_INT:
        return _FROM_INT[int(mode)]
    raise TypeError(f"Argument interpolation should be a InterpolationMode or a corresponding Pillow integer constant, "
                    f"got {mode!r}")


def _backend(img: Any) -> Any:
    """The module that handles this kind of image."""
    if isinstance(img, Tensor):
        return F_t
    if is_pil_image(img):
        return F_pil
    raise TypeError(f"img should be PIL Image or Tensor. Got {type(img)}")


def get_dimensions(img: Any) -> list[int]:
    """[channels, height, width]."""
    return _backend(img).get_dimensions(img)


def get_image_size(img: Any) -> list[int]:
    """[width, height]."""
    _, h, w = get_dimensions(img)
    return [w, h]


def get_image_num_channels(img: Any) -> int:
    """Number of channels."""
    return get_dimensions(img)[0]


# --------------------------------------------------------------------------------------------------------- conversions
def _pil_array(pic: Any) -> np.ndarray:
    """(H, W, C) array of an image's own data type."""
    kinds: dict[str, Any] = {"I": np.int32, "I;16": np.int16, "I;16B": np.int16, "F": np.float32}
    arr = np.array(pic, kinds.get(pic.mode, np.uint8))
    return arr.reshape(pic.size[1], pic.size[0], len(pic.getbands()))


def to_tensor(pic: Any) -> Tensor:
    """A Pillow image or array (H, W[, C]) as a (C, H, W) tensor.

    8-bit data (and mode "1") becomes the default float type in [0, 1]; other types are kept as they are. Raises
    TypeError for other objects, ValueError for arrays that are not 2- or 3-dimensional.
    """
    if isinstance(pic, np.ndarray):
        if pic.ndim not in (2, 3):
            raise ValueError(f"pic should be 2/3 dimensional. Got {pic.ndim} dimensions.")
        arr = pic[:, :, None] if pic.ndim == 2 else pic
    elif is_pil_image(pic):
        arr = _pil_array(pic)
        if pic.mode == "1":
            arr = arr * np.uint8(255)
    else:
        raise TypeError(f"pic should be PIL Image or ndarray. Got {type(pic)}")
    arr = arr.transpose(2, 0, 1)
    if arr.dtype != np.uint8:
        return adopt(np.array(arr, order="C"))
    out = np.array(arr, dtypes.get_default_dtype().np, order="C")
    out /= out.dtype.type(255)
    return adopt(out)


def pil_to_tensor(pic: Any) -> Tensor:
    """A Pillow image as a (C, H, W) tensor of its own data type, not scaled."""
    if not is_pil_image(pic):
        raise TypeError(f"pic should be PIL Image. Got {type(pic)}")
    arr = np.array(pic)
    return adopt(np.array(arr.reshape(pic.size[1], pic.size[0], len(pic.getbands())).transpose(2, 0, 1), order="C"))


def convert_image_dtype(image: Tensor, dtype: dtype = float32) -> Tensor:
    """Convert a tensor image's type and scale its values: floats span [0, 1], integers [0, maximum].

    Raises RuntimeError for a conversion from float that would lose integers (float32 to int32/int64, float64 to int64).
    """
    if not isinstance(image, Tensor):
        raise TypeError("Input img should be Tensor Image")
    return F_t.convert_image_dtype(image, dtype)


_ONE_CHANNEL = {"uint8": "L", "int16": "I;16" if sys.byteorder == "little" else "I;16B", "int32": "I", "float32": "F"}
_MANY_CHANNELS: dict[int, tuple[str, ...]] = {2: ("LA",), 3: ("RGB", "YCbCr", "HSV"), 4: ("RGBA", "CMYK", "RGBX")}


def to_pil_image(pic: Any, mode: str | None = None) -> Any:
    """A tensor (C, H, W) or array (H, W[, C]) of 1 to 4 channels as a Pillow image; floats in [0, 1] become 8-bit.

    Raises TypeError for other objects and unsupported data types, ValueError for other shapes and for a ``mode`` that
    does not fit.
    """
    if isinstance(pic, Tensor):
        arr = F_t.host_data(pic)
        arr = arr.transpose(1, 2, 0) if arr.ndim == 3 else arr
    elif isinstance(pic, np.ndarray):
        arr = pic
    else:
        raise TypeError(f"pic should be Tensor or ndarray. Got {type(pic)}.")
    if arr.ndim not in (2, 3):
        raise ValueError(f"pic should be 2/3 dimensional. Got {arr.ndim} dimensions.")
    arr = arr[:, :, None] if arr.ndim == 2 else arr
    channels = arr.shape[2]
    if not 1 <= channels <= 4:
        raise ValueError(f"pic should not have > 4 channels. Got {channels} channels.")
    if np.issubdtype(arr.dtype, np.floating) and mode != "F":
        arr = (arr * 255).astype(np.uint8)
    return image_from_array(arr[:, :, 0] if channels == 1 else arr, _pil_mode(arr.dtype, channels, mode))


def _pil_mode(kind: np.dtype, channels: int, mode: str | None) -> str:
    if channels == 1:
        natural = _ONE_CHANNEL.get(kind.name)
        if mode is not None and mode != natural:
            raise ValueError(f"Incorrect mode ({mode}) supplied for input type {kind}. Should be {natural}")
    else:
        allowed = _MANY_CHANNELS[channels]
        if mode is not None and mode not in allowed:
            raise ValueError(f"Only modes {list(allowed)} are supported for {channels}D inputs")
        natural = mode or (allowed[0] if kind == np.uint8 else None)
    if natural is None or (channels > 1 and kind != np.uint8):
        raise TypeError(f"Input type {kind} is not supported")
    return natural


def normalize(tensor: Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> Tensor:
    """``(tensor - mean) / std`` for every channel of a float tensor (..., C, H, W).

    Raises TypeError for other inputs, ValueError for too few dimensions or a zero in ``std``.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"img should be Tensor Image. Got {type(tensor)}")
    return F_t.normalize(tensor, mean, std, inplace)


# ------------------------------------------------------------------------------------------------------------ geometry
def _compute_resized_output_size(image_size: tuple[int, int], size: Sequence[int], max_size: int | None = None
                                 ) -> list[int]:
    """[height, width] after resizing: both given, or the shorter edge given and the longer at most ``max_size``."""
    if len(size) == 2:
        return [size[0], size[1]]
    h, w = image_size
    short, long = min(h, w), max(h, w)
    new_short, new_long = size[0], int(size[0] * long / short)
    if max_size is not None:
        if max_size <= new_short:
            raise ValueError(f"max_size = {max_size} must be strictly greater than the requested size for the smaller edge "
                             f"size = {list(size)}")
        if new_long > max_size:
            new_short, new_long = int(max_size * new_short / new_long), max_size
    return [new_long, new_short] if w <= h else [new_short, new_long]


def resize(img: Any, size: int | Sequence[int], interpolation: Any = InterpolationMode.BILINEAR,
           max_size: int | None = None, antialias: bool | None = True) -> Any:
    """Resize to (h, w), or the shorter edge to ``size``. Pillow always smooths when it shrinks; for tensors
    ``antialias`` says so."""
    mode = interpolation_mode(interpolation)
    sizes = [size] if isinstance(size, int) else list(size)
    if len(sizes) not in (1, 2):
        raise ValueError(f"Size must be an int or a 1 or 2 element tuple/list, not a {len(sizes)} element tuple/list")
    if max_size is not None and len(sizes) != 1:
        raise ValueError("max_size should only be passed if size specifies the length of the smaller edge, i.e. size should "
                         "be an int or a sequence of length 1 in torchscript mode.")
    backend = _backend(img)
    _, height, width = backend.get_dimensions(img)
    target = _compute_resized_output_size((height, width), sizes, max_size)
    if [height, width] == target:
        return img
    if backend is F_pil:
        if antialias is False:
            warnings.warn("Anti-alias option is always applied for PIL Image input. Argument antialias is ignored.",
                          stacklevel=2)
        return F_pil.resize(img, target, pil_modes_mapping[mode])
    return F_t.resize(img, target, mode.value, bool(antialias))


def pad(img: Any, padding: int | Sequence[int], fill: Any = 0, padding_mode: str = "constant") -> Any:
    """Pad by one number, by (left/right, top/bottom) or by (left, top, right, bottom); negative numbers crop.

    ``padding_mode``: constant (``fill``), edge, reflect or symmetric.
    """
    if not isinstance(padding, (numbers.Number, tuple, list)):
        raise TypeError(f"Got inappropriate padding arg: {padding!r}")
    if fill is not None and not isinstance(fill, (numbers.Number, tuple, list)):
        raise TypeError(f"Got inappropriate fill arg: {fill!r}")
    if not isinstance(padding_mode, str):
        raise TypeError(f"Got inappropriate padding_mode arg: {padding_mode!r}")
    if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
        raise ValueError(f"Padding mode should be either constant, edge, reflect or symmetric, got {padding_mode!r}")
    sides = [int(padding)] if isinstance(padding, numbers.Number) else list(padding)  # type: ignore[call-overload]
    if len(sides) not in (1, 2, 4):
        raise ValueError(f"Padding must be an int or a 1, 2, or 4 element tuple, not a {len(sides)} element tuple")
    left, top, right, bottom = sides * (4 // len(sides))
    return _backend(img).pad(img, (left, top, right, bottom), 0 if fill is None else fill, padding_mode)


def crop(img: Any, top: int, left: int, height: int, width: int) -> Any:
    """The box at (top, left); what lies outside the image is 0."""
    return _backend(img).crop(img, top, left, height, width)


def center_crop(img: Any, output_size: int | Sequence[int]) -> Any:
    """The middle (h, w) of the image, padded with 0 where the image is smaller."""
    size = [int(output_size)] if isinstance(output_size, numbers.Number) else list(output_size)  # type: ignore
    crop_h, crop_w = size if len(size) == 2 else size * 2
    _, h, w = get_dimensions(img)
    if crop_w > w or crop_h > h:
        img = pad(img, [max(crop_w - w, 0) // 2, max(crop_h - h, 0) // 2, (max(crop_w - w, 0) + 1) // 2,
                        (max(crop_h - h, 0) + 1) // 2])
        _, h, w = get_dimensions(img)
        if crop_w == w and crop_h == h:
            return img
    return crop(img, int(round((h - crop_h) / 2.0)), int(round((w - crop_w) / 2.0)), crop_h, crop_w)


def resized_crop(img: Any, top: int, left: int, height: int, width: int, size: Sequence[int],
                 interpolation: Any = InterpolationMode.BILINEAR, antialias: bool | None = True) -> Any:
    """Crop, then resize."""
    return resize(crop(img, top, left, height, width), size, interpolation, antialias=antialias)


def hflip(img: Any) -> Any:
    """Left and right exchanged."""
    return _backend(img).hflip(img)


def vflip(img: Any) -> Any:
    """Top and bottom exchanged."""
    return _backend(img).vflip(img)


def five_crop(img: Any, size: int | Sequence[int]) -> tuple[Any, ...]:
    """The four corners and the middle, each of ``size``: (top left, top right, bottom left, bottom right, centre)."""
    sizes = [int(size)] if isinstance(size, numbers.Number) else list(size)  # type: ignore
    ch, cw = sizes if len(sizes) == 2 else sizes * 2
    _, h, w = get_dimensions(img)
    if cw > w or ch > h:
        raise ValueError(f"Requested crop size {(ch, cw)} is bigger than input size {(h, w)}")
    corners = ((0, 0), (0, w - cw), (h - ch, 0), (h - ch, w - cw))
    return (*[crop(img, i, j, ch, cw) for i, j in corners], center_crop(img, [ch, cw]))


def ten_crop(img: Any, size: int | Sequence[int], vertical_flip: bool = False) -> tuple[Any, ...]:
    """``five_crop`` of the image and of its mirror image."""
    return five_crop(img, size) + five_crop(vflip(img) if vertical_flip else hflip(img), size)


def _get_inverse_affine_matrix(center: Sequence[float], angle: float, translate: Sequence[float], scale: float,
                               shear: Sequence[float]) -> list[float]:
    """Row-major 2x3 matrix from output to input coordinates.

    The transform is T C RSS C^-1: translate, rotate by ``angle`` degrees, scale and shear about ``center``; the product
    of rotation, shear and scale has determinant scale^2, so its inverse is the adjugate divided by it.
    """
    rot, (sx, sy) = math.radians(angle), [math.radians(s) for s in shear]
    (cx, cy), (tx, ty) = center, translate
    a = math.cos(rot - sy) / math.cos(sy)
    b = -math.cos(rot - sy) * math.tan(sx) / math.cos(sy) - math.sin(rot)
    c = math.sin(rot - sy) / math.cos(sy)
    d = -math.sin(rot - sy) * math.tan(sx) / math.cos(sy) + math.cos(rot)
    m = [x / scale for x in (d, -b, 0.0, -c, a, 0.0)]
    m[2] += m[0] * (-cx - tx) + m[1] * (-cy - ty) + cx
    m[5] += m[3] * (-cx - tx) + m[4] * (-cy - ty) + cy
    return m


def rotate(img: Any, angle: float, interpolation: Any = InterpolationMode.NEAREST, expand: bool = False,
           center: Sequence[float] | None = None, fill: Any = None) -> Any:
    """Rotate counter-clockwise by ``angle`` degrees about ``center`` (x, y from the top left; default the middle)."""
    mode = interpolation_mode(interpolation)
    if not isinstance(angle, (int, float)):
        raise TypeError(f"Argument angle should be int or float, got {type(angle).__name__}")
    if center is not None and not isinstance(center, (list, tuple)):
        raise TypeError(f"Argument center should be a sequence, got {type(center).__name__}")
    if _backend(img) is F_pil:
        return F_pil.rotate(img, angle, pil_modes_mapping[mode], expand, center, fill)
    _, height, width = get_dimensions(img)
    middle = [0.0, 0.0] if center is None else [c - s * 0.5 for c, s in zip(center, (width, height))]
    matrix = _get_inverse_affine_matrix(middle, -angle, [0.0, 0.0], 1.0, [0.0, 0.0])
    return F_t.affine(img, matrix, mode.value, fill, expand)


def affine(img: Any, angle: float, translate: Sequence[float], scale: float, shear: float | Sequence[float],
           interpolation: Any = InterpolationMode.NEAREST, fill: Any = None, center: Sequence[float] | None = None) -> Any:
    """Rotate clockwise, translate (pixels), scale and shear (degrees) about ``center``."""
    mode = interpolation_mode(interpolation)
    if scale <= 0.0:
        raise ValueError(f"Argument scale should be positive, got {scale}")
    shears = [float(shear), 0.0] if isinstance(shear, numbers.Number) else list(shear)  # type: ignore[arg-type]
    shears = shears if len(shears) == 2 else [shears[0], shears[0]]
    _, height, width = get_dimensions(img)
    if _backend(img) is F_pil:
        middle = [width * 0.5, height * 0.5] if center is None else center
        matrix = _get_inverse_affine_matrix(middle, angle, translate, scale, shears)
        return F_pil.affine(img, matrix, pil_modes_mapping[mode], fill)
    middle = [0.0, 0.0] if center is None else [c - s * 0.5 for c, s in zip(center, (width, height))]
    return F_t.affine(img, _get_inverse_affine_matrix(middle, angle, translate, scale, shears), mode.value, fill, False)


def erase(img: Tensor, i: int, j: int, h: int, w: int, v: Any, inplace: bool = False) -> Tensor:
    """The tensor image with ``v`` in the (h, w) box at (i, j)."""
    if not isinstance(img, Tensor):
        raise TypeError(f"img should be Tensor Image. Got {type(img)}")
    return F_t.erase(img, i, j, h, w, v, inplace)


# -------------------------------------------------------------------------------------------------------------- colour
def _factor(name: str, value: float) -> float:
    if value < 0:
        raise ValueError(f"{name} ({value}) is not non-negative.")
    return value


def adjust_brightness(img: Any, brightness_factor: float) -> Any:
    """Blend with black: 0 is black, 1 the image, 2 twice as bright."""
    return _backend(img).adjust_brightness(img, _factor("brightness_factor", brightness_factor))


def adjust_contrast(img: Any, contrast_factor: float) -> Any:
    """Blend with the mean grey."""
    return _backend(img).adjust_contrast(img, _factor("contrast_factor", contrast_factor))


def adjust_saturation(img: Any, saturation_factor: float) -> Any:
    """Blend with the image in grey."""
    return _backend(img).adjust_saturation(img, _factor("saturation_factor", saturation_factor))


def adjust_hue(img: Any, hue_factor: float) -> Any:
    """Turn the hue by ``hue_factor`` of the colour circle, in [-0.5, 0.5]."""
    if not -0.5 <= hue_factor <= 0.5:
        raise ValueError(f"hue_factor ({hue_factor}) is not in [-0.5, 0.5].")
    return _backend(img).adjust_hue(img, hue_factor)


def adjust_gamma(img: Any, gamma: float, gain: float = 1) -> Any:
    """``gain * img ** gamma`` on values of [0, 1]."""
    if gamma < 0:
        raise ValueError("Gamma should be a non-negative real number")
    return _backend(img).adjust_gamma(img, gamma, gain)


def rgb_to_grayscale(img: Any, num_output_channels: int = 1) -> Any:
    """Grey with 1 or 3 equal channels: L = 0.2989 R + 0.587 G + 0.114 B."""
    if num_output_channels not in (1, 3):
        raise ValueError(f"num_output_channels should be either 1 or 3, got {num_output_channels}")
    return _backend(img).rgb_to_grayscale(img, num_output_channels)


def to_grayscale(img: Any, num_output_channels: int = 1) -> Any:
    """``rgb_to_grayscale`` for Pillow images."""
    if not is_pil_image(img):
        raise TypeError("Input should be PIL Image")
    return rgb_to_grayscale(img, num_output_channels)


def invert(img: Any) -> Any:
    """The negative."""
    return _backend(img).invert(img)


def posterize(img: Any, bits: int) -> Any:
    """Keep the highest ``bits`` of every 8-bit value."""
    if not 0 <= bits <= 8:
        raise ValueError(f"The number if bits should be between 0 and 8. Got {bits}")
    return _backend(img).posterize(img, bits)


def solarize(img: Any, threshold: float) -> Any:
    """Invert the values at or above ``threshold``."""
    return _backend(img).solarize(img, threshold)


def _pil_only(img: Any, name: str) -> None:
    if not is_pil_image(img):
        raise TypeError(f"{name}: img should be PIL Image. Got {type(img)}")


def adjust_sharpness(img: Any, sharpness_factor: float) -> Any:
    """Blend with a smoothed image (Pillow images)."""
    _pil_only(img, "adjust_sharpness")
    return F_pil.adjust_sharpness(img, _factor("sharpness_factor", sharpness_factor))


def autocontrast(img: Any) -> Any:
    """Stretch every channel to the full range (Pillow images)."""
    _pil_only(img, "autocontrast")
    return F_pil.autocontrast(img)


def equalize(img: Any) -> Any:
    """Flatten the histogram of every channel (Pillow images)."""
    _pil_only(img, "equalize")
    return F_pil.equalize(img)


def gaussian_blur(img: Any, kernel_size: int | Sequence[int], sigma: float | Sequence[float] | None = None) -> Any:
    """Blur with a Gaussian kernel of odd ``kernel_size`` (kx, ky) and standard deviation ``sigma`` (default
    0.3 ((k - 1) / 2 - 1) + 0.8); edges are reflected."""
    sizes = [kernel_size] * 2 if isinstance(kernel_size, int) else list(kernel_size)
    if len(sizes) != 2 or any(k <= 0 or k % 2 == 0 for k in sizes):
        raise ValueError(f"kernel_size should have odd and positive integers. Got {kernel_size}")
    if sigma is None:
        sigmas = [k * 0.15 + 0.35 for k in sizes]
    else:
        sigmas = [float(sigma)] * 2 if isinstance(sigma, (int, float)) else [float(s) for s in sigma]
        sigmas = sigmas * 2 if len(sigmas) == 1 else sigmas
    if any(s <= 0 for s in sigmas):
        raise ValueError(f"sigma should have positive values. Got {sigma}")
    if is_pil_image(img):
        return to_pil_image(F_t.gaussian_blur(pil_to_tensor(img), sizes, sigmas), img.mode)
    return _backend(img).gaussian_blur(img, sizes, sigmas)
