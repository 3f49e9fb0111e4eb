"""What is switched off for a while: the garbage collector, and NumPy's warnings about numbers (divisions by zero and overflows
are values here, as in PyTorch)."""
from __future__ import annotations

import gc
from typing import Any

import numpy as np


class uncollected:
    """No garbage is collected in a ``with`` block, by this thread or another; then as before."""

    __slots__ = ("before",)

    def __enter__(self) -> None:
        self.before = gc.isenabled()
        gc.disable()

    def __exit__(self, *raised: Any) -> None:
        if self.before:
            gc.enable()


class quiet:
    """``np.errstate(all="ignore")``, set and reset while nothing is collected: it is a context variable, and CPython does not
    survive that the end of some object, called by the collector, sets one while one is being set."""

    __slots__ = ("errors",)

    def __enter__(self) -> None:
        with uncollected():
            self.errors = np.errstate(all="ignore")
            self.errors.__enter__()

    def __exit__(self, *raised: Any) -> None:
        with uncollected():
            self.errors.__exit__(*raised)
