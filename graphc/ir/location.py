"""Where in the user's program an op was recorded.

A location is the (code object, instruction offset) of the innermost frame outside graphc: two pointers, no string.
"""
from __future__ import annotations

import os
import sys
from types import CodeType

from .node import Loc

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_INTERNAL: dict[CodeType, bool] = {}  # code object -> is it graphc's own


def user_location(depth: int = 1) -> Loc:
    """Location of the nearest caller that is not graphc's own code."""
    frame = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        internal = _INTERNAL.get(code)
        if internal is None:
            internal = _INTERNAL[code] = code.co_filename.startswith(_PACKAGE)
        if not internal:
            return code, frame.f_lasti
        frame = frame.f_back  # type: ignore[assignment]
    return None


def format_location(loc: Loc) -> str:
    """``file.py:41`` for a location, or ``<unknown>``."""
    if loc is None:
        return "<unknown>"
    code, lasti = loc
    line = code.co_firstlineno
    for start, end, no in code.co_lines():
        if start <= lasti < end and no is not None:
            line = no
            break
    name = code.co_filename
    return f"{os.path.relpath(name) if name.startswith(os.getcwd() + os.sep) else name}:{line}"
