"""``torch.multiprocessing``: Python's ``multiprocessing`` and :func:`spawn`. Tensors travel by value."""
from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing import *  # noqa: F403
from typing import Any

__all__ = [*multiprocessing.__all__, "ProcessContext", "ProcessException", "ProcessExitedException",  # type: ignore[attr-defined]
           "ProcessRaisedException", "get_all_sharing_strategies", "get_sharing_strategy", "set_sharing_strategy", "spawn",
           "start_processes"]


class ProcessException(Exception):
    """A process started here failed."""

    def __init__(self, msg: str, error_index: int, pid: int):
        super().__init__(msg)
        self.msg, self.error_index, self.pid = msg, error_index, pid


class ProcessRaisedException(ProcessException):
    """It raised; the message holds its traceback."""


class ProcessExitedException(ProcessException):
    """It ended with another exit code than 0 or by a signal."""

    def __init__(self, msg: str, error_index: int, error_pid: int, exit_code: int, signal_name: str | None = None):
        super().__init__(msg, error_index, error_pid)
        self.exit_code, self.signal_name = exit_code, signal_name


def _run(fn: Callable[..., Any], i: int, args: tuple[Any, ...], errors: Any) -> None:
    """In the child: ``fn(i, *args)``; a traceback goes to the parent."""
    try:
        fn(i, *args)
    except KeyboardInterrupt:
        pass
    except Exception:
        errors.send(traceback.format_exc())
        errors.close()
        os._exit(1)


class ProcessContext:
    """The processes of one :func:`start_processes`."""

    def __init__(self, processes: list[Any], errors: list[Any]):
        self.processes, self._errors = processes, errors
        self.sentinels = {p.sentinel: i for i, p in enumerate(processes)}

    def pids(self) -> list[int]:
        return [p.pid for p in self.processes]

    def join(self, timeout: float | None = None, grace_period: float | None = None) -> bool:
        """Wait for one process to end (or ``timeout`` seconds); True when all have. Raises the first failure after ending
        the others."""
        if not self.sentinels:
            return True
        failed = None
        for sentinel in multiprocessing.connection.wait(list(self.sentinels), timeout=timeout):
            i = self.sentinels.pop(sentinel)  # type: ignore[call-overload]
            self.processes[i].join()
            if self.processes[i].exitcode != 0:
                failed = i
                break
        if failed is None:
            return not self.sentinels
        for p in self.processes:
            if p.is_alive():
                p.terminate()
        for p in self.processes:
            p.join(grace_period)
            if p.is_alive():
                p.kill()
                p.join()
        self._raise(failed)
        return False

    def _raise(self, i: int) -> None:
        p = self.processes[i]
        if self._errors[i].poll():
            try:
                text = self._errors[i].recv()
                raise ProcessRaisedException(f"\n\n-- Process {i} terminated with the following error:\n{text}", i, p.pid)
            except EOFError:
                pass
        if p.exitcode < 0:
            name = signal.Signals(-p.exitcode).name
            raise ProcessExitedException(f"process {i} terminated with signal {name}", i, p.pid, p.exitcode, name)
        raise ProcessExitedException(f"process {i} terminated with exit code {p.exitcode}", i, p.pid, p.exitcode)


def start_processes(fn: Callable[..., Any], args: Any = (), nprocs: int = 1, join: bool = True, daemon: bool = False,
                    start_method: str = "spawn") -> ProcessContext | None:
    """``fn(i, *args)`` in ``nprocs`` processes; with ``join`` waits for them and raises the first failure."""
    context: Any = multiprocessing.get_context(start_method)
    processes, errors = [], []
    for i in range(nprocs):
        receiving, sending = context.Pipe(duplex=False)
        p = context.Process(target=_run, args=(fn, i, tuple(args), sending), daemon=daemon)
        p.start()
        sending.close()
        processes.append(p)
        errors.append(receiving)
    started = ProcessContext(processes, errors)
    if not join:
        return started
    while not started.join():
        pass
    return None


def spawn(fn: Callable[..., Any], args: Any = (), nprocs: int = 1, join: bool = True, daemon: bool = False,
          start_method: str = "spawn") -> ProcessContext | None:
    """:func:`start_processes` with fresh interpreters."""
    return start_processes(fn, args, nprocs, join, daemon, start_method="spawn")


def get_all_sharing_strategies() -> set[str]:
    """Names that :func:`set_sharing_strategy` takes."""
    return {"file_descriptor", "file_system"}


_strategy = ["file_descriptor"]  # documented process-wide setting, without effect: tensors travel by value


def get_sharing_strategy() -> str:
    return _strategy[0]


def set_sharing_strategy(new_strategy: str) -> None:
    """Accepted: tensors travel by value."""
    if new_strategy not in get_all_sharing_strategies():
        raise ValueError(f"{new_strategy!r} is not one of {sorted(get_all_sharing_strategies())}")
    _strategy[0] = new_strategy
