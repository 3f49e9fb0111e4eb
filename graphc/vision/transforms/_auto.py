"""Automatic augmentation: random operations of random strength (Pillow images)."""
from __future__ import annotations

import math
from typing import Any

from ... import nn
from . import _random
from . import functional as F
from .functional import InterpolationMode

# operation -> (strength at the last bin, whether the sign is random); None: no strength
_WIDE: dict[str, tuple[float, bool] | None] = {
    "Identity": None, "ShearX": (0.99, True), "ShearY": (0.99, True), "TranslateX": (32.0, True), "TranslateY": (32.0, True),
    "Rotate": (135.0, True), "Brightness": (0.99, True), "Color": (0.99, True), "Contrast": (0.99, True),
    "Sharpness": (0.99, True), "Posterize": (6.0, False), "Solarize": (255.0, False), "AutoContrast": None, "Equalize": None}
_RAND: dict[str, tuple[float, bool] | None] = {
    **_WIDE, "ShearX": (0.3, True), "ShearY": (0.3, True), "TranslateX": (150.0 / 331.0, True),
    "TranslateY": (150.0 / 331.0, True), "Rotate": (30.0, True), "Brightness": (0.9, True), "Color": (0.9, True),
    "Contrast": (0.9, True), "Sharpness": (0.9, True), "Posterize": (4.0, False)}


def _moved(img: Any, translate: list[int], shear: list[float], center: Any, mode: Any, fill: Any) -> Any:
    return F.affine(img, 0.0, translate, 1.0, shear, mode, fill, center)


def apply_op(img: Any, op: str, magnitude: float, interpolation: Any, fill: Any) -> Any:
    """One named operation. Strength: slope of a shear, pixels of a translation, degrees, change of an enhancement factor, bits,
    or threshold."""
    if op in ("ShearX", "ShearY"):
        angle = math.degrees(math.atan(magnitude))
        return _moved(img, [0, 0], [angle, 0.0] if op == "ShearX" else [0.0, angle], [0, 0], interpolation, fill)
    if op in ("TranslateX", "TranslateY"):
        d = int(magnitude)
        return _moved(img, [d, 0] if op == "TranslateX" else [0, d], [0.0, 0.0], None, interpolation, fill)
    if op == "Rotate":
        return F.rotate(img, magnitude, interpolation, fill=fill)
    enhance: Any = {"Brightness": F.adjust_brightness, "Color": F.adjust_saturation, "Contrast": F.adjust_contrast,
                    "Sharpness": F.adjust_sharpness}.get(op)
    if enhance is not None:
        return enhance(img, 1.0 + magnitude)
    if op == "Posterize":
        return F.posterize(img, int(magnitude))
    if op == "Solarize":
        return F.solarize(img, magnitude)
    if op == "AutoContrast":
        return F.autocontrast(img)
    if op == "Equalize":
        return F.equalize(img)
    if op == "Identity":
        return img
    raise ValueError(f"The provided operator {op} is not recognized.")


def strength(op: str, table: dict[str, tuple[float, bool] | None], at: int, bins: int) -> float:
    """Strength of ``op`` in bin ``at`` of ``bins``, without sign. Posterize counts kept bits down from 8, Solarize thresholds
    down from 255."""
    entry = table[op]
    if entry is None:
        return 0.0
    share = at / (bins - 1)
    if op == "Posterize":
        return float(8 - round(share * entry[0]))
    return entry[0] * (1 - share) if op == "Solarize" else entry[0] * share


class TrivialAugmentWide(nn.Module):
    """One random operation of random strength per image (Müller and Hutter 2021, "wide" space)."""

    def __init__(self, num_magnitude_bins: int = 31, interpolation: Any = InterpolationMode.NEAREST, fill: Any = None) -> None:
        super().__init__()
        self.num_magnitude_bins, self.interpolation, self.fill = num_magnitude_bins, interpolation, fill

    def forward(self, img: Any) -> Any:
        names = list(_WIDE)
        op = names[_random.integer(0, len(names))]
        m = strength(op, _WIDE, _random.integer(0, self.num_magnitude_bins), self.num_magnitude_bins)
        entry = _WIDE[op]
        if entry is not None and entry[1] and _random.integer(0, 2):
            m = -m
        return apply_op(img, op, m, self.interpolation, self.fill)

    def extra_repr(self) -> str:
        return f"num_magnitude_bins={self.num_magnitude_bins}, interpolation={self.interpolation}, fill={self.fill}"


class RandAugment(nn.Module):
    """``num_ops`` random operations of one strength (Cubuk et al. 2020)."""

    def __init__(self, num_ops: int = 2, magnitude: int = 9, num_magnitude_bins: int = 31,
                 interpolation: Any = InterpolationMode.NEAREST, fill: Any = None) -> None:
        super().__init__()
        self.num_ops, self.magnitude, self.num_magnitude_bins = num_ops, magnitude, num_magnitude_bins
        self.interpolation, self.fill = interpolation, fill

    def forward(self, img: Any) -> Any:
        names = list(_RAND)
        _, height, width = F.get_dimensions(img)
        for _ in range(self.num_ops):
            op = names[_random.integer(0, len(names))]
            m = strength(op, _RAND, self.magnitude, self.num_magnitude_bins)
            if op in ("TranslateX", "TranslateY"):
                m *= width if op == "TranslateX" else height
            entry = _RAND[op]
            if entry is not None and entry[1] and _random.integer(0, 2):
                m = -m
            img = apply_op(img, op, m, self.interpolation, self.fill)
        return img

    def extra_repr(self) -> str:
        return f"num_ops={self.num_ops}, magnitude={self.magnitude}, num_magnitude_bins={self.num_magnitude_bins}"
