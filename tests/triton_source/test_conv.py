"""Convolutions and their gradients as implicit products, under the interpreter and as machine code."""
from __future__ import annotations

import numpy as np
import pytest
from plan_run import run_plan

from graphc.codegen.triton import compiler, conv, matmul
from graphc.codegen.triton.compiler import A100, H100, Target
from graphc.codegen.triton.plan import Host, launches, lower_plan
from graphc.device import CPU
from graphc.dtypes import bfloat16, float32, float64, from_numpy
from graphc.ir import build as P
from graphc.ir.interpret import run_graph
from graphc.ir.node import aval
from graphc.ir.optable import OPS
from graphc.ir.passes import run_passes
from graphc.ir.recorder import apply, trace

TOL = {float64: 1e-11, float32: 3e-5, bfloat16: 4e-2}
# x, w, (stride, pad_lo, pad_hi, dilation, groups)
CASES = {
    "plain": ((2, 3, 9, 8), (4, 3, 3, 3), ((1, 1), (0, 0), (0, 0), (1, 1), 1)),
    "padded": ((2, 5, 7, 7), (6, 5, 3, 3), ((1, 1), (1, 1), (1, 1), (1, 1), 1)),
    "strided": ((2, 4, 9, 10), (5, 4, 3, 2), ((2, 3), (1, 0), (0, 2), (1, 1), 1)),
    "dilated": ((1, 3, 12, 11), (4, 3, 3, 3), ((1, 2), (2, 1), (2, 1), (2, 3), 1)),
    "groups": ((2, 6, 6, 6), (9, 2, 3, 3), ((1, 1), (1, 1), (1, 1), (1, 1), 3)),
    "depthwise": ((2, 5, 6, 7), (5, 1, 3, 3), ((1, 1), (1, 1), (1, 1), (1, 1), 5)),
    "one_by_one": ((2, 17, 5, 6), (20, 17, 1, 1), ((1, 1), (0, 0), (0, 0), (1, 1), 1)),
    "deep": ((1, 32, 6, 6), (32, 32, 3, 3), ((1, 1), (1, 1), (1, 1), (1, 1), 1)),
    "line": ((3, 4, 20), (6, 4, 5), ((2,), (2,), (1,), (1,), 1)),
    "volume": ((1, 2, 5, 6, 4), (3, 2, 2, 3, 2), ((1, 2, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1), 1)),
}


def node_graph(name, arrays, attrs):
    return run_passes(trace(lambda *v: apply(OPS[name], v, attrs), tuple(aval(a.shape, from_numpy(a.dtype), CPU) for a in arrays)))


def compare(interpreter, name, arrays, attrs, tol: float) -> np.ndarray:
    graph = node_graph(name, arrays, attrs)
    (got,), hosts = run_plan(interpreter, graph, arrays)
    assert not hosts
    want, = run_graph(graph, arrays)
    assert got.dtype == want.dtype and got.shape == want.shape
    np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=tol, atol=tol * 4)
    return want


def three(interpreter, case: str, dt) -> None:
    x_shape, w_shape, attrs = CASES[case]
    r = np.random.default_rng(1)
    x, w = r.uniform(-1, 1, x_shape).astype(dt.np), r.uniform(-1, 1, w_shape).astype(dt.np)
    y = compare(interpreter, "conv", [x, w], attrs, TOL[dt])
    g = r.uniform(-1, 1, y.shape).astype(dt.np)
    compare(interpreter, "conv_input_grad", [g, w], (*attrs, x_shape[2:]), TOL[dt])
    compare(interpreter, "conv_weight_grad", [x, g], (*attrs, w_shape[2:]), TOL[dt])


@pytest.mark.parametrize("case", sorted(CASES))
def test_geometry(case: str, interpreter) -> None:
    three(interpreter, case, float32)


@pytest.mark.parametrize("dt", [float64, bfloat16], ids=str)
def test_dtypes(dt, interpreter) -> None:
    three(interpreter, "strided", dt)
    three(interpreter, "deep", dt)


def test_weight_gradient_in_parts(interpreter, monkeypatch) -> None:
    monkeypatch.setattr(conv, "choose", lambda c, dt, target, epilogue=None: matmul.Tile(16, 32, 16, 4, 1, 3 if c.kind == "conv_weight_grad" else 1))
    for case in ("padded", "groups"):
        three(interpreter, case, float32)


def test_bias_and_activation_in_the_same_kernel(interpreter) -> None:
    """relu(conv + bias) is one launch, after the copies that put the operands' channels last."""
    x_shape, w_shape, attrs = CASES["padded"]

    def f(x, w, b):
        return P.maximum(P.add(apply(OPS["conv"], (x, w), attrs), P.reshape(b, (6, 1, 1))), 0.0)

    graph = run_passes(trace(f, (aval(x_shape, float32, CPU), aval(w_shape, float32, CPU), aval((6,), float32, CPU))))
    r = np.random.default_rng(2)
    arrays = [r.uniform(-1, 1, s).astype(np.float32) for s in (x_shape, w_shape, (6,))]
    assert [s.label.split("_")[0] for s in lower_plan(graph)] == ["permute", "permute", "conv"]
    (got,), _ = run_plan(interpreter, graph, arrays)
    np.testing.assert_allclose(got, run_graph(graph, arrays)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", [A100, H100], ids=str)
@pytest.mark.usefixtures("triton_installed")
def test_machine_code(target: Target) -> None:
    """A ResNet layer and its gradients, and a stem: tensor cores, no spills, no atomics."""
    printed = []
    for x_shape, w_shape, attrs in (((32, 64, 32, 32), (64, 64, 3, 3), ((1, 1), (1, 1), (1, 1), (1, 1), 1)),
                                    ((32, 64, 32, 32), (128, 64, 3, 3), ((2, 2), (1, 1), (1, 1), (1, 1), 1)),
                                    ((32, 3, 32, 32), (64, 3, 3, 3), ((1, 1), (1, 1), (1, 1), (1, 1), 1))):
        x, w = aval(x_shape, float32, CPU), aval(w_shape, float32, CPU)
        y, = OPS["conv"].infer_avals(attrs, (x, w))
        for name, ins, extra in (("conv", (x, w), ()), ("conv_input_grad", (y, w), (x_shape[2:],)), ("conv_weight_grad", (x, y), (w_shape[2:],))):
            graph = run_passes(trace(lambda *v, n=name, e=extra: apply(OPS[n], v, (*attrs, *e)), ins))
            steps = lower_plan(graph, target=target)
            assert not any(isinstance(s, Host) for s in steps)
            printed += [s.printed for s in launches(steps)]
    for c in compiler.compiler(target).get(printed).values():
        assert c.spills == 0 and c.shared <= target.shared_limit and not c.facts["atomics"], (c.symbol, c.registers, c.spills)
        assert c.facts["mma"] or c.facts["wgmma"] or "parts" in c.symbol, c.symbol
