"""Grids of images."""
from __future__ import annotations

from typing import Any

from .. import ops
from ..autograd.mode import no_grad
from ..dtypes import uint8
from ..tensor import Tensor
from ._pil import pil

__all__ = ["make_grid", "save_image"]


def _batch(tensor: Any) -> Tensor:
    """Images as (B, C, H, W) with at least three channels for grey ones."""
    if isinstance(tensor, (list, tuple)):
        for t in tensor:
            if not isinstance(t, Tensor):
                raise TypeError(f"tensor or list of tensors expected, got a list containing {type(t)}")
        tensor = ops.stack(list(tensor), 0)
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor or list of tensors expected, got {type(tensor)}")
    if tensor.ndim not in (2, 3, 4):
        raise ValueError(f"images must be (H, W), (C, H, W) or (B, C, H, W), got shape {tuple(tensor.shape)}")
    while tensor.ndim < 4:
        tensor = tensor.unsqueeze(0)
    return ops.cat((tensor, tensor, tensor), 1) if tensor.shape[1] == 1 else tensor


def _to_unit_range(t: Tensor, value_range: tuple[float, float] | None) -> Tensor:
    low, high = value_range if value_range is not None else (float(t.min()), float(t.max()))
    return t.clamp(min=low, max=high).sub(low).div(max(high - low, 1e-5))


@no_grad()
def make_grid(tensor: Tensor | list[Tensor], nrow: int = 8, padding: int = 2, normalize: bool = False,
              value_range: tuple[float, float] | None = None, scale_each: bool = False, pad_value: float = 0.0) -> Tensor:
    """Images (B, C, H, W), or a list of (C, H, W), as one image (C, H', W') with ``nrow`` of them in a row.

    ``normalize`` shifts to (0, 1) by ``value_range`` or the minimum and maximum, of every image by itself with
    ``scale_each``. Raises TypeError for anything but tensors, or a ``value_range`` that is not a tuple.
    """
    images = _batch(tensor)
    if normalize:
        if value_range is not None and not isinstance(value_range, tuple):
            raise TypeError("value_range has to be a tuple (min, max) if specified. min and max are numbers")
        if scale_each:
            images = ops.stack([_to_unit_range(image, value_range) for image in images], 0)
        else:
            images = _to_unit_range(images, value_range)
    if images.shape[0] == 1:
        return images.squeeze(0)
    count, channels, height, width = images.shape
    columns = min(nrow, count)
    rows = -(-count // columns)
    height, width = height + padding, width + padding
    grid = images.new_full((channels, height * rows + padding, width * columns + padding), pad_value)
    for k in range(count):
        top, left = k // columns * height + padding, k % columns * width + padding
        grid[:, top:top + height - padding, left:left + width - padding] = images[k]
    return grid


@no_grad()
def save_image(tensor: Tensor | list[Tensor], fp: Any, format: str | None = None, **kwargs: Any) -> None:
    """Write ``make_grid(tensor, **kwargs)``, values in [0, 1], to a file (name, path or binary file object)."""
    grid = make_grid(tensor, **kwargs)
    data = grid.mul(255).add(0.5).clamp(0, 255).permute(1, 2, 0).to("cpu", uint8).numpy()
    pil().fromarray(data).save(fp, format=format)
