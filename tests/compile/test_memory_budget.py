"""Memory budgets: equal results, less memory; what explain() says about memory; checkpoints inside compiled steps."""
from __future__ import annotations

import copy
import pickle
import random

import pytest

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
from graphc import config
from graphc.ir import recorder
from graphc.ir.interpret import compile_numpy
from graphc.ir.marks import AFTER, TURN, with_turns, without_turns
from graphc.ir.passes import PASSES, run_passes
from graphc.ir.passes.recompute import Boundary, flops_of, heavy, peak_bytes
from graphc.utils.checkpoint import checkpoint

llvm = pytest.importorskip("llvmlite")


# ------------------------------------------------------------------------------------------------------------- programs
class Block(nn.Module):
    """Pre-norm residual block."""

    def __init__(self, width: int, drop: float = 0.0, attend: bool = False):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop, self.attend = drop, attend
        if attend:
            self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x):
        if self.attend:
            q, k, v = self.qkv(x).chunk(3, -1)
            x = x + F.softmax(q @ k.transpose(-2, -1) * 0.1, dim=-1) @ v
        return x + F.dropout(self.down(F.gelu(self.up(self.norm(x)))), self.drop, self.training)


def stack(depth: int, width: int, **options):
    graphc.manual_seed(0)
    return nn.Sequential(*[Block(width, **options) for _ in range(depth)])


def convnet():
    graphc.manual_seed(0)
    layers = []
    for k in range(4):
        layers += [nn.Conv2d(8 if k else 3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 12 * 12, 5))


def train(net, x, y, budget: float, steps: int = 3, make=None, **options):
    """(losses, parameters and buffers) after some compiled steps, and the compiled step."""
    opt = graphc.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)

    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x).flatten(1), y)
        loss.backward()
        opt.step()
        return loss.detach()

    graphc.manual_seed(7)
    run = graphc.compile(make(step) if make else step, memory_budget=budget, **options)
    losses = [run(x, y).item() for _ in range(steps)]
    return losses, [t.tolist() for t in (*net.parameters(), *net.buffers())], run


def data(rows: int, *shape: int, classes: int = 5):
    graphc.manual_seed(1)
    return graphc.randn(rows, *shape), graphc.randint(0, classes, (rows,))


# -------------------------------------------------------------------------------------------------- equal bits, less memory
@pytest.mark.parametrize("options", [{}, {"drop": 0.3}, {"attend": True}])
def test_equal_bits_and_less_memory(options) -> None:
    rows = (64, 8, 32) if "attend" in options else (512, 32)
    results, arenas = [], []
    for budget in (1.0, 0.3):
        losses, values, run = train(stack(4, 32, **options), *data(*rows), budget)
        results.append((losses, values))
        arenas.append(run.explain().memory.arena)
    assert results[1] == results[0]
    assert arenas[1] < 0.65 * arenas[0]


def test_convolutions_and_batch_norm() -> None:
    x, y = data(32, 3, 12, 12)
    plain, less = [train(convnet(), x, y, b) for b in (1.0, 0.4)]
    assert less[2].explain().memory.arena < 0.8 * plain[2].explain().memory.arena
    for a, b in zip(plain[1], less[1]):  # statistics may be summed in another order
        graphc.testing.assert_close(graphc.tensor(a), graphc.tensor(b), rtol=1e-3, atol=1e-5)


def test_memory_falls_as_the_budget_does() -> None:
    arenas = [train(stack(5, 32), *data(512, 32), b, 1)[2].explain().memory.arena for b in (1.0, 0.7, 0.4, 0.0)]
    assert arenas == sorted(arenas, reverse=True) and arenas[-1] < 0.5 * arenas[0]


def test_cheap_values_are_recomputed_before_products() -> None:
    memory = train(stack(4, 32), *data(512, 32), 0.8, 1)[2].explain().memory
    assert memory.flops == 0 and 0 < memory.kept < memory.kept_before and memory.recomputed > 0
    memory = train(stack(4, 32), *data(512, 32), 0.1, 1)[2].explain().memory
    assert memory.flops > 0


def test_nothing_is_done_where_it_would_not_help() -> None:
    net = nn.Linear(64, 5)
    memory = train(net, *data(16, 64), 0.1, 1)[2].explain().memory
    assert memory.recomputed == memory.flops == 0 and memory.kept == memory.kept_before


# ------------------------------------------------------------------------------------------------------------ the option
def test_spellings_and_values() -> None:
    x = graphc.randn(4, 4)
    for f in (graphc.compile(lambda x: x * 2, memory_budget=0.5), graphc.compile(lambda x: x * 2, options={"memory_budget": 0.5}),
              graphc.compile(memory_budget=0.5)(lambda x: x * 2)):
        assert f._memory == 0.5 and f(x).tolist() == (x * 2).tolist()
        assert recorder.state.budget == 1.0
    assert graphc.compile(lambda x: x)._memory == 1.0
    for bad in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            graphc.compile(lambda x: x, memory_budget=bad)


def doubled(x):
    return x * 2


def test_copies_keep_the_budget() -> None:
    run = graphc.compile(doubled, memory_budget=0.25)
    assert pickle.loads(pickle.dumps(run))._memory == 0.25
    class Trainer:
        def step(self):
            return 1

    assert copy.deepcopy(graphc.compile(Trainer().step, memory_budget=0.25))._memory == 0.25


def test_the_same_program_under_two_budgets_has_two_plans() -> None:
    net = stack(4, 32)
    x, y = data(512, 32)

    def step(x, y):
        for p in net.parameters():
            p.grad = None
        F.cross_entropy(net(x), y).backward()
        return [p.grad for p in net.parameters()]

    runs = [graphc.compile(step, memory_budget=b) for b in (1.0, 0.3)]
    got = [[[g.tolist() for g in run(x, y)] for run in runs] for _ in range(2)]
    assert got[0][0] == got[0][1] == got[1][0] == got[1][1]
    infos = [run.explain() for run in runs]
    assert infos[1].memory.arena < 0.7 * infos[0].memory.arena


def test_an_error_inside_leaves_the_budget_off() -> None:
    @graphc.compile(memory_budget=0.5)
    def f(x):
        raise KeyError(x)

    with pytest.raises(KeyError):
        f(graphc.ones(2))
    assert recorder.state.budget == 1.0 and recorder.state.walks == 0


@pytest.mark.parametrize("mode", [None, "replay"])
def test_replayed_steps_use_the_plan(mode) -> None:
    results = []
    for budget in (1.0, 0.3):
        losses, values, run = train(stack(4, 32), *data(512, 32), budget, 12, mode=mode)
        results.append((losses, values))
        assert mode is None or run.explain().replayed > 0
        assert run.explain().memory.recomputed > 0 or budget == 1.0
    assert results[0] == results[1]


# ------------------------------------------------------------------------------------------------------- other programs
def same_under_budgets(make, exact: bool = True, budgets=(1.0, 0.3)) -> list[int]:
    """``make()`` gives a function without arguments that returns tensors; equal results under budgets; the arenas."""
    arenas, want = [], None
    for budget in budgets:
        graphc.manual_seed(3)
        run = graphc.compile(make(), memory_budget=budget)
        got = [t.detach() for t in run()]
        want = want or got
        for a, b in zip(want, got):
            if exact:
                assert a.tolist() == b.tolist()
            else:
                graphc.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        memory = run.explain().memory
        arenas.append(memory.arena)
    return arenas


def test_gradient_accumulation_in_one_call() -> None:
    def make():
        net, (x, y) = stack(4, 32), data(1024, 32)

        def run():
            total = 0
            for part in range(2):
                loss = F.cross_entropy(net(x[part * 512:part * 512 + 512]), y[part * 512:part * 512 + 512]) / 2
                loss.backward()
                total = total + loss.detach()
            return total, *[p.grad for p in net.parameters()]

        return run

    arenas = same_under_budgets(make)
    assert arenas[1] < 0.75 * arenas[0]


def test_two_losses_over_one_trunk() -> None:
    def make():
        net, (x, y) = stack(4, 32), data(512, 32)

        def run():
            h = net(x)
            a, b = F.cross_entropy(h[:, :16], y), (h[:, 16:] ** 2).mean()
            a.backward(retain_graph=True)
            b.backward()
            return a, b, *[p.grad for p in net.parameters()]

        return run

    same_under_budgets(make)


def test_gradient_penalty() -> None:
    def make():
        net, (x, _) = stack(3, 16), data(256, 16)

        def run():
            z = x.detach().requires_grad_()
            (g,) = graphc.autograd.grad(net(z).sum(), z, create_graph=True)
            loss = net(x).pow(2).mean() + (g.norm(dim=1) - 1).pow(2).mean()
            loss.backward()
            return loss, *[p.grad for p in net.parameters()]

        return run

    same_under_budgets(make, exact=False)


def test_transforms() -> None:
    def make():
        net, (x, y) = stack(4, 32), data(512, 32)
        params = {k: v.detach() for k, v in net.named_parameters()}

        def loss(p):
            return F.cross_entropy(graphc.func.functional_call(net, p, (x,)), y)

        return lambda: list(graphc.func.grad(loss)(params).values())

    same_under_budgets(make)


def test_writes_after_a_value_was_kept() -> None:
    def make():
        w = graphc.randn(64, 64).requires_grad_()
        buffer, x = graphc.zeros(512, 64), graphc.randn(512, 64)

        def run():
            h = x
            for _ in range(6):
                h = graphc.tanh(h @ w)
                buffer.copy_(h.detach())
                h = F.gelu(h * 2) + buffer
                buffer.mul_(0.5)
            x.add_(1.0)  # an input that copies would read again
            loss = h.pow(2).mean()
            loss.backward()
            x.mul_(2.0)
            return loss, w.grad, buffer.clone(), x.clone()

        return run

    arenas = same_under_budgets(make)
    assert arenas[1] < arenas[0]


def test_a_read_between_the_passes_splits_the_program() -> None:
    def make():
        net, (x, y) = stack(3, 32), data(512, 32)

        def run():
            loss = F.cross_entropy(net(x), y)
            if loss.item() > 1e9:
                raise ValueError
            loss.backward()
            return [p.grad for p in net.parameters()]

        return run

    with pytest.warns(graphc.compile.__globals__["PerformanceNote"]):
        same_under_budgets(make)


def test_hooks_and_custom_functions() -> None:
    class Scale(graphc.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x.sigmoid()

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            s = x.sigmoid()
            return g * (s + x * s * (1 - s))

    def make():
        w = graphc.randn(6, 32, 32).requires_grad_()
        x = graphc.randn(512, 32)

        def run():
            h = x
            for k in range(6):
                h = Scale.apply(h @ w[k])
                h.register_hook(lambda g: g * 0.5)
            h.sum().backward()
            return h, w.grad

        return run

    arenas = same_under_budgets(make)
    assert arenas[1] < arenas[0]


def test_autocast_step() -> None:
    def make():
        net, (x, y) = stack(5, 32), data(512, 32)

        def run():
            with graphc.autocast("cpu", dtype=graphc.bfloat16):
                loss = F.cross_entropy(net(x).float(), y)
            loss.backward()
            return loss, *[p.grad for p in net.parameters()]

        return run

    arenas = same_under_budgets(make)
    assert arenas[1] < arenas[0]


def random_program(seed: int):
    """A net of random layers over [rows, width], with skips and shared values."""
    rng = random.Random(seed)
    rows, width = rng.choice([(96, 24), (257, 16), (64, 40)])
    kinds = [rng.choice(["linear", "gelu", "norm", "skip", "gate", "dropout", "softmax", "mask", "cumsum", "sort", "cat", "sin"])
             for _ in range(rng.randint(4, 14))]

    def make():
        w = graphc.randn(len(kinds), width, width).mul_(width ** -0.5).requires_grad_()
        x = graphc.randn(rows, width).requires_grad_()

        def run():
            h, seen = x, [x]
            for k, kind in enumerate(kinds):
                h = {"linear": lambda h: h @ w[k], "gelu": F.gelu, "norm": lambda h: F.layer_norm(h, (width,)),
                     "skip": lambda h: h + seen[len(seen) // 2], "gate": lambda h: h * (h @ w[k]).sigmoid(),
                     "dropout": lambda h: F.dropout(h, 0.2), "softmax": lambda h: F.softmax(h, -1) * h,
                     "mask": lambda h: h.masked_fill(h > 1, 0.1), "cumsum": lambda h: h.cumsum(0) * 0.1,
                     "sort": lambda h: h.sort(-1)[0] + h, "cat": lambda h: graphc.cat([h[:, ::2], h[:, 1::2] * 2], 1),
                     "sin": lambda h: h.sin() + h.cos()}[kind](h)
                seen.append(h)
            loss = (h * h).mean() + seen[1].mean()
            loss.backward()
            return [t for t in (loss, w.grad, x.grad) if t is not None]

        return run

    return make


@pytest.mark.parametrize("seed", range(8))
def test_random_programs(seed: int) -> None:
    same_under_budgets(random_program(seed), exact=False, budgets=(1.0, 0.4, 0.0))


# ------------------------------------------------------------------------------------------------------------- the pass
def recorded(fn, budget: float = 1.0):
    """The graph of a program's only plan."""
    graphc.manual_seed(0)
    run = graphc.compile(fn, memory_budget=budget)
    run()
    return run.explain().plan.recorded


def deep():
    net, (x, y) = stack(4, 32), data(512, 32)

    def run():
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        return [p.grad for p in net.parameters()]

    return run


def test_marks_lie_where_the_backward_pass_is() -> None:
    graph = with_turns(recorded(deep()))
    assert [n.attrs[0] for n in graph.nodes if n.op is TURN] == [1, 2]
    for p in PASSES:
        graph = p(graph)
    graph, walks = without_turns(graph)
    ((start, stop),) = walks
    assert 0 < start < stop <= len(graph.nodes) and not any(n.op is TURN for n in graph.nodes)
    at = Boundary(graph, start, [])
    kept = 4 * (512 * 32 * 4) * (1 + 1 + 4 + 4)  # of each block: its input, normalised, before and after gelu
    assert kept <= at.kept_before <= 1.35 * kept


def test_copies_wait_for_a_library_call_of_the_backward_pass() -> None:
    graph = recorded(deep(), 0.2)
    assert graph.budget == 0.2
    out = run_passes(graph)
    place = [i for i, n in enumerate(out.nodes) for _ in n.avals]
    waits = [n for n in out.nodes if n.op is AFTER]
    assert waits and all(heavy(out.nodes[place[n.ins[1]]]) for n in waits)
    plain = recorded(deep())
    assert not any(n.op is AFTER for n in run_passes(plain).nodes)
    assert peak_bytes(out) < 0.6 * peak_bytes(run_passes(plain))
    assert [n.attrs for n in out.inputs] == [n.attrs for n in plain.inputs]


def test_the_interpreter_runs_the_same_program(monkeypatch) -> None:
    monkeypatch.setattr(config, "BACKEND", "numpy")
    same_under_budgets(deep, exact=False)  # a product's bits depend on how its operands lie in memory
    graph = recorded(deep(), 0.0)
    assert callable(compile_numpy(run_passes(graph)))


def test_plans_of_a_device_recompute_too() -> None:
    from graphc.codegen.devices import split
    from graphc.codegen.triton.passes import gpu_passes

    graph = recorded(deep(), 0.2)
    (part,) = split(graph).parts
    assert part.graph.budget == 0.2
    out = gpu_passes(part.graph)
    assert any(n.op is AFTER for n in out.nodes) and part.graph.figures.kept < 0.5 * part.graph.figures.kept_before
    assert peak_bytes(out) < 0.6 * peak_bytes(gpu_passes(recorded(deep())))


def test_the_verifier_accepts_it(monkeypatch) -> None:
    monkeypatch.setattr(config, "VERIFY", 2)
    net = stack(3, 24, attend=True)
    train(net, *data(33, 5, 24), 0.2, 1)


def test_flops() -> None:
    a, b = graphc.randn(64, 70), graphc.randn(70, 80)
    x, k = graphc.randn(2, 3, 20, 20), graphc.randn(8, 3, 5, 5)

    def run():
        return a @ b, F.conv2d(x, k)

    found = sorted(f for n in run_passes(recorded(run)).nodes if (f := flops_of(n)))
    assert found == sorted([2 * 64 * 70 * 80, 2 * (2 * 8 * 16 * 16) * 3 * 25])


# ----------------------------------------------------------------------------------------------------------- checkpoints
@pytest.mark.parametrize("budget", [1.0, 0.5])
def test_checkpoints_lower_the_peak_of_a_compiled_step(budget: float) -> None:
    got, arenas = [], []
    for checkpointed in (False, True):
        net, (x, y) = stack(6, 32), data(512, 32)
        call = (lambda b, h: checkpoint(b, h, use_reentrant=False)) if checkpointed else (lambda b, h: b(h))

        def run(net=net, x=x, y=y, call=call):
            h = x
            for block in net:
                h = call(block, h)
            loss = F.cross_entropy(h, y)
            loss.backward()
            return loss, *[p.grad for p in net.parameters()]

        f = graphc.compile(run, memory_budget=budget if checkpointed else 1.0)
        got.append([t.detach() for t in f()])
        arenas.append(f.explain().memory.arena)
    for a, b in zip(*got):  # sums are made again, in kernels of their own
        graphc.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    assert arenas[1] < 0.5 * arenas[0]


# --------------------------------------------------------------------------------------------------------------- explain
def test_figures() -> None:
    x, w = graphc.randn(128, 64), graphc.randn(64, 64).requires_grad_()

    @graphc.compile
    def f(x):
        h = (x @ w).tanh()
        loss = (h @ w).exp().sum()
        loss.backward()
        return loss

    assert f.explain().memory is None
    f(x)
    m = f.explain().memory
    assert m.inputs == (128 * 64 + 64 * 64) * 4
    assert m.results == (64 * 64 + 1) * 4 and m.reused == 0
    assert m.kept_before == m.kept and 128 * 64 * 4 <= m.kept <= 3 * 128 * 64 * 4 and m.recomputed == 0
    assert m.peak == m.inputs + m.results + m.arena and m.arena >= 2 * 128 * 64 * 4
    assert sum(a.nbytes for a in m.alive) <= m.arena
    assert any("f32[128,64]" in a.what and "test_memory_budget.py" in a.where for a in m.alive)
    text = str(f.explain())
    assert "at once: inputs 0.05 MiB" in text and "kept for backward: " in text and "test_memory_budget.py" in text


def test_figures_of_a_budget() -> None:
    _, _, run = train(stack(4, 32), *data(512, 32), 0.4)
    m = run.explain().memory
    assert m.kept < 0.6 * m.kept_before and m.recomputed > m.kept_before - m.kept
    assert m.reused > 0 and "computed again" in str(m)


def test_small_programs_have_figures_too() -> None:
    f = graphc.compile(lambda x: (x + 1).sum())
    f(graphc.ones(3))
    m = f.explain().memory
    assert (m.inputs, m.results, m.arena, m.kept_before, m.alive) == (12, 4, 0, 0, [])
