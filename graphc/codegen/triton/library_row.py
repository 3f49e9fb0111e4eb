"""What the library kernels get and give."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...ir.node import Aval, Node
from ..native.contraction import View
from .compiler import Target
from .printer import Printed

Made = tuple[Printed, set[Any], dict[Any, int]]  # a kernel, the keys it writes, buffers of its own with their bytes


@dataclass(frozen=True)
class Library:
    """A node whose inputs lie in the memory of ``keys``, contiguous but for ``views``."""

    node: Node
    ins: Sequence[Aval]
    outs: Sequence[Aval]
    keys: Sequence[Any]
    target: Target
    views: Sequence[View | None] = ()  # of the inputs: strides where they do not lie contiguous after all (attention)
    placed: tuple[Any, View] | None = None  # the memory the first result is written to, in another layout (attention)

    def own(self, name: str) -> Any:
        """The key of a buffer of this node."""
        return (name, self.node.slot)
