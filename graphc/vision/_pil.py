"""Pillow, imported when an image is first touched."""
from __future__ import annotations

import sys
from typing import Any

import numpy as np


def pil(submodule: str = "Image") -> Any:
    """``PIL.<submodule>``. Raises ImportError that says what to install."""
    import importlib

    try:
        return importlib.import_module(f"PIL.{submodule}")
    except ImportError as error:
        raise ImportError("this needs Pillow, which is not installed: pip install graphc[vision]") from error


def is_pil_image(x: Any) -> bool:
    """Whether ``x`` is a Pillow image (without importing Pillow: there is none if nobody has)."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(x, module.Image)


def image_from_array(arr: np.ndarray, mode: str) -> Any:
    """An image of ``mode`` from an (H, W) or (H, W, C) array whose bytes are that mode's pixels."""
    arr = np.ascontiguousarray(arr)
    return pil().frombytes(mode, (arr.shape[1], arr.shape[0]), arr.tobytes())
