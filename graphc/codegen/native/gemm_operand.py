"""How a matrix product's operand lies in memory."""
from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class Operand:
    """A strided matrix: ``key`` of its memory, then in elements its offset, a stride for every batch axis (0 repeats), the
    strides of its rows and columns (0 and negative ones too)."""

    key: Hashable
    offset: int
    batch: tuple[int, ...]
    row: int
    col: int
