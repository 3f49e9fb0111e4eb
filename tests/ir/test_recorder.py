"""The recorder: trace following, flushing, failures, threads; the passes, dumps and the table itself."""
from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import graphc as torch
import graphc.nn as nn
from graphc.errors import GraphBreakError, VerifyError
from graphc.ir import recorder
from graphc.ir.dump import parse, to_dot, to_networkx, to_text
from graphc.ir.interpret import bind_inputs, run_graph
from graphc.ir.node import Graph, Node
from graphc.ir.optable import Composite, Prim, prim
from graphc.ir.passes import PASSES, run_passes
from graphc.ir.verify import verify


def training_step():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.LayerNorm(5), nn.Linear(5, 3))
    opt = torch.optim.Adam(net.parameters(), lr=0.01)
    x, y = torch.randn(4, 6), torch.tensor([0, 1, 2, 1])

    def step():
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss.detach()

    return step, opt


def recorded_graph() -> tuple[Graph, list]:
    """The graph and bindings of one training step, before any pass."""
    step, _ = training_step()
    for _ in range(2):
        step().item()
    recorder.flush()
    recorder.state.hold += 1
    try:
        loss = step()
        reg = recorder.state.region
        live = tuple([v.slot for r in reg.live if (v := r()) is not None and v.region is reg])
        return recorder.region_graph(reg.cursor, live), list(reg.bindings)
    finally:
        recorder.state.hold -= 1
        recorder.flush()
        del loss


def test_an_equal_step_records_nothing_new() -> None:
    step, opt = training_step()
    for _ in range(3):
        step().item()
    nodes, plans = recorder._Trie.count, recorder.counters["plans_built"]
    for i in range(20):
        opt.param_groups[0]["lr"] = 0.01 / (i + 1)
        step().item()
    assert recorder._Trie.count == nodes and recorder.counters["plans_built"] == plans


def test_changed_python_values_and_branches_are_never_stale() -> None:
    x = torch.ones(3)
    for i in range(6):
        k = float(i)
        y = x * k
        y = y + 1 if i % 2 else y - 1
        assert y.tolist() == [k + (1 if i % 2 else -1)] * 3


def test_the_cap_flushes_and_keeps_values() -> None:
    flushes = recorder.counters["flushes"]
    x = torch.zeros(2)
    for _ in range(9000):
        x = x + 1
    assert recorder.counters["flushes"] > flushes
    assert x.tolist() == [9000, 9000]


def test_a_failing_op_poisons_only_what_depends_on_it() -> None:
    table, good, p, q = torch.arange(4.0), torch.ones(2), torch.ones(2), torch.zeros(1)
    p.tolist()
    q.tolist()
    fine = good + 1
    bad = table[torch.tensor([9])]
    line = sys._getframe().f_lineno - 1
    p.mul_(2)
    q.add_(bad)
    with pytest.raises(IndexError, match=f"index 9 is out of bounds(.|\n)*test_recorder.py:{line}"):
        bad.tolist()
    assert fine.tolist() == [2, 2] and p.tolist() == [2, 2]
    assert q.tolist() == [0], "a write that failed is undone"
    with pytest.raises(IndexError):
        (bad + 1).tolist()


def test_values_pending_in_another_thread_can_be_read() -> None:
    made, done, out = threading.Event(), threading.Event(), []

    def worker() -> None:
        t = torch.arange(5.0) * 3
        out.append(t)
        made.set()
        done.wait(10)
        out.append(t.tolist())

    thread = threading.Thread(target=worker)
    thread.start()
    assert made.wait(10)
    try:
        assert (out[0] + 1).tolist() == [1, 4, 7, 10, 13]
    finally:
        done.set()
        thread.join()
    assert out[1] == [0, 3, 6, 9, 12]


def test_eight_threads_agree_with_one() -> None:
    def work(seed: int) -> list:
        x = torch.arange(12.0).reshape(3, 4) + seed
        x.requires_grad_(True)
        for _ in range(20):
            (x.sin() @ x.T).sum().backward()
        return x.grad.tolist()

    want = [work(i) for i in range(8)]
    got: list = [None] * 8

    def run(i: int) -> None:
        got[i] = work(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert got == want


# ------------------------------------------------------------------------------------------------------ passes and dumps
def test_every_pass_keeps_the_meaning() -> None:
    graph, bindings = recorded_graph()
    arrays = bind_inputs(graph, bindings)
    want = run_graph(graph, arrays)
    for p in PASSES:
        graph = p(graph)
        verify(graph, p.__name__)
        for a, b in zip(run_graph(graph, arrays), want):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_passes_do_what_they_say() -> None:
    def graph_of(f, *shapes):
        from graphc.device import CPU
        from graphc.dtypes import float32
        from graphc.ir.node import aval

        return run_passes(recorder.trace(f, tuple(aval(s, float32, CPU) for s in shapes)))

    from graphc.ir import build as P

    def names(g):
        return [n.op.name for n in g.nodes if n.op.kind != "leaf"]

    assert names(graph_of(lambda x: (P.exp(x), P.sin(x))[0], (3,))) == ["exp"]
    assert names(graph_of(lambda x: P.add(P.exp(x), P.exp(x)), (3,))) == ["exp", "add"]
    assert names(graph_of(lambda x: P.mul(P.neg(P.neg(x)), 1.0), (3,))) == []
    assert names(graph_of(lambda x: P.permute(P.permute(x, (1, 0)), (1, 0)), (3, 4))) == []
    assert names(graph_of(lambda x: P.add(x, 0.0), (3,))) == ["const", "add"], "x + 0 turns -0 into 0: not an identity"
    two = graph_of(lambda x: P.mul(x, P.add(P.const(1.0, x.dtype), P.const(1.0, x.dtype))), (3,))
    assert names(two) == ["const", "mul"] and np.frombuffer(two.nodes[1].attrs[0], np.float32)[0] == 2


def test_text_round_trip_and_other_forms() -> None:
    graph, _ = recorded_graph()
    for g in (graph, run_passes(graph)):
        again = parse(to_text(g))
        assert again.key() == g.key() and again == g
        verify(again)
    import networkx as nx

    dag = to_networkx(graph)
    assert nx.is_directed_acyclic_graph(dag) and len(dag) == len(graph.nodes)
    assert to_dot(graph).startswith("digraph") and "test_recorder.py" in to_text(graph)
    with pytest.raises(VerifyError):
        parse("%0: f32[2] = nonsense()\nreturn %0")


def test_dump_switch() -> None:
    code = "import graphc as t; (t.ones(2) * 3).tolist()"
    env = {**os.environ, "GRAPHC_DUMP": "trace", "GRAPHC_VERIFY": "2"}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "# trace" in out.stderr and "= mul(" in out.stderr and "return" in out.stderr


def test_the_verifier_refuses_broken_graphs() -> None:
    graph, _ = recorded_graph()
    last = graph.nodes[-1]
    broken = Node(last.op, (last.slot + 5,) * len(last.ins), last.attrs, last.avals, last.in_avals, last.slot)
    with pytest.raises(VerifyError, match="not defined before"):
        verify(Graph([*graph.nodes[:-1], broken], graph.outputs))
    with pytest.raises(VerifyError, match="output slot"):
        verify(Graph(graph.nodes, (10_000,)))


def test_incomplete_rows_are_refused() -> None:
    with pytest.raises(VerifyError, match="lacks .*vjp"):
        Prim("half_done", kind="pointwise", attrs=(), infer=lambda a, x: x, eval_np=lambda a, x: x, loop="x", saves=(),
             samples=tuple)
    with pytest.raises(VerifyError, match="lacks expand"):
        Composite("half_done", attrs=(), infer=lambda a, x: x, vjp=None, saves=(), samples=tuple)
    full = dict(kind="pointwise", attrs=(), infer=lambda a, x: x, eval_np=lambda a, x: x, loop="x", vjp=None, saves=(),
                samples=tuple)
    with pytest.raises(VerifyError, match="unknown kind"):
        Prim("odd", **{**full, "kind": "mystery"})
    with pytest.raises(VerifyError, match="already in the table"):
        prim("exp", **full)


# ------------------------------------------------------------------------------------------------------------- compile
def test_compiled_equals_eager_and_builds_one_plan() -> None:
    eager, _ = training_step()
    compiled, _ = training_step()
    run = torch.compile(compiled, fullgraph=True)
    assert [eager().item() for _ in range(10)] == [run().item() for _ in range(10)]
    info = run.explain()
    assert info.calls == 10 and info.breaks == {} and info.plans <= 3
    assert "calls: 10" in str(info)


def test_host_reads_split_and_fullgraph_refuses() -> None:
    def f(x):
        y = x * 2
        if y.sum().item() > 0:
            return y + 1
        return y - 1

    run = torch.compile(f)
    assert run(torch.ones(2)).tolist() == [3, 3] and run(-torch.ones(2)).tolist() == [-3, -3]
    assert any("test_recorder.py" in where for where in run.explain().breaks)
    with pytest.raises(GraphBreakError, match="test_recorder.py"):
        torch.compile(f, fullgraph=True)(torch.ones(2))


def test_compiled_state_is_never_stale() -> None:
    scale, table = [2.0], {"t": torch.ones(2)}

    @torch.compile
    def f(x):
        return x * scale[0] + table["t"]

    x = torch.ones(2)
    assert f(x).tolist() == [3, 3]
    scale[0] = 5.0
    assert f(x).tolist() == [6, 6]
    table["t"] = torch.zeros(2)
    assert f(x).tolist() == [5, 5]
    kept = [f(x * i) for i in range(3)]
    assert [k.tolist() for k in kept] == [[0, 0], [5, 5], [10, 10]]
