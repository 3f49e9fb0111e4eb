"""Matrix products: any layout, batches, epilogues and sums in parts under the interpreter; tensor cores in the machine code."""
from __future__ import annotations

import math

import numpy as np
import pytest
from triton_run import run_printed

from graphc.codegen.index import flatten, var
from graphc.codegen.loop_ir import Access, Buf, Kernel, Stmt, Store
from graphc.codegen.native.contraction import Product, View, product, view_of
from graphc.codegen.triton import compiler
from graphc.codegen.triton.compiler import A100, H100, Target
from graphc.codegen.triton.matmul import Tile, can_end_in, choose, positions, print_product, product_levels, vector_kernel
from graphc.codegen.triton.printer import print_kernel
from graphc.device import CPU
from graphc.dtypes import bfloat16, float16, float32, float64, int32, int64
from graphc.ir.node import aval

TOL = {float64: 1e-12, float32: 2e-5, float16: 4e-3, bfloat16: 3e-2}


def dense(batch: tuple[int, ...], m: int, n: int, k: int, ta: bool = False, tb: bool = False) -> Product:
    """Contiguous operands, transposed in memory where asked."""
    nb = [math.prod(batch[i + 1:]) for i in range(len(batch))]
    return Product(batch, m, n, k, tuple([s * m * k for s in nb]), tuple([s * k * n for s in nb]), (1, m) if ta else (k, 1),
                   (1, k) if tb else (n, 1))


def views(p: Product, a: np.ndarray, b: np.ndarray, offsets=(0, 0)):
    def strided(flat, off, shape, strides):
        return np.lib.stride_tricks.as_strided(flat[off:], shape, [s * flat.itemsize for s in strides])
    return (strided(a, offsets[0], (*p.batch, p.m, p.k), (*p.batch_a, *p.a)),
            strided(b, offsets[1], (*p.batch, p.k, p.n), (*p.batch_b, *p.b)))


def operands(p: Product, dt, offsets=(0, 0)):
    r = np.random.default_rng(7)
    spans = [off + sum((n - 1) * s for n, s in zip(sizes, strides)) + 1 for off, sizes, strides in
             ((offsets[0], (*p.batch, p.m, p.k), (*p.batch_a, *p.a)), (offsets[1], (*p.batch, p.k, p.n), (*p.batch_b, *p.b)))]
    return [r.uniform(-1, 1, n).astype(dt.np) if dt.is_floating_point else r.integers(-9, 9, n).astype(dt.np) for n in spans]


def check(interpreter, p: Product, dt, tile: Tile | None = None, offsets=(0, 0), epilogue=None, keep=True, extra=None, outs=()):
    a, b = operands(p, dt, offsets)
    size = math.prod(p.batch) * p.m * p.n
    wide = np.float64 if dt is float64 else np.float32
    parts = (tile or choose(p, dt, H100)).parts
    values = {"a": a, "b": b, "c": np.zeros(size, dt.np), "partial": np.full(size * parts, np.nan, wide), **(extra or {})}
    for printed in print_product(p, dt, ("a", "b", "c"), H100, offsets, epilogue, keep, tile, "partial"):
        run_printed(interpreter, printed, values)
    va, vb = views(p, a, b, offsets)
    want = np.matmul(va.astype(np.float64), vb.astype(np.float64)).reshape(-1)
    if keep:
        np.testing.assert_allclose(values["c"].astype(np.float64), want, rtol=TOL[dt], atol=TOL[dt] * math.sqrt(p.k))
    return want, values


SMALL = {float32: Tile(32, 32, 16, 4, 2), float64: Tile(32, 32, 16, 4, 2), bfloat16: Tile(32, 32, 16, 4, 2), float16: Tile(32, 32, 16, 4, 2)}


@pytest.mark.parametrize("dt", [float32, float64, float16, bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
def test_layouts(dt, layout: str, interpreter) -> None:
    """Sizes that fill tiles and sizes that do not."""
    for m, n, k in ((64, 32, 32), (37, 45, 19)):
        check(interpreter, dense((), m, n, k, layout[0] == "t", layout[1] == "t"), dt, SMALL[dt])


def test_blocks_in_halves(interpreter) -> None:
    """Long expressions behind a product are printed for one half of the block after the other."""
    for dt in (float32, bfloat16):
        for parts in (1, 3):
            tile = Tile(32, 64, 16, 4, 2, parts, False, 2)
            for p in (dense((), 64, 64, 80), dense((2,), 37, 75, 90, False, True)):
                extents = (*p.batch, p.m, p.n)
                bias = np.random.default_rng(1).uniform(-3, 3, p.n).astype(dt.np)
                want, values = check(interpreter, p, dt, tile, (0, 0), bias_relu(extents, dt), True,
                                     {"bias": bias, "y": np.zeros(math.prod(extents), dt.np)})
                full = np.maximum(want.astype(dt.np).astype(np.float64).reshape(-1, p.n) + bias.astype(np.float64), 0)
                np.testing.assert_allclose(values["y"].astype(np.float64), full.reshape(-1), rtol=TOL[dt], atol=8 * TOL[dt])


def test_batches(interpreter) -> None:
    check(interpreter, dense((3,), 33, 17, 20), float32, SMALL[float32])
    check(interpreter, dense((2, 3), 16, 32, 16, True), float32, SMALL[float32])
    p = Product((2, 3), 20, 18, 24, (0, 480), (432, 0), (24, 1), (18, 1))  # broadcast along one batch axis each
    check(interpreter, p, float32, SMALL[float32])


def test_strided_operands(interpreter) -> None:
    """Rows of a wider matrix, every second column, an offset into the memory."""
    p = Product((), 20, 18, 24, (), (), (100, 2), (1, 50))
    check(interpreter, p, float32, SMALL[float32], (7, 3))


@pytest.mark.parametrize("parts", [2, 5])
def test_sum_in_parts(parts: int, interpreter) -> None:
    for dt in (float32, bfloat16, float64):
        check(interpreter, dense((), 40, 33, 200, True), dt, Tile(32, 32, 16, 4, 2, parts))
    check(interpreter, dense((2,), 20, 16, 130), float32, Tile(32, 32, 16, 4, 2, parts))
    check(interpreter, dense((), 20, 16, 600), bfloat16, Tile(32, 32, 16, 4, 2, 16 + parts))


def test_parts_repeat_and_cover(interpreter) -> None:
    """More parts than there is work leaves some empty; the order of the sum is fixed."""
    _, first = check(interpreter, dense((), 20, 16, 40), float32, Tile(32, 32, 16, 4, 2, 8))
    _, again = check(interpreter, dense((), 20, 16, 40), float32, Tile(32, 32, 16, 4, 2, 8))
    assert np.array_equal(first["c"], again["c"])


def bias_relu(extents, dt, row: bool = True, second: bool = False) -> Kernel:
    """relu(c + bias) with bias along the last axis."""
    d = len(extents)
    own = flatten([var(i) for i in range(d)], extents)
    size = math.prod(extents)
    bufs = [Buf("c", dt, size), Buf("bias", dt, extents[-1]), Buf("y", dt, size)]
    stmts = [Stmt("load", (), dt, Access(0, own)), Stmt("load", (), dt, Access(1, var(d - 1))), Stmt("add", (0, 1), dt),
             Stmt("const", (), dt, np.zeros((), dt.np).tobytes()), Stmt("maximum", (2, 3), dt)]
    return Kernel("k0_bias_relu", tuple(extents), d, tuple(bufs), tuple(stmts), (Store(Access(2, own), 4),))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("parts", [1, 3])
def test_epilogue(keep: bool, parts: int, interpreter) -> None:
    for dt, p, extents in ((float32, dense((), 37, 40, 50), (37, 40)), (bfloat16, dense((), 64, 32, 64), (64, 32)),
                           (float32, dense((), 36, 40, 50), (4, 9, 40)), (float32, dense((2,), 18, 40, 50), (36, 40)),
                           (float32, dense((2,), 18, 40, 50), (2, 3, 6, 40))):
        k = bias_relu(extents, dt)
        assert can_end_in(k, "c", product_levels(p))
        bias = np.random.default_rng(1).uniform(-3, 3, extents[-1]).astype(dt.np)
        tile = Tile(32, 32, 16, 4, 2, parts)
        want, values = check(interpreter, p, dt, tile, (0, 0), k, keep,
                             {"bias": bias, "y": np.zeros(math.prod(extents), dt.np)})
        full = np.maximum(want.astype(dt.np).astype(np.float64).reshape(-1, extents[-1]) + bias.astype(np.float64), 0)
        np.testing.assert_allclose(values["y"].astype(np.float64), full.reshape(-1), rtol=TOL[dt], atol=8 * TOL[dt])
        if not keep:
            assert not values["c"].any()


def test_flat_epilogue(interpreter) -> None:
    """A kernel whose axes were merged into one; one that reads the product elsewhere can't be printed into it."""
    p = dense((), 33, 20, 16)
    own = var(0)
    k = Kernel("k0_double", (660,), 1, (Buf("c", float32, 660), Buf("y", float32, 660)),
               (Stmt("load", (), float32, Access(0, own)), Stmt("add", (0, 0), float32)), (Store(Access(1, own), 1),))
    assert can_end_in(k, "c", product_levels(p))
    want, values = check(interpreter, p, float32, SMALL[float32], (0, 0), k, True, {"y": np.zeros(660, np.float32)})
    np.testing.assert_allclose(values["y"], 2 * want, rtol=1e-4, atol=1e-4)
    turned = flatten([var(1), var(0)], (20, 33))
    k2 = Kernel("k", (33, 20), 2, k.buffers, (Stmt("load", (), float32, Access(0, turned)),), (Store(Access(1, turned), 0),))
    assert not can_end_in(k2, "c", product_levels(p))
    assert positions((9,), product_levels(dense((), 5, 7, 2))) is None


@pytest.mark.parametrize("dt", [float32, bfloat16, int64, int32], ids=str)
def test_vectors_and_integers(dt, interpreter) -> None:
    for p in (dense((), 1, 40, 70), dense((), 70, 1, 33), dense((3,), 20, 1, 16), dense((2,), 1, 1, 9), dense((), 5, 6, 7)):
        a, b = operands(p, dt)
        values = {"a": a, "b": b, "c": np.zeros(math.prod(p.batch) * p.m * p.n, dt.np)}
        run_printed(interpreter, print_kernel(vector_kernel(p, dt, ("a", "b", "c"), (a.size, b.size), (0, 0))), values)
        va, vb = views(p, a, b)
        if dt.is_floating_point:
            want = np.matmul(va.astype(np.float64), vb.astype(np.float64)).reshape(-1)
            np.testing.assert_allclose(values["c"].astype(np.float64), want, rtol=TOL[dt], atol=8 * TOL[dt])
        else:
            np.testing.assert_array_equal(values["c"], np.matmul(va, vb).reshape(-1))


def test_contract_nodes(interpreter) -> None:
    """From a contract node's attributes and views to a product."""
    a, b = aval((3, 24, 5), float32, CPU), aval((3, 40, 24), float32, CPU)
    p = product(((0,), (0,), (1,), (2,)), a, b, view_of(a, None), view_of(b, None))
    assert p is not None
    check(interpreter, p, float32, SMALL[float32])
    p = product(((), (), (0,), (0,)), aval((24, 5), float32, CPU), aval((24, 3), float32, CPU), View(0, (10, 2)), View(0, (1, 24)))
    assert p is not None
    check(interpreter, p, float32, SMALL[float32])


@pytest.mark.parametrize("target", [A100, H100], ids=str)
@pytest.mark.parametrize("dt", [bfloat16, float32, float64], ids=str)
@pytest.mark.usefixtures("triton_installed")
def test_machine_code(dt, target: Target) -> None:
    """Tensor cores, 16-byte asynchronous copies, no spills, for large products and for sizes that fill no tile."""
    products = [dense((), 4096, 4096, 1024), dense((), 4096, 4096, 1024, tb=True), dense((), 4096, 4096, 1024, True)]
    if dt is float64:
        products = [dense((), 512, 512, 256)]
    else:
        products += [dense((), 1000, 1000, 504), dense((), 1001, 999, 501, True)]
    printed = [print_product(p, dt, (0, 1, 2), target)[0] for p in products]
    for p, c in zip(products, compiler.compiler(target).get(printed).values()):
        assert c.spills == 0 and c.shared <= target.shared_limit, (c.symbol, c.spills, c.registers, c.shared)
        assert c.facts["wgmma" if dt is bfloat16 and target is H100 else "mma"] or c.facts["wgmma"], c.facts
        if p.m % 8 == 0 and not c.facts["tma"]:
            assert c.facts["wide_async"] and c.facts["wide_async"] == c.facts["async"], c.facts
            assert c.facts["wide_stores"] == c.facts["stores"]


@pytest.mark.usefixtures("triton_installed")
def test_new_sizes_reuse_the_code() -> None:
    """Sizes are arguments: two products that differ in size only are one kernel."""
    a, = print_product(dense((), 1024, 512, 256), bfloat16, (0, 1, 2), H100, tile=Tile(64, 64, 64, 4, 4))
    b, = print_product(dense((), 2048, 256, 512), bfloat16, (3, 4, 5), H100, tile=Tile(64, 64, 64, 4, 4))
    assert a.symbol == b.symbol and a.programs() == 16 * 8 and b.programs() == 32 * 4
    c, = print_product(dense((), 1000, 256, 512), bfloat16, (3, 4, 5), H100, tile=Tile(64, 64, 64, 4, 4))
    assert c.symbol != a.symbol  # rows that end inside a tile need masks


def test_choice() -> None:
    """Large products take large tiles, weight gradients are cut into parts, everything fits the shared memory."""
    big = choose(dense((), 8192, 8192, 4096), bfloat16, H100)
    assert (big.m * big.n, big.parts) == (128 * 256, 1)
    grad = choose(dense((), 768, 768, 32768, True), bfloat16, H100)
    assert grad.parts > 1 and grad.parts * -(-768 // grad.m) * -(-768 // grad.n) >= 66
    assert choose(dense((), 3, 5, 7), float32, A100).parts == 1
    for dt in (bfloat16, float32, float64):
        for target in (A100, H100, Target("cuda", 86), Target("cuda", 89)):
            for sizes in ((8192, 8192, 512), (10, 64, 64), (784, 1024, 256), (1, 1, 1)):
                t = choose(dense((), *sizes), dt, target)
                assert t.stages * (t.m + t.n) * t.k * dt.itemsize <= target.shared_limit


