"""Views of leaves, wherever the leaf's memory comes from: gradients reach the leaf, also after it was written, as in PyTorch."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc


def _data(torch: Any) -> tuple[Any, Any]:
    p, x = torch.nn.Parameter(torch.zeros(2, 3)), torch.ones(2, 3)
    p.data = x
    return p, x


def _held(torch: Any) -> tuple[Any, Any]:
    x = torch.ones(2, 3)
    return torch.nn.Parameter(x), x


def _numpy(torch: Any) -> tuple[Any, Any]:
    x = np.ones((2, 3), np.float32)
    return torch.nn.Parameter(torch.from_numpy(x)), x


def _transposed(torch: Any) -> tuple[Any, Any]:
    x = torch.ones(3, 2)
    return torch.nn.Parameter(x.t()), x


KINDS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "own": lambda torch: (torch.nn.Parameter(torch.ones(2, 3)), None), "held": _held, "numpy": _numpy, "data": _data,
    "transposed": _transposed}


def program(torch: Any, kind: str) -> list[Any]:
    """Reads, writes and gradients through views of one leaf."""
    p, x = KINDS[kind](torch)
    out: list[Any] = []

    def gradient(f: Callable[[], Any]) -> None:
        p.grad = None
        f().sum().backward()
        out.append(p.grad.tolist())
        p.grad = None

    def refused(f: Callable[[], Any]) -> None:
        with pytest.raises(RuntimeError, match="view of a leaf Variable that requires grad is being used in an in-place"):
            f()

    gradient(lambda: p[0] * 2)
    gradient(lambda: p.t() * torch.tensor([[1.0], [2.0], [3.0]]))
    q = p[1]
    r = q[1:]
    with torch.no_grad():
        p.add_(1)
        out += [q.sum().item(), r.tolist()]  # the first read after the write keeps the history
    out += [q.requires_grad, r.requires_grad, q.is_leaf]
    gradient(lambda: r * q[0])
    for f in (lambda: q.mul_(2), lambda: p[0].mul_(2), lambda: p.__setitem__(0, 5.0), lambda: r.zero_()):
        refused(f)
    with torch.no_grad():
        q.mul_(2)
        p[0] = 7
        r.add_(1)
    gradient(lambda: p * r[0] * q[0])
    q.data[0] = 9
    p.detach()[0, 0] = 11
    out += [p.tolist(), q.tolist(), r.tolist(), q.requires_grad]
    gradient(lambda: torch.cat([a * a for a in p]))
    if isinstance(x, np.ndarray):
        x[:] = 4
        gradient(lambda: r * q[0])
    optimizer = torch.optim.SGD([p], lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        ((q * 2 + p[0]) * r[0]).sum().backward()
        optimizer.step()
        out += [p.tolist(), q.tolist(), np.asarray(x).tolist() if x is not None else None]
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_views_of_leaves_follow_pytorch(kind: str) -> None:
    torch = pytest.importorskip("torch")
    assert program(graphc, kind) == program(torch, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_leaf(kind: str) -> None:
    p, _ = KINDS[kind](graphc)
    (p[1] * 2).sum().backward()
    assert p.grad is not None and p.grad.tolist() == [[0, 0, 0], [2, 2, 2]]


def test_as_strided_of_a_leaf() -> None:
    x = graphc.arange(6.0)
    p = graphc.nn.Parameter(x)
    (p.as_strided((2, 2), (3, 1), 1) * 2).sum().backward()
    assert p.grad is not None and p.grad.tolist() == [0, 2, 2, 0, 2, 2]
    with pytest.raises(NotImplementedError, match="clone"):
        graphc.nn.Parameter(x[1:]).as_strided((2,), (2,))
