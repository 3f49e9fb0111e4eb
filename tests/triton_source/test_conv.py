"""Convolutions and their gradients as implicit products, under the interpreter and as machine code."""
from __future__ import annotations

import numpy as np
import pytest
from plan_run import run_plan

from graphc.codegen.triton import compiler, conv, matmul
from graphc.codegen.triton.compiler import A100, H100, Target
from graphc.codegen.triton.layout import ROWS
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
    "depthwise_strided": ((2, 8, 9, 8), (8, 1, 3, 3), ((2, 2), (1, 1), (1, 1), (1, 1), 8)),
    "depthwise_dilated": ((1, 6, 11, 10), (6, 1, 3, 2), ((2, 1), (2, 0), (1, 2), (2, 3), 6)),
    "one_by_one": ((2, 17, 5, 6), (20, 17, 1, 1), ((1, 1), (0, 0), (0, 0), (1, 1), 1)),
    "deep": ((1, 32, 6, 6), (32, 32, 3, 3), ((1, 1), (1, 1), (1, 1), (1, 1), 1)),
    "stem": ((1, 3, 13, 14), (8, 3, 7, 7), ((2, 2), (3, 3), (3, 3), (1, 1), 1)),
    "strided_one_by_one": ((2, 20, 7, 6), (24, 20, 1, 1), ((2, 2), (0, 0), (0, 0), (1, 1), 1)),
    "ragged": ((1, 24, 6, 5), (40, 24, 3, 3), ((1, 1), (1, 1), (1, 1), (1, 1), 1)),
    "wide_groups": ((1, 32, 6, 6), (48, 16, 3, 3), ((2, 1), (1, 1), (1, 1), (1, 1), 2)),
    "stride_meets_dilation": ((1, 16, 9, 9), (16, 16, 3, 3), ((2, 2), (2, 2), (2, 2), (2, 2), 1)),
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
    three(interpreter, "strided_one_by_one", dt)
    three(interpreter, "depthwise_strided", dt)


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


LAYERS = (((32, 64, 32, 32), (64, 64, 3, 3), ((1, 1), (1, 1), (1, 1), (1, 1), 1)),
          ((32, 128, 16, 16), (128, 128, 3, 3), ((1, 1), (1, 1), (1, 1), (1, 1), 1)),
          ((32, 64, 32, 32), (128, 64, 3, 3), ((2, 2), (1, 1), (1, 1), (1, 1), 1)),
          ((32, 64, 32, 32), (128, 64, 1, 1), ((2, 2), (0, 0), (0, 0), (1, 1), 1)),
          ((8, 3, 64, 64), (64, 3, 7, 7), ((2, 2), (3, 3), (3, 3), (1, 1), 1)),
          ((8, 40, 14, 14), (48, 20, 3, 3), ((1, 1), (1, 1), (1, 1), (1, 1), 2)))


def kernels_of(layer, dt, target: Target):
    """Launches of a layer and its gradients."""
    x_shape, w_shape, attrs = layer
    x, w = aval(x_shape, dt, CPU), aval(w_shape, dt, CPU)
    y, = OPS["conv"].infer_avals(attrs, (x, w))
    out = []
    for name, ins, extra in (("conv", (x, w), ()), ("conv_input_grad", (y, w), (x_shape[2:],)), ("conv_weight_grad", (x, y), (w_shape[2:],))):
        graph = run_passes(trace(lambda *v, n=name, e=extra: apply(OPS[n], v, (*attrs, *e)), ins))
        steps = lower_plan(graph, target=target)
        assert not any(isinstance(s, Host) for s in steps)
        out += launches(steps)
    return out


@pytest.mark.parametrize("target", [A100, H100], ids=str)
@pytest.mark.parametrize("dt", [float32, bfloat16], ids=str)
@pytest.mark.usefixtures("triton_installed")
def test_machine_code(dt, target: Target) -> None:
    """Layers of a ResNet, a stem, groups of odd width, and their gradients: tensor cores, no spills, no atomics; where channels
    are a multiple of 16 operands come 16 bytes at a time, asynchronously."""
    made = {x.printed.symbol: (x, n) for n, layer in enumerate(LAYERS) for x in kernels_of(layer, dt, target)}
    for symbol, c in compiler.compiler(target).get([x.printed for x, _ in made.values()]).items():
        x, n = made[symbol]
        assert c.spills == 0 and c.shared <= target.shared_limit and not c.facts["atomics"], (c.symbol, c.registers, c.spills)
        if x.label.startswith("conv"):
            assert c.facts["mma"] or c.facts["wgmma"], c.symbol
            assert n >= 4 or 0 < c.facts["wide_async"] == c.facts["async"] and not c.facts["loads"], (c.symbol, c.facts)


def test_layers_share_kernels() -> None:
    """Sizes are arguments: the same layer at other resolutions, batch sizes and (whole blocks of) channels is the same code."""
    attrs = ((1, 1), (1, 1), (1, 1), (1, 1), 1)

    def symbols(images: int, side: int, channels: int):
        x, w = aval((images, side, side, channels), bfloat16, CPU), aval((channels, 3, 3, channels), bfloat16, CPU)
        out = set()
        for name, ins, extra in (("conv", (x, w), ()), ("conv_input_grad", (x, w), ((side, side),)), ("conv_weight_grad", (x, x), ((3, 3),))):
            graph = trace(lambda *v, n=name, e=extra: apply(ROWS[n], v, (*attrs, *e)), ins)
            out |= {x.printed.symbol for x in launches(lower_plan(graph))}
        return out

    first = symbols(32, 32, 128)
    assert len(first) == 4 and symbols(64, 32, 128) == first and symbols(32, 48, 128) == first and symbols(32, 32, 256) <= first
