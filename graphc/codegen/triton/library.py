"""Kernels for the primitives that are no loops over their result: which launches carry out a node."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...ir.node import Aval, Node
from .compiler import Target
from .printer import Printed

Made = tuple[Printed, set[Any], dict[Any, int]]  # a kernel, the keys it writes, buffers of its own with their bytes


@dataclass(frozen=True)
class Library:
    """A node whose inputs lie contiguous in the memory of ``keys``."""

    node: Node
    ins: Sequence[Aval]
    outs: Sequence[Aval]
    keys: Sequence[Any]
    target: Target

    def own(self, name: str) -> Any:
        """The key of a buffer of this node."""
        return (name, self.node.slot)


def library_kernels(x: Library) -> list[Made] | None:
    """The launches that compute a node, in order; None where there is no kernel."""
    row = _ROWS.get(x.node.op.name)  # type: ignore[union-attr]
    return None if row is None else row(x)


_ROWS: dict[str, Callable[[Library], list[Made] | None]] = {}
