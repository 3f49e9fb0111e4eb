"""Loops over time: random bodies through every back end."""
from __future__ import annotations

import harness
import numpy as np
import programs
import pytest
from programs_library import grow_loop
from test_fused_fuzz import run_native

from graphc.codegen.native import program
from graphc.codegen.native.jobs import Loop
from graphc.dtypes import int64
from graphc.runtime import jit


@pytest.mark.parametrize("start", range(0, 100, 50))
def test_random_loops(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies of integers, so that every step must be exact; carries, stacked inputs, constants, forwards and in reverse."""
    run_native(range(start, start + 50), grow_loop, monkeypatch)


def test_random_loops_are_native() -> None:
    """The programs above are loops of jobs, not calls of the interpreter."""
    if not jit.available():
        pytest.skip(jit.reason())
    for seed in range(10):
        assert any(isinstance(s, Loop) for s in program.Program(grow_loop(seed).graph).steps), seed


def test_a_loop_that_scatters_into_a_constant() -> None:
    """The copy of the base belongs to every step: the next step must not add onto the sum of the last."""
    body = programs.Grower(1, (3,), (int64,))
    carry, base, at, ones = [body.leaf(s, int64, np.zeros(s, np.int64)) for s in ((5,), (5,), (9,), (9,))]
    total = body.emit("add", (carry, body.emit("take_put", (base, at, ones), (0, "add", False))))
    g = programs.Grower(1, (3,), (int64,))
    ins = [g.leaf(a.shape, int64, a) for a in (np.arange(5), np.arange(5) * 10, np.arange(9) % 5, np.ones(9, np.int64))]
    out = g.emit("loop_scan", tuple(ins), (body.b.graph((total, total)), 1, 0, 4, False, 0))
    harness.check(g.b.graph((out, out + 1)), g.arrays)
