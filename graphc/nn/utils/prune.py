"""Pruning: parts of a parameter set to zero by a mask (``torch.nn.utils.prune``).

The parameter becomes ``name_orig``, the mask the buffer ``name_mask``, and a forward pre-hook sets ``name`` to their product
before every call, so gradients reach the parts that are left. :func:`remove` makes the pruned value the parameter again.
"""
from __future__ import annotations

import abc
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ... import ops
from ...ops.complex_parts import norm
from ...tensor import Tensor
from ..module import Module
from ..parameter import Parameter
from .convert_parameters import parameters_to_vector

__all__ = ["BasePruningMethod", "CustomFromMask", "Identity", "L1Unstructured", "LnStructured", "PruningContainer",
           "RandomStructured", "RandomUnstructured", "custom_from_mask", "global_unstructured", "identity", "is_pruned",
           "l1_unstructured", "ln_structured", "random_structured", "random_unstructured", "remove"]


class BasePruningMethod(abc.ABC):
    """A way to choose what is pruned: subclasses give ``PRUNING_TYPE`` ("unstructured", "structured" or "global") and
    ``compute_mask``. An instance is the forward pre-hook of one parameter."""

    PRUNING_TYPE = "unstructured"
    _tensor_name: str

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self._tensor_name, self.apply_mask(module))

    @abc.abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask (0 or 1, of ``t``'s shape) on top of ``default_mask``."""

    def apply_mask(self, module: Module) -> Tensor:
        """The product of the parameter and its mask."""
        name = self._tensor_name
        orig = getattr(module, name + "_orig")
        return getattr(module, name + "_mask").to(orig.dtype) * orig

    @classmethod
    def apply(cls, module: Module, name: str, *args: Any, importance_scores: Tensor | None = None, **kwargs: Any) -> Any:
        """Prune ``module.name`` by this method with the given arguments; a second method prunes what the first left.

        ``importance_scores`` (the parameter's shape) are judged in place of the parameter; AssertionError for another.
        """
        found = [(k, h) for k, h in module._forward_pre_hooks.items()
                 if isinstance(h, BasePruningMethod) and h._tensor_name == name]
        if len(found) > 1:
            raise AssertionError(f"Avoid adding multiple pruning hooks to the same tensor {name} of module {module}. Use a "
                                 "PruningContainer.")
        method = cls(*args, **kwargs)
        method._tensor_name = name
        hook: BasePruningMethod = method
        orig = getattr(module, name + "_orig" if found else name)
        if importance_scores is None:
            importance_scores = orig
        elif importance_scores.shape != orig.shape:
            raise AssertionError(f"importance_scores should have the same shape as parameter {name} of {module}")
        if found:
            key, old = found[0]
            if not isinstance(old, PruningContainer):
                container = PruningContainer(old)
                container._tensor_name = name
                old = container
            old.add_pruning_method(method)
            hook = old
            del module._forward_pre_hooks[key]
            default = getattr(module, name + "_mask").detach().clone()
        else:
            if not isinstance(orig, Parameter):
                raise AttributeError(f"{type(module).__name__}.{name} is not a parameter")
            delattr(module, name)
            module.register_parameter(name + "_orig", orig)
            default = ops.ones_like(orig).detach()
        mask = hook.compute_mask(importance_scores.detach(), default)
        module.register_buffer(name + "_mask", mask)
        setattr(module, name, hook.apply_mask(module))
        module.register_forward_pre_hook(hook)
        return hook

    def prune(self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Tensor | None = None) -> Tensor:
        """``t`` with a new mask applied."""
        if importance_scores is None:
            importance_scores = t
        elif importance_scores.shape != t.shape:
            raise AssertionError("importance_scores should have the same shape as tensor t")
        return t * self.compute_mask(importance_scores, ops.ones_like(t) if default_mask is None else default_mask)

    def remove(self, module: Module) -> None:
        """Make the pruned value the parameter again and drop mask and original."""
        name = self._tensor_name
        if self not in module._forward_pre_hooks.values() or not hasattr(module, name + "_orig"):
            raise AssertionError(f"Module {module} has to be pruned before pruning can be removed")
        orig = getattr(module, name + "_orig")
        orig.data = self.apply_mask(module).detach()
        delattr(module, name + "_orig")
        delattr(module, name + "_mask")
        if hasattr(module, name):
            delattr(module, name)
        setattr(module, name, orig)


class PruningContainer(BasePruningMethod):
    """Methods applied one after another: each sees only what the ones before left."""

    def __init__(self, *args: Any):
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        methods = args[0] if len(args) == 1 and isinstance(args[0], Iterable) else args
        for m in methods:
            if not self._pruning_methods and isinstance(m, BasePruningMethod):
                self._tensor_name = m._tensor_name
            self.add_pruning_method(m)

    def add_pruning_method(self, method: Any) -> None:
        """Add one for the same parameter (ValueError for another, TypeError for something else)."""
        if not isinstance(method, BasePruningMethod):
            raise TypeError(f"{type(method)} is not a BasePruningMethod subclass")
        if method._tensor_name != self._tensor_name:
            raise ValueError(f"Can only add pruning methods acting on the parameter named '{self._tensor_name}' to "
                             f"PruningContainer {self}. Found '{method._tensor_name}'")
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Any:
        return iter(self._pruning_methods)

    def __getitem__(self, idx: Any) -> Any:
        return self._pruning_methods[idx]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The last method's mask on what ``default_mask`` leaves: elements, whole slices, or all for global methods."""
        method = self._pruning_methods[-1]
        mask = default_mask.to(t.dtype).clone()
        if method.PRUNING_TYPE == "global":
            return method.compute_mask(t, mask)
        if method.PRUNING_TYPE == "structured":
            dim = method.dim % t.ndim  # type: ignore[attr-defined]
            others = [d for d in range(t.ndim) if d != dim]
            left = (mask.sum(others) if others else mask) != 0
            where: Any = (slice(None),) * dim + (left.nonzero().reshape(-1),)
        elif method.PRUNING_TYPE == "unstructured":
            where = mask == 1
        else:
            raise ValueError(f"Unrecognized PRUNING_TYPE {method.PRUNING_TYPE}")
        mask[where] = method.compute_mask(t[where], mask[where]).to(mask.dtype)
        return mask


# ------------------------------------------------------------------------------------------------------------- amounts
def _check_amount(amount: Any) -> None:
    if not isinstance(amount, numbers.Real):
        raise TypeError(f"Invalid type for amount: {amount}. Must be int or float.")
    if (isinstance(amount, numbers.Integral) and amount < 0) or (
            not isinstance(amount, numbers.Integral) and not 0.0 <= float(amount) <= 1.0):
        raise ValueError(f"amount={amount} should either be a float in the range [0, 1] or a non-negative integer")


def _count(amount: Any, size: int) -> int:
    """How many of ``size`` to prune: the number itself, or a share."""
    n = int(amount) if isinstance(amount, numbers.Integral) else round(amount * size)
    if n > size:
        raise ValueError(f"amount={amount} should be smaller than the number of parameters to prune={size}")
    return n


def _without(mask: Tensor, order: Tensor, n: int) -> Tensor:
    """``mask`` with the ``n`` places of the smallest ``order`` set to zero."""
    out = mask.clone()
    if n:
        out.view(-1)[ops.topk(order.reshape(-1), n, largest=False).indices] = 0
    return out


def _without_slices(mask: Tensor, order: Tensor, n: int, dim: int) -> Tensor:
    """``mask`` with the ``n`` slices along ``dim`` of the smallest ``order`` set to zero."""
    keep = _without(ops.ones_like(order), order, n).to(mask.dtype)
    return mask * keep.reshape([-1 if d == dim % mask.ndim else 1 for d in range(mask.ndim)])


def _check_structured(t: Tensor, dim: int) -> None:
    if t.ndim <= 1:
        raise ValueError("Structured pruning can only be applied to multidimensional tensors. Found tensor of shape "
                         f"{tuple(t.shape)} with {t.ndim} dims")
    if not -t.ndim <= dim < t.ndim:
        raise IndexError(f"Invalid index {dim} for tensor of size {tuple(t.shape)}")


class Identity(BasePruningMethod):
    """Prunes nothing: only installs the mask of ones."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask


class RandomUnstructured(BasePruningMethod):
    """``amount`` elements (an int, or a share) drawn at random."""

    def __init__(self, amount: Any):
        _check_amount(amount)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return _without(default_mask, ops.rand(tuple(t.shape), device=t.device), _count(self.amount, t.numel()))


class L1Unstructured(RandomUnstructured):
    """The ``amount`` elements of smallest absolute value."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return _without(default_mask, t.abs(), _count(self.amount, t.numel()))


class RandomStructured(BasePruningMethod):
    """``amount`` slices along ``dim`` drawn at random."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: Any, dim: int = -1):
        _check_amount(amount)
        self.amount, self.dim = amount, dim

    def _order(self, t: Tensor) -> Tensor:
        return ops.rand(t.shape[self.dim], device=t.device)

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        _check_structured(t, self.dim)
        n = _count(self.amount, t.shape[self.dim])
        return _without_slices(default_mask, self._order(t), n, self.dim) if n else default_mask


class LnStructured(RandomStructured):
    """The ``amount`` slices along ``dim`` of smallest ``n``-norm."""

    def __init__(self, amount: Any, n: Any, dim: int = -1):
        super().__init__(amount, dim)
        self.n = n

    def _order(self, t: Tensor) -> Tensor:
        return norm(t, p=self.n, dim=[d for d in range(t.ndim) if d != self.dim % t.ndim])


class CustomFromMask(BasePruningMethod):
    """A mask given beforehand."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor):
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask * self.mask.to(default_mask.dtype)


# ----------------------------------------------------------------------------------------------------------- functions
def identity(module: Module, name: str) -> Module:
    """Install a mask of ones."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Module, name: str, amount: Any) -> Module:
    """Prune ``amount`` elements at random."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: Module, name: str, amount: Any, importance_scores: Tensor | None = None) -> Module:
    """Prune the ``amount`` elements of smallest absolute value."""
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module: Module, name: str, amount: Any, dim: int) -> Module:
    """Prune ``amount`` slices along ``dim`` at random."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(module: Module, name: str, amount: Any, n: Any, dim: int, importance_scores: Tensor | None = None) -> Module:
    """Prune the ``amount`` slices along ``dim`` of smallest ``n``-norm."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: Module, name: str, mask: Tensor) -> Module:
    """Prune by a mask."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(parameters: Any, pruning_method: Callable[..., BasePruningMethod],
                        importance_scores: Mapping[Any, Tensor] | None = None, **kwargs: Any) -> None:
    """Prune over all ``(module, name)`` pairs together: ``amount`` counts their elements as one vector."""
    if not isinstance(parameters, Iterable):
        raise TypeError("global_unstructured(): parameters is not an Iterable")
    pairs = list(parameters)
    scores = dict(importance_scores or {})
    if importance_scores is not None and not isinstance(importance_scores, Mapping):
        raise TypeError("global_unstructured(): importance_scores is not of type dict")
    relevant = [scores.get((m, n), getattr(m, n)).detach() for m, n in pairs]
    masks = [getattr(m, n + "_mask", ops.ones_like(getattr(m, n))).detach() for m, n in pairs]
    container = PruningContainer()
    container._tensor_name = "temp"
    method = pruning_method(**kwargs)
    method._tensor_name = "temp"
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError('Only "unstructured" PRUNING_TYPE supported for the `pruning_method`. Found method '
                        f"{pruning_method} of type {method.PRUNING_TYPE}")
    container.add_pruning_method(method)
    final = container.compute_mask(parameters_to_vector(relevant), parameters_to_vector(masks))
    start = 0
    for module, name in pairs:
        size = getattr(module, name).numel()
        custom_from_mask(module, name, final[start:start + size].view_as(getattr(module, name)))
        start += size


def remove(module: Module, name: str) -> Module:
    """Make pruning permanent: ``name`` is a parameter again. ValueError if it was not pruned."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
            hook.remove(module)
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(f"Parameter '{name}' of module {module} has to be pruned before pruning can be removed")


def is_pruned(module: Module) -> bool:
    """Whether the module or one inside it has a pruned parameter."""
    return any(isinstance(h, BasePruningMethod) for m in module.modules() for h in m._forward_pre_hooks.values())
