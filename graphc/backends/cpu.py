"""``torch.backends.cpu``: what this processor can do."""
from __future__ import annotations


def get_cpu_capability() -> str:
    """"AVX512", "AVX2" or "DEFAULT", by the vectors that kernels use here."""
    try:
        from ..runtime.jit import vector_bits

        bits = vector_bits()
    except ImportError:  # NumPy runs everything
        return "DEFAULT"
    return {512: "AVX512", 256: "AVX2"}.get(bits, "DEFAULT")
