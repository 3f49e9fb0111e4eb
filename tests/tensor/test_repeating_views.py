"""Views that repeat their storage never fill memory unless somebody asks for a copy."""
from __future__ import annotations

import numpy as np

import graphc


def test_a_view_far_larger_than_memory() -> None:
    x = graphc.ones(1, 1).expand(1 << 20, 1 << 20)
    assert x[5, 7].item() == 1 and x[3:5, 2].tolist() == [1, 1] and x.stride() == (0, 0)
    graphc.zeros(3).tolist()  # a flush while it is held
    assert x.t()[9, :4].tolist() == [1] * 4


def test_writes_to_the_storage_show() -> None:
    base = graphc.zeros(3, 1)
    x = base.expand(3, 1 << 19)
    assert x[1, 4].item() == 0
    base.add_(2)
    assert x[1, 4].item() == 2 and x.numpy().strides[1] == 0


def test_gradients_through_one() -> None:
    w = graphc.arange(4.0, requires_grad=True)
    big = w.reshape(4, 1).expand(4, 1 << 19)
    loss = (big * big).mean()
    assert abs(loss.item() - 3.5) < 1e-5
    loss.backward()
    np.testing.assert_allclose(w.grad.numpy(), [0, 0.5, 1, 1.5], rtol=1e-5)


def test_returned_from_a_compiled_function() -> None:
    @graphc.compile
    def f(q: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        wide = q.reshape(1, -1).expand(1 << 12, 1 << 10)
        return wide, wide.sum(0)

    wide, total = f(graphc.arange(1024.0))
    assert wide[7, 5].item() == 5 and total[5].item() == 5 * 4096 and wide.clone().shape == (1 << 12, 1 << 10)
