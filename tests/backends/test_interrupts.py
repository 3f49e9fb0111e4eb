"""What comes from outside while a plan runs: Ctrl-C, a signal's handler that raises or computes, memory that runs out."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import config
from graphc.codegen.native import program
from graphc.ir import recorder
from graphc.runtime import jit, memory

if not jit.available():
    pytest.skip(jit.reason(), allow_module_level=True)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(config, "BACKEND", "native")
    yield


class Outside:
    """Something that happens once, before or after the nth native run from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.left, self.after, self.what = -1, False, lambda: None
        self.inner = program.pool.run
        monkeypatch.setattr(program.pool, "run", self.run)

    def plan(self, n: int, after: bool, what: Callable[[], Any]) -> None:
        self.left, self.after, self.what = n, after, what

    def run(self, address: int) -> None:
        self.left -= 1
        now = self.left == 0
        if now and not self.after:
            self.what()
        self.inner(address)
        if now and self.after:
            self.what()


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Outside:
    return Outside(monkeypatch)


def raising(error: type[BaseException]) -> Callable[[], None]:
    def what() -> None:
        raise error

    return what


def train(mode: str, outside: Outside | None, error: type[BaseException], after: bool) -> list[Any]:
    """Some steps; the last but one is interrupted by ``outside``, where it stays, for all it did, one step."""
    w = [graphc.full((70, 60), 0.5).requires_grad_(), graphc.full((60,), 0.25).requires_grad_()]
    opt = graphc.optim.Adam(w, lr=0.1)
    x = graphc.linspace(-1, 1, 50 * 70).reshape(50, 70)

    def step() -> Any:
        opt.zero_grad()
        loss = (x @ w[0] + w[1]).tanh().square().mean()
        loss.backward()
        opt.step()
        return loss

    run = step if mode == "eager" else graphc.compile(step, mode=None if mode == "default" else mode)
    losses = []
    for n in range(14):
        if n == 12 and outside is not None:
            outside.plan(1, after, raising(error))
            with pytest.raises(error):
                run().item()
            assert outside.left == 0
        else:
            losses.append(run().item())
    if mode == "replay":
        assert run.explain().replayed >= 6
    return [np.array(losses[:12]), *[np.array(t.tolist()) for t in (*w, *[s for p in w for s in opt.state[p].values()])]]


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("mode", ["eager", "default", "replay"])
def test_an_interrupted_step_is_made_once(mode: str, after: bool, error: type[BaseException], outside: Outside) -> None:
    """Updates are made in place; they must not be made again when what was interrupted is read."""
    want = train(mode, None, error, after)
    got = train(mode, outside, error, after)
    missed = mode == "replay" and not after and error is KeyboardInterrupt  # nothing of it happened: a step less
    if missed:
        assert not np.array_equal(want[1], got[1])
        return
    for a, b in zip(want, got):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_an_index_out_of_range_is_no_interruption(compiled: bool) -> None:
    """A plan whose last kernel fails has run, but has no results."""
    def fn(v: Any, i: Any) -> Any:
        v.scatter_(0, i, 9.0)
        return v * 2

    v, good, bad = graphc.tensor([1.0, 2.0, 3.0]), graphc.tensor([0, 2]), graphc.tensor([1, 3])
    run = graphc.compile(fn) if compiled else fn
    for n in range(3):
        with pytest.raises(IndexError):
            run(v, bad).tolist()
        assert v.tolist() == ([9.0, 2.0, 9.0] if n else [1.0, 2.0, 3.0])
        assert run(v, good).tolist() == [18.0, 4.0, 18.0]


def test_a_handler_that_computes(outside: Outside) -> None:
    """The same program and a larger one, while a plan runs: its arguments and its memory stay its own."""
    def fn(x: Any) -> Any:
        return ((x @ x).sort().values @ x).softmax(1).sum(0)  # sorting ends one native stretch

    rng = np.random.default_rng(0)
    data = [graphc.tensor(rng.standard_normal((n, n)).astype(np.float32)) for n in (65, 65, 300)]
    want = [fn(x).tolist() for x in data]
    seen: list[Any] = []
    for n in (1, 2):
        for after in (False, True):
            outside.plan(n, after, lambda: seen.append([fn(x).tolist() for x in data[1:]]))
            np.testing.assert_allclose(fn(data[0]).tolist(), want[0], 1e-4, 1e-6)
            recorder.PLANS.clear()
    assert len(seen) >= 2
    for got in seen:
        for a, b in zip(got, want[1:]):
            np.testing.assert_allclose(a, b, 1e-4, 1e-6)
    assert not memory.Running.now


def test_memory_of_a_running_plan_is_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory for a result at first: kept buffers are given back, but not the intermediates' the plan is about to use."""
    x = graphc.tensor(np.random.default_rng(1).standard_normal((400, 400)).astype(np.float32))

    def fn() -> Any:
        return (x @ x).cumsum(1) @ x

    want = fn().tolist()
    assert memory._Pool.arena.size
    refused: list[int] = []

    class Numpy:
        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        def empty(self, shape: Any, *rest: Any) -> Any:
            if not refused and shape != 0:
                refused.append(shape)
                raise MemoryError
            return np.empty(shape, *rest)

    memory.empty_cache()
    fn().tolist()
    memory._Pool.free.clear()
    base = memory._Pool.arena_base
    monkeypatch.setattr(memory, "np", Numpy())
    got = fn()
    np.testing.assert_allclose(got.tolist(), want, 1e-3, 1e-2)
    assert refused and memory._Pool.arena_base == base
    memory.empty_cache()
    assert memory._Pool.arena_base == 0
