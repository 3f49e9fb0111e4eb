"""``torch.backends.mkl``: oneMKL is not used: products are graphc's own kernels."""
from __future__ import annotations


def is_available() -> bool:
    """Whether it is used: no."""
    return False
