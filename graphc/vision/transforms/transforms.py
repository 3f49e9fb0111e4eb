"""Transforms that combine others or convert an image as a whole."""
from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from ... import nn
from ...dtypes import dtype
from ...tensor import Tensor
from . import _random
from . import functional as F


def _lines(head: str, transforms: Sequence[Any], first: str = "") -> str:
    return "\n".join([f"{head}(", *([first] if first else []), *[f"    {t}" for t in transforms], ")"])


class Compose:
    """One transform after another."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, img: Any) -> Any:
        for t in self.transforms:
            img = t(img)
        return img

    def __repr__(self) -> str:
        return _lines(type(self).__name__, self.transforms)


class ToTensor:
    """Pillow image or (H, W[, C]) array to a (C, H, W) tensor; 8-bit data is scaled to [0, 1]."""

    def __call__(self, pic: Any) -> Tensor:
        return F.to_tensor(pic)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class PILToTensor:
    """Pillow image to a (C, H, W) tensor of its own data type."""

    def __call__(self, pic: Any) -> Tensor:
        return F.pil_to_tensor(pic)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ConvertImageDtype(nn.Module):
    """Convert a tensor image's data type and scale its values."""

    def __init__(self, dtype: dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, image: Tensor) -> Tensor:
        return F.convert_image_dtype(image, self.dtype)


class ToPILImage:
    """(C, H, W) tensor or (H, W[, C]) array to a Pillow image."""

    def __init__(self, mode: str | None = None) -> None:
        self.mode = mode

    def __call__(self, pic: Any) -> Any:
        return F.to_pil_image(pic, self.mode)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({f'mode={self.mode}' if self.mode is not None else ''})"


class Normalize(nn.Module):
    """``(x - mean[c]) / std[c]`` for every channel of a float tensor."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> None:
        super().__init__()
        self.mean = mean
        self.std = std
        self.inplace = inplace

    def forward(self, tensor: Tensor) -> Tensor:
        return F.normalize(tensor, self.mean, self.std, self.inplace)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(mean={self.mean}, std={self.std})"


class Lambda:
    """A function of your own. Raises TypeError when it can't be called."""

    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        if not callable(lambd):
            raise TypeError(f"Argument lambd should be callable, got {type(lambd).__name__!r}")
        self.lambd = lambd

    def __call__(self, img: Any) -> Any:
        return self.lambd(img)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class RandomApply(nn.Module):
    """All of the transforms with probability ``p``, else none."""

    def __init__(self, transforms: Any, p: float = 0.5) -> None:
        super().__init__()
        self.transforms = transforms
        self.p = p

    def forward(self, img: Any) -> Any:
        if self.p < _random.unit():
            return img
        for t in self.transforms:
            img = t(img)
        return img

    def __repr__(self) -> str:
        return _lines(type(self).__name__, list(self.transforms), f"    p={self.p}")


class _RandomTransforms:
    """A list of transforms to choose from."""

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        if not isinstance(transforms, Sequence):
            raise TypeError("Argument transforms should be a sequence")
        self.transforms = transforms

    def __repr__(self) -> str:
        return _lines(type(self).__name__, self.transforms)


class RandomOrder(_RandomTransforms):
    """All of the transforms in random order."""

    def __call__(self, img: Any) -> Any:
        for i in _random.permutation(len(self.transforms)):
            img = self.transforms[i](img)
        return img


class RandomChoice(_RandomTransforms):
    """One of the transforms, chosen with weights ``p`` (default: all equal)."""

    def __init__(self, transforms: Sequence[Callable[..., Any]], p: Sequence[float] | None = None) -> None:
        super().__init__(transforms)
        if p is not None and not isinstance(p, Sequence):
            raise TypeError("Argument p should be a sequence")
        self.p = p

    def __call__(self, *args: Any) -> Any:
        chooser = random.Random(_random.integer(0, 1 << 62))
        return chooser.choices(self.transforms, weights=self.p)[0](*args)

    def __repr__(self) -> str:
        return f"{super().__repr__()}(p={self.p})"
