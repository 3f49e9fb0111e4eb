"""Reductions cut in two: the same results whatever axes are cut, and no long chain left."""
from __future__ import annotations

import math

import numpy as np
import pytest

from graphc.codegen import split
from graphc.device import CPU
from graphc.dtypes import bfloat16, float32, int64
from graphc.ir import build as P
from graphc.ir.interpret import compile_numpy
from graphc.ir.node import aval, leaf_value
from graphc.ir.recorder import trace


@pytest.mark.parametrize("start", range(0, 300, 100))
def test_random_cuts(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole numbers, so that every order of adding gives the same."""
    for name, number in (("CHAIN", 24), ("LINK", 6), ("SMALL", 64), ("LARGE", 256), ("PARTS", 8), ("LANES", 2)):
        monkeypatch.setattr(split, name, number)
    cut = 0
    for seed in range(start, start + 100):
        r = np.random.default_rng(seed)
        shape = tuple(int(n) for n in r.choice([1, 1, 2, 3, 5, 7, 8, 40, 61, 96], int(r.integers(1, 5))))
        axes = tuple(sorted(int(a) for a in r.choice(len(shape), int(r.integers(1, len(shape) + 1)), replace=False)))
        dt = (float32, float32, bfloat16, int64)[seed % 4]
        kind = ("add", "add", "max", "min")[int(r.integers(4))]
        if math.prod(shape) > 60000:
            continue
        graph = trace(lambda x: P.reduce(kind, x, axes), (aval(shape, dt, CPU),))
        made = split.split_reductions(graph)
        x = leaf_value(aval(shape, dt, CPU), r.integers(0, 3, shape).astype(dt.np))
        (want,), (got,) = compile_numpy(graph)([x]), compile_numpy(made)([x])
        assert got.shape == want.shape and got.dtype == want.dtype
        np.testing.assert_array_equal(got, want, f"{seed}: {kind} of {shape} over {axes}")
        cut += made is not graph
    assert cut > 10


@pytest.mark.parametrize(("shape", "axes"), [((1, 97216, 10, 1), (0, 1, 3)), ((3, 10, 60000, 2), (0, 2)), ((2, 70001, 2, 1), (1, 3))])
def test_no_chain_stays_long(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    """Axes of one position, and axes with others between, hide no long sum."""
    graph = trace(lambda x: P.reduce("add", x, axes), (aval(shape, float32, CPU),))
    assert split.chain(graph.nodes[-1]) > split.CHAIN
    chains = [split.chain(n) for n in split.split_reductions(graph).nodes]
    assert max(chains) <= split.CHAIN
