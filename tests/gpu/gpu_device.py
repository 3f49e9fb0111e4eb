"""The device of the tests in this folder: a real GPU, or, with GRAPHC_SIMULATED_DEVICE=1 and TRITON_INTERPRET=1, a simulated one
(tests/cuda_device), on which they show that they themselves work. ``WHY`` says why there is none; empty if there is one."""
from __future__ import annotations

import os
from typing import Any

import numpy as np

from graphc.codegen.triton import compiler
from graphc.ir.recorder import SCALAR
from graphc.runtime.cuda import buffer as B
from graphc.runtime.cuda import device as D
from graphc.runtime.cuda import driver
from graphc.runtime.cuda.program import Program

SIMULATED = os.environ.get("GRAPHC_SIMULATED_DEVICE", "") == "1"
if SIMULATED:
    import simulated

    from graphc.codegen.triton import autotune
    from graphc.runtime.cuda import measure

    simulated.install(total=1 << 30)
    measure.RUNS, autotune.TOP, autotune.MIN_POINTS = 1, 2, 256
WHY = "" if SIMULATED else driver.reason() or compiler.reason()
WHY = f"no CUDA device to compile for: {WHY}" if WHY else ""


def some(real: int, simulated: int) -> int:
    """How much of something to do: on a GPU, and where every operation of a kernel is interpreted."""
    return simulated if SIMULATED else real


def bind(graph: Any, arrays: Any) -> list[Any]:
    """Values as a program takes them: numbers for scalars, device memory for arrays."""
    out: list[Any] = []
    for leaf, a in zip(graph.inputs, arrays):
        a = np.asarray(a, leaf.avals[0].dtype.np)
        if leaf.op is SCALAR:
            out.append(a.item())
        else:
            out.append(B.empty(a.nbytes))
            B.from_host(out[-1], a)
    return out


def fetch(found: Any) -> np.ndarray:
    """A result as a NumPy array."""
    flat = np.empty(found.buffer.nbytes // found.dtype.itemsize, found.dtype)
    B.to_host(found.buffer, flat)
    return np.lib.stride_tricks.as_strided(flat, found.shape, [s * flat.itemsize for s in found.strides])


def run(graph: Any, arrays: Any, times: int = 1, label: str = "plan") -> list[list[np.ndarray]]:
    """The results of an optimised graph on the device, once for every call: plain, captured, replayed, ..."""
    program = Program(graph, D.get(), label=label)
    values = bind(program.graph, arrays)
    out = [[fetch(r) for r in program(values, D.current_stream())] for _ in range(times)]
    if program.error is not None:
        D.get().synchronize()
        program.check_indices()
    return out


def close(got: np.ndarray, want: np.ndarray, rtol: float, atol: float, what: str = "") -> None:
    """Equal up to rounding, in float64."""
    assert got.shape == want.shape, (what, got.shape, want.shape)
    if want.dtype.kind in "biu":
        np.testing.assert_array_equal(got, want, err_msg=what)
    else:
        kind = np.complex128 if want.dtype.kind == "c" else np.float64
        np.testing.assert_allclose(got.astype(kind), want.astype(kind), rtol=rtol, atol=atol, err_msg=what)
