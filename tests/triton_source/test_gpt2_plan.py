"""GPT-2's training step (124M parameters, batch 32, bfloat16 autocast, AdamW) as a plan: few kernels, nothing on the host, no
matrix of attention scores, good machine code, and in a second process no Triton. No array of its size is ever filled."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gpt2_step import BATCH, CONTEXT, HEADS, VOCABULARY, gpt2_step
from plan_run import run_plan
from recorded_steps import workload

from graphc.codegen.triton import compiler, recompute, roofline
from graphc.codegen.triton.compiler import A100, H100, Target
from graphc.codegen.triton.passes import split_for
from graphc.codegen.triton.plan import Host, launches, lower_plan, prepared, to_text
from graphc.ir.interpret import run_graph

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = [(False, VOCABULARY), (True, VOCABULARY), (False, 50304)]


@pytest.mark.parametrize(("by_hand", "vocabulary"), VARIANTS)
def test_plan(by_hand: bool, vocabulary: int) -> None:
    """At most 60 distinct kernels, no host step, the logits in 16 bits the largest array, no scores in memory."""
    graph, sched = prepared(gpt2_step(by_hand, vocabulary), H100)
    steps = lower_plan(graph, sched, H100)
    made = launches(steps)
    assert len({x.printed.symbol for x in made}) <= 60 and not any(isinstance(s, Host) for s in steps)
    labels = [x.label for x in made]
    assert [labels.count(x) for x in ("attention", "attention_queries", "attention_keys")] == [12, 12, 12]
    avals = graph.slot_avals()
    written = [avals[k] for x in made for k in x.writes if isinstance(k, int)]
    largest = max(a.nbytes for a in written)
    assert largest == 2 * BATCH * CONTEXT * vocabulary
    assert BATCH * HEADS * CONTEXT * CONTEXT not in {a.size for a in written}
    assert max([n for x in made for n in x.own.values()], default=0) < BATCH * HEADS * CONTEXT * CONTEXT


def test_estimates() -> None:
    """The plan's text sums bytes and operations; they are near what the model needs."""
    graph, sched = prepared(gpt2_step(), H100)
    steps = lower_plan(graph, sched, H100)
    avals = graph.slot_avals()
    c = roofline.total(steps, avals, roofline.DEVICES["H100"])
    tokens = BATCH * CONTEXT
    assert 6 * 124e6 * tokens < c.flops < 1.25 * 6 * 124e6 * tokens
    assert c.nbytes < 120e9 and c.seconds < 0.048
    lines = to_text(steps, avals).splitlines()
    assert lines[-1].startswith("total on H100: ") and all(" MB, " in x for x in lines if "programs" in x)


@pytest.mark.parametrize("target", [H100, A100], ids=str)
@pytest.mark.usefixtures("triton_installed")
def test_machine_code(target: Target) -> None:
    """No spills, shared memory within limits, tensor cores in products: every kernel of both spellings."""
    made = {x.printed.symbol: x for by_hand in (False, True) for x in launches(lower_plan(gpt2_step(by_hand), target=target))}
    code = compiler.compiler(target).get([x.printed for x in made.values()])
    for symbol, x in made.items():
        c = code[symbol]
        assert c.spills == 0 and c.shared <= target.shared_limit and not c.facts["atomics"], (symbol, c.spills, c.registers)
        if "tl.dot(" in x.printed.source:
            assert c.facts["mma"] or c.facts["wgmma"], symbol
        assert x.label.startswith(("product", "attention")) == ("tl.dot(" in x.printed.source) or "parts" in x.label


SECOND = """
import sys
sys.path[:0] = {path!r}
from gpt2_step import gpt2_step
from graphc.codegen.triton import compiler
from graphc.codegen.triton.plan import launches, lower_plan
made = launches(lower_plan(gpt2_step({by_hand}), target=compiler.H100))
c = compiler.compiler(compiler.H100)
c.get([x.printed for x in made])
print(c.compiled, c.reloaded, "triton" in sys.modules)
"""


@pytest.mark.usefixtures("triton_installed")
def test_second_process_compiles_nothing() -> None:
    """All kernels come from the disk, and Triton is not even imported."""
    made = launches(lower_plan(gpt2_step(True), target=H100))
    count = len(compiler.compiler(H100).get([x.printed for x in made]))
    text = SECOND.format(path=[str(ROOT), *sys.path], by_hand=True)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=os.environ, cwd=ROOT)
    assert done.stdout.split() == ["0", str(count), "False"], done.stderr[-2000:]


@pytest.mark.parametrize("name", ["gpt", "gpt_sdpa", "mlp", "lenet"])
def test_computing_again_changes_no_bit(name: str, monkeypatch) -> None:
    """A step with everything computed again that could be: the same bits from the interpreter of graphs."""
    monkeypatch.setattr(recompute, "LARGE", 1)
    graph, arrays = workload(name, tiny=True)
    graph = split_for(graph, H100)
    again = recompute.recompute(graph)
    assert len(again.nodes) != len(graph.nodes) or name == "mlp"
    for g, w in zip(run_graph(again, arrays), run_graph(graph, arrays)):
        assert np.array_equal(g, w, equal_nan=g.dtype.kind == "f")


def test_computing_again_as_kernels(interpreter, monkeypatch) -> None:
    monkeypatch.setattr(recompute, "LARGE", 1)
    graph, arrays = workload("gpt", tiny=True)
    got, hosts = run_plan(interpreter, graph, arrays)
    assert not hosts
    for g, w in zip(got, run_graph(graph, arrays)):
        np.testing.assert_allclose(g.astype(np.float64), np.asarray(w, np.float64), rtol=2e-3, atol=3e-3)
