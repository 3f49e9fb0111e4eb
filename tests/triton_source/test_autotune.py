"""Measured choices with a clock of our own: what is measured, kept, reloaded, dropped; the variants of loop kernels compute the same."""
from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from recorded_steps import captured
from test_matmul import bias_relu, dense
from triton_run import run_printed

import graphc
from graphc.codegen.fuse import schedule
from graphc.codegen.loop_ir import Kernel
from graphc.codegen.triton import autotune, tiling
from graphc.codegen.triton.autotune import Tuner, product_tile, size_class, tuning
from graphc.codegen.triton.compiler import A100, H100
from graphc.codegen.triton.plan import launches, lower_plan
from graphc.codegen.triton.printer import print_kernel
from graphc.dtypes import bfloat16
from graphc.runtime.kernel_cache import KernelCache


class Clock:
    """Stands for a device: seconds by a rule over the printed kernels, and what was asked."""

    def __init__(self, rule):
        self.rule, self.asked = rule, []

    def __call__(self, printed, memory):
        assert all(a.value in memory.sizes or a.value == "err" for p in printed for a in p.args if a.type[0] == "*"), "memory of unknown size"
        self.asked.append(printed)
        return self.rule(printed)


def block(printed):
    return dict(printed[0].constants)


def tuner(rule, folder=None, **more):
    cache = KernelCache(folder, "test") if folder is not None else None
    return Tuner(H100, Clock(rule), "a card", cache=cache, **more)


def ask(p, dt=bfloat16, **more):
    return product_tile(p, dt, H100, (0, 0), more.pop("epilogue", None), True, ("a", "b", "c"), "parts", **more)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("GRAPHC_NO_CACHE", "1")


P = dense((), 2048, 2048, 1024)


def test_without_a_tuner_the_model_decides() -> None:
    assert ask(P) == tiling.ranked(P, bfloat16, H100)[0]


def test_the_fastest_candidate_is_taken_once_and_for_all() -> None:
    """The second question measures nothing, whatever the clock would say now; sizes of the same class share the answer."""
    t = tuner(lambda made: 1.0 + 0.001 * abs(block(made)["BX"] - 256))
    with tuning(t):
        first = ask(P)
        assert first.m == 256 and t.measured == len(t.measure.asked) == autotune.TOP
        t.measure.rule = lambda made: float(block(made)["BX"])
        assert ask(P) == first and t.measured == autotune.TOP
        assert ask(dense((), 2040, 2000, 1000)) == first and t.measured == autotune.TOP
        assert ask(dense((), 4096, 2048, 1024)).m != 256 and t.measured == 2 * autotune.TOP
    assert ask(P) == tiling.ranked(P, bfloat16, H100)[0], "the tuner is no longer in force"


def test_candidates_are_the_first_of_the_model() -> None:
    t = tuner(lambda made: 1.0, top=3)
    with tuning(t):
        assert ask(P) == tiling.ranked(P, bfloat16, H100)[0], "equal times: the model's order decides"
    assert len(t.measure.asked) == 3
    noisy = iter([1.0, 0.995, 0.992])
    t = tuner(lambda made: next(noisy), top=3)
    with tuning(t):
        assert ask(P) == tiling.ranked(P, bfloat16, H100)[0], "less than a hundredth is noise"


def test_choices_survive_the_process(tmp_path: Path) -> None:
    """On disk under private permissions, by device and versions; a damaged or senseless entry is measured again."""
    def rule(made):
        return 1.0 / block(made)["BY"]

    t = tuner(rule, tmp_path)
    with tuning(t):
        first = ask(P)
    file, = [f for f in tmp_path.iterdir() if f.suffix == ".obj"]
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    again = tuner(lambda made: 1.0, tmp_path)
    with tuning(again):
        assert ask(P) == first and not again.measured and again.reloaded == 1
    other = Tuner(H100, Clock(rule), "", cache=KernelCache(tmp_path, "another device"))
    with tuning(other):
        ask(P)
    assert other.measured
    whole = file.read_bytes()
    for damaged in (whole[:-7], b"", whole[:30] + b"\xff" * 20 + whole[50:]):
        file.write_bytes(damaged)
        t = tuner(rule, tmp_path)
        with tuning(t):
            assert ask(P) == first and t.measured == autotune.TOP
    cache = KernelCache(tmp_path, "test")
    key = cache.key(repr(autotune.product_class(P, bfloat16, H100, (0, 0), None, True, True)))
    assert json.loads(cache.get(key))["choice"] == repr(first)
    for senseless in (b"[]", b"{}", b'{"choice": 7}', b'{"choice": "Tile(m=1)"}', b"\xff"):
        cache.put(key, senseless)
        t = tuner(rule, tmp_path)
        with tuning(t):
            assert ask(P) == first and t.measured == autotune.TOP, senseless


def test_candidates_that_fail_are_dropped() -> None:
    """While compiling or running, or with a time that is none; if nothing is left the model's choice stands, unmeasured."""
    best = tiling.ranked(P, bfloat16, H100)[0]

    def rule(made):
        if block(made)["BX"] == best.m:
            raise RuntimeError("does not run")
        return float("nan") if block(made)["BX"] == 64 else 1.0

    t = tuner(rule, prepare=lambda made: 1 / 0)
    with tuning(t):
        found = ask(P)
    assert found.m not in (best.m, 64) and t.failed and t.measured
    t = tuner(lambda made: 1 / 0)
    with tuning(t):
        assert ask(P) == best and t.failed == autotune.TOP and not t._known


def test_a_tuner_of_another_device_is_not_asked() -> None:
    t = tuner(lambda made: 1.0)
    with tuning(t):
        product_tile(P, bfloat16, A100, (0, 0), None, True, ("a", "b", "c"), "parts")
    assert not t.measure.asked


def test_a_known_choice_that_cannot_be_used_here() -> None:
    """The same class, but a heavier kernel behind the product, odd addresses or a loop around it: other candidates, another class."""
    t = tuner(lambda made: 1.0)
    k = bias_relu((2048, 2048), bfloat16)
    with tuning(t):
        ask(P)
        n = t.measured
        ask(P, epilogue=k)
        assert t.measured > n
        n = t.measured
        assert not ask(P, descriptors=False).tma and t.measured > n


def test_size_classes() -> None:
    assert [size_class(n) for n in (1, 2, 3, 7, 8, 9, 16, 17, 1000, 1024, 1025)] == [1, 2, 3, 7, 8, 10, 16, 20, 1024, 1024, 1280]


def kernels(step, *args):
    return [s for s in schedule(captured(step, *args)).steps if isinstance(s, Kernel)]


LOOPS = {"pointwise": lambda a, b: (a * b).exp() + a, "rows": lambda a, b: graphc.softmax(a + b, -1),
         "columns": lambda a, b: (a * b).sum(0), "turned": lambda a, b: (a.mT.contiguous() + b.mT.contiguous()).tanh()}


@pytest.mark.parametrize("name", list(LOOPS))
def test_variants_compute_the_same(name: str, interpreter) -> None:
    """Every tiling that may be measured, on sizes that fill no block."""
    a, b = graphc.randn(100, 75), graphc.randn(100, 75)
    for k in kernels(LOOPS[name], a, b):
        tilings = tiling.variants(k)
        assert tilings[0] == tiling.choose(k) and len(tilings) == len(set(tilings)) > 1
        data = np.random.default_rng(0)
        given = {x.slot: data.uniform(-1, 1, x.size).astype(x.dtype.np) for x in k.buffers}
        results = []
        for t in tilings:
            values = {s: v.copy() for s, v in given.items()}
            run_printed(interpreter, print_kernel(k, t), values)
            results.append({k.buffers[i].slot: values[k.buffers[i].slot] for i in k.writes})
        for r in results[1:]:
            for slot, want in results[0].items():
                np.testing.assert_allclose(r[slot], want, rtol=1e-5, atol=1e-5)


def test_a_whole_plan_is_tuned() -> None:
    """Products and large loop kernels of a plan get measured block sizes; small kernels keep the model's."""
    w, x = graphc.randn(512, 512), graphc.randn(4096, 512)
    graph = captured(lambda: graphc.softmax(graphc.relu(x @ w) @ w, -1).sum(0))
    plain = [s.printed for s in launches(lower_plan(graph))]
    t = tuner(lambda made: sum(p.warps for p in made) - 0.1 * len(made))
    with tuning(t):
        tuned = [s.printed for s in launches(lower_plan(graph))]
    assert t.measured > 8 and len(tuned) >= len(plain)
    assert sum(p.warps for p in tuned) < sum(p.warps for p in plain)
    with tuning(t):
        n = t.measured
        again = [s.printed for s in launches(lower_plan(graph))]
    assert [p.symbol for p in again] == [p.symbol for p in tuned] and t.measured == n


def test_convolutions_are_tuned() -> None:
    """Forward, both gradients, sums in parts: every candidate is printed with memory for all it touches."""
    net, x = graphc.nn.Conv2d(16, 32, 3, padding=1, stride=2), graphc.randn(8, 16, 32, 32, requires_grad=True)
    graph = captured(lambda: graphc.autograd.grad((net(x).relu() ** 2).sum(), [x, net.weight]))
    plain = [s.printed for s in launches(lower_plan(graph)) if "tl.dot" in s.printed.source]
    t = tuner(lambda made: 1e6 / (block(made)["BX"] * block(made)["BY"]))
    with tuning(t):
        tuned = [s.printed for s in launches(lower_plan(graph)) if "tl.dot" in s.printed.source]
    assert len(plain) == len(tuned) == 3 and t.measured > 6
    area = [sum(dict(p.constants)["BX"] * dict(p.constants)["BY"] for p in made) for made in (plain, tuned)]
    assert area[1] > area[0]
    assert [k for k in t._known if "conv_weight_grad_last" in k] and [k for k in t._known if "conv_input_grad_last" in k]


def test_asking_for_measured_choices() -> None:
    assert not autotune.wanted()
    with autotune.wanting():
        with autotune.wanting():
            assert autotune.wanted()
        assert autotune.wanted()
    assert not autotune.wanted()
