"""``torch.backends`` names that programs set or ask; nothing here changes what graphc computes."""
from __future__ import annotations

from typing import Any


class _Backend:
    """A namespace of switches: any attribute may be set and read back; ``is_available`` answers for this process."""

    def __init__(self, available: bool = False, **switches: Any):
        self._available = available
        self.__dict__.update(switches)

    def is_available(self) -> bool:
        return self._available

    is_built = is_available


cudnn = _Backend(enabled=False, benchmark=False, deterministic=True, allow_tf32=False)
cuda = _Backend(matmul=_Backend(allow_tf32=False))
mps = _Backend()
mkl = _Backend()
mkldnn = _Backend()
openmp = _Backend()
