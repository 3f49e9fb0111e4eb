"""Random choices of the transforms, drawn from graphc's default generator: ``manual_seed`` makes them repeat."""
from __future__ import annotations

from ...utils.data._utils.rng import integer, permutation, unit

__all__ = ["integer", "permutation", "uniform", "unit"]


def uniform(low: float, high: float) -> float:
    """A number of [low, high)."""
    return low + (high - low) * unit()
