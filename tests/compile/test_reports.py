"""What compiled functions report: recompilations and why, host reads that split, refusals; memory over many steps."""
from __future__ import annotations

import sys
import threading
import warnings

import pytest

import graphc
import graphc.nn as nn
from graphc.compile import PerformanceNote, RecompileWarning
from graphc.errors import GraphBreakError
from graphc.ir import recorder


def here(offset: int = 0) -> str:
    """``test_reports.py:LINE`` of the caller's line plus ``offset``."""
    return f"test_reports.py:{sys._getframe(1).f_lineno + offset}"


# ----------------------------------------------------------------------------------------------------------- host reads
def test_a_read_that_splits_is_noted_once_at_its_line() -> None:
    @graphc.compile
    def f(x):
        k = (x * 2).sum().item()
        return x + k

    line = here(-3)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            f(graphc.ones(2))
    assert [f"{w.filename.rsplit('/', 1)[-1]}:{w.lineno}" for w in seen if w.category is PerformanceNote] == [line]
    info = f.explain()
    assert [where.rsplit("/", 1)[-1] for where in info.breaks] == [line] and list(info.breaks.values()) == [3]
    assert f"{line}: 3 host reads" in str(info)


def test_a_read_at_the_end_is_no_split() -> None:
    @graphc.compile
    def f(x):
        return (x * 2).sum().item()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [f(graphc.ones(2)) for _ in range(3)] == [4.0] * 3
    assert sum(f.explain().breaks.values()) == 3


@pytest.mark.parametrize("read", [lambda t: t.item(), lambda t: bool(t), lambda t: print(t), lambda t: t.numpy(),
                                  lambda t: t.tolist(), lambda t: float(t), lambda t: f"{t}", lambda t: int(t)])
def test_fullgraph_refuses_every_read(read, capsys) -> None:
    @graphc.compile(fullgraph=True)
    def f(x, inside):
        y = x.sum() + 1
        if inside:
            read(y)
        return y

    assert f(graphc.ones(2), False).item() == 3
    with pytest.raises(GraphBreakError, match=r"test_reports.py:\d+"):
        f(graphc.ones(2), True)
    assert f(graphc.ones(2), False).item() == 3


def test_fullgraph_inside_a_function_that_may_read() -> None:
    inner = graphc.compile(lambda x: (x + 1).sum().item(), fullgraph=True)

    @graphc.compile
    def outer(x, call_inner):
        k = (x * 2).sum().item()
        return inner(x) if call_inner else k

    assert outer(graphc.ones(2), False) == 4
    with pytest.raises(GraphBreakError):
        outer(graphc.ones(2), True)
    assert outer(graphc.ones(2), False) == 4


def test_reads_in_other_threads_are_not_ours() -> None:
    go, done = threading.Event(), threading.Event()

    def worker() -> None:
        go.wait(10)
        (graphc.ones(2) * 2).tolist()
        done.set()

    @graphc.compile(fullgraph=True)
    def f(x):
        y = x + 1
        go.set()
        assert done.wait(10)
        return y

    thread = threading.Thread(target=worker)
    thread.start()
    assert f(graphc.ones(2)).tolist() == [2, 2]
    thread.join()
    assert f.explain().breaks == {}


# ------------------------------------------------------------------------------------------------------- recompilations
def reasons(f) -> list[str]:
    return [r.reason for r in f.explain().recompiles]


def test_reasons_name_the_differing_part() -> None:
    @graphc.compile
    def f(x, axis=0, twice=False, keep=None):
        y = x.sum(axis)
        if twice:
            y = y.exp()
        z = y + 1
        if keep is not None:
            keep.append(y)
        return z

    line = sys._getframe().f_lineno - 10
    f(graphc.ones(2, 2))
    f(graphc.ones(3, 3))
    f(graphc.ones(3, 3), axis=1)
    f(graphc.ones(3, 3), axis=1, twice=True)
    f(graphc.ones(3, 3), keep=[])
    f(graphc.ones(3, 3).double())
    got = reasons(f)
    assert len(got) == 5
    assert "f32[3,3], was f32[2,2]" in got[0] and f"test_reports.py:{line + 2}" in got[0]
    assert "reduce" in got[1] and "axes=(1,) (was (0,))" in got[1]
    assert "exp" in got[2] and f"test_reports.py:{line + 4}" in got[2]
    assert "other results are kept: 1" in got[3]
    assert "f64[3,3], was f32[3,3]" in got[4]


def test_the_closest_known_program_is_compared() -> None:
    @graphc.compile
    def f(x, long):
        y = x.sin()
        for _ in range(20 if long else 1):
            y = y.cos() * 2
        return y

    f(graphc.ones(2), True)
    f(graphc.ones(5), False)
    f(graphc.ones(3), True)
    assert "f32[3], was f32[2]" in reasons(f)[-1]


def test_the_ninth_recompilation_warns_once() -> None:
    @graphc.compile
    def f(x):
        return x * 2 + 1

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for n in range(1, 10):
            f(graphc.ones(n, 7))
        assert not [w for w in seen if w.category is RecompileWarning], "8 recompilations are within the budget"
        f(graphc.ones(10, 7))
        f(graphc.ones(11, 7))
    (w,) = [w for w in seen if w.category is RecompileWarning]
    assert "recompiled 9 times" in str(w.message) and "f32[10,7]" in str(w.message)
    assert w.filename.endswith("test_reports.py")
    assert f.explain().recompile_count == 10 and "recompiled: 10 calls" in str(f.explain())


def test_the_budget_is_an_option() -> None:
    f = graphc.compile(lambda x: x - 1, options={"recompile_limit": 1})
    f(graphc.ones(2))
    f(graphc.ones(3))
    with pytest.warns(RecompileWarning, match="recompiled 2 times"):
        f(graphc.ones(4))


# --------------------------------------------------------------------------------------------------------- steady state
def test_a_thousand_steps_need_two_plans_and_no_memory() -> None:
    import gc

    graphc.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.ReLU(), nn.Linear(8, 3))
    opt = graphc.optim.Adam(net.parameters(), lr=0.01)
    schedule = graphc.optim.lr_scheduler.CosineAnnealingLR(opt, 1000)
    for p in net.parameters():  # Adam makes its state when it first sees a gradient: a step before the first step
        p.grad = graphc.zeros_like(p)
    opt.step()

    @graphc.compile(fullgraph=True)
    def step(x, y):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        schedule.step()
        return loss.detach()

    batches = [(graphc.randn(n, 6), graphc.randint(0, 3, (n,))) for n in (8, 5)]
    first = step(*batches[0]).item()
    for k in range(1, 200):
        step(*batches[k % 2])
    gc.collect()
    nodes, before = recorder._Trie.count, sys.getallocatedblocks()
    for k in range(200, 1000):
        last = step(*batches[k % 2])
    gc.collect()
    grown = sys.getallocatedblocks() - before
    info = step.explain()
    assert info.plans == 2 and info.calls == 1000 and info.breaks == {}
    assert recorder._Trie.count == nodes
    assert grown < 400, f"{grown} blocks of memory more after 800 steps"
    assert last.item() < first and opt.param_groups[0]["lr"] < 1e-6


def test_growing_data_keeps_only_recent_plans() -> None:
    known = []

    @graphc.compile(options={"recompile_limit": 10**9})
    def f(x):
        return (x * 2).sum()

    for n in range(1, 200):
        assert f(graphc.ones(n)).item() == 2 * n
        known.append(len(f._known))
    assert max(known) <= 32 and len(f.explain().recompiles) <= 32


# ------------------------------------------------------------------------------------------------------------- failures
def test_a_failing_step_happens_not_at_all() -> None:
    graphc.manual_seed(0)
    net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
    opt = graphc.optim.Adam(net.parameters(), lr=0.1, weight_decay=0.1)

    @graphc.compile
    def step(x, y):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss

    good = graphc.tensor([0, 1, 2]), graphc.tensor([0, 1, 2])
    step(*good)
    before = [p.tolist() for p in net.parameters()], [s["step"].item() for s in opt.state.values()]
    for x, y in (([0, 1, 9], [0, 1, 2]), ([0, 1, 2], [0, 7, 2])):
        with pytest.raises(IndexError, match="recorded at .*test_reports.py"):
            step(graphc.tensor(x), graphc.tensor(y))
        assert ([p.tolist() for p in net.parameters()], [s["step"].item() for s in opt.state.values()]) == before
        with pytest.raises(IndexError):
            net[1].weight.grad.tolist()
    want = step(*good).item()
    assert want == want and before[0] != [p.tolist() for p in net.parameters()]


def test_a_failed_write_is_undone_where_a_view_was_made_afterwards() -> None:
    table, p = graphc.arange(3.0), graphc.ones(2, 2)
    p.tolist()

    @graphc.compile
    def f(i):
        p.add_(table[i])
        return p[0] * 2

    with pytest.raises(IndexError):
        f(graphc.tensor([8, 0]))
    assert p.tolist() == [[1, 1], [1, 1]]
    assert f(graphc.tensor([2, 0])).tolist() == [6, 2] and p.tolist() == [[3, 1], [3, 1]]


def test_what_ran_before_the_failing_op_stays() -> None:
    table, early, late = graphc.arange(3.0), graphc.zeros(1), graphc.zeros(1)

    @graphc.compile
    def f(i):
        early.add_(1)
        y = table[i]
        late.add_(1)
        return y

    with pytest.raises(IndexError):
        f(graphc.tensor([8]))
    assert early.tolist() == [1] and late.tolist() == [0]


def test_compile_refuses_what_it_cannot_call() -> None:
    with pytest.raises(TypeError, match="needs a function or a module, got int"):
        graphc.compile(3)
    with pytest.raises(RuntimeError, match="Unrecognized mode=fast"):
        graphc.compile(lambda: 0, mode="fast")
