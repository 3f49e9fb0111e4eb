"""Automatic differentiation with PyTorch's API; the walk itself is in ``engine.py``."""
from __future__ import annotations

from typing import Any

from . import functional
from .function import Function
from .functional import backward, grad
from .mode import (
    detect_anomaly,
    enable_grad,
    inference_mode,
    is_anomaly_enabled,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_detect_anomaly,
    set_grad_enabled,
)
from .variable import Variable

__all__ = ["Function", "Variable", "backward", "detect_anomaly", "enable_grad", "functional", "grad", "inference_mode",
           "is_anomaly_enabled", "is_grad_enabled", "is_inference_mode_enabled", "no_grad", "set_detect_anomaly",
           "set_grad_enabled"]


def front(module: str) -> Any:
    """A module of ``graphc.func``, which is built on this package and does part of what PyTorch has here."""
    import importlib

    from .. import func

    return importlib.import_module(f"{func.__name__}.{module}")


def __getattr__(name: str):  # type: ignore[no-untyped-def]
    if name == "forward_ad":
        import importlib

        return importlib.import_module("graphc.autograd.forward_ad")
    if name in ("gradcheck", "gradgradcheck"):
        import importlib

        module = importlib.import_module("graphc.autograd.gradcheck")
        globals().update(gradcheck=module.gradcheck, gradgradcheck=module.gradgradcheck)  # over the submodule of that name
        return globals()[name]
    raise AttributeError(f"module 'graphc.autograd' has no attribute {name!r}")
