"""Kernels for what is no loop over its result, through whole plans under the interpreter."""
from __future__ import annotations

import numpy as np
import pytest
from plan_run import run_plan
from triton_run import IndexFault

from graphc.codegen.triton import compiler
from graphc.codegen.triton.compiler import A100, H100, Target
from graphc.codegen.triton.plan import Host, launches, lower_plan
from graphc.device import CPU
from graphc.dtypes import bfloat16, bool_, dtype, float16, float32, float64, from_numpy, int32, int64
from graphc.ir import build as P
from graphc.ir.interpret import run_graph
from graphc.ir.node import aval
from graphc.ir.optable import OPS
from graphc.ir.passes import run_passes
from graphc.ir.recorder import apply, trace

TOL = {float64: 1e-12, float32: 1e-5, float16: 2e-3, bfloat16: 1.6e-2}


def graph_of(name, arrays, attrs):
    return run_passes(trace(lambda *v: apply(OPS[name], v, attrs), tuple(aval(a.shape, from_numpy(a.dtype), CPU) for a in arrays)))


def same(interpreter, name, arrays, attrs, tol: float = 1e-5, exact: bool = False) -> None:
    """The plan of one node has no host step and gives what NumPy gives."""
    arrays = [np.asarray(a) for a in arrays]
    graph = graph_of(name, arrays, attrs)
    got, hosts = run_plan(interpreter, graph, arrays)
    assert not hosts
    for g, w in zip(got, run_graph(graph, arrays)):
        assert g.dtype == w.dtype and g.shape == w.shape
        if exact or w.dtype.kind in "biu":
            np.testing.assert_array_equal(*[a if w.dtype.kind in "biu" else a.astype(np.float64) for a in (g, w)])
        else:
            np.testing.assert_allclose(g.astype(np.float64), w.astype(np.float64), rtol=tol, atol=tol)


def values(r, shape, dt: dtype):
    if dt is bool_:
        return r.random(shape) < 0.3
    return r.uniform(-2, 2, shape).astype(dt.np) if dt.is_floating_point else r.integers(-9, 9, shape).astype(dt.np)


MODES = [(m, float32) for m in ("add", "mul", "max", "min", "set")] + [
    ("add", d) for d in (float64, bfloat16, float16, int64, bool_)] + [("max", int32), ("min", int64), ("mul", bfloat16), ("set", bool_)]


@pytest.mark.parametrize(("mode", "dt"), MODES, ids=str)
def test_take_put(mode: str, dt, interpreter) -> None:
    r = np.random.default_rng(len(mode))
    for shape, axis, idx in (((9, 5), 0, (12,)), ((2, 7, 3), 1, (3, 4)), ((30,), 0, (50,)), ((3, 4, 6), 2, (5,))):
        i = r.integers(-shape[axis], shape[axis], idx)
        src = (*shape[:axis], *idx, *shape[axis + 1:])
        same(interpreter, "take_put", [values(r, shape, dt), i, values(r, src, dt)], (axis, mode, True), TOL.get(dt, 0))


@pytest.mark.parametrize(("mode", "dt"), MODES[:5] + [("add", bfloat16), ("max", int64)], ids=str)
def test_scatter(mode: str, dt, interpreter) -> None:
    """Indices smaller than the base, sources larger than the indices."""
    r = np.random.default_rng(len(mode))
    for base, idx, src, axis in (((6, 5), (8, 4), (9, 5), 0), ((3, 40), (3, 33), (3, 33), 1), ((2, 3, 4), (2, 2, 6), (2, 3, 6), 2)):
        i = r.integers(0, base[axis], idx)
        same(interpreter, "scatter", [values(r, base, dt), i, values(r, src, dt)], (axis, mode), TOL.get(dt, 0))


def test_special_values_stay_in_their_rows(interpreter) -> None:
    base, src = np.zeros((6, 4), np.float32), np.ones((5, 4), np.float32)
    src[1, 2], src[3, 0], base[5, 1] = np.inf, np.nan, -0.0
    same(interpreter, "take_put", [base, np.array([2, 2, 0, 1, 1]), src], (0, "add", False), exact=True)


def test_many_indices_of_one_row(interpreter) -> None:
    """More indices than one look; integers are exact in any order."""
    r = np.random.default_rng(0)
    i = np.where(r.random(2500) < 0.5, 3, r.integers(0, 8, 2500))
    same(interpreter, "take_put", [np.zeros((8, 3), np.int64), i, r.integers(-99, 99, (2500, 3))], (0, "add", False))


@pytest.mark.parametrize("bad", [7, -8])
def test_index_out_of_range(bad: int, interpreter) -> None:
    arrays = [np.zeros((7, 2), np.float32), np.array([1, bad, 2]), np.ones((3, 2), np.float32)]
    with pytest.raises(IndexFault):
        run_plan(interpreter, graph_of("take_put", arrays, (0, "add", True)), arrays)


@pytest.mark.parametrize(("kind", "dt"), [*[(k, float32) for k in ("add", "mul", "max", "min", "logaddexp")], ("add", float64),
                                          ("add", bfloat16), ("add", int64), ("max", int32), ("mul", int64)], ids=str)
def test_scan(kind: str, dt, interpreter) -> None:
    """Axes in front and behind, from both ends, rows longer than a block."""
    r = np.random.default_rng(len(kind))
    for shape, axis, reverse in (((5, 40), 1, False), ((5, 40), 1, True), ((40, 5), 0, False), ((3, 9, 4), 1, True), ((1, 5000), 1, False),
                                 ((300, 3), 0, True)):
        x = values(r, shape, dt)
        if kind == "mul":
            x = np.sign(x).astype(dt.np) + np.asarray(1e-3 if dt.is_floating_point else 0, dt.np)
        same(interpreter, "scan", [x], (kind, axis, reverse), TOL.get(dt, 0) * (30 if kind == "add" else 8))


def test_scan_of_special_values(interpreter) -> None:
    x = np.array([[1, -np.inf, 2, np.nan, 3], [-0.0, np.inf, 1, -np.inf, 5]], np.float32)
    for kind in ("add", "max", "min", "mul"):
        same(interpreter, "scan", [x], (kind, 1, False))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dt", [float32, float64, bfloat16, int64, int32, bool_], ids=str)
def test_order(dt, descending: bool, interpreter) -> None:
    """Stable, NaN largest, zeros of both signs equal; the first k."""
    r = np.random.default_rng(3)
    for shape, axis in (((4, 30), 1), ((70, 3), 0), ((2, 200), 1), ((2, 5, 3), 1)):
        x = np.round(values(r, shape, dt).astype(np.float64) * 3).astype(dt.np) if dt is not bool_ else values(r, shape, dt)
        if dt.is_floating_point:
            flat = x.reshape(-1)
            flat[[1, 5, 9]], flat[[3, 8]], flat[7], flat[11] = np.nan, -0.0, np.inf, -np.inf
        same(interpreter, "sort", [x], (axis, descending, True), exact=True)
        same(interpreter, "topk", [x], (axis, 3, descending), exact=True)


@pytest.mark.parametrize("right", [False, True])
def test_searchsorted(right: bool, interpreter) -> None:
    r = np.random.default_rng(5)
    for s, v in (((17,), (3, 5)), ((4, 9), (4, 6)), ((1,), (8,)), ((64,), ())):
        bounds, x = np.sort(r.integers(0, 9, s), -1).astype(np.float32), r.integers(0, 9, v).astype(np.float32)
        if v and right:
            x.reshape(-1)[0] = np.nan
        same(interpreter, "searchsorted", [bounds, x], (right,))


def test_bitcast(interpreter) -> None:
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    name, attrs = "bitcast", OPS["bitcast"].samples()[0][1]
    graph = graph_of(name, [x], attrs) if OPS[name].samples()[0][0][0].dtype == x.dtype else None
    arrays = [x] if graph is not None else [np.asarray(a) for a in OPS[name].samples()[0][0]]
    same(interpreter, name, arrays, attrs, exact=True)


@pytest.mark.parametrize("target", [A100, H100], ids=str)
@pytest.mark.usefixtures("triton_installed")
def test_library_as_machine_code(target: Target) -> None:
    """No spills, no atomics."""
    x, made = aval((512, 3000), float32, CPU), []
    for name, attrs in (("scan", ("add", 1, False)), ("scan", ("logaddexp", 0, True)), ("sort", (1, False, True)), ("topk", (1, 50, True)))[::1 if target is H100 else 3]:
        steps = lower_plan(run_passes(trace(lambda v, n=name, a=attrs: apply(OPS[n], (v,), a), (x,))), target=target)
        assert not any(isinstance(s, Host) for s in steps)
        made += [s.printed for s in launches(steps)]
    for c in compiler.compiler(target).get(made).values():
        assert c.spills == 0 and not c.facts["atomics"] and c.shared <= target.shared_limit, c


@pytest.mark.parametrize("target", [A100, H100], ids=str)
@pytest.mark.usefixtures("triton_installed")
def test_embedding_gradient_as_machine_code(target: Target) -> None:
    """No spills, no atomics, rows read 16 bytes at a time."""
    avals = (aval((1000, 768), float32, CPU), aval((4096,), int64, CPU), aval((4096, 768), float32, CPU))
    steps = lower_plan(run_passes(trace(lambda *v: P.take_put(*v, 0, "add", False), avals)), target=target)
    assert not any(isinstance(s, Host) for s in steps)
    made = [x.printed for x in launches(steps)]
    for c in compiler.compiler(target).get(made).values():
        assert c.spills == 0 and not c.facts["atomics"] and c.facts["wide_loads"], c
