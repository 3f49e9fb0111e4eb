"""``torch.profiler``: wall-clock times of ranges named with :class:`record_function`, and of steps.

What a range recorded is computed when the range ends (outside compiled calls), so that its time is its own. Kernels are not
timed one by one; ``compile(f).explain()`` lists them.
"""
from __future__ import annotations

import contextlib
import dataclasses
import enum
import gzip
import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from .ir import recorder

__all__ = ["EventList", "FunctionEvent", "ProfilerAction", "ProfilerActivity", "kineto_available", "profile", "record_function",
           "schedule", "supported_activities", "tensorboard_trace_handler"]


class ProfilerActivity(enum.Enum):
    """What to watch; accepted, since ranges are all there is."""

    CPU, XPU, MTIA, CUDA, HPU = range(5)


def supported_activities() -> set[ProfilerActivity]:
    """What can be watched: ranges on the CPU."""
    return {ProfilerActivity.CPU}


def kineto_available() -> bool:
    """Whether PyTorch's Kineto is there: no."""
    return False


class ProfilerAction(enum.Enum):
    """What the profiler does during a step."""

    NONE, WARMUP, RECORD, RECORD_AND_SAVE = range(4)


@dataclasses.dataclass
class FunctionEvent:
    """One range, or the sum of those of one name: times in microseconds."""

    key: str
    start: float
    cpu_time_total: float
    self_cpu_time_total: float
    count: int
    depth: int

    @property
    def name(self) -> str:
        return self.key

    @property
    def cpu_time(self) -> float:
        """Mean time of one call."""
        return self.cpu_time_total / max(self.count, 1)


class EventList(list):
    """Events with a readable table."""

    def table(self, sort_by: str | None = None, row_limit: int = 100, **kwargs: Any) -> str:
        """Rows of name, calls, total, own and mean time, sorted by "cpu_time_total", "self_cpu_time_total", "cpu_time" or
        "count"."""
        by = (sort_by or "cpu_time_total").replace("cuda", "cpu").replace("device", "cpu")
        rows = sorted(self, key=lambda e: getattr(e, by, e.cpu_time_total), reverse=True)[:row_limit if row_limit > 0 else None]
        width = max([len(e.key) for e in rows] + [4])
        lines = [f"{'Name':<{width}}  {'Calls':>7}  {'Total ms':>11}  {'Self ms':>11}  {'Mean ms':>11}"]
        lines += [f"{e.key:<{width}}  {e.count:>7}  {e.cpu_time_total / 1e3:>11.3f}  {e.self_cpu_time_total / 1e3:>11.3f}  "
                  f"{e.cpu_time / 1e3:>11.3f}" for e in rows]
        return "\n".join(lines)

    def total_average(self) -> FunctionEvent:
        own = sum(e.self_cpu_time_total for e in self)
        return FunctionEvent("Total", 0.0, own, own, sum(e.count for e in self), 0)


class _Session:
    """The ranges of the profiler that is recording; at most one at a time per process."""

    active: profile | None = None


class record_function(contextlib.ContextDecorator):
    """Name a range of the program: a context manager or decorator. Costs nothing while no profiler records."""

    def __init__(self, name: str, args: str | None = None):
        self.name = name if args is None else f"{name}({args})"
        self._open: list[Any] = []

    def __enter__(self) -> record_function:
        p = _Session.active
        self._open.append(None if p is None else p._begin(self.name))
        return self

    def __exit__(self, *exc: object) -> None:
        entry = self._open.pop()
        if entry is not None:
            entry[0]._end(entry)


def schedule(*, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0,
             skip_first_wait: int = 0) -> Callable[[int], ProfilerAction]:
    """A function of the step number: skip ``skip_first``, then cycles of ``wait`` idle, ``warmup`` and ``active`` recorded
    steps, ``repeat`` times (0: for ever)."""
    if min(wait, warmup, repeat, skip_first) < 0 or active <= 0:
        raise AssertionError("Invalid profiler schedule arguments")

    def action(step: int) -> ProfilerAction:
        if step < skip_first:
            return ProfilerAction.NONE
        step -= skip_first
        if skip_first_wait:
            step += wait
        cycle, at = divmod(step, wait + warmup + active)
        if (repeat and cycle >= repeat) or at < wait:
            return ProfilerAction.NONE
        if at < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD_AND_SAVE if at == wait + warmup + active - 1 else ProfilerAction.RECORD

    return action


def tensorboard_trace_handler(dir_name: str, worker_name: str | None = None, use_gzip: bool = False,
                              use_python_export: bool = False) -> Callable[[profile], None]:
    """An ``on_trace_ready`` that writes a Chrome trace into a folder."""

    def write(p: profile) -> None:
        os.makedirs(dir_name, exist_ok=True)
        worker = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        p.export_chrome_trace(os.path.join(dir_name, f"{worker}.{time.time_ns()}.pt.trace.json" + (".gz" if use_gzip else "")))

    return write


class profile:
    """Record ranges inside a ``with`` block; with a ``schedule``, call :meth:`step` after each step."""

    def __init__(self, *, activities: Iterable[Any] | None = None, schedule: Callable[[int], ProfilerAction] | None = None,
                 on_trace_ready: Callable[..., Any] | None = None, record_shapes: bool = False, profile_memory: bool = False,
                 with_stack: bool = False, with_flops: bool = False, with_modules: bool = False,
                 experimental_config: Any = None, execution_trace_observer: Any = None, acc_events: bool = False,
                 use_cuda: bool | None = None, custom_trace_id_callback: Any = None,
                 post_processing_timeout_s: float | None = None) -> None:
        self._schedule = schedule
        self._ready = on_trace_ready
        self._acc_events = acc_events
        self._events: list[FunctionEvent] = []
        self._stack: list[list[Any]] = []
        self._step_entry: Any = None
        self.step_num = 0
        self._action = ProfilerAction.NONE

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin; RuntimeError while another profiler records."""
        if _Session.active is not None:
            raise RuntimeError("Profiler is already enabled on this thread")
        _Session.active = self
        self._action = self._schedule(0) if self._schedule else ProfilerAction.RECORD_AND_SAVE
        self._open_step()

    def stop(self) -> None:
        """End the last step and hand the trace over."""
        if _Session.active is not self:
            return
        self._close_step()
        _Session.active = None
        if self._ready is not None and self._action in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE):
            self._ready(self)

    def step(self) -> None:
        """The next step begins."""
        if _Session.active is not self:
            return
        self._close_step()
        if self._schedule is not None and self._action is ProfilerAction.RECORD_AND_SAVE:
            if self._ready is not None:
                self._ready(self)
            if not self._acc_events:
                self._finished, self._events = self._events, []
        self.step_num += 1
        if self._schedule is not None:
            self._action = self._schedule(self.step_num)
        self._open_step()

    _finished: list[FunctionEvent] = []

    def _open_step(self) -> None:
        if self._schedule is not None:
            self._step_entry = self._begin(f"ProfilerStep#{self.step_num}")

    def _close_step(self) -> None:
        if self._step_entry is not None:
            self._end(self._step_entry)
            self._step_entry = None

    def _begin(self, name: str) -> list[Any] | None:
        if self._action not in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE):
            return None
        _settle()
        entry = [self, name, time.perf_counter_ns(), 0]
        self._stack.append(entry)
        return entry

    def _end(self, entry: list[Any]) -> None:
        if entry not in self._stack:  # the profiler was stopped inside the range
            return
        _settle()
        now = time.perf_counter_ns()
        while self._stack[-1] is not entry:
            self._stack.pop()
        self._stack.pop()
        _, name, begun, inner = entry
        took = now - begun
        if self._stack:
            self._stack[-1][3] += took
        self._events.append(FunctionEvent(name, begun / 1e3, took / 1e3, (took - inner) / 1e3, 1, len(self._stack)))

    def events(self) -> EventList:
        """Every range, in the order they ended."""
        return EventList(self._events or self._finished)

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0,
                     group_by_overload_name: bool = False) -> EventList:
        """The ranges summed by name."""
        total: dict[str, FunctionEvent] = {}
        for e in self.events():
            t = total.get(e.key)
            total[e.key] = e if t is None else dataclasses.replace(
                t, cpu_time_total=t.cpu_time_total + e.cpu_time_total,
                self_cpu_time_total=t.self_cpu_time_total + e.self_cpu_time_total, count=t.count + 1)
        return EventList(total.values())

    def export_chrome_trace(self, path: str) -> None:
        """Write a trace for chrome://tracing or Perfetto (gzip if the name ends in .gz)."""
        pid = os.getpid()
        trace = {"traceEvents": [{"name": e.key, "ph": "X", "ts": e.start, "dur": e.cpu_time_total, "pid": pid, "tid": 0,
                                  "cat": "user_annotation"} for e in self.events()]}
        opener: Any = gzip.open if path.endswith(".gz") else open
        with opener(path, "wt", encoding="utf-8") as f:
            json.dump(trace, f)


def _settle() -> None:
    """Compute what is pending, so that its time counts for the range that recorded it."""
    if not recorder.state.hold:
        recorder.flush("profiler")
