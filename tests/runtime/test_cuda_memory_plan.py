"""The memory plan of GPU programs, by simulation: every launch of every program is walked in order over a map of which value
each byte holds. What is read must hold the value that is meant, whole; inputs are never written; results are complete at the
end. Nothing is compiled or run, so whole training steps and hundreds of random programs fit in a test.

Reads, writes and addresses come from the printed kernels and the linked launches, not from what the plan was made of.
"""
from __future__ import annotations

import itertools

import numpy as np
import programs
import pytest
from cuda_fake import FakeCuda
from programs_library import LIBRARY_STEPS, forgiving, grow_loop

from graphc.codegen.native.jobs import Cursor
from graphc.codegen.triton import plan
from graphc.codegen.triton.passes import gpu_passes
from graphc.ir.optable import OPS
from graphc.runtime.cuda import device as D
from graphc.runtime.cuda import driver, launch
from graphc.runtime.cuda.graph import Replay
from graphc.runtime.cuda.program import ARENA, FIRST, Program


class Compiled:
    """Stands for machine code of a printed kernel."""

    def __init__(self, symbol):
        self.symbol = self.entry = symbol
        self.code, self.warps, self.ctas, self.shared, self.scratch, self.scratch_align = b"FAKE", 4, 1, 0, 0, 1


@pytest.fixture
def build():
    fake = FakeCuda(total=1 << 36)
    driver.reset(lambda: fake)

    def compile(printed):
        for p in printed:
            fake.kernels[p.symbol] = ([*[a.type for a in p.args], "*i8", "*i8"], None)
        return {p.symbol: Compiled(p.symbol) for p in printed}

    yield lambda graph: Program(graph, D.get(), compile)
    driver.reset()


class Overwritten(AssertionError):
    """Some bytes hold another value than the one a step reads, or are written where they must not be."""


class Oracle:
    """Walks a program's launches; ``holds`` says for every byte of every memory the number of the value it holds, 0: none."""

    def __init__(self, program: Program):
        self.p = program
        self.ids: dict = {}
        self.given = FIRST + len(program.arrays)
        self.holds: dict[int, np.ndarray] = {ARENA: np.zeros(program.arena_bytes, np.int32)}
        for key, at in program.at.items():
            if at.number >= FIRST:
                self.holds[at.number] = np.zeros(self.size(key), np.int32)
                if at.number < self.given:
                    self.holds[at.number][:] = self.id(key)
        self.steps = 0
        self.shared = 0  # bytes of the arena that were written over another value: how much the plan saves

    def id(self, key) -> int:
        return self.ids.setdefault(key, len(self.ids) + 1)

    def size(self, key) -> int:
        return self.p.nbytes[key] if key in self.p.nbytes else self.p.avals[key].nbytes

    def range(self, key, where, t):
        """(value, memory, first byte, behind the last) of an argument; ``where``: the address in the linked launch."""
        cursor = key if isinstance(key, Cursor) else None
        name = cursor.key if cursor else key
        lo = where.offset
        start = self.p.at[name].offset + (cursor.start + t * cursor.step if cursor else 0)
        if where.number != self.p.at[name].number or lo != start:
            raise Overwritten(f"the launch points to {where}, {name} lies at {self.p.at[name]}, iteration {t}")
        return name, where.number, lo, lo + (abs(cursor.step) if cursor else self.size(name))

    def read(self, what) -> None:
        name, number, lo, hi = what
        if number not in self.holds:
            return  # scalars and the error word
        seen = self.holds[number][lo:hi]
        if seen.size != hi - lo or np.any(seen != self.id(name)):
            other = {v: k for k, v in self.ids.items()}
            raise Overwritten(f"step {self.steps} reads {name}, but finds {[other.get(int(v)) for v in np.unique(seen)]}")

    def write(self, what) -> None:
        name, number, lo, hi = what
        if FIRST <= number < self.given:
            raise Overwritten(f"step {self.steps} writes input {name}")
        if number == ARENA:
            before = self.holds[ARENA][lo:hi]
            self.shared += int(np.count_nonzero((before != 0) & (before != self.id(name))))
        if number in self.holds:
            if hi > self.holds[number].size:
                raise Overwritten(f"step {self.steps} writes {name} beyond its memory")
            self.holds[number][lo:hi] = self.id(name)

    def step(self, reads, writes) -> None:
        """All reads happen while all writes do."""
        self.steps += 1
        for r in reads:
            self.read(r)
        for (a, b) in itertools.product(reads, writes):
            if a[0] != b[0] and a[1] == b[1] and a[2] < b[3] and b[2] < a[3]:
                raise Overwritten(f"step {self.steps} reads {a[0]} while {b[0]} is written over it")
        for (a, b) in itertools.combinations(writes, 2):
            if a[0] != b[0] and a[1] == b[1] and a[2] < b[3] and b[2] < a[3]:
                raise Overwritten(f"step {self.steps} writes {a[0]} and {b[0]} to the same place")
        for w in writes:
            self.write(w)

    def whole(self, key):
        at = self.p.at[key]
        return key, at.number, at.offset, at.offset + self.size(key)

    def launch(self, s, made, t) -> None:
        """A kernel: pointers of its arguments, which of them it reads besides those it writes."""
        k = s.printed.kernel
        both = set() if k is None else {k.buffers[b].slot for b in set(k.reads) & set(k.writes)}
        reads, writes = [], []
        for a, where in zip(s.printed.args, made.values):
            if a.type[0] != "*" or a.value == "err":
                continue
            what = self.range(a.value, where, t)
            if what[0] in s.writes:
                writes.append(what)
            if what[0] not in s.writes or a.value in both:
                reads.append(what)
        self.step(reads, writes)

    def walk(self) -> Oracle:
        """The whole program."""
        made = iter([x for s in self.p.stretches for x in (s.launches.launches if isinstance(s, Replay) else [s])])
        stack = [(s, 0) for s in reversed(self.p.steps)]
        while stack:
            s, t = stack.pop()
            if isinstance(s, plan.Repeat):
                stack += [(inner, i) for i in reversed(range(s.length)) for inner in reversed(s.body)]
            elif isinstance(s, plan.Launch):
                if s.printed.programs():
                    self.launch(s, next(made), t)
            elif isinstance(s, plan.Copy):
                c = next(made)
                assert isinstance(c, launch.Copy) and c.nbytes == s.nbytes
                src, dst = self.range(s.src, c.src, t), self.range(s.dst, c.dst, t)
                self.step([(*src[:3], src[2] + s.nbytes)], [(*dst[:3], dst[2] + s.nbytes)])
            else:
                host = next(made)
                assert host is s
                node = s.node
                wrote = [node.slot + k for k in range(len(node.avals))]
                self.step([self.whole(self.p.base(x)) for x in node.ins if self.p.avals[x].size],
                          [self.whole(x) for x in wrote if x in self.p.at])
        assert next(made, None) is None, "launches that no step asked for"
        for slot in self.p.graph.outputs:
            self.read(self.whole(self.p.copied.get(slot, self.p.base(slot))))
        return self


def simulated(program: Program) -> Oracle:
    return Oracle(program).walk()


@pytest.mark.parametrize("start", range(60_000, 60_120, 30))
def test_random_programs(build, start: int) -> None:
    """Pointwise, reductions, movement, indexing; every second one with library calls."""
    steps = shared = 0
    for seed in range(start, start + 30):
        p = programs.grow(seed, nodes=(12, 30), steps=LIBRARY_STEPS) if seed % 2 else programs.grow(seed, nodes=(12, 30))
        try:
            o = simulated(build(gpu_passes(p.graph)))
        except Overwritten as error:
            pytest.fail(f"seed {seed}: {error}")
        steps, shared = steps + o.steps, shared + o.shared
    assert steps > 100 and shared > 1000, (steps, shared)


def test_random_loops(build) -> None:
    """Loops over time: carries, stacked inputs and results, their moving addresses."""
    repeats = 0
    for seed in range(40):
        program = build(gpu_passes(grow_loop(seed).graph))
        simulated(program)
        repeats += any(isinstance(s, plan.Repeat) for s in program.steps)
    assert repeats > 10


def test_programs_with_nothing_in_them(build, monkeypatch) -> None:
    monkeypatch.setattr(programs, "SIZES", (0, 0, 1, 2, 3, 5, 33))
    for seed in range(30):
        simulated(build(gpu_passes(programs.grow(seed, steps=forgiving(LIBRARY_STEPS)).graph)))


def test_every_row(build) -> None:
    """Each sample of each primitive and composite, two of them behind each other so that there is an arena."""
    from test_triton_rows import recorded

    from graphc.dtypes import float64

    seen = 0
    for name in OPS:
        for i in range(len(OPS[name].samples())):
            case = recorded(name, i, float64)
            if case is not None:
                try:
                    seen += simulated(build(gpu_passes(case[0]))).steps > 0
                except Overwritten as error:
                    pytest.fail(f"{name} {i}: {error}")
    assert seen > 150


@pytest.mark.parametrize("name", ["mlp", "lenet", "lstm", "gpt", "gpt_sdpa", "resnet18"])
def test_training_steps(build, name: str) -> None:
    """Forward, backward and optimizer as one program."""
    from recorded_steps import workload
    from workloads import WORKLOADS

    if name not in WORKLOADS:
        pytest.skip(f"the benchmark table has no {name}")
    program = build(workload(name, tiny=True)[0])
    o = simulated(program)
    assert o.steps >= 10 and o.shared > 0 and program.arena_bytes < sum(x.nbytes for x in program.lives)


def broken(program: Program, seed: int) -> bool:
    """Move one intermediate of the arena onto another that lives at the same time; False if there is no such pair."""
    r = np.random.default_rng(seed)
    lives = [x for x in program.lives if x.nbytes >= 64 and x.last > x.first]
    pairs = [(a, b) for a, b in itertools.permutations(lives, 2) if a.first < b.first <= a.last and b.nbytes <= a.nbytes]
    if not pairs:
        return False
    a, b = pairs[r.integers(len(pairs))]
    program.at[b.slot] = program.at[a.slot]
    program.link()
    return True


def test_the_oracle_finds_wrong_placements(build) -> None:
    """Values put where others still live are found in every program that has such a pair."""
    damaged = 0
    for seed in range(60_000, 60_150):
        program = build(gpu_passes(programs.grow(seed, nodes=(30, 50), steps=LIBRARY_STEPS).graph))
        if broken(program, seed):
            damaged += 1
            with pytest.raises(Overwritten):
                simulated(program)
    assert damaged > 10


def test_the_oracle_finds_steps_out_of_order(build) -> None:
    """A consumer before its producer; a launch that points elsewhere."""
    from recorded_steps import workload

    program = build(workload("mlp", tiny=True)[0])
    program.steps = program.steps[1:] + program.steps[:1]
    program.link()
    with pytest.raises(Overwritten):
        simulated(program)
    program = build(workload("mlp", tiny=True)[0])
    lists = program.stretches[0].launches.launches
    k = next(i for i, x in enumerate(lists) if isinstance(x, launch.Launch))
    values = tuple(v._replace(offset=v.offset + 64) if isinstance(v, launch.Pointer) else v for v in lists[k].values)
    lists[k] = launch.Launch(**{**lists[k].__dict__, "values": values})
    with pytest.raises(Overwritten):
        simulated(program)
