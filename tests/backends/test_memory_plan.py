"""The memory plan: placements by simulation, plans run with poisoned memory, and the switch that turns it off."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import harness
import numpy as np
import poison
import programs
import pytest

import graphc
import graphc.nn.functional as F
from graphc import config, nn
from graphc.codegen import build_plan
from graphc.codegen.memory import ALIGN, Life, check, plan
from graphc.codegen.native import program
from graphc.codegen.verify import verify_schedule
from graphc.dtypes import float32
from graphc.errors import VerifyError
from graphc.ir import flush as flushing
from graphc.ir import recorder
from graphc.ir.node import Graph
from graphc.runtime import jit


@pytest.fixture(autouse=True)
def _native() -> None:
    if not jit.available():
        pytest.skip(jit.reason())


# -------------------------------------------------------------------------------------------------------------- placement
def random_lives(seed: int) -> list[Life]:
    r = np.random.default_rng(seed)
    waves = int(r.integers(1, 30))
    out = []
    for slot in range(int(r.integers(1, 60))):
        first = int(r.integers(waves))
        out.append(Life(slot, int(r.choice([0, 1, 63, 64, 65, 1000, 4096, 100_000])), first, int(r.integers(first, waves))))
    return out


def peak(lives: list[Life]) -> int:
    """Bytes alive at once, in whole lines: no placement needs less."""
    return max(sum(max(ALIGN, -(-x.nbytes // ALIGN) * ALIGN) for x in lives if x.first <= w <= x.last)
               for w in range(max(x.last for x in lives) + 1))


def test_placements_never_overlap() -> None:
    waste = []
    for seed in range(300):
        lives = random_lives(seed)
        offsets, top = plan(lives)
        assert all(o % ALIGN == 0 and o + x.nbytes <= top for x in lives for o in [offsets[x.slot]])
        check(lives, offsets)
        for i, a in enumerate(lives):  # pair by pair, without the clock of check()
            for b in lives[i + 1:]:
                if a.first <= b.last and b.first <= a.last and a.nbytes and b.nbytes:
                    x, y = offsets[a.slot], offsets[b.slot]
                    assert x + a.nbytes <= y or y + b.nbytes <= x, (seed, a, b)
        assert peak(lives) <= top
        waste.append(top / peak(lives))
    assert np.mean(waste) < 1.03 and max(waste) < 1.5, (np.mean(waste), max(waste))


def test_the_check_finds_overlaps() -> None:
    """Every pair of simultaneously live buffers put on the same place is found."""
    found = 0
    for seed in range(100):
        lives = [x for x in random_lives(seed) if x.nbytes]
        offsets, _ = plan(lives)
        for a, b in zip(lives, lives[1:]):
            if a.first <= b.last and b.first <= a.last and a.slot != b.slot:
                found += 1
                with pytest.raises(VerifyError, match="overwritten"):
                    check(lives, {**offsets, b.slot: offsets[a.slot]})
    assert found > 300


def test_without_the_plan_every_buffer_has_its_own() -> None:
    config.NO_MEMPLAN = True
    for seed in range(20):
        lives = random_lives(seed)
        offsets, top = plan(lives)
        assert top == sum(max(ALIGN, -(-x.nbytes // ALIGN) * ALIGN) for x in lives)
        assert len(set(offsets.values())) == len(lives)


# ------------------------------------------------------------------------------------------------------- random programs
@pytest.mark.parametrize("start", range(50_000, 50_160, 40))
def test_random_programs_in_poisoned_memory(start: int) -> None:
    poisoned = donated = pairs = 0
    for seed in range(start, start + 40):
        p = programs.grow(seed, nodes=(12, 30))
        bindings = harness.bindings_of(p.graph, p.arrays)
        native = harness.native(p.graph)
        want = native(bindings)
        try:
            run = poison.Poisoner(native)
            harness.same_bits(want, run(bindings), "poisoned memory")
            poisoned += run.filled
            pairs += poison.check_waves(native)
            if native.donors:
                donated += 1
                again = harness.bindings_of(p.graph, [np.array(a) for a in p.arrays])
                harness.same_bits(want, poison.Poisoner(native)(again, native.donors), "inputs given away")
            config.NO_MEMPLAN = True
            apart = harness.native(p.graph)
            assert apart.arena_bytes >= native.arena_bytes
            harness.same_bits(want, apart(bindings), "GRAPHC_NO_MEMPLAN")
        except AssertionError as error:
            pytest.fail(f"seed {seed}: {error}\n{harness.describe(p.graph)}")
        finally:
            config.NO_MEMPLAN = False
    assert poisoned > 10_000 and pairs > 20 and donated > 2, (poisoned, pairs, donated)


# --------------------------------------------------------------------------------------------------------------- the oracle
def chain() -> tuple[Graph, list[Any]]:
    """Column sums and row sums in turn: intermediates that cannot be fused away."""
    g = programs.Grower(3, (60, 70), (float32,))
    x = g.leaf((60, 70), float32)
    for k in range(4):
        s = g.emit("reduce", (x,), ("max", (k % 2,)))
        keep = (1, 70) if k % 2 == 0 else (60, 1)
        x = g.emit("tanh", (g.emit("sub", (x, g.emit("reshape", (s,), (keep,)))),))
    return g.b.graph((x,)), g.arrays


def test_the_oracle_finds_a_wrong_placement() -> None:
    """Two intermediates put on one place: the static check or the poisoned run tells."""
    graph, arrays = chain()
    bindings = harness.bindings_of(graph, arrays)
    good = program.Program(graph)
    assert len(good.lives) >= 2
    want = good(bindings)
    harness.same_bits(want, poison.Poisoner(good)(bindings), "as planned")
    bad = program.Program(graph)
    lives = poison.alive(bad)
    (a, _), *_ = sorted(lives.items(), key=lambda t: t[1])
    for b in lives:
        if b != a and lives[b][0] <= lives[a][1] and lives[a][0] <= lives[b][1]:
            bad.offsets[b] = bad.offsets[a]
            break
    else:
        pytest.fail("no two intermediates are alive together")
    bad.link()
    with pytest.raises(AssertionError):
        harness.same_bits(want, poison.Poisoner(bad)(bindings), "misplaced")


def test_the_oracle_finds_a_life_cut_short() -> None:
    """A buffer whose last reader the plan forgot is reused too early."""
    graph, arrays = chain()
    bindings = harness.bindings_of(graph, arrays)
    want = program.Program(graph)(bindings)
    noticed = 0
    for n in range(len(program.Program(graph).lives)):
        bad = program.Program(graph)
        lives = list(bad.lives)
        if lives[n].first == lives[n].last:
            continue
        lives[n] = lives[n]._replace(last=lives[n].first)
        offsets, _ = plan(lives)
        if all(offsets[k] == bad.offsets[k] for k in offsets):
            continue
        bad.offsets = offsets
        bad.link()
        try:
            harness.same_bits(want, poison.Poisoner(bad)(bindings), "cut short")
        except AssertionError:
            noticed += 1
    assert noticed


def test_pieces_of_a_result_never_overwrite_inputs() -> None:
    """A concatenation stored piece by piece while its would-be donor is still read by others."""
    g = programs.Grower(0, (3,), (float32,))
    n = 1000
    x = g.leaf((2 * n,), float32, np.arange(2 * n, dtype=np.float32) / n)
    y = g.leaf((n,), float32, np.zeros(n, np.float32))
    early = g.emit("exp", (y,))
    s = g.emit("reduce", (g.emit("slice", (x,), ((0,), (n - 100,), (1,))),), ("add", (0,)))
    late = g.emit("mul", (g.emit("slice", (x,), ((n,), (2 * n,), (1,))), s))
    graph = g.b.graph((g.emit("concat", (early, late), (0,)),))
    native = harness.native(graph)
    want = native(harness.bindings_of(graph, g.arrays))
    poison.check_waves(native, native.donors)
    got = native(harness.bindings_of(graph, [a.copy() for a in g.arrays]), native.donors)
    harness.same_bits(want, got, "input given away")


# ------------------------------------------------------------------------------------------------------------ real programs
class Watched:
    """A plan that always runs in poisoned memory."""

    def __init__(self, inner: Any, seen: list[int]):
        self.inner, self.donors, self.seen = inner, inner.donors, seen

    def __call__(self, bindings: list[Any], free: Any = ()) -> list[Any]:
        run = self.inner.run
        if not isinstance(run, program.Program):
            return self.inner(bindings, free)
        verify_schedule(run.graph, run.schedule)
        p = poison.Poisoner(run)
        out = p(bindings, free)
        self.seen.append(p.filled)
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.fixture
def fresh_recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs recorded elsewhere are new here, and those of this test are forgotten."""
    recorder.flush()
    with monkeypatch.context() as patch:
        patch.setattr("graphc.ir.flush.PLANS", {})
        patch.setattr(recorder._Trie, "root", recorder.Node(None, (), (), (), (), 0))
        recorder.state.region = recorder.Region()
        yield
        recorder.flush()
    recorder.set_planner(build_plan)
    recorder.state.region = recorder.Region()


def data(*shape: int, seed: int = 0) -> Any:
    return graphc.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def labels(n: int, classes: int) -> Any:
    return graphc.tensor(np.random.default_rng(7).integers(0, classes, n))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(24, 32, batch_first=True), nn.Linear(32, 5)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x)[0][:, -1])


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 32)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Any) -> Any:
        return self.head(self.block(self.embed(x)).mean(1))


def lenet() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
                         nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16 * 5 * 5, 5))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(200, 96), nn.GELU(), nn.LayerNorm(96), nn.Dropout(0.2), nn.Linear(96, 5))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "mlp": (mlp, lambda: data(40, 200)), "lenet": (lenet, lambda: data(6, 1, 28, 28)),
    "lstm": (Recurrent, lambda: data(8, 11, 24)),
    "transformer": (Attending, lambda: graphc.tensor(np.random.default_rng(5).integers(0, 40, (6, 16))))}


def train(name: str, steps: int) -> list[np.ndarray]:
    """Losses and parameters of a few steps from fixed seeds."""
    graphc.manual_seed(1234)
    make, inputs = MODELS[name]
    model, x = make(), inputs()
    t = labels(x.shape[0], 5)
    optimizer = graphc.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
    return [np.array(v.detach().numpy()) for v in (*losses, *model.parameters())]


@pytest.mark.parametrize("name", MODELS)
def test_training_in_poisoned_memory(name: str, fresh_recorder: None) -> None:
    """Three steps of training, every plan poisoned: bit for bit what they give otherwise, threads and memory plan or not."""
    want = train(name, 3)
    assert all(np.isfinite(w).all() for w in want) and want[0] > want[2]
    seen: list[int] = []
    flushing.PLANS.clear()
    recorder._Trie.root = recorder.Node(None, (), (), (), (), 0)
    recorder.state.region = recorder.Region()
    recorder.set_planner(lambda graph: Watched(build_plan(graph), seen))
    harness.same_bits(want, train(name, 3), "poisoned memory")
    assert len(seen) >= 3 and sum(seen) > 0
    recorder.set_planner(build_plan)
    for no_plan, threads in ((True, 1), (False, 3)):
        flushing.PLANS.clear()
        recorder._Trie.root = recorder.Node(None, (), (), (), (), 0)
        recorder.state.region = recorder.Region()
        config.NO_MEMPLAN = no_plan
        graphc.set_num_threads(threads)
        harness.same_bits(want, train(name, 3), f"no memory plan: {no_plan}, {threads} threads")


def test_plans_of_many_buffers_take_no_quadratic_python() -> None:
    """8,000 buffers, most of them alive at once: under a second; half a minute when each looked at all others in Python."""
    lives = [Life(n, 64 * (1 + n % 7), n, 12000 - n) for n in range(6000)] + [Life(n, 4096, n, n + 3) for n in range(6000, 8000)]
    before = time.perf_counter()
    offsets, top = plan(lives)
    assert time.perf_counter() - before < 8
    assert top >= sum(x.nbytes for x in lives[:6000]) and len(offsets) == len(lives)
