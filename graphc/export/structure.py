"""Nested arguments and results as a flat list plus a plain description that a file can hold.

A description is nested lists: ``["t", i]`` is leaf ``i``, ``["tuple" | "list", [...]]``, ``["dict", [[key, ...], ...]]``, and
``["is", x]`` a number, text or None that belongs to the program.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ArgumentError, ArgumentTypeError

_PLAIN = (bool, int, float, complex, str, type(None))
_MAX_DEPTH = 50


def flatten(obj: Any, is_leaf: Callable[[Any], bool], leaves: list[Any], depth: int = 0) -> Any:
    """The description of ``obj``; its leaves are appended to ``leaves``. ArgumentTypeError for what has no description."""
    if depth > _MAX_DEPTH:
        raise ArgumentError(f"arguments nested deeper than {_MAX_DEPTH} levels")
    if is_leaf(obj):
        leaves.append(obj)
        return ["t", len(leaves) - 1]
    if isinstance(obj, (tuple, list)):
        kind = "tuple" if isinstance(obj, tuple) else "list"
        return [kind, [flatten(x, is_leaf, leaves, depth + 1) for x in obj]]
    if isinstance(obj, dict):
        if any(not isinstance(k, (str, int)) for k in obj):
            raise ArgumentTypeError("keys of dicts in an exported program's arguments and results must be str or int")
        return ["dict", [[k, flatten(v, is_leaf, leaves, depth + 1)] for k, v in obj.items()]]
    if isinstance(obj, _PLAIN):
        return ["is", obj]
    raise ArgumentTypeError(f"an exported program's arguments and results are tensors, arrays, numbers, text, None and tuples, "
                            f"lists and dicts of them, not {type(obj).__name__}")


def rebuild(spec: Any, leaves: list[Any], depth: int = 0) -> Any:
    """The object that ``spec`` describes, with these leaves. ArgumentError for a description that is none."""
    if depth > _MAX_DEPTH or not isinstance(spec, (list, tuple)) or len(spec) != 2:
        raise ArgumentError("a damaged description of arguments or results")
    kind, rest = spec
    if kind == "t":
        return leaves[rest]
    if kind in ("tuple", "list"):
        out = [rebuild(s, leaves, depth + 1) for s in rest]
        return tuple(out) if kind == "tuple" else out
    if kind == "dict":
        return {k: rebuild(s, leaves, depth + 1) for k, s in rest}
    if kind == "is":
        return rest
    raise ArgumentError(f"a description of arguments or results of unknown kind {kind!r:.40}")


def describe(spec: Any) -> str:
    """``spec`` for messages: ``(tensor 0, {'mask': tensor 1})``."""
    n = _count(spec)
    return repr(rebuild(spec, [_Name(f"tensor {i}") for i in range(n)]))


class _Name(str):
    def __repr__(self) -> str:
        return str(self)


def _count(spec: Any) -> int:
    """One more than the largest leaf number in ``spec``."""
    kind, rest = spec
    if kind == "t":
        return int(rest) + 1
    if kind == "is":
        return 0
    return max([_count(s[1] if kind == "dict" else s) for s in rest], default=0)
