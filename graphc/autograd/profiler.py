"""``torch.autograd.profiler``: the older names of :mod:`graphc.profiler`."""
from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any


def _front() -> Any:
    """``graphc.profiler``, which is built on tensors."""
    return importlib.import_module("..profiler", __package__)


@contextlib.contextmanager
def emit_nvtx(enabled: bool = True, record_shapes: bool = False) -> Iterator[None]:
    """Accepted: no ranges are sent to NVTX."""
    yield


@contextlib.contextmanager
def emit_itt(enabled: bool = True, record_shapes: bool = False) -> Iterator[None]:
    """Accepted: no ranges are sent to ITT."""
    yield


def profile(enabled: bool = True, *, use_cuda: bool = False, use_device: str | None = None, record_shapes: bool = False,
            with_flops: bool = False, profile_memory: bool = False, with_stack: bool = False, with_modules: bool = False,
            **kwargs: Any) -> Any:
    """A profiler of named ranges; one that records nothing if not ``enabled``."""
    return _front().profile(record_shapes=record_shapes) if enabled else contextlib.nullcontext()


def __getattr__(name: str) -> Any:
    if name in ("EventList", "FunctionEvent", "record_function"):
        return getattr(_front(), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["emit_itt", "emit_nvtx", "profile"]
