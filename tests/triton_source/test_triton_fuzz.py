"""Random fused programs as generated Triton source under the interpreter against the NumPy interpreter."""
from __future__ import annotations

import zlib

import numpy as np
import pytest
from triton_run import run_scheduled

from graphc.codegen.fuse import schedule
from graphc.codegen.loop_ir import Kernel
from graphc.device import CPU
from graphc.dtypes import bfloat16, bool_, float16, float32, float64, int32, int64
from graphc.ir import build as P
from graphc.ir.interpret import run_graph
from graphc.ir.node import aval
from graphc.ir.optable import OPS
from graphc.ir.passes import run_passes
from graphc.ir.recorder import apply, trace

PROGRAMS, PER_TEST = 204, 12
TOL = {float64: 1e-9, float32: 2e-4, float16: 2e-2, bfloat16: 1.5e-1}
SHAPES = [(6, 8), (37, 12), (5, 7, 16), (130,), (3, 4, 5, 6), (17, 33), (2, 300), (64, 24)]


class Program:
    """Grows a random program. A value is (Value, exact): inexact ones went through a sum, whose order may differ, so
    nothing that jumps (comparisons, rounding, argreduce) is applied to them."""

    def __init__(self, seed: int):
        self.r = np.random.default_rng(seed)
        self.dtype = self.r.choice(np.array([float64, float32, float32, bfloat16, float16], object))
        self.shape = SHAPES[self.r.integers(len(SHAPES))]
        n = self.shape[-1]
        self.inputs = [aval(self.shape, self.dtype, CPU), aval(self.shape, self.dtype, CPU), aval((n,), self.dtype, CPU),
                       aval((n,), int64, CPU), aval((*self.shape[:-1], 1), self.dtype, CPU), aval((), self.dtype, CPU),
                       aval(self.shape, int32, CPU), aval(self.shape, bool_, CPU)]

    def arrays(self):
        out = []
        for a in self.inputs:
            if a.dtype is int64:
                x = self.r.integers(0, a.shape[0], a.shape)
            elif a.dtype is int32:
                x = self.r.integers(-9, 9, a.shape)
            elif a.dtype is bool_:
                x = self.r.random(a.shape) < 0.5
            else:
                x = self.r.uniform(-2, 2, a.shape)
            out.append(np.asarray(x).astype(a.dtype.np))
        return out

    def pick(self, pool):
        """A value, later ones more often."""
        return pool[max(self.r.integers(len(pool)), self.r.integers(len(pool)))]

    def like(self, pool, v):
        """A value whose shape broadcasts with v's, brought there by movement."""
        w, exact = self.pick(pool)
        if w.size == v.size:
            return P.reshape(w, v.shape), exact
        if v.ndim and w.size == v.shape[-1]:
            return P.reshape(w, (w.size,)), exact
        return P.cast(P.reduce("max", w, tuple(range(w.ndim))), self.dtype) if w.ndim else w, exact

    def move(self, v):
        r, nd = self.r, v.ndim
        if nd == 0 or v.size == 0:
            return P.reshape(v, (1,))
        axis = int(r.integers(nd))
        kind = r.integers(8)
        if kind == 0:
            return P.permute(v, tuple(int(i) for i in r.permutation(nd)))
        if kind == 1 and v.shape[axis] > 2:
            return P.narrow(v, axis, 1, v.shape[axis] - 2)
        if kind == 2:
            return P.flip(v, (axis,))
        if kind == 3:
            lo, hi = [0] * nd, [0] * nd
            lo[axis], hi[axis] = int(r.integers(3)), int(r.integers(3))
            return P.pad(v, tuple(lo), tuple(hi), 0.5)
        if kind == 4:
            return P.concat((v, P.flip(v, (axis,))), axis)
        if kind == 5:
            return P.reshape(v, (v.size,)) if r.random() < 0.5 else P.reshape(v, (*v.shape[:-1], 1, v.shape[-1]))
        if kind == 6 and v.size < 3000:
            return P.expand(P.reshape(v, (1, *v.shape)), (2, *v.shape))
        if kind == 7 and v.shape[axis] > 3:
            starts, stops, steps = [0] * nd, list(v.shape), [1] * nd
            steps[axis] = 2
            return P.slice_(v, tuple(starts), tuple(stops), tuple(steps))
        return v

    def softmax(self, v):
        axis = v.ndim - 1
        e = P.exp(P.sub(v, P.reduce("max", v, (axis,), True)))
        return P.div(e, P.reduce("add", e, (axis,), True))

    def step(self, pool, idx, ints, flags):
        """One more value."""
        r = self.r
        v, exact = self.pick(pool)
        kind = r.integers(13)
        if kind <= 1:
            return getattr(P, str(r.choice(["tanh", "neg", "abs", "exp", "sin", "sqrt"])))(P.tanh(P.abs(v)) if r.random() < 0.5
                                                                                          else P.sin(v)), exact
        if kind <= 4:
            w, other = self.like(pool, v)
            return getattr(P, str(r.choice(["add", "sub", "mul", "maximum", "minimum"])))(v, w), exact and other
        if kind == 5:
            return self.move(v), exact
        if kind == 6 and v.ndim:
            n = int(r.integers(1, v.ndim + 1))
            axes = tuple(sorted(int(i) for i in r.choice(v.ndim, n, replace=False)))
            op = str(r.choice(["add", "max", "min", "add"]))
            return P.reduce(op, v, axes, bool(r.random() < 0.6)), exact and op != "add"
        if kind == 7 and v.ndim and v.shape[-1] > 1 and v.size < 20000:
            return self.softmax(v), False
        if kind == 8 and exact:
            w, other = self.like(pool, v)
            if other:
                c = P.le(v, w)
                return P.where(c, v, P.mul(w, 0.5)), True
        if kind == 9 and v.ndim and v.shape[-1] == idx.shape[0]:
            return P.take(v, idx, v.ndim - 1), exact
        if kind == 10 and exact and v.ndim:
            return P.cast(P.argreduce(str(r.choice(["max", "min"])), v, int(r.integers(v.ndim))), self.dtype), True
        if kind == 11 and v.shape == ints.shape:
            return P.where(flags, v, P.cast(P.mul(ints, 3), self.dtype)), exact
        if kind == 12 and v.ndim:
            i = P.cast(P.iota_like(v, int(r.integers(v.ndim)), int64), self.dtype)
            return P.add(P.mul(i, 0.125), v), exact
        return P.add(v, 0.25), exact

    def grow(self, a, b, row, idx, col, scalar, ints, flags):
        pool = [(a, True), (b, True), (row, True), (col, True), (scalar, True)]
        for _ in range(int(self.r.integers(4, 12))):
            v, exact = self.step(pool, idx, ints, flags)
            if v.size <= 40000:
                pool.append((P.cast(v, self.dtype), exact))
        return tuple(v for v, _ in pool[-3:])


def close(got, want, dt, label) -> None:
    if want.dtype.kind in "biu":
        np.testing.assert_array_equal(got, want, err_msg=label)
        return
    g, w = got.astype(np.float64), want.astype(np.float64)
    scale = max(1.0, float(np.nanmax(np.abs(np.where(np.isfinite(w), w, 0)), initial=0)))
    np.testing.assert_allclose(g, w, rtol=TOL[dt], atol=TOL[dt] * scale, err_msg=label)


@pytest.mark.parametrize("block", range(PROGRAMS // PER_TEST))
def test_programs(block: int, interpreter) -> None:
    kernels = 0
    for seed in range(block * PER_TEST, (block + 1) * PER_TEST):
        p = Program(seed)
        graph = trace(p.grow, tuple(p.inputs))
        arrays = p.arrays()
        optimised = run_passes(graph)
        sched = schedule(optimised)
        kernels += sum(isinstance(s, Kernel) for s in sched.steps)
        for got, want in zip(run_scheduled(interpreter, optimised, arrays, sched), run_graph(graph, arrays)):
            close(got, want, p.dtype, f"program {seed}")
    assert kernels >= PER_TEST


@pytest.mark.parametrize("op", ["maximum", "minimum", "add", "div", "sqrt", "sign", "floor", "round", "isnan", "isinf", "exp", "log",
                                "fmod", "remainder", "floordiv", "pow", "atan2", "lt", "eq", "abs", "neg", "digamma", "lgamma"])
def test_special_values(op: str, interpreter) -> None:
    """NaN, infinities, zeros of both signs and subnormals as NumPy has them."""
    x = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-310, 2.5, -2.5, 1e300, 3.0])
    a, b = [np.ascontiguousarray(g.reshape(-1)) for g in np.meshgrid(x, x)]
    for dt in (np.float64, np.float32):
        ins = [a.astype(dt), b.astype(dt)][:1 if op in OPS and len(OPS[op].samples()[0][0]) == 1 else 2]
        t = float64 if dt is np.float64 else float32
        graph = trace(lambda *v: apply(OPS[op], v), tuple(aval(i.shape, t, CPU) for i in ins))
        got, want = run_scheduled(interpreter, run_passes(graph), ins)[0], run_graph(graph, ins)[0]
        np.testing.assert_allclose(got, want, rtol=1e-9 if dt is np.float64 else 4e-6)


@pytest.mark.parametrize("kind", ["add", "max", "min", "mul"])
def test_reductions_of_special_values(kind: str, interpreter) -> None:
    x = np.random.default_rng(zlib.crc32(kind.encode())).standard_normal((8, 40)).astype(np.float32)
    x[0, 3], x[1, 5], x[2, :] = np.nan, np.inf, -np.inf
    x[3, 0], x[3, 9] = np.inf, -np.inf
    x[4, :] = -0.0
    for axis in (0, 1):
        graph = trace(lambda v: P.reduce(kind, v, (axis,)), (aval(x.shape, float32, CPU),))
        got, want = run_scheduled(interpreter, run_passes(graph), [x])[0], run_graph(graph, [x])[0]
        np.testing.assert_allclose(got, want, rtol=1e-5)
        assert np.array_equal(np.signbit(got[want == 0]), np.signbit(want[want == 0]))


@pytest.mark.parametrize("kind", ["max", "min"])
def test_first_extreme_wins(kind: str, interpreter) -> None:
    """Ties and NaN, rows that fit a block and rows that are looped over."""
    r = np.random.default_rng(3)
    for shape, axis in (((9, 50), 1), ((50, 9), 0), ((1, 16500), 1), ((300, 20), 0)):
        x = r.integers(0, 4, shape).astype(np.float32)
        x[0, shape[1] // 2] = np.nan
        graph = trace(lambda v: P.argreduce(kind, v, axis), (aval(shape, float32, CPU),))
        got, want = run_scheduled(interpreter, run_passes(graph), [x])[0], run_graph(graph, [x])[0]
        np.testing.assert_array_equal(got, want)
