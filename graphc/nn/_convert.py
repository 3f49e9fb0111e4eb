"""Moving and casting a module tree: the part of :class:`Module` about devices and dtypes."""
from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .. import ops
from ..autograd import no_grad
from ..device import device as device_class
from ..dtypes import dtype as dtype_class
from ..tensor import Tensor
from ._tree import overrides
from .parameter import Parameter, is_lazy

C = TypeVar("C", bound="ConvertMixin")


def parse_to(device: Any = None, dtype: Any = None, non_blocking: bool = False, *, tensor: Tensor | None = None,
             memory_format: Any = None) -> tuple[Any, Any, bool]:
    """Device and dtype meant by the arguments of ``Module.to``; the first may be a device, a dtype or a tensor."""
    if isinstance(device, Tensor):
        tensor, device = device, None
    elif isinstance(device, dtype_class):
        device, dtype, non_blocking = None, device, bool(dtype) or non_blocking
    if tensor is not None:
        return tensor.device, tensor.dtype, non_blocking
    return (None if device is None else device_class(device)), dtype, non_blocking


def converter(*args: Any, **kwargs: Any) -> Callable[[Tensor], Tensor]:
    """The per-tensor function of ``Module.to(*args, **kwargs)``.

    Raises:
        TypeError: a dtype that is neither floating point nor complex, or no argument at all.
    """
    device, dtype, non_blocking = parse_to(*args, **kwargs)
    if dtype is not None:
        if not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError("nn.Module.to only accepts floating point or complex dtypes, but got desired "
                            f"dtype={dtype}")
        if dtype.is_complex:
            warnings.warn("Complex modules are a new feature: some modules might not work as expected when using "
                          "complex tensors as parameters or buffers.", stacklevel=3)

    def convert(t: Tensor) -> Tensor:
        cast = dtype if dtype is not None and (t.is_floating_point() or t.is_complex()) else t.dtype
        return t.to(device if device is not None else t.device, cast, non_blocking)

    return convert


class ConvertMixin:
    """Methods of :class:`Module` that replace the data of its tensors."""

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]

    def _post_order(self, method: str) -> Iterator[tuple[Any, bool]]:
        """Descendants before their parents; the flag says the module overrides ``method`` and handles its own."""
        stack: list[tuple[Any, bool]] = [(self, False)]
        while stack:
            module, children_done = stack.pop()
            own = module is not self and overrides(module, method)
            if own or children_done:
                yield module, own
            else:
                stack.append((module, True))
                stack.extend([(m, False) for m in module.children()][::-1])

    def _apply(self: C, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> C:
        """Replace the data of every parameter, gradient and buffer by ``fn`` of it; parameters keep their identity."""
        for module, own in self._post_order("_apply") if recurse else [(self, False)]:
            if own:
                module._apply(fn)
            else:
                module._apply_own(fn)
        return self

    def _apply_own(self, fn: Callable[[Tensor], Tensor]) -> None:
        with no_grad():
            for param in self._parameters.values():
                if param is None:
                    continue
                grad = param.grad
                applied = fn(param.data if is_lazy(param) else param)
                if applied is not param:
                    if sys.getrefcount(applied) <= 2:
                        param._adopt(applied)
                    else:
                        param.data = applied
                if grad is not None:
                    grad_applied = fn(grad)
                    if grad_applied is not grad:
                        # The gradient must have the parameter's new dtype and device before it is attached again.
                        param.grad = grad_applied.requires_grad_(grad.requires_grad)
            for name, buf in self._buffers.items():
                if buf is not None:
                    self._buffers[name] = fn(buf)

    def apply(self: C, fn: Callable[[Any], Any]) -> C:
        """Call ``fn`` on every descendant, then on this module (weight initialisation)."""
        for module, own in self._post_order("apply"):
            if own:
                module.apply(fn)
            else:
                fn(module)
        return self

    def to(self: C, *args: Any, **kwargs: Any) -> C:
        """``to(device)``, ``to(dtype)``, ``to(device, dtype)``, ``to(tensor)``; dtypes reach floating tensors only.

        Raises:
            TypeError: ``dtype`` is neither floating point nor complex.
        """
        return self._apply(converter(*args, **kwargs))

    def to_empty(self: C, *, device: Any, recurse: bool = True) -> C:
        """Move to ``device`` without copying: values are undefined afterwards."""
        return self._apply(lambda t: ops.empty_like(t, device=device), recurse)

    def cuda(self: C, device: Any = None) -> C:
        """Move all parameters and buffers to a GPU."""
        return self._apply(lambda t: t.cuda(device))

    def cpu(self: C) -> C:
        """Move all parameters and buffers to the CPU."""
        return self._apply(lambda t: t.cpu())

    def type(self: C, dst_type: Any) -> C:
        """Cast all parameters and buffers, integer ones included."""
        return self._apply(lambda t: t.type(dst_type))

    def float(self: C) -> C:
        """Cast floating-point parameters and buffers to float32."""
        return self._apply(lambda t: t.float() if t.is_floating_point() else t)

    def double(self: C) -> C:
        """Cast floating-point parameters and buffers to float64."""
        return self._apply(lambda t: t.double() if t.is_floating_point() else t)

    def half(self: C) -> C:
        """Cast floating-point parameters and buffers to float16."""
        return self._apply(lambda t: t.half() if t.is_floating_point() else t)

    def bfloat16(self: C) -> C:
        """Cast floating-point parameters and buffers to bfloat16."""
        return self._apply(lambda t: t.bfloat16() if t.is_floating_point() else t)

    def share_memory(self: C) -> C:
        """Move storages to shared memory, for use from several processes."""
        return self._apply(lambda t: t.share_memory_())
