"""Argument handling shared by the op families: dims, promotion, scalars, ``out=``."""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..dtypes import dtype
from ..errors import ArgumentTypeError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import CASTS, apply, scalar
from ..ir.tape import AccumulateGrad
from ..tensor import Tensor, wrap
from ..tensor_info import norm_dim as norm_dim
from ..tensor_overriding import foreign

_INT = {int}
NUMBERS = (bool, int, float, complex, np.number, np.bool_)


def val(t: Any, name: str = "input") -> Value:
    """The Value of a tensor argument; TypeError for anything else."""
    if isinstance(t, Tensor):
        a = t._alias
        return t._v if a is None else t._read()
    raise ArgumentTypeError(f"argument '{name}' must be Tensor, not {type(t).__name__}{_overrides(t)}")


def _overrides(x: Any) -> str:
    """For the message of a refusal: a foreign class that nobody knew to have ``__torch_function__`` is asked from now on."""
    return "; its __torch_function__, unknown until now, is asked from the next call on" if foreign(x) else ""


def products(*vs: Value) -> tuple[Value, ...]:
    """Operands of a product in the dtype autocast gives them; as they are outside of its blocks."""
    return CASTS[0](OPS["contract"], vs) if CASTS else vs


def norm_dims(dims: Any, ndim: int, *, empty_is_all: bool = True) -> tuple[int, ...]:
    """Sorted distinct dimensions; None (and, by default, an empty list) means all."""
    if dims is None:
        return tuple(range(ndim))
    if isinstance(dims, int) or not isinstance(dims, (tuple, list)):
        out: tuple[int, ...] = (norm_dim(dims, ndim),)
    else:
        if not dims and empty_is_all:
            return tuple(range(ndim))
        out = tuple([norm_dim(d, ndim) for d in dims])
        if len(set(out)) != len(out):
            dup = next(d for d in out if out.count(d) > 1)
            raise ShapeError(f"dim {dup} appears multiple times in the list of dims")
    return tuple(sorted(out)) if ndim else ()


def shape_arg(args: Sequence[Any]) -> tuple[int, ...]:
    """Sizes given as ``f(2, 3)`` or ``f((2, 3))``."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = args[0]
    if {*map(type, args)} == _INT:
        return tuple(args)
    out = []
    for a in args:
        if isinstance(a, (bool, float)) or not hasattr(a, "__index__"):
            raise ArgumentTypeError(f"size must be a tuple of ints, but got element {a!r} of type {type(a).__name__}")
        out.append(a.__index__())
    return tuple(out)


def number(x: Any, dt: dtype, dev: Any = None) -> Value:
    """A Python number as a run-time scalar of dtype ``dt``."""
    if isinstance(x, (np.number, np.bool_)):
        x = x.item()
    if x.__class__ is complex and dt.category < 3:
        x = convertible(x, dt).real if dt.category else bool(x)
    return scalar(x, dt)


def convertible(x: Any, dt: dtype) -> Any:
    """``x``, or RuntimeError if that number has no place in ``dt``: what fills a tensor must not wrap around."""
    if isinstance(x, complex):
        if dt.category in (1, 2) and x.imag:
            raise DTypeError(f"value cannot be converted to type {dt.name} without overflow: {x}")
    elif dt.category == 1:
        info = np.iinfo(dt.np)
        wraps = not dt.is_signed and isinstance(x, int)  # whole negative numbers do
        if not (x == x and (info.min <= x <= info.max or wraps and -info.max <= x < 0)):
            raise DTypeError(f"value cannot be converted to type {dt.name} without overflow: {x}")
    elif dt.category == 2 and dt.itemsize < 8 and x == x and abs(x) != math.inf and abs(x) > _LARGEST[dt.name]:
        raise DTypeError(f"value cannot be converted to type {dt.name} without overflow: {x}")
    return x


_LARGEST = {"float32": 3.4028234663852886e38, "float16": 65504.0, "bfloat16": 3.3895313892515355e38}


def numpy_names(fn: Callable[..., Any]) -> Callable[..., Any]:
    """``fn`` that takes NumPy's ``axis`` and ``keepdims`` for ``dim`` and ``keepdim``, too, as PyTorch's functions do."""

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            if "axis" in kwargs:
                kwargs["dim"] = kwargs.pop("axis")
            if "keepdims" in kwargs:
                kwargs["keepdim"] = kwargs.pop("keepdims")
        return fn(*args, **kwargs)

    return wrapped


def result(v: Value) -> Value:
    """``v``, or a value of its own if it is still a leaf's: what an operation returns is not the leaf it was given."""
    if v.gfn.__class__ is AccumulateGrad:
        sh = v.aval.shape
        return apply(OPS["reshape"], (apply(OPS["reshape"], (v,), ((1, *sh),)),), (sh,))
    return v


def result_dtype(*operands: Any) -> dtype:
    """PyTorch's result_type: dimensioned tensors outrank zero-dim ones, which outrank Python numbers, unless the
    category (bool < int < float < complex) of the lesser is higher."""
    dims: dtype | None = None
    zero: dtype | None = None
    for x in operands:
        if isinstance(x, Value):
            if x.aval.ndim:
                dims = x.aval.dtype if dims is None else dtypes.promote_types(dims, x.aval.dtype)
            else:
                zero = x.aval.dtype if zero is None else dtypes.promote_types(zero, x.aval.dtype)
    out = dims
    if zero is not None:
        out = zero if out is None else (dtypes.promote_types(out, zero) if zero.category > out.category else out)
    for x in operands:
        if not isinstance(x, Value):
            out = (dtypes.default_for_category(dtypes.scalar_category(x)) if out is None
                   else dtypes.promote_with_scalar(out, x))
    assert out is not None
    return out


def operand(x: Any, name: str) -> Any:
    """A tensor's Value or a Python number; TypeError otherwise."""
    if isinstance(x, Tensor):
        return x._v if x._alias is None else x._read()
    if isinstance(x, NUMBERS):
        return x
    if isinstance(x, np.ndarray):
        from ..tensor import from_numpy_copy

        return from_numpy_copy(x)._v
    raise ArgumentTypeError(f"{name}(): argument must be Tensor or number, not {type(x).__name__}{_overrides(x)}")


def to_dtype(x: Any, dt: dtype) -> Value:
    """A Value or number as a Value of dtype ``dt``."""
    if isinstance(x, Value):
        return x if x.aval.dtype is dt else P.cast(x, dt)
    return number(x, dt)


def binary_values(name: str, a: Any, b: Any, *, at_least_float: bool = False) -> tuple[Value, Value]:
    """Both operands promoted to their result dtype."""
    x, y = operand(a, name), operand(b, name)
    if x.__class__ is Value and y.__class__ is Value and x.aval.dtype is y.aval.dtype:
        dt = x.aval.dtype
    else:
        dt = result_dtype(x, y)
    if at_least_float and dt.category < 2:
        dt = dtypes.get_default_dtype()
    return to_dtype(x, dt), to_dtype(y, dt)


def float_value(t: Any) -> Value:
    """The tensor's Value, integers converted to the default floating dtype."""
    v = val(t)
    return v if v.aval.dtype.category >= 2 else P.cast(v, dtypes.get_default_dtype())


def to_out(out: Tensor | None, v: Value) -> Tensor:
    """Wrap a result, or write it into ``out`` as PyTorch does (cast within the category, resized if empty)."""
    if out is None:
        return wrap(result(v))
    if out._read().aval.shape != v.aval.shape:
        if out.numel() and out._alias is not None:
            raise ShapeError(f"out has shape {tuple(out.shape)}, the result {tuple(v.aval.shape)}")
        out._v = P.cast(v, out.dtype)
        out._alias = None
        return out
    if v.aval.dtype.category > out.dtype.category:
        raise DTypeError(f"result type {v.aval.dtype.name} can't be cast to the desired output type {out.dtype.name}")
    out._write(P.cast(v, out.dtype))
    return out


def write(t: Tensor, v: Value, name: str) -> Tensor:
    """In-place result: shape must match, dtype is converted within its category."""
    have = t._v.aval
    if v.aval.shape != have.shape:
        raise ShapeError(f"{name}: output with shape {list(have.shape)} doesn't match the broadcast shape "
                         f"{list(v.aval.shape)}")
    if v.aval.dtype is not have.dtype:
        if v.aval.dtype.category > have.dtype.category:
            raise DTypeError(f"result type {v.aval.dtype.name} can't be cast to the desired output type {have.dtype.name}")
        v = P.cast(v, have.dtype)
    t._write(v)
    return t
