"""Names of PyTorch that make no sense here: using one raises NotImplementedError that says what to use instead."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any


def absent_class(name: str, instead: str) -> type:
    """A class that cannot be instantiated."""

    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"{name} is not there: {instead}")

    return type(name.rsplit(".", 1)[-1], (), {"__init__": refuse, "__doc__": f"Not there: {instead}."})


def absent_function(name: str, instead: str) -> Callable[..., Any]:
    """A function that cannot be called."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{name} is not there: {instead}")

    refuse.__name__, refuse.__doc__ = name.rsplit(".", 1)[-1], f"Not there: {instead}."
    return refuse
