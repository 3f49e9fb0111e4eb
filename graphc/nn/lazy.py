"""Modules whose input size the first call decides."""
from __future__ import annotations

from typing import Any

from ..autograd import no_grad
from .module import Module
from .parameter import UninitializedParameter, is_lazy


class LazyModuleMixin(Module):
    """Mixin for a lazy form of a layer: ``class LazyLinear(LazyModuleMixin, Linear)``.

    The first forward call runs ``initialize_parameters`` with its arguments, after which the module turns into an
    instance of ``cls_to_become``. Loading a state dict materializes parameters from the shapes found there.
    """

    cls_to_become: type[Module] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._load_hook = self._register_load_state_dict_pre_hook(_LazyLoadHook(), with_module=True)
        self._initialize_hook = self.register_forward_pre_hook(_infer_parameters, with_kwargs=True)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        buffers = ((k, b) for k, b in self._buffers.items() if k not in self._non_persistent_buffers_set)
        for name, tensor in (*self._parameters.items(), *buffers):
            if tensor is not None:
                destination[prefix + name] = tensor if is_lazy(tensor) or keep_vars else tensor.detach()

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Materialize parameters for these forward arguments; every lazy class defines it."""
        raise NotImplementedError(f"initialize_parameters is not implemented for {type(self).__name__}")

    def has_uninitialized_params(self) -> bool:
        """Whether anything still waits for its shape."""
        return any(is_lazy(t) for t in (*self._parameters.values(), *self._buffers.values()))

    def _replicate_for_data_parallel(self) -> Any:
        raise RuntimeError("Modules with uninitialized parameters can't be used with `DataParallel`. Run a dummy "
                           "forward pass to correctly initialize the modules")


class _LazyLoadHook:
    """Before loading: give uninitialized tensors the shapes the state dict has for them."""

    def __call__(self, module: Module, state_dict: Any, prefix: str, *rest: Any) -> None:
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            source = state_dict.get(prefix + name)
            if is_lazy(tensor) and source is not None and not is_lazy(source):
                with no_grad():
                    tensor.materialize(source.shape)  # type: ignore[union-attr]


def _infer_parameters(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The forward pre-hook of lazy modules."""
    module.initialize_parameters(*args, **kwargs)
    if module.has_uninitialized_params():
        raise RuntimeError(f"module {module._get_name()} has not been fully initialized")
    module._initialize_hook.remove()
    module._load_hook.remove()
    del module._initialize_hook, module._load_hook
    if module.cls_to_become is not None:
        module.__class__ = module.cls_to_become


def lazy_bias(module: Module, bias: bool, device: Any, dtype: Any) -> None:
    """Give ``module`` an uninitialized bias if it is to have one."""
    if bias:
        module.bias = UninitializedParameter(device=device, dtype=dtype)
