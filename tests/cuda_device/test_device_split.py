"""Programs over several devices, cut into programs on one device each: what runs where, and what moves."""
from __future__ import annotations

from typing import Any

import numpy as np

from graphc.codegen.devices import on_devices, split, stripped_graph
from graphc.device import CPU, device
from graphc.dtypes import complex64, float32, int64
from graphc.ir import build as P
from graphc.ir.interpret import run_graph
from graphc.ir.node import Graph, aval
from graphc.ir.optable import OPS
from graphc.ir.recorder import SCALAR, apply, trace

ONE, TWO = device("cuda", 0), device("cuda", 1)


def vector(where: Any, n: int = 3) -> Any:
    return aval((n,), float32, where)


def run(graph: Graph, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The parts in order with NumPy; values move by name only."""
    whole = split(graph)
    env = {slot: arrays[b] for b, slot, _ in whole.leaves}
    env |= {slot: arrays[b] for b, slot in whole.numbers}
    for part in whole.parts:
        assert not on_devices(part.graph) and len(part.reads) == len(part.graph.inputs)
        env.update(zip(part.writes, run_graph(part.graph, [env[s] for s in part.reads])))
    return [env[s] for s, _ in whole.outputs]


def check(fn: Any, *avals: Any) -> Any:
    """The cut of a traced function, which computes what the uncut one does."""
    graph = trace(fn, list(avals))
    arrays = [np.arange(1, 1 + a.size, dtype=a.dtype.np).reshape(a.shape) for a in avals]
    for got, want in zip(run(graph, arrays), run_graph(graph, arrays)):
        np.testing.assert_allclose(got, want)
    return split(graph)


def test_one_device_is_one_program() -> None:
    cut = check(lambda x: (P.exp(P.mul(x, 2.0)), P.full((3,), 1, float32, ONE)), vector(ONE))
    assert [p.device for p in cut.parts] == [ONE] and [d for _, d in cut.outputs] == [ONE, ONE]


def test_work_that_starts_from_numbers_moves_to_its_only_reader() -> None:
    def draw(x: Any) -> Any:
        bits = apply(OPS["rng_bits"], (P.const(7, int64), P.const(0, int64)), ((3,),))
        return P.mul(x, P.to_device(P.cast(bits, float32), ONE))

    assert [p.device for p in check(draw, vector(ONE)).parts] == [ONE]

    def kept(x: Any) -> Any:
        noise = P.mul(P.cast(P.iota(3, int64), float32), 2.0)
        return P.mul(x, P.to_device(noise, ONE)), noise  # wanted on the host, too

    cut = check(kept, vector(ONE))
    assert [p.device for p in cut.parts] == [CPU, ONE] and [d for _, d in cut.outputs] == [ONE, CPU]


def test_back_and_forth() -> None:
    def f(x: Any, y: Any) -> Any:
        a = P.exp(P.to_device(x, ONE))
        b = P.add(P.to_device(a, CPU), x)
        return P.mul(P.to_device(b, ONE), a), P.sin(y), P.neg(P.to_device(a, TWO))

    cut = check(f, vector(CPU), vector(ONE))
    assert [p.device for p in cut.parts] == [ONE, CPU, TWO, ONE] or [p.device for p in cut.parts] == [ONE, TWO, CPU, ONE]
    assert len(cut.parts[0].graph.outputs) == 2, "independent work of one device is one program"


def test_numbers_of_the_host_are_scalars_of_the_device() -> None:
    cut = check(lambda x, s: P.mul(x, P.exp(s)), vector(ONE), aval((), float32, CPU))
    assert [p.device for p in cut.parts] == [CPU, ONE]
    assert [leaf.op is SCALAR for leaf in cut.parts[1].graph.inputs] == [False, True]
    cut = check(lambda x, s: P.mul(x, s), aval((3,), complex64, ONE), aval((), complex64, CPU))
    assert not any(leaf.op is SCALAR for leaf in cut.parts[0].graph.inputs), "cells hold no complex numbers"


def test_results_that_nothing_computes() -> None:
    cut = check(lambda x: (P.to_device(x, ONE), x, P.to_device(P.const(2.5, float32), ONE)), vector(CPU))
    assert [d for _, d in cut.outputs] == [ONE, CPU, ONE] and cut.outputs[0][0] == cut.outputs[1][0]
    assert len(cut.parts) == 1 and cut.parts[0].device is CPU


def test_what_nobody_needs_is_left_out() -> None:
    def f(x: Any) -> Any:
        P.exp(P.to_device(x, CPU))
        return P.neg(x)

    assert [p.device for p in check(f, vector(ONE)).parts] == [ONE]


def test_bodies_of_loops_are_on_the_host_as_well() -> None:
    body = trace(lambda c: P.add(P.to_device(P.to_device(c, TWO), ONE), P.iota(3, float32, ONE)), [vector(ONE)])
    plain = stripped_graph(body)
    assert on_devices(body) and not on_devices(plain) and not any(n.op.name == "copy" for n in plain.nodes if n.op)
    assert all(CPU in n.attrs for n in plain.nodes if n.op is OPS["iota"])
