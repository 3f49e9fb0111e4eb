"""Programs that differ in a number here or there, in every step another one: only that part is planned anew."""
from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.ir import recorder

F = nn.functional

CHANGES: dict[str, Callable[[Any, int, int], Any]] = {
    "crop": lambda x, a, b: x[:, a:a + 8, b:b + 8],
    "shift": lambda x, a, b: graphc.roll(x, 2 * a, 1)[:, :8, :8],
    "pad": lambda x, a, b: F.pad(x, (a, 9 - a, b, 9 - b))[:, 4:12, 4:12],
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_follows_stays_planned(change: str) -> None:
    graphc.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    same = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    same.load_state_dict(net.state_dict())
    optimizers = [graphc.optim.SGD(n.parameters(), lr=0.1) for n in (net, same)]
    data, targets = graphc.randn(160, 16, 16), graphc.randint(0, 4, (160,))
    numbers = random.Random(0)
    added = []
    for step in range(40):
        start = step % 10 * 16
        x, y = data[start:start + 16], targets[start:start + 16]
        a, b = numbers.randrange(9), numbers.randrange(9)
        before = recorder.counters["plan_nodes"]
        loss = F.cross_entropy(net(CHANGES[change](x, a, b)), y)
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        got = loss.item()
        added.append(recorder.counters["plan_nodes"] - before)
        part = graphc.tensor(CHANGES[change](x, a, b).numpy())
        optimizers[1].zero_grad()
        want = F.cross_entropy(same(part), y)
        want.backward()
        optimizers[1].step()
        assert abs(got - want.item()) < 1e-4
    assert max(added) > 20 and sum(n >= 16 for n in added[10:]) <= 4, added  # the first variants, if they come again
    for p, q in zip(net.parameters(), same.parameters()):
        assert np.allclose(p.detach().numpy(), q.detach().numpy(), atol=1e-4)


def test_a_number_in_the_middle() -> None:
    """The loss changes: neither what comes before it nor the update is planned again."""
    w = graphc.randn(8, 8, requires_grad=True)
    optimizer = graphc.optim.SGD([w], lr=0.1)
    x, y = graphc.randn(16, 8), graphc.randint(0, 8, (16,))
    x.tolist(), y.tolist()
    added = []
    for step in range(30):
        before = recorder.counters["plan_nodes"]
        h = x
        for _ in range(12):
            h = (h @ w).tanh() + h
        loss = F.cross_entropy(h, y, label_smoothing=0.01 * step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        added.append(recorder.counters["plan_nodes"] - before)
    assert max(added[15:]) < max(added) / 2, added
