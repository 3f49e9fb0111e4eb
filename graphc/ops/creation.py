"""Creation functions and conversions from Python data."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import dtypes
from ..device import device as Device
from ..device import require
from ..dtypes import dtype as DType
from ..errors import ArgumentError, ArgumentTypeError, AutogradError, DTypeError
from ..ir import build as P
from ..ir.node import SharedValue, aval, leaf_value
from ..ir.tape import alias_value
from ..tensor import Tensor, from_array, wrap
from ..views import private_alias
from ._common import convertible, number, shape_arg, to_out, val

_NUMBERS = (bool, int, float, complex)
_PYTHON = {kind: category for category, kind in enumerate(_NUMBERS)}


def _finish(t: Tensor, requires_grad: bool) -> Tensor:
    return t.requires_grad_(True) if requires_grad else t


def as_array(data: Any, dt: DType | None) -> np.ndarray:
    """A private array of Python data with PyTorch's dtype inference."""
    if isinstance(data, np.ndarray):
        return np.array(data, dtype=None if dt is None else dt.np, order="C", copy=True)
    if isinstance(data, (np.number, np.bool_)):
        return np.array(data, dtype=None if dt is None else dt.np)
    if dt is None:
        dt = _inferred(data)
    data = _plain(data)
    if dt is not None:
        if dt.category == 1 and not isinstance(data, (list, tuple)) and isinstance(data, float):
            data = math.trunc(data)
        arr = np.array(data)
        if arr.dtype == object:
            raise ValueError(f"expected sequence of equal length at every level, got ragged data {str(data)[:60]}")
        if dt.category == 1 and arr.dtype.kind in "iu" and arr.size:
            convertible(int(arr.max()), dt)
            convertible(int(arr.min()), dt)
        return arr.astype(dt.np)
    arr = np.array(data)
    if arr.dtype.kind == "f":
        return arr.astype(dtypes.get_default_dtype().np)
    if arr.dtype.kind == "c":
        return arr.astype(dtypes.get_default_dtype().to_complex().np)
    if arr.dtype.kind in "iu":
        if arr.dtype == np.uint64 and arr.size and arr.max() > 2**63 - 1:
            raise ArgumentError("Overflow when unpacking long long")
        return arr.astype(np.int64)
    if arr.dtype.kind == "b":
        return arr
    if arr.size == 0:
        return np.zeros(arr.shape, dtypes.get_default_dtype().np)
    if arr.dtype == object:
        raise ValueError(f"expected sequence of equal length at every level, got ragged data {str(data)[:60]}")
    raise TypeError(f"new(): invalid data type '{type(data).__name__}'")


def _inferred(data: Any) -> DType | None:
    """The dtype of data with NumPy scalars, arrays or tensors in it, which keep theirs; None where Python's numbers decide."""
    found: set[Any] = set()
    stack = [data]
    while stack:
        x = stack.pop()
        if isinstance(x, (Tensor, np.ndarray, np.generic)):
            found.add(x.dtype)
        elif isinstance(x, (list, tuple)):
            kinds = set(map(type, x))
            found |= kinds & _PYTHON.keys()
            rest = kinds - _PYTHON.keys()
            scalars = {k for k in rest if issubclass(k, np.generic)}
            found.update([np.dtype(k) for k in scalars])
            if len(rest) > len(scalars):
                stack += [e for e in x if type(e) not in scalars and type(e) not in _PYTHON]
        elif isinstance(x, str) and x is not data:
            raise ValueError("too many dimensions 'str'")
        elif isinstance(x, dict) or not (isinstance(x, _NUMBERS) or hasattr(x, "__array__") or hasattr(x, "__getitem__")):
            raise DTypeError(f"Could not infer dtype of {type(x).__name__}")
    if not found - _PYTHON.keys():
        return None
    result: DType | None = None
    for k in found:
        d = dtypes.default_for_category(_PYTHON[k]) if k in _PYTHON else k if isinstance(k, DType) else dtypes.from_numpy(k)
        result = d if result is None else dtypes.promote_types(result, d)
    return result


def _plain(data: Any) -> Any:
    """Tensors inside lists become numbers or nested lists."""
    if isinstance(data, Tensor):
        return data.tolist()
    if isinstance(data, (list, tuple)):
        if any(issubclass(k, (Tensor, list, tuple, np.ndarray)) for k in set(map(type, data))):
            kept = [x.detach().cpu().numpy() if isinstance(x, Tensor) and x.dtype is not dtypes.bfloat16 else _plain(x)
                    for x in data]
            return kept
        return list(data)
    if hasattr(data, "__array__") and not isinstance(data, _NUMBERS):
        return np.asarray(data)
    if isinstance(data, range):
        return list(data)
    return data


def tensor(data: Any, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False,
           pin_memory: bool = False) -> Tensor:
    """A new leaf tensor holding a copy of ``data`` (numbers, nested sequences, arrays)."""
    dtype = None if dtype is None else dtypes.as_dtype(dtype)
    if isinstance(data, Tensor):
        v = data.detach()._read()
        if dtype is not None:
            v = P.cast(v, dtype)
        t = wrap(private_alias(v))
        if device is not None:
            t = wrap(P.to_device(t._v, require(device)))
        return _finish(t, requires_grad)
    if isinstance(data, str):
        raise TypeError("new(): invalid data type 'str'")
    if hasattr(data, "__cuda_array_interface__"):
        return _finish(as_tensor(data, dtype, device).clone(), requires_grad)
    t = from_array(as_array(data, dtype), dev=require(device))
    return _finish(t.pin_memory() if pin_memory else t, requires_grad)


def as_tensor(data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """``data`` as a tensor, without a copy where possible."""
    if isinstance(data, Tensor):
        return data.to(device=device or data.device, dtype=dtype or data.dtype)
    if hasattr(data, "__cuda_array_interface__"):
        t = _of_device_array("from_cuda_array_interface", data)
        return t if device is None and dtype is None else t.to(device=device or t.device, dtype=dtype or t.dtype)
    if isinstance(data, np.ndarray):
        from ..tensor import from_numpy

        t = from_numpy(data)
        return t.to(device=require(device), dtype=dtype or t.dtype)
    return tensor(data, dtype=dtype, device=device)


def asarray(obj: Any, *, dtype: DType | None = None, device: Any = None, copy: bool | None = None,
            requires_grad: bool = False) -> Tensor:
    """``obj`` as a tensor sharing its memory where possible; ``copy=True`` copies, ``copy=False`` refuses to."""
    t = as_tensor(obj, dtype, device)
    shares = isinstance(obj, (Tensor, np.ndarray)) and t.dtype is getattr(obj, "dtype", None) or isinstance(obj, np.ndarray)
    if copy is False and not shares:
        raise ArgumentError(f"can't alias {type(obj).__name__} data of another dtype or kind without a copy")
    if copy and shares:
        t = t.detach().clone()
    return _finish(t.detach() if requires_grad and not t.is_leaf else t, requires_grad)



def scalar_tensor(s: Any, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    return tensor(s, dtype=dtype or dtypes.get_default_dtype(), device=device, requires_grad=requires_grad)


def full(size: Any, fill_value: Any, *, out: Tensor | None = None, dtype: DType | None = None, layout: Any = None,
         device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """A tensor of one number (its dtype follows the number unless given)."""
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.item()
    dt = dtypes.as_dtype(dtype or dtypes.default_for_category(dtypes.scalar_category(fill_value)))
    v = _constant(shape_arg((size,) if not isinstance(size, int) else (size,)), fill_value, dt, require(device))
    return _finish(to_out(out, v), requires_grad)


def _constant(shape: tuple[int, ...], fill: Any, dt: DType, dev: Device) -> Any:
    for d in shape:
        if d < 0:
            raise AutogradError(f"Trying to create tensor with negative dimension {d}: {list(shape)}")
    if fill in (0, 1):
        return alias_value(P.full(shape, fill, dt, dev))
    return alias_value(P.expand(P.to_device(number(convertible(fill, dt), dt), dev), shape))


def _sized(fill: Any) -> Any:
    def f(*size: Any, out: Tensor | None = None, dtype: DType | None = None, layout: Any = None, device: Any = None,
          requires_grad: bool = False, pin_memory: bool = False, names: Any = None, memory_format: Any = None) -> Tensor:
        if not size:
            size = ((),)
        v = _constant(shape_arg(size), fill, dtypes.as_dtype(dtype or dtypes.get_default_dtype()), require(device))
        t = to_out(out, v)
        return _finish(t.pin_memory() if pin_memory else t, requires_grad)

    return f


def _with_size_keyword(f: Any, name: str, doc: str) -> Any:
    def g(*size: Any, **kw: Any) -> Tensor:
        if "size" in kw:
            size = (kw.pop("size"),)
        return f(*size, **kw)

    g.__name__, g.__doc__ = name, doc
    return g


zeros = _with_size_keyword(_sized(0), "zeros", "A tensor of zeros.")
ones = _with_size_keyword(_sized(1), "ones", "A tensor of ones.")
empty = _with_size_keyword(_sized(0), "empty", "A tensor to be filled (graphc gives zeros: never stale memory).")


def empty_strided(size: Any, stride: Any, **kw: Any) -> Tensor:
    return empty(size, **kw)


def _like(fill: Any, name: str) -> Any:
    def f(input: Tensor, *, dtype: DType | None = None, layout: Any = None, device: Any = None,
          requires_grad: bool = False, memory_format: Any = None, pin_memory: bool = False) -> Tensor:
        a = val(input).aval
        v = _constant(a.shape, fill, dtype or a.dtype, a.device if device is None else require(device))
        return _finish(wrap(v), requires_grad)

    f.__name__, f.__doc__ = name, f"{name}: shape, dtype and device of ``input``."
    return f


zeros_like, ones_like, empty_like = _like(0, "zeros_like"), _like(1, "ones_like"), _like(0, "empty_like")


def full_like(input: Tensor, fill_value: Any, *, dtype: DType | None = None, layout: Any = None, device: Any = None,
              requires_grad: bool = False, memory_format: Any = None) -> Tensor:
    """``fill_value`` in the shape, dtype and device of ``input``."""
    a = val(input).aval
    return full(a.shape, fill_value, dtype=dtype or a.dtype, device=a.device if device is None else device,
                requires_grad=requires_grad)


def _new(maker: Any) -> Any:
    def f(self: Tensor, *size: Any, dtype: DType | None = None, device: Any = None, requires_grad: bool = False,
          **kw: Any) -> Tensor:
        return maker(*size, dtype=dtype or self.dtype, device=self.device if device is None else device,
                     requires_grad=requires_grad, **kw)

    return f


new_zeros, new_ones, new_empty = _new(zeros), _new(ones), _new(empty)


def new_full(self: Tensor, size: Any, fill_value: Any, *, dtype: DType | None = None, device: Any = None,
             requires_grad: bool = False, layout: Any = None, pin_memory: bool = False) -> Tensor:
    return full(size, fill_value, dtype=dtype or self.dtype, device=self.device if device is None else device,
                requires_grad=requires_grad)


def new_tensor(self: Tensor, data: Any, *, dtype: DType | None = None, device: Any = None,
               requires_grad: bool = False, layout: Any = None, pin_memory: bool = False) -> Tensor:
    where = self.device if device is None else device
    return tensor(data, dtype=dtype or self.dtype, device=where, requires_grad=requires_grad)


def arange(start: Any = None, end: Any = None, step: Any = 1, *, out: Tensor | None = None, dtype: DType | None = None,
           layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """start, start+step, ... below end; int64 when all arguments are integers."""
    if end is None:
        if start is None:
            raise ArgumentTypeError("arange() received an invalid combination of arguments: argument 'end' is missing")
        start, end = 0, start
    elif start is None:
        start = 0
    dtype = None if dtype is None else dtypes.as_dtype(dtype)
    start, end, step = [x.item() if isinstance(x, Tensor) else x for x in (start, end, step)]
    if dtype is dtypes.int64:  # this dtype alone cuts the ends to integers first, as in PyTorch
        whole = [int(x) if math.isfinite(x) else x for x in (start, end, step)]
        start, end, step = whole if whole[2] else (start, end, step)
    if step == 0:
        raise AutogradError("step must be nonzero")
    if not all(math.isfinite(x) for x in (start, end)):
        raise AutogradError(f"unsupported range: {start} -> {end}")
    if (step > 0 and end < start) or (step < 0 and end > start):
        raise AutogradError("upper bound and lower bound inconsistent with step sign")
    ints = all(isinstance(x, (int, np.integer)) for x in (start, end, step))
    dt = dtype or (dtypes.int64 if ints else dtypes.get_default_dtype())
    n = max(0, -((start - end) // step) if ints else math.ceil((end - start) / step))
    dev = require(device)
    if ints:
        v = P.iota(n, dt if dt.category else dtypes.int64, dev)
        if step != 1:
            v = P.mul(v, number(step, v.aval.dtype))
        if start != 0:
            v = P.add(v, number(start, v.aval.dtype))
        return _finish(to_out(out, P.cast(v, dt)), requires_grad)
    arr = (np.arange(n, dtype=np.float64) * step + start).astype(dt.np)
    return _finish(to_out(out, from_array(arr, dev=dev)._v), requires_grad)


def range_(start: Any = 0, end: Any = None, step: Any = 1, **kw: Any) -> Tensor:
    """``torch.range``: like arange but including the end."""
    return arange(float(start), float(end) + step / 2, step, **kw)


def _spaced(fn: Any, start: Any, end: Any, steps: int, dtype: DType | None, device: Any, requires_grad: bool,
            out: Tensor | None) -> Tensor:
    if steps < 0:
        raise AutogradError("number of steps must be non-negative")
    start, end = [x.item() if isinstance(x, Tensor) else x for x in (start, end)]
    dt = dtype or dtypes.get_default_dtype()
    arr = np.asarray(fn(start, end, steps))
    return _finish(to_out(out, from_array(arr.astype(dt.np), dev=require(device))._v), requires_grad)


def linspace(start: Any, end: Any, steps: int, *, out: Tensor | None = None, dtype: DType | None = None, layout: Any = None,
             device: Any = None, requires_grad: bool = False) -> Tensor:
    """``steps`` evenly spaced numbers from start to end inclusive."""
    return _spaced(np.linspace, start, end, steps, dtype, device, requires_grad, out)


def logspace(start: Any, end: Any, steps: int, base: float = 10.0, *, out: Tensor | None = None,
             dtype: DType | None = None, layout: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """base**start ... base**end, evenly spaced in the exponent."""
    return _spaced(lambda a, b, n: np.logspace(a, b, n, base=base), start, end, steps, dtype, device, requires_grad, out)


def eye(n: int, m: int | None = None, *, out: Tensor | None = None, dtype: DType | None = None, layout: Any = None,
        device: Any = None, requires_grad: bool = False) -> Tensor:
    """Identity matrix (n, m)."""
    m = n if m is None else m
    if n < 0 or m < 0:
        raise AutogradError(f"n must be greater or equal to 0, got {n} and {m}")
    dt, dev = dtype or dtypes.get_default_dtype(), require(device)
    r, c = P.iota(n, dtypes.int64, dev), P.iota(m, dtypes.int64, dev)
    v = P.cast(P.eq(P.reshape(r, (n, 1)), P.reshape(c, (1, m))), dt)
    return _finish(to_out(out, v), requires_grad)


def complex_(real: Tensor, imag: Tensor) -> Tensor:
    """Not available yet: complex arithmetic is planned."""
    raise NotImplementedError("complex tensors are not supported yet; keep real and imaginary parts as two tensors")


def _of_device_array(how: str, source: Any) -> Tensor:
    """A tensor over another library's device memory, by a function of ``runtime.cuda.interop``. Memory that kernels cannot
    take as it is (strided, or not aligned to 16 bytes) is copied."""
    from ..runtime.cuda import interop

    array = getattr(interop, how)(source)
    where, dt = Device("cuda", array.buffer.device), dtypes.from_numpy(array.dtype)
    n = array.buffer.nbytes // max(1, dt.itemsize)
    dense = array.strides == interop.contiguous(array.shape)
    if dense and array.buffer.ptr % 16 == 0:
        v = leaf_value(aval(array.shape, dt, where), array)
        v.__class__ = SharedValue
        return wrap(v)
    flat = wrap(leaf_value(aval((n,), dt, where), array.part(0, (n,), (1,), array.dtype).copy()))
    return flat.reshape(array.shape) if dense else flat.as_strided(array.shape, array.strides)


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over memory another library exports by DLPack (shared on the CPU); ``copy=True`` copies."""
    if device is not None or copy:
        t = from_dlpack(ext_tensor)
        t = t.to(require(device)) if device is not None else t
        return t.clone() if copy else t
    ext = ext_tensor
    if hasattr(ext, "__dlpack_device__") and ext.__dlpack_device__()[0] == 2:  # kDLCUDA
        return _of_device_array("from_dlpack", ext)
    if isinstance(ext, Tensor):
        return ext
    arr = np.from_dlpack(ext)
    if not arr.flags.writeable or not arr.flags.c_contiguous:
        return from_array(arr.copy())
    return from_array(arr, share=True)


def frombuffer(buffer: Any, *, dtype: DType, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """A 1-D tensor of a copy of a bytes-like object."""
    arr = np.frombuffer(buffer, dtype.np, count, offset).copy()
    return _finish(from_array(arr), requires_grad)


def clone_as(input: Tensor, dt: DType) -> Tensor:
    """Private copy in another dtype."""
    return wrap(private_alias(P.cast(val(input), dt)))


def legacy_type(dt: DType, name: str) -> type:
    """``FloatTensor`` and friends: callable with sizes or data."""

    class Kind(type):
        def __instancecheck__(cls, x: Any) -> bool:
            return isinstance(x, Tensor) and x.dtype is dt and x.is_cpu

    class Legacy(metaclass=Kind):
        dtype = dt

        def __new__(cls, *args: Any) -> Any:
            from ..tensor import _legacy

            if not args:
                return empty(0, dtype=dt)
            return _legacy(Tensor, args, dt)

    Legacy.__name__ = name
    return Legacy


