"""The functions of ``functional`` on Pillow images."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._pil import image_from_array, pil


def get_dimensions(img: Any) -> list[int]:
    """[channels, height, width]."""
    return [len(img.getbands()), img.size[1], img.size[0]]


def hflip(img: Any) -> Any:
    return img.transpose(pil().Transpose.FLIP_LEFT_RIGHT)


def vflip(img: Any) -> Any:
    return img.transpose(pil().Transpose.FLIP_TOP_BOTTOM)


def crop(img: Any, top: int, left: int, height: int, width: int) -> Any:
    return img.crop((left, top, left + width, top + height))


def resize(img: Any, size: Sequence[int], interpolation: int) -> Any:
    return img.resize((size[1], size[0]), interpolation)


def fill_colour(img: Any, fill: Any) -> Any:
    """``fill`` as one number per channel, of the image's type. Raises ValueError when the count does not fit."""
    channels = len(img.getbands())
    if fill is None:
        fill = 0
    values = [fill] * channels if not isinstance(fill, (list, tuple)) else list(fill)
    if len(values) == 1:
        values *= channels
    if len(values) != channels:
        raise ValueError("The number of elements in 'fill' does not match the number of channels of the image "
                         f"({len(values)} != {channels})")
    if img.mode != "F":
        values = [int(v) for v in values]
    return values[0] if channels == 1 else tuple(values)


def pad(img: Any, padding: tuple[int, int, int, int], fill: Any, padding_mode: str) -> Any:
    """``padding`` is (left, top, right, bottom)."""
    if padding_mode == "constant":
        left, top, right, bottom = padding
        colour = fill_colour(img, fill)
        out = pil().new(img.mode, (img.width + left + right, img.height + top + bottom), colour)
        if img.mode == "P":
            out.putpalette(img.getpalette())
        out.paste(img, (left, top))
        return out
    return _pad_by_copying(img, padding, padding_mode)


def _pad_by_copying(img: Any, padding: tuple[int, int, int, int], padding_mode: str) -> Any:
    left, top, right, bottom = padding
    if min(padding) < 0:
        img = img.crop((max(-left, 0), max(-top, 0), img.width - max(-right, 0), img.height - max(-bottom, 0)))
        left, top, right, bottom = (max(p, 0) for p in padding)
    arr = np.asarray(img)
    widths = ((top, bottom), (left, right)) + ((0, 0),) * (arr.ndim - 2)
    arr = np.pad(arr, widths, padding_mode)  # type: ignore[call-overload]
    if img.mode == "1":
        return pil().fromarray(arr)
    out = image_from_array(arr, img.mode)
    if img.mode == "P":
        out.putpalette(img.getpalette())
    return out


def affine(img: Any, matrix: Sequence[float], interpolation: int, fill: Any) -> Any:
    """``matrix`` maps output to input pixels."""
    transform = pil().Transform.AFFINE
    return img.transform(img.size, transform, matrix, interpolation, fillcolor=fill_colour(img, fill))


def rotate(img: Any, angle: float, interpolation: int, expand: bool, center: Any, fill: Any) -> Any:
    return img.rotate(angle, interpolation, expand, center, fillcolor=fill_colour(img, fill))


def adjust_brightness(img: Any, factor: float) -> Any:
    return pil("ImageEnhance").Brightness(img).enhance(factor)


def adjust_contrast(img: Any, factor: float) -> Any:
    return pil("ImageEnhance").Contrast(img).enhance(factor)


def adjust_saturation(img: Any, factor: float) -> Any:
    return pil("ImageEnhance").Color(img).enhance(factor)


def adjust_sharpness(img: Any, factor: float) -> Any:
    return pil("ImageEnhance").Sharpness(img).enhance(factor)


def adjust_hue(img: Any, factor: float) -> Any:
    """Turn the hue channel of HSV; 8 bits wrap around as the colour circle does."""
    if img.mode in ("L", "1", "I", "F"):
        return img
    h, s, v = img.convert("HSV").split()
    turned = np.asarray(h, np.uint8) + np.uint8(int(factor * 255) % 256)
    return pil().merge("HSV", (image_from_array(turned, "L"), s, v)).convert(img.mode)


def adjust_gamma(img: Any, gamma: float, gain: float) -> Any:
    table = [int((255 + 1 - 1e-3) * gain * pow(value / 255.0, gamma)) for value in range(256)] * 3
    return img.convert("RGB").point(table).convert(img.mode)


def rgb_to_grayscale(img: Any, channels: int) -> Any:
    grey = img.convert("L")
    return grey if channels == 1 else pil().merge("RGB", (grey, grey, grey))


def invert(img: Any) -> Any:
    return pil("ImageOps").invert(img)


def posterize(img: Any, bits: int) -> Any:
    if bits == 0:
        return img.point([0] * 256 * len(img.getbands()))
    return pil("ImageOps").posterize(img, bits)


def solarize(img: Any, threshold: float) -> Any:
    return pil("ImageOps").solarize(img, threshold)


def autocontrast(img: Any) -> Any:
    return pil("ImageOps").autocontrast(img)


def equalize(img: Any) -> Any:
    return pil("ImageOps").equalize(img)
