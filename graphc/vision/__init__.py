"""``graphc.vision``: datasets and image transforms with torchvision's names. Submodules load when first used.

``from graphc.vision import datasets, transforms`` replaces ``from torchvision import datasets, transforms``. Images need
Pillow: ``pip install graphc[vision]``.
"""
from __future__ import annotations

from typing import Any

from ..version import __version__ as __version__


def __getattr__(name: str) -> Any:
    import importlib
    import importlib.util

    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    import pkgutil

    return sorted({*globals(), *(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))})
