"""Kernel counts and bytes moved of programs recorded through the public API. A change that fuses less fails here.

The figures are what is achieved: programs may come to need less, never more. Bytes are the schedule's estimate (every buffer a kernel touches read or written once), in units of the program's main
tensor, so 2.00 for an element-wise program: read once, written once.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import nn
from graphc.codegen import build_plan
from graphc.ir import recorder
from graphc.runtime import jit

R, C = 384, 320
U = R * C  # elements of the main tensor of row-wise programs


class Counted:
    """A plan that notes when it runs."""

    def __init__(self, plan: Any, ran: list[Any]):
        self.plan, self.ran, self.donors = plan, ran, plan.donors

    def __call__(self, *args: Any) -> list[Any]:
        self.ran.append(self.plan)
        return self.plan(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plan, name)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The plans that ran, oldest first."""
    if not jit.available():
        pytest.skip(jit.reason())
    ran: list[Any] = []
    recorder.flush()
    monkeypatch.setattr("graphc.ir.flush.PLANS", {})  # programs recorded before are new here
    monkeypatch.setattr(recorder._Trie, "root", recorder.Node(None, (), (), (), (), 0))
    recorder.state.region = recorder.Region()
    recorder.set_planner(lambda graph: Counted(build_plan(graph), ran))
    yield ran
    recorder.flush()
    recorder.set_planner(build_plan)
    monkeypatch.undo()
    recorder.state.region = recorder.Region()


def tensor(*shape: int, seed: int = 0, grad: bool = False) -> Any:
    """An evaluated tensor."""
    t = graphc.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))
    return t.requires_grad_(True) if grad else t


def done(*held: Any) -> None:
    """Evaluate what is recorded and held: ``held`` keeps results alive until then. (Reading with ``numpy()`` would make their
    memory visible outside, and later in-place steps would then have to happen at once.)"""
    recorder.flush()


def figures(ran: list[Any], unit: int) -> tuple[int, float]:
    """(kernels of all plans, bytes in units of ``unit`` float32 elements)."""
    programs = [p.run for p in ran if p.graph.outputs and any(n.op.kind not in ("leaf", "view") for n in p.graph.nodes)]
    assert programs and all(hasattr(p, "schedule") for p in programs), "the program did not run natively"
    return sum(len(p.kernels()) for p in programs), round(sum(p.bytes_moved() for p in programs) / (4 * unit), 2)


# ------------------------------------------------------------------------------------------------- functions and gradients
def forward(fn: Callable[[Any], Any]) -> Callable[[], None]:
    """A function of a matrix."""
    x = tensor(R, C)
    return lambda: done(fn(x))


def backward(fn: Callable[..., Any], *shapes: tuple[int, ...]) -> Callable[[], None]:
    """Gradients of sum(fn(x, ...) * g) by all operands."""
    params = [tensor(*shape, seed=k, grad=True) for k, shape in enumerate(shapes)]
    g = tensor(*shapes[0], seed=9)

    def run() -> None:
        for p in params:
            p.grad = None
        (fn(*params) * g).sum().backward()
        done()

    return run


def labels(rows: int, classes: int) -> Any:
    return graphc.tensor(np.random.default_rng(3).integers(0, classes, rows))


def loss_gradient() -> Callable[[], None]:
    x, t = tensor(R, C, grad=True), labels(R, C)

    def run() -> None:
        x.grad = None
        F.cross_entropy(x, t).backward()
        done()

    return run


def attention(q: Any, k: Any, v: Any) -> Any:
    """Softmax attention written by hand."""
    return F.softmax((q @ k.transpose(-1, -2)) * (q.shape[-1] ** -0.5), -1) @ v


def attention_forward() -> Callable[[], None]:
    q, k, v = [tensor(2, 4, 64, 32, seed=i) for i in range(3)]
    return lambda: done(attention(q, k, v))


def causal(q: Any, k: Any, v: Any) -> Any:
    """A mask of later positions, and dropout."""
    s = q @ k.transpose(-1, -2) / q.shape[-1] ** .5
    p = F.softmax(s.masked_fill(graphc.ones(s.shape[-2:]).tril() == 0, float("-inf")), -1)
    return F.dropout(p, .1, True) @ v


def alibi(q: Any, k: Any, v: Any) -> Any:
    """A bias that grows with the distance, a slope for each head; scores held below a cap."""
    at = graphc.arange(k.shape[-2], dtype=q.dtype)
    slopes = graphc.arange(1, 5, dtype=q.dtype).reshape(4, 1, 1) / 8
    s = q @ k.transpose(-1, -2) - slopes * (at - at.reshape(-1, 1)).abs()
    return F.softmax((s / 30).tanh() * 30, -1) @ v


def sdpa(q: Any, k: Any, v: Any) -> Any:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def heads(fn: Callable[..., Any]) -> Callable[[], Callable[[], None]]:
    """Forward and backward of attention, 2 x 4 heads of 64 x 32."""
    return lambda: backward(fn, *[(2, 4, 64, 32)] * 3)


def long_attention() -> Callable[[], None]:
    """4 MB of scores a head: parts of the queries."""
    q, k, v = [tensor(1, 3, 1024, 32, seed=i) for i in range(3)]
    return lambda: done(attention(q, k, v))


def norm(x: Any) -> Any:
    return F.layer_norm(x, (C,), tensor(C, seed=1), tensor(C, seed=2))


FUNCTIONS: dict[str, tuple[Callable[[], Callable[[], None]], int, int, float]] = {  # program, unit, kernels, bytes
    "softmax": (lambda: forward(lambda x: F.softmax(x, -1)), U, 1, 2.0),
    "softmax of columns": (lambda: forward(lambda x: F.softmax(x, 0)), U, 1, 2.0),
    "log-softmax": (lambda: forward(lambda x: F.log_softmax(x, -1)), U, 1, 2.0),
    "layer norm": (lambda: forward(norm), U, 1, 2.01),
    "RMS norm": (lambda: forward(lambda x: F.rms_norm(x, (C,), tensor(C, seed=1))), U, 1, 2.01),
    "GELU chain": (lambda: forward(lambda x: F.gelu(x * 2 + 1).tanh() * x), U, 1, 2.0),
    "dropout": (lambda: forward(lambda x: F.dropout(x, 0.5, True)), U, 1, 2.0),
    "dropout, residual, layer norm": (lambda: forward(lambda x: norm(x + F.dropout(x * 2, 0.1, True))), U, 1, 2.01),
    "cross entropy": (lambda: forward(lambda x: F.cross_entropy(x, labels(R, C))), U, 2, 1.02),
    "mean and variance": (lambda: forward(lambda x: (x.mean(-1), x.var(-1))), U, 1, 1.01),
    "sums over both axes": (lambda: forward(lambda x: (x.sum(0), x.sum(1))), U, 2, 2.01),
    "softmax backward": (lambda: backward(lambda x: F.softmax(x, -1), (R, C)), U, 1, 3.0),
    "layer norm backward": (lambda: backward(lambda x, w, b: F.layer_norm(x, (C,), w, b), (R, C), (C,), (C,)), U, 2, 7.01),
    "RMS norm backward": (lambda: backward(lambda x, w: F.rms_norm(x, (C,), w), (R, C), (C,)), U, 2, 5.01),
    "GELU backward": (lambda: backward(F.gelu, (R, C)), U, 1, 3.0),
    "dropout backward": (lambda: backward(lambda x: F.dropout(x, 0.3, True), (R, C)), U, 1, 2.0),
    "cross entropy backward": (loss_gradient, U, 2, 2.02),
    "attention by hand": (attention_forward, 2 * 4 * 64 * 64, 1, 2.0),
    "attention by hand backward": (heads(attention), 2 * 4 * 64 * 64, 1, 4.5),
    "causal attention with dropout": (heads(causal), 2 * 4 * 64 * 64, 1, 4.5),
    "attention with distances, capped": (heads(alibi), 2 * 4 * 64 * 64, 1, 4.51),
    "scaled_dot_product_attention": (heads(sdpa), 2 * 4 * 64 * 64, 1, 9.0),
    "attention of 1024 positions": (long_attention, 3 * 1024 * 1024, 2, .13),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str, plans: list[Any]) -> None:
    make, unit, kernels, moved = FUNCTIONS[name]
    run = make()
    done()
    plans.clear()
    run()
    got = figures(plans, unit)
    assert got <= (kernels, moved) and got[1] <= moved, got


# ---------------------------------------------------------------------------------------------------------- training steps
def measured(step: Callable[[], None], plans: list[Any], unit: int) -> tuple[int, float]:
    """Figures of the third run: the first makes the optimizer's state."""
    for _ in range(2):
        step()
    plans.clear()
    step()
    return figures(plans, unit)


@pytest.mark.parametrize("name,kwargs,arrays", [("SGD", {"lr": .1}, 3), ("SGD", {"lr": .1, "momentum": .9}, 5), ("Adam", {}, 7),
                                                ("AdamW", {"weight_decay": .1}, 7), ("RMSprop", {}, 5)])
def test_optimizer_step_is_one_kernel(name: str, kwargs: dict[str, Any], arrays: int, plans: list[Any]) -> None:
    """50 parameters of three shapes: one code for all; every array read or written once."""
    params = [nn.Parameter(tensor(60, 50 + k % 3 * 10, seed=k)) for k in range(50)]
    grads = [tensor(60, 50 + k % 3 * 10, seed=100 + k) for k in range(50)]
    optimizer = getattr(graphc.optim, name)(params, **kwargs)

    def step() -> None:
        for p, g in zip(params, grads):
            p.grad = g
        optimizer.step()
        done()

    kernels, moved = measured(step, plans, sum(p.numel() for p in params))
    assert kernels == 1 and moved <= arrays + .01, (kernels, moved)


def test_batch_norm(plans: list[Any]) -> None:
    """Output, running averages and all gradients of a training step."""
    layer, x, g = nn.BatchNorm2d(16), tensor(8, 16, 14, 14, grad=True), tensor(8, 16, 14, 14, seed=6)

    def run() -> None:
        for t in (x, layer.weight, layer.bias):
            t.grad = None
        (layer(x) * g).sum().backward()
        done()

    got = measured(run, plans, x.numel())
    assert got[0] <= 2 and got[1] <= 3.0, got


@pytest.mark.parametrize("compiled", [False, True])
def test_mlp_step(compiled: bool, plans: list[Any]) -> None:
    """784-64-10 with SGD: five products and what cannot join them."""
    model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = graphc.optim.SGD(model.parameters(), lr=.1)
    x, t = tensor(64, 784, seed=8), labels(64, 10)

    def body() -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        return loss

    run = graphc.compile(body) if compiled else body
    losses = []

    def step() -> None:
        losses.append(run().detach())
        done()

    got = measured(step, plans, x.numel())
    assert got[0] <= 13 and got[1] <= 8.0, got
    for _ in range(7):
        step()
    assert losses[-1].item() < losses[0].item()
