"""Channels last inside: convolution nets keep their meaning through the layout and statistics passes, and as kernels."""
from __future__ import annotations

import functools

import numpy as np
import pytest
from plan_run import run_plan
from recorded_steps import captured, workload

import graphc
import graphc.nn.functional as F
from graphc import nn
from graphc.codegen.triton.compiler import H100
from graphc.codegen.triton.layout import ROWS, channels_last, first_of, last_of
from graphc.codegen.triton.passes import split_for
from graphc.codegen.triton.plan import Launch, launches, lower_plan, prepared
from graphc.codegen.triton.statistics import in_runs
from graphc.ir.interpret import run_graph
from graphc.ir.optable import OPS


class Residual(nn.Module):
    """A ResNet in small: 7x7 stem with a stride, pooling, a block with groups and a strided shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.n0 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
        self.a, self.na = nn.Conv2d(8, 16, 3, 2, 1, groups=2, bias=False), nn.BatchNorm2d(16)
        self.b, self.nb = nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.s, self.ns = nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = F.avg_pool2d(F.relu(self.n0(self.stem(x))), 3, 1, 1)
        y = self.nb(self.b(F.relu(self.na(self.a(x)))))
        return self.head(F.relu(y + self.ns(self.s(x))).mean((2, 3)))


class Odd(nn.Module):
    """Odd channels, biases, a depthwise convolution, a join, another norm, dilation with a stride."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 5, 5, padding=2), nn.Conv2d(5, 5, 3, padding=1, groups=5)
        self.norm, self.c = nn.GroupNorm(2, 10), nn.Conv2d(10, 7, 3, 2, 2, dilation=2)
        self.head = nn.Linear(7 * 16, 5)

    def forward(self, x):
        x = F.gelu(self.a(x))
        x = self.norm(graphc.cat((x, F.silu(self.b(x))), 1))
        return self.head(F.avg_pool2d(F.hardswish(self.c(x)), 2, 1, 1)[:, :, :4, :4].flatten(1))


class Lines(nn.Module):
    """Convolutions of one and of three dimensions, and a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.line, self.n = nn.ConvTranspose2d(3, 4, 4, 2, 1), nn.Conv1d(4, 6, 5, padding=2), nn.BatchNorm1d(6)
        self.cube, self.head = nn.Conv3d(6, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x):
        x = F.tanh(self.up(x[:, :, :4, :4])).flatten(2)
        x = F.relu(self.n(self.line(x))).view(-1, 6, 4, 4, 4)
        return self.head(F.max_pool3d(self.cube(x), 2).mean((2, 3, 4)))


NETS = {"residual": (Residual, False), "odd": (Odd, False), "lines": (Lines, False), "residual_bf16": (Residual, True)}
TOL = {False: 2e-4, True: 4e-2}


@functools.cache
def step_of(name: str):
    """(graph, inputs) of a training step."""
    make, half = NETS[name]
    graphc.manual_seed(3)
    net = make()
    optimizer = graphc.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    x, y = graphc.randn(4, 3, 16, 16) if name.startswith("res") else graphc.randn(4, 3, 8, 8), graphc.randint(0, 5, (4,))

    def step(x, y):
        optimizer.zero_grad()
        with graphc.autocast("cpu", dtype=graphc.bfloat16, enabled=half):
            loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return captured(step, x, y, really=True)


def close(got, want, tol: float) -> None:
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape and g.dtype == w.dtype
        g, w = g.astype(np.float64), w.astype(np.float64)
        np.testing.assert_allclose(g, w, rtol=tol, atol=tol * max(1e-2, np.abs(w).max(initial=0)))


@pytest.mark.parametrize("name", sorted(NETS))
def test_passes_keep_the_meaning(name: str) -> None:
    """The NumPy interpreter gives the same before and after each pass."""
    graph, arrays = step_of(name)
    want = run_graph(graph, arrays)
    last = channels_last(graph)
    assert not any(n.op in (OPS["conv"], OPS["conv_input_grad"], OPS["conv_weight_grad"]) for n in last.nodes)
    close(run_graph(last, arrays), want, TOL[NETS[name][1]])
    close(run_graph(in_runs(last, H100), arrays), want, TOL[NETS[name][1]])
    close(run_graph(split_for(graph, H100), arrays), want, TOL[NETS[name][1]])


@pytest.mark.parametrize("name", sorted(NETS))
def test_steps_under_the_interpreter(name: str, interpreter) -> None:
    """The kernels of the whole step, nothing on the host."""
    graph, arrays = step_of(name)
    got, hosts = run_plan(interpreter, graph, arrays)
    assert not hosts
    close(got, run_graph(graph, arrays), TOL[NETS[name][1]])


@pytest.mark.parametrize("name", sorted(ROWS))
def test_rows(name: str) -> None:
    """A channels-last row is its row of the table between permutations."""
    base, row = OPS[name], ROWS[name]
    for (ins, attrs), (last, at) in zip(base.samples(), row.samples(), strict=True):
        assert at == attrs and all(a.shape == tuple(b.shape[d] for d in last_of(b.ndim)) for a, b in zip(last, ins))
        got, = (row.eval_np(at, *last),)
        np.testing.assert_array_equal(got.transpose(first_of(got.ndim)), base.eval_np(attrs, *[np.asarray(x) for x in ins]))


def test_layouts_are_chosen_by_neighbours() -> None:
    """Activations are never rearranged; a weight's update stays as the user laid the weight out."""
    graph = channels_last(workload("resnet18"))
    producer = graph.producer()
    moved = [producer[n.ins[0]].op.name for n in graph.nodes if n.op is OPS["permute"] and n.avals[0].size > 64 * 512]
    assert set(moved) <= {"leaf", "conv_weight_grad_last", "expand"}
    assert sum(m == "leaf" for m in moved) <= 21
    assert not any(producer[s].op is OPS["permute"] for s in graph.outputs)


def test_pooling_stays_channels_last() -> None:
    """Maxima and the positions the backward pass needs have channels last."""
    graph = channels_last(workload("lenet"))
    pooled = [n.avals[0].shape for n in graph.nodes if n.op in (OPS["argreduce"], OPS["reduce"]) and n.avals[0].ndim == 4]
    assert len(pooled) == 4 and all(s in ((64, 14, 14, 6), (64, 5, 5, 16)) for s in pooled)


def test_depthwise_convolutions_are_loop_code() -> None:
    """One channel a group: no product is padded to the width of a tensor core."""
    labels = [x.label for x in launches(lower_plan(step_of("odd")[0]))]
    assert sum(x.startswith("conv") for x in labels) == 5 and any("mul_reduce" in x for x in labels)


def test_a_program_without_convolutions_is_left_alone() -> None:
    graph = workload("mlp")
    assert channels_last(graph) is graph and in_runs(graph, H100) is graph


def test_statistics_are_printed_into_convolutions() -> None:
    """Every convolution of a ResNet sums its own tiles; every input gradient at stride 1 the sums its norm needs."""
    made = launches(lower_plan(workload("resnet18")))
    forward = [x for x in made if x.label.startswith("conv_reduce")]
    backward = [x for x in made if x.label.startswith("conv_input_grad") and "reduce" in x.label]
    assert len(forward) == 20 and len(backward) == 13


def test_variance_far_from_zero(interpreter) -> None:
    """Runs of rows keep the accuracy of two passes: values around 3000 with a deviation of 1."""
    eye = graphc.eye(16).view(16, 16, 1, 1)
    x = graphc.randn(4, 16, 16, 16) + 3000

    def f(x, w):
        y = F.conv2d(x, w)
        return y.var((0, 2, 3), unbiased=False), F.batch_norm(y, None, None, training=True).sum((0, 2, 3))

    graph, arrays = captured(lambda: [t.detach() for t in f(x, eye)], really=True)
    got, _ = run_plan(interpreter, graph, arrays)
    want = x.numpy().astype(np.float64).var((0, 2, 3))
    np.testing.assert_allclose(got[0], want, rtol=2e-3)


def test_nothing_is_stored_twice() -> None:
    """Between two convolutions of a ResNet's backward pass two images are written: the cotangent, and the one behind the norm."""
    graph, sched = prepared(workload("resnet18"), H100)
    avals = graph.slot_avals()
    image = 32 * 32 * 32 * 64
    for x in lower_plan(graph, sched):
        if isinstance(x, Launch):
            images = [k for k in x.writes if isinstance(k, int) and avals[k].size == image and avals[k].dtype is graphc.float32]
            assert len(images) <= 1, x.label
