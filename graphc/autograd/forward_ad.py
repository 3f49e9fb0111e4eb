"""Forward mode by dual tensors; see ``graphc/func/_forward_ad.py``."""
from __future__ import annotations

from . import front

_names = front("_forward_ad")
UnpackedDualTensor, dual_level = _names.UnpackedDualTensor, _names.dual_level
enter_dual_level, exit_dual_level = _names.enter_dual_level, _names.exit_dual_level
make_dual, unpack_dual = _names.make_dual, _names.unpack_dual

__all__ = ["UnpackedDualTensor", "dual_level", "enter_dual_level", "exit_dual_level", "make_dual", "unpack_dual"]
