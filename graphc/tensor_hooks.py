"""What programs hold of a tensor's gradient graph: handles that remove hooks, and what ``grad_fn`` shows."""
from __future__ import annotations

from typing import Any

from .ir.tape import GradNode, OutputEdge


class HookHandle:
    """Removes a hook; usable as a context manager."""

    _next = 0

    def __init__(self, registry: dict[int, Any], entry: Any):
        self._registry = registry
        self.id = HookHandle._next
        HookHandle._next += 1
        registry[self.id] = entry

    def remove(self) -> None:
        self._registry.pop(self.id, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class GradFn:
    """What ``tensor.grad_fn`` shows: a name and the functions before it."""

    def __init__(self, edge: Any):
        self._gn = edge.gn if edge.__class__ is OutputEdge else edge

    def name(self) -> str:
        return self._gn.name()

    @property
    def next_functions(self) -> tuple[Any, ...]:
        if not isinstance(self._gn, GradNode):
            return ()
        return tuple([(None if e is None else GradFn(e), e.index if e.__class__ is OutputEdge else 0)
                      for e in self._gn.edges or ()])

    def __repr__(self) -> str:
        return f"<{self.name()}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GradFn) and other._gn is self._gn

    def __hash__(self) -> int:
        return id(self._gn)
