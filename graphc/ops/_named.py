"""Named tuples that functions return, printed as PyTorch prints them."""
from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from typing import Any

__all__ = ["named_result"]


def named_result(name: str, fields: list[str]) -> Any:
    """The class ``torch.return_types.<name>``: built from its fields or, like PyTorch's, from one sequence of them."""
    base: Any = namedtuple(name, fields)  # type: ignore[misc]

    def __new__(cls: Any, *values: Any, **by_name: Any) -> Any:
        one = values[0] if len(values) == 1 and not by_name and isinstance(values[0], (tuple, list, Iterator)) else values
        return base.__new__(cls, *one, **by_name)

    def __repr__(self: Any) -> str:
        return f"torch.return_types.{name}(\n" + ",\n".join([f"{f}={v!r}" for f, v in zip(fields, self)]) + ")"

    members = {"__slots__": (), "__new__": __new__, "__repr__": __repr__, "__module__": "graphc.return_types"}
    return type(name, (base,), members)
