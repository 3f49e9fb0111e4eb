"""Parameters computed from others: ``register_parametrization(layer, "weight", module)``.

The module's class is replaced by a subclass with a property of the tensor's name; the original tensors live in
``module.parametrizations.<name>.original`` (or ``original0``, ``original1``, ...).
"""
from __future__ import annotations

import copy
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...autograd import no_grad
from ...tensor import Tensor
from ..container import ModuleDict, ModuleList
from ..module import Module
from ..parameter import Parameter

__all__ = ["ParametrizationList", "cached", "is_parametrized", "register_parametrization", "remove_parametrizations",
           "transfer_parametrizations_and_params", "type_before_parametrizations"]


class _Cache:
    """Values computed inside ``with cached():``, by module and tensor name; process-wide, as in PyTorch."""

    depth = 0
    values: dict[tuple[int, str], Tensor] = {}


@contextmanager
def cached() -> Iterator[None]:
    """Compute every parametrized tensor once within this block."""
    _Cache.depth += 1
    try:
        yield
    finally:
        _Cache.depth -= 1
        if not _Cache.depth:
            _Cache.values = {}


def _register(module: Module, name: str, tensor: Any) -> None:
    if isinstance(tensor, Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)


def _inverse(modules: Any, value: Any, required: bool) -> Any:
    """``value`` through the right inverses, last first."""
    for module in reversed(list(modules)):
        if hasattr(module, "right_inverse"):
            try:
                value = module.right_inverse(value)
            except NotImplementedError:
                if required:
                    raise
        elif required:
            raise RuntimeError(f"parametrization {type(module).__name__} does not implement right_inverse.")
    return value


def _check_result(result: Any, like: Tensor, what: str) -> None:
    """A parametrization must keep dtype and shape."""
    if not isinstance(result, Tensor):
        raise ValueError(f"A parametrization must return a tensor. Got {type(result).__name__}.")
    for attribute in ("dtype", "shape"):
        old, new = getattr(like, attribute), getattr(result, attribute)
        if old != new:
            raise ValueError(f"Registering a parametrization may not change the {attribute} of the tensor, unless "
                             f"{what} flag is enabled.\nunparametrized {attribute}: {old}\nparametrized {attribute}: "
                             f"{new}")


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, applied in order, and the originals they start from."""

    original: Tensor

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if len(modules) == 0:
            raise ValueError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        before = original.detach()
        with no_grad():
            new = _inverse(self, original, required=False)
        if not isinstance(new, (Tensor, Sequence)):
            raise ValueError("'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got "
                             f"{type(new).__name__}")
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if isinstance(new, Tensor) else len(new)
        if isinstance(new, Tensor):
            self._keep_one(original, new)
        else:
            self._keep_several(original, new)
        if not unsafe:
            _check_result(self(), before, "`unsafe`")

    def _keep_one(self, original: Tensor, new: Tensor) -> None:
        for attribute in ("dtype", "device"):
            old, got = getattr(original, attribute), getattr(new, attribute)
            if old != got:
                raise ValueError(f"When `right_inverse` outputs one tensor, it may not change the {attribute}.\n"
                                 f"original.{attribute}: {old}\nright_inverse(original).{attribute}: {got}")
        if new is not original:
            original.data = new.detach()
        _register(self, "original", original)

    def _keep_several(self, original: Tensor, new: Sequence[Any]) -> None:
        for i, tensor in enumerate(new):
            if not isinstance(tensor, Tensor):
                raise ValueError(f"'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got "
                                 f"element {i} of the sequence with type {type(tensor).__name__}.")
            tensor = tensor.detach()
            if isinstance(original, Parameter):
                tensor = Parameter(tensor, original.requires_grad)
            _register(self, f"original{i}", tensor)

    def _originals(self) -> list[Tensor]:
        names = ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]
        return [getattr(self, n) for n in names]

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals so that the parametrized tensor is (close to) ``value``: what assignment does."""
        with no_grad():
            result = _inverse(self, value, required=True)
            values = [result] if self.is_tensor else result
            if self.is_tensor and not isinstance(result, Tensor):
                raise ValueError(f"`right_inverse` should return a tensor. Got {type(result).__name__}")
            if not isinstance(values, Sequence):
                raise ValueError(f"'right_inverse' must return a sequence of tensors. Got {type(values).__name__}.")
            if len(values) != self.ntensors:
                raise ValueError(f"'right_inverse' must return a sequence of tensors of length {self.ntensors}. Got a "
                                 f"sequence of length {len(values)}.")
            for i, (original, tensor) in enumerate(zip(self._originals(), values, strict=True)):
                if tensor.dtype != original.dtype:
                    which = ("The tensor", "`original`") if self.is_tensor else (f"Tensor {i}", f"`original{i}`")
                    raise ValueError(f"{which[0]} returned by `right_inverse` has dtype {tensor.dtype} while "
                                     f"{which[1]} has dtype {original.dtype}")
                original.data = tensor.detach()

    def forward(self) -> Tensor:
        first, *rest = self
        x = first(*self._originals())
        for module in rest:
            x = module(x)
        return x


def _deepcopy(self: Any, memo: dict[int, Any]) -> Any:
    """Copies of a parametrized module keep its made-up class, which pickling could not find by name."""
    found = memo.get(id(self))
    if found is None:
        found = memo[id(self)] = self.__class__.__new__(self.__class__)
        found.__dict__.update(copy.deepcopy(self.__dict__, memo))
    return found


def _no_getstate(self: Any) -> Any:
    raise RuntimeError(
        "Serialization of parametrized modules is only supported through state_dict(). See:\n"
        "https://pytorch.org/tutorials/beginner/saving_loading_models.html"
        "#saving-loading-a-general-checkpoint-for-inference-and-or-resuming-training")


def _inject_new_class(module: Module) -> None:
    cls = type(module)
    body: dict[str, Any] = {"__getstate__": _no_getstate, "__module__": cls.__module__}
    if not hasattr(cls, "__deepcopy__"):
        body["__deepcopy__"] = _deepcopy
    module.__class__ = types.new_class(f"Parametrized{cls.__name__}", (cls,), {}, lambda space: space.update(body))


def _inject_property(module: Module, name: str) -> None:
    def get(self: Any) -> Tensor:
        parametrization = self.parametrizations[name]
        if not _Cache.depth:
            return parametrization()
        key = (id(self), name)
        if key not in _Cache.values:
            _Cache.values[key] = parametrization()
        return _Cache.values[key]

    def set_(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    setattr(type(module), name, property(get, set_))


def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *,
                             unsafe: bool = False) -> Module:
    """Make ``module.<tensor_name>`` the value of ``parametrization`` applied to what it was.

    A further one composes with those already there. ``unsafe`` skips the checks of dtype and shape.

    Raises:
        ValueError: no such parameter or buffer, or a changed dtype or shape.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        if not unsafe:
            before = getattr(module, tensor_name)
            after = parametrization(before)
            _check_result(after, before, "the `unsafe`")
            if hasattr(parametrization, "right_inverse"):
                with no_grad():
                    _check_result(_inverse([parametrization], after, required=False), before, "the `unsafe`")
        parametrizations: Any = module.parametrizations[tensor_name]
        parametrizations.append(parametrization)
        parametrizations.unsafe |= unsafe
    elif tensor_name in module._buffers or tensor_name in module._parameters:
        new = ParametrizationList([parametrization], getattr(module, tensor_name), unsafe)
        delattr(module, tensor_name)
        if not is_parametrized(module):
            _inject_new_class(module)
            module.parametrizations = ModuleDict()
        _inject_property(module, tensor_name)
        module.parametrizations[tensor_name] = new
    else:
        raise ValueError(f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name "
                         f"'{tensor_name}'")
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether ``module`` has parametrizations, on ``tensor_name`` if given."""
    parametrizations = module._modules.get("parametrizations")
    if not isinstance(parametrizations, ModuleDict):
        return False
    return len(parametrizations) > 0 if tensor_name is None else tensor_name in parametrizations


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Take all parametrizations of a tensor away.

    Leaves the parametrized value, or with ``leave_parametrized=False`` the original (one tensor only).

    Raises:
        ValueError: none there, or several originals and ``leave_parametrized=False``.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    parametrizations: Any = module.parametrizations[tensor_name]
    if parametrizations.is_tensor:
        original = parametrizations.original
        if leave_parametrized:
            with no_grad():
                original.data = getattr(module, tensor_name).detach()
    elif leave_parametrized:
        with no_grad():
            value = getattr(module, tensor_name).detach()
        trained = any(t.requires_grad for t in parametrizations._originals())
        original = Parameter(value, trained) if parametrizations._parameters else value
    else:
        raise ValueError("Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in "
                         "terms of a sequence of tensors.")
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if not is_parametrized(module):
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
    _register(module, tensor_name, original)
    return module


def type_before_parametrizations(module: Module) -> type:
    """The class ``module`` had before it was parametrized."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(from_module: Module, to_module: Module,
                                         tensor_name: str | None = None) -> Module:
    """Give ``to_module`` the parametrizations (and originals) of ``from_module``: all, or those of one tensor."""
    if not is_parametrized(from_module):
        return to_module
    parametrizations: Any = from_module.parametrizations
    for name in [tensor_name] if tensor_name is not None else list(parametrizations):
        if not hasattr(to_module, name):
            setattr(to_module, name, copy.deepcopy(getattr(from_module, name)))
        for parametrization in parametrizations[name]:
            register_parametrization(to_module, name, parametrization)
        to: Any = to_module.parametrizations
        for source, target in zip(parametrizations[name]._originals(), to[name]._originals(), strict=True):
            target.data = source.detach()
    return to_module
