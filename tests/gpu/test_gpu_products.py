"""Matrix products on a real device: every tile of the tables, with and without descriptors, parts, batches, epilogues; errors
against float64; the same bits every time.

Needs a GPU, its driver, cuda-bindings and Triton; skipped with the reason elsewhere.
"""
from __future__ import annotations

import math

import numpy as np
import pytest
from gpu_device import SIMULATED, WHY, some

pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY or "-")

from test_matmul import TOL, bias_relu, dense, operands, views

import graphc
from graphc.codegen.triton import compiler, tiling
from graphc.codegen.triton.matmul import print_product
from graphc.codegen.triton.tiling import Tile
from graphc.dtypes import bfloat16, float16, float32, float64
from graphc.runtime.cuda import buffer as B
from graphc.runtime.cuda import device as D
from graphc.runtime.cuda.launch import LaunchList, Pointer, load
from graphc.runtime.cuda.program import target_of


def launched(printed, values: dict) -> None:
    """Run printed kernels on flat arrays by key; what they hold afterwards is copied back."""
    owner = D.get()
    code = compiler.compiler(target_of(owner)).get(printed)
    memory = {}
    for key, a in values.items():
        memory[key] = B.empty(a.nbytes)
        B.from_host(memory[key], a)
    keys = list(memory)
    launches = LaunchList(owner, "test")
    for p in printed:
        launches.add_kernel(load(owner, code[p.symbol]), (p.programs(),), [a.type for a in p.args],
                            [Pointer(keys.index(a.value)) if a.type[0] == "*" else a.value for a in p.args])
    launches.run(D.current_stream(), tuple([memory[k].ptr for k in keys]))
    for key, a in values.items():
        B.to_host(memory[key], a)


def product_on_device(p, dt, tile: Tile, epilogue: bool = False) -> None:
    """One product with the given blocks, twice; NaN where nothing may be left unwritten."""
    a, b = operands(p, dt)
    size, wide = math.prod(p.batch) * p.m * p.n, np.float64 if dt is float64 else np.float32
    k = bias_relu((*p.batch, p.m, p.n), dt) if epilogue else None
    bias = np.random.default_rng(1).uniform(-3, 3, p.n).astype(dt.np)
    printed = print_product(p, dt, ("a", "b", "c"), target_of(D.get()), epilogue=k, tile=tile, partial="partial")
    results = []
    for _ in range(2):
        values = {"a": a, "b": b, "c": np.full(size, np.nan, dt.np), "partial": np.full(size * tile.parts, np.nan, wide),
                  "bias": bias, "y": np.full(size, np.nan, dt.np)}
        launched(printed, values)
        results.append((values["c"], values["y"]))
    va, vb = views(p, a, b)
    want = np.matmul(va.astype(np.float64), vb.astype(np.float64)).reshape(-1)
    c, y = [r.astype(np.float64) for r in results[0]]
    np.testing.assert_allclose(c, want, rtol=TOL[dt], atol=TOL[dt] * math.sqrt(p.k))
    if epilogue:
        full = np.maximum(c.reshape(-1, p.n) + bias.astype(np.float64), 0).reshape(-1)
        np.testing.assert_allclose(y, full, rtol=TOL[dt], atol=TOL[dt])
    assert all(x.tobytes() == z.tobytes() for x, z in zip(*results)), "not the same bits"


def tiles(dt, descriptors: bool):
    p = dense((), 4096, 4096, 4096)
    found = [t for t in tiling.usable(p, dt, target_of(D.get())) if t.tma == descriptors and t.parts == 1] if not WHY else []
    if SIMULATED:
        found = [Tile(32, 64, 16, 4, 2, 1, True, 2)] if descriptors else [Tile(32, 32, 16, 4, 2)]
    return found


LAYOUTS = [(False, False), (False, True), (True, False), (True, True)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("dt", [bfloat16, float16], ids=str)
def test_tiles_with_descriptors(dt, layout) -> None:
    found = tiles(dt, True)
    if not found:
        pytest.skip("this device's products use no descriptors")
    for t in found:
        for m, n, k in ((some(1024, 64), some(1536, 64), some(512, 32)), (some(1000, 40), some(520, 72), some(328, 24))):
            product_on_device(dense((), m, n, k, *layout), dt, t, epilogue=(m + n) % 3 == 0)
        product_on_device(dense((3,), some(264, 40), some(392, 24), some(200, 16), *layout), dt, t)
        parts = Tile(t.m, t.n, t.k, t.warps, t.stages, 4, True, t.halves)
        product_on_device(dense((), some(256, 40), some(384, 64), some(4096, 136), *layout), dt, parts)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("dt", [bfloat16, float16, float32, float64], ids=str)
def test_tiles_with_pointers(dt, layout) -> None:
    for t in tiles(dt, False):
        for m, n, k in ((some(512, 64), some(512, 32), some(256, 32)), (some(333, 37), some(517, 45), some(129, 19))):
            product_on_device(dense((), m, n, k, *layout), dt, t, epilogue=m % 2 == 0)
        product_on_device(dense((2,), some(130, 20), some(70, 33), some(700, 130), *layout), dt,
                          Tile(t.m, t.n, t.k, t.warps, t.stages, 3))


@pytest.mark.parametrize("shape", [(1000, 777, 500), (64, 64, 64), (1, 500, 300), (500, 1, 300), (3, 5, 7), (2048, 512, 1024)])
def test_errors_against_float64(shape) -> None:
    """Through tensors: float32 products are as exact as float32 sums are; 16-bit ones accumulate in float32."""
    m, n, k = (min(s, some(4096, 70)) for s in shape)
    r = np.random.default_rng(0)
    a, b = r.standard_normal((m, k)), r.standard_normal((k, n))
    want, scale = a @ b, np.abs(a) @ np.abs(b)
    for dt, bound in ((graphc.float64, 1e-14), (graphc.float32, 4e-7), (graphc.float16, 1.2e-3), (graphc.bfloat16, 1e-2)):
        x, y = (graphc.from_numpy(v).to(dt).to("cuda") for v in (a, b))
        got = (x @ y).cpu().double().numpy()
        if dt not in (graphc.float64, graphc.float32):
            want_here = x.cpu().double().numpy() @ y.cpu().double().numpy()
            assert np.abs(got - want_here).max() <= bound * np.abs(want_here).max()
        else:
            assert (np.abs(got - want) / scale).max() <= bound * (2 if dt == graphc.float32 else math.sqrt(k)), dt


def test_gradients_of_a_layer() -> None:
    """x @ w.T + b, its gradients: weight gradients are summed in parts."""
    r, n = np.random.default_rng(0), some(8192, 96)
    x, w, g = (r.standard_normal(s).astype(np.float32) for s in ((n, 64), (48, 64), (n, 48)))

    def grads(where: str, dt):
        t = [graphc.from_numpy(v).to(dt).to(where).requires_grad_() for v in (x, w)]
        y = graphc.nn.functional.linear(t[0], t[1])
        y.backward(graphc.from_numpy(g).to(dt).to(where))
        return [v.cpu().double().numpy() for v in (y.detach(), t[0].grad, t[1].grad)]

    for got, want in zip(grads("cuda", graphc.float32), grads("cpu", graphc.float64)):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)
