"""``torch.futures``: results that come later, from threads of this process."""
from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Future:
    """A result that another thread sets. ``wait()`` gives it, or raises the exception set instead."""

    def __init__(self, *, devices: Any = None):
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._result: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Future], Any]] = []

    def done(self) -> bool:
        """Whether a result or an exception is there."""
        return self._done.is_set()

    def wait(self) -> Any:
        """The result, once it is there."""
        self._done.wait()
        return self.value()

    def value(self) -> Any:
        """The result, which must be there (RuntimeError)."""
        if not self._done.is_set():
            raise RuntimeError("future has no result yet: call wait()")
        if self._error is not None:
            raise self._error
        return self._result

    def _finish(self, result: Any, error: BaseException | None) -> None:
        with self._lock:
            if self._done.is_set():
                raise RuntimeError("Future can only be marked completed once")
            self._result, self._error = result, error
            self._done.set()
            todo, self._callbacks = self._callbacks, []
        for fn in todo:
            fn(self)

    def set_result(self, result: Any) -> None:
        """Complete it; a second time is a RuntimeError."""
        self._finish(result, None)

    def set_exception(self, result: BaseException) -> None:
        """Complete it with an exception, which ``wait`` raises."""
        if not isinstance(result, BaseException):
            raise AssertionError(f"{result} is of type {type(result)}, not an Exception.")
        self._finish(None, result)

    def add_done_callback(self, callback: Callable[[Future], Any]) -> None:
        """Call ``callback(self)`` on completion (at once if it is complete)."""
        with self._lock:
            if not self._done.is_set():
                self._callbacks.append(callback)
                return
        callback(self)

    def then(self, callback: Callable[[Future], Any]) -> Future:
        """A future of ``callback(self)``."""
        out = Future()

        def run(done: Future) -> None:
            try:
                out.set_result(callback(done))
            except Exception as error:  # the caller of out.wait() gets it
                out.set_exception(error)

        self.add_done_callback(run)
        return out


def collect_all(futures: list[Future]) -> Future:
    """A future of the list itself, complete when all of them are."""
    out, left, lock = Future(), [len(futures)], threading.Lock()

    def one(_: Future) -> None:
        with lock:
            left[0] -= 1
            last = not left[0]
        if last:
            out.set_result(futures)

    for f in futures:
        f.add_done_callback(one)
    if not futures:
        out.set_result(futures)
    return out


def wait_all(futures: list[Future]) -> list[Any]:
    """The results of all; the first exception found is raised."""
    return [f.wait() for f in futures]


__all__ = ["Future", "collect_all", "wait_all"]
