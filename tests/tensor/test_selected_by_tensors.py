"""``x[i]`` with a zero-dim integer tensor is a view, as ``x[int(i)]`` is: recorded at once, compiled and replayed."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")


def written_through(x: Any, i: Any, j: Any) -> Any:
    row = x[i]
    row.add_(1)
    x[i] += 10
    x[i, j] = -5.0
    x[:, j].mul_(2)
    row[1:3] = 0.5
    x[j, 1:].zero_()
    x[i, j] += x[j, i]
    return x * 2, row * 3


def read_after_writes(x: Any, i: Any, j: Any) -> Any:
    row, cell = x[i], x[j, i]
    before = row.clone()
    x.add_(1)
    x[j] = 7.0
    return before, row + 0, cell + 0, x[i].view(2, 2), x[i][1:]


def differentiated(x: Any, i: Any, j: Any) -> Any:
    w = x.clone().requires_grad_()
    y = w * 2
    y[i].mul_(3)
    y[:, j] = y[i, 0] * 2
    (y * y).sum().backward()
    return y.detach(), w.grad


def parameters(x: Any, i: Any, j: Any) -> Any:
    nn = torch.nn if isinstance(x, torch.Tensor) else graphc.nn
    optim = torch.optim if isinstance(x, torch.Tensor) else graphc.optim
    p = nn.Parameter(x[i])
    optimizer = optim.SGD([p], lr=0.5)
    (p * p).sum().backward()
    optimizer.step()
    y = x[j]
    y.requires_grad_()
    (y * 2).sum().backward()
    assert not x.requires_grad and x.is_leaf
    return p.detach().clone(), y.grad


PROGRAMS = [parameters, written_through, read_after_writes, differentiated]


@pytest.mark.parametrize("mode", ["eager", "default", "replay"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_is_a_view(program: Any, mode: str) -> None:
    ours = program if mode == "eager" else graphc.compile(program, mode=mode)
    x, y = torch.arange(16.0).reshape(4, 4), graphc.arange(16.0).reshape(4, 4)
    for k in range(12):
        for dtype in ("int64", "int32", "int16", "int8"):
            i, j = k % 4 - 4 * (k > 6), (k + 1) % 3
            want = program(x, torch.tensor(i, dtype=getattr(torch, dtype)), torch.tensor(j))
            got = ours(y, graphc.tensor(i, dtype=getattr(graphc, dtype)), graphc.tensor(j))
            for a, b in zip(want, got, strict=True):
                assert np.allclose(a.numpy(), b.numpy()), (k, dtype)
            assert np.allclose(x.numpy(), y.numpy())
            x.remainder_(5), y.remainder_(5)


def test_pending_numbers() -> None:
    for lib in (torch, graphc):
        x = lib.arange(12.0).reshape(3, 4)
        i = (x.sum() / 33).long()
        row = x[i]
        row.fill_(0)
        assert x.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 0, 0, 0]]
        with pytest.raises(IndexError, match="index 3 is out of bounds for dimension 0 with size 3"):
            x[i + 1]
        assert x[lib.tensor([0, 1]), lib.tensor(1)].shape == (2,) and x[lib.tensor(1), [0, 1]].tolist() == [4, 5]
