"""``graphc.compile``: run a whole function as one region.

Python runs on every call and the recorder follows the last call's trace, so nothing can be stale. The decorator only
postpones flushing to the end of the call: natural flush points of eager programs (optimizer steps) are ignored, a read
on the host inside splits the call into segments. Plans are found by the trie node where a region ends.
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .errors import GraphBreakError
from .ir import recorder
from .ir.location import format_location, user_location


class CompiledFunction:
    """A callable that records and runs ``fn`` as one region per call; see :func:`compile`."""

    def __init__(self, fn: Callable[..., Any], fullgraph: bool = False):
        functools.update_wrapper(self, fn)
        self._fn, self._fullgraph = fn, fullgraph
        self._calls = self._plans = self._breaks = 0
        self._break_lines: dict[str, int] = {}
        self._graphs: list[Any] = []

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        return self if obj is None else functools.partial(self.__call__, obj)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        st = recorder.state
        if st.hold:  # nested: the outer call owns the region
            return self._fn(*args, **kwargs)
        recorder.flush("enter")
        built = recorder.counters["plans_built"]
        st.hold += 1
        recorder._flush_listeners.append(self._on_flush)
        try:
            out = self._fn(*args, **kwargs)
        finally:
            st.hold -= 1
            recorder._flush_listeners.remove(self._on_flush)
            end = st.region.cursor
            live = tuple([v.slot for r in st.region.live if (v := r()) is not None and v.region is st.region])
            recorder.flush("compiled call")
            self._calls += 1
            new = recorder.counters["plans_built"] - built
            self._plans += new
            if new and end.plans:
                self._graphs = [end.plans.get(live)]
        return out

    def _on_flush(self, reason: str) -> None:
        if reason == "read":
            where = format_location(user_location(2))
            if self._fullgraph:
                raise GraphBreakError(f"a value is read on the host inside a fullgraph=True function at {where}; return the "
                                      "tensor and read it outside, or compile without fullgraph")
            self._breaks += 1
            self._break_lines[where] = self._break_lines.get(where, 0) + 1

    def explain(self) -> Explanation:
        """What was compiled: calls, plans, graph breaks with their lines, and the last plan's graph."""
        plan = next((p for p in self._graphs if p is not None), None)
        return Explanation(self._calls, self._plans, dict(self._break_lines), plan)


class Explanation:
    """Figures of a compiled function; ``str()`` gives a readable report."""

    def __init__(self, calls: int, plans: int, breaks: dict[str, int], plan: Any):
        self.calls, self.plans, self.breaks, self.plan = calls, plans, breaks, plan

    @property
    def graph(self) -> Any:
        """The optimised graph of the latest plan, or None."""
        return getattr(self.plan, "graph", None)

    @property
    def kernels(self) -> list[str]:
        """Names of the kernels and library calls the latest plan runs; empty on the NumPy back end."""
        run = getattr(self.plan, "run", None)
        return run.kernels() if run is not None and hasattr(run, "kernels") else []

    def __str__(self) -> str:
        lines = [f"calls: {self.calls}", f"plans built: {self.plans}", f"graph breaks: {sum(self.breaks.values())}"]
        lines += [f"  {where}: {n} host read{'s' if n > 1 else ''}" for where, n in self.breaks.items()]
        if self.graph is not None:
            from .ir.dump import to_text

            lines += [f"latest plan: {len(self.graph.nodes)} nodes", to_text(self.graph)]
            if self.kernels:
                lines.append(self.plan.run.to_text())
        return "\n".join(lines)


def compile(model: Any = None, *, fullgraph: bool = False, dynamic: bool | None = None, backend: Any = None,
            mode: str | None = None, options: Any = None, disable: bool = False) -> Any:
    """Compile a function or module; usable as ``@compile``, ``@compile(fullgraph=True)`` or ``compile(model)``.

    ``fullgraph=True`` raises :class:`~graphc.errors.GraphBreakError` when a value is read inside. ``dynamic`` is
    accepted: sizes never need a recompilation decision, since each new shape re-plans by itself.
    """
    if model is None:
        return functools.partial(compile, fullgraph=fullgraph, dynamic=dynamic, backend=backend, mode=mode, options=options,
                                 disable=disable)
    if mode not in (None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs", "replay"):
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: default, replay, reduce-overhead, max-autotune")
    if disable:
        return model
    if hasattr(model, "forward") and hasattr(model, "parameters"):
        return _compile_module(model, fullgraph)
    return CompiledFunction(model, fullgraph)


def _compile_module(model: Any, fullgraph: bool) -> Any:
    """Compile a module in place by its class's ``__call__``; the module object itself is returned."""
    model.__dict__["_compiled_call"] = CompiledFunction(type(model).__call__.__get__(model), fullgraph)
    return model
