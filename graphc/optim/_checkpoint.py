"""State dicts of optimizers in PyTorch's layout: parameters are numbered in the order of the groups."""
from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..tensor import HookHandle, Tensor
from ._scalars import HOST_SCALARS, number, scalar

if TYPE_CHECKING:
    from .optimizer import Optimizer

HOOKS = ("state_dict_pre", "state_dict_post", "load_state_dict_pre", "load_state_dict_post")


def register(optimizer: Optimizer, kind: str, hook: Callable[..., Any], prepend: bool) -> HookHandle:
    """Add a hook of one of the kinds in ``HOOKS``."""
    hooks: OrderedDict[int, Any] = optimizer.__dict__[f"_optimizer_{kind}_hooks"]
    handle = HookHandle(hooks, hook)
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle


def _hooks(optimizer: Optimizer, kind: str) -> list[Any]:
    return list(optimizer.__dict__[f"_optimizer_{kind}_hooks"].values())


def state_dict(optimizer: Optimizer) -> dict[str, Any]:
    """See :meth:`Optimizer.state_dict`; tensors are the optimizer's own, not copies (as in PyTorch)."""
    for hook in _hooks(optimizer, "state_dict_pre"):
        hook(optimizer)
    index: dict[int, int] = {}
    start = 0
    groups = []
    for group in optimizer.param_groups:
        for i, p in enumerate(group["params"], start):
            index.setdefault(id(p), i)
        start += len(group["params"])
        packed = {k: v for k, v in group.items() if k != "params"}
        packed["params"] = [index[id(p)] for p in group["params"]]
        groups.append(packed)
    state = {(index[id(k)] if isinstance(k, Tensor) else k): v for k, v in optimizer.state.items()}
    out: dict[str, Any] = {"state": state, "param_groups": groups}
    for hook in _hooks(optimizer, "state_dict_post"):
        replaced = hook(optimizer, out)
        out = out if replaced is None else replaced
    return out


def load_state_dict(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
    """See :meth:`Optimizer.load_state_dict`. Unlike PyTorch's, the loaded tensors never share memory with the source."""
    state_dict = state_dict.copy()
    for hook in _hooks(optimizer, "load_state_dict_pre"):
        replaced = hook(optimizer, state_dict)
        state_dict = state_dict if replaced is None else replaced
    groups, saved = optimizer.param_groups, copy.deepcopy(state_dict["param_groups"])
    if len(groups) != len(saved):
        raise ValueError("loaded state dict has a different number of parameter groups")
    if any(len(a["params"]) != len(b["params"]) for a, b in zip(groups, saved)):
        raise ValueError("loaded state dict contains a parameter group that doesn't match the size of optimizer's group")
    by_id = dict(zip(chain.from_iterable(g["params"] for g in saved), chain.from_iterable(g["params"] for g in groups)))
    state: dict[Any, Any] = defaultdict(dict)
    for k, v in state_dict["state"].items():
        if k in by_id:
            state[by_id[k]] = _owned(by_id[k], v, None)
        else:
            state[k] = v
    for group, new in zip(groups, saved):
        new["params"] = group["params"]
        if "param_names" in group:
            new.setdefault("param_names", group["param_names"])
        for name, default in optimizer.defaults.items():  # options the writer of an old checkpoint did not have
            new.setdefault(name, default)
    optimizer.__setstate__({"state": state, "param_groups": saved})
    for hook in _hooks(optimizer, "load_state_dict_post"):
        hook(optimizer)


def _owned(p: Tensor, value: Any, key: Any) -> Any:
    """A private copy of loaded state: tensors in the parameter's dtype and on its device.

    Host scalars stay on the CPU in the dtype they were saved in, whose rounding the trajectory depends on (PyTorch casts
    those but ``step``, so its NAdam and ASGD do not resume exactly with float64 parameters).
    """
    if key in HOST_SCALARS and _is_scalar(value):
        return value.detach().clone() if isinstance(value, Tensor) and value.is_cpu else scalar(number(value))
    if isinstance(value, Tensor):
        value = value.detach().clone()
        return value.to(device=p.device, dtype=p.dtype) if p.is_floating_point() else value.to(device=p.device)
    if isinstance(value, dict):
        return {k: _owned(p, v, k) for k, v in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return type(value)([_owned(p, v, None) for v in value])  # type: ignore[call-arg]
    return copy.deepcopy(value)


def _is_scalar(x: Any) -> bool:
    return x.ndim == 0 if isinstance(x, Tensor) else isinstance(x, (int, float))
