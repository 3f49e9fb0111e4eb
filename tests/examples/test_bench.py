"""The benchmark programs run in graphc at small sizes, eager and compiled, with finite and equal results; no timings."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

NAMES = ("mlp", "mlp_wide", "lenet", "gpt", "gpt_sdpa", "lstm", "resnet18", "gelu_fwd", "gelu_bwd", "softmax_fwd", "softmax_bwd",
         "layernorm_fwd", "layernorm_bwd", "xent", "adamw", "chain_1e6", "chain_1e7", "bcast_relu", "permute")

@pytest.fixture(scope="module")
def bench() -> Any:
    """The modules beside the tool."""
    import systems
    import workloads

    return workloads, systems


def outputs(bench: Any, system: str, name: str, steps: int = 2) -> list[np.ndarray]:
    """Results of the first steps of a workload at its small size."""
    workloads, systems = bench
    w = workloads.WORKLOADS[name]
    program = systems.build(system, w, workloads.config(w, True), workloads.arrays(w, True), 1)
    out = []
    for _ in range(steps):
        result = program.step(*program.inputs)
        program.wait(result)
        out += [np.array(v) for v in program.values(result)]
    return out


def test_every_workload_is_listed(bench: Any) -> None:
    assert tuple(bench[0].WORKLOADS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_results_are_finite_and_compile_changes_nothing(bench: Any, name: str) -> None:
    eager, compiled = (outputs(bench, s, name) for s in ("graphc", "graphc_compile"))
    assert len(eager) == len(compiled) and all(np.isfinite(v).all() for v in eager)
    for a, b in zip(eager, compiled):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    if bench[0].WORKLOADS[name].kind == "train":
        assert float(eager[1]) < float(eager[0])  # two steps on one batch: the loss falls


def test_the_hand_written_mlp_agrees(bench: Any) -> None:
    np.testing.assert_allclose(outputs(bench, "numpy", "mlp", 4), outputs(bench, "graphc", "mlp", 4), rtol=1e-4)


def test_initial_arrays_repeat_and_costs_are_positive(bench: Any) -> None:
    workloads = bench[0]
    for w in workloads.WORKLOADS.values():
        a, b = workloads.arrays(w, True), workloads.arrays(w, True)
        assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
        moved, flops = w.cost(w.size)
        assert moved > 0 and (flops > 0) == (w.kind == "train")


def test_a_wrong_trajectory_is_noticed(bench: Any) -> None:
    import compare

    w = bench[0].WORKLOADS["mlp"]
    want = {"losses": [2.3, 1.5]}
    assert compare.difference(w, {"losses": [2.3, 1.5]}, want) <= w.tolerance
    assert compare.difference(w, {"losses": [2.3, 1.501]}, want) > w.tolerance
    assert compare.difference(w, {"losses": [2.3, float("nan")]}, want) == float("inf")
    k = bench[0].WORKLOADS["permute"]
    assert compare.difference(k, {"samples": [[1.0, 2.0]]}, {"samples": [[1.0, -2.0]]}) > k.tolerance


def test_quiet_slices_are_chosen_and_marked(bench: Any) -> None:
    import quiet

    calm, loud = [(0.0, [1.0] * 3), (0.01, [1.1] * 3)], (0.4, [9.0] * 3)
    assert quiet.choose([loud, *calm]) == ([1.0] * 3 + [1.1] * 3, 0.01)
    times, waited = quiet.choose([loud, (0.2, [2.0] * 4)])  # no quiet slice: the least disturbed steps, and it shows
    assert times == [2.0] * 4 + [9.0] * 3 and waited == 0.4


def test_report_shows_figures_marks_and_reasons(bench: Any) -> None:
    import report

    machine = {"gbs": 40.0, "gflops": 400.0, "cpu": "A CPU", "cores": 2, "vector": "AVX2", "threads": 2, "system": "S", "python": "3.11"}
    row = {"date": "2026-01-01", "status": "ok", "min_ms": 1.5, "waited": 0.0}
    rows = {"permute": {"torch/default": {**row, "median_ms": 2.0}, "jax/default": {**row, "median_ms": 3.0, "waited": 0.5},
                        "graphc/default": {"date": "2026-01-01", "status": "WRONG: differs from torch eager by 2.0e+00"}}}
    text = report.render({"machine": machine, "rows": rows, "versions": {"torch": "2"}, "commands": ["compare"]})
    floor = 2 * 4 * 8 * 64 * 128 * 128 / 40e9 * 1e3  # read and written once
    assert f"| {report.number(floor)} | **2 (1.5)** | 3 (1.5)~ | WRONG |" in text
    assert "graphc eager: WRONG: differs from torch eager by 2.0e+00 - permute (default)" in text
