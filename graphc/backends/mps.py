"""``torch.backends.mps``: Apple GPUs are no back end of graphc."""
from __future__ import annotations


def is_available() -> bool:
    """Whether it is used: no."""
    return False


def is_built() -> bool:
    return False


def is_macos13_or_newer(minor: int = 0) -> bool:
    return False


is_macos_or_newer = is_macos13_or_newer
