"""``torch.backends.cuda``: accepted switches; how products and attention are computed is the compiler's choice."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

matmul = SimpleNamespace(allow_tf32=False, allow_fp16_reduced_precision_reduction=True,
                         allow_bf16_reduced_precision_reduction=True, fp32_precision="none")
cufft_plan_cache = SimpleNamespace(size=0, max_size=0, clear=lambda: None)
_kernels = {"flash": True, "mem_efficient": True, "math": True, "cudnn": True}  # what programs asked for, to answer with


def is_built() -> bool:
    """Whether PyTorch's CUDA build is there: no (graphc drives devices itself)."""
    return False


@contextlib.contextmanager
def sdp_kernel(enable_flash: bool = True, enable_math: bool = True, enable_mem_efficient: bool = True,
               enable_cudnn: bool = True) -> Iterator[None]:
    """Which attention kernels may be used inside: remembered, all give the same numbers here."""
    before = dict(_kernels)
    _kernels.update(flash=enable_flash, math=enable_math, mem_efficient=enable_mem_efficient, cudnn=enable_cudnn)
    try:
        yield
    finally:
        _kernels.update(before)


def _pair(name: str) -> tuple[Any, Any]:
    def enable(enabled: bool) -> None:
        _kernels[name] = bool(enabled)

    def enabled() -> bool:
        return _kernels[name]

    enable.__name__, enable.__doc__ = f"enable_{name}_sdp", "Accepted: the choice is the compiler's."
    enabled.__name__, enabled.__doc__ = f"{name}_sdp_enabled", "What was asked for last."
    return enable, enabled


enable_flash_sdp, flash_sdp_enabled = _pair("flash")
enable_mem_efficient_sdp, mem_efficient_sdp_enabled = _pair("mem_efficient")
enable_math_sdp, math_sdp_enabled = _pair("math")
enable_cudnn_sdp, cudnn_sdp_enabled = _pair("cudnn")


def is_flash_attention_available() -> bool:
    """Whether PyTorch's flash attention is there: no; attention is fused by graphc itself."""
    return False


def preferred_linalg_library(backend: Any = None) -> str:
    """Accepted: there is one."""
    return "default"


preferred_blas_library = preferred_linalg_library
