"""Run generated Triton source on NumPy arrays under Triton's interpreter, in a process of its own.

Started as a script it serves requests on its standard streams (pickles); :class:`Interpreter` is the other end. A process
can't both interpret and compile, because TRITON_INTERPRET is read when a function is decorated.
"""
from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from typing import Any

import numpy as np


class Interpreter:
    """The client: one server process, restarted never."""

    def __init__(self) -> None:
        env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        env["PYTHONPATH"] = os.pathsep.join([root, env.get("PYTHONPATH", "")])
        self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, env=env)

    def run(self, source: str, symbol: str, grid: tuple[int, ...], args: list[Any], types: list[str],
            constants: dict[str, Any]) -> list[Any]:
        """Launch ``symbol`` of ``source``; array arguments (by Triton type) come back as the kernel left them."""
        data = pickle.dumps((source, symbol, grid, args, types, constants))
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(struct.pack("<Q", len(data)) + data)
        self.process.stdin.flush()
        size = self.process.stdout.read(8)
        if len(size) < 8:
            raise RuntimeError("the interpreter process ended")
        ok, result = pickle.loads(self.process.stdout.read(struct.unpack("<Q", size)[0]))
        if not ok:
            raise RuntimeError(result)
        return result

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(10)
        assert self.process.stdout
        self.process.stdout.close()


# ------------------------------------------------------------------------------------------------------- server process
_NAMES = {"i1": "bool", "u8": "uint8", "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64", "u32": "uint32",
          "fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}


class Pointer:
    """What the interpreter asks of a tensor argument; its copy to the host is the array itself."""

    def __init__(self, array: np.ndarray, dtype: str):
        self.array, self.dtype, self.shape = array, dtype, array.shape

    def data_ptr(self) -> int:
        return self.array.ctypes.data

    def element_size(self) -> int:
        return self.array.itemsize

    def size(self) -> tuple[int, ...]:
        return self.shape

    def stride(self) -> tuple[int, ...]:
        return tuple(s // self.array.itemsize for s in self.array.strides)

    def storage_offset(self) -> int:
        return 0

    def untyped_storage(self) -> Pointer:
        return self

    def cpu(self) -> Pointer:
        return self

    def new_empty(self, *_a: Any, **_k: Any) -> Pointer:
        return Pointer(self.array, self.dtype)

    def set_(self, *_a: Any) -> Pointer:
        return self

    def copy_(self, _other: Any) -> Pointer:
        return self


def _bf16_bits(x: np.ndarray) -> np.ndarray:
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    r = ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)
    r[np.isnan(x)] = 0x7FC0
    return r.reshape(u.shape)


def repair() -> None:
    """Interpreter defects that matter here: bfloat16 (held as bit patterns) is truncated and multiplied as integers, a scalar
    comparison of floats becomes a block of floats, and NumPy 2.4 refuses its conversion of loop bounds to int."""
    import triton.language as tl
    import triton.runtime.interpreter as interp

    builder = interp.InterpreterBuilder
    old_dot, old_convert, old_patch = builder.create_dot, interp._convert_float, interp._patch_lang_tensor

    def widened(h: Any) -> Any:
        if h.dtype.scalar != tl.bfloat16:
            return h
        return interp.TensorHandle((h.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        return old_dot(self, widened(a), widened(b), d, *rest)

    def convert(x: Any, src: Any, dst: Any, rounding: Any) -> Any:
        if src == tl.float32 and dst == tl.bfloat16:
            return _bf16_bits(np.atleast_1d(x)).reshape(np.shape(x))
        return old_convert(x, src, dst, rounding)

    def patch(tensor: Any, *rest: Any) -> Any:
        out = old_patch(tensor, *rest)
        tensor.__index__ = lambda self: int(np.asarray(self.handle.data).reshape(-1)[0])
        return out

    old_splat = builder.create_splat

    def create_splat(self: Any, shape: Any, h: Any) -> Any:
        out = old_splat(self, shape, h)
        return interp.TensorHandle(out.data.astype(np.bool_), out.dtype) if h.data.dtype == np.bool_ else out

    builder.create_splat = create_splat
    builder.create_dot, interp._convert_float, interp._patch_lang_tensor = create_dot, convert, patch


def fill_libdevice() -> None:
    """NumPy's functions under the names of the device's math library, which has no interpreter."""
    import triton.language as tl
    import triton.runtime.interpreter as interp
    from triton.language.extra import libdevice

    from graphc.ir.prims import special

    functions: dict[str, Any] = {n: getattr(np, n) for n in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos",
                                                             "tan", "sinh", "cosh", "tanh", "floor", "ceil", "trunc", "rint",
                                                             "fmod", "copysign")}
    functions.update({a: getattr(np, b) for a, b in dict(asin="arcsin", acos="arccos", atan="arctan", asinh="arcsinh",
                                                         acosh="arccosh", atanh="arctanh", atan2="arctan2", pow="power").items()})
    functions.update({n: getattr(special, n) for n in ("erf", "erfc", "erfinv", "lgamma")})

    def wrapped(f: Any) -> Any:
        def call(*xs: Any) -> Any:
            ref = next(x for x in xs if isinstance(x, tl.tensor))
            dt = ref.handle.data.dtype
            xs = np.broadcast_arrays(*[x.handle.data if isinstance(x, tl.tensor) else dt.type(getattr(x, "value", x)) for x in xs])
            out = np.asarray(f(*xs), dt)
            ty = ref.type if out.shape == tuple(getattr(ref, "shape", ())) or out.size == 1 else tl.block_type(
                ref.dtype.scalar, list(out.shape))
            return tl.tensor(interp.TensorHandle(out.reshape(-1) if not ref.shape and out.ndim == 0 else out, ref.dtype.scalar), ty)

        return call

    for n, f in functions.items():
        setattr(libdevice, n, wrapped(f))


def launch(source: str, symbol: str, grid: tuple[int, ...], args: list[Any], types: list[str], constants: dict[str, Any]) -> list[Any]:
    """Run one kernel on the arrays."""
    import linecache

    if symbol not in _LOADED:
        linecache.cache[f"<{symbol}>"] = (len(source), None, source.splitlines(True), f"<{symbol}>")
        ns: dict[str, Any] = {"__name__": f"generated_{symbol}"}
        exec(compile(source, f"<{symbol}>", "exec"), ns)
        _LOADED[symbol] = ns[symbol]
    given = [Pointer(a, _NAMES[t[1:]]) if t[0] == "*" else a for a, t in zip(args, types)]
    with np.errstate(all="ignore"):
        _LOADED[symbol][grid](*given, **constants)
    return args


_LOADED: dict[str, Any] = {}


def serve() -> None:
    import traceback
    import warnings

    warnings.simplefilter("ignore")
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what kernels print must not get into the replies
    repair()
    fill_libdevice()
    while True:
        size = stdin.read(8)
        if len(size) < 8:
            return
        try:
            result = (True, launch(*pickle.loads(stdin.read(struct.unpack("<Q", size)[0]))))
        except Exception:
            result = (False, traceback.format_exc())
        data = pickle.dumps(result)
        stdout.write(struct.pack("<Q", len(data)) + data)
        stdout.flush()


if __name__ == "__main__":
    serve()
