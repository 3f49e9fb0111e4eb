"""Automatic augmentation: strengths of the papers, every operation, repeatable draws."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.vision.transforms import RandAugment, TrivialAugmentWide, _auto

Image = pytest.importorskip("PIL.Image")


def picture() -> Any:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8))


def test_strengths() -> None:
    assert _auto.strength("Posterize", _auto._WIDE, 0, 31) == 8 and _auto.strength("Posterize", _auto._WIDE, 30, 31) == 2
    assert _auto.strength("Solarize", _auto._WIDE, 0, 31) == 255 and _auto.strength("Solarize", _auto._WIDE, 30, 31) == 0
    assert _auto.strength("Rotate", _auto._WIDE, 15, 31) == 67.5 and _auto.strength("Identity", _auto._WIDE, 7, 31) == 0
    assert _auto.strength("Posterize", _auto._RAND, 30, 31) == 4


@pytest.mark.parametrize("op", _auto._WIDE)
def test_every_operation(op: str) -> None:
    img = picture()
    m = _auto.strength(op, _auto._WIDE, 20, 31)
    out = _auto.apply_op(img, op, m, _auto.InterpolationMode.NEAREST, None)
    assert out.size == img.size and out.mode == img.mode
    assert (np.asarray(out) == np.asarray(img)).all() == (op == "Identity")


def test_translation_moves_by_pixels() -> None:
    a = np.asarray(picture())
    out = np.asarray(_auto.apply_op(picture(), "TranslateX", 5.0, _auto.InterpolationMode.NEAREST, None))
    assert (out[:, 5:] == a[:, :-5]).all() and (out[:, :5] == 0).all()
    with pytest.raises(ValueError, match="not recognized"):
        _auto.apply_op(picture(), "Melt", 1.0, _auto.InterpolationMode.NEAREST, None)


@pytest.mark.parametrize("transform", [TrivialAugmentWide(), RandAugment(num_ops=3)])
def test_draws_repeat_with_the_seed(transform: Any) -> None:
    runs = []
    for _ in range(2):
        graphc.manual_seed(4)
        runs.append(np.stack([np.asarray(transform(picture())) for _ in range(8)]))
    np.testing.assert_array_equal(*runs)
    assert len({r.tobytes() for r in runs[0]}) > 3 and "num_magnitude_bins=31" in repr(transform)
