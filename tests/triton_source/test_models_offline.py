"""Training steps of whole models as machine code for sm_80 and sm_90 (and partly gfx942), compiled without a device.

One table: launches, distinct kernels, registers, spills, shared memory, tensor cores, 16-byte loads, bytes moved. A model is
added by an entry of :data:`MODELS` (its graph) and of :data:`PINNED`.
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from offline import offline
from recorded_steps import captured, workload

import graphc
from graphc.codegen.triton.compiler import A100, H100, MI300, Target


@functools.cache
def resnet18_bf16() -> Any:
    """The ResNet-18 step under bfloat16 autocast."""
    from torchlike import MODELS as NETS

    net = NETS["resnet18"](graphc, {"width": 64})
    optimizer = graphc.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        with graphc.autocast("cpu", dtype=graphc.bfloat16):
            loss = graphc.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return captured(step, graphc.randn(32, 3, 32, 32), graphc.randint(0, 10, (32,)))


MODELS: dict[str, Callable[[], Any]] = {
    **{name: functools.partial(workload, name) for name in ("mlp", "lenet", "gpt", "gpt_sdpa", "lstm", "resnet18")},
    "resnet18_bf16": resnet18_bf16}
PINNED = {"mlp": (10, 10), "lenet": (30, 30), "gpt": (164, 49), "gpt_sdpa": (152, 47), "lstm": (24, 24), "resnet18": (189, 51),
          "resnet18_bf16": (191, 56)}  # at most so many launches and distinct kernels on sm_90, loops counted once


@pytest.mark.parametrize(("name", "target"), [(n, t) for n in MODELS for t in (A100, H100) if (n, t) != ("gpt_sdpa", A100)], ids=str)
@pytest.mark.usefixtures("triton_installed")
def test_step_as_machine_code(name: str, target: Target, capsys) -> None:
    """No host step, no spills, shared memory within the limit, products on tensor cores, streaming by 16 bytes."""
    made = offline(name, MODELS[name](), target)
    with capsys.disabled():
        print("\n" + "\n".join([made.head(), *made.lines()]))
    made.check()
    if target is H100:
        assert len(made.made) <= PINNED[name][0] and len(made.code) <= PINNED[name][1]


@pytest.mark.parametrize(("name", "only"), [("mlp", ""), ("resnet18", "conv")])
@pytest.mark.usefixtures("triton_installed")
def test_step_for_another_vendor(name: str, only: str) -> None:
    """The same source compiles for an AMD device."""
    made = offline(name, MODELS[name](), MI300, only)
    assert made.code
    made.check()


def test_resnet_moves_little() -> None:
    """Bytes of a ResNet-18 step (a buffer counted once a kernel) beside what its products and its state alone move: batch norm,
    activations, shortcuts, parts of sums and copies of weights cost about as much again."""
    from offline import least, total

    from graphc.codegen.triton.plan import Launch, lower_plan, prepared

    for name in ("resnet18", "resnet18_bf16"):
        graph, sched = prepared(MODELS[name](), H100)
        steps = lower_plan(graph, sched, H100)
        own = {k: n for s in steps if isinstance(s, Launch) for k, n in s.own.items()}
        assert total(steps, graph.slot_avals(), own) < 2.1 * least(graph), name
