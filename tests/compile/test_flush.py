"""What a flush does when a plan can't be built, and what counts as pending memory."""
from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import config
from graphc.errors import CompileError
from graphc.ir import flush as flushing
from graphc.ir import recorder


def test_a_plan_that_cannot_be_built_poisons_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    build, tried = recorder._planner[0], []

    def refuse(graph: Any) -> Any:
        tried.append(graph)
        raise CompileError("no kernel for this")

    x = graphc.arange(3.0)
    x.tolist()
    monkeypatch.setattr("graphc.ir.flush._planner", [refuse])
    x.add_((x * 5.25).sinh() * 0)
    with pytest.raises(CompileError, match="no kernel"):
        x.tolist()
    assert x.tolist() == [0, 1, 2] and len(tried) == 1, "the second read does not build the plan again"
    monkeypatch.setattr("graphc.ir.flush._planner", [build])
    assert (x + 1).tolist() == [1, 2, 3]


def test_views_and_inputs_are_no_pending_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "BYTE_CAP", 1 << 16)
    x = graphc.ones(64, 64)
    x.tolist()
    flushes = recorder.counters["flushes"]
    y = x.expand(1 << 20, 64, 64)[5, 3:, :].T + 77.125
    assert recorder.counters["flushes"] == flushes, "2**42 bytes that nobody stores"
    z = [y * k for k in (2.5, 3.5, 4.5, 5.5, 6.5)]
    assert recorder.counters["flushes"] > flushes, "results do count"
    assert y[0, 0].item() == 78.125 and z[1][0, 0].item() == 3.5 * 78.125


def test_gradients_dropped_within_a_call_are_not_stored() -> None:
    nn = graphc.nn
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    opt = graphc.optim.SGD(net.parameters(), lr=0.1)

    @graphc.compile
    def step(x, last):
        loss = net(x).square().sum()
        loss.backward()
        if last:
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            opt.step()
            opt.zero_grad()
        return loss

    for k in range(6):
        step(graphc.ones(5, 3), k % 2 == 1)
    outputs = sorted(len(g.outputs) for g in step._known)
    assert outputs == [5, 5], "the loss and four gradients; the loss and four parameters, not the gradients as well"


def test_a_chain_longer_than_a_region_needs_no_quadratic_time() -> None:
    """Scalars that gradient nodes saved in a flushed region are found, not planned one by one."""
    x = graphc.ones(3, requires_grad=True)
    y = x
    for _ in range(5000):
        y = y * 0.9999
    built = recorder.counters["plans_built"]
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.float64(0.9999) ** 5000, rtol=1e-3)
    assert recorder.counters["plans_built"] - built < 10


def test_thousands_of_tiny_tensors_are_not_compiled_one_by_one() -> None:
    recorder.PLANS.clear()
    xs = [graphc.full((2,), float(i), requires_grad=True) for i in range(700)]
    total = sum(((x * x).sum() for x in xs), graphc.zeros(()))
    total.backward()
    np.testing.assert_array_equal(xs[3].grad.numpy(), [6.0, 6.0])
    assert not any(type(p.run).__name__ == "Program" and len(p.graph.nodes) > 1000 for p in recorder.PLANS.values())


def test_a_compiled_call_is_one_program_beyond_the_caps_of_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "NODE_CAP", 50)
    monkeypatch.setattr(config, "BYTE_CAP", 1 << 14)

    @graphc.compile
    def f(x: Any, n: int) -> Any:
        for _ in range(n):
            x = x.sin() + 1
        return x

    x = graphc.ones(64)
    flushes = recorder.counters["flushes"]
    f(x, 100)
    assert f.explain().breaks == {} and f.explain().plans == 1 and recorder.counters["flushes"] <= flushes + 2
    f(x, 2000)
    assert recorder.counters["flushes"] > flushes + 2, "but not without bounds"


@pytest.mark.parametrize("many", [1, 30])
def test_memory_that_another_value_holds_is_not_given_away(many: int) -> None:
    xs = [graphc.full((80, 80), float(k)) for k in range(many)]
    graphc.stack(xs).sum().item()
    kept = [x.clone() for x in xs]  # a clone shares the memory until one of both is written

    @graphc.compile
    def update() -> None:
        for x in xs:
            x.mul_(2).add_(1)

    for _ in range(3):
        update()
    for k, x in enumerate(kept):
        np.testing.assert_array_equal(x.numpy(), np.full((80, 80), float(k), np.float32))


def test_plans_of_shapes_that_never_come_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where their programs end; those made last stay, and what was forgotten is planned again."""
    monkeypatch.setattr(flushing, "PLANS", {})
    monkeypatch.setattr(flushing, "_NODE_LIMIT", 400)
    monkeypatch.setitem(flushing.counters, "plan_nodes", 0)
    alive: list[weakref.ref[object]] = []

    def run(n: int) -> float:
        x = graphc.arange(n)
        for _ in range(8):
            x = x * 2 - graphc.arange(n)
        out = x.sum().item()
        alive.append(weakref.ref(next(reversed(flushing.PLANS.values())).run))
        return out

    for n in range(3, 60):
        assert run(n) == n * (n - 1) // 2
        assert sum(len(p.recorded.nodes) for p in flushing.PLANS.values()) <= 400
    gc.collect()
    assert len(flushing.PLANS) > 4 and sum(r() is not None for r in alive) == len(flushing.PLANS)
    assert run(3) == 3 and len(flushing.PLANS) > 4


def test_a_program_is_followed_from_its_start_whatever_was_left_pending() -> None:
    """What nobody reads stays pending; what comes then must not be a new program every time."""

    def program(left: int) -> float:
        x = graphc.full((5,), 1.5)
        for k in range(left):
            x = x.cos() + k
        del x
        c = graphc.rand(7, requires_grad=True)
        (c.sin() * 2.0 + 1).sum().backward()
        return float(c.grad.sum())

    program(0)
    before = recorder.counters["plans_built"]
    assert all(0 < program(left) < 14 for left in range(1, 6))
    assert recorder.counters["plans_built"] == before
    edge = (graphc.full((3,), 2.0, requires_grad=True) * 3.0).grad_fn  # saves the scalar; its result is gone
    assert float((graphc.full((2,), 1.0) + 1).sum()) == 4 and edge is not None


def test_elements_written_one_by_one_are_not_thousands_of_kernels() -> None:
    recorder.PLANS.clear()
    table = graphc.zeros(40, 40)
    for i in range(1, 40):
        for j in range(1, 40):
            table[i, j] = graphc.min(graphc.stack([table[i - 1, j], table[i, j - 1], table[i - 1, j - 1]])) + 1
    want = np.zeros((40, 40))
    for i in range(1, 40):
        for j in range(1, 40):
            want[i, j] = min(want[i - 1, j], want[i, j - 1], want[i - 1, j - 1]) + 1
    np.testing.assert_array_equal(table.numpy(), want)
    assert not any(type(p.run).__name__ == "Program" and len(p.graph.nodes) > 3000 for p in recorder.PLANS.values())
