"""NumPy's warnings about numbers, off: divisions by zero and overflows are values here, as in PyTorch."""
from __future__ import annotations

import gc
from typing import Any

import numpy as np


class quiet:
    """``np.errstate(all="ignore")``, set and reset while nothing is collected: it is a context variable, and CPython does not
    survive that the end of some object, called by the collector, sets one while one is being set."""

    __slots__ = ("errors",)

    def __enter__(self) -> None:
        collecting = gc.isenabled()
        gc.disable()
        self.errors = np.errstate(all="ignore")
        self.errors.__enter__()
        if collecting:
            gc.enable()

    def __exit__(self, *raised: Any) -> None:
        collecting = gc.isenabled()
        gc.disable()
        self.errors.__exit__(*raised)
        if collecting:
            gc.enable()
