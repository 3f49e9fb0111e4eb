"""``torch.cuda.nvtx``: named ranges for NVIDIA's profilers, by the package ``nvtx``; without it they do nothing."""
from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@functools.cache
def _library() -> Any:
    """The package, or None."""
    try:
        return importlib.import_module("nvtx")
    except ImportError:
        return None


class _State(threading.local):
    depth = 0


_state = _State()


def range_push(msg: str) -> int:
    """Open a range inside those of this thread; returns how many were open before."""
    if _library() is not None:
        _library().push_range(msg)
    _state.depth += 1
    return _state.depth - 1


def range_pop() -> int:
    """Close the innermost range; returns how many are open still."""
    if _library() is not None:
        _library().pop_range()
    _state.depth = max(0, _state.depth - 1)
    return _state.depth


def range_start(msg: str) -> Any:
    """Open a range that any thread may close with the handle returned."""
    return 0 if _library() is None else _library().start_range(msg)


def range_end(range_id: Any) -> None:
    """Close a range of :func:`range_start`."""
    if _library() is not None:
        _library().end_range(range_id)


def mark(msg: str) -> None:
    """Note that something happened now."""
    if _library() is not None:
        _library().mark(msg)


@contextmanager
def range(msg: str, *args: Any, **kwargs: Any) -> Iterator[None]:
    """A range around a block or, as a decorator, a function; ``msg`` is formatted with the other arguments."""
    range_push(msg.format(*args, **kwargs))
    try:
        yield
    finally:
        range_pop()


__all__ = ["mark", "range", "range_end", "range_pop", "range_push", "range_start"]
