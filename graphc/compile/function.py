"""``graphc.compile``: run a whole function as one region.

Python runs on every call and the recorder follows the last call's trace, so nothing can be stale. The decorator only
postpones flushing to the end of the call: natural flush points of eager programs (optimizer steps) are ignored, a read
on the host inside splits the call into segments. Plans are found by the trie node where a region ends.
"""
from __future__ import annotations

import copy
import functools
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

from ..errors import GraphBreakError
from ..ir import recorder
from ..ir.location import format_location, user_location
from .report import Explanation, Recompile, difference

AUDIT_EVERY = 64  # calls of a replayed program between two that run its Python
RECOMPILE_BUDGET = 8  # recompiling calls of one function before a warning
_KNOWN_GRAPHS = 32  # graphs a function remembers, to say what a new one differs in
_MODES = (None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs", "replay")


class PerformanceNote(UserWarning):
    """A compiled function does something that costs time and need not; shown once per line of the program."""


class RecompileWarning(UserWarning):
    """A compiled function was recompiled more often than a steady program should be."""


def _warn_at(loc: Any, text: str, category: type[Warning]) -> None:
    """A warning at a line of the user's program."""
    file, _, line = format_location(loc).rpartition(":")
    warnings.warn_explicit(text, category, file or "<unknown>", int(line) if line.isdigit() else 0)


class _Call:
    """One running call: what the recorder tells about flushes and new plans."""

    __slots__ = ("owner", "number", "fullgraph", "split", "built", "flushed", "whole")

    def __init__(self, owner: CompiledFunction, fullgraph: bool):
        self.owner, self.number, self.fullgraph = owner, id(owner), fullgraph
        self.split: Any = None  # location of a host read that nothing was recorded after yet
        self.built: list[Any] = []
        self.flushed = False
        self.whole = owner._audit_every > 0  # what is replayed must find its data where the function does

    def on_flush(self, reason: str) -> None:
        self.flushed = True
        self.owner._end = recorder.state.region.cursor
        if self.split is not None:
            self.owner._note_split(self.split)
            self.split = None
        if reason == "read":
            where = user_location(3)
            if self.fullgraph:
                raise GraphBreakError("a value is read on the host inside a fullgraph=True function at "
                                      f"{format_location(where)}; return the tensor and read it outside, or compile without "
                                      "fullgraph")
            self.owner._add_break(format_location(where))
            self.split = where
        elif reason == "cap":
            self.owner._add_break("full region (GRAPHC_NODE_CAP, GRAPHC_BYTE_CAP)")

    def on_plan(self, graph: Any) -> None:
        self.built.append(graph)


class CompiledFunction:
    """A callable that records and runs ``fn`` as one region per call; see :func:`compile`."""

    def __init__(self, fn: Callable[..., Any], fullgraph: bool = False, budget: int = RECOMPILE_BUDGET, replay: int = 0,
                 memory: float = 1.0, tune: bool = False):
        functools.update_wrapper(self, fn)
        self._memory, self._tune = memory, tune
        self._fn, self._fullgraph, self._budget, self._audit_every = fn, fullgraph, budget, replay
        self._replay: Any = None  # made at the first call
        self._miss: Any = None
        self._calls = self._plans = 0
        self._break_lines: dict[str, int] = {}
        self._noted: set[str] = set()
        self._known: list[Any] = []  # graphs that were compiled here, oldest first
        self._end: Any = None  # where the latest region ended
        self._recompiles: list[Recompile] = []
        self._recompile_count = 0

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        return self if obj is None else types.MethodType(self, obj)

    def __repr__(self) -> str:
        return f"<graphc.compile of {self._fn!r}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        fn = copy.deepcopy(self._fn, memo)  # a bound method follows its object, a plain function stays itself
        return self if fn is self._fn else CompiledFunction(fn, *self._options())

    def __reduce__(self) -> Any:
        """A decorated function travels by its name, anything else as what it was made of."""
        name = getattr(self, "__qualname__", "")
        found: Any = sys.modules.get(getattr(self, "__module__", ""))
        for part in name.split("."):
            found = getattr(found, part, None)
        return name if found is self and name else (CompiledFunction, (self._fn, *self._options()))

    def _options(self) -> tuple[Any, ...]:
        return self._fullgraph, self._budget, self._audit_every, self._memory, self._tune

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        st = recorder.state
        if st.hold or st.tracing:  # nested, or part of a sub-graph: the outer call owns the region
            return self._nested(st, args, kwargs)
        if st.region.cursor.op is not None:  # something is pending
            recorder.flush("enter")
        if self._replay is not None and self._memory == 1.0 and not kwargs and not self._tune:
            out = self._replay.short(args)
            if out is not self._miss:
                self._calls += 1
                return out
        st.budget, st.tune = self._memory, self._tune
        try:
            return self._replayed(st, args, kwargs) if self._audit_every else self._run(st, args, kwargs)
        finally:
            st.budget, st.tune = 1.0, False

    def _run(self, st: Any, args: Any, kwargs: Any, learn: Any = None) -> Any:
        """Record the function and flush; ``learn(out)`` is called in between unless something was flushed before."""
        call = _Call(self, self._fullgraph)
        st.hold += 1  # from here to the try nothing is called, so Ctrl-C does not get between
        st.watch = call
        try:
            out = self._fn(*args, **kwargs)
            if learn is not None and not call.flushed:
                learn(out)
            return out
        finally:
            try:
                recorder.flush("compiled call")
            finally:
                st.hold -= 1
                st.watch = None
                self._calls += 1
                if call.built:
                    self._compiled(call.built)

    def _nested(self, st: Any, args: Any, kwargs: Any) -> Any:
        call = st.watch
        if not self._fullgraph or call is None or call.fullgraph:
            return self._fn(*args, **kwargs)
        call.fullgraph = True
        try:
            return self._fn(*args, **kwargs)
        finally:
            call.fullgraph = False

    def _replayed(self, st: Any, args: Any, kwargs: Any) -> Any:
        """A call in replay mode: without Python where what was learned fits, else recorded, observed and perhaps audited."""
        from .observe import Arguments, Unfit
        from .replay import MISS, Replay

        if self._replay is None:
            self._replay, self._miss = Replay(self._fn, self._audit_every), MISS
        replay = self._replay
        try:
            arguments = Arguments(args, kwargs)
        except Unfit as error:
            replay.why = str(error)
            return self._run(st, args, kwargs)
        variant = replay.find(arguments)
        numbers = None
        bindings = None if variant is None else variant.bindings(arguments.tensors)
        if variant is not None and bindings is not None:  # else it would not be replayed, so there is nothing to audit
            if replay.due(variant):
                numbers, bindings = variant.scalars(), None
            else:
                out, values = variant.run(arguments.tensors, bindings)
                recorder.flush("compiled call")
                replay.replayed += 1
                self._calls += 1
                return out
        seen = replay.observe(arguments)
        learn = None if seen is None else lambda out: replay.learn(seen, out, args, kwargs, variant)
        out = self._run(st, args, kwargs, learn)
        if numbers is not None:
            why = replay.audit(variant, seen, numbers)
            if why:
                replay.refuse(variant, why)
        elif seen is not None and seen.slots is None:
            replay.read_inside()
        return out

    # ------------------------------------------------------------------------------------------------------- statistics
    def _add_break(self, where: str) -> None:
        self._break_lines[where] = self._break_lines.get(where, 0) + 1

    def _note_split(self, loc: Any) -> None:
        """A performance note, once per line, at the line that read a value and went on."""
        where = format_location(loc)
        if where in self._noted:
            return
        self._noted.add(where)
        _warn_at(loc, f"a value is read on the host inside the compiled function {self._name()}, which splits it into two "
                 "programs; read it after the call, or keep it as a tensor", PerformanceNote)

    def _name(self) -> str:
        return getattr(self._fn, "__qualname__", None) or type(self._fn).__name__

    def _compiled(self, graphs: list[Any]) -> None:
        """Remember new programs, and warn when there are ever more of them."""
        self._plans += len(graphs)
        if self._calls > 1:
            self._recompile_count += 1
            self._recompiles.append(Recompile(self._calls, difference(graphs[0], self._known)))
            del self._recompiles[:-_KNOWN_GRAPHS]
            if self._recompile_count == self._budget + 1:
                _warn_at(user_location(2), f"{self._name()} was recompiled {self._recompile_count} times in {self._calls} "
                         f"calls; the latest because {self._recompiles[-1].reason} (explain() lists all)", RecompileWarning)
        self._known += graphs
        del self._known[:-_KNOWN_GRAPHS]

    def explain(self) -> Explanation:
        """What was compiled: calls, plans, recompilations and why, graph breaks with their lines, the last plan's graph."""
        plan = recorder.PLANS.get(self._known[-1].key()) if self._known else None
        if plan is None and self._end is not None and self._end.plans:  # built for another function that records the same
            plans = [p for p in self._end.plans.values() if p.recorded.budget == self._memory]
            plan = plans[-1] if plans else None
        return Explanation(self._calls, self._plans, dict(self._break_lines), plan, list(self._recompiles),
                           self._recompile_count, self._replay)


def compile(model: Any = None, *, fullgraph: bool = False, dynamic: bool | None = None, backend: Any = None,
            mode: str | None = None, options: Any = None, disable: bool = False, memory_budget: float | None = None) -> Any:
    """Compile a function or module; usable as ``@compile``, ``@compile(fullgraph=True)`` or ``compile(model)``.

    ``fullgraph=True`` raises :class:`~graphc.errors.GraphBreakError` when a value is read inside. ``dynamic`` is
    accepted: sizes never need a recompilation decision, since each new shape re-plans by itself.
    ``mode="max-autotune"`` measures block sizes on the device the first time a plan for one is built, and keeps what was
    fastest on disk (see ``codegen/triton/autotune.py``); programs on the CPU are planned as always.
    ``mode="replay"`` skips the function's Python while nothing it can see has changed (see ``replay.py``).
    ``options``: ``recompile_limit``, after how many recompiling calls a :class:`RecompileWarning` is given (8);
    ``audit_every``, how often replay mode runs the Python and compares (64); ``memory_budget``, as the argument.
    ``memory_budget`` (0 to 1, default 1: off) is the share of the bytes kept between forward and backward that the plan may
    keep; the rest is computed again in backward (see ``ir/passes/recompute.py``). It acts where the function contains both:
    compile the training step.
    """
    if model is None:
        return functools.partial(compile, fullgraph=fullgraph, dynamic=dynamic, backend=backend, mode=mode, options=options,
                                 disable=disable, memory_budget=memory_budget)
    if mode not in _MODES:
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: default, replay, reduce-overhead, max-autotune")
    if not callable(model):
        raise TypeError(f"compile() needs a function or a module, got {type(model).__name__}")
    if disable:
        return model
    options = options or {}
    budget = int(options.get("recompile_limit", RECOMPILE_BUDGET))
    replay = max(2, int(options.get("audit_every", AUDIT_EVERY))) if mode == "replay" else 0
    memory = float(options.get("memory_budget", 1.0) if memory_budget is None else memory_budget)
    tune = mode is not None and mode.startswith("max-autotune")
    if not 0 <= memory <= 1:
        raise ValueError(f"memory_budget must lie between 0 and 1, got {memory}")
    if hasattr(model, "_compiled_call_impl") and not isinstance(model, type):  # a module, compiled in place
        model._compiled_call_impl = CompiledFunction(model._call_impl, fullgraph, budget, replay, memory, tune)
        return model
    return CompiledFunction(model, fullgraph, budget, replay, memory, tune)
