"""Results written past the caches: equal bits whatever the size is taken for, aligned or not."""
from __future__ import annotations

import harness
import numpy as np
import pytest

from graphc import dtypes
from graphc.codegen.native import kernel_access
from graphc.codegen.native.program import Program
from graphc.device import CPU
from graphc.ir import build as P
from graphc.ir.node import aval
from graphc.ir.passes import run_passes
from graphc.ir.recorder import trace
from graphc.runtime import jit, memory

if not jit.available():
    pytest.skip(jit.reason(), allow_module_level=True)

PROGRAMS = {
    "chain": (lambda x, y: (P.add(P.exp(x), y), P.cast(x, dtypes.bfloat16)), [(67, 41), (67, 41)]),
    "rows": (lambda x, y: (P.sub(x, P.reduce("max", x, (1,), True)), P.mul(x, y)), [(33, 1000), (33, 1000)]),
    "odd rows": (lambda x, y: (P.sub(x, P.reduce("add", x, (1,), True)),), [(50, 129), (1,)]),
    "columns": (lambda x, y: (P.reduce("add", P.mul(x, y), (0,)),), [(40, 515), (40, 515)]),
    "transposed": (lambda x, y: (P.add(P.permute(x, (1, 0)), y),), [(64, 48), (48, 64)]),
    "joined": (lambda x, y: (P.concat((P.exp(x), P.neg(y)), 1),), [(20, 33), (20, 64)]),
    "product": (lambda x, y: (P.tanh(P.matmul(x, y)),), [(70, 40), (40, 100)]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_equal_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fn, shapes = PROGRAMS[name]
    graph = run_passes(trace(fn, tuple(aval(s, dtypes.float32, CPU) for s in shapes), grad=False))
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    bindings = harness.bindings_of(graph, arrays)
    plain = Program(graph)
    monkeypatch.setattr(kernel_access, "STREAM", 0)
    harness.check(graph, arrays)
    streaming = Program(graph)
    assert plain.sources().keys() == streaming.sources().keys(), "sizes are no part of the code"
    for a, b in zip(plain(bindings), streaming(bindings)):
        assert a.tobytes() == b.tobytes()


def test_the_cache_is_known() -> None:
    assert 1 << 16 <= memory.last_level_cache() <= 1 << 34
