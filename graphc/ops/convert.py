"""Dtype and device conversion, and in-place copies."""
from __future__ import annotations

from typing import Any

from .. import dtypes
from ..device import device as Device
from ..device import require
from ..dtypes import bool_
from ..dtypes import dtype as DType
from ..errors import ArgumentTypeError, DeviceError, ShapeError
from ..ir import build as P
from ..ir.node import Value, leaf_value
from ..ir.optable import OPS
from ..ir.recorder import apply, fetched
from ..ir.recorder import state as recording
from ..ir.tape import alias_value
from ..tensor import Tensor, wrap
from ..views import overwrite, private_alias
from ._common import convertible, number, operand, val

_NUMBERS = {bool, int, float}


def to(input: Tensor, *args: Any, dtype: DType | None = None, device: Any = None, non_blocking: bool = False,
       copy: bool = False, memory_format: Any = None) -> Tensor:
    """``t.to(dtype)``, ``t.to(device)``, ``t.to(device, dtype)``, ``t.to(other)``; returns ``t`` itself when nothing
    changes."""
    for a in args:
        if isinstance(a, (DType, type)):
            dtype = dtypes.as_dtype(a)
        elif isinstance(a, Tensor):
            dtype, device = a.dtype, a.device
        elif isinstance(a, (str, int, Device)) and not isinstance(a, bool):
            device = a
        elif a is not None and not isinstance(a, bool):
            raise ArgumentTypeError(f"to() received an invalid combination of arguments - got ({type(a).__name__})")
    v = val(input)
    out = v
    if device is not None:
        out = P.to_device(out, require(device))
    if dtype is not None:
        out = P.cast(out, dtype)
    if out is v:
        return input.clone() if copy else input
    return wrap(out)


def _caster(dt: DType, name: str) -> Any:
    def f(self: Tensor, memory_format: Any = None) -> Tensor:
        v = val(self)
        return self if v.aval.dtype is dt else wrap(P.cast(v, dt))

    f.__name__, f.__doc__ = name, f"Convert to {dt.name}."
    return f


CASTS = {name: _caster(dt, name) for name, dt in {
    "float": dtypes.float32, "double": dtypes.float64, "half": dtypes.float16, "bfloat16": dtypes.bfloat16,
    "int": dtypes.int32, "long": dtypes.int64, "short": dtypes.int16, "char": dtypes.int8, "byte": dtypes.uint8,
    "bool": dtypes.bool_}.items()}


def cpu(input: Tensor, memory_format: Any = None) -> Tensor:
    """Copy to the CPU (itself when already there)."""
    return to(input, device="cpu")


def cuda(input: Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = None) -> Tensor:
    """Copy to a CUDA device."""
    return to(input, device="cuda" if device is None else Device("cuda", device) if isinstance(device, int) else device)


def type_as(input: Tensor, other: Tensor) -> Tensor:
    return to(input, dtype=other.dtype)


def type_(input: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """Name of the tensor type, or a conversion."""
    if dtype is None:
        names = {"float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16", "int64": "Long",
                 "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte", "bool": "Bool"}
        where = "torch.cuda." if input.is_cuda else "torch."
        return f"{where}{names.get(input.dtype.name, input.dtype.name)}Tensor"
    if isinstance(dtype, type):
        if getattr(dtype, "is_cuda", False):
            input = to(input, "cuda")
        dtype = getattr(dtype, "dtype", dtype)  # of torch.LongTensor
    if isinstance(dtype, str):
        if ".cuda." in dtype:
            input = to(input, "cuda")
        tail = dtype.rsplit(".", 1)[-1].removesuffix("Tensor").lower()
        dtype = dtypes.ALIASES.get(tail) or dtypes.by_name({"byte": "uint8", "char": "int8"}.get(tail, tail))
    return to(input, dtype=dtype)


def broadcast_into(v: Value, shape: tuple[int, ...], name: str) -> Value:
    """``v`` expanded to exactly ``shape``, or ShapeError."""
    if v.aval.shape == shape:
        return v
    lead = v.aval.ndim - len(shape)
    if lead > 0 and all(d == 1 for d in v.aval.shape[:lead]):
        v = P.reshape(v, v.aval.shape[lead:])
    try:
        return P.expand(v, shape)
    except ShapeError:
        raise ShapeError(f"{name}: The expanded size of the tensor must match: a value of shape {list(v.aval.shape)} cannot "
                         f"be broadcast to {list(shape)}") from None


def copy_(input: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Overwrite with ``src``, broadcast and converted."""
    a = input._v.aval
    x = operand(src, "copy_")
    v = P.cast(x, a.dtype) if isinstance(x, Value) else number(x, a.dtype)
    v = broadcast_into(P.to_device(v, a.device), a.shape, "copy_")
    if v is x:
        v = fresh(v)
    input._write(_still_of(input, v))
    return input


def _still_of(t: Tensor, v: Value) -> Value:
    """``v`` to be written over ``t``: where ``t`` has a history, ``v`` depends on it, with gradient zero."""
    old = t._read()
    if old.gfn is None or v.gfn is not None or not recording.grad:
        return v
    return P.where(P.full(v.aval.shape, False, bool_, v.aval.device), old, v)


def fresh(v: Value) -> Value:
    """The same result under a handle of its own, gradient kept, safe from outside writes."""
    out = private_alias(v)
    if v.gfn is not None:
        from ..ir.tape import AccumulateGrad

        if v.gfn.__class__ is AccumulateGrad:  # a leaf's own edge must not become this tensor's
            sh = v.aval.shape
            return apply(OPS["reshape"], (apply(OPS["reshape"], (v,), ((1, *sh),)),), (sh,))
        out.gfn = v.gfn
    return out


def fill_(input: Tensor, value: Any) -> Tensor:
    """Overwrite every element."""
    if isinstance(value, Tensor):
        if value.ndim:
            raise ShapeError(f"fill_ only supports 0-dimension value tensor but got tensor with {value.ndim} dimensions.")
        return copy_(input, value)
    a = input._v.aval
    x: Any = convertible(value, a.dtype)
    if type(x) in _NUMBERS and overwrite(input, x):
        return input
    v = P.const(x, a.dtype) if x in (0, 1) else number(x, a.dtype)
    input._write(_still_of(input, alias_value(P.expand(P.to_device(v, a.device), a.shape))))
    return input


def zero_(input: Tensor) -> Tensor:
    return fill_(input, 0)


def set_(input: Tensor, source: Tensor | None = None) -> Tensor:
    """Share ``source``'s storage."""
    if source is not None:
        input.data = source
    return input


def resize_(input: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """Change the shape; kept elements keep their flat order, new ones are zero."""
    import math

    from ._common import shape_arg

    new = shape_arg(sizes)
    v = P.reshape(val(input), (input.numel(),))
    n = math.prod(new)
    v = P.narrow(v, 0, 0, n) if n <= v.aval.size else P.pad(v, (0,), (n - v.aval.size,))
    input._v, input._alias = alias_value(P.reshape(v, new)), None
    return input


def resize_as_(input: Tensor, other: Tensor) -> Tensor:
    return resize_(input, tuple(other.shape))


def fill_diagonal_(input: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Overwrite the main diagonal of a matrix."""
    from .indexing import diagonal

    fill_(diagonal(input), fill_value)
    return input


def result_type(a: Any, b: Any) -> DType:
    """The dtype an operation on ``a`` and ``b`` would give."""
    from ._common import result_dtype

    return result_dtype(operand(a, "result_type"), operand(b, "result_type"))


def can_cast(from_: DType, to: DType) -> bool:
    """Whether the cast keeps the category."""
    return from_.category <= to.category


def detach(input: Tensor) -> Tensor:
    return input.detach()


def requires_grad_(input: Tensor, requires_grad: bool = True) -> Tensor:
    return input.requires_grad_(requires_grad)


def pin_memory(input: Tensor, device: Any = None) -> Tensor:
    """A copy in page-locked memory, from which transfers to a device run on their own. Without a device, the tensor itself."""
    from ..runtime.cuda import driver

    if not input.is_cpu:
        raise DeviceError(f"cannot pin '{type_(input)}' only dense CPU tensors can be pinned")
    if driver.reason():
        return input
    from ..runtime.cuda import buffer as buffers

    v = val(input)
    arr = fetched(v)
    if buffers.pinned_owner(arr) is not None:
        return input
    made = buffers.pinned(arr.shape, arr.dtype)
    made[...] = arr
    made.flags.writeable = False  # a copy to a device may still be reading it when the tensor is written or gone
    return wrap(leaf_value(v.aval, made))
