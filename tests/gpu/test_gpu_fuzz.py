"""Random programs on a real device: fused kernels, library calls and loops over time against the NumPy interpreter.

Needs a GPU, its driver, cuda-bindings and Triton; skipped with the reason elsewhere.
"""
from __future__ import annotations

import pytest
from gpu_device import WHY, run, some

pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY or "-")

import harness
import programs
from programs_library import LIBRARY_STEPS, grow_loop

from graphc.codegen.triton.passes import gpu_passes


def agree(seed: int, p: programs.Program) -> None:
    """Plain, captured and replayed runs have the same bits and agree with NumPy."""
    bindings = harness.bindings_of(p.graph, p.arrays)
    want = harness.reference(p.graph, bindings)
    tol = harness.tolerance(p.graph, bindings, want, p.exact)
    try:
        first, *later = run(gpu_passes(p.graph), p.arrays, times=some(3, 1))
        harness.compare(want, first, tol, "the device")
        for again in later:
            harness.same_bits(first, again, "a replay")
    except AssertionError as error:
        pytest.fail(f"seed {seed}: {error}\n{harness.describe(p.graph)}")


@pytest.mark.parametrize("start", range(0, some(400, 6), some(20, 3)))
def test_fused_programs(start: int) -> None:
    for seed in range(start, start + some(20, 3)):
        agree(seed, programs.grow(seed, nodes=(12, 30)))


@pytest.mark.parametrize("seed", [155, 163, 191])
def test_what_the_fuzz_found(seed: int) -> None:
    """155: random numbers whose seed is a reduction's result. 163, 191: masks that are one number (the simulated device)."""
    agree(seed, programs.grow(seed, nodes=(12, 30)))


@pytest.mark.parametrize("start", range(3000, some(3200, 3006), some(20, 3)))
def test_programs_with_library_calls(start: int) -> None:
    for seed in range(start, start + some(20, 3)):
        agree(seed, programs.grow(seed, steps=LIBRARY_STEPS))


@pytest.mark.parametrize("start", range(0, some(60, 4), some(20, 2)))
def test_loops_over_time(start: int) -> None:
    for seed in range(start, start + some(20, 2)):
        agree(seed, grow_loop(seed))
