"""``torch.nn.grad``: gradients of convolutions with respect to their input and their weight."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import ops
from ..autograd import enable_grad, grad
from ..tensor import Tensor


def _input(conv: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def f(input_size: Sequence[int], weight: Tensor, grad_output: Tensor, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
          groups: int = 1) -> Tensor:
        x = ops.zeros(tuple(input_size), dtype=weight.dtype, device=weight.device, requires_grad=True)
        with enable_grad():
            return grad(conv(x, weight.detach(), None, stride, padding, dilation, groups), [x], [grad_output])[0]

    return f


def _weight(conv: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def f(input: Tensor, weight_size: Sequence[int], grad_output: Tensor, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
          groups: int = 1) -> Tensor:
        w = ops.zeros(tuple(weight_size), dtype=input.dtype, device=input.device, requires_grad=True)
        with enable_grad():
            return grad(conv(input.detach(), w, None, stride, padding, dilation, groups), [w], [grad_output])[0]

    return f


conv1d_input, conv2d_input, conv3d_input = _input(ops.conv1d), _input(ops.conv2d), _input(ops.conv3d)
conv1d_weight, conv2d_weight, conv3d_weight = _weight(ops.conv1d), _weight(ops.conv2d), _weight(ops.conv3d)
for _f in ("conv1d", "conv2d", "conv3d"):
    for _of in ("input", "weight"):
        globals()[f"{_f}_{_of}"].__name__ = f"{_f}_{_of}"
        globals()[f"{_f}_{_of}"].__doc__ = f"The gradient of ``{_f}`` with respect to its {_of}, for ``grad_output``."
