"""``torch.utils.benchmark``: times of statements, with warm-up, threads set, and what is pending computed inside the clock."""
from __future__ import annotations

import dataclasses
import statistics
import sys
import textwrap
import time
import timeit
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...ir import recorder
from ...runtime import threads

__all__ = ["Compare", "Measurement", "Timer", "timer"]


def timer() -> float:
    """Seconds; everything recorded so far is computed first."""
    if not recorder.state.hold:
        recorder.flush("benchmark")
    return time.perf_counter()


def _computed(result: Any) -> None:
    """Compute what a call gave, as a program that uses it would: a result nobody holds is never computed."""
    if not recorder.state.hold:
        recorder.flush("benchmark")


def _wrapped(stmt: str) -> str:
    """The statement; if it is an expression, what it gives is computed in every call."""
    try:
        compile(stmt, "<stmt>", "eval")
    except SyntaxError:
        return stmt
    return f"_computed((\n{stmt}\n))"


def _unit(seconds: float) -> tuple[str, float]:
    for name, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return name, size
    return "ns", 1e-9


@dataclasses.dataclass
class Measurement:
    """Times of several runs of ``number_per_run`` calls each. ``mean``, ``median`` and ``iqr`` are seconds per call."""

    number_per_run: int
    raw_times: list[float]
    stmt: str = ""
    label: str | None = None
    sub_label: str | None = None
    description: str | None = None
    env: str | None = None
    num_threads: int = 1

    @property
    def times(self) -> list[float]:
        """Seconds per call of each run."""
        return [t / self.number_per_run for t in self.raw_times]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.times)

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def iqr(self) -> float:
        """Difference of the quartiles."""
        if len(self.raw_times) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.times, n=4, method="inclusive")
        return high - low

    @property
    def title(self) -> str:
        head = self.label or self.stmt
        return head + (f": {self.sub_label}" if self.sub_label else "")

    @property
    def meets_confidence(self) -> bool:
        """Whether the quartiles are within 10 per cent of the median."""
        return self.iqr <= 0.1 * self.median

    @staticmethod
    def merge(measurements: Iterable[Measurement]) -> list[Measurement]:
        """Runs of the same thing (all but the times agree, and the calls per run) as one."""
        found: dict[tuple[Any, ...], Measurement] = {}
        for m in measurements:
            key = (m.number_per_run, m.stmt, m.label, m.sub_label, m.description, m.env, m.num_threads)
            if key in found:
                found[key].raw_times += m.raw_times
            else:
                found[key] = dataclasses.replace(m, raw_times=list(m.raw_times))
        return list(found.values())

    def __repr__(self) -> str:
        unit, size = _unit(self.median)
        lines = [f"<graphc.utils.benchmark.Measurement> {self.title}"]
        lines += [self.description] if self.description else []
        lines += [f"  Median: {self.median / size:.2f} {unit}"]
        if len(self.raw_times) > 1:
            lines += [f"  IQR:    {self.iqr / size:.2f} {unit}"]
        counts = [(len(self.raw_times), "measurement", ", "), (self.number_per_run, "run", " per measurement, "),
                  (self.num_threads, "thread", "")]
        return "\n".join([*lines, "  " + "".join(f"{n} {what}{'' if n == 1 else 's'}{after}" for n, what, after in counts)])


class Timer:
    """Times ``stmt`` (Python source) with the names of ``globals``, after ``setup``, on ``num_threads`` threads. What an
    expression gives is computed in every call."""

    def __init__(self, stmt: str = "pass", setup: str = "pass", global_setup: str = "", timer: Callable[[], float] = timer,
                 globals: dict[str, Any] | None = None, label: str | None = None, sub_label: str | None = None,
                 description: str | None = None, env: str | None = None, num_threads: int = 1, language: str = "python"):
        if str(language).lower() not in ("python", "py", "language.python"):
            raise NotImplementedError("benchmark.Timer times Python: there is no C++ interface")
        names = dict(globals or {})
        if "torch" not in names:
            names["torch"] = sys.modules[__name__.split(".")[0]]
        self._stmt = textwrap.dedent(stmt).strip()
        names["_computed"] = _computed
        self._timer = timeit.Timer(_wrapped(self._stmt), textwrap.dedent(setup).strip(), timer, names)
        self._labels = {"stmt": self._stmt, "label": label, "sub_label": sub_label, "description": description, "env": env,
                        "num_threads": num_threads}
        self._threads = num_threads

    def _time(self, number: int) -> float:
        before = threads.get_num_threads()
        threads.set_num_threads(self._threads)
        try:
            return max(self._timer.timeit(number), 1e-9)
        finally:
            threads.set_num_threads(before)

    def _made(self, number: int, raw: Sequence[float]) -> Measurement:
        return Measurement(number, list(raw), **self._labels)  # type: ignore[arg-type]

    def timeit(self, number: int = 1_000_000) -> Measurement:
        """One run of ``number`` calls, after a shorter one to warm up."""
        self._time(max(number // 100, 2))
        return self._made(number, [self._time(number)])

    def blocked_autorange(self, callback: Callable[[int, float], Any] | None = None,
                          min_run_time: float = 0.2) -> Measurement:
        """Runs long enough that reading the clock does not count, until ``min_run_time`` seconds are spent."""
        number, took = 1, self._time(1)
        took = self._time(1)
        while took < min(min_run_time / 100, 1e-3) and number < 1 << 30:
            number *= 10
            took = self._time(number)
        times: list[float] = []
        while sum(times) < min_run_time:
            times.append(self._time(number))
            if callback is not None:
                callback(number, times[-1])
        return self._made(number, times)

    def adaptive_autorange(self, threshold: float = 0.1, *, min_run_time: float = 0.01, max_run_time: float = 10.0,
                           callback: Callable[[int, float], Any] | None = None) -> Measurement:
        """Until the quartiles are within ``threshold`` of the median, or ``max_run_time`` seconds are spent."""
        first = self.blocked_autorange(callback, min_run_time)
        while first.iqr > threshold * first.median or len(first.raw_times) < 4:
            if sum(first.raw_times) > max_run_time:
                break
            first.raw_times.append(self._time(first.number_per_run))
        return first


class Compare:
    """A table of measurements: a row per ``sub_label`` and number of threads, a column per ``description``."""

    def __init__(self, results: Sequence[Measurement]):
        self._results = list(results)
        self._trim = False

    def extend_results(self, results: Sequence[Measurement]) -> None:
        """More rows."""
        for r in results:
            if not isinstance(r, Measurement):
                raise ValueError(f"Expected an instance of `Measurement`, got {type(r)} instead.")
        self._results.extend(results)

    def trim_significant_figures(self) -> None:
        """Show three significant figures."""
        self._trim = True

    def colorize(self, rowwise: bool = False) -> None:
        """Accepted: the table is plain text."""

    highlight_warnings = colorize

    def __str__(self) -> str:
        tables = []
        merged = Measurement.merge(self._results)
        for label in dict.fromkeys(m.label for m in merged):
            mine = [m for m in merged if m.label == label]
            columns = list(dict.fromkeys(m.description or "" for m in mine))
            unit, size = _unit(min(m.median for m in mine))
            rows = [["", *columns]]
            for n in dict.fromkeys(m.num_threads for m in mine):
                rows.append([f"{n} threads: " if n != 1 else "1 threads: ", *[""] * len(columns)])
                for sub in dict.fromkeys(m.sub_label or m.stmt for m in mine if m.num_threads == n):
                    cells = []
                    for c in columns:
                        hit = [m for m in mine if (m.sub_label or m.stmt, m.description or "", m.num_threads) == (sub, c, n)]
                        value = hit[0].median / size if hit else 0.0
                        cells.append((f"{value:.3g}" if self._trim else f"{value:.1f}") if hit else "")
                    rows.append([f"  {sub}", *cells])
            widths = [max(len(r[k]) for r in rows) for k in range(len(columns) + 1)]
            lines = ["  |  ".join([r[0].ljust(widths[0]), *[c.rjust(w) for c, w in zip(r[1:], widths[1:])]]) for r in rows]
            rule = "-" * max(len(line) for line in lines)
            tables.append("\n".join([f"[{label or ''}]".center(len(rule), "-"), *lines[:1], rule, *lines[1:], "",
                                     f"Times are in {unit}."]))
        return "\n\n".join(tables)

    def print(self) -> None:
        """Print the table."""
        print(str(self))
