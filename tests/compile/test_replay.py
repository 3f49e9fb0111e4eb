"""mode="replay": which calls skip Python, what makes them run it again, audits, and what they cost in correctness: nothing."""
from __future__ import annotations

import gc
import sys

import numpy as np
import pytest
from footguns import batch, params, small_net

import graphc
import graphc.nn as nn
from graphc.compile import replay as compile_replay
from graphc.errors import StaleReplayError

F = nn.functional


@pytest.fixture(autouse=True)
def _no_first_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_replay, "FIRST_AUDITS", 0)


def replay(fn=None, **options):
    return graphc.compile(fn, mode="replay", options=options)


MAKES = {
    "sgd": lambda p: graphc.optim.SGD(p, lr=0.1),
    "momentum": lambda p: graphc.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda p: graphc.optim.Adam(p, lr=0.05),
    "adamw": lambda p: graphc.optim.AdamW(p, lr=0.05, weight_decay=0.1),
    "rmsprop": lambda p: graphc.optim.RMSprop(p, lr=0.01),
}


def trained(make, compile, steps=25, schedule=None, sizes=(4,)):
    """Losses, parameters, statistics and the next random numbers after some steps, and the step function."""
    graphc.manual_seed(5)
    net = small_net(graphc, nn.BatchNorm1d(4), nn.Dropout(0.2))
    opt = make(net.parameters())

    @compile
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        return loss, {"logits": net[0](x).detach()}

    losses = []
    for k in range(steps):
        loss, more = step(*batch(graphc, k, sizes[k % len(sizes)]))
        losses.append([loss.item(), more["logits"].sum().item()])
        if schedule is not None:
            opt.param_groups[0]["lr"] = schedule(k)
    return losses, params(net), [b.tolist() for b in net.buffers()], graphc.rand(2).tolist(), step


@pytest.mark.parametrize("name", list(MAKES))
def test_training_steps_skip_python_and_keep_their_bits(name: str) -> None:
    want, got = trained(MAKES[name], graphc.compile), trained(MAKES[name], replay)
    assert got[:4] == want[:4]
    info = got[4].explain()
    assert info.replayed >= 15 and f"replayed without Python: {info.replayed} calls" in str(info)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_learning_rate_schedule_becomes_an_input(name: str) -> None:
    schedule = lambda k: 0.1 / (k + 1)
    want = trained(MAKES[name], graphc.compile, 30, schedule)
    got = trained(MAKES[name], replay, 30, schedule)
    assert got[:4] == want[:4]
    assert got[4].explain().replayed >= 15, got[4].explain().replay_refused


def test_two_batch_sizes_are_two_programs() -> None:
    want = trained(MAKES["adam"], graphc.compile, 40, sizes=(4, 4, 6))
    got = trained(MAKES["adam"], replay, 40, sizes=(4, 4, 6))
    assert got[:4] == want[:4]
    assert got[4].explain().replayed > 8


def test_accumulated_gradients_and_averages() -> None:
    def run(compile):
        net = small_net(graphc)
        ema = [p.detach().clone() for p in net.parameters()]

        @compile
        def accumulate(x, y):
            F.cross_entropy(net(x), y).backward()

        @compile
        def update():
            with graphc.no_grad():
                for e, p in zip(ema, net.parameters()):
                    p.sub_(p.grad, alpha=0.1)
                    p.grad.zero_()
                    e.lerp_(p, 0.1)

        for k in range(24):
            accumulate(*batch(graphc, k))
            if k % 2:
                update()
        return params(net), [e.tolist() for e in ema], accumulate, update

    want, got = run(graphc.compile), run(replay)
    assert got[:2] == want[:2]
    assert got[2].explain().replayed > 10 and got[3].explain().replayed > 5


def test_outputs_are_fresh_and_state_is_live() -> None:
    state = graphc.zeros(2)

    @replay
    def f(x):
        state.add_(x)
        return x * 2, state, state + 1

    kept = [f(graphc.full((2,), float(k))) for k in range(8)]
    assert [k[0].tolist() for k in kept] == [[2.0 * k] * 2 for k in range(8)]
    assert all(k[1] is state for k in kept) and kept[5][2].tolist() == [16, 16]
    state.zero_()
    assert f(graphc.ones(2))[2].tolist() == [2, 2]
    state.copy_(graphc.ones(2))
    assert f(graphc.ones(2))[2].tolist() == [3, 3]
    assert f.explain().replayed == 8


CHANGES = {
    "a variable": lambda w: w.update(k=5.0),
    "a list": lambda w: w["items"].append(4.0),
    "a list's item": lambda w: w["items"].__setitem__(0, 9.0),
    "an attribute": lambda w: setattr(w["config"], "scale", 7.0),
    "a class attribute": lambda w: setattr(type(w["config"]), "offset", 8.0),
    "a method": lambda w: setattr(type(w["config"]).__base__, "use", lambda self, x: x * 100),
    "a method of a subclass": lambda w: setattr(type(w["config"]), "use", lambda self, x: x * 50),
    "a tensor replaced": lambda w: w.update(t=graphc.full((2,), 3.0)),
    "a tensor written": lambda w: w["t"].fill_(4.0),
    "a tensor's dtype": lambda w: w.update(t=w["t"].double()),
    "requires_grad": lambda w: w["t"].requires_grad_(),
    "a sign of zero": lambda w: w.update(zero=-0.0),
    "True for 1": lambda w: w.update(k=True),
    "training mode": lambda w: w["drop"].eval(),
    "dropout p": lambda w: setattr(w["drop"], "p", 1.0),
    "a hook": lambda w: w["drop"].register_forward_hook(lambda m, a, y: y + 50),
    "a layer": lambda w: w["net"].__setitem__(0, nn.Identity()),
    "a view of a tensor": lambda w: w.update(view=w["t"][0]),
    "data of a tensor": lambda w: setattr(w["t"], "data", graphc.full((2,), 6.0)),
    "default dtype": lambda w: graphc.set_default_dtype(graphc.float64),
    "seed": lambda w: graphc.manual_seed(77),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_every_change_is_seen_by_the_next_call(name: str) -> None:
    class Base:
        def __init__(self):
            self.scale = 2.0

        def use(self, x):
            return x * self.scale + self.offset

    class Config(Base):
        offset = 1.0

    def calls(compile):
        graphc.manual_seed(0)
        Config.offset, Base.use = 1.0, used
        if "use" in vars(Config):
            del Config.use
        w = {"k": 1, "zero": 0.0, "items": [1.0, 2.0], "config": Config(), "t": graphc.ones(2), "drop": nn.Dropout(0.5),
             "net": nn.Sequential(nn.Tanh())}

        @compile
        def f(x):
            y = w["config"].use(w["net"](x)) * w["k"] + sum(w["items"]) + len(w["items"]) + w["t"]
            return w["drop"](y + graphc.rand(2)) + 1 / (x * 0 + w["zero"])

        out = []
        try:
            for k in range(10):
                if k == 6:
                    CHANGES[name](w)
                y = f(graphc.ones(2))
                out.append((y.dtype.name, y.requires_grad, y.detach().tolist()))
        finally:
            graphc.set_default_dtype(graphc.float32)
        return out, f

    used = Base.use
    want, _ = calls(lambda fn: fn)
    got, f = calls(replay)
    assert repr(got) == repr(want)
    assert f.explain().replayed >= 4, f.explain().replay_refused


def test_errors_in_a_replayed_step_leave_it_undone() -> None:
    net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
    opt = graphc.optim.Adam(net.parameters(), lr=0.1)

    @replay
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss

    good = graphc.tensor([0, 1, 2]), graphc.tensor([0, 1, 2])
    for _ in range(6):
        step(*good)
    before = params(net), [s["step"].item() for s in opt.state.values()]
    replayed = step.explain().replayed
    assert replayed >= 2
    with pytest.raises(IndexError, match="recorded at .*test_replay.py"):
        step(graphc.tensor([0, 8, 1]), good[1])
    assert (params(net), [s["step"].item() for s in opt.state.values()]) == before
    for _ in range(6):
        step(*good)
    assert params(net) != before[0] and step.explain().replayed > replayed


def test_nothing_of_a_replayed_call_is_kept_alive() -> None:
    weight = graphc.randn(50, 50)

    @replay
    def f(x):
        return (x @ weight).tanh()

    x = graphc.randn(50, 50)
    for _ in range(10):
        f(x)
    grown = []
    for _ in range(4):
        gc.collect()
        blocks = sys.getallocatedblocks()
        for _ in range(300):
            f(x)
        gc.collect()
        grown.append(sys.getallocatedblocks() - blocks)
    assert min(grown) < 20, grown
    assert f.explain().replayed > 1100


# --------------------------------------------------------------------------------------------------------------- audits


def test_an_audit_finds_what_no_guard_can_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """graphc's own modules are trusted; a change in one of them stands for what guards cannot see."""
    from graphc import version

    monkeypatch.setattr(version, "hidden", 2.0, raising=False)

    @replay(audit_every=5)
    def f(x):
        y = x.exp()
        return y * version.hidden

    assert [f(graphc.zeros(1)).item() for _ in range(7)] == [2.0] * 7
    monkeypatch.setattr(version, "hidden", 3.0)
    with pytest.raises(StaleReplayError, match=r"a number at .*test_replay.py:\d+ is 3.0, replayed as 2.0"):
        for _ in range(5):
            f(graphc.zeros(1))
    assert f(graphc.zeros(1)).item() == 3.0, "after that the function runs its Python always"
    assert "an audit found" in f.explain().replay_refused


def test_an_audit_names_the_differing_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc import version

    monkeypatch.setattr(version, "hidden", False, raising=False)

    @replay(audit_every=4)
    def f(x):
        y = x * 2
        return y.sin() if version.hidden else y.cos()

    for _ in range(6):
        f(graphc.zeros(1))
    monkeypatch.setattr(version, "hidden", True)
    with pytest.raises(StaleReplayError, match=r"sin at .*test_replay.py:\d+ came where cos at"):
        for _ in range(4):
            f(graphc.zeros(1))


def test_audits_of_an_unchanged_function_find_nothing() -> None:
    step = trained(MAKES["adam"], lambda fn: replay(fn, audit_every=3), 40)[4]
    assert step._replay.audits >= 10 and step.explain().replayed > 20


def test_memory_shared_with_numpy_between_calls_is_no_staleness() -> None:
    state = graphc.zeros(2)

    @replay(audit_every=2)
    def f(x):
        state.add_(x)
        return state * 1

    out = [f(graphc.ones(2)).tolist() for _ in range(6)]
    array = state.numpy()
    for _ in range(4):
        array += 10
        out.append(f(graphc.ones(2)).tolist())
    del array
    out += [f(graphc.ones(2)).tolist() for _ in range(6)]
    assert [o[0] for o in out] == [1, 2, 3, 4, 5, 6, 17, 28, 39, 50, 51, 52, 53, 54, 55, 56]


def test_threads_may_share_a_replayed_function() -> None:
    import threading

    weight = graphc.full((64,), 3.0)

    @replay(audit_every=4)
    def f(x, k):
        return (x * weight).sin() * k + graphc.rand(64) * 0

    def work(i: int) -> None:
        out[i] = [f(graphc.arange(64.0) + i, k % 3).sum().item() for k in range(60)]

    want = [[((graphc.arange(64.0) + i) * 3).sin().mul(k % 3).sum().item() for k in range(60)] for i in range(4)]
    out: dict = {}
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    np.testing.assert_allclose([out[i] for i in range(4)], want, rtol=1e-4, atol=1e-4)


def test_the_first_calls_are_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_replay, "FIRST_AUDITS", 3)
    f = replay(lambda x: x + 1)
    for _ in range(10):
        f(graphc.ones(1))
    assert f._replay.audits == 3 and f.explain().replayed == 5


def test_arguments_that_never_repeat_end_the_watching() -> None:
    f = replay(lambda x, k: x * k)
    assert [f(graphc.ones(1), k).item() for k in range(60)] == [float(k) for k in range(60)]
    assert f.explain().replayed == 0 and "never comes again" in f.explain().replay_refused


# ------------------------------------------------------------------------------------------------------------- refusals
SPARE = [0]


def counting(x):
    SPARE[0] += 1
    return x * SPARE[0]


def printing(x):
    print("here")
    return x + 0


def reading(x):
    return x * (x.sum() * 2).item()


def clock(x):
    import time

    return x * 0 + time.time()


def drawing(x):
    return x + float(np.random.rand())


MANY = list(range(60_000))


def wide(x):
    return x + len(MANY)


REFUSED = {"wide": (wide, "more than 50000 places"),
           "counting": (counting, "it changes 0: 2"), "printing": (printing, r"it uses print\(\)"), "reading": (reading, "reads a value"),
           "clock": (clock, "__import__|time|number"), "drawing": (drawing, "the module numpy")}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_skipped_is_said(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    fn, why = REFUSED[name]
    SPARE[0] = 0
    f = replay(fn)
    out = [f(graphc.ones(1)).item() for _ in range(20)]
    assert f.explain().replayed == 0 and f.explain().replay_refused
    if name == "counting":
        assert out == [float(k) for k in range(1, 21)]
    elif name == "printing":
        assert capsys.readouterr().out == "here\n" * 20
    else:
        import re

        assert re.search(why, f.explain().replay_refused), f.explain().replay_refused
