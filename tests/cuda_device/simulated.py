"""A CUDA device for tests, in this process: device memory is host memory, and launches run the generated Triton source under
Triton's interpreter (:func:`install`), or nothing is compiled and programs run on the host between copies
(``install(kernels=False)``, which needs no Triton).

A process that calls :func:`install` with kernels must have been started with TRITON_INTERPRET=1.
"""
from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "runtime"), str(TESTS / "triton_source")]

from cuda_fake import FakeCuda, array

from graphc.codegen.triton import compiler
from graphc.codegen.triton.compiler import Target
from graphc.errors import CompileError
from graphc.runtime.cuda import driver

DTYPES = {"u8": np.uint8, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64, "u32": np.uint32, "fp16": np.float16,
          "bf16": np.uint16, "fp32": np.float32, "fp64": np.float64, "i1": np.uint8}


class Compiled:
    """Stands for machine code of a printed kernel."""

    def __init__(self, symbol: str):
        self.symbol = self.entry = symbol
        self.code, self.warps, self.ctas, self.shared, self.scratch, self.scratch_align = b"FAKE", 4, 1, 0, 0, 1


class Interpreted:
    """Stands for ``compiler.Compiler``: kernels are interpreted on the fake device's memory."""

    def __init__(self, fake: FakeCuda):
        self.fake = fake
        self.seen: set[str] = set()

    def get(self, printed: Any) -> dict[str, Compiled]:
        wanted = {p.symbol: p for p in printed}
        for symbol, p in wanted.items():
            types = [a.type for a in p.args]
            self.fake.kernels[symbol] = ([*types, "*i8", "*i8"], self.kernel(p, types))
            self.seen.add(symbol)
        return {s: Compiled(s) for s in wanted}

    def kernel(self, p: Any, types: list[str]) -> Any:
        from interpreter import launch

        def run(fake: FakeCuda, grid: tuple[int, ...], block: int, *args: Any) -> None:
            given = []
            for value, t in zip(args, types):
                if t[0] == "*":
                    start, n = next((q, n) for q, (_, n, _) in fake.memory.items() if q <= value < q + n)
                    size = np.dtype(DTYPES[t[1:]]).itemsize
                    given.append(array(value, (start + n - value) // size, DTYPES[t[1:]]))
                else:
                    given.append(value)
            launch(p.source, p.symbol, (grid[0],), given, types, dict(p.constants))
        return run


class Refusing:
    """Stands for a compiler that cannot compile anything."""

    def get(self, printed: Any) -> dict[str, Any]:
        for p in printed:
            raise CompileError(f"kernel {p.symbol} cannot be compiled here{compiler.lines_of(p)}")
        return {}


def install(kernels: bool = True, devices: int = 1, total: int = 1 << 28, eager: bool = True) -> FakeCuda:
    """Make this process see ``devices`` simulated devices."""
    fake = FakeCuda(devices=devices, total=total, eager=eager)
    lock, step = threading.RLock(), fake.step

    def one_at_a_time(stream: Any) -> None:
        with lock:  # queues of work and the interpreter are no place for two threads
            if stream.ops:
                step(stream)

    fake.step = one_at_a_time  # type: ignore[method-assign]
    driver.reset(lambda: fake)
    if kernels:
        import interpreter

        interpreter.repair()
        interpreter.fill_libdevice()
    compiler._Process.compilers[Target("cuda", 90)] = Interpreted(fake) if kernels else Refusing()  # type: ignore[assignment]
    compiler.reason = lambda: ""  # type: ignore[assignment]
    return fake
