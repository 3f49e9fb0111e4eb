"""Shape and dtype rules shared by rows of the op table, with the error messages users see."""
from __future__ import annotations

from functools import lru_cache

from ..device import CPU, device
from ..dtypes import bool_, dtype
from ..errors import DeviceError, DTypeError, ShapeError
from .node import Aval, aval


def common_device(name: str, *ins: Aval) -> device:
    """The device of the operands; zero-dim host operands go along with any device."""
    dev = ins[0].device if ins else CPU
    for a in ins:
        if a.device is not dev:
            if a.ndim == 0 and a.device is CPU:
                continue
            if dev is CPU and all(b.ndim == 0 for b in ins if b.device is CPU):
                dev = a.device
                continue
            raise DeviceError(f"Expected all tensors to be on the same device, but found at least two devices, "
                              f"{dev} and {a.device}! ({name})")
    return dev


@lru_cache(4096)
def broadcast_shapes(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy-style broadcast of shapes. Raises ShapeError naming the axis that does not fit."""
    n = max((len(s) for s in shapes), default=0)
    out = [1] * n
    for s in shapes:
        off = n - len(s)
        for i, d in enumerate(s):
            if d != 1:
                have = out[off + i]
                if have != 1 and have != d:
                    raise ShapeError(
                        f"{name}: The size of tensor a ({have}) must match the size of tensor b ({d}) at non-singleton "
                        f"dimension {off + i}; shapes {', '.join(str(tuple(x)) for x in shapes)} do not broadcast")
                out[off + i] = d
    return tuple(out)


def elementwise(name: str, *ins: Aval, out: dtype | None = None) -> Aval:
    """Broadcast of operands that share one dtype."""
    first = ins[0]
    if len(ins) == 1:
        return first if out is None or out is first.dtype else aval(first.shape, out, first.device)
    dt = first.dtype
    same = True
    for a in ins:
        if a is not first:
            same = False
            if a.dtype is not dt:
                raise DTypeError(f"{name}: operands must have one dtype here, got {', '.join(i.dtype.name for i in ins)}")
    if same:
        return elementwise(name, first, out=out)
    return aval(broadcast_shapes(name, *[a.shape for a in ins]), out or dt, common_device(name, *ins))


def comparison(name: str, *ins: Aval) -> Aval:
    """Elementwise with a boolean result."""
    return elementwise(name, *ins, out=bool_)


def require_float(name: str, a: Aval) -> None:
    """Raise DTypeError unless ``a`` is floating or complex."""
    if a.dtype.category < 2:
        raise DTypeError(f"\"{name}\" not implemented for '{a.dtype.name}'; convert with .float() first")
