"""Whole training steps as one program: accumulation, autocast, loss scaling, clipping, schedules; no host reads, no growth."""
from __future__ import annotations

import gc
import sys

import pytest

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
from graphc.ir import recorder

OPTIMIZERS = {"SGD": {"lr": 0.05, "momentum": 0.9}, "Adam": {"lr": 0.01}, "AdamW": {"lr": 0.01}, "RMSprop": {"lr": 0.01}}
SCHEDULES = {"CosineAnnealingLR": (200,), "StepLR": (3,), "OneCycleLR": (0.05, 400), "CosineAnnealingWarmRestarts": (7,)}


class Training:
    """A step with everything a training loop has, compiled or not."""

    def __init__(self, optimizer: str, schedule: str, scaled: bool = True, parts: int = 2, **options):
        graphc.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 4))
        self.opt = getattr(graphc.optim, optimizer)(self.net.parameters(), **OPTIMIZERS[optimizer])
        self.scaler = graphc.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=5, enabled=scaled)
        self.schedule = getattr(graphc.optim.lr_scheduler, schedule)(self.opt, *SCHEDULES[schedule])
        self.parts = parts
        self.step = graphc.compile(self.plain, fullgraph=True, **options)

    def plain(self, x, y):
        self.opt.zero_grad()
        total = graphc.zeros(())
        for k in range(self.parts):
            with graphc.autocast("cpu", dtype=graphc.bfloat16):
                loss = F.cross_entropy(self.net(x[k::self.parts]).float(), y[k::self.parts]) / self.parts
            self.scaler.scale(loss).backward()
            total += loss.detach()
        self.scaler.unscale_(self.opt)
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.scaler.step(self.opt)
        self.scaler.update()
        self.schedule.step()
        return total, norm


def batches(*sizes: int):
    graphc.manual_seed(1)
    return [(graphc.randn(n, 16), graphc.randint(0, 4, (n,))) for n in sizes]


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_one_program_a_step(optimizer: str, schedule: str) -> None:
    training, (batch,) = Training(optimizer, schedule), batches(24)
    losses = [training.step(*batch)[0].item() for _ in range(3)]
    before = dict(recorder.counters)
    losses += [training.step(*batch)[0] for _ in range(10)]
    after = recorder.counters
    assert after["flushes"] - before["flushes"] == 10, "one flush a step"
    assert after["plans_built"] == before["plans_built"], "a schedule, a growing scale and step counts build nothing"
    assert training.step.explain().breaks == {}
    assert float(losses[-1]) < losses[0]


def test_the_compiled_step_does_what_the_eager_one_does() -> None:
    runs = [Training("Adam", "CosineAnnealingLR") for _ in range(2)]
    (batch,) = batches(24)
    results = []
    for training, step in zip(runs, (runs[0].plain, runs[1].step)):
        graphc.manual_seed(5)
        results.append([step(*batch)[0].item() for _ in range(6)])
    assert results[0] == pytest.approx(results[1], rel=1e-3)
    assert [t.scaler.get_scale() for t in runs] == [2.0**11] * 2


def test_an_overflow_skips_the_step_without_a_host_read() -> None:
    training, (batch,) = Training("Adam", "StepLR"), batches(24)
    training.step(*batch)
    weights, scale = [p.tolist() for p in training.net.parameters()], training.scaler.get_scale()
    bad = batch[0].clone()
    bad[0, 0] = float("inf")
    training.step(bad, batch[1])
    assert [p.tolist() for p in training.net.parameters()] == weights
    assert training.scaler.get_scale() == scale / 2
    training.step(*batch)
    assert [p.tolist() for p in training.net.parameters()] != weights
    assert training.step.explain().breaks == {}
    assert {float(s["step"]) for s in training.opt.state.values()} == {2.0}, "the skipped step does not count"


@pytest.mark.parametrize("options", [{}, {"memory_budget": 0.4}])
def test_many_steps_with_two_batch_sizes_need_no_memory(options) -> None:
    training, data = Training("AdamW", "CosineAnnealingWarmRestarts", **options), batches(24, 16)
    for k in range(60):
        training.step(*data[k % 2])
    gc.collect()
    plans, nodes, blocks = recorder.counters["plans_built"], recorder._Trie.count, sys.getallocatedblocks()
    for k in range(400):
        training.step(*data[k % 2])
    gc.collect()
    assert recorder.counters["plans_built"] == plans and recorder._Trie.count == nodes
    assert sys.getallocatedblocks() - blocks < 400
