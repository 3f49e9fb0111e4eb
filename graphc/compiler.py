"""``torch.compiler``: questions and switches about :func:`graphc.compile`."""
from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .compile import compile as compile
from .ir.recorder import state

__all__ = ["allow_in_graph", "assume_constant_result", "compile", "cudagraph_mark_step_begin", "disable", "get_default_backend",
           "is_compiling", "is_dynamo_compiling", "is_exporting", "list_backends", "load_cache_artifacts",
           "nested_compile_region", "reset", "save_cache_artifacts", "set_default_backend", "set_stance", "substitute_in_graph",
           "wrap_numpy"]


def is_compiling() -> bool:
    """Whether a compiled call is running (its operations are recorded as one region)."""
    return state.hold > 0


def is_dynamo_compiling() -> bool:
    """:func:`is_compiling`."""
    return is_compiling()


def is_exporting() -> bool:
    """Whether a program is being recorded by ``graphc.export`` or ``graphc.onnx`` in this thread."""
    record = sys.modules.get(f"{__package__}.export.record")
    return record is not None and isinstance(state.watch, record._Watch)


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """``fn`` itself (or a decorator): its Python runs on every call anyway, also inside a compiled one."""
    return (lambda f: f) if fn is None else fn


def allow_in_graph(fn: Any) -> Any:
    """``fn`` itself: any Python is allowed."""
    return fn


def assume_constant_result(fn: Any) -> Any:
    """``fn`` itself: Python runs on every call, so nothing needs to be assumed."""
    return fn


def wrap_numpy(fn: Callable[..., Any]) -> Callable[..., Any]:
    """``fn`` over tensors instead of arrays: arguments become arrays, array results tensors (evaluates)."""
    import functools

    import numpy as np

    from .tensor import Tensor, from_numpy_copy, to_numpy

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        def plain(x: Any) -> Any:
            return to_numpy(x.detach()) if isinstance(x, Tensor) else x

        def tensors(x: Any) -> Any:
            if isinstance(x, (tuple, list)):
                return type(x)(tensors(y) for y in x)
            return from_numpy_copy(x) if isinstance(x, np.ndarray) else x

        return tensors(fn(*[plain(a) for a in args], **{k: plain(v) for k, v in kwargs.items()}))

    return wrapped


def reset() -> None:
    """Accepted: plans are found by the program itself and never stale."""


def cudagraph_mark_step_begin() -> None:
    """Accepted: launches are replayed by the plan itself."""


def nested_compile_region(fn: Any = None, *args: Any, **kwargs: Any) -> Any:
    """``fn`` itself (or a decorator): equal parts of a program share compiled code anyway."""
    return (lambda f: f) if fn is None else fn


def substitute_in_graph(original_fn: Any, *, can_constant_fold_through: bool = False, skip_signature_check: bool = False,
                        is_embedded_type: bool = False) -> Any:
    """A decorator that leaves both functions: Python runs the original."""
    return lambda fn: fn


def save_cache_artifacts() -> None:
    """Nothing to save: compiled code is kept on disk already."""


def load_cache_artifacts(serialized_artifacts: Any) -> None:
    """Accepted: compiled code is kept on disk already."""


def get_default_backend() -> str:
    return "graphc"


def set_default_backend(backend: Any) -> None:
    """Accepted: there is one, which chooses by device."""


def list_backends(exclude_tags: Any = ("debug", "experimental")) -> list[str]:
    """Names of back ends: one, which chooses by device."""
    return ["graphc"]


class set_stance:
    """Accepted as a function, context manager or decorator: there is one way to run."""

    def __init__(self, stance: str = "default", *, skip_guard_eval_unsafe: bool = False, force_backend: Any = None) -> None:
        if stance not in ("default", "force_eager", "eager_on_recompile", "fail_on_recompile", "eager_then_compile",
                          "aot_eager_then_compile"):
            raise RuntimeError(f"invalid torch.compile stance {stance!r}")

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None

    def __call__(self, fn: Any) -> Any:
        return fn
