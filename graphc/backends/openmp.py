"""``torch.backends.openmp``: OpenMP is not used: threads are graphc's own pool."""
from __future__ import annotations


def is_available() -> bool:
    """Whether it is used: no."""
    return False
