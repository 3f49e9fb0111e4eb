"""``autocast``: products in a 16-bit dtype, sums and exponentials in float32, decided where an operation is recorded.

The recorder asks :func:`_cast` about every operation while some thread is inside an autocast block. Casts are ordinary nodes,
so a weight used twice is cast once (common subexpressions) and its gradient comes back in its own dtype. Gradient rules are
recorded as their forward was: no autocast applies inside them.
"""
from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

from ..dtypes import bfloat16, dtype, float16, float32
from ..ir import build as P
from ..ir import recorder
from ..ir.node import Value
from ..ir.optable import OPS, Op

LOWER = frozenset(("linear", "contract", "conv", "conv_input_grad", "sdpa"))
WIDER = frozenset((
    "exp", "expm1", "exp2", "log", "log2", "log10", "log1p", "pow", "rsqrt", "reciprocal", "acos", "asin", "cosh", "sinh",
    "tan", "erfinv", "softmax", "log_softmax", "logsumexp", "softplus", "layer_norm", "rms_norm", "group_norm", "nll",
    "cross_entropy", "bce", "bce_target", "scan"))
_DEFAULT = {"cpu": bfloat16, "cuda": float16}


class _Mode(threading.local):
    """What the present thread is inside of: device type -> dtype of products."""

    def __init__(self) -> None:
        self.dtypes: dict[str, dtype] = {}


_mode = _Mode()
_lock = threading.Lock()
_active = 0  # blocks open in all threads; the recorder asks only while there are any


def _floats(v: Value, device: str) -> bool:
    return v.aval.dtype.is_floating_point and v.aval.dtype.itemsize <= 4 and v.aval.device.type == device


def _cast(op: Op, ins: tuple[Value, ...]) -> tuple[Value, ...]:
    """The operands of ``op`` in the dtype autocast wants them in."""
    if not _mode.dtypes or not ins:
        return ins
    device = ins[0].aval.device.type
    low = _mode.dtypes.get(device)
    if low is None:
        return ins
    if op.name in LOWER:
        return tuple([P.cast(v, low) if v.aval.dtype is not low and _floats(v, device) else v for v in ins])
    if op.name in WIDER:
        return tuple([P.cast(v, float32) if v.aval.dtype.itemsize < 4 and _floats(v, device) else v for v in ins])
    return ins


def _guard_rules() -> None:
    """Make every gradient rule record without autocast; done once, when the first block is entered."""
    for op in OPS.values():
        if op.vjp is not None and not hasattr(op.vjp, "recorded_plain"):
            op.vjp = _plain(op.vjp)


def _plain(rule: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(rule)
    def wrapped(ctx: Any, g: Any) -> Any:
        if not _mode.dtypes:
            return rule(ctx, g)
        before, _mode.dtypes = _mode.dtypes, {}
        try:
            return rule(ctx, g)
        finally:
            _mode.dtypes = before

    wrapped.recorded_plain = True  # type: ignore[attr-defined]
    return wrapped


class autocast:
    """Run products in ``dtype`` inside a ``with`` block or a decorated function.

    ``device_type``: "cpu" or "cuda". ``dtype``: bfloat16 or float16 (default: bfloat16 on the CPU, float16 on a GPU).
    Matrix products, convolutions and attention take and give ``dtype``; exponentials, powers, losses, norms and running sums
    are computed in float32; everything else follows its operands (sums accumulate in float32 in any case). RuntimeError for
    another device type.
    """

    def __init__(self, device_type: str, dtype: dtype | None = None, enabled: bool = True, cache_enabled: bool | None = None):
        if not isinstance(device_type, str):
            raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
        if device_type not in _DEFAULT:
            raise RuntimeError(f"User specified an unsupported autocast device_type '{device_type}'")
        self.device, self._enabled = device_type, enabled
        self.fast_dtype = dtype if dtype is not None else _DEFAULT[device_type]
        if enabled and self.fast_dtype not in (bfloat16, float16):
            warnings.warn(f"In {device_type.upper()} autocast, but the target dtype is not supported. Disabling autocast. "
                          f"It computes in bfloat16 or float16, got {self.fast_dtype}", stacklevel=2)
            self._enabled = False
        self._before: list[dict[str, Any]] = []

    def __enter__(self) -> autocast:
        global _active
        self._before.append(_mode.dtypes)
        rest = {k: d for k, d in _mode.dtypes.items() if k != self.device}
        _mode.dtypes = {**rest, self.device: self.fast_dtype} if self._enabled else rest
        with _lock:
            if not _active:
                _guard_rules()
                recorder.CASTS[:] = [_cast]
            _active += 1
        return self

    def __exit__(self, *exc: object) -> None:
        global _active
        _mode.dtypes = self._before.pop()
        with _lock:
            _active -= 1
            if not _active:
                recorder.CASTS.clear()

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self:
                return fn(*args, **kwargs)

        return wrapped


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether this thread is inside an enabled block for the device type."""
    return device_type in _mode.dtypes


def get_autocast_dtype(device_type: str) -> dtype:
    """The dtype products on this device type get inside a block."""
    return _mode.dtypes.get(device_type) or _DEFAULT[device_type]


def is_autocast_available(device_type: str) -> bool:
    return device_type in _DEFAULT


def custom_fwd(fwd: Any = None, *, device_type: str = "cpu", cast_inputs: dtype | None = None) -> Any:
    """Decorator of a custom Function's ``forward``: inside a block, tensor arguments come in ``cast_inputs`` and autocast is
    off; without ``cast_inputs`` the block's setting stays."""
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if cast_inputs is None or not is_autocast_enabled(device_type):
            return fwd(*args, **kwargs)
        with autocast(device_type, enabled=False):
            return fwd(*[_to(a, cast_inputs) for a in args], **{k: _to(a, cast_inputs) for k, a in kwargs.items()})

    return wrapped


def custom_bwd(bwd: Any = None, *, device_type: str = "cpu") -> Any:
    """Decorator of a custom Function's ``backward``; gradients are recorded in the dtypes of the forward anyway."""
    return functools.partial(custom_bwd, device_type=device_type) if bwd is None else bwd


def _to(x: Any, dt: dtype) -> Any:
    from ..tensor import Tensor

    return x.to(dt) if isinstance(x, Tensor) and x.is_floating_point() else x
