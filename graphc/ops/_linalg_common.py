"""Argument checks shared by the linear algebra functions, with PyTorch's texts."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..dtypes import bfloat16 as bf16
from ..dtypes import float16, float32, float64
from ..errors import ArgumentTypeError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.infer import broadcast_shapes
from ..ir.node import Value
from ..ir.recorder import evaluated, state
from ..tensor import Tensor
from ._common import number, to_out, val

_C_NAMES = {"float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16", "int64": "Long",
            "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte", "bool": "Bool",
            "complex64": "ComplexFloat", "complex128": "ComplexDouble"}


def c_name(v: Value) -> str:
    """PyTorch's C++ name of a dtype, as its messages print it."""
    return _C_NAMES.get(v.aval.dtype.name, v.aval.dtype.name)


def floating(name: str, t: Any, arg: str = "A") -> Value:
    """A tensor of float32, float64 or complex dtype, or PyTorch's error."""
    v = val(t, arg)
    if v.aval.dtype.category < 2:
        raise DTypeError(f"{name}: Expected a floating point or complex tensor as input. Got {c_name(v)}")
    if v.aval.dtype in (float16, bf16):
        raise DTypeError(f"{name}: Low precision dtypes not supported. Got {c_name(v)}")
    return v


def matrices(name: str, t: Any, arg: str = "A") -> Value:
    """Floating matrices in the last two dimensions."""
    v = floating(name, t, arg)
    _two_dims(name, v, arg)
    return v


def _two_dims(name: str, v: Value, arg: str) -> None:
    if v.aval.ndim < 2:
        raise ShapeError(f"{name}: The input tensor {arg} must have at least 2 dimensions.")


def square(name: str, t: Any, arg: str = "A") -> Value:
    """Floating square matrices in the last two dimensions."""
    v = val(t, arg)
    if v.aval.ndim >= 2:
        check_square(name, v, arg)
    return matrices(name, t, arg)


def check_square(name: str, v: Value, arg: str = "A") -> None:
    _two_dims(name, v, arg)
    m, n = v.aval.shape[-2:]
    if m != n:
        raise ShapeError(f"{name}: {arg} must be batches of square matrices, but they are {m} by {n} matrices")


def same_dtype(name: str, a: Value, b: Value) -> None:
    if a.aval.dtype is not b.aval.dtype:
        raise DTypeError(f"{name}: Expected A and B to have the same dtype, but found A of type {c_name(a)} and B of type "
                         f"{c_name(b)} instead")


def same_batch(name: str, a: Value, b: Value) -> tuple[Value, Value]:
    """Both with broadcast leading dimensions."""
    if a.aval.shape[:-2] == b.aval.shape[:-2]:
        return a, b
    lead = broadcast_shapes(name, a.aval.shape[:-2], b.aval.shape[:-2])
    return P.expand(a, (*lead, *a.aval.shape[-2:])), P.expand(b, (*lead, *b.aval.shape[-2:]))


def is_vector_rhs(a: Value, b: Value) -> bool:
    """Whether B is a batch of vectors: one vector, or shaped like A without its columns."""
    return b.aval.ndim == 1 or a.aval.ndim - 1 == b.aval.ndim and b.aval.shape == a.aval.shape[:-1]


def raise_now(v: Value) -> None:
    """A function that may fail fails at the call, as PyTorch's does, so that ``try`` around it works. Inside a compiled
    call it fails where the result is read."""
    if not state.hold and not state.tracing:
        evaluated(v)


def results(kind: Any, values: Sequence[Value], out: Any = None) -> Any:
    """A named tuple of tensors, written into ``out`` if given."""
    outs = out if out is not None else (None,) * len(values)
    if len(outs) != len(values):
        raise ArgumentTypeError(f"out must be a tuple of {len(values)} tensors, got {len(outs)}")
    return kind(*[to_out(o, v) for o, v in zip(outs, values)])


def tolerance(x: Any, like: Value) -> Value:
    """A tolerance (number or tensor) as a real Value that broadcasts against the leading dimensions of ``like``."""
    dt = like.aval.dtype.to_real()
    if isinstance(x, Tensor):
        if x.dtype.is_complex:
            raise DTypeError("torch.linalg: atol and rtol tensors of complex type are not supported")
        return P.cast(val(x), dt)
    return number(float(x), dt)


def epsilon(v: Value) -> float:
    """Spacing of the real dtype at 1."""
    return {float32: 2.0 ** -23, float64: 2.0 ** -52}[v.aval.dtype.to_real()]


def tolerances(v: Value, atol: Any, rtol: Any) -> tuple[Value, Value]:
    """PyTorch's defaults: atol 0; rtol is eps * max(m, n) where no positive atol is given, else 0."""
    default = epsilon(v) * max(v.aval.shape[-2:])
    a = tolerance(0.0 if atol is None else atol, v)
    if rtol is not None:
        return a, tolerance(rtol, v)
    if atol is None:
        return a, tolerance(default, v)
    r = tolerance(default, v)
    return a, P.where(P.gt(a, 0), P.zeros_like(a), P.add(P.zeros_like(a), r))
