"""Modules as functions of their parameters and buffers."""
from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ..tensor import Tensor


def functional_call(module: Any, parameter_and_buffer_dicts: dict[str, Tensor] | Sequence[dict[str, Tensor]],
                    args: Any = None, kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True,
                    strict: bool = False) -> Any:
    """``module(*args, **kwargs)`` with the given tensors in place of its parameters and buffers.

    Several dicts are merged. Raises ValueError for a name given twice or different tensors for tied names, TypeError for
    anything but dicts, RuntimeError with ``strict`` for missing or unexpected names.
    """
    from ..nn.utils.stateless import functional_call as call

    if isinstance(parameter_and_buffer_dicts, dict):
        given = parameter_and_buffer_dicts
    elif isinstance(parameter_and_buffer_dicts, Sequence):
        given = {}
        for part in parameter_and_buffer_dicts:
            if not isinstance(part, dict):
                raise TypeError(f"Expected all elements of parameter_and_buffer_dicts to be dictionaries, got {type(part)}")
            repeated = given.keys() & part.keys()
            if repeated:
                raise ValueError(f"{sorted(repeated)[0]} appears in multiple dictionaries; behavior of functional call is "
                                 "ambiguous")
            given.update(part)
    else:
        raise TypeError("Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got "
                        f"{type(parameter_and_buffer_dicts)}")
    return call(module, given, args, kwargs, tie_weights=tie_weights, strict=strict)


def stack_module_state(models: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(parameters, buffers) of equal models by name, each stacked on a new axis 0; for ``vmap(functional_call)``.

    The stacked parameters are new leaves that require gradients where the models' do. Raises RuntimeError for no models,
    models of different classes or modes, or parameters that differ in whether they require gradients.
    """
    from ..ops.joining import stack

    models = list(models)
    if not models:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if any(m.training != models[0].training for m in models):
        raise RuntimeError("stack_module_state: Expected all models to have the same training/eval mode.")
    if any(type(m) is not type(models[0]) for m in models):
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")
    params: dict[str, Tensor] = {}
    for name, first in models[0].named_parameters():
        group = [dict(m.named_parameters())[name] for m in models]
        if any(p.requires_grad != first.requires_grad for p in group):
            raise RuntimeError(f"Expected {name} from each model to have the same .requires_grad")
        params[name] = stack([p.detach() for p in group]).requires_grad_(first.requires_grad)
    buffers = {name: stack([dict(m.named_buffers())[name] for m in models]) for name, _ in models[0].named_buffers()}
    return params, buffers


def replace_all_batch_norm_modules_(root: Any) -> Any:
    """Make every batch norm under ``root`` use the statistics of its batch only, in place; returns ``root``. Running
    statistics are written in place, which :func:`vmap` cannot do."""
    from ..nn.batchnorm import _BatchNorm

    for module in root.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.running_mean = module.running_var = module.num_batches_tracked = None
            module.track_running_stats = False
    return root


def functionalize(func: Callable[..., Any], *, remove: str = "mutations") -> Callable[..., Any]:
    """``func`` as it is: recorded programs contain neither mutations nor aliases. Raises RuntimeError for another
    ``remove`` than "mutations" and "mutations_and_views"."""
    if remove not in ("mutations", "mutations_and_views"):
        raise RuntimeError("functionalize(f, remove='mutations'): received invalid argument for remove= that isn't one of "
                           f"'mutations' or 'mutations_and_views': {remove}")

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return wrapper
