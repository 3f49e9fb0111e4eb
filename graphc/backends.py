"""``torch.backends`` names that programs set or ask; nothing here changes what graphc computes."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


class _Backend:
    """A namespace of switches: any attribute may be set and read back; ``is_available`` answers for this process."""

    def __init__(self, available: bool = False, **switches: Any):
        self._available = available
        self.__dict__.update(switches)

    def is_available(self) -> bool:
        return self._available

    is_built = is_available


@contextlib.contextmanager
def _sdp_kernel(enable_flash: bool = True, enable_math: bool = True, enable_mem_efficient: bool = True,
                enable_cudnn: bool = True) -> Iterator[None]:
    """Accepted: how attention is computed is the compiler's choice."""
    yield


cudnn = _Backend(enabled=False, benchmark=False, deterministic=True, allow_tf32=False)
cuda = _Backend(matmul=_Backend(allow_tf32=False), sdp_kernel=_sdp_kernel)
mps = _Backend()
mkl = _Backend()
mkldnn = _Backend()
openmp = _Backend()
