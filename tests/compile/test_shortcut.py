"""Replayed calls that take the shortest way equal eager ones, and step aside when anything is out of the ordinary."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn as nn
from graphc.compile import shortcut as compile_shortcut

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda ps: graphc.optim.SGD(ps, lr=0.1),
    "momentum": lambda ps: graphc.optim.SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.01),
    "Adam": lambda ps: graphc.optim.Adam(ps, lr=0.01),
    "AdamW": lambda ps: graphc.optim.AdamW(ps, lr=0.01),
}


@pytest.fixture()
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call that asked for the shortcut took it."""
    seen: list[bool] = []
    plain = compile_shortcut.Shortcut.__call__

    def call(self: Any, args: Any) -> Any:
        out = plain(self, args)
        seen.append(out is not compile_shortcut.MISS)
        return out

    monkeypatch.setattr(compile_shortcut.Shortcut, "__call__", call)
    return seen


class Training:
    """A small network and its step, eager or replayed."""

    def __init__(self, optimizer: str = "SGD", mode: str | None = "replay", dropout: float = 0.0):
        graphc.manual_seed(7)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(dropout), nn.ReLU(), nn.Linear(8, 3))
        self.opt = OPTIMIZERS[optimizer](self.net.parameters())
        rng = np.random.default_rng(0)
        self.batches = [(graphc.tensor(rng.standard_normal((5, 6)).astype(np.float32)), graphc.tensor(rng.integers(0, 3, 5)))
                        for _ in range(4)]
        net, opt = self.net, self.opt

        def step(x: Any, y: Any) -> Any:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            opt.step()
            return loss.detach()

        self.step = step if mode is None else graphc.compile(step, mode=mode)

    def run(self, steps: int, first: int = 0) -> list[float]:
        return [self.step(*self.batches[k % 4]).item() for k in range(first, first + steps)]

    def state(self) -> list[np.ndarray]:
        return [p.detach().numpy().copy() for p in self.net.parameters()] + [p.grad.numpy().copy() for p in self.net.parameters()]


def same(a: Training, b: Training) -> None:
    for x, y in zip(a.state(), b.state()):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_equals_eager(optimizer: str, dropout: float, taken: list[bool]) -> None:
    fast, slow = Training(optimizer, dropout=dropout), Training(optimizer, None, dropout)
    graphc.manual_seed(3)
    got = fast.run(40)
    graphc.manual_seed(3)
    assert got == slow.run(40)
    same(fast, slow)
    assert sum(taken) > 10


def test_gradients_kept_by_the_caller_stay(taken: list[bool]) -> None:
    fast, slow = Training(), Training(mode=None)
    fast.run(20), slow.run(20)
    kept = [p.grad for p in fast.net.parameters()]
    arrays = [g.numpy() for g in kept]
    before = [a.copy() for a in arrays]
    fast.run(5, 20), slow.run(5, 20)
    for g, a, b in zip(kept, arrays, before):
        np.testing.assert_array_equal(g.numpy(), b)
        np.testing.assert_array_equal(a, b)
    same(fast, slow)
    assert any(taken)


def test_parameters_seen_by_numpy_or_kept_as_copies(taken: list[bool]) -> None:
    fast, slow = Training(), Training(mode=None)
    fast.run(20), slow.run(20)
    w = fast.net[0].weight
    kept, clone = w.detach().clone(), w.data.numpy().copy()
    fast.run(4, 20), slow.run(4, 20)
    np.testing.assert_array_equal(kept.numpy(), clone)
    view = w.detach()[0]  # from now on its memory is shared by a view
    for k in range(24, 40):
        fast.run(1, k), slow.run(1, k)
        np.testing.assert_array_equal(view.numpy(), w.detach().numpy()[0])
    same(fast, slow)


def test_arguments_out_of_the_ordinary(taken: list[bool]) -> None:
    fast, slow = Training(), Training(mode=None)
    fast.run(20), slow.run(20)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((12, 6)).astype(np.float32)
    y = graphc.tensor(rng.integers(0, 3, 5))
    shared = graphc.from_numpy(x[:5])
    for given in (shared, graphc.tensor(x).t()[:, :5].t(), graphc.tensor(x)[::2][:5], graphc.tensor(x[:5], dtype=graphc.float32)):
        assert fast.step(given, y).item() == slow.step(given, y).item()
        x[:5] += 1
    wide = graphc.tensor(x[:8]), graphc.tensor(rng.integers(0, 3, 8))
    for _ in range(6):
        assert fast.step(*wide).item() == slow.step(*wide).item()
    same(fast, slow)


def test_an_error_in_the_plan_changes_nothing(taken: list[bool]) -> None:
    fast, slow = Training(), Training(mode=None)
    fast.run(20), slow.run(20)
    before = [p.detach().numpy().copy() for p in fast.net.parameters()]
    bad = graphc.tensor([0, 1, 7, 0, 1])
    with pytest.raises(IndexError):
        fast.step(fast.batches[0][0], bad)
    for a, p in zip(before, fast.net.parameters()):
        np.testing.assert_array_equal(a, p.detach().numpy())
    slow.opt.zero_grad()
    fast.opt.zero_grad()
    assert fast.run(10) == slow.run(10)
    same(fast, slow)


def test_hooks_and_flags_are_seen(taken: list[bool]) -> None:
    fast, slow = Training(), Training(mode=None)
    fast.run(20), slow.run(20)
    calls: list[int] = []
    handle = fast.net[0].register_forward_hook(lambda m, i, o: calls.append(1))
    fast.run(3, 20), slow.run(3, 20)
    assert len(calls) == 3
    handle.remove()
    fast.net[0].weight.requires_grad_(False), slow.net[0].weight.requires_grad_(False)
    fast.run(3, 23), slow.run(3, 23)
    fast.opt.param_groups[0]["lr"] = slow.opt.param_groups[0]["lr"] = 0.01
    fast.run(5, 26), slow.run(5, 26)
    for p, q in zip(fast.net.parameters(), slow.net.parameters()):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


def test_in_place_changes_between_calls(taken: list[bool]) -> None:
    fast, slow = Training("Adam"), Training("Adam", None)
    for k in range(40):
        fast.run(1, k), slow.run(1, k)
        if k % 7 == 3:
            for t in (fast, slow):
                with graphc.no_grad():
                    t.net[0].weight.mul_(0.9)
                    t.net[3].bias.grad.add_(1)
    same(fast, slow)
    assert any(taken)


@pytest.mark.parametrize("mode", ["default", "replay"])
def test_an_index_checked_before_an_update_in_place(mode: str) -> None:
    """The embedding's gradient checks its indices again, after parameters may have been overwritten: the first check counts."""
    graphc.manual_seed(0)
    net = nn.Sequential(nn.Embedding(50, 64), nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU(), nn.Linear(64, 5))
    opt = graphc.optim.Adam(net.parameters(), lr=0.01)

    @graphc.compile(mode=mode)
    def step(x: Any, y: Any) -> Any:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss.detach()

    rng = np.random.default_rng(0)
    x, y = graphc.tensor(rng.integers(0, 50, (32, 16))), graphc.tensor(rng.integers(0, 5, 32))
    for _ in range(20):
        step(x, y)
    state = [p.detach().numpy().copy() for p in net.parameters()]
    moments = [opt.state[p]["exp_avg"].numpy().copy() for p in net.parameters()]
    for bad in (x.clone().fill_(50), x - 60):
        with pytest.raises(IndexError):
            step(bad, y)
        for p, was, m in zip(net.parameters(), state, moments):
            np.testing.assert_array_equal(p.detach().numpy(), was)
            np.testing.assert_array_equal(opt.state[p]["exp_avg"].numpy(), m)
    with pytest.raises(IndexError):
        step(x, y + 5)
    for p, was in zip(net.parameters(), state):
        np.testing.assert_array_equal(p.detach().numpy(), was)
    assert np.isfinite(step(x, y).item())


def test_hooks_on_leaves_and_weak_references_are_seen(taken: list[bool]) -> None:
    import weakref

    fast, slow = Training(), Training(mode=None)
    fast.run(20), slow.run(20)
    for t in (fast, slow):
        t.net[0].weight.register_hook(lambda g: g * 0)
        t.net[3].bias.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(2))
    fast.run(6, 20), slow.run(6, 20)
    same(fast, slow)

    class Scale:
        by = 2.0

    scale = Scale()
    seen = weakref.ref(scale)

    @graphc.compile(mode="replay")
    def f(x: Any) -> Any:
        return x * seen().by  # type: ignore[union-attr]

    x = graphc.ones(100, 50)
    for _ in range(10):
        assert f(x)[0, 0].item() == 2
    scale.by = 3.0
    assert f(x)[0, 0].item() == 3
