"""Programs recorded while another one is: the ends of objects that the garbage collector finds.

A collection may start at any allocation, also in the middle of recording an operation, and runs Python: ``__del__``,
callbacks of weak references. What these record goes to a region of its own, computed before the collection is over.
"""
from __future__ import annotations

import gc
import sys
from types import SimpleNamespace
from typing import Any

from .flush import flush
from .region import Region, state

_OUTSIDE = {"hold": 0, "tracing": 0, "program": 0, "watch": None, "budget": 1.0, "tune": False, "walks": 0}


def _collecting(phase: str, info: Any) -> None:
    """What the collector calls before and after a collection, in the thread it interrupts."""
    own: dict[str, Any] = state.__dict__
    if phase == "start":
        saved = own.copy()
        own.update(_OUTSIDE)
        own["region"], own["outer"] = saved.pop("spare", None) or Region(), saved
        return
    outer = own.get("outer")
    if outer is None:  # the thread's state was made during the collection
        return
    spare: Region | None = own["region"]
    if spare is not None and (spare.live or spare.bindings):
        spare = None
        try:
            flush()
        except Exception as error:  # as one raised in __del__ itself
            sys.unraisablehook(SimpleNamespace(exc_type=type(error), exc_value=error, exc_traceback=error.__traceback__,
                                               err_msg=None, object=None))  # type: ignore[arg-type]
    own.clear()
    own.update(outer)
    if spare is not None and spare.cursor.op is None:
        own["spare"] = spare


def keep_apart() -> None:
    """Keep what is recorded during collections apart from now on."""
    if _collecting not in gc.callbacks:
        gc.callbacks.append(_collecting)
