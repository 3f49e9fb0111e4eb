"""Small results of plans that run often: handed out again when nobody holds them any more, and never before."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc as T
from graphc.codegen.native import results
from graphc.codegen.native.results import OFTEN, Results
from graphc.runtime import memory

nn = T.nn


def test_two_of_each_are_kept_and_only_the_free_one_is_handed_out() -> None:
    made = []

    def new() -> np.ndarray:
        made.append(1)
        return np.empty(8)

    r = Results([(-1, new)], 64)
    for _ in range(OFTEN + 1):
        r.take([], ())
    before = len(made)
    a, = r.take([], ())
    b, = r.take([], ())
    c, = r.take([], ())
    assert len({a.ctypes.data, b.ctypes.data, c.ctypes.data}) == 3 and len(made) == before + 2
    view = c[2:]
    del a, b, c
    d, = r.take([], ())
    assert d.ctypes.data != view.base.ctypes.data, "a view keeps its memory"
    r.forget()
    e, = r.take([], ())
    assert e is not d
    large = Results([(-1, new)], results.SMALL + 1)
    for _ in range(2 * OFTEN):
        large.take([], ())
    assert large.kept is None, "large results come from the pool"


def steps(mode: str) -> Iterator[tuple[Any, Any, Callable[[], Any]]]:
    T.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 7))
    opt = T.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    x, y = T.randn(96, 64), T.randint(0, 7, (96,))

    def step() -> Any:
        opt.zero_grad()
        out = net(x)
        loss = nn.functional.cross_entropy(out, y)
        loss.backward()
        opt.step()
        return loss.detach(), out.detach()

    run = step if mode == "eager" else T.compile(step, mode=mode)
    for _ in range(3 * OFTEN):
        yield net, run(), run


@pytest.mark.parametrize("mode", ["default", "replay"])
def test_what_is_kept_never_changes(mode: str) -> None:
    """Losses, outputs, gradients, their arrays and views of them from every step, looked at after all steps."""
    want = [(loss.item(), out.numpy().copy(), net[0].bias.grad.numpy().copy()) for net, (loss, out), _ in steps("eager")]
    kept: list[Any] = []
    for k, (net, (loss, out), _) in enumerate(steps(mode)):
        grad = net[0].bias.grad
        kept.append([loss, out if k % 2 else out.numpy()[::2], grad if k % 3 else grad.numpy()])
    for k, ((loss, out, grad), (a, b, c)) in enumerate(zip(want, kept)):
        np.testing.assert_allclose(a.item(), loss, rtol=1e-5)
        np.testing.assert_allclose(b.numpy() if k % 2 else b, out if k % 2 else out[::2], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(c.numpy() if k % 3 else c, grad, rtol=1e-4, atol=1e-5)


def test_memory_stays_where_it_was_and_is_given_back() -> None:
    places = [net[0].bias.grad.data_ptr() for net, _, _ in steps("default")]
    assert len(set(places[OFTEN + 4:])) <= 2, "the same memory again and again"
    held = len(memory._Pool.reserves)
    memory.empty_cache()
    assert held and all(k[0] is None for r in memory._Pool.reserves for k in r.kept)
