"""Tensors that grow by concatenation, read only at the end: kernels stay small, so that compiling them takes no time."""
from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc.codegen.fuse import MAX_GUARDS, Partition
from graphc.ir.node import Graph, GraphBuilder, aval
from graphc.ir.optable import OPS
from graphc.ir.recorder import LEAF


def growing(n: int) -> Graph:
    """A program of ``n`` leaves joined one after the other."""
    b = GraphBuilder()
    one = aval((8,), graphc.float32, graphc.device("cpu"))
    leaves = [b.add(LEAF, (), (one,), (one,)) for _ in range(n)]
    whole = leaves[0]
    for s in leaves[1:]:
        whole = b.emit(OPS["concat"], (whole, s), (0,))
    return b.graph((b.emit(OPS["exp"], (whole,)),))


def test_a_chain_of_concatenations_is_cut() -> None:
    part = Partition(growing(60), set())
    assert 3 <= sum(g.library for g in part.groups.values()) <= 60 // (MAX_GUARDS - 1)
    assert max(part.guards.values()) <= MAX_GUARDS
    assert not any(g.library for g in Partition(growing(MAX_GUARDS + 1), set()).groups.values())


@pytest.mark.parametrize("dim", [0, 1])
def test_growing_tensors(dim: int) -> None:
    x, want = graphc.ones(3, 3), np.ones((3, 3), np.float32)
    for i in range(60):
        row = np.full((1, want.shape[1]) if dim == 0 else (want.shape[0], 1), i, np.float32)
        x, want = graphc.cat([x, graphc.from_numpy(row) * 2], dim), np.concatenate([want, row * 2], dim)
    np.testing.assert_array_equal(x.numpy(), want)
