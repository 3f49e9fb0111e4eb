"""Native matrix products against NumPy in float64: layouts, edges of tiles, dtypes, vector widths, threads, special values."""
from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from graphc import dtypes
from graphc.codegen.native.gemm import gemm_jobs
from graphc.codegen.native.gemm_operand import Operand
from graphc.runtime import jit, pool, threads

if not jit.available():
    pytest.skip(jit.reason(), allow_module_level=True)

BITS = sorted({b for b in (128, 256, 512) if b <= jit.vector_bits()})


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


def to_bits(x: np.ndarray, dt: str) -> np.ndarray:
    """Float64 values as memory of a dtype; bfloat16 as its upper 16 bits, truncated."""
    if dt == "bfloat16":
        return (np.ascontiguousarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.ascontiguousarray(x).astype(dt)


def values(x: np.ndarray, dt: str) -> np.ndarray:
    """Memory of a dtype as float64."""
    return (x.astype(np.uint32) << 16).view(np.float32).astype(np.float64) if dt == "bfloat16" else x.astype(np.float64)


def round_bfloat16(x: np.ndarray) -> np.ndarray:
    """Float32 to the bits of the nearest bfloat16, ties to even."""
    u = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype(np.uint16)


def laid_out(x: np.ndarray, layout: str) -> tuple[np.ndarray, int, tuple[int, ...]]:
    """The last two axes of ``x`` in some memory order: (memory, element offset, strides in elements)."""
    *batch, rows, cols = x.shape
    if layout == "t":
        store = np.ascontiguousarray(x.swapaxes(-1, -2))
        view = store.swapaxes(-1, -2)
    elif layout == "strided":
        store = np.full((*batch, 2 * rows, 3 * cols), 77, x.dtype)
        view = store[..., ::2, 1::3]
    elif layout == "reversed":
        store = np.ascontiguousarray(x[..., ::-1, ::-1])
        view = store[..., ::-1, ::-1]
    elif layout == "offset":
        store = np.full((*batch, rows + 2, cols + 5), 77, x.dtype)
        view = store[..., 1:rows + 1, 3:cols + 3]
    elif layout == "column":
        store = np.full((*batch, cols + 1, rows + 3), 77, x.dtype)
        view = store.swapaxes(-1, -2)[..., 2:rows + 2, 1:]
    else:
        store = view = np.ascontiguousarray(x)
    view[...] = x
    offset = (view.ctypes.data - store.ctypes.data) // x.itemsize
    return store, offset, tuple([s // x.itemsize for s in view.strides])


def run(jobs: Sequence[Any], buffers: dict[Any, np.ndarray], nthreads: int) -> None:
    """Every job as a parallel wave of its own; own buffers begin as NaN everywhere."""
    threads.set_num_threads(nthreads)
    scratch = np.zeros(nthreads * max([j.scratch for j in jobs], default=0), np.uint8)
    buffers = {**buffers, "err": np.zeros(8, np.int64), "scratch": scratch}
    addresses = jit.engine().functions({j.symbol: j.text for j in jobs})
    keep, words = [], [len(jobs)]
    for j in jobs:
        for key, size in j.own.items():
            buffers[key] = np.full(size, 255, np.uint8)
        assert j.reads | j.writes <= set(buffers) and set(j.pointers) <= j.reads | j.writes | set(j.own) | {"err", "scratch"}
        keep.append(np.array([*[buffers[p].ctypes.data for p in j.pointers], *j.numbers], np.int64))
        words += [1, 1, addresses[j.symbol], keep[-1].ctypes.data]
    pool.run(np.array(words, np.int64).ctypes.data)


def product(a: np.ndarray, b: np.ndarray, dt: str = "float32", layout: tuple[str, str] = ("n", "n"), bits: int = BITS[-1],
            nthreads: int = 2, repeat: tuple[Sequence[int], Sequence[int]] = ((), ())) -> np.ndarray:
    """A @ B by the native jobs; ``a`` and ``b`` hold memory of the dtype, with equal batch axes. ``repeat``: those repeated."""
    batch, (m, k), n = a.shape[:-2], a.shape[-2:], b.shape[-1]
    operands, buffers = [], {}
    for key, x, how, again in (("A", a, layout[0], repeat[0]), ("B", b, layout[1], repeat[1])):
        kept = x[tuple([slice(0, 1) if d in again else slice(None) for d in range(len(batch))])]
        buffers[key], offset, strides = laid_out(kept, how)
        steps = tuple([0 if d in again else s for d, s in enumerate(strides[:-2])])
        operands.append(Operand(key, offset, steps, *strides[-2:]))
    guard = np.full(int(np.prod((*batch, m, n), dtype=int)) + 64, 1234, a.dtype)
    buffers["C"] = guard
    jobs = gemm_jobs(dt, tuple(batch), m, n, k, operands[0], operands[1], "C", "own", bits)
    run(jobs, buffers, nthreads)
    assert np.all(guard[-64:] == 1234), "stored beyond the end"
    return guard[:-64].reshape(*batch, m, n)


def check(shape: tuple[int, ...], dt: str = "float32", seed: int = 0, **how: Any) -> None:
    """Random operands of (batch..., m, n, k) against float64, by the error bound of an inner product (Higham, section 3.1)."""
    *batch, m, n, k = shape
    rng = np.random.default_rng(seed)
    a, b = to_bits(rng.standard_normal((*batch, m, k)), dt), to_bits(rng.standard_normal((*batch, k, n)), dt)
    for x, again in zip((a, b), how.get("repeat", ((), ()))):
        for d in again:
            x[...] = np.take(x, [0], d)
    got = values(product(a, b, dt, **how), dt)
    va, vb = values(a, dt), values(b, dt)
    unit = 2.0 ** -53 if dt == "float64" else 2.0 ** -24
    final = {"bfloat16": 2.0 ** -8, "float16": 2.0 ** -11}.get(dt, 0.0)
    bound = (k + 2) * unit * (np.abs(va) @ np.abs(vb)) + final * np.abs(va @ vb) * 1.01 + 1e-7 * (dt == "float16")
    assert np.all(np.abs(got - va @ vb) <= bound), (shape, dt, how)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dt", ["float32", "float64", "bfloat16", "float16"])
def test_sizes_around_the_tiles(dt: str, bits: int) -> None:
    sizes = (1, 2, 4, 5, 7, 8, 9, 16, 17, 31, 33, 49)
    rng = np.random.default_rng(bits)
    for i, (m, n) in enumerate(itertools.product(sizes, sizes)):
        if dt == "float32" or i % 3 == 0:
            layout = ("nt"[i % 2], "nt"[i // 2 % 2])
            check((m, n, int(rng.choice([1, 3, 8, 19, 40]))), dt, seed=i, bits=bits, nthreads=1 + i % 2, layout=layout)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dt", ["float32", "float64", "bfloat16", "float16"])
def test_layouts(dt: str, bits: int) -> None:
    how = ("n", "t", "strided", "reversed", "offset", "column")
    for la, lb in itertools.product(how, how):
        check((13, 70, 21), dt, bits=bits, layout=(la, lb))
        check((1, 37, 50), dt, bits=bits, layout=(la, lb))
        check((37, 1, 50), dt, bits=bits, layout=(la, lb))


@pytest.mark.parametrize("dt", ["float32", "bfloat16"])
def test_batches(dt: str) -> None:
    for layout in itertools.product("nt", "nt"):
        check((3, 9, 33, 10), dt, layout=layout)
        check((2, 3, 17, 20, 12), dt, layout=layout)
        check((4, 3, 2, 5, 6, 7), dt, layout=layout, repeat=((1,), (0, 2)))
        check((5, 1, 40, 30), dt, layout=layout, repeat=((0,), ()))
        check((5, 40, 1, 30), dt, layout=layout, repeat=((), (0,)))
        check((2, 65, 96, 64), dt, layout=layout, repeat=((), (0,)))


@pytest.mark.parametrize("dt", ["float32", "float64", "bfloat16", "float16"])
def test_large(dt: str) -> None:
    """Several blocks of k, tasks and packed panels."""
    for shape in ((200, 300, 600), (64, 1100, 300), (530, 40, 520)):
        for layout in itertools.product("nt", "nt"):
            check(shape, dt, layout=layout)


@pytest.mark.parametrize("dt", ["float32", "float64", "bfloat16", "float16"])
def test_long_sums(dt: str) -> None:
    """Few results: k is cut in parts and the parts are added in order."""
    for shape in ((10, 16, 5000), (3, 5, 4100), (1, 1, 30000), (2, 4, 4, 2048), (1, 40, 9000), (8, 1, 9000)):
        for layout in (("n", "n"), ("t", "n"), ("n", "t")):
            check(shape, dt, layout=layout)


def test_few_jobs_and_kernels() -> None:
    one = Operand("a", 0, (), 64, 1)
    assert len(gemm_jobs(dtypes.float32, (), 64, 64, 784, Operand("a", 0, (), 784, 1), Operand("b", 0, (), 1, 784), "c", "u", 512)) <= 2
    assert len(gemm_jobs("float32", (), 64, 64, 784, Operand("a", 0, (), 1, 64), Operand("b", 0, (), 64, 1), "c", "u", 512)) == 1
    assert len(gemm_jobs("float32", (), 64, 64, 64, one, one, "c", "u", 512)) == 1
    texts: dict[str, str] = {}
    rng = np.random.default_rng(0)
    for i in range(400):
        m, n, k = (int(x) for x in np.exp(rng.uniform(0.7, 8, 3)))  # products with vectors are printed kernels
        a = Operand("a", 0, (), *((k, 1) if i & 1 else (1, m)))
        b = Operand("b", 0, (), *((n, 1) if i & 2 else (1, k)))
        for j in gemm_jobs("float32", (), m, n, k, a, b, "c", "u", 512):
            assert texts.setdefault(j.symbol, j.text) == j.text
    assert len(texts) < 12, sorted(texts)


def test_empty() -> None:
    for dt in ("float32", "bfloat16"):
        for m, n in ((3, 5), (1, 7), (7, 1), (1, 1), (40, 70)):
            a, b = to_bits(np.zeros((m, 0)), dt), to_bits(np.zeros((0, n)), dt)
            assert np.all(product(a, b, dt) == 0)
        assert product(to_bits(np.zeros((0, 3)), dt), to_bits(np.zeros((3, 4)), dt), dt).shape == (0, 4)
        assert product(to_bits(np.zeros((2, 3)), dt), to_bits(np.zeros((3, 0)), dt), dt).shape == (2, 0)


def test_threads_and_batches_do_not_change_bits() -> None:
    rng = np.random.default_rng(0)
    for m, n, k in ((64, 64, 784), (1, 100, 3000), (100, 1, 3000), (1, 1, 20000), (10, 30, 9000), (300, 70, 600), (4, 500, 100)):
        a, b = to_bits(rng.standard_normal((m, k)), "float32"), to_bits(rng.standard_normal((k, n)), "float32")
        for layout in itertools.product("nt", "nt"):
            one = product(a, b, layout=layout, nthreads=1)
            assert all(np.array_equal(one, product(a, b, layout=layout, nthreads=t)) for t in (2, 3))


@pytest.mark.parametrize("bits", BITS)
def test_exact_sums_in_order(bits: int) -> None:
    """Products of tiles are one chain of fused multiply-adds in increasing k, over all blocks of k."""
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((40, 700), (700, 70)))
    want = np.zeros((40, 70))
    for k in range(700):  # float64 holds product and sum of float32 values closely enough to round as one operation
        want = (want + np.outer(a[:, k].astype(np.float64), b[k])).astype(np.float32).astype(np.float64)
    got = product(a, b, bits=bits)
    assert np.mean(got == want) > 0.999  # double rounding may differ in the last bit once in 2**29 steps


@pytest.mark.parametrize("dt", ["float32", "bfloat16"])
def test_special_values_stay_where_they_are(dt: str) -> None:
    """0 * inf is NaN; NaN and inf reach exactly their rows and columns, for every position near the edges of tiles."""
    for m, n, k in ((17, 35, 20), (1, 50, 40), (50, 1, 40), (9, 9, 33), (1, 1, 40), (12, 40, 4500)):
        for layout in itertools.product("nt", "nt"):
            for special in (np.nan, np.inf):
                a, b = np.ones((m, k)), np.ones((k, n))
                a[-1, k // 2], b[k - 1, -1] = special, 0.0
                b[k // 2, 0] = 0.0 if n > 1 else 1.0
                got = values(product(to_bits(a, dt), to_bits(b, dt), dt, layout=layout), dt)
                with np.errstate(invalid="ignore"):
                    want = a @ b
                plain = np.isfinite(want)
                assert np.array_equal(np.isnan(got), np.isnan(want)) and np.array_equal(np.isinf(got), np.isinf(want))
                assert np.all(np.abs(got[plain] - want[plain]) <= 2.0 ** -8 * np.abs(want[plain]))
    a, b = to_bits(np.full((3, 4), 3e38), dt), to_bits(np.full((4, 5), 3e38), dt)
    assert np.all(np.isposinf(values(product(a, b, dt), dt)))


def test_bfloat16_rounds_once() -> None:
    """Equal to the float32 product rounded to nearest even, ties included."""
    rng = np.random.default_rng(2)
    a, b = (to_bits(rng.integers(-16, 17, s).astype(float), "bfloat16") for s in ((33, 40), (40, 50)))
    exact = values(a, "bfloat16") @ values(b, "bfloat16")  # whole numbers below 2**24
    for layout in itertools.product("nt", "nt"):
        assert np.array_equal(product(a, b, "bfloat16", layout=layout), round_bfloat16(exact))
        assert np.array_equal(product(a[:1], b, "bfloat16", layout=layout), round_bfloat16(exact[:1]))
        assert np.array_equal(product(a, b[:, :1], "bfloat16", layout=layout), round_bfloat16(exact[:, :1]))
