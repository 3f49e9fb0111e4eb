"""The Optimizer base: parameter groups, state, hooks and the step. State dicts: ``_checkpoint.py``.

A graphc optimizer says what its hyper-parameters are (``defaults``) and how one group or one parameter is updated
(``_update_group`` or ``_update``). A user's subclass overrides ``step`` as it would with PyTorch. Either way ``step`` is
wrapped once per class, which runs the hooks and marks the natural boundary of an eager program.
"""
from __future__ import annotations

import functools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

from ..errors import DTypeError
from ..ir.recorder import soft_flush
from ..ir.recorder import state as recording
from ..tensor import HookHandle, Tensor
from . import _checkpoint

Hooks = dict[int, Callable[..., Any]]

# Registries of hooks on every optimizer, filled by register_optimizer_step_pre_hook / ..._post_hook.
_global_optimizer_pre_hooks: Hooks = OrderedDict()
_global_optimizer_post_hooks: Hooks = OrderedDict()


def register_optimizer_step_pre_hook(hook: Callable[..., Any]) -> HookHandle:
    """Call ``hook(optimizer, args, kwargs)`` before each step of every optimizer."""
    return HookHandle(_global_optimizer_pre_hooks, hook)


def register_optimizer_step_post_hook(hook: Callable[..., Any]) -> HookHandle:
    """Call ``hook(optimizer, args, kwargs)`` after each step of every optimizer."""
    return HookHandle(_global_optimizer_post_hooks, hook)


class _Required:
    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


# ----------------------------------------------------------------------------------------- help for the update formulas
def positive(name: str, x: Any) -> None:
    """Raise ValueError with PyTorch's text for a negative hyper-parameter."""
    if not 0.0 <= number_of(x):
        raise ValueError(f"Invalid {name}: {x}")


def number_of(x: Any) -> Any:
    """``x``, read if it is a tensor (done at construction only)."""
    return x.item() if isinstance(x, Tensor) else x


def check_lr(lr: Any) -> None:
    """ValueError unless ``lr`` is a number or a one-element tensor, and not negative."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not 0.0 <= number_of(lr):
        raise ValueError(f"Invalid learning rate: {lr}")


def check_betas(betas: Any) -> None:
    """ValueError unless both are in [0, 1)."""
    for i in (0, 1):
        if not 0.0 <= number_of(betas[i]) < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {betas[i]}")


def check_fused(fused: Any, foreach: Any, differentiable: bool) -> None:
    """RuntimeError for the combinations of implementation switches PyTorch refuses (graphc has one implementation)."""
    if fused and differentiable:
        raise RuntimeError("`fused` does not support `differentiable`")
    if fused and foreach:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")


def rate(group: dict[str, Any]) -> Any:
    """The group's learning rate: a number, or a zero-dim tensor."""
    lr = group["lr"]
    return lr.reshape(()) if isinstance(lr, Tensor) and lr.ndim else lr


def zeros(p: Tensor) -> Tensor:
    """A state tensor like ``p``. DTypeError for a complex parameter."""
    from ..ops.creation import zeros_like

    if p.is_complex():
        raise DTypeError(f"this optimizer updates real parameters, got one of dtype {p.dtype} and shape {tuple(p.shape)}; "
                         "optimize its real and imaginary parts as two parameters")
    return zeros_like(p)


def descent(p: Tensor, group: dict[str, Any]) -> Tensor:
    """The gradient of ``p`` with ``maximize`` and the (coupled) weight decay applied."""
    g: Any = -p.grad if group["maximize"] else p.grad  # type: ignore[operator]
    decay = group["weight_decay"]
    if isinstance(decay, Tensor) or decay != 0:
        if group.get("decoupled_weight_decay"):
            p.mul_(1 - rate(group) * decay)
        else:
            g = g.add(p, alpha=decay)
    return g


# ----------------------------------------------------------------------------------------------------------- the class
class Optimizer:
    """Base of all optimizers; see :mod:`torch.optim` for the contract of groups and state dicts."""

    def __init__(self, params: Any, defaults: dict[str, Any]):
        self.defaults = defaults
        self._make_hooks()
        self._patch_step()
        if isinstance(params, Tensor):
            raise TypeError("params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
                            + _typename(params))
        self.state: Any = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _make_hooks(self) -> None:
        for name in ("step_pre", "step_post", *_checkpoint.HOOKS):
            self.__dict__.setdefault(f"_optimizer_{name}_hooks", OrderedDict())

    def _patch_step(self) -> None:
        """Wrap ``step`` of this class once, so that the hooks run whichever class defined it."""
        cls = type(self)
        if not hasattr(cls.step, "hooked"):
            cls.step = _hooked(cls.step)  # type: ignore[method-assign]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; missing options come from the defaults.

        TypeError for what is not a dict of an ordered collection of Tensors; ValueError for non-leaf tensors, a missing
        required option, parameters another group has, and names given to only some parameters or groups.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        self._normalize(param_group)
        for p in param_group["params"]:
            if not isinstance(p, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {_typename(p)}")
            if not self.defaults.get("differentiable", None) and not (p.is_leaf or p.retains_grad):
                raise ValueError("can't optimize a non-leaf Tensor")
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError(f"parameter group didn't specify a value of required optimization parameter {name}")
            param_group.setdefault(name, default)
        ids = {id(p) for p in param_group["params"]}
        if len(ids) != len(param_group["params"]):
            warnings.warn("optimizer contains a parameter group with duplicate parameters; in future, this will cause an "
                          "error; see github.com/pytorch/pytorch/issues/40967 for more information", stacklevel=3)
        for group in self.param_groups:
            if ("param_names" in param_group) != ("param_names" in group):
                which = "with names" if "param_names" in param_group else "without names"
                raise ValueError("all optimizer param groups should be with/without names. cannot add param group "
                                 f"{which} to the optimizer")
        if any(id(p) in ids for group in self.param_groups for p in group["params"]):
            raise ValueError("some parameters appear in more than one parameter group")
        self.param_groups.append(param_group)

    @staticmethod
    def _normalize(group: dict[str, Any]) -> None:
        """``params`` as a list of tensors; names of ``(name, tensor)`` pairs go to ``param_names``."""
        params = group["params"]
        if isinstance(params, set):
            raise TypeError("optimizer parameters need to be organized in ordered collections, but the ordering of tensors "
                            "in sets will change between runs. Please use a list instead.")
        params = [params] if isinstance(params, Tensor) else list(params)
        names = [p[0] for p in params if isinstance(p, tuple)]
        group["params"] = [p[1] if isinstance(p, tuple) else p for p in params]
        if names and len(names) != len(params):
            raise ValueError("all optimizer params should be with/without names. Some param names are missing")
        if names:
            group["param_names"] = names

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or with ``set_to_none=False`` fill them with zeros in place."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p._grad = None
                    continue
                g = p._grad
                if g is None:
                    continue
                if g.grad_fn is not None:
                    g.detach_()
                else:
                    g.requires_grad_(False)
                g.zero_()

    # ------------------------------------------------------------------------------------------------------------- step
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; ``closure`` re-evaluates the model and returns the loss."""
        before, recording.grad = recording.grad, True
        try:
            loss = None if closure is None else closure()
            recording.grad = False
            for group in self.param_groups:
                active = [p for p in group["params"] if p._grad is not None]
                if active:
                    self._update_group(group, active)
        finally:
            recording.grad = before
        return loss

    def _update_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            self._update(p, self.state[p], group)

    def _update(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        raise NotImplementedError

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step; it may return new ``(args, kwargs)``."""
        return HookHandle(self.__dict__["_optimizer_step_pre_hooks"], hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return HookHandle(self.__dict__["_optimizer_step_post_hooks"], hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> HookHandle:
        """Call ``hook(optimizer)`` before :meth:`state_dict`."""
        return _checkpoint.register(self, "state_dict_pre", hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> HookHandle:
        """Call ``hook(optimizer, state_dict)`` after :meth:`state_dict`; it may return a replacement."""
        return _checkpoint.register(self, "state_dict_post", hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> HookHandle:
        """Call ``hook(optimizer, state_dict)`` before :meth:`load_state_dict`; it may return a replacement."""
        return _checkpoint.register(self, "load_state_dict_pre", hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> HookHandle:
        """Call ``hook(optimizer)`` after :meth:`load_state_dict`."""
        return _checkpoint.register(self, "load_state_dict_post", hook, prepend)

    # ------------------------------------------------------------------------------------------------------ state dicts
    def state_dict(self) -> dict[str, Any]:
        """``{"state": {index: ...}, "param_groups": [...]}`` with parameters replaced by indices, as in PyTorch."""
        return _checkpoint.state_dict(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave. ValueError where groups or their sizes differ."""
        _checkpoint.load_state_dict(self, state_dict)

    def __repr__(self) -> str:
        text = f"{type(self).__name__} ("
        for i, group in enumerate(self.param_groups):
            text += f"\nParameter Group {i}\n" + "".join([f"    {k}: {group[k]}\n" for k in sorted(group) if k != "params"])
        return text + ")"

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_hooks()
        self._patch_step()
        self.defaults.setdefault("differentiable", False)


def _hooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step`` with the hooks around it and a flush at its end; a step calling its base class's runs them once."""

    @functools.wraps(step)
    def wrapper(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        own = self.__dict__
        if own.get("_stepping"):
            return step(self, *args, **kwargs)
        own["_stepping"] = True
        try:
            every: Any = (self, *args)
            if _global_optimizer_pre_hooks or own["_optimizer_step_pre_hooks"]:
                for pre in [*_global_optimizer_pre_hooks.values(), *own["_optimizer_step_pre_hooks"].values()]:
                    result = pre(self, every, kwargs)
                    if result is not None:
                        if not isinstance(result, tuple) or len(result) != 2:
                            raise RuntimeError(f"{step} must return None or a tuple of (new_args, new_kwargs), but got "
                                               f"{result}.")
                        every, kwargs = result
            out = step(*every, **kwargs)
            if _global_optimizer_post_hooks or own["_optimizer_step_post_hooks"]:
                for post in [*own["_optimizer_step_post_hooks"].values(), *_global_optimizer_post_hooks.values()]:
                    post(self, every, kwargs)
        finally:
            own["_stepping"] = False
        soft_flush()
        return out

    wrapper.hooked = True  # type: ignore[attr-defined]
    return wrapper


def _typename(x: Any) -> str:
    if isinstance(x, Tensor):
        return x.type()
    module = type(x).__module__
    return type(x).__qualname__ if module == "builtins" else f"{module}.{type(x).__qualname__}"
