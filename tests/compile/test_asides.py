"""The ends of objects may compute, at whatever moment of recording the garbage collector comes."""
from __future__ import annotations

import gc
from typing import Any

import pytest

import graphc
from graphc.ir import recorder


class Bye:
    """Garbage that only the collector finds."""

    def __init__(self, what: Any):
        self.me, self.what = self, what

    def __del__(self) -> None:
        self.what()


def train(mode: str) -> list[Any]:
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
    for n in range(12):
        loss = run(graphc.ones(2 + n % 3 if n < 7 else 4, 8) * (n % 5))
        if n % 4 == 0:
            out.append(loss.item())
    return [*out, w.tolist()]


@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.parametrize("mode", ["eager", "default", "replay"])
def test_what_ends_of_objects_compute_is_kept_apart(mode: str, reads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection before every new node, between where its place was looked up and where it is taken."""
    want = train(mode)
    total, count = graphc.zeros(3), [0]
    advance = recorder._advance

    def what() -> None:
        count[0] += 1
        total.add_(graphc.ones(3))
        if reads:
            total.tolist()

    def collecting(*args: Any) -> Any:
        node = advance(*args)
        if gc.isenabled():
            gc.disable()  # none within one
            Bye(what)
            gc.collect(0)
            gc.enable()
        return node

    recorder._Trie.root = type(recorder._Trie.root)(None, (), (), (), (), 0)  # so that every node is new
    monkeypatch.setattr(recorder, "_advance", collecting)
    assert train(mode) == want
    gc.collect()
    assert count[0] > 30 and total.tolist() == [count[0]] * 3


def test_the_interrupted_program_goes_on_as_before() -> None:
    """An end that fails later, where it is read; modes of the call that was interrupted do not concern it, and come back."""
    bad, kept, holds = graphc.tensor([7]), [], []

    def what() -> None:
        holds.append(recorder.state.hold)
        kept.append(graphc.arange(3)[bad])

    @graphc.compile
    def fn(x: Any) -> Any:
        y = x + 1
        region = recorder.state.region
        Bye(what)
        gc.collect()
        assert recorder.state.hold == 1 and recorder.state.region is region
        return y * 2

    assert fn(graphc.ones(2)).tolist() == [4.0, 4.0] and holds == [0]
    with pytest.raises(IndexError):
        kept[0].tolist()
