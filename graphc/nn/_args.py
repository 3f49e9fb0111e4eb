"""Small helpers for constructor arguments."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any


def ntuple(n: int) -> Callable[[Any], tuple[Any, ...]]:
    """A function that makes ``n`` copies of a scalar and leaves iterables as tuples."""

    def parse(x: Any) -> tuple[Any, ...]:
        return tuple(x) if isinstance(x, Iterable) else (x,) * n

    return parse


single = ntuple(1)
pair = ntuple(2)
triple = ntuple(3)
quadruple = ntuple(4)


def reverse_repeat(t: Iterable[Any], n: int) -> tuple[Any, ...]:
    """``(a, b)`` as ``(b, b, a, a)`` for ``n == 2``: padding per dimension in the order ``pad`` takes it."""
    return tuple(x for x in reversed(tuple(t)) for _ in range(n))


def legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """``reduction``, unless the older pair of flags is given; then what that pair means, with a warning."""
    if size_average is None and reduce is None:
        return reduction
    meant = "none" if reduce is False else "sum" if size_average is False else "mean"
    warnings.warn(f"size_average and reduce args will be deprecated, please use reduction='{meant}' instead.",
                  stacklevel=4)
    return meant


def inplace_suffix(inplace: bool, first: bool = False) -> str:
    """How ``repr`` of an activation mentions ``inplace``."""
    return ("inplace=True" if first else ", inplace=True") if inplace else ""


def consume_prefix_in_state_dict_if_present(state_dict: Any, prefix: str) -> None:
    """Strip ``prefix`` (``"module."``) from the keys of ``state_dict`` and of its metadata, in place."""
    for key in [k for k in state_dict if k.startswith(prefix)]:
        state_dict[key[len(prefix):]] = state_dict.pop(key)
    metadata = getattr(state_dict, "_metadata", None)
    if metadata is not None:
        for key in list(metadata):
            if key and (key == prefix.replace(".", "") or key.startswith(prefix)):
                metadata[key[len(prefix):]] = metadata.pop(key)


# The names by which PyTorch's own layers and many programs import these helpers.
_ntuple = ntuple
_single, _pair, _triple, _quadruple = single, pair, triple, quadruple
_reverse_repeat_tuple = reverse_repeat
