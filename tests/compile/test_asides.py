"""The ends of objects may compute, at whatever moment of recording the garbage collector comes."""
from __future__ import annotations

import gc
import random
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import graphc
from graphc.ir import recorder


@pytest.fixture(autouse=True)
def _thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


class Bye:
    """Garbage that only the collector finds."""

    def __init__(self, what: Any):
        self.me, self.what = self, what

    def __del__(self) -> None:
        self.what()


def train(mode: str, garbage: Any) -> list[Any]:
    r = random.Random(1)
    w = graphc.full((8, 8), 0.1).requires_grad_()
    opt = graphc.optim.Adam([w], lr=0.01)

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = (x @ w).tanh().square().mean()
        loss.backward()
        opt.step()
        return loss

    run = step if mode == "eager" else graphc.compile(step, mode=None if mode == "default" else mode)
    out = []
    for n in range(60):
        garbage()
        loss = run(graphc.ones(r.randrange(2, 5) if n % 3 else 4, 8) * (n % 5))
        if n % 4 == 0:
            out.append(loss.item())
    return [*out, w.tolist()]


@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.parametrize("mode", ["eager", "default", "replay"])
def test_what_ends_of_objects_compute_is_kept_apart(mode: str, reads: bool) -> None:
    want = train(mode, lambda: None)
    total, count, r = graphc.zeros(3), [0], random.Random(2)

    def what() -> None:
        count[0] += 1
        total.add_(graphc.ones(3))
        if reads:
            total.tolist()

    def garbage() -> None:
        for _ in range(r.randrange(4)):
            Bye(what)
        gc.set_threshold(r.randrange(3, 60))

    assert train(mode, garbage) == want
    gc.collect()
    assert count[0] > 30 and total.tolist() == [count[0]] * 3


def test_errors_and_modes_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails there is reported as Python reports errors of ``__del__``; the interrupted program's own state comes back."""
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda e: seen.append(e.exc_type))
    bad = graphc.tensor([7])

    def what() -> None:
        seen.append(recorder.state.hold)
        kept.append(graphc.arange(3)[bad])

    kept: list[Any] = []

    @graphc.compile
    def fn(x: Any) -> Any:
        y = x + 1
        Bye(what)
        gc.collect()
        assert recorder.state.hold == 1 and recorder.state.region is region[0]
        return y * 2

    region: list[Any] = []
    x = graphc.ones(2)

    def start(x: Any) -> Any:
        region.append(recorder.state.region)
        return fn._fn(x)

    assert graphc.compile(start)(x).tolist() == [4.0, 4.0]
    assert seen[0] == 0 and issubclass(seen[1], IndexError) and len(seen) == 2
    with pytest.raises(IndexError):
        kept[0].tolist()
