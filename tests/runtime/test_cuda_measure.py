"""Measured choices on the stand-in device: kernels run on memory of their own, its clock decides, plans use what won."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_fake import FakeCuda, array

from graphc.codegen.triton import autotune
from graphc.codegen.triton.compiler import Target
from graphc.dtypes import bfloat16
from graphc.errors import GraphcError
from graphc.runtime.cuda import device as D
from graphc.runtime.cuda import driver, measure
from graphc.runtime.cuda.program import Program, target_of


class Compiled:
    """Stands for machine code of a printed kernel."""

    def __init__(self, symbol):
        self.symbol = self.entry = symbol
        self.code, self.warps, self.ctas, self.shared, self.scratch, self.scratch_align = b"FAKE", 4, 1, 0, 384, 128


class Machine:
    """A driver whose kernels take a time that a rule gives them, and note what they were shown."""

    def __init__(self, rule):
        self.fake, self.rule, self.seen, self.compiled = FakeCuda(total=1 << 30), rule, [], []
        driver.reset(lambda: self.fake)

    def compile(self, printed):
        for p in printed:
            self.compiled.append(p)
            self.fake.kernels[p.symbol] = ([*[a.type for a in p.args], "*i8", "*i8"], self.kernel(p))
        return {p.symbol: Compiled(p.symbol) for p in printed}

    def kernel(self, p):
        def run(fake, grid, block, *args):
            assert grid[0] == p.programs()
            self.seen.append([array(v, 64, np.uint16) if a.type == "*bf16" else a.type for v, a in zip(args, p.args)])
            fake.clock += self.rule(p)
        return run


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setenv("GRAPHC_NO_CACHE", "1")
    yield lambda rule: Machine(rule)
    driver.reset()


def test_times_come_from_the_devices_clock(machine) -> None:
    """The median over the runs after the first; memory is filled with small numbers, indices with zeros."""
    from test_matmul import dense

    from graphc.codegen.triton.matmul import print_product

    times = iter([70.0, 5.0, 1.0, 2.0, 3.0, 9.0, 9.0, 9.0, 2.0, 3.0])
    m = machine(lambda p: next(times))
    p = dense((), 256, 256, 128)
    printed = print_product(p, bfloat16, ("a", "b", "c"), Target("cuda", 90))
    bench = measure.Bench(D.get(), m.compile, flush=1 << 12)
    memory = autotune.Memory({"a": 2 * 256 * 128, "b": 2 * 256 * 128, "c": 2 * 256 * 256})
    seconds = bench(printed, memory)
    assert 3e-3 <= seconds <= 4.1e-3 and len(m.seen) == 1 + measure.RUNS
    a, b, c = m.seen[0][:3]
    for raw in (a, b, c):
        values = (raw.astype(np.uint32) << 16).view(np.float32)
        assert np.all(np.abs(values) <= 1) and values.std() > 0.3
    assert not D.get().unchecked


def test_long_runs_are_repeated_less(machine) -> None:
    from test_matmul import dense

    from graphc.codegen.triton.matmul import print_product

    m = machine(lambda p: 100.0)
    bench = measure.Bench(D.get(), m.compile, flush=0)
    printed = print_product(dense((), 64, 64, 64), bfloat16, ("a", "b", "c"), Target("cuda", 90))
    assert bench(printed, autotune.Memory({"a": 8192, "b": 8192, "c": 8192})) == pytest.approx(0.1, rel=0.1) and len(m.seen) == 4


def test_a_candidate_that_computes_something_else_is_refused(machine) -> None:
    """Results are compared with the first candidate's; parts of sums are nobody's results, rounding is no difference."""
    from test_matmul import dense

    from graphc.codegen.triton.matmul import Tile, print_product

    p, target = dense((), 64, 64, 512), Target("cuda", 90)
    wrong: list = []

    def rule(printed):
        return 1.0

    m = machine(rule)
    plain = m.kernel

    def kernel(printed):
        run = plain(printed)

        def write(fake, grid, block, *args):
            run(fake, grid, block, *args)
            for value, a in zip(args, printed.args):
                if a.value == "c":
                    out = array(value, 64 * 64, np.uint16)
                    out[:] = np.full(64 * 64, 3.0, np.float32).view(np.uint32) >> 16
                    if wrong:
                        out[1000:1100] = wrong[0]
        return write

    m.kernel = kernel
    memory = autotune.Memory({"a": 1 << 16, "b": 1 << 16, "c": 8192, "parts": 1 << 16}, frozenset(("parts",)))
    made = [print_product(p, bfloat16, ("a", "b", "c"), target, tile=Tile(64, 64, 64, 4, 4, parts), partial="parts") for parts in (1, 2, 4)]
    bench = measure.Bench(D.get(), m.compile, flush=0)
    assert all(bench(x, memory) > 0 for x in made)
    wrong.append(np.float32(3.03).view(np.uint32) >> 16)
    assert bench(made[1], memory) > 0
    for value in (4.0, -3.0, np.inf, np.nan):
        wrong[0] = np.float32(value).view(np.uint32) >> 16
        with pytest.raises(GraphcError, match="computes something else"):
            bench(made[1], memory)
    assert bench(made[1], autotune.Memory(dict(memory.sizes), memory.scratch)) > 0, "another choice has another first candidate"


def test_filled_memory_of_any_size(machine) -> None:
    machine(lambda p: 0.0)
    bench = measure.Bench(D.get(), lambda p: {}, 0)
    for nbytes in (2, 256, (2 << 20) + 6, 5 << 20):
        raw = bench.filled(nbytes, "fp16")
        D.get().synchronize()
        values = array(raw.ptr, nbytes // 2, np.float16).astype(np.float32)
        assert np.all(np.abs(values) <= 1) and np.all(np.isfinite(values)) and (nbytes < 9 or values[-1] != 0)
    raw = bench.filled(512, "i64")
    D.get().synchronize()
    assert not array(raw.ptr, 64, np.int64).any()


def test_a_program_is_built_of_what_won(machine) -> None:
    """Only where the caller asked for it; the tuner of a device is one object."""
    from recorded_steps import captured

    import graphc

    a, b = graphc.randn(256, 512).bfloat16(), graphc.randn(512, 256).bfloat16()
    graph = captured(lambda: (a @ b).relu())
    usual = 0
    m = machine(lambda p: 4.0 if dict(p.constants).get("BX") == usual else 1.0)
    assert target_of(D.get()).arch >= 80
    plain = Program(graph, D.get(), m.compile)
    assert not m.seen
    usual = dict(plain.kernels()[0].printed.constants)["BX"]
    with autotune.wanting():
        tuned = Program(graph, D.get(), m.compile)
    n = len(m.seen)
    assert n >= (1 + measure.RUNS) * measure.tuner_of(D.get(), target_of(D.get())).measured > 0
    assert dict(tuned.kernels()[0].printed.constants)["BX"] != usual
    with autotune.wanting():
        Program(graph, D.get(), m.compile)
    assert len(m.seen) == n
