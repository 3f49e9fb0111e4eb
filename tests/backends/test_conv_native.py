"""Native convolutions against the op table's NumPy rows, for both vector widths and any number of threads."""
from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from graphc.codegen.native.conv import conv_jobs
from graphc.codegen.native.gemm_kernel import DTYPES
from graphc.device import device
from graphc.dtypes import from_numpy
from graphc.ir.node import aval
from graphc.ir.optable import OPS
from graphc.runtime import jit

pytestmark = pytest.mark.skipif(not jit.available(), reason="no llvmlite")
BITS = (256, 512) if jit.available() and jit.vector_bits() == 512 else (256,)
OPERATIONS = ("conv", "conv_input_grad", "conv_weight_grad")
GUARD = 64  # bytes behind every buffer that must stay as they were
_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)

# n, c, h, w, o, kh, kw, stride, pad_lo, pad_hi, dilation, groups
CASES = [
    (2, 3, 6, 5, 4, 3, 2, (2, 1), (1, 0), (1, 1), (1, 2), 1),
    (1, 1, 7, 9, 17, 3, 3, (1, 1), (1, 1), (1, 1), (1, 1), 1),
    (3, 6, 11, 13, 8, 5, 5, (2, 3), (2, 1), (0, 2), (1, 1), 2),
    (2, 64, 8, 8, 64, 3, 3, (1, 1), (1, 1), (1, 1), (1, 1), 1),
    (2, 17, 8, 8, 33, 1, 1, (2, 2), (0, 0), (0, 0), (1, 1), 1),
    (2, 16, 8, 8, 16, 1, 1, (1, 1), (0, 0), (0, 0), (1, 1), 1),
    (2, 5, 9, 9, 5, 3, 3, (2, 2), (1, 1), (1, 1), (2, 2), 5),
    (2, 6, 12, 33, 12, 3, 3, (1, 1), (1, 1), (1, 1), (1, 1), 6),
    (1, 3, 2, 2, 3, 5, 5, (1, 1), (3, 2), (2, 3), (1, 1), 1),
    (1, 2, 30, 30, 3, 9, 9, (1, 1), (0, 0), (0, 0), (2, 3), 1),
    (3, 4, 4, 4, 64, 3, 3, (1, 1), (1, 1), (1, 1), (1, 1), 1),
    (2, 4, 1, 1, 3, 1, 1, (1, 1), (2, 1), (0, 0), (1, 1), 1),
    (2, 4, 7, 7, 3, 2, 2, (3, 3), (0, 0), (0, 0), (1, 1), 1),
    (5, 1, 28, 28, 6, 5, 5, (1, 1), (2, 2), (2, 2), (1, 1), 1),
    (2, 3, 17, 34, 20, 3, 3, (2, 2), (1, 1), (1, 1), (1, 1), 1),
    (2, 3, 9, 75, 6, 3, 4, (2, 2), (1, 2), (0, 1), (1, 3), 3),
    (2, 4, 9, 9, 5, 1, 1, (2, 2), (0, 0), (0, 0), (1, 1), 1),
    (17, 20, 7, 9, 33, 3, 3, (1, 1), (1, 0), (0, 2), (1, 1), 1),
    (9, 40, 9, 18, 66, 3, 3, (2, 2), (1, 1), (1, 1), (1, 2), 2),
    (20, 2, 22, 37, 2, 3, 3, (1, 1), (1, 1), (1, 1), (1, 1), 2),
    (17, 69, 11, 3, 57, 1, 1, (1, 1), (2, 0), (2, 2), (2, 1), 3),  # several chunks, rows that fill no whole tiles
    (0, 3, 5, 5, 2, 3, 3, (1, 1), (1, 1), (1, 1), (1, 1), 1),
]


def native(op: str, attrs: tuple, arrays: list[np.ndarray], bits: int, nthreads: int) -> np.ndarray | None:
    """What the native jobs of a primitive give; None if there are none. Checks that nothing else is written."""
    ins = [aval(a.shape, from_numpy(a.dtype), device("cpu")) for a in arrays]
    out = OPS[op].infer(attrs, *ins)
    jobs = conv_jobs(op, attrs, ins, out, ["a", "b"], "out", 7, bits)
    if jobs is None:
        return None
    sizes: dict[Any, int] = {"out": out.nbytes}
    for job in jobs:
        sizes.update(job.own)
    memory = {key: np.full(n + GUARD, 0xFF, np.uint8) for key, n in sizes.items()}  # NaN wherever nothing is written
    for key, a in zip("ab", arrays):
        memory[key] = np.frombuffer(a.tobytes(), np.uint8).copy()
    before = {key: memory[key].copy() for key in "ab"}
    for job in jobs:
        assert job.reads | job.writes == set(job.pointers) - {"scratch"}
        memory["scratch"] = np.full(job.scratch * nthreads + GUARD, 0xFF, np.uint8)
        sizes["scratch"] = job.scratch * nthreads
        args = np.array([*[memory[p].ctypes.data for p in job.pointers], *job.numbers], np.int64)
        run = _CALL(jit.engine().functions({job.symbol: job.text})[job.symbol])
        for tid in range(nthreads):
            run(args.ctypes.data, tid, nthreads)
        assert (memory["scratch"][job.scratch * nthreads:] == 0xFF).all(), "scratch overrun"
    assert all((memory[key][n:] == 0xFF).all() for key, n in sizes.items()), "buffer overrun"
    assert all((memory[key] == before[key]).all() for key in "ab"), "an input was written"
    return memory["out"][:out.nbytes].view(out.dtype.np).reshape(out.shape)


def operands(case: tuple, op: str) -> tuple[tuple, list[np.ndarray]]:
    """Attributes and float64 operands of a primitive."""
    n, c, h, w, o, kh, kw, stride, lo, hi, dilation, groups = case
    rng = np.random.default_rng(0)
    attrs = (stride, lo, hi, dilation, groups)
    x, f = rng.standard_normal((n, c, h, w)), rng.standard_normal((o, c // groups, kh, kw))
    shape = OPS["conv"].infer(attrs, *[aval(a.shape, from_numpy(a.dtype), device("cpu")) for a in (x, f)]).shape
    g = rng.standard_normal(shape)
    return {"conv": (attrs, [x, f]), "conv_input_grad": ((*attrs, (h, w)), [g, f]),
            "conv_weight_grad": ((*attrs, (kh, kw)), [x, g])}[op]


def agrees(op: str, attrs: tuple, arrays: list[np.ndarray], dt: Any, bits: int) -> None:
    """Native results equal the NumPy row and do not depend on the number of threads."""
    want = OPS[op].eval_np(attrs, *arrays)
    cast = [a.astype(dt) for a in arrays]
    got = native(op, attrs, cast, bits, 1)
    assert got is not None
    scale = np.abs(want).max() * (1e-13 if dt == np.float64 else 1e-5)
    np.testing.assert_allclose(got, want, atol=scale, rtol=0)
    for nthreads in (2, 3):
        assert native(op, attrs, cast, bits, nthreads).tobytes() == got.tobytes()  # type: ignore[union-attr]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dt", [np.float32, np.float64])
@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("case", CASES, ids=[str(k) for k in range(len(CASES))])
def test_against_numpy(case: tuple, op: str, dt: Any, bits: int) -> None:
    attrs, arrays = operands(case, op)
    if any(a.size == 0 for a in arrays):
        assert native(op, attrs, arrays, bits, 1) is None
    else:
        agrees(op, attrs, arrays, dt, bits)


@pytest.mark.parametrize("op", OPERATIONS)
def test_one_axis(op: str) -> None:
    rng = np.random.default_rng(1)
    attrs: tuple = ((2,), (1,), (2,), (2,), 2)
    x, f = rng.standard_normal((2, 4, 19)), rng.standard_normal((6, 2, 3))
    g = rng.standard_normal(OPS["conv"].eval_np(attrs, x, f).shape)
    at, arrays = {"conv": (attrs, [x, f]), "conv_input_grad": ((*attrs, (19,)), [g, f]),
                  "conv_weight_grad": ((*attrs, (3,)), [x, g])}[op]
    agrees(op, at, arrays, np.float64, BITS[-1])


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_infinite_and_nan_operands_spread_as_in_numpy(bad: float) -> None:
    for where in (0, 1):
        attrs, arrays = operands(CASES[1], "conv")
        arrays[where].reshape(-1)[5] = bad
        with np.errstate(invalid="ignore"):
            want = OPS["conv"].eval_np(attrs, *arrays)
        got = native("conv", attrs, arrays, BITS[-1], 2)
        assert got is not None and not np.isfinite(want).all()
        np.testing.assert_allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(op: str, name: str) -> None:
    dt = DTYPES[name].np
    attrs, arrays = operands(CASES[2], op)
    cast = [a.astype(dt) for a in arrays]
    want = OPS[op].eval_np(attrs, *[a.astype(np.float64) for a in cast])
    got = native(op, attrs, cast, BITS[-1], 2)
    assert got is not None and got.dtype == dt
    step = 2.0 ** (-11 if name == "float16" else -8)  # half a unit in the last place, relatively
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=step * 1.01, atol=np.abs(want).max() * 1e-5)


# size, kernel, stride, pad_lo, pad_hi, dilation, channels in and out, groups
VOLUMES = [
    ((4, 6, 9), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1), 4, 20, 1),
    ((5, 7, 8), (2, 3, 4), (2, 1, 2), (1, 0, 2), (0, 1, 1), (2, 2, 1), 4, 6, 2),
    ((5, 7, 20), (3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1), (1, 1, 1), 3, 3, 3),
    ((4, 3, 5), (1, 1, 1), (1, 1, 1), (0, 0, 0), (0, 0, 0), (1, 1, 1), 5, 33, 1),
    ((4, 3, 5), (1, 1, 1), (2, 2, 2), (0, 0, 0), (0, 0, 0), (1, 1, 1), 5, 33, 1),
    ((1, 4, 7), (1, 1, 1), (2, 1, 3), (1, 0, 3), (0, 3, 0), (1, 1, 1), 32, 140, 2),  # one plane, all border
    ((1, 2, 2), (3, 1, 2), (3, 1, 1), (2, 1, 0), (3, 0, 1), (1, 1, 1), 2, 17, 1),
]


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("case", VOLUMES, ids=[str(k) for k in range(len(VOLUMES))])
def test_three_axes(case: tuple, op: str) -> None:
    size, kernel, stride, lo, hi, dilation, c, o, groups = case
    rng = np.random.default_rng(2)
    attrs = (stride, lo, hi, dilation, groups)
    x, f = rng.standard_normal((9, c, *size)), rng.standard_normal((o, c // groups, *kernel))
    g = rng.standard_normal(OPS["conv"].eval_np(attrs, x, f).shape)
    at, arrays = {"conv": (attrs, [x, f]), "conv_input_grad": ((*attrs, size), [g, f]),
                  "conv_weight_grad": ((*attrs, kernel), [x, g])}[op]
    for dt, bits in ((np.float32, BITS[-1]), (np.float64, BITS[0])):
        agrees(op, at, arrays, dt, bits)


@pytest.mark.parametrize("seed", range(24))
def test_random_shapes(seed: int) -> None:
    """Any combination of sizes: what was found wrong only by such tests came from edges of tiles and chunks."""
    rng = np.random.default_rng(seed)

    def some(lo: int, hi: int, n: int) -> tuple[int, ...]:
        return tuple(int(v) for v in rng.integers(lo, hi + 1, n))

    op, nd, (groups, per, lanes) = OPERATIONS[seed % 3], 1 + seed % 3, (*some(1, 3, 1), *some(1, 40, 2))
    kernel, stride, dilation, lo, hi = some(1, 4, nd), some(1, 3, nd), some(1, 2, nd), some(0, 3, nd), some(0, 3, nd)
    n = int(rng.choice([1, 3, 17]))
    size = tuple(d * (k - 1) + int(rng.integers(1, 12 if nd < 3 else 4)) for d, k in zip(dilation, kernel))
    attrs = (stride, lo, hi, dilation, groups)
    x, f = rng.standard_normal((n, per * groups, *size)), rng.standard_normal((lanes * groups, per, *kernel))
    g = rng.standard_normal(OPS["conv"].eval_np(attrs, x, f).shape)
    at, arrays = {"conv": (attrs, [x, f]), "conv_input_grad": ((*attrs, size), [g, f]),
                  "conv_weight_grad": ((*attrs, kernel), [x, g])}[op]
    agrees(op, at, arrays, (np.float32, np.float64)[seed // 3 % 2], BITS[seed // 6 % len(BITS)])


def test_four_axes_are_left_to_numpy() -> None:
    attrs = ((1,) * 4, (0,) * 4, (0,) * 4, (1,) * 4, 1)
    assert native("conv", attrs, [np.ones((1, 2, 3, 3, 3, 3)), np.ones((2, 2, 1, 1, 1, 1))], BITS[-1], 1) is None
