"""Every primitive row that is loop code, on its samples, as generated Triton source under the interpreter: in float64 as the
sample stands, and in float32, float16 and bfloat16 where the row takes floats."""
from __future__ import annotations

import numpy as np
import pytest
from triton_run import both

from graphc.codegen.fuse import schedule
from graphc.codegen.loop_ir import Kernel
from graphc.device import CPU
from graphc.dtypes import bfloat16, float16, float32, float64, from_numpy
from graphc.errors import DTypeError
from graphc.ir.node import aval
from graphc.ir.optable import OPS
from graphc.ir.passes import run_passes
from graphc.ir.recorder import apply, trace

RTOL = {float64: 1e-12, float32: 2e-6, float16: 2e-3, bfloat16: 1.6e-2}
SAMPLES = [(n, i) for n in OPS if not OPS[n].is_composite for i in range(len(OPS[n].samples()))]


def recorded(name: str, i: int, dt):
    """(graph, arrays) of one sample with its floats as ``dt``, or None where the row does not take them."""
    arrays, attrs = OPS[name].samples()[i]
    arrays = [np.asarray(a) for a in arrays]
    if dt is not float64:
        if not any(a.dtype == np.float64 for a in arrays):
            return None
        if name in ("cast", "loop_scan"):  # their attributes name the dtype
            return None
        arrays = [a.astype(dt.np) if a.dtype == np.float64 else a for a in arrays]
    avals = tuple(aval(a.shape, from_numpy(a.dtype), CPU) for a in arrays)
    try:
        return trace(lambda *ins: apply(OPS[name], ins, attrs), avals), arrays
    except DTypeError:
        return None


def is_loop_code(graph) -> bool:
    return any(isinstance(s, Kernel) for s in schedule(run_passes(graph)).steps)


@pytest.mark.parametrize("dt", [float64, float32, float16, bfloat16], ids=str)
@pytest.mark.parametrize("name", sorted({n for n, _ in SAMPLES}))
def test_row(name: str, dt, interpreter) -> None:
    ran = 0
    for i in [i for n, i in SAMPLES if n == name]:
        case = recorded(name, i, dt)
        if case is None or not is_loop_code(case[0]):
            continue
        ran += 1
        for got, want in both(interpreter, *case):
            assert got.dtype == want.dtype and got.shape == want.shape
            if want.dtype.kind in "biu":
                np.testing.assert_array_equal(got, want)
            else:
                tol = RTOL[dt]
                np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=tol, atol=tol)
    if not ran:
        pytest.skip("not loop code in this dtype")


def test_most_rows_are_loop_code() -> None:
    """The sweep above must not skip its way to success."""
    names = set()
    for n, i in SAMPLES:
        case = recorded(n, i, float64)
        if case is not None and is_loop_code(case[0]):
            names.add(n)
    assert len(names) >= 70, sorted(names)
