"""Persistent products through tensor descriptors: values under the interpreter; what the machine code for sm_90 consists of."""
from __future__ import annotations

import itertools
import math
import re
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_matmul import TOL, bias_relu, check, dense, operands, views
from triton_run import run_printed

from graphc.codegen.index import flatten, var
from graphc.codegen.loop_ir import Access, Buf, Kernel, Stmt, Store
from graphc.codegen.native.contraction import Product
from graphc.codegen.triton import compiler, tiling
from graphc.codegen.triton.compiler import A100, H100, MI300, Target
from graphc.codegen.triton.matmul import can_end_in, choose, print_product, product_levels
from graphc.codegen.triton.tiling import Tile, has_descriptors, is_heavy, shared_bytes
from graphc.dtypes import bfloat16, float16, float32

SMALL = Tile(32, 32, 16, 4, 2, 1, True, 1)
HALVES = Tile(32, 64, 16, 4, 2, 1, True, 2)


@pytest.mark.parametrize("tile", [SMALL, HALVES], ids=["whole", "halves"])
@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
def test_layouts(layout: str, tile: Tile, interpreter) -> None:
    """Sizes that fill tiles and sizes that end inside, more tiles than programs."""
    for dt, (m, n, k) in ((bfloat16, (64, 64, 32)), (float16, (40, 72, 24)), (bfloat16, (96, 136, 40))):
        check(interpreter, dense((), m, n, k, layout[0] == "t", layout[1] == "t"), dt, tile)


def test_few_programs_take_many_tiles(interpreter) -> None:
    """The loop over tiles: with 5 processors every program has several."""
    from graphc.codegen.triton.matmul import finished
    from graphc.codegen.triton.matmul_tma import Persistent

    p = dense((), 136, 168, 24, False, True)
    a, b = operands(p, bfloat16)
    for tile in (SMALL, HALVES, replace(SMALL, parts=3)):
        made = finished(Persistent(p, bfloat16, tile, (0, 0), ("a", "b"), 5, True), "k_product", "c", product_levels(p), None,
                        True, "partial")
        assert made[0].programs() == 5
        values = {"a": a, "b": b, "c": np.zeros(p.m * p.n, bfloat16.np), "partial": np.full(p.m * p.n * 3, np.nan, np.float32)}
        for printed in made:
            run_printed(interpreter, printed, values)
        va, vb = views(p, a, b)
        want = va.astype(np.float64) @ vb.astype(np.float64)
        np.testing.assert_allclose(values["c"].astype(np.float64), want.reshape(-1), rtol=TOL[bfloat16], atol=0.2)


def test_batches(interpreter) -> None:
    """Several matrices; one operand shared by all of them."""
    check(interpreter, dense((3,), 40, 24, 16, False, True), bfloat16, SMALL)
    check(interpreter, dense((2,), 32, 72, 24, True), float16, HALVES)
    check(interpreter, Product((3,), 40, 24, 16, (640,), (0,), (16, 1), (24, 1)), bfloat16, SMALL)
    check(interpreter, Product((3,), 40, 24, 16, (0,), (384,), (16, 1), (24, 1)), bfloat16, SMALL)


def test_strided_operands(interpreter) -> None:
    """Parts of wider matrices at an offset."""
    check(interpreter, Product((), 40, 24, 16, (), (), (64, 1), (1, 48)), bfloat16, SMALL, (8, 16))


def test_a_result_without_a_descriptor(interpreter) -> None:
    """Rows of the result that are no multiple of 16 bytes are written through pointers."""
    check(interpreter, dense((), 40, 51, 24, False, True), bfloat16, SMALL)
    check(interpreter, dense((), 40, 67, 24, True, True), bfloat16, HALVES)


@pytest.mark.parametrize("parts", [2, 5])
def test_sum_in_parts(parts: int, interpreter) -> None:
    check(interpreter, dense((), 40, 32, 200, True), bfloat16, replace(SMALL, parts=parts))
    check(interpreter, dense((2,), 24, 72, 136, True), float16, replace(HALVES, parts=parts))
    check(interpreter, dense((), 40, 24, 24), bfloat16, replace(SMALL, parts=4))  # parts that are empty


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("tile", [SMALL, HALVES], ids=["whole", "halves"])
def test_epilogue(keep: bool, tile: Tile, interpreter) -> None:
    for p, extents in ((dense((), 40, 72, 48), (40, 72)), (dense((), 36, 40, 48, False, True), (4, 9, 40)),
                       (dense((2,), 24, 40, 48), (48, 40)), (dense((), 40, 75, 48, False, True), (40, 75))):
        k = bias_relu(extents, bfloat16)
        assert can_end_in(k, "c", product_levels(p))
        bias = np.random.default_rng(1).uniform(-3, 3, extents[-1]).astype(bfloat16.np)
        want, values = check(interpreter, p, bfloat16, tile, (0, 0), k, keep,
                             {"bias": bias, "y": np.zeros(math.prod(extents), bfloat16.np)})
        full = np.maximum(want.astype(bfloat16.np).astype(np.float64).reshape(-1, extents[-1]) + bias.astype(np.float64), 0)
        np.testing.assert_allclose(values["y"].astype(np.float64), full.reshape(-1), rtol=TOL[bfloat16], atol=8 * TOL[bfloat16])
        if not keep:
            assert not values["c"].any()


def test_where_descriptors_can_be_used() -> None:
    """Types, devices, alignment of addresses and distances, the innermost stride."""
    p = dense((), 256, 256, 256)
    assert has_descriptors(p, bfloat16, H100) and has_descriptors(p, float16, H100, (8, 16))
    for target in (A100, MI300, Target("cuda", 89)):
        assert not has_descriptors(p, bfloat16, target)
    assert not has_descriptors(p, float32, H100) and not has_descriptors(p, bfloat16, H100, (4, 0))
    assert not has_descriptors(dense((), 256, 256, 252), bfloat16, H100)
    assert has_descriptors(dense((), 252, 256, 256), bfloat16, H100) and not has_descriptors(dense((), 252, 256, 256, True), bfloat16, H100)
    assert not has_descriptors(Product((), 64, 64, 64, (), (), (128, 2), (64, 1)), bfloat16, H100)
    assert not has_descriptors(Product((), 64, 64, 64, (), (), (0, 1), (64, 1)), bfloat16, H100)
    assert not has_descriptors(Product((2, 2), 64, 64, 64, (8192, 4096), (8192, 4096), (64, 1), (64, 1)), bfloat16, H100)
    assert not has_descriptors(Product((2,), 64, 64, 64, (4100,), (4096,), (64, 1), (64, 1)), bfloat16, H100)


def test_choice() -> None:
    """Large aligned products are persistent, small and odd ones are not; nothing asks for more shared memory than there is."""
    assert choose(dense((), 4096, 4096, 4096), bfloat16, H100).tma and choose(dense((), 32768, 768, 768, False, True), float16, H100).tma
    grad = choose(dense((), 768, 768, 32768, True), bfloat16, H100)
    assert grad.tma and grad.parts > 1
    assert not choose(dense((), 4096, 4096, 4095), bfloat16, H100).tma and not choose(dense((), 4096, 4096, 4096), bfloat16, A100).tma
    assert not choose(dense((), 64, 64, 64), bfloat16, H100).tma
    for t in tiling.usable(dense((), 4096, 4096, 4096), bfloat16, H100):
        assert shared_bytes(t, bfloat16) <= H100.shared_limit


def test_parts_fill_the_device() -> None:
    """A weight's gradient with few tiles is cut so that all processors have work and none much more than others."""
    for target in (H100, A100):
        for m, n in ((768, 768), (2304, 768), (3072, 768), (256, 256)):
            p = dense((), m, n, 32768, True)
            t = choose(p, bfloat16, target)
            items = -(-m // t.m) * -(-n // t.n) * t.parts
            steps = -(-p.k // t.k)
            longest = -(-items // target.processors) * -(-steps // t.parts)
            assert longest * target.processors <= 1.4 * steps * items / t.parts, (t, items)
            for u in tiling.usable(p, bfloat16, target):
                per = -(-(-(-p.k // u.k)) // u.parts)
                assert u.parts == 1 or per >= 4 and (u.parts - 1) * per < -(-p.k // u.k), u


def after(reads: int, extents: tuple[int, int], ops: int) -> Kernel:
    """Pointwise work behind a product: ``reads`` arrays of its size, two results, ``ops`` statements more."""
    own, size = flatten([var(0), var(1)], extents), math.prod(extents)
    bufs = [Buf(n, bfloat16, size) for n in ("c", *[f"r{i}" for i in range(reads)], "y", "w")]
    stmts = [Stmt("load", (), bfloat16, Access(i, own)) for i in range(reads + 1)]
    x = 0
    for i in range(reads):
        stmts.append(Stmt("add" if i % 2 else "mul", (x, i + 1), bfloat16))
        x = len(stmts) - 1
    for i in range(ops):
        stmts.append(Stmt("tanh", (x,), bfloat16) if i == 2 else Stmt(("mul", "maximum", "add")[i % 3], (x, i % (reads + 1)), bfloat16))
        x = len(stmts) - 1
    return Kernel("k_after", extents, 2, tuple(bufs), tuple(stmts), (Store(Access(reads + 1, own), x), Store(Access(reads + 2, own), reads)))


@pytest.mark.usefixtures("triton_installed")
def test_machine_code() -> None:
    """Every tile in every layout, with parts, batches, odd rows: blocks come by the copy engine, products are wgmma, nothing
    spills, shared memory is what was estimated at most, the result goes out by the copy engine or 16 bytes at a time."""
    made = []
    for t in tiling._TMA:
        for ta, tb in itertools.product((False, True), repeat=2):
            made.append((t, print_product(dense((), 4096, 4096, 1024, ta, tb), bfloat16, (0, 1, 2), H100, tile=t)[0]))
    for t in tiling._TMA[::3]:
        made.append((t, print_product(dense((), 1000, 1001, 1000, False, True), bfloat16, (0, 1, 2), H100, tile=t)[0]))
        made.append((t, print_product(dense((), 1024, 768, 32768, True), bfloat16, (0, 1, 2), H100, tile=replace(t, parts=4),
                                      partial=3)[0]))
        made.append((t, print_product(dense((16,), 1024, 768, 1024, False, True), bfloat16, (0, 1, 2), H100, tile=t)[0]))
    code = compiler.compiler(H100).get([p for _, p in made])
    for t, p in made:
        c = code[p.symbol]
        assert c.spills == 0 and c.shared <= shared_bytes(t, bfloat16) <= H100.shared_limit, (t, c.registers, c.spills, c.shared)
        assert c.facts["tma"] >= 2 and c.facts["wgmma"] and not c.facts["loads"] and not c.facts["async"], (t, c.facts)
        assert c.scratch and c.scratch_align == 128
        if not any("1001" in line for line in p.source.splitlines()[:9]):
            assert c.facts["stores"] == c.facts["wide_stores"], (t, c.facts)


@pytest.mark.usefixtures("triton_installed")
def test_machine_code_with_epilogues() -> None:
    """What the table allows behind a product compiles without spills: the heaviest cases for the largest blocks."""
    made = []
    for rows, reads, ops, which in ((4096, 2, 1, slice(0, 1)), (1000, 2, 1, slice(1, 2)), (1000, 3, 9, slice(2, 3))):
        p = dense((), rows, 4096 if rows == 4096 else 1016, 1024, False, True)
        k = after(reads, (p.m, p.n), ops)
        tiles = [t for t in tiling.usable(p, bfloat16, H100, epilogue=k) if t.tma and t.parts == 1]
        assert len(tiles) == (3 if is_heavy(k) or reads > 2 else len(tiling._TMA))
        tiles = [t for t in tiles if t in tiling._TMA[which]]
        assert tiles
        made += [(t, print_product(p, bfloat16, ("a", "b", "c"), H100, epilogue=k, tile=t, keep=False)[0]) for t in tiles]
    code = compiler.compiler(H100).get([p for _, p in made])
    for t, p in made:
        c = code[p.symbol]
        assert c.spills == 0 and c.shared <= shared_bytes(t, bfloat16), (t, p.symbol, c.registers, c.spills, c.shared)
        assert c.facts["wgmma"] and c.facts["tma"] and c.facts["stores"] == c.facts["wide_stores"], (t, c.facts)


@pytest.mark.usefixtures("triton_installed")
def test_the_machine_code_as_text() -> None:
    """Disassembled: blocks come by UTMALDG, go by UTMASTG, products are HGMMA, nothing is kept in local memory."""
    import importlib.util

    found = importlib.util.find_spec("triton")
    tool = Path(found.origin).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    if not tool.exists():
        pytest.skip("this Triton comes without nvdisasm")
    made, = print_product(dense((), 4096, 4096, 1024, False, True), bfloat16, (0, 1, 2), H100, tile=tiling._TMA[0])
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiler.compiler(H100).get([made])[made.symbol].code)
        file.flush()
        text = subprocess.run([tool, "-c", file.name], capture_output=True, text=True, check=True).stdout
    for wanted in ("UTMALDG.2D", "UTMASTG.2D", "HGMMA.64x256x16", "BF16"):
        assert wanted in text, wanted
    for never in ("STL", "LDL", "LDGSTS", "HMMA"):
        assert not re.search(rf"\b{never}\b", text), never


@pytest.mark.usefixtures("triton_installed")
@pytest.mark.parametrize("target", [A100, H100], ids=str)
def test_an_optimizer_behind_a_product(target: Target) -> None:
    """A weight's gradient with four arrays of its size read and as many statements as AdamW has: odd rows, no spills."""
    p, k = dense((), 50257, 768, 4096, True), after(4, (50257, 768), 16)
    tile = choose(p, bfloat16, target, epilogue=k)
    assert is_heavy(k) and tiling.is_wide(k) and tile.m * tile.n // tile.halves <= 32 * 32 * tile.warps
    made, = print_product(p, bfloat16, ("a", "b", "c"), target, epilogue=k, tile=tile, keep=False)
    c = compiler.compiler(target).get([made])[made.symbol]
    assert c.spills == 0 and (c.facts["wgmma"] or c.facts["mma"]), (tile, c.registers, c.spills)


@pytest.mark.usefixtures("triton_installed")
def test_new_sizes_reuse_the_code() -> None:
    """Sizes and the number of programs are no part of the text."""
    a, = print_product(dense((), 1024, 512, 256), bfloat16, (0, 1, 2), H100, tile=tiling._TMA[2])
    b, = print_product(dense((), 8192, 2048, 512), bfloat16, (3, 4, 5), H100, tile=tiling._TMA[2])
    assert a.symbol == b.symbol and a.programs() == 32 and b.programs() == H100.processors
