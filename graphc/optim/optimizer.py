"""The Optimizer base: parameter groups, state, state dicts, hooks.

A subclass says what its hyper-parameters are (``defaults``) and how one parameter is updated (``_update``); the step
itself, step counting and flushing live here. Step counts are Python integers in private bookkeeping, shown as float32
tensors in ``state_dict`` as PyTorch does, so that bias corrections need no read from the device.
"""
from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from itertools import chain
from typing import Any

from ..ir.recorder import soft_flush
from ..ir.recorder import state as recording
from ..tensor import HookHandle, Tensor

Params = Any


class _Required:
    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


def positive(name: str, value: Any) -> None:
    """Raise ValueError with PyTorch's text for a negative hyper-parameter."""
    if not isinstance(value, Tensor) and not 0.0 <= value:
        raise ValueError(f"Invalid {name}: {value}")


class Optimizer:
    """Base of all optimizers; see :mod:`torch.optim` for the contract of groups and state dicts."""

    def __init__(self, params: Params, defaults: dict[str, Any]):
        self.defaults = defaults
        self.state: dict[Tensor, Any] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._pre_hooks: dict[int, Any] = OrderedDict()
        self._post_hooks: dict[int, Any] = OrderedDict()
        if isinstance(params, Tensor):
            raise TypeError("params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
                            + params.type())
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(dict(group))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; missing options come from the defaults."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        params = param_group["params"]
        if isinstance(params, Tensor):
            params = [params]
        elif isinstance(params, set):
            raise TypeError("optimizer parameters need to be organized in ordered collections, but the ordering of tensors in "
                            "sets will change between runs. Please use a list instead.")
        params = [p[1] if isinstance(p, tuple) else p for p in params]
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}")
            if not p.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError(f"parameter group didn't specify a value of required optimization parameter {name}")
            param_group.setdefault(name, default)
        known = {id(p) for g in self.param_groups for p in g["params"]}
        if known & {id(p) for p in params}:
            raise ValueError("some parameters appear in more than one parameter group")
        param_group["params"] = params
        self.param_groups.append(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget (or zero) the gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    if set_to_none:
                        p._grad = None
                    else:
                        p.grad = p.grad.detach().clone().zero_()

    # ------------------------------------------------------------------------------------------------------------- step
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; ``closure`` re-evaluates the model and returns the loss."""
        for hook in list(self._pre_hooks.values()):
            hook(self, (), {})
        loss = None
        if closure is not None:
            before, recording.grad = recording.grad, True
            try:
                loss = closure()
            finally:
                recording.grad = before
        before, recording.grad = recording.grad, False
        try:
            for group in self.param_groups:
                active = [p for p in group["params"] if p.grad is not None]
                if active:
                    self._update_group(group, active)
        finally:
            recording.grad = before
        for hook in list(self._post_hooks.values()):
            hook(self, (), {})
        soft_flush()
        return loss

    def _update_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            self._update(p, p.grad, self.state[p], group)  # type: ignore[arg-type]

    def _update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        raise NotImplementedError

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step."""
        return HookHandle(self._pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return HookHandle(self._post_hooks, hook)

    # ------------------------------------------------------------------------------------------------------ state dicts
    def state_dict(self) -> dict[str, Any]:
        """``{"state": {index: ...}, "param_groups": [...]}`` with parameters replaced by indices, as in PyTorch."""
        index: dict[int, int] = {}
        for p in chain.from_iterable(g["params"] for g in self.param_groups):
            index.setdefault(id(p), len(index))
        groups = [{**{k: v for k, v in g.items() if k != "params"}, "params": [index[id(p)] for p in g["params"]]}
                  for g in self.param_groups]
        packed = {(index[id(k)] if isinstance(k, Tensor) else k): _shown(v) for k, v in self.state.items()}
        return {"state": packed, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave (graphc's or PyTorch's after conversion of tensors)."""
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(a["params"]) != len(b["params"]) for a, b in zip(self.param_groups, saved)):
            raise ValueError("loaded state dict contains a parameter group that doesn't match the size of optimizer's group")
        by_id = dict(zip(chain.from_iterable(g["params"] for g in saved),
                         chain.from_iterable(g["params"] for g in self.param_groups)))
        fresh: dict[Tensor, Any] = defaultdict(dict)
        for k, v in state_dict["state"].items():
            p = by_id.get(k)
            fresh[p if p is not None else k] = _owned(v, p)
        self.state = fresh
        for group, old in zip(self.param_groups, saved):
            group.update({k: copy.deepcopy(v) for k, v in old.items() if k != "params"})

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {group[k]}" for k in sorted(group) if k != "params"]
        return "\n".join([*lines, ")"])

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": dict(self.state), "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.state = defaultdict(dict, self.state)
        self._pre_hooks, self._post_hooks = OrderedDict(), OrderedDict()


def _shown(entry: Any) -> Any:
    """A parameter's state as PyTorch shows it: the integer step count becomes a float32 tensor."""
    if not isinstance(entry, dict):
        return entry
    from ..ops.creation import tensor

    return {k: tensor(float(v)) if k == "step" and isinstance(v, int) else v for k, v in entry.items()}


def _owned(entry: Any, p: Tensor | None) -> Any:
    """A private copy of loaded state, floating tensors in the parameter's dtype and on its device."""
    if not isinstance(entry, dict):
        return copy.deepcopy(entry)
    out = {}
    for k, v in entry.items():
        if k == "step":
            out[k] = int(v.item() if isinstance(v, Tensor) else v)
        elif isinstance(v, Tensor):
            v = v.detach().clone()
            out[k] = v.to(device=p.device, dtype=p.dtype) if p is not None and v.is_floating_point() else v
        else:
            out[k] = copy.deepcopy(v)
    return out


def zeros(p: Tensor) -> Tensor:
    """A state tensor like ``p``."""
    from ..ops.creation import zeros_like

    return zeros_like(p)


