"""Setting module attributes for the length of a ``with`` block."""
from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def setting(module: str, **switches: Any) -> Iterator[None]:
    """Attributes of ``module`` set inside, put back after."""
    space = vars(sys.modules[module])
    before = {k: space[k] for k in switches}
    space.update(switches)
    try:
        yield
    finally:
        space.update(before)
