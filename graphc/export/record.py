"""Recording a function for export: its graph, and for each of the graph's inputs where its data come from.

The function runs twice, for real (a training step makes two steps). What differs between the two runs must be explained by
writes to tensors that the program itself makes; anything else (random numbers, Python counters) could only be exported stale
and is refused with the line that uses it.
"""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import config
from ..device import CPU
from ..errors import ArgumentTypeError, DeviceError, GraphBreakError, GraphcError
from ..ir import recorder
from ..ir.location import format_location, user_location
from ..ir.node import Graph, Node, Value, leaf_value
from ..ir.passes import run_passes
from ..ir.passes.dce import dce
from ..ir.recorder import Region, region_graph, state
from ..tensor import Tensor, from_numpy_copy, to_numpy, wrap
from . import structure
from .program import RATES, Program, Source


class _Watch:
    """Refuses reads on the host while a program is recorded."""

    flushed = True  # as far as the recorder asks: this is no compiled function
    whole = True  # every step of the program must be recorded

    def on_flush(self, reason: str) -> None:
        where = format_location(user_location(3))
        if reason == "read":
            raise GraphBreakError(f"a value is read on the host inside an exported function at {where}; an exported program is "
                                  "one graph: replace Python branches and .item() by graphc.where and tensor operations")
        raise GraphcError(f"an exported function uses a tensor of more than 1 MB that shares memory with NumPy at {where}: "
                          "export with its clone()")

    def on_plan(self, graph: Any) -> None:
        pass


@contextlib.contextmanager
def _recording(grad: bool) -> Iterator[Region]:
    """A fresh region that nothing flushes; what it holds is computed at the end."""
    recorder.flush("export")
    caps = config.NODE_CAP, config.BYTE_CAP, config.EAGER
    before = state.watch, state.grad
    state.region = reg = Region()
    reg.cursor = Node(None, (), (), (), (), 0)  # a trie of its own: no node that ends a region, no lines of other callers
    state.watch, state.grad = _Watch(), grad
    state.hold += 1
    config.NODE_CAP, config.BYTE_CAP, config.EAGER = 1 << 60, 1 << 60, False  # one graph, however large
    done = False
    try:
        yield reg
        done = True
    finally:
        state.watch, state.grad = before
        config.NODE_CAP, config.BYTE_CAP, config.EAGER = caps
        try:
            if done or state.region is reg:
                recorder.flush("export")
        finally:
            state.hold -= 1


class Run:
    """One run: the recorded graph with outputs ``results`` then ``states``."""

    def __init__(self, fn: Callable[..., Any], args: Any, kwargs: Any, values: Sequence[Value], grad: bool):
        with _recording(grad) as reg:
            out = fn(*args, **kwargs)
            leaves: list[Any] = []
            self.out_spec = structure.flatten(out, lambda x: isinstance(x, Tensor), leaves)
            self.results = [self._slot(reg, t._read()) for t in leaves]
            self.new: dict[int, Value] = {}  # binding number -> value written over it
            numbers = {id(v): k for k, v in enumerate(reg.bindings) if isinstance(v, Value)}
            arguments = {id(v) for v in values}
            for holder, old, *_ in reg.writes:
                if id(old) in numbers and id(old) not in arguments:
                    self.new.setdefault(numbers[id(old)], _current(holder))
            slots = [self._slot(reg, v) for v in self.new.values()]
            self.graph = region_graph(reg.cursor, (*self.results, *slots))
            self.bindings = list(reg.bindings)
            self.made = [v for r in reg.live if (v := r()) is not None]  # what outlives the call
        self.rates: dict[int, Any] = {}  # binding number -> formula
        self.keep = out  # values of this run stay what they are

    @staticmethod
    def _slot(reg: Region, v: Value) -> int:
        return v.slot if v.region is reg else recorder._bind(reg, v)


def _current(holder: Any) -> Value:
    """What a holder of a write (a tensor or a storage) holds now."""
    alias = getattr(holder, "_alias", None)
    if alias is not None:
        holder = alias.storage
    return holder._v if hasattr(holder, "_v") else holder.value


def _reader(graph: Graph, slot: int) -> Node | None:
    return next((n for n in graph.nodes if slot in n.ins), None)


def _same_constant(first: Run, a: Value, b: Any) -> bool:
    """Whether a and b are one constant that the function makes of Python data on every call, and not something the first run
    computed and the second one reads."""
    if not isinstance(b, Value) or any(v is b for v in first.made) or a.aval is not b.aval:
        return False
    return recorder.evaluated(a).tobytes() == recorder.evaluated(b).tobytes()


def _rate(model: Any, a: Any, b: Any) -> Any:
    """The formula of an optimizer that ``model`` reaches which gave a, then b at its latest step; None if there is none."""
    from ..compile.scene import Hidden, Scene

    try:
        optimizers = Scene([model]).optimizers
    except Hidden:  # the function reaches what can't be searched
        return None
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            steps = {float(s["step"]) for p in group["params"] if "step" in (s := optimizer.state.get(p, {}))}
            lr, betas = group.get("lr"), group.get("betas")
            if len(steps) != 1 or type(lr) is not float or betas is None:
                continue
            t = steps.pop()
            for name, formula in RATES.items():
                known = (lr, float(betas[0]), float(betas[1]))
                if t > 1 and formula(*known, t) == b and formula(*known, t - 1) == a:
                    return (name, *known, t + 1)
    return None


def _check_steady(model: Any, first: Run, second: Run) -> None:
    """Raise unless the second run is the first one continued. Numbers of an optimizer become sources of the second one."""
    if first.graph != second.graph or set(first.new) != set(second.new) or first.out_spec != second.out_spec:
        raise GraphcError("two calls of the exported function recorded different programs; run it once or twice before the "
                          "export, so that lazily made state (an optimizer's buffers) exists, and make sure that nothing but "
                          "its arguments decides what it does")
    for k, (a, b) in enumerate(zip(first.bindings, second.bindings)):
        node = first.graph.inputs[k]
        user = _reader(first.graph, node.slot)
        where = format_location(user.loc if user is not None else node.loc)
        if isinstance(a, Value):
            if b is not a and b is not first.new.get(k) and not _same_constant(first, a, b):
                raise GraphcError(f"the exported function reads a tensor at {where} that is another one on every call (such as "
                                  "a gradient that is not reset, or a tensor made of data inside the function)")
        elif not (a == b or (a != a and b != b)):
            second.rates[k] = _rate(model, a, b)
            if second.rates[k] is not None:
                continue
            raise GraphcError(f"the exported function uses a number at {where} that changes from call to call ({a!r}, then "
                              f"{b!r}), such as a random seed or a step count; an export could only repeat the first: "
                              "export in eval() mode, or pass the number in as a tensor")


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor) or type(x).__module__ == "numpy" and hasattr(x, "__array__")


def _fresh(leaf: Any) -> Value:
    """A private copy of an example argument."""
    t = leaf if isinstance(leaf, Tensor) else from_numpy_copy(np.asarray(leaf))
    if t.device is not CPU:
        raise DeviceError(f"export works on CPU tensors, got an argument on {t.device}")
    return leaf_value(t._read().aval, to_numpy(t))


def names_of(model: Any) -> dict[int, str]:
    """Names of a module's parameters and buffers by the id of their Value."""
    out: dict[int, str] = {}
    if hasattr(model, "named_parameters"):
        for name, t in (*model.named_parameters(), *model.named_buffers()):
            out.setdefault(id(t._read()), name)
    return out


def record(model: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], *, optimise: bool = True) -> Program:
    """The program ``model(*args, **kwargs)`` is; ``optimise`` runs the graph passes on it. Modules are recorded without
    gradients, functions under the gradient mode of the caller.

    Raises GraphBreakError where a value is read on the host, GraphcError where two calls differ.
    """
    if not callable(model):
        raise ArgumentTypeError(f"export() needs a module or a function, got {type(model).__name__}")
    leaves: list[Any] = []
    in_spec = structure.flatten([list(args), dict(sorted(kwargs.items()))], _is_tensor, leaves)
    grad = state.grad and not hasattr(model, "named_parameters")
    runs = []
    for _ in range(2):
        values = [_fresh(x) for x in leaves]
        given, named = structure.rebuild(in_spec, [wrap(v) for v in values])
        runs.append(Run(model, given, named, values, grad))
        for k, v in enumerate(runs[-1].bindings):  # the same argument in both runs
            at = next((i for i, w in enumerate(values) if w is v), None)
            if at is not None:
                runs[-1].bindings[k] = at
    _check_steady(model, *runs)
    return _program(runs[1], in_spec, [v.aval for v in values], names_of(model), run_passes if optimise else dce)


def record_resized(model: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], batch: list[int], n: int, *,
                   optimise: bool = True) -> Program:
    """:func:`record` with ``n`` rows, repeated, in the flattened arguments number ``batch``."""
    leaves: list[Any] = []
    spec = structure.flatten([list(args), dict(sorted(kwargs.items()))], _is_tensor, leaves)
    for i in batch:
        a = to_numpy(leaves[i].detach()) if isinstance(leaves[i], Tensor) else np.asarray(leaves[i])
        leaves[i] = a[np.arange(n) % len(a)]
    given, named = structure.rebuild(spec, leaves)
    return record(model, given, named, optimise=optimise)


def _program(run: Run, in_spec: Any, in_avals: list[Any], names: dict[int, str],
             prepare: Callable[[Graph], Graph]) -> Program:
    sources: list[Source] = []
    arrays: dict[str, Any] = {}
    for k, (node, b) in enumerate(zip(run.graph.inputs, run.bindings)):
        if node.op is recorder.SCALAR:
            sources.append(("rate", run.rates[k]) if k in run.rates else ("number", b))
        elif isinstance(b, int):
            sources.append(("input", b))
        else:
            now = run.new.get(k, b)
            if now.aval.device is not CPU:
                raise DeviceError(f"export works on CPU tensors, a tensor the program reads is on {now.aval.device}")
            name = names.get(id(now)) or names.get(id(b)) or f"tensor_{k}"
            arrays[name] = recorder.evaluated(now).copy()
            sources.append(("weight", name))
    states = [sources[k][1] for k in run.new]
    return Program(prepare(run.graph), in_avals, sources, arrays, states, in_spec, run.out_spec, len(run.results))
