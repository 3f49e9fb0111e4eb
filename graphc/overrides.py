"""``torch.overrides``: tensors are one class; ``__torch_function__`` is not asked."""
from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from .tensor import Tensor


def is_tensor_like(inp: Any) -> bool:
    """Whether ``inp`` is a tensor or has ``__torch_function__``."""
    return type(inp) is Tensor or hasattr(inp, "__torch_function__") or isinstance(inp, Tensor)


def has_torch_function(relevant_args: Iterable[Any]) -> bool:
    """Whether any argument, other than a tensor, wants to take a call over."""
    return any(not isinstance(a, Tensor) and hasattr(a, "__torch_function__") for a in relevant_args)


def has_torch_function_unary(obj: Any) -> bool:
    return has_torch_function((obj,))


def has_torch_function_variadic(*args: Any) -> bool:
    return has_torch_function(args)


def handle_torch_function(public_api: Callable[..., Any], relevant_args: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
    """The first answer of an argument's ``__torch_function__`` that is not NotImplemented; TypeError without one."""
    relevant = [a for a in relevant_args if not isinstance(a, Tensor) and hasattr(a, "__torch_function__")]
    for a in relevant:
        result = a.__torch_function__(public_api, tuple(type(r) for r in relevant), args, kwargs)
        if result is not NotImplemented:
            return result
    name = f"{public_api.__module__}.{public_api.__name__}"
    raise TypeError(f"no implementation found for '{name}' on types that implement __torch_function__: "
                    f"{[type(a) for a in relevant]}")


def wrap_torch_function(dispatcher: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator: ask the arguments that ``dispatcher`` picks before running the function."""
    def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            relevant = dispatcher(*args, **kwargs)
            if has_torch_function(relevant):
                return handle_torch_function(wrapped, relevant, *args, **kwargs)
            return fn(*args, **kwargs)

        return wrapped

    return decorate


__all__ = ["handle_torch_function", "has_torch_function", "has_torch_function_unary", "has_torch_function_variadic",
           "is_tensor_like", "wrap_torch_function"]
