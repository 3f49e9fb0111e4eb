"""Constants, iota, casts and copies between devices."""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import build as P
from ..node import Aval, aval
from ..optable import prim
from ..recorder import scalar_aval
from ..samples import draw


def _const_np(attrs: Any) -> np.ndarray:
    return np.frombuffer(attrs[0], attrs[1].np).reshape(())


prim("const", kind="pointwise", attrs=("value", "dtype"),
     infer=lambda attrs: scalar_aval(attrs[1]), eval_np=_const_np, loop="const", vjp=None, saves=(),
     samples=lambda: [((), (np.float64(1.5).tobytes(), _f64()))], doc="A zero-dim constant (raw bytes, dtype).")


def _f64() -> Any:
    from ...dtypes import float64

    return float64


prim("iota", kind="pointwise", attrs=("n", "dtype", "device"),
     infer=lambda attrs: aval((attrs[0],), attrs[1], attrs[2]),
     eval_np=lambda attrs: np.arange(attrs[0]).astype(attrs[1].np), loop="iota", vjp=None, saves=(),
     samples=lambda: [((), (5, _f64(), _cpu())), ((), (0, _f64(), _cpu()))], doc="0, 1, ..., n-1.")


def _cpu() -> Any:
    from ...device import CPU

    return CPU


def _cast_infer(attrs: Any, x: Aval) -> Aval:
    return aval(x.shape, attrs[0], x.device)


def _cast_np(attrs: Any, x: np.ndarray) -> np.ndarray:
    dt = attrs[0]
    if x.dtype.kind == "c" and 0 < dt.category < 3:
        x = x.real
    if dt.category == 0:
        return x != 0
    if dt.category == 1 and x.dtype.kind not in "biu":
        # C semantics on every platform: truncate, wrap through int64; NaN and infinity give the minimum as on x86
        return np.asarray(x, np.float64 if x.dtype.itemsize != 4 else np.float32).astype(np.int64).astype(dt.np)
    return x.astype(dt.np)


def _cast_vjp(ctx: Any, g: Any) -> Any:
    return (P.cast(g, ctx.in_avals[0].dtype),)


prim("cast", kind="pointwise", attrs=("dtype",), infer=_cast_infer, eval_np=_cast_np, loop="cast", vjp=_cast_vjp,
     saves=(), samples=lambda: [((draw("c", 3, 4),), (_f64(),)), ((draw("c", 2, dtype=np.float32),), (_f64(),))],
     doc="Convert the dtype as C does; to bool means != 0.")


def _bitcast_infer(attrs: Any, x: Aval) -> Aval:
    from ...errors import ShapeError

    dt = attrs[0]
    if dt.itemsize == x.dtype.itemsize:
        return aval(x.shape, dt, x.device)
    if not x.shape:
        raise ShapeError("self.dim() cannot be 0 to view between dtypes of different element sizes")
    nbytes = x.shape[-1] * x.dtype.itemsize
    if nbytes % dt.itemsize:
        raise ShapeError(f"self.size(-1) must be divisible by {dt.itemsize // x.dtype.itemsize} to view "
                         f"{x.dtype.name} as {dt.name}, got shape {x.shape}")
    return aval((*x.shape[:-1], nbytes // dt.itemsize), dt, x.device)


prim("bitcast", kind="opaque", attrs=("dtype",), infer=_bitcast_infer,
     eval_np=lambda attrs, x: np.ascontiguousarray(x).reshape(x.shape).view(attrs[0].np), loop="library", vjp=None, saves=(),
     samples=lambda: [((draw("c", 3, 4),), (_i64(),))], doc="Reinterpret the bytes.")


def _i64() -> Any:
    from ...dtypes import int64

    return int64


prim("copy", kind="opaque", attrs=("device",), infer=lambda attrs, x: aval(x.shape, x.dtype, attrs[0]),
     eval_np=lambda attrs, x: x, loop="copy", vjp=lambda ctx, g: (P.to_device(g, ctx.in_avals[0].device),), saves=(),
     samples=lambda: [((draw("c", 2, 2),), (_cpu(),))], doc="Copy to a device.")
