"""``export``, ``save``, ``load`` and what they hand out."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, GraphcError
from . import fileformat, template
from .dims import batch_arguments
from .program import Program
from .runtime import Runner


class ExportedProgram:
    """A recorded program with its weights. Call it, or :meth:`module`, with arguments nested as at the export."""

    def __init__(self, program: Program):
        self._program = program
        self._runner = Runner(program)

    @property
    def graph(self) -> str:
        """The optimised graph as text, one node a line."""
        return self._program.text

    @property
    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the weights by name: a module's names, else ``tensor_N``."""
        return self._runner.state_dict()

    def module(self) -> Runner:
        """The program as a callable."""
        return self._runner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._runner(*args, **kwargs)

    def save(self, f: Any) -> None:
        """Write the program to ``f``, a path (atomically) or a binary file object."""
        fileformat.save(self._program, f)

    @staticmethod
    def load(f: Any) -> ExportedProgram:
        """:func:`load`."""
        return load(f)

    def __repr__(self) -> str:
        p = self._program
        return f"<ExportedProgram: {len(p.graph.nodes)} nodes, {len(p.weights)} weights, {len(p.states)} states>"

    def __str__(self) -> str:
        return self.graph


def export(mod: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, *, dynamic_shapes: Any = None,
           strict: bool = False, path: Any = None, dynamic_batch: bool | Sequence[int] = False) -> ExportedProgram:
    """Record ``mod(*args, **kwargs)`` as one program and write it to ``path`` if given.

    ``args`` are examples: tensors or arrays, nested in tuples, lists and dicts; numbers and text among them become part of the
    program. ``dynamic_batch``: True makes axis 0 of every example that has the first one's size the batch, a sequence of
    argument numbers (as flattened) names those whose axis 0 it is. ``dynamic_shapes`` says the same PyTorch's way, by argument:
    ``{"x": {0: Dim("batch")}}``; only axis 0 of tensors may be dynamic, and all have one size. See the module's text for what
    can be exported.

    Raises GraphBreakError (a value is read on the host), GraphcError (calls differ, or depend on the batch size as a number),
    ArgumentError, DeviceError.
    """
    from .record import record

    if not isinstance(args, (tuple, list)):
        raise ArgumentTypeError(f"Expecting `args` to be a tuple of example positional inputs, got {type(args)}")
    if dynamic_shapes is not None:
        dynamic_batch = batch_arguments(mod, args, kwargs or {}, dynamic_shapes)
    program = record(mod, args, dict(kwargs or {}))
    if dynamic_batch is not False:
        _make_dynamic(program, mod, args, dict(kwargs or {}), dynamic_batch)
    if path is not None:
        fileformat.save(program, path)
    return ExportedProgram(program)


def _make_dynamic(program: Program, mod: Any, args: Sequence[Any], kwargs: dict[str, Any],
                  which: bool | Sequence[int]) -> None:
    """Record at two more sizes and fill in what depends on the size."""
    from .record import record_resized

    shapes = [a.shape for a in program.in_avals]
    if which is True:
        first = next((s[0] for s in shapes if s), None)
        batch = [i for i, s in enumerate(shapes) if s and s[0] == first]
    else:
        batch = sorted({int(i) for i in which})  # type: ignore[union-attr]
    if not batch or any(not 0 <= i < len(shapes) or not shapes[i] for i in batch):
        raise ArgumentError("dynamic_batch: no such argument with a batch axis")
    size = shapes[batch[0]][0]
    if size < 1 or any(shapes[i][0] != size for i in batch):
        raise ArgumentError(f"dynamic_batch: the batch sizes differ or are 0: {[shapes[i] for i in batch]}")
    if program.states:
        raise ArgumentError("dynamic_batch: a program that writes tensors is exported at one batch size")
    others = {n: record_resized(mod, args, kwargs, batch, n) for n in (size + 2, size + 3, size + 7)}
    graphs = {n: p.graph for n, p in others.items()}
    template.check(graphs, *graphs.popitem())
    if any(repr(p.sources) != repr(program.sources) for p in others.values()):
        raise GraphcError(template.REFUSAL + "; export one program per batch size")
    template.check(graphs, size, program.graph)
    program.sizes, program.batch = graphs, batch


def save(ep: ExportedProgram, f: Any) -> None:
    """Write an exported program to ``f``, as :meth:`ExportedProgram.save`."""
    if not isinstance(ep, ExportedProgram):
        raise ArgumentTypeError(f"The 'ep' parameter must be an instance of 'ExportedProgram', got "
                                f"'{type(ep).__name__}' instead.")
    ep.save(f)


def load(f: Any) -> ExportedProgram:
    """The program in a file; callable. Raises CheckpointError for a damaged or foreign file, FileNotFoundError for none."""
    return ExportedProgram(fileformat.load(f))
