"""Every primitive and composite row on a real device: its samples through tensors on "cuda" against the same on NumPy.

Needs a GPU, its driver, cuda-bindings and Triton; skipped with the reason elsewhere.
"""
from __future__ import annotations

import warnings

import numpy as np
import pytest
from gpu_device import WHY, close, run, some

pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY or "-")

from test_triton_rows import RTOL, recorded

import graphc
from graphc.codegen.triton.passes import gpu_passes
from graphc.device import device
from graphc.dtypes import bfloat16, float16, float32, float64, from_numpy
from graphc.errors import DTypeError
from graphc.ir.interpret import run_graph
from graphc.ir.node import aval
from graphc.ir.optable import OPS
from graphc.ir.recorder import apply, trace
from graphc.tensor import value_of, wrap

DTYPES = [float64, float32, float16, bfloat16]
LOOSE = {"linalg": 1e-3, "fft": 1e-4, "sdpa": 20.0}  # by the start of the name: times the dtype's tolerance, or absolute
# results that rounding decides (signs of vectors, orders of equal values) are compared by other tests
FREE = ("linalg_eig", "linalg_eigh", "linalg_svd", "linalg_qr", "svd", "eigh", "qr", "eig", "multinomial")
ATTRIBUTES_NAME_THE_HOST = ("copy", "loop_scan", "rng_bits")  # those run as device programs without tensors around them


def on_device(attrs, where):
    """Attributes with the host replaced by the device."""
    if isinstance(attrs, tuple):
        return tuple([on_device(a, where) for a in attrs])
    return where if isinstance(attrs, device) else attrs


def through_tensors(name: str, i: int, dt):
    """(results on the device, results on NumPy) of a sample, or None where the row does not take the dtype."""
    case = recorded(name, i, dt)
    if case is None:
        return None
    graph, arrays = case
    want = [np.asarray(w) for w in run_graph(graph, arrays)]
    if name in ATTRIBUTES_NAME_THE_HOST:
        return run(gpu_passes(graph), arrays)[0], want
    attrs, where = OPS[name].samples()[i][1], device("cuda:0")
    tensors = [graphc.from_numpy(np.array(a)).to(where) for a in arrays]
    if not tensors:
        attrs = on_device(attrs, where)
    try:
        values = apply(OPS[name], tuple([value_of(t) for t in tensors]), attrs)
    except DTypeError:
        return None
    outs = [wrap(v) for v in (values if isinstance(values, tuple) else (values,))]
    assert all(o.device.type == "cuda" for o in outs) or name == "const"
    return [o.cpu().numpy() for o in outs], want


def tolerance(name: str, dt) -> float:
    return max([RTOL[dt], *[v if v < 1 else v * RTOL[dt] for k, v in LOOSE.items() if name.startswith(k)]])


NAMES = sorted({n for n in OPS if OPS[n].samples()})


@pytest.mark.parametrize("dt", DTYPES[:some(4, 2)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_row(name: str, dt) -> None:
    ran = 0
    for i in range(len(OPS[name].samples())):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            found = through_tensors(name, i, dt)
        if found is None:
            continue
        ran += 1
        for g, w in zip(*found, strict=True):
            if name.startswith(FREE):
                assert g.shape == w.shape and g.dtype == w.dtype
            else:
                tol = tolerance(name, dt)
                close(g, w, tol, tol, f"sample {i}")
    if not ran:
        pytest.skip(f"{name} does not take {dt}")


@pytest.mark.parametrize("name", [n for n in NAMES if not OPS[n].is_composite])
def test_large(name: str) -> None:
    """Pointwise rows on a million elements that fill no block, and a misaligned view of them."""
    op = OPS[name]
    arrays, attrs = op.samples()[0]
    shapes = {np.shape(a) for a in arrays}
    if op.kind != "pointwise" or len(shapes) != 1 or not arrays:
        pytest.skip("not a pointwise row of equal operands")
    r, n = np.random.default_rng(0), some(1_000_003, 5_003)
    big = [np.resize(np.asarray(a).reshape(-1), n) if np.asarray(a).dtype.kind != "f" else
           r.choice(np.asarray(a).reshape(-1), n) * r.uniform(0.5, 1, n) for a in arrays]
    big = [a.astype(np.float32) if a.dtype == np.float64 else a for a in big]
    avals = tuple(aval(a.shape, from_numpy(a.dtype), device("cpu")) for a in big)
    try:
        graph = trace(lambda *ins: apply(op, ins, attrs), avals)
    except DTypeError:
        pytest.skip("does not take float32")
    with np.errstate(all="ignore"):
        want = [np.asarray(w) for w in run_graph(graph, big)]
    for g, w in zip(run(graph, big)[0], want, strict=True):
        close(g, w, 1e-4, 1e-5)
    tensors = [graphc.from_numpy(a).to("cuda")[3:] for a in big]
    got = wrap(apply(op, tuple([value_of(t) for t in tensors]), attrs)).cpu().numpy()
    close(got, want[0][3:], 1e-4, 1e-5)
