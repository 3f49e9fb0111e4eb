"""``graphc.export``: a module or function as one graph with its weights, in one file, run without graphc's front end.

    program = graphc.export(model.eval(), (x,), "model.gcx")     # or graphc.export.export(model, (x,)), then .save(path)
    run = graphc.export.load("model.gcx")
    y = run(x)                                                   # arrays or tensors

The file holds the recorded, optimised graph as text, its weights, and checksums of every byte; loading runs no code. A process
that needs nothing else runs it through ``graphc/export/standalone.py``, which imports the IR, the code generators and the run
time only.

What is supported: CPU programs of fixed shapes, and of any batch size with ``dynamic_batch``: the function is recorded at
three sizes, every integer of the graph must be an affine function of the size, and the graph of a new size is made from that
(no symbolic shapes; a program that uses the size as a number, such as a mean over the batch, is refused).

Training steps: tensors the function reads and writes (parameters, momentum buffers, running statistics) become the program's
state, which it keeps between calls and which ``save`` writes; the step count of Adam and AdamW goes on, learning rates stay
what they are. The function runs twice for real at the export (run a training step once before, so that the optimizer's state
exists); what differs between the two runs for any other reason (random numbers, Python counters) is refused with the line that
uses it.
"""
from __future__ import annotations

import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

from .dims import Dim, dims
from .exported import ExportedProgram, export, load, save

__all__ = ["Dim", "ExportedProgram", "dims", "export", "load", "save"]


class _Callable(types.ModuleType):
    """The module itself can be called: ``graphc.export(model, args, path)``."""

    def __call__(self, model: Any, args: Sequence[Any] = (), path: Any = None, *, kwargs: Mapping[str, Any] | None = None,
                 dynamic_batch: bool | Sequence[int] = False) -> ExportedProgram:
        return export(model, args, kwargs, path=path, dynamic_batch=dynamic_batch)


sys.modules[__name__].__class__ = _Callable
