"""Whole GPU plans on the stand-in driver, their kernels run by Triton's interpreter: arena, arguments, graphs, host steps."""
from __future__ import annotations

import math

import numpy as np
import pytest
from cuda_fake import FakeCuda, array

import graphc
from graphc.codegen.loop_ir import Kernel
from graphc.codegen.triton import compiler, plan
from graphc.errors import IndexOutOfRangeError
from graphc.ir.interpret import run_graph
from graphc.ir.recorder import SCALAR
from graphc.runtime.cuda import buffer as B
from graphc.runtime.cuda import device as D
from graphc.runtime.cuda import driver
from graphc.runtime.cuda.allocator import check
from graphc.runtime.cuda.program import Program

WHY = compiler.reason()
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY or "-")
DTYPES = {"u8": np.uint8, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64, "u32": np.uint32, "fp16": np.float16,
          "bf16": np.uint16, "fp32": np.float32, "fp64": np.float64, "i1": np.uint8}


class Compiled:
    """Stands for machine code of a printed kernel."""

    def __init__(self, symbol):
        self.symbol = self.entry = symbol
        self.code, self.warps, self.ctas, self.shared, self.scratch, self.scratch_align = b"FAKE", 4, 1, 0, 0, 1


class Machine:
    """The stand-in driver whose kernels are interpreted on its memory. A kernel may see what lies behind its buffers in the
    same piece of memory, and only what it changes is written back."""

    def __init__(self, interpreter):
        self.it, self.fake = interpreter, FakeCuda(total=1 << 28)
        driver.reset(lambda: self.fake)
        self.limit = 0  # bytes a kernel is shown of each buffer and what follows it

    def compile(self, printed):
        for p in printed:
            types = [a.type for a in p.args]
            self.fake.kernels[p.symbol] = ([*types, "*i8", "*i8"], self.kernel(p, types))
        return {p.symbol: Compiled(p.symbol) for p in printed}

    def kernel(self, p, types):
        def run(fake, grid, block, *args):
            given, raw = [], {}
            for k, (value, t) in enumerate(zip(args, types)):
                if t[0] == "*":
                    start, n = next((q, n) for q, (_, n, _) in fake.memory.items() if q <= value < q + n)
                    dt = np.dtype(DTYPES[t[1:]])
                    n = min(start + n - value, self.limit) // dt.itemsize
                    raw[k] = array(value, n, dt)
                    given.append(raw[k].copy())
                else:
                    given.append(value)
            out = self.it.run(p.source, p.symbol, (grid[0],), given, types, dict(p.constants))
            for k, now in raw.items():
                changed = out[k].view(np.uint8) != given[k].view(np.uint8)
                now.view(np.uint8)[changed] = out[k].view(np.uint8)[changed]
        return run


def made(machine, graph, label="plan"):
    program = Program(graph, D.get(), machine.compile, label)
    machine.limit = max([*program.nbytes.values(), *[a.avals[0].nbytes for a in program.graph.inputs]])
    return program


@pytest.fixture(scope="module")
def interpreter():
    from interpreter import Interpreter

    it = Interpreter()
    yield it
    it.close()


@pytest.fixture
def machine(interpreter):
    yield Machine(interpreter)
    driver.reset()


def bind(graph, arrays):
    """Values as a program takes them: numbers for scalars, buffers for arrays."""
    out = []
    for leaf, a in zip(graph.inputs, arrays):
        a = np.asarray(a, leaf.avals[0].dtype.np)
        if leaf.op is SCALAR:
            out.append(a.item())
        else:
            out.append(B.empty(a.nbytes))
            B.from_host(out[-1], a)
    return out


def fetch(found):
    """A result as a NumPy array."""
    flat = np.empty(found.buffer.nbytes // found.dtype.itemsize, found.dtype)
    B.to_host(found.buffer, flat)
    return np.lib.stride_tricks.as_strided(flat, found.shape, [s * flat.itemsize for s in found.strides])


def same(got, graph, arrays):
    for g, w in zip(got, run_graph(graph, arrays)):
        w = np.asarray(w)
        assert g.shape == w.shape and g.dtype == w.dtype
        if w.dtype.kind == "c":
            np.testing.assert_allclose(g, w, rtol=2e-4, atol=2e-5)
        elif w.dtype.kind == "f" or w.dtype.name == "bfloat16":
            np.testing.assert_allclose(g.astype(np.float64), w.astype(np.float64), rtol=2e-4, atol=2e-5)
        else:
            assert np.array_equal(g, w)


def steps_of(name):
    from recorded_steps import workload

    return workload(name, tiny=True)


@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_training_steps_plain_and_replayed(machine, name):
    """Three calls: launched, captured and replayed; the same numbers each time, nothing left in memory."""
    graph, arrays = steps_of(name)
    program = made(machine, graph, name)
    assert program.to_text().count("\n") > 5 and program.arena_bytes > 0
    stream, outputs = D.current_stream(), []
    for turn in range(3):
        values = bind(program.graph, arrays)
        results = [fetch(r) for r in program(values, stream)]
        same(results, graph, arrays)
        outputs.append(results)
        del values
    for later in outputs[1:]:
        assert all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(outputs[0], later))
    replay = program.stretches[0]
    assert len(program.stretches) == 1 and replay.plain and replay.replayed, "the third call runs from a graph"
    check(D.get().memory)
    tags = {tag for _, _, tag in D.get().memory.holders()}
    assert not [t for t in tags if t.startswith("result")] and "intermediates of plans" in tags


def small(step, *tensors):
    from recorded_steps import captured

    return captured(step, *tensors, really=True)


def test_scalars_change_without_another_capture(machine):
    """The same graph with other learning rates and steps: numbers come from device memory."""
    p = graphc.nn.Parameter(graphc.randn(40, 8))
    p.grad = graphc.randn(40, 8)
    graph, arrays = small(graphc.optim.Adam([p], lr=1e-3).step)
    program = made(machine, graph, "adam")
    assert program.scalars and program.cells is not None
    values = bind(program.graph, arrays)
    kept = []
    for turn in range(4):
        changed = [a * (1 + turn) if k in program.scalars and np.asarray(a).dtype.kind == "f" else a for k, a in enumerate(arrays)]
        for k in program.scalars:
            values[k] = np.asarray(changed[k]).item()
        results = program(values, D.current_stream())
        same([fetch(r) for r in results], graph, changed)
        kept = results  # two sets of results alternate
    assert len(kept) and sum(s.captured for s in program.stretches) <= 2


def test_steps_for_the_host_between_launches(machine):
    x = graphc.randn(3, 4, 4)
    x = x @ x.mT + 4 * graphc.eye(4)

    def step(a):
        b = a * 2.0
        return graphc.linalg.cholesky(b[1]).exp() + 1.0, b[1], graphc.linalg.cholesky(a[2]), b

    graph, arrays = small(step, x)
    program = made(machine, graph)
    if not any(not hasattr(s, "run") for s in program.stretches):
        pytest.skip("every step of this program has a kernel now")
    for _ in range(2):
        same([fetch(r) for r in program(bind(program.graph, arrays), D.current_stream())], graph, arrays)
    assert "host: " in program.to_text()


def test_the_host_reads_strided_views_in_place(machine, monkeypatch):
    """As if there were no kernel for products: the host takes rows and transposes of buffers where they lie."""
    def all_on_host(graph, sched, target):
        return [plan.kernel_launch(x) if isinstance(x, Kernel) else plan.Host(x) for x in sched.steps]

    monkeypatch.setattr("graphc.runtime.cuda.program.lower_plan", all_on_host)
    graph, arrays = small(lambda a: ((a * 2.0)[1] @ a[2].T).exp() + a[0, :, :4], graphc.randn(3, 4, 5) / 4)
    program = made(machine, graph)
    assert any(ix.const for _, ix in program.sched.views.values()) and "host: contract" in program.to_text()
    same([fetch(r) for r in program(bind(program.graph, arrays), D.current_stream())], graph, arrays)


def test_results_that_are_views_inputs_and_empty(machine):
    x = graphc.arange(24).reshape(4, 6).to(graphc.float32)
    graph, arrays = small(lambda a: ((a * 2.0).T, a[1:3], (a + 1.0)[:0], a), x)
    program = made(machine, graph)
    values = bind(program.graph, arrays)
    same([fetch(r) for r in program(values, D.current_stream())], graph, arrays)


def test_index_errors_are_reported_with_the_line(machine):
    table, index = graphc.randn(10, 4), graphc.tensor([1, 3, 99])
    graph, arrays = small(lambda t, i: graphc.nn.functional.embedding(i, t) * 2.0, table, graphc.tensor([1, 3, 9]))
    program = made(machine, graph)
    assert program.checks
    same([fetch(r) for r in program(bind(program.graph, arrays), D.current_stream())], graph, arrays)
    wrong = [np.asarray(index.numpy()) if np.asarray(a).dtype == np.int64 and np.asarray(a).ndim else a for a in arrays]
    program(bind(program.graph, wrong), D.current_stream())  # does not wait for the device ...
    program(bind(program.graph, arrays), D.current_stream())
    with pytest.raises(IndexOutOfRangeError, match=r"index out of range in one of: .*test_cuda_plan\.py"):
        D.current_stream().synchronize()
        D.get().check_faults()  # ... which is looked at when somebody else does
    D.get().check_faults()
    same([fetch(r) for r in program(bind(program.graph, arrays), D.current_stream())], graph, arrays)


def test_streams_wait_for_each_other(machine):
    x = graphc.randn(64)
    graph, arrays = small(lambda a: (a * 3.0).sin().sum() + a, x)
    program = made(machine, graph)
    values, results = bind(program.graph, arrays), []
    for stream in (D.Stream(), D.Stream(), D.current_stream()):
        results.append(program(values, stream))
    for r in reversed(results):
        same([fetch(x) for x in r], graph, arrays)
    assert len(D.get().arenas) <= 3
    graphc.cuda.empty_cache()
    assert not D.get().arenas


def test_the_arena_is_as_large_as_what_lives_together(machine):
    graph, _ = steps_of("mlp")
    program = made(machine, graph)
    lives = program.lives
    most = max(sum(-(-x.nbytes // 64) * 64 for x in lives if x.first <= n <= x.last) for n in range(len(program.steps)))
    assert most <= program.arena_bytes <= 1.5 * most < sum(x.nbytes for x in lives) * 2 and math.isfinite(most)
