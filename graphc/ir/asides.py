"""Programs recorded while another one is: the ends of objects that the garbage collector finds.

A collection may start at any allocation, also in the middle of recording an operation, and runs Python: ``__del__``,
callbacks of weak references. What these record goes to a region of its own and is computed when it is read, like a value of
another thread.
"""
from __future__ import annotations

import gc
from typing import Any

from .region import Region, state

FEW = 64  # values recorded in one such region; each that is read plans its region again
_OUTSIDE = {"hold": 0, "tracing": 0, "program": 0, "watch": None, "budget": 1.0, "tune": False, "walks": 0}


def _collecting(phase: str, info: Any) -> None:
    """What the collector calls before and after a collection, in the thread it interrupts."""
    own: dict[str, Any] = state.__dict__
    if phase == "start":
        saved = own.copy()
        aside = saved.get("aside")
        own.update(_OUTSIDE)
        own["region"], own["outer"] = Region() if aside is None or len(aside.live) > FEW else aside, saved
        return
    outer = own.get("outer")
    if outer is not None:  # else the thread's state was made during the collection
        aside = own["region"]
        own.clear()
        own.update(outer)
        own["aside"] = aside


def keep_apart() -> None:
    """Keep what is recorded during collections apart from now on."""
    if _collecting not in gc.callbacks:
        gc.callbacks.append(_collecting)
