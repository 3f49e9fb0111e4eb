"""``Dim`` and ``dynamic_shapes``: which arguments of an exported program have a batch axis of any size."""
from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ArgumentError


class _Auto:
    """A dynamic axis without a name."""

    def __init__(self, name: str):
        self._name = name

    def __repr__(self) -> str:
        return f"Dim.{self._name}"


class Dim:
    """A named dynamic size. ``min`` and ``max`` are accepted; ``Dim.AUTO`` and ``Dim.DYNAMIC`` are sizes without a name,
    ``Dim.STATIC`` (and None) is the example's own."""

    AUTO, DYNAMIC, STATIC = _Auto("AUTO"), _Auto("DYNAMIC"), _Auto("STATIC")

    def __init__(self, name: str, *, min: int | None = None, max: int | None = None):
        if not isinstance(name, str) or not name.isidentifier():
            raise ArgumentError(f"Dim: the name must be an identifier, got {name!r}")
        self.name, self.__name__, self.min, self.max = name, name, min, max

    def __repr__(self) -> str:
        return f"Dim({self.name!r})"


def dims(*names: str, min: int | None = None, max: int | None = None) -> tuple[Dim, ...]:
    """Several of them."""
    return tuple([Dim(name, min=min, max=max) for name in names])


def _is_dynamic(spec: Any) -> bool:
    return spec is not None and spec is not Dim.STATIC and not isinstance(spec, int)


def _axes(spec: Any) -> dict[int, Any]:
    """The dynamic axes that one tensor's entry names."""
    if spec is None:
        return {}
    items = spec.items() if isinstance(spec, Mapping) else enumerate(spec) if isinstance(spec, (tuple, list)) else None
    if items is None:
        raise ArgumentError(f"dynamic_shapes: expected a dict or tuple of dimensions for a tensor, got {spec!r}")
    return {int(axis): d for axis, d in items if _is_dynamic(d)}


def batch_arguments(mod: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dynamic_shapes: Any) -> list[int] | bool:
    """Numbers of the arguments (as flattened) whose axis 0 is dynamic; False if none is.

    Raises ArgumentError for other axes than 0, several names, and entries that do not fit the arguments.
    """
    call = mod.forward if hasattr(mod, "forward") else mod
    bound = inspect.signature(call).bind(*args, **kwargs).arguments
    if isinstance(dynamic_shapes, (tuple, list)):
        dynamic_shapes = dict(zip(bound, dynamic_shapes))
    unknown = set(dynamic_shapes) - set(bound)
    if unknown:
        raise ArgumentError(f"dynamic_shapes: {sorted(unknown)} are no arguments of the call, which are {list(bound)}")
    numbers: list[int] = []
    names: set[str] = set()
    count = 0
    for name, value in bound.items():
        todo: list[tuple[Any, Any]] = [(value, dynamic_shapes.get(name))]
        while todo:
            x, spec = todo.pop(0)
            if isinstance(x, Mapping):
                todo = [(x[k], None if spec is None else spec.get(k)) for k in x] + todo
            elif isinstance(x, (tuple, list)):
                todo = [(y, None if spec is None else spec[i]) for i, y in enumerate(x)] + todo
            elif hasattr(x, "__array__"):  # a tensor or an array
                axes = _axes(spec)
                if set(axes) - {0}:
                    raise ArgumentError(f"dynamic_shapes: only axis 0 may be dynamic, got {axes} for {name!r}")
                if axes:
                    numbers.append(count)
                    names.update(d.name for d in axes.values() if isinstance(d, Dim))
                count += 1
    if len(names) > 1:
        raise ArgumentError(f"dynamic_shapes: one batch size may be dynamic, got {sorted(names)}")
    return numbers or False
