"""graphc: a deep-learning framework in pure Python with a compiler inside.

``import graphc as torch`` runs programs written for PyTorch; see README.md. This file only re-exports names; heavy
subpackages load on first use.
"""
from __future__ import annotations

import importlib
import math
import sys
from typing import Any

from . import _importers, ops
from .autograd.mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .compile import compile
from .device import device, get_default_device, register_kind, set_default_device
from .dtypes import (
    bfloat16,
    complex64,
    complex128,
    dtype,
    finfo,
    float16,
    float32,
    float64,
    get_default_dtype,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    set_default_dtype,
    uint8,
    uint32,
)
from .dtypes import bool_ as bool
from .tensor import Size, Tensor, from_numpy
from .tensor_overriding import SWITCH as _SWITCH

__version__ = "0.1.0"


def _find_cuda(wanted: device) -> device:
    from .cuda._available import find

    return find(wanted)


def _exchanges() -> Any:
    from .overrides import exchanges

    return exchanges()


register_kind("cuda", _find_cuda)
_SWITCH.source = _exchanges
half, float, double, short, int, long = float16, float32, float64, int16, int32, int64
cfloat, cdouble = complex64, complex128
pi, inf, nan, e = math.pi, math.inf, math.nan, math.e
newaxis = None
strided = "torch.strided"


class _MemoryFormat:
    """Placeholder for PyTorch's memory formats: layout is the compiler's business here."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"


contiguous_format, preserve_format = _MemoryFormat("contiguous_format"), _MemoryFormat("preserve_format")
memory_format, legacy_contiguous_format = _MemoryFormat, contiguous_format
layout = str  # what `strided` is
channels_last, channels_last_3d = _MemoryFormat("channels_last"), _MemoryFormat("channels_last_3d")

_SKIP = {"namedtuple", "wrap", "val", "apply", "to_out", "cuda", "cpu", "to", "type_", "number", "operand", "require"}
for _name, _obj in list(vars(ops).items()):
    if not _name.startswith("_") and callable(_obj) and _name not in globals() and _name not in _SKIP:
        globals()[_name] = _obj

range = ops.range_
tensor = ops.tensor  # the function; the module stays reachable as `from graphc.tensor import ...`
_legacy: Any = ops.legacy_type
FloatTensor = _legacy(float32, "FloatTensor")
DoubleTensor = _legacy(float64, "DoubleTensor")
HalfTensor = _legacy(float16, "HalfTensor")
LongTensor = _legacy(int64, "LongTensor")
IntTensor = _legacy(int32, "IntTensor")
ShortTensor = _legacy(int16, "ShortTensor")
CharTensor = _legacy(int8, "CharTensor")
ByteTensor = _legacy(uint8, "ByteTensor")
BoolTensor = _legacy(bool, "BoolTensor")
BFloat16Tensor = _legacy(bfloat16, "BFloat16Tensor")

_SUBPACKAGES = frozenset(("nn", "optim", "utils", "vision", "autograd", "cuda", "amp", "func", "distributed",
                          "linalg", "fft", "special", "testing", "random", "errors", "backends", "version", "jit", "hub",
                          "multiprocessing", "distributions", "profiler", "serialization", "onnx", "export", "config",
                          "compiler", "accelerator", "fx", "xpu", "return_types", "mps", "nested", "sparse", "types",
                          "overrides", "_dynamo", "_inductor", "cpu", "signal", "_utils", "futures", "functional", "storage",
                          "torch_version", "library", "_C"))
_LAZY = {"save": "serialization", "load": "serialization", "set_printoptions": "tensor_repr", "vmap": "func",
         "autocast": "amp", "is_autocast_enabled": "amp", "get_autocast_dtype": "amp", "GradScaler": "amp",
         "OutOfMemoryError": "errors", "sparse_coo_tensor": "sparse", "sparse_csr_tensor": "sparse",
         "default_generator": "random", "is_autocast_available": "amp", "fork": "jit", "wait": "jit",
         "TypedStorage": "storage", "UntypedStorage": "storage"}
_LAZY.update(dict.fromkeys("""
clear_autocast_cache compiled_with_cxx11_abi cond get_autocast_cpu_dtype get_autocast_gpu_dtype
get_deterministic_debug_mode get_device_module get_num_interop_threads has_lapack has_mkl has_openmp has_spectral
init_num_threads is_anomaly_check_nan_enabled is_anomaly_check_nan_enabled is_anomaly_enabled is_autocast_cache_enabled
is_autocast_cpu_enabled is_deterministic_algorithms_warn_only_enabled is_warn_always_enabled set_anomaly_enabled
set_autocast_cache_enabled set_autocast_cpu_dtype set_autocast_dtype set_autocast_gpu_dtype set_default_tensor_type
set_deterministic_debug_mode set_flush_denormal set_num_interop_threads set_warn_always sym_float sym_int sym_ite sym_max
sym_min sym_not sym_sum while_loop
""".split(), "settings"))
_LAZY.update(dict.fromkeys((f"{kind}Storage" for kind in "Float Double Half BFloat16 Long Int Short Char Byte Bool".split()),
                           "storage"))


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        try:
            return importlib.import_module(f"graphc.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"graphc.{name}":
                raise
    elif name in _LAZY:
        return getattr(importlib.import_module(f"graphc.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'graphc' has no attribute {name!r}")


def is_storage(obj: Any) -> Any:
    """Whether ``obj`` is a storage object (always False: storages are internal)."""
    return False


def set_num_threads(n: Any) -> None:
    """Number of threads the CPU back end uses."""
    from .runtime import threads

    threads.set_num_threads(n)


def get_num_threads() -> Any:
    """Number of threads the CPU back end uses."""
    from .runtime import threads

    return threads.get_num_threads()


def _assert(condition: Any, message: str) -> None:
    """``assert`` as a call, for programs that are traced elsewhere."""
    assert condition, message


def typename(obj: Any) -> str:
    """Name of an object's type, with PyTorch's spelling for tensors."""
    return obj.type() if isinstance(obj, Tensor) else f"{type(obj).__module__}.{type(obj).__qualname__}"


_matmul_precision = ["highest"]  # documented process-wide setting; read by the GPU back end


def set_float32_matmul_precision(precision: str) -> None:
    """"highest", "high" or "medium": how float32 products may be computed on a GPU."""
    if precision not in ("highest", "high", "medium"):
        raise RuntimeError(f"{precision} is not one of 'highest', 'high', or 'medium'")
    _matmul_precision[0] = precision


def get_float32_matmul_precision() -> str:
    return _matmul_precision[0]


def use_deterministic_algorithms(mode: Any, *, warn_only: Any = False) -> None:
    """Accepted: graphc is deterministic always."""


def are_deterministic_algorithms_enabled() -> Any:
    return True


__all__ = [  # noqa: PLE0605
    "Size", "Tensor", "compile", "device", "dtype", "enable_grad", "finfo", "from_numpy", "get_default_device",
    "get_default_dtype", "iinfo", "inference_mode", "is_grad_enabled", "is_inference_mode_enabled", "no_grad",
    "promote_types", "set_default_device", "set_default_dtype", "set_grad_enabled", "uint32", "bfloat16",
]
_importers.watch(sys.modules[__name__])
