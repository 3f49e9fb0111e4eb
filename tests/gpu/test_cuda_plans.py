"""Whole training steps on a real device: compiled by Triton, launched and replayed by the run time, against NumPy.

Needs a GPU, its driver, cuda-bindings and Triton; skipped with the reason elsewhere.
"""
from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.triton import compiler
from graphc.ir.interpret import run_graph
from graphc.runtime.cuda import driver

WHY = driver.reason() or compiler.reason()
pytestmark = pytest.mark.skipif(bool(WHY), reason=f"no CUDA device to compile for: {WHY}")

from test_cuda_plan import bind, fetch, steps_of

from graphc.runtime.cuda import device as D
from graphc.runtime.cuda.program import Program


@pytest.mark.parametrize("name", ["mlp", "lstm", "lenet", "gpt", "gpt_sdpa"])
def test_training_step(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal to the NumPy interpreter up to rounding; the same bits plain, captured and replayed; prints the time of a step."""
    graph, arrays = steps_of(name)
    program = Program(graph, D.get(), label=name)
    stream, outputs = D.current_stream(), []
    values = bind(program.graph, arrays)
    for _ in range(4):
        outputs.append([fetch(r) for r in program(values, stream)])
    for later in outputs[1:]:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(outputs[0], later)), "not the same bits"
    loose = 0
    for g, w in zip(outputs[0], run_graph(graph, arrays)):
        w = np.asarray(w)
        assert g.dtype == w.dtype and g.shape == w.shape
        far = ~np.isclose(g.astype(np.float64), w.astype(np.float64), rtol=2e-3, atol=2e-4)
        np.testing.assert_allclose(g[far].astype(np.float64), w[far].astype(np.float64), atol=2e-3)
        loose += int(far.sum())
    assert loose <= 16  # rounding noise that Adam turns into steps of full size
    start, end = D.Event(enable_timing=True), D.Event(enable_timing=True)
    kept = [program(values, stream) for _ in range(4)]
    start.record()
    for _ in range(20):
        kept = [*kept[1:], program(values, stream)]
    end.record()
    end.synchronize()
    with capsys.disabled():
        print(f"\n{name}: {start.elapsed_time(end) / 20:.3f} ms a step, arena {program.arena_bytes} bytes")
