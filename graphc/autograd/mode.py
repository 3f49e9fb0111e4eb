"""Gradient modes: context managers that also work as decorators."""
from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

from ..ir.recorder import state


class _Mode:
    """Sets the recording of gradients inside a ``with`` block or a decorated function."""

    __slots__ = ("value", "before")

    def __init__(self, value: bool):
        self.value = value
        self.before: list[bool] = []

    def __enter__(self) -> Any:
        self.before.append(state.grad)
        state.grad = self.value
        return self

    def __exit__(self, *exc: object) -> None:
        state.grad = self.before.pop()

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        value = self.value
        if inspect.isgeneratorfunction(fn):
            return _wrap_generator(fn, value)

        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            before, state.grad = state.grad, value
            try:
                return fn(*args, **kwargs)
            finally:
                state.grad = before

        return wrapped


def _wrap_generator(fn: Callable[..., Any], value: bool) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        it = fn(*args, **kwargs)
        while True:
            before, state.grad = state.grad, value
            try:
                item = next(it)
            except StopIteration as stop:
                return stop.value
            finally:
                state.grad = before
            yield item

    return wrapped


class no_grad(_Mode):
    """Disable recording of gradients: ``with no_grad():`` or ``@no_grad()`` (``@no_grad`` works too)."""

    __slots__ = ()

    def __new__(cls, fn: Callable[..., Any] | None = None) -> Any:
        self = object.__new__(cls)
        if fn is not None:
            _Mode.__init__(self, False)
            return self(fn)
        return self

    def __init__(self, fn: Any = None) -> None:
        super().__init__(False)


class enable_grad(_Mode):
    """Enable recording of gradients."""

    __slots__ = ()

    def __new__(cls, fn: Callable[..., Any] | None = None) -> Any:
        self = object.__new__(cls)
        if fn is not None:
            _Mode.__init__(self, True)
            return self(fn)
        return self

    def __init__(self, fn: Any = None) -> None:
        super().__init__(True)


class inference_mode(_Mode):
    """Like :class:`no_grad`; graphc needs no further restriction to make inference cheap."""

    __slots__ = ()

    def __new__(cls, mode: Any = True) -> Any:
        self = object.__new__(cls)
        if callable(mode):
            _Mode.__init__(self, False)
            return self(mode)
        return self

    def __init__(self, mode: Any = True) -> None:
        super().__init__(not mode)


class set_grad_enabled(_Mode):
    """Set the mode now; as a context manager, restore it at the end."""

    __slots__ = ()

    def __init__(self, mode: bool):
        super().__init__(bool(mode))
        self.before.append(state.grad)
        state.grad = self.value

    def __enter__(self) -> Any:
        return self

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        state.grad = self.before[-1]  # as a decorator it is for the function only
        return super().__call__(fn)


def is_grad_enabled() -> bool:
    """Whether gradients are being recorded in this thread."""
    return state.grad


def is_inference_mode_enabled() -> bool:
    return not state.grad


class _Anomaly(threading.local):
    """Whether backward walks of this thread look for NaN."""

    check = False


anomaly = _Anomaly()


class detect_anomaly:
    """Inside the block a backward pass that makes a NaN raises RuntimeError, which names the operation and the line that
    recorded it. Every gradient is read for that, so it is slow."""

    def __init__(self, check_nan: bool = True):
        self._check = bool(check_nan)
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(anomaly.check)
        anomaly.check = self._check

    def __exit__(self, *exc: object) -> None:
        anomaly.check = self._before.pop()


class set_detect_anomaly(detect_anomaly):
    """Look for NaN in backward passes from now on, or stop; as a context manager, as it was before at the end."""

    def __init__(self, mode: bool, check_nan: bool = True):
        super().__init__(mode and check_nan)
        self._before.append(anomaly.check)
        anomaly.check = self._check

    def __enter__(self) -> None:
        pass


def is_anomaly_enabled() -> bool:
    """Whether backward passes of this thread look for NaN."""
    return anomaly.check
