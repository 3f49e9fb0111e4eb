"""Replayed training steps between whose calls things change that a random walk found to be overlooked."""
from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn

pytestmark = pytest.mark.filterwarnings("ignore")


def two(change: Callable[[int, dict[str, Any]], None], options: dict[str, Any]) -> list[list[float]]:
    """A step made eagerly and in replay mode, with ``change(n, names)`` before the nth call; what both compute."""
    out = []
    for mode in (None, "replay"):
        graphc.manual_seed(0)
        m = nn.Linear(3, 2)
        x, y = graphc.linspace(-1, 1, 12).reshape(4, 3), graphc.linspace(0, 1, 8).reshape(4, 2)
        opt = graphc.optim.SGD([{"params": [m.weight], "lr": 0.1}, {"params": [m.bias], "lr": 0.2}], momentum=0.9)

        def step(x: Any, y: Any, m: Any = m, opt: Any = opt) -> Any:
            opt.zero_grad()
            loss = (m(x) - y).square().mean()
            loss.backward()
            opt.step()
            return loss

        run = step if mode is None else graphc.compile(step, mode=mode, options={"audit_every": 1000, **options})
        losses = []
        for n in range(30):
            change(n, {"m": m, "opt": opt})
            losses.append(run(x, y).item())
        out.append([*losses, *m.weight.flatten().tolist(), *m.bias.tolist()])
        if mode:
            assert run.explain().replayed > 5
    return out


def same(change: Callable[[int, dict[str, Any]], None], **options: Any) -> None:
    want, got = two(change, options)
    np.testing.assert_allclose(got, want, 1e-5, 1e-6)


def test_a_rate_that_has_not_moved_yet() -> None:
    """That one group's rate is an input says nothing of another's."""
    def change(n: int, at: dict[str, Any]) -> None:
        groups = at["opt"].param_groups
        if n < 18:
            groups[0]["lr"] *= 0.99
        elif n == 24:
            groups[1]["lr"] *= 0.25

    same(change)


def test_groups_that_were_replaced() -> None:
    """New groups of equal rates are no sign that rates are inputs."""
    def change(n: int, at: dict[str, Any]) -> None:
        if n == 4:
            at["opt"].param_groups[:] = [dict(g) for g in at["opt"].param_groups]
        elif n == 20:
            for g in at["opt"].param_groups:
                g["lr"] *= 0.1

    same(change)


def test_a_call_that_would_not_be_skipped_is_no_audit() -> None:
    """A view that must be read anew is no reason for an error at the call that happens to be an audit."""
    w = graphc.linspace(0, 1, 12).reshape(3, 4)
    row = w[1]
    fn = graphc.compile(lambda x: x * row, mode="replay", options={"audit_every": 4})
    x = graphc.ones(4)
    for n in range(40):
        np.testing.assert_allclose(fn(x).tolist(), w[1].tolist(), 1e-6)
        if n % 5 == 4:
            w.mul_(1.5)
    assert fn.explain().replayed


def test_a_gradient_that_another_thread_has_not_computed() -> None:
    w = graphc.ones(5).requires_grad_()

    def step(x: Any) -> Any:
        loss = (w * x).sum()
        loss.backward()
        return loss

    run = graphc.compile(step, mode="replay")
    out: list[Any] = []
    for n in range(8):
        if w.grad is not None:
            w.grad.mul_(0.5)  # pending in this thread
        t = threading.Thread(target=lambda: out.append(run(graphc.ones(5)).item()))
        t.start()
        t.join()
        assert len(out) == n + 1
    np.testing.assert_allclose(w.grad.tolist(), [sum(0.5 ** k for k in range(8))] * 5)
