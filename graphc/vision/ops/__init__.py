"""Operations on boxes and small building blocks, with torchvision's names."""
from __future__ import annotations

from . import boxes, misc
from .boxes import *  # noqa: F403
from .boxes import __all__ as _boxes
from .misc import *  # noqa: F403
from .misc import __all__ as _misc

__all__ = ["boxes", "misc", *_boxes, *_misc]
