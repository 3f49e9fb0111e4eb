"""Calling a module with other tensors in place of its parameters and buffers."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...tensor import Tensor
from ..module import Module

__all__ = ["functional_call"]

_MISSING = object()


def _tied(module: Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """``given``, extended by the other names of tied tensors."""
    names: dict[int, list[str]] = {}
    for walk in (module.named_parameters, module.named_buffers):
        for name, tensor in walk(remove_duplicate=False):
            names.setdefault(id(tensor), []).append(name)
    result = dict(given)
    for group in names.values():
        present = [n for n in group if n in given]
        if len({id(given[n]) for n in present}) > 1:
            raise ValueError(f"functional_call got multiple values for keys {sorted(group)}, which are tied. Consider "
                             "using tie_weights=False")
        if present:
            result.update(dict.fromkeys(group, given[present[0]]))
    return result


def _check_keys(module: Module, given: dict[str, Tensor]) -> None:
    own = {n for n, _ in module.named_parameters(remove_duplicate=False)}
    own |= {n for n, _ in module.named_buffers(remove_duplicate=False)}
    unexpected = [k for k in given if k not in own]
    missing = [k for k in own if k not in given]
    errors = []
    if unexpected:
        errors.append(f"Unexpected key(s): {', '.join(map(repr, unexpected))}.")
    if missing:
        errors.append(f"Missing key(s): {', '.join(map(repr, sorted(missing)))}.")
    if errors:
        raise RuntimeError("Error(s) in reparametrizing for {}:\n\t{}".format(module._get_name(), "\n\t".join(errors)))


def _registry(module: Module, path: str) -> tuple[dict[str, Any], str]:
    owner_path, _, name = path.rpartition(".")
    owner = module.get_submodule(owner_path)
    for registry in (owner._parameters, owner._buffers):
        if name in registry:
            return registry, name
    return owner.__dict__, name


@contextmanager
def swapped(module: Module, parameters_and_buffers: dict[str, Tensor], *, tie_weights: bool = True,
            strict: bool = False) -> Iterator[None]:
    """Within this block the named tensors of ``module`` are the given ones.

    Buffers the module assigned anew come back in ``parameters_and_buffers``.
    """
    given = _tied(module, parameters_and_buffers) if tie_weights else dict(parameters_and_buffers)
    if strict:
        _check_keys(module, given)
    places = {path: _registry(module, path) for path in given}
    saved = {path: registry.get(name, _MISSING) for path, (registry, name) in places.items()}
    try:
        for path, (registry, name) in places.items():
            registry[name] = given[path]
        yield
    finally:
        for path, (registry, name) in places.items():
            if path in parameters_and_buffers and name in registry:
                parameters_and_buffers[path] = registry[name]
            if saved[path] is _MISSING:
                registry.pop(name, None)
            else:
                registry[name] = saved[path]


def functional_call(module: Module, parameters_and_buffers: dict[str, Tensor], args: Any = None,
                    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True, strict: bool = False) -> Any:
    """``module(*args, **kwargs)`` with the given tensors as its parameters and buffers.

    Raises:
        ValueError: different tensors for tied names.
        RuntimeError: with ``strict``, missing or unexpected names.
    """
    if args is None:
        args = ()
    elif not isinstance(args, tuple):
        args = (args,)
    with swapped(module, parameters_and_buffers, tie_weights=tie_weights, strict=strict):
        return module(*args, **(kwargs or {}))
