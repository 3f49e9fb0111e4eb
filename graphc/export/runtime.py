"""Running an exported program: binds arrays to the inputs of its graph and calls the plan.

Imports the graph IR, the code generators and the run time only; no tensors, no modules, no recording.
"""
from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np

from ..codegen.plan import Plan
from ..dtypes import from_numpy
from ..errors import ArgumentTypeError, DTypeError, GraphcError, ShapeError
from ..ir import composites, prims  # noqa: F401  (fill the op table)
from ..ir.node import Aval, Graph, Value, aval, leaf_value
from . import structure, template
from .program import RATES, Program


def _is_array(x: Any) -> bool:
    return isinstance(x, (np.ndarray, np.generic)) or _is_tensor(x)


def _is_tensor(x: Any) -> bool:
    """Whether ``x`` is a graphc tensor; the class is not imported for that."""
    module = sys.modules.get("graphc.tensor")
    return module is not None and isinstance(x, module.Tensor)


class Runner:
    """A program ready to run. State (tensors the program writes) is kept in :attr:`program`'s weights between calls.

    Arguments and results are NumPy arrays or tensors (tensors come out when one goes in). Raises ArgumentTypeError when the
    arguments are nested differently than in the export, ShapeError and DTypeError when one does not fit.
    """

    def __init__(self, program: Program):
        self.program = program
        self._values: dict[str, Value] = {}
        self._plans: dict[int, Plan] = {}  # by batch size; 0: the exported one
        self._lock = threading.Lock()
        for kind, name in program.sources:
            if kind == "weight" and name not in self._values:
                array = np.ascontiguousarray(program.weights[name]).reshape(program.weights[name].shape)
                self._values[name] = leaf_value(_aval(array), array)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        p = self.program
        leaves: list[Any] = []
        spec = structure.flatten([list(args), dict(sorted(kwargs.items()))], _is_array, leaves)
        if spec != p.in_spec:
            raise ArgumentTypeError(f"the program was exported for arguments (positional, keyword) "
                                    f"{structure.describe(p.in_spec)}, called with {structure.describe(spec)}")
        arrays = [_array(x) for x in leaves]
        size = self._check(arrays)
        with self._lock:  # state is read and written as one step
            out = self._run(size, arrays)
        if any(_is_tensor(x) for x in leaves):
            out = [sys.modules["graphc.tensor"].from_array(a) for a in out]
        return structure.rebuild(p.out_spec, out)

    def _run(self, size: int, arrays: list[np.ndarray]) -> list[np.ndarray]:
        p = self.program
        plan = self._plans.get(size)
        if plan is None:
            if len(self._plans) >= 64:
                self._plans.clear()
            graph = template.at_size(p.sizes, size) if size else p.graph
            plan = self._plans[size] = Plan(graph, graph)
        values = [leaf_value(_aval(a), a) for a in arrays]
        bindings: list[Any] = []
        for kind, what in p.sources:
            bindings.append(values[what] if kind == "input" else self._values[what] if kind == "weight" else
                            RATES[what[0]](*what[1:]) if kind == "rate" else what)
        out = plan(bindings)
        p.sources[:] = [(kind, (*what[:4], what[4] + 1)) if kind == "rate" else (kind, what) for kind, what in p.sources]
        for name, new in zip(p.states, out[p.n_results:]):
            self._values[name] = leaf_value(self._values[name].aval, new)
            p.weights[name] = new
        return out[:p.n_results]

    def _check(self, arrays: list[np.ndarray]) -> int:
        """Raise unless the arguments fit; the batch size to run at, 0 for the exported one."""
        p = self.program
        size = 0
        for i, (a, want) in enumerate(zip(arrays, p.in_avals)):
            try:
                dt = from_numpy(a.dtype)
            except TypeError as error:
                raise DTypeError(f"input {i}: {error}") from None
            if dt is not want.dtype:
                raise DTypeError(f"input {i} must be {want.dtype.name}, got {dt.name}")
            shape, fits = a.shape, want.shape
            if i in p.batch and shape and shape[0] > 0:
                if size and shape[0] != size:
                    raise ShapeError(f"input {i} has batch size {shape[0]}, another input {size}")
                size, shape, fits = shape[0], shape[1:], fits[1:]
            if shape != fits:
                hint = "" if p.batch else "; export with dynamic_batch=True for other batch sizes" \
                    if shape[1:] == fits[1:] and len(shape) == len(fits) else ""
                raise ShapeError(f"input {i} has shape {a.shape}, the program was exported for {want.shape}{hint}")
        return 0 if p.batch and size == p.in_avals[p.batch[0]].shape[0] else size

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the weights and of the state, by name."""
        with self._lock:
            return {k: v.copy() for k, v in self.program.weights.items()}


def _array(x: Any) -> np.ndarray:
    """A contiguous array that nobody else writes to while the program runs; tensors and arrays are not copied otherwise."""
    if _is_tensor(x):
        return sys.modules["graphc.tensor"].to_numpy(x)
    a = np.asarray(x)
    if a.dtype.byteorder == ">":
        a = a.astype(a.dtype.newbyteorder("="))
    return a if a.flags.c_contiguous and a.flags.aligned else np.array(a, order="C")


def _aval(a: np.ndarray) -> Aval:
    from ..device import CPU

    return aval(a.shape, from_numpy(a.dtype), CPU)


def check_sources(program: Program, graph: Graph) -> None:
    """Raise GraphcError unless every input of the graph is bound to something of its shape and dtype."""
    if len(graph.inputs) != len(program.sources):
        raise GraphcError(f"the graph has {len(graph.inputs)} inputs, the file binds {len(program.sources)}")
    for node, (kind, what) in zip(graph.inputs, program.sources):
        want = node.avals[0]
        if kind == "number":
            ok = isinstance(what, (bool, int, float, complex)) and not want.shape
        elif kind == "rate":
            ok = len(what) == 5 and what[0] in RATES and all(type(x) in (int, float) for x in what[1:]) and what[4] >= 1
        elif kind == "input":
            ok = type(what) is int and 0 <= what < len(program.in_avals) and program.in_avals[what] is want
        else:
            ok = kind == "weight" and what in program.weights and _aval(program.weights[what]) is want
        if (node.op is not None and node.op.name == "scalar") != (kind in ("number", "rate")) or not ok:
            raise GraphcError(f"input %{node.slot} of the graph ({want}) is bound to {kind} {what!r:.60}, which does not fit")
