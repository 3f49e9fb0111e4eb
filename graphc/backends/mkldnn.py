"""``torch.backends.mkldnn``: oneDNN is not used: kernels are graphc's own."""
from __future__ import annotations


def is_available() -> bool:
    """Whether it is used: no."""
    return False


enabled, deterministic, allow_tf32 = False, True, False
