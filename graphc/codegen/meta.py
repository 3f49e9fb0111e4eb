"""Programs with tensors on the ``meta`` device, which have a shape and a dtype but no data.

Whatever lives there is never computed: its results are one object without data, and the rest of the program is planned alone.
Data cannot come back from there: copying out is refused where it is recorded (``ir/build.py``).
"""
from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from ..ir.node import Graph, GraphBuilder
from ..ir.passes.dce import dce

NO_DATA = "Cannot copy out of meta tensor; no data!"


class NoData:
    """What a tensor on the meta device holds."""

    __slots__ = ()

    def fetch(self) -> Any:
        raise NotImplementedError(NO_DATA)

    item = copy = fetch


NOTHING = NoData()


def has_meta(graph: Graph) -> bool:
    """Whether something of a program lives on the meta device."""
    return any(a.device.type == "meta" for n in graph.nodes for a in n.avals)


class MetaPlan:
    """A plan for a program that :func:`has_meta`; ``plan`` makes the plan of what has data."""

    def __init__(self, recorded: Graph, plan: Callable[[Graph], Any]):
        self.recorded = self.graph = recorded
        self.run, self.donors = self, ()
        avals = recorded.slot_avals()
        self.real = [k for k, s in enumerate(recorded.outputs) if avals[s].device.type != "meta"]
        self.given: list[int] = []
        self.rest = plan(self._rest()) if self.real else None

    def _rest(self) -> Graph:
        """The program of the outputs that have data, without inputs that have none. NotImplementedError if it needs one."""
        outputs = self.recorded.outputs
        graph = dce(Graph(self.recorded.nodes, tuple([outputs[k] for k in self.real])))
        b, number = GraphBuilder(), 0
        new: dict[int, int] = {}
        for node in graph.nodes:
            leaf = node.op is not None and node.op.kind == "leaf"
            if not any(a.device.type == "meta" for a in node.avals):
                if any(s not in new for s in node.ins):
                    raise NotImplementedError(NO_DATA)
                new.update(zip(range(node.slot, node.end), b.copy(node, tuple([new[s] for s in node.ins]))))
                b.nodes[-1].turn = node.turn
                if leaf:
                    self.given.append(number)
            number += leaf
        rest = b.graph(tuple([new[s] for s in graph.outputs]))
        rest.budget, rest.tune = self.recorded.budget, self.recorded.tune
        return rest

    def __call__(self, bindings: list[Any], free: Collection[int] = ()) -> list[Any]:
        out: list[Any] = [NOTHING] * len(self.recorded.outputs)
        if self.rest is not None:
            for k, buffer in zip(self.real, self.rest([bindings[n] for n in self.given])):
                out[k] = buffer
        return out

    def evaluate_each(self, bindings: list[Any], wanted: Collection[int], error: BaseException) -> list[Any]:
        """Results by slot after the plan failed: what has data counts as failed."""
        return [NOTHING if a.device.type == "meta" else error for a in self.recorded.slot_avals()]
