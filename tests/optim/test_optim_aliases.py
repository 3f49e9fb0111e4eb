"""Optimizer steps on parameters whose memory other tensors show: everybody sees the step, whoever else is dropped in between."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.ir.recorder import flush

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)
W, X = RNG.standard_normal((5, 3)).astype(np.float32), RNG.standard_normal((7, 5)).astype(np.float32)


def made(T: Any, how: str) -> tuple[Any, list[Any]]:
    """A parameter and who else looks at its memory."""
    w = T.tensor(W)
    if how == "plain":
        return T.nn.Parameter(T.tensor(W)), []
    if how == "data held":
        return T.nn.Parameter(w), [w]
    if how == "part of data":
        return T.nn.Parameter(w[1:].t()), [w]
    p = T.nn.Parameter(T.tensor(W))
    others = {"detached": lambda: [p.detach()], "data": lambda: [p.data], "row": lambda: [p.detach()[1]],
              "transposed": lambda: [p.data.t()], "numpy": lambda: [p.detach().numpy()], "dropped": lambda: [],
              "state": lambda: [T.nn.ParameterList([p]).state_dict()["0"]], "leaf": lambda: [p.detach().requires_grad_()]}[how]()
    if how == "dropped":
        p.detach().add_(0.5)
    return p, others


HOW = ("plain", "data held", "part of data", "detached", "data", "row", "transposed", "numpy", "dropped", "state", "leaf")


def program(T: Any, how: str, kind: str, mode: str) -> list[np.ndarray]:
    p, others = made(T, how)
    opt = getattr(T.optim, kind)([p], lr=0.1, **({"momentum": 0.9} if kind == "SGD" else {}))
    x, seen = T.tensor(X), []

    def step() -> Any:
        opt.zero_grad()
        loss = (x @ (p if p.shape[0] == 5 else p.reshape(-1)[:5].reshape(5, 1))).square().mean()
        loss.backward()
        opt.step()
        return loss.detach()

    run = T.compile(step, mode=mode) if mode != "eager" and T is graphc else step
    for k in range(7):
        loss = run()
        if k % 2:
            flush()
        if k == 2 and others and not isinstance(others[0], np.ndarray):
            with T.no_grad():
                others[0].mul_(0.5)  # and the parameter sees what is written there
        if k == 3:
            others = [o.detach() if hasattr(o, "detach") else o for o in others]  # other handles on the same
        if k == 5:
            others = []
        seen += [np.array(loss.item()), p.detach().numpy().copy()]
        seen += [o.copy() if isinstance(o, np.ndarray) else o.detach().numpy().copy() for o in others]
    return seen


@pytest.mark.parametrize("mode", ["eager", "default", "replay"])
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("how", HOW)
def test_everybody_sees_the_step(how: str, kind: str, mode: str) -> None:
    want = program(torch, how, kind, "eager")
    got = program(graphc, how, kind, mode)
    assert len(want) == len(got)
    for a, b in zip(want, got):
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=1e-6)


def test_a_parameter_nobody_else_shows_has_no_storage() -> None:
    """So that it is updated in its own memory."""
    p = graphc.nn.Parameter(graphc.tensor(W))
    opt = graphc.optim.SGD([p], lr=0.1)
    held = p.detach()
    for k in range(4):
        p.grad = graphc.ones(5, 3)
        opt.step()
        if k == 1:
            np.testing.assert_allclose(held.numpy(), p.detach().numpy())
            del held
        assert k < 3 or p._alias is None
    np.testing.assert_allclose(p.detach().numpy(), W - 0.4, rtol=1e-5)
    assert p.requires_grad and p.is_leaf
