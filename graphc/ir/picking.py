"""Taking numbered items of a sequence without a step of Python for each."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any


def picker(numbers: Sequence[int]) -> Callable[[Any], tuple[Any, ...]]:
    """A function that takes these items of a sequence, as a tuple however many they are."""
    return itemgetter(*numbers) if len(numbers) > 1 else lambda items: tuple([items[k] for k in numbers])
