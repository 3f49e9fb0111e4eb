"""Process-wide switches and questions that ``torch.*`` has as functions; ``graphc`` gives them under their names.

Most have one setting here: those accept what programs pass and answer what holds.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from . import dtypes
from .amp import autocast_mode
from .autograd import mode
from .dtypes import dtype
from .errors import ArgumentTypeError
from .tensor import Tensor

has_lapack, has_spectral, has_mkl, has_openmp = True, True, False, False
_LEGACY = {"FloatTensor": dtypes.float32, "DoubleTensor": dtypes.float64, "HalfTensor": dtypes.float16,
           "BFloat16Tensor": dtypes.bfloat16}
_warn_always = [False]  # what programs asked for, to answer with
_threads = [0]


def set_default_tensor_type(t: Any, /) -> None:
    """The default dtype, by the name of an old tensor class: ``"torch.DoubleTensor"`` or ``torch.DoubleTensor``."""
    name = t if isinstance(t, str) else getattr(t, "__name__", "")
    dt = _LEGACY.get(name.rsplit(".", 1)[-1])
    if dt is None:
        raise TypeError(f"only floating-point types are supported as the default type, got {name or t!r}")
    dtypes.set_default_dtype(dt)


def set_flush_denormal(mode: bool) -> bool:
    """Whether the processor's flush mode was set: never, denormal numbers are kept."""
    return False


def get_num_interop_threads() -> int:
    """Threads that run independent programs: as set, else those of the back end."""
    from .runtime import threads

    return _threads[0] or threads.get_num_threads()


def set_num_interop_threads(n: int) -> None:
    """Accepted: one pool runs everything. RuntimeError unless positive."""
    if n <= 0:
        raise RuntimeError("Expected a positive number of threads")
    _threads[0] = int(n)


def init_num_threads() -> None:
    """Accepted: threads start with the first program that has work for them."""


# ------------------------------------------------------------------------------------------------------- determinism etc.
def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Whether only a warning tells of other algorithms: no, there are none."""
    return False


def get_deterministic_debug_mode() -> int:
    """2 ("error"): results are deterministic always."""
    return 2


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """Accepted: 0, 1, 2 or "default", "warn", "error"; results are deterministic always."""
    if debug_mode not in (0, 1, 2, "default", "warn", "error"):
        raise RuntimeError(f"invalid value of debug_mode, expected `default`, `warn`, `error`, 0, 1 or 2, but got {debug_mode}")


def is_warn_always_enabled() -> bool:
    return _warn_always[0]


def set_warn_always(b: bool, /) -> None:
    """Accepted: which warnings repeat is for Python's filters."""
    _warn_always[0] = bool(b)


def compiled_with_cxx11_abi() -> bool:
    """Whether C++ extensions of the new ABI load: there are none."""
    return True


def is_anomaly_enabled() -> bool:
    """Whether backward passes of this thread look for NaN."""
    return mode.is_anomaly_enabled()


is_anomaly_check_nan_enabled = is_anomaly_enabled


def set_anomaly_enabled(mode_: bool, check_nan: bool = True) -> None:
    """Look for NaN in backward passes from now on, or stop."""
    mode.anomaly.check = bool(mode_ and check_nan)


# ------------------------------------------------------------------------------------------------------------ autocast
def set_autocast_dtype(device_type: str, dtype: dtype) -> None:
    """The dtype that ``autocast(device_type)`` takes when it is given none."""
    if device_type not in autocast_mode._DEFAULT:
        raise RuntimeError(f"unsupported autocast device_type '{device_type}'")
    autocast_mode._DEFAULT[device_type] = dtype


def get_autocast_cpu_dtype() -> dtype:
    return autocast_mode.get_autocast_dtype("cpu")


def get_autocast_gpu_dtype() -> dtype:
    return autocast_mode.get_autocast_dtype("cuda")


def set_autocast_cpu_dtype(dtype: dtype) -> None:
    set_autocast_dtype("cpu", dtype)


def set_autocast_gpu_dtype(dtype: dtype) -> None:
    set_autocast_dtype("cuda", dtype)


def is_autocast_cpu_enabled() -> bool:
    return autocast_mode.is_autocast_enabled("cpu")


def is_autocast_cache_enabled() -> bool:
    """Whether a weight used twice is cast once: yes."""
    return True


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Accepted: equal casts of a program are one."""


def clear_autocast_cache() -> None:
    """Accepted: casts belong to the program that needs them."""


# ------------------------------------------------------------------------------------------------- control flow, numbers
def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Sequence[Any] = ()) -> Any:
    """``true_fn(*operands)`` or ``false_fn(*operands)``. A tensor ``pred`` of one element is read, which splits a program."""
    if isinstance(pred, Tensor):
        if pred.numel() != 1:
            raise RuntimeError("Expected pred to be bool or single-element tensor, but got a tensor of "
                               f"{pred.numel()} elements")
    elif not isinstance(pred, bool):
        raise RuntimeError(f"Expected pred to be bool or tensor, but got {pred}.")
    if not callable(true_fn) or not callable(false_fn):
        raise RuntimeError("Expect both branches to be callable.")
    if not isinstance(operands, (tuple, list)):
        raise RuntimeError("Expect operands to be a tuple of possibly nested dict/list/tuple that only consists of tensor "
                           f"leaves, but got {operands}.")
    return (true_fn if bool(pred) else false_fn)(*operands)


def while_loop(cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried_inputs: Any) -> Any:
    """``carried = body_fn(*carried)`` while ``cond_fn(*carried)``, which is read every time."""
    carried = tuple(carried_inputs)
    while bool(cond_fn(*carried)):
        out = body_fn(*carried)
        carried = tuple(out) if isinstance(out, (tuple, list)) else (out,)
        if len(carried) != len(carried_inputs):
            raise RuntimeError(f"body_fn returned {len(carried)} values for {len(carried_inputs)} carried inputs")
    return carried


def sym_int(a: Any) -> int:
    """The integer part (sizes are plain integers here)."""
    return math.trunc(a)


def sym_float(a: Any) -> float:
    return float(a)


def sym_max(a: Any, b: Any) -> Any:
    """The larger, a float if either is."""
    return type(a + b)(max(a, b))


def sym_min(a: Any, b: Any) -> Any:
    """The smaller, a float if either is."""
    return type(a + b)(min(a, b))


def sym_not(a: Any) -> bool:
    return not a


def sym_ite(b: Any, t: Any, f: Any) -> Any:
    return t if b else f


def sym_sum(args: Sequence[Any]) -> Any:
    """The sum of a list."""
    if not isinstance(args, (list, tuple)):
        raise ArgumentTypeError(f"sym_sum() takes a list of numbers, got {type(args).__name__}")
    return sum(args)


def get_device_module(device: Any = None) -> Any:
    """``graphc.cuda`` or ``graphc.cpu``, by a device or its name (None: what there is). RuntimeError for another."""
    import importlib

    if device is None:
        device = "cuda" if importlib.import_module(f"{__package__}.cuda").is_available() else "cpu"
    name = str(getattr(device, "type", device)).split(":")[0]
    if name not in ("cpu", "cuda"):
        raise RuntimeError(f"Invalid device type {name!r}: graphc has no module of that name")
    return importlib.import_module(f"{__package__}.{name}")


__all__ = [name for name, obj in list(vars().items())
           if getattr(obj, "__module__", "") == __name__ and not name.startswith("_")]
__all__ += ["has_lapack", "has_mkl", "has_openmp", "has_spectral", "is_anomaly_check_nan_enabled"]
