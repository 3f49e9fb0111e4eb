"""The hand-written library kernels against the op table's NumPy rows, for any number of threads and both vector widths."""
from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphc import config
from graphc.autograd.engine import mark_input, vjp_values
from graphc.codegen.native.jobs import Job
from graphc.codegen.native.library import library_jobs, zeros_allowed
from graphc.codegen.native.program import Program
from graphc.device import device
from graphc.dtypes import float64, from_numpy, int64
from graphc.errors import IndexOutOfRangeError
from graphc.ir import build as P
from graphc.ir.node import aval, leaf_value
from graphc.ir.optable import OPS
from graphc.ir.passes import run_passes
from graphc.ir.recorder import apply, evaluated, trace
from graphc.runtime import jit

pytestmark = pytest.mark.skipif(not jit.available(), reason="no llvmlite")
BITS = (256, 512) if jit.available() and jit.vector_bits() == 512 else (256,)
CPU = device("cpu")
BF16 = np.dtype(ml_dtypes.bfloat16)
GUARD = 64  # bytes behind every buffer that must stay as they were
_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class Failed(Exception):
    """A kernel set the error word."""


def execute(jobs: list[Job], memory: dict[Any, np.ndarray], nthreads: int) -> None:
    """Run jobs one after the other, each as ``nthreads`` shares; ``memory`` holds a byte array for every key."""
    err = np.zeros(2, np.int64)
    for job in jobs:
        for key, n in job.own.items():
            memory[key] = np.full(n + GUARD, 0xA5, np.uint8)
    for job in jobs:
        scratch = np.full(job.scratch * nthreads + GUARD, 0xA5, np.uint8)
        assert job.reads | job.writes >= {p for p in job.pointers if p not in ("err", "scratch")}
        words = [err.ctypes.data if p == "err" else scratch.ctypes.data if p == "scratch" else memory[p].ctypes.data
                 for p in job.pointers]
        args = np.array([*words, *job.numbers], np.int64)
        run = _CALL(jit.engine().functions({job.symbol: job.text})[job.symbol])
        for tid in range(nthreads):
            run(args.ctypes.data, tid, nthreads)
        assert (scratch[job.scratch * nthreads:] == 0xA5).all(), "scratch overrun"
        if err[0]:
            raise Failed
    for job in jobs:
        for key, n in job.own.items():
            assert (memory[key][n:] == 0xA5).all(), "buffer overrun"


def native(name: str, attrs: tuple, arrays: list[np.ndarray], bits: int, nthreads: int, zero: bool = False) -> Any:
    """What the native jobs of a primitive give; None if there are none."""
    row = OPS[name]
    ins = [aval(a.shape, from_numpy(a.dtype), CPU) for a in arrays]
    inferred = row.infer(attrs, *ins)
    outs = inferred if isinstance(inferred, tuple) else (inferred,)
    node: Any = SimpleNamespace(op=row, attrs=attrs)
    keys: list[Any] = [("in", k) for k in range(len(arrays))]
    out_keys = [("out", k) for k in range(len(outs))]
    memory: dict[Any, np.ndarray] = {}
    for key, a in zip(keys, arrays):
        memory[key] = np.frombuffer(a.tobytes() + b"\xa5" * GUARD, np.uint8).copy()
    for key, a in zip(out_keys, outs):
        memory[key] = np.full(a.nbytes + GUARD, 0xA5, np.uint8)
    before = {k: memory[k].copy() for k in keys}
    if zero:
        assert zeros_allowed(node, 0)
        keys[0] = None
    jobs = library_jobs(node, ins, outs, keys, out_keys, 7, bits)
    if jobs is None:
        return None
    execute(jobs, memory, nthreads)
    assert all((memory[k] == before[k]).all() for k in keys if k is not None), "an input was written"
    results = []
    for key, a in zip(out_keys, outs):
        assert (memory[key][a.nbytes:] == 0xA5).all(), "result overrun"
        results.append(memory[key][:a.nbytes].view(a.dtype.np).reshape(a.shape))
    return tuple(results) if isinstance(inferred, tuple) else results[0]


def compare(name: str, attrs: tuple, arrays: list[np.ndarray], rtol: float = 0.0, atol: float = 0.0, **how: Any) -> None:
    """Native results against the row's, at every vector width, for several numbers of threads bit by bit."""
    with np.errstate(all="ignore"):
        want = OPS[name].eval_np(attrs, *arrays)
    for bits in BITS:
        got = native(name, attrs, arrays, bits, 1, **how)
        assert got is not None, f"no kernel for {name} {attrs}"
        for n in (2, 3, 7):
            again = native(name, attrs, arrays, bits, n, **how)
            for a, b in zip(got if isinstance(got, tuple) else [got], again if isinstance(again, tuple) else [again]):
                assert a.tobytes() == b.tobytes(), f"{n} threads differ"
        for g, w in zip(got if isinstance(got, tuple) else [got], want if isinstance(want, tuple) else [want]):
            w = np.asarray(w)
            assert g.shape == w.shape and g.dtype == w.dtype
            if rtol or atol:
                wide = np.complex128 if g.dtype.kind == "c" else np.float64
                np.testing.assert_allclose(g.astype(wide), w.astype(wide), rtol, atol)
            else:
                np.testing.assert_array_equal(*[a.astype(np.float32) if a.dtype == BF16 else a for a in (g, w)])


def draw(shape: Any, dtype: Any, seed: int = 0) -> np.ndarray:
    """Random values of a dtype, some of them equal."""
    r = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype == np.bool_:
        return r.random(shape) < 0.5
    if dtype.kind in "iu":
        low = 0 if dtype.kind == "u" else -50
        return r.integers(low, 50, shape).astype(dtype)
    if dtype.kind == "c":
        return (r.standard_normal(shape) + 1j * r.standard_normal(shape)).astype(dtype)
    return r.standard_normal(shape).astype(dtype)


# -------------------------------------------------------------------------------------------------------------- take_put
@pytest.mark.parametrize("shape,axis,m", [((50, 37), 0, 90), ((7, 128), 0, 40), ((3, 20, 5), 1, 33), ((2, 9, 3), 1, 20),
                                          ((6, 31), 1, 64), ((100,), 0, 300), ((4, 1, 70), 1, 3), ((5, 6), 0, 0)])
@pytest.mark.parametrize("mode", ["add", "set", "mul", "max", "min"])
def test_take_put(shape: tuple[int, ...], axis: int, m: int, mode: str) -> None:
    base = draw(shape, np.float32, 1)
    idx = np.random.default_rng(2).integers(0, shape[axis], m)
    src = draw((*shape[:axis], m, *shape[axis + 1:]), np.float32, 3)
    compare("take_put", (axis, mode, False), [base, idx, src], 1e-5 if mode in ("add", "mul") else 0,
            1e-5 if mode == "add" else 0)


@pytest.mark.parametrize("dt", [np.float64, np.float16, BF16, np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_,
                                np.complex64, np.complex128])
@pytest.mark.parametrize("mode", ["add", "set"])
def test_take_put_dtypes(dt: Any, mode: str) -> None:
    half = np.dtype(dt).itemsize == 2 and np.dtype(dt).kind not in "iu"
    tol = 2e-2 if half and mode == "add" else 1e-6 if np.dtype(dt).kind in "fcV" and mode == "add" else 0
    idx = np.array([[4, -1], [0, 4], [2, -5]], np.int32)
    for cols in (19, 1):
        compare("take_put", (0, mode, True), [draw((5, cols), dt, 1), idx, draw((3, 2, cols), dt, 2)], tol, tol)


def test_take_put_into_zeros() -> None:
    idx = np.random.default_rng(0).integers(0, 9, 40)
    for dt in (np.float32, np.float16, np.int32):
        compare("take_put", (0, "add", False), [np.zeros((9, 20), dt), idx, draw((40, 20), dt)], 1e-2, 1e-2, zero=True)


@pytest.mark.parametrize("bad,wrap", [(5, False), (-1, False), (5, True), (-6, True)])
def test_take_put_out_of_range(bad: int, wrap: bool) -> None:
    for cols in (1, 20):
        args = [draw((5, cols), np.float32), np.array([0, bad, 1]), draw((3, cols), np.float32)]
        with pytest.raises(IndexOutOfRangeError):
            OPS["take_put"].eval_np((0, "add", wrap), *args)
        for n in (1, 3):
            with pytest.raises(Failed):
                native("take_put", (0, "add", wrap), args, BITS[-1], n)


# --------------------------------------------------------------------------------------------------------------- scatter
@pytest.mark.parametrize("base,idx,src,axis", [
    ((9, 5), (20, 5), (20, 5), 0), ((9, 5), (20, 3), (22, 4), 0), ((4, 30), (4, 50), (4, 50), 1), ((4, 30), (3, 50), (4, 60), 1),
    ((50,), (200,), (200,), 0), ((3, 4, 5), (2, 7, 4), (3, 7, 5), 1), ((3, 4, 5, 6), (2, 3, 9, 5), (2, 4, 9, 6), 2),
    ((3, 4, 5, 6), (6, 3, 4, 5), (6, 4, 5, 6), 0), ((3, 4, 5, 6), (3, 4, 5, 9), (3, 4, 5, 9), 3), ((), (), (), 0),
    ((4, 3), (0, 3), (2, 3), 0)])
@pytest.mark.parametrize("mode", ["add", "set", "max"])
def test_scatter(base: Any, idx: Any, src: Any, axis: int, mode: str) -> None:
    n = base[axis] if base else 1
    at = np.asarray(np.random.default_rng(5).integers(0, n, idx))
    compare("scatter", (axis, mode), [np.asarray(draw(base, np.float32, 1)), at, np.asarray(draw(src, np.float32, 2))],
            1e-5 if mode == "add" else 0, 1e-5 if mode == "add" else 0)


@pytest.mark.parametrize("dt", [np.float64, np.float16, BF16, np.int64, np.uint8, np.bool_])
def test_scatter_dtypes(dt: Any) -> None:
    idx = np.random.default_rng(5).integers(0, 4, (12, 7)).astype(np.int32)
    for mode in ("add", "set", "mul", "max", "min"):
        tol = 2e-2 if np.dtype(dt).itemsize == 2 else 0
        compare("scatter", (0, mode), [draw((4, 9), dt, 1), idx, draw((12, 9), dt, 2)], tol, tol)


def test_scatter_out_of_range() -> None:
    idx = np.zeros((3, 4), np.int64)
    idx[2, 3] = 3
    for axis, shape in ((0, (3, 4)), (1, (3, 3))):
        with pytest.raises(Failed):
            native("scatter", (axis, "add"), [draw(shape, np.float32), idx, draw((3, 4), np.float32)], BITS[-1], 2)


def test_bitcast() -> None:
    from graphc.dtypes import int32
    compare("bitcast", (int32,), [draw((3, 5), np.float32)])


# ------------------------------------------------------------------------------------------------------------------ scan
@pytest.mark.parametrize("shape,axis", [((7, 33), 0), ((5, 300), 0), ((3, 9, 5), 1), ((9, 75), 1), ((300,), 0), ((1, 1), 0),
                                        ((3, 40000), 1), ((2, 5, 16), 2), ((), 0)])
@pytest.mark.parametrize("kind", ["add", "mul", "max", "min", "logaddexp"])
@pytest.mark.parametrize("reverse", [False, True])
def test_scan(shape: tuple[int, ...], axis: int, kind: str, reverse: bool) -> None:
    x = np.asarray(draw(shape, np.float32, 1))
    if shape:
        exact = kind in ("max", "min") or kind in ("add", "mul") and axis != len(shape) - 1 or kind == "mul"
        tol = 0 if exact else 2e-5 if kind == "add" else 1e-5
        compare("scan", (kind, axis, reverse), [x], tol, tol * 40)
    else:
        assert native("scan", (kind, 0, reverse), [x], BITS[0], 1) == x


@pytest.mark.parametrize("dt", [np.float64, np.float16, BF16, np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_])
@pytest.mark.parametrize("kind", ["add", "mul", "max", "min"])
def test_scan_dtypes(dt: Any, kind: str) -> None:
    tol = 1e-12 if dt is np.float64 else 2e-2 if np.dtype(dt).itemsize == 2 and dt is not np.int16 else 0
    tol *= kind in ("add", "mul")
    for shape, axis in (((4, 45), 1), ((11, 21), 0), ((33000,), 0)):
        if kind == "mul" and shape == (33000,):
            continue
        compare("scan", (kind, axis, False), [draw(shape, dt, 3)], tol, tol)
        compare("scan", (kind, axis, True), [draw(shape, dt, 4)], tol, tol)


def test_scan_special_values() -> None:
    x = np.array([1, -0.0, np.inf, 2, -np.inf, 0, np.nan, 3] * 5, np.float32)
    tame = np.where(np.isnan(x), 7, x).astype(np.float32)
    for reverse in (False, True):
        for kind in ("add", "mul", "max", "min", "logaddexp"):
            for v in (x, tame, tame[:2], np.full(20, -np.inf, np.float32), np.full(20, -0.0, np.float32)):
                compare("scan", (kind, 0, reverse), [v], 1e-6, 0)
                compare("scan", (kind, 0, reverse), [np.stack([v, v[::-1]], 1)], 1e-6, 0)
    tiny = np.array([1e-30, 1e-30, 1e30, 1e30, 1e30] * 4, np.float32)  # regrouped, 0 * inf would appear
    compare("scan", ("mul", 0, False), [tiny])


# ------------------------------------------------------------------------------------------------------------------ sort
ALL = [np.float32, np.float64, np.float16, BF16, np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_]


@pytest.mark.parametrize("shape,axis", [((5, 1), 1), ((4, 2), 1), ((7, 33), 1), ((3, 256), 1), ((2, 1000), 1), ((40, 6), 0),
                                        ((3, 17, 5), 1), ((1,), 0), ((), 0)])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dt", [np.float32, np.int64])
def test_sort(shape: tuple[int, ...], axis: int, descending: bool, dt: Any) -> None:
    x = np.asarray(draw(shape, dt, 1))
    if shape:
        compare("sort", (axis, descending, True), [x])
    else:
        values, at = native("sort", (0, descending, True), [x], BITS[0], 1)
        assert values == x and at == 0


@pytest.mark.parametrize("dt", ALL)
@pytest.mark.parametrize("descending", [False, True])
def test_sort_dtypes(dt: Any, descending: bool) -> None:
    x = draw((3, 70), dt, 2)
    if np.dtype(dt).kind in "fV":
        x[0, ::5], x[0, 1::5], x[1, 3], x[1, 4], x[2, 7] = np.nan, -np.nan, np.inf, -np.inf, 0.0
        x[2, 1::4], x[2, 2::4] = -0.0, 0.0
    elif np.dtype(dt).kind in "iu":
        x[0, :9], x[0, 20:30] = np.iinfo(dt).max, np.iinfo(dt).min
    compare("sort", (1, descending, True), [x])
    compare("sort", (0, descending, True), [x])
    compare("topk", (1, 5, descending), [x])
    long = np.tile(x.reshape(-1), 25)[:5003]
    compare("sort", (0, descending, True), [long])
    compare("topk", (0, 3000, descending), [long])


@pytest.mark.parametrize("shape,axis", [((20011,), 0), ((3, 17000), 1), ((4500, 2), 0)])
def test_sort_long(shape: tuple[int, ...], axis: int) -> None:
    compare("sort", (axis, False, True), [draw(shape, np.float32, 1)])
    compare("sort", (axis, True, True), [draw(shape, np.float64, 1)])


@pytest.mark.parametrize("shape,axis,k", [((4, 300), 1, 1), ((4, 300), 1, 50), ((4, 300), 1, 200), ((300, 5), 0, 7), ((3, 9), 1, 9),
                                          ((3, 9), 1, 0), ((2, 5000), 1, 100), ((700,), 0, 33)])
def test_topk(shape: tuple[int, ...], axis: int, k: int) -> None:
    for dt in (np.float32, np.int64):
        x = draw(shape, dt, 4)
        for v in (x, np.sort(x, axis), np.flip(np.sort(x, axis), axis), np.zeros_like(x)):
            for largest in (False, True):
                if k:
                    compare("topk", (axis, k, largest), [v])
                else:
                    assert native("topk", (axis, k, largest), [v], BITS[0], 1) is None


def test_topk_of_the_last_values() -> None:
    for fill in (np.nan, np.inf):
        x = np.full((2, 300), fill, np.float32)
        for largest in (False, True):
            compare("topk", (1, 5, largest), [x])
    top = np.full((2, 300), np.iinfo(np.int64).max)
    compare("topk", (1, 5, False), [top])


# --------------------------------------------------------------------------------- joining, strided writes, integer products
@pytest.mark.parametrize("dt", [np.float32, np.float64, BF16, np.uint8, np.bool_, np.complex128])
@pytest.mark.parametrize("shape,axis,sizes", [((1, 5), 0, [1, 2, 3, 1, 1, 4]), ((6, 1), 1, [1] * 7),
                                              ((3, 1, 40), 1, [2, 0, 1, 3, 1]),
                                              ((40, 1), 1, [3, 30, 1, 9, 200]), ((1,), 0, [7, 9000, 1, 2, 2500])])
def test_concat(shape: tuple[int, ...], axis: int, sizes: list[int], dt: Any) -> None:
    compare("concat", (axis,), [draw((*shape[:axis], n, *shape[axis + 1:]), dt, k) for k, n in enumerate(sizes)])


@pytest.mark.parametrize("shape,attrs", [((5, 4), ((1, 0), (5, 4), (2, 1))), ((70,), ((1,), (70,), (3,))),
                                         ((5, 40), ((4, 39), (-1, 3), (-1, -2))),
                                         ((3, 4, 9), ((0, 3, 1), (3, -1, 8), (1, -1, 2))), ((6,), ((2,), (2,), (2,)))])
@pytest.mark.parametrize("dt", [np.float32, np.float64, BF16, np.int64, np.uint8, np.bool_])
def test_slice_set(shape: tuple[int, ...], attrs: tuple, dt: Any) -> None:
    part = draw(shape, dt, 2)[tuple(slice(a, b if s > 0 or b >= 0 else None, s) for a, b, s in zip(*attrs))]
    compare("slice_set", attrs, [draw(shape, dt, 1), np.ascontiguousarray(part)])


@pytest.mark.parametrize("a,b,attrs", [((30, 40), (40, 50), ((), (), (1,), (0,))), ((3, 7, 5), (3, 5, 9), ((0,), (0,), (2,), (1,))),
                                       ((4, 6, 5), (5, 6, 3), ((), (), (1, 2), (1, 0))), ((6, 5), (7, 5), ((), (), (1,), (1,))),
                                       ((9,), (9,), ((), (), (0,), (0,))), ((4,), (5,), ((), (), (), ())),
                                       ((2, 3), (2, 3), ((0, 1), (0, 1), (), ()))])
@pytest.mark.parametrize("dt", [np.int64, np.int32, np.int16, np.int8, np.uint8])
def test_contract_of_integers(a: tuple[int, ...], b: tuple[int, ...], attrs: tuple, dt: Any) -> None:
    compare("contract", attrs, [draw(a, dt, 1), draw(b, dt, 2)])


# --------------------------------------------------------------------------------------------------- arithmetic of integers
INTS = [np.int64, np.int32, np.int16, np.int8, np.uint8, np.uint32]


def edges(dt: Any) -> np.ndarray:
    """Small numbers, large ones and the ends of the range."""
    i = np.iinfo(dt)
    ends = [i.min, i.min + 1, i.max, i.max - 1, i.max // 2, i.max // 3 * 2, 0, 1, 2, 3, 7, 13, 100]
    r = np.random.default_rng(0)
    below = (-np.array([1, 2, 3, 7, 100])).astype(dt)
    return np.concatenate([np.array(ends, dt), r.integers(i.min, i.max, 20, dt, True), below])


@pytest.mark.parametrize("dt", INTS)
@pytest.mark.parametrize("name", ["floordiv", "remainder", "fmod"])
def test_integer_division(name: str, dt: Any) -> None:
    x = edges(dt)
    d = x[x != 0]
    compare(name, (), [x[:, None], d[None]])
    compare(name, (), [x, np.array(3, dt)])
    compare(name, (), [np.array(100, dt), np.repeat(d, 9)])


@pytest.mark.parametrize("name", ["floordiv", "remainder", "fmod"])
def test_integer_division_by_zero_is_reported(name: str) -> None:
    x = np.arange(40)
    for n in (1, 3):
        with pytest.raises(Failed):
            native(name, (), [x, x], BITS[0], n)


@pytest.mark.parametrize("dt", INTS)
def test_integer_power(dt: Any) -> None:
    x = edges(dt)
    e = np.array([0, 1, 2, 3, 5, 31, 64, 100, *([-1, -2, -3] if np.iinfo(dt).min else [200])]).astype(dt)
    compare("pow", (), [x[:, None], e[None]])
    compare("pow", (), [x, np.array(2, dt)])
    assert native("pow", (), [np.array([1.5]), np.array([2.0])], BITS[0], 1) is None


# ------------------------------------------------------------------------------------------------------ overlapping windows
@pytest.mark.parametrize("attrs", [((2, 6, 5), (1, 2), (3, 2), (2, 1), (1, 1)), ((3, 40), (1,), (7,), (1,), (1,)),
                                   ((2, 41), (1,), (7,), (3,), (1,)), ((4, 40), (1,), (5,), (1,), (2,)),
                                   ((3, 37), (1,), (4,), (3,), (2,)), ((2, 9, 70), (1, 2), (3, 5), (2, 2), (2, 1)),
                                   ((30, 20), (0, 1), (6, 6), (1, 1), (1, 1)), ((50, 4), (0,), (9,), (4,), (1,)),
                                   ((3, 20), (1,), (2,), (5,), (1,)), ((3, 20), (1,), (1,), (1,), (1,))])
@pytest.mark.parametrize("dt", [np.float32, np.float64, BF16, np.int32])
def test_overlap_add(attrs: tuple, dt: Any) -> None:
    shape, axes, sizes, strides, dilations = attrs
    lead = list(shape)
    for ax, k, s, d in zip(axes, sizes, strides, dilations):
        lead[ax] = (shape[ax] - d * (k - 1) - 1) // s + 1
    rough = {"float32": 1e-5, "float64": 1e-12, "bfloat16": 1e-2}.get(np.dtype(dt).name, 0)
    compare("overlap_add", attrs, [draw((*lead, *sizes), dt, 1)], rough, rough)


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("attrs", [((2, 6, 5), (1, 2), (3, 2), (2, 1), (1, 1)), ((3, 40), (1,), (3,), (1,), (2,)),
                                   ((3, 41), (1,), (7,), (3,), (1,)), ((3, 37), (1,), (4,), (3,), (2,)),
                                   ((2, 9, 40), (1, 2), (3, 5), (2, 2), (2, 1)), ((3, 20), (1,), (2,), (5,), (1,))])
def test_fold_as_movement_is_overlap_add(attrs: tuple, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "BACKEND", backend)
    shape, axes, sizes, strides, dilations = attrs
    lead = list(shape)
    for ax, k, s, d in zip(axes, sizes, strides, dilations):
        lead[ax] = (shape[ax] - d * (k - 1) - 1) // s + 1
    for n, dt in enumerate((np.float64, np.int32, BF16)):
        g = draw((*lead, *sizes), dt, n)
        got = evaluated(apply(OPS["fold"], (leaf_value(aval(g.shape, from_numpy(g.dtype), CPU), g),), attrs))
        assert got.tobytes() == (OPS["overlap_add"].eval_np(attrs, g) + g.dtype.type(0)).tobytes()


def test_gradient_of_a_strided_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in ("numpy", "native"):
        monkeypatch.setattr(config, "BACKEND", backend)
        for at in ((slice(None), slice(1, 40, 3)), (slice(4, 0, -1), slice(0, 37, 2)),
                   (slice(4, None, -2), slice(None, None, 2)), (slice(2, 3, 2), slice(5, 6, 7))):
            start, stop, step = zip(*[s.indices(n) for s, n in zip(at, (5, 40))])
            mark = mark_input(leaf_value(aval((5, 40), float64, CPU), draw((5, 40), np.float64)))
            y = P.slice_(mark, start, stop, step)
            g = draw(y.shape, np.float64, 3)
            (got,) = vjp_values([y], [leaf_value(aval(g.shape, float64, CPU), g)], [mark])
            want = np.zeros((5, 40))
            want[at] = g
            np.testing.assert_array_equal(evaluated(got), want)


# ------------------------------------------------------------------------------------------------------------- searching
@pytest.mark.parametrize("dt", [*ALL[:-1], np.uint32])
@pytest.mark.parametrize("right", [False, True])
def test_searchsorted(dt: Any, right: bool) -> None:
    for n in (0, 1, 2, 3, 8, 21, 64, 1000):
        table = np.sort(draw((3, n), np.float32, n) * 40, -1) if np.dtype(dt).kind in "fV" else np.sort(draw((3, n), dt, n), -1)
        table = table.astype(dt)
        values = np.concatenate([draw((3, 37), dt, 2), table[:, ::3]], -1)
        if np.dtype(dt).kind in "fV":
            values[0, :4] = [np.nan, np.inf, -np.inf, -0.0]
        compare("searchsorted", (right,), [table[0], values])
        if n:
            compare("searchsorted", (right,), [table, values])


def test_a_base_of_zeros_is_not_stored() -> None:
    """The gradient of an embedding: zeros made by the accumulating step itself, neither a kernel for them nor a copy."""
    def gradient(at: Any, g: Any) -> Any:
        return apply(OPS["take_put"], (P.full((500, 16), 0, g.dtype, g.device), at, g), (0, "add", False))

    graph = run_passes(trace(gradient, [aval((30,), int64, CPU), aval((30, 16), float64, CPU)]))
    program = Program(graph)
    assert [k.split("_")[0] for k in program.kernels()] == ["zeros", "put"]
    at, g = np.random.default_rng(0).integers(0, 500, 30), draw((30, 16), np.float64)
    (got,) = program([leaf_value(aval(a.shape, from_numpy(a.dtype), CPU), a) for a in (at, g)])
    want = np.zeros((500, 16))
    np.add.at(want, at, g)
    np.testing.assert_allclose(got, want, 1e-14)
