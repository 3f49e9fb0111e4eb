"""Long loops: memory and caches stay flat, a schedule builds nothing."""
from __future__ import annotations

import gc

import pytest

import graphc as torch
import graphc.nn as nn
from graphc.ir import recorder


def resident() -> int:
    """Resident bytes of this process."""
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * 4096
    except OSError:
        pytest.skip("needs /proc")


def setup(lr: float = 0.01):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    return net, torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9), torch.randn(32, 8), torch.randint(0, 4, (32,))


def test_ten_thousand_eager_steps_hold_memory_flat() -> None:
    net, opt, x, y = setup()
    total = torch.zeros(())

    def steps(n: int):
        nonlocal total
        for _ in range(n):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            opt.step()
            total = total + loss.detach()

    steps(500)
    gc.collect()
    before, nodes, plans = resident(), recorder._Trie.count, len(recorder.PLANS)
    steps(9_500)
    gc.collect()
    assert recorder._Trie.count == nodes and len(recorder.PLANS) == plans
    assert resident() - before < 4 << 20
    assert total.item() > 0


@pytest.mark.parametrize("compiled", [False, True])
def test_a_schedule_and_two_batch_sizes_build_no_more_plans(compiled: bool) -> None:
    net, opt, x, y = setup()
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 1000)

    def step(x, y):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss.detach()

    run = torch.compile(step) if compiled else step
    built = None
    for i in range(1000):
        n = 32 if i % 2 else 20
        run(x[:n], y[:n])
        sched.step()
        if i == 9:
            built = recorder.counters["plans_built"]
    assert recorder.counters["plans_built"] == built
    assert opt.param_groups[0]["lr"] < 1e-5
