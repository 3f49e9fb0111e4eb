"""Products whose tiles pass through the kernel that reads them: every back end agrees, and nothing is stored that nobody reads."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import harness
import numpy as np
import pytest

from graphc import dtypes
from graphc.codegen.native.jobs import Job
from graphc.codegen.native.program import Program
from graphc.device import CPU
from graphc.ir import build as P
from graphc.ir.node import Graph, aval
from graphc.ir.passes import run_passes
from graphc.ir.recorder import trace
from graphc.runtime import jit

if not jit.available():
    pytest.skip(jit.reason(), allow_module_level=True)

RNG = np.random.default_rng(0)


def graph_of(fn: Callable[..., Any], shapes: Any, dt: Any = dtypes.float32) -> Graph:
    return run_passes(trace(fn, tuple(aval(s, dt, CPU) for s in shapes), grad=False))


def fused(graph: Graph) -> list[Job]:
    return [s for s in Program(graph).steps if isinstance(s, Job) and s.epilogue is not None]


def check(fn: Callable[..., Any], shapes: Any, dt: Any = dtypes.float32, expect: int = 1) -> None:
    graph = graph_of(fn, shapes, dt)
    assert len(fused(graph)) == expect, Program(graph).to_text()
    harness.check(graph, [RNG.standard_normal(s).astype(dt.np) for s in shapes])


def relu(x: Any) -> Any:
    return P.maximum(x, P.full((), 0, x.aval.dtype, CPU))


@pytest.mark.parametrize("dt", [dtypes.float32, dtypes.float64])
@pytest.mark.parametrize("m,k,n", [(2, 3, 2), (5, 7, 9), (8, 16, 32), (9, 300, 33), (64, 784, 64), (31, 520, 100), (200, 30, 300),
                                   (3, 1, 1000), (700, 5, 2)])
def test_sizes(m: int, k: int, n: int, dt: Any) -> None:
    check(lambda a, b, c: (relu(P.add(P.matmul(a, b), c)),), [(m, k), (k, n), (n,)], dt)


EPILOGUES: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    "gelu": (lambda y, b: (P.mul(P.erf(y), P.add(y, b)),), [(20,)]),
    "residual": (lambda y, r: (P.add(y, r),), [(10, 20)]),
    "rows": (lambda y, r: (P.mul(y, P.expand(P.reshape(r, (10, 1)), (10, 20))),), [(10,)]),
    "scalar": (lambda y, r: (P.mul(y, P.expand(r, (10, 20))),), [()]),
    "transposed operand": (lambda y, r: (P.add(y, P.permute(r, (1, 0))),), [(20, 10)]),
    "flipped operand": (lambda y, r: (P.add(y, P.flip(r, (1,))),), [(10, 20)]),
    "two results": (lambda y, r: (P.exp(y), P.cast(P.gt(y, r), dtypes.int32)), [(10, 20)]),
    "product too": (lambda y, r: (P.tanh(y), y), [(1,)]),
    "narrow result": (lambda y, r: (P.cast(P.add(y, r), dtypes.bfloat16),), [(20,)]),
    "iota": (lambda y, r: (P.where(P.gt(P.expand(P.iota(20, dtypes.int64, CPU), (10, 20)), 7), y, P.expand(r, (10, 20))),), [()]),
    "padded operand": (lambda y, r: (P.add(y, P.pad(r, (1, 2), (3, 4), 0.5)),), [(6, 14)]),
    "reshaped": (lambda y, r: (P.add(P.reshape(y, (5, 40)), r),), [(40,)]),
    "more axes": (lambda y, r: (P.add(P.reshape(y, (2, 5, 20)), r),), [(2, 1, 20)]),
}


@pytest.mark.parametrize("name", EPILOGUES)
@pytest.mark.parametrize("layout", ["nn", "nt", "tn"])
def test_epilogues(name: str, layout: str) -> None:
    tail, shapes = EPILOGUES[name]

    def fn(a: Any, b: Any, *rest: Any) -> Any:
        a = P.permute(a, (1, 0)) if layout[0] == "t" else a
        b = P.permute(b, (1, 0)) if layout[1] == "t" else b
        return tail(P.matmul(a, b), *rest)

    left, right = ((6, 10) if layout[0] == "t" else (10, 6)), ((20, 6) if layout[1] == "t" else (6, 20))
    graph = graph_of(fn, [left, right, *shapes])
    assert len(fused(graph)) <= 1
    harness.check(graph, [RNG.standard_normal(s).astype(np.float32) for s in (left, right, *shapes)])


def test_which_are_fused() -> None:
    wide = {"transposed operand"}  # the rows are the better vectors
    for name, (tail, shapes) in EPILOGUES.items():
        graph = graph_of(lambda a, b, *r, tail=tail: tail(P.matmul(a, b), *r), [(10, 6), (6, 20), *shapes])
        assert len(fused(graph)) == (name not in wide), name


def test_batches_and_views() -> None:
    check(lambda a, b, c: (relu(P.add(P.matmul(a, b), c)),), [(3, 9, 33), (3, 33, 20), (3, 9, 20)])
    check(lambda a, b, c: (P.add(P.matmul(a, P.permute(b, (0, 2, 1))), c),), [(4, 9, 8), (4, 20, 8), (20,)])
    check(lambda a, b, c: (P.add(P.matmul(P.permute(a, (1, 0, 2)), b), c),), [(9, 3, 5), (3, 5, 20), (3, 9, 20)])


def test_what_is_not_fused() -> None:
    def softmax(a: Any, b: Any) -> Any:
        y = P.matmul(a, b)
        return (P.sub(y, P.reduce("max", y, (1,), True)),)

    check(softmax, [(10, 6), (6, 20)], expect=0)
    check(lambda a, b: (P.exp(P.slice_(P.matmul(a, b), (0, 0), (10, 10), (1, 1))),), [(10, 6), (6, 20)], expect=0)
    check(lambda a, b, c: (P.add(P.matmul(a, b), c),), [(2, 9000), (9000, 4), (4,)], expect=0)  # k is cut in parts
    check(lambda a, b, c: (P.add(P.matmul(a, b), c),), [(30, 6), (6, 1), (1,)], expect=0)
    check(lambda a, b, c: (P.add(P.matmul(a, b), c),), [(8, 6), (6, 20), (20,)], dtypes.bfloat16, expect=0)


def test_a_kernel_of_two_products_follows_one() -> None:
    check(lambda a, b, c, d: (P.tanh(P.add(P.matmul(a, b), P.matmul(c, d))),), [(9, 5), (5, 20), (9, 7), (7, 20)])


def test_products_of_products() -> None:
    def mlp(x: Any, u: Any, v: Any, w: Any) -> Any:
        for weight in (u, v):
            x = relu(P.matmul(x, weight))
        return (P.matmul(x, w), x)

    check(mlp, [(13, 20), (20, 33), (33, 40), (40, 10)], expect=2)


def test_updates_overwrite_what_is_donated_but_never_an_operand() -> None:
    """w - 0.1 x^T g in place of w; y = x w + x never in place of x."""
    for fn, shapes, donors in ((lambda w, x, g: (P.sub(w, P.mul(P.matmul(P.permute(x, (1, 0)), g), 0.1)),),
                                [(20, 12), (7, 20), (7, 12)], (0,)),
                               (lambda x, w: (P.add(P.matmul(x, w), x),), [(12, 12), (12, 12)], ())):
        graph = graph_of(fn, shapes)
        program = Program(graph)
        assert len(fused(graph)) == 1 and program.donors == donors
        arrays = [RNG.standard_normal(s).astype(np.float32) for s in shapes]
        bindings = harness.bindings_of(graph, arrays)
        want = harness.reference(graph, bindings)
        got = program(bindings, program.donors)
        np.testing.assert_allclose(got[0], want[0], 1e-5, 1e-5)
        assert not donors or got[0] is bindings[0].buffer


def test_threads_do_not_change_bits() -> None:
    from graphc.runtime import threads

    graph = graph_of(lambda a, b, c: (P.tanh(P.add(P.matmul(a, b), c)),), [(100, 300), (300, 130), (130,)])
    bindings = harness.bindings_of(graph, [RNG.standard_normal(s).astype(np.float32) for s in ((100, 300), (300, 130), (130,))])
    before = threads.get_num_threads()
    try:
        out = []
        for n in (1, 2, 3):
            threads.set_num_threads(n)
            out.append(Program(graph)(bindings)[0])
        assert np.array_equal(out[0], out[1]) and np.array_equal(out[0], out[2])
    finally:
        threads.set_num_threads(before)
