"""Native plans with and without pipelines: a helper of tests."""
from __future__ import annotations

from typing import Any

import harness
import poison
import pytest

import graphc
from graphc import config
from graphc.codegen.native.pipeline import Pipeline, Pipelines
from graphc.codegen.native.program import Program
from graphc.ir.node import Graph


def plain(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> Program:
    """The plan without pipelines."""
    with monkeypatch.context() as m:
        m.setattr(Pipelines, "all", lambda self: self.steps)
        return Program(graph)


def found(p: Program) -> list[Pipeline]:
    return [s for s in p.steps if isinstance(s, Pipeline)]


def same_either_way(graph: Graph, bindings: list[Any], monkeypatch: pytest.MonkeyPatch) -> list[Pipeline]:
    """Bits do not depend on pipelines, threads, what memory held before, nor on where intermediates lie; the pipelines."""
    want = plain(graph, monkeypatch)(bindings)
    for n in (1, 2, 3):
        graphc.set_num_threads(n)
        p = Program(graph)
        harness.same_bits(want, p(bindings), f"{n} threads")
        harness.same_bits(want, p(bindings), f"{n} threads, again")
    graphc.set_num_threads(2)
    harness.same_bits(want, p(bindings), "planned for 3 threads, run by 2")
    p = Program(graph)
    harness.same_bits(want, poison.Poisoner(p)(bindings), "poisoned memory")
    poison.check_waves(p)
    with monkeypatch.context() as m:
        m.setattr(config, "NO_MEMPLAN", True)
        harness.same_bits(want, Program(graph)(bindings), "every intermediate in memory of its own")
    return found(p)
