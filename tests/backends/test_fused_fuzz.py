"""Random fused programs: graph interpreter = loop IR by NumPy = native code."""
from __future__ import annotations

import harness
import programs
import pytest

from graphc.runtime import jit

CHUNK = 50


@pytest.mark.parametrize("start", range(0, 1000, CHUNK))
def test_random_programs_native(start: int) -> None:
    if not jit.available():
        pytest.skip(jit.reason())
    for seed in range(start, start + CHUNK):
        p = programs.grow(seed)
        try:
            harness.check(p.graph, p.arrays, p.exact, tile=1 << 16 if seed % 2 else 40)
        except harness.Mismatch as error:
            pytest.fail(f"seed {seed}: {error}")


@pytest.mark.parametrize("start", range(1000, 3000, 500))
def test_random_programs_loop_ir(start: int) -> None:
    for seed in range(start, start + 500):
        p = programs.grow(seed)
        bindings = harness.bindings_of(p.graph, p.arrays)
        want = harness.reference(p.graph, bindings)
        tol = harness.tolerance(p.graph, bindings, want, p.exact)
        try:
            harness.compare(want, harness.run_loops(p.graph, bindings, (1 << 16, 40, 1)[seed % 3]), tol, "loop IR")
        except Exception as error:
            pytest.fail(f"seed {seed}: {error}\n{harness.describe(p.graph)}")
