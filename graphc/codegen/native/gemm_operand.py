"""How a matrix product's operand lies in memory."""
from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ..index import Ix
from .jobs import Space


@dataclass(frozen=True)
class Operand:
    """A strided matrix: ``key`` of its memory, then in elements its offset, a stride for every batch axis (0 repeats), the
    strides of its rows and columns (0 and negative ones too)."""

    key: Hashable
    offset: int
    batch: tuple[int, ...]
    row: int
    col: int


def touched(key: Hashable, itemsize: int, offset: int, axes: Sequence[tuple[int, int]], leading: int) -> Space:
    """Elements of ``key`` at ``offset`` and any steps along ``axes`` (size, stride), ``leading`` of which are batch axes."""
    terms = tuple([(d, stride) for d, (size, stride) in enumerate(axes) if stride and size != 1])
    return Space(tuple([size for size, _ in axes]), leading, ((key, itemsize, Ix(offset, terms)),))
