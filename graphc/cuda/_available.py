"""Whether tensors of this process can live on a GPU."""
from __future__ import annotations

from ..device import _AVAILABLE
from ..runtime.cuda import driver as _driver


def is_available() -> bool:
    """Whether tensors of this process can live on a GPU: the driver works and a back end runs plans there.

    The second part matters to programs that choose ``"cuda" if is_available() else "cpu"``.
    """
    return "cuda" in _AVAILABLE and not _driver.reason()
