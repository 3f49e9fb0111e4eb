"""``torch.utils.dlpack``: memory shared with other libraries."""
from __future__ import annotations

from typing import Any

from .. import ops
from ..tensor import Tensor


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor on the memory of anything with ``__dlpack__``."""
    return ops.from_dlpack(ext_tensor)


def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule of the tensor's memory."""
    return tensor.__dlpack__()


__all__ = ["from_dlpack", "to_dlpack"]
