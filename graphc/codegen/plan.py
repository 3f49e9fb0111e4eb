"""Build the executable plan of a recorded program: verify, run the passes, hand over to a back end."""
from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any

from .. import config
from ..errors import CompileError
from ..ir.interpret import compile_numpy
from ..ir.node import Graph
from ..ir.passes import run_passes
from ..ir.quiet import uncollected
from .devices import on_devices
from .meta import MetaPlan, has_meta

SMALL = 4096  # elements; programs below stay on NumPy: starting the compiler would cost more
# So do programs of more nodes than this with fewer elements than this each, and those where that many nodes differ: hundreds of
# kernels (table[i, j] = ... for all i and j) not worth their printing.
MANY, THIN, VARIED = 512, 64, 2048


def backend_name(graph: Graph) -> str:
    """The back end for a program: what GRAPHC_BACKEND says, else native for what is not tiny.

    The choice depends on the program alone, never on how often it ran, so that equal programs give equal bits.
    """
    if config.BACKEND:
        return config.BACKEND
    work, nodes = sum(a.size for n in graph.nodes for a in n.avals), len(graph.nodes)
    least = SMALL if nodes <= MANY else nodes * THIN
    if nodes > MANY and work < nodes * VARIED and len({(n.op, n.attrs) for n in graph.nodes}) > MANY:
        least = nodes * VARIED
    return "native" if work >= least and _native_available() else "numpy"


class _Native:
    """Whether the native back end can be had; found once, said once."""

    known: bool | None = None


def _native_available() -> bool:
    if _Native.known is None:
        from ..runtime import jit

        _Native.known = jit.available()
        if not _Native.known:
            warnings.warn(f"graphc runs on NumPy: {jit.reason()} (pip install 'graphc[native]' for compiled kernels)",
                          stacklevel=2)
    return _Native.known


# what a mistake of ours in fusion, selection or printing raises: never the user's problem
_BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError)


def build_plan(graph: Graph) -> Any:
    """A callable from bindings to output buffers, which keeps the graph it was built from in ``.graph``. Nothing is collected
    meanwhile: looking for garbage among the many objects that planning makes would take a quarter of its time."""
    with uncollected():
        return _built(graph)


def _built(graph: Graph) -> Any:
    if config.DUMP:
        from ..ir import dump

        dump.emit("trace", graph)
    if on_devices(graph):
        return MetaPlan(graph, build_plan) if has_meta(graph) else _region_plan(graph)
    optimised = run_passes(graph)
    if config.DUMP:
        from ..ir import dump

        dump.emit("plan", optimised)
    return Plan(graph, optimised)


def _region_plan(graph: Graph) -> Any:
    """The plan of a program over several devices."""
    from ..runtime.cuda.region import RegionPlan

    if not graph.tune:
        return RegionPlan(graph, build_plan)
    from .triton.autotune import wanting

    with wanting():
        return RegionPlan(graph, build_plan)


def _native_program(graph: Graph) -> Any:
    """The native plan, or None after a warning that names the kernel and the user's line if it cannot be built."""
    from .native.program import Program

    try:
        try:
            program = Program(graph)
        except _BUGS as bug:
            raise CompileError(f"internal error in the native back end ({type(bug).__name__}: {bug})") from bug
    except CompileError as error:
        if config.STRICT:
            raise
        warnings.warn(f"{error}; this program runs on NumPy instead (GRAPHC_STRICT=1 makes this an error)", stacklevel=2)
        return None
    if config.DUMP & {"kernels", "src"}:
        from ..ir import dump

        if "kernels" in config.DUMP:
            dump.emit_text("kernels", program.to_text())
        if "src" in config.DUMP:
            for symbol, text in program.sources().items():
                dump.emit_text(f"src.{symbol}", text, ".ll")
    return program


class Plan:
    """A prepared program. Call with the region's bindings; returns the output buffers."""

    __slots__ = ("recorded", "graph", "run", "donors")

    def __init__(self, recorded: Graph, graph: Graph):
        self.recorded, self.graph = recorded, graph
        self.run: Any = None
        self.donors: tuple[int, ...] = ()  # bindings the plan would overwrite if nobody else holds them
        if backend_name(graph) == "native":
            self.run = _native_program(graph)
        if self.run is None:
            self.run = compile_numpy(graph)
        else:
            self.donors = self.run.donors

    def __call__(self, bindings: list[Any], free: Collection[int] = ()) -> list[Any]:
        """Output buffers; bindings in ``free`` (a subset of :attr:`donors`) may be overwritten."""
        return self.run(bindings, free) if free else self.run(bindings)
