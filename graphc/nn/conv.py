"""Convolutions and their transposes in one, two and three dimensions, and lazy forms of each."""
from __future__ import annotations

import math
from typing import Any

from ..tensor import Tensor
from . import functional as F
from . import init
from ._args import ntuple, reverse_repeat
from .lazy import LazyModuleMixin, lazy_bias
from .module import Module
from .parameter import Parameter, UninitializedParameter, empty_parameter

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "LazyConv1d",
           "LazyConv2d", "LazyConv3d", "LazyConvTranspose1d", "LazyConvTranspose2d", "LazyConvTranspose3d"]

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def _check_conv(in_channels: int, out_channels: int, groups: int, stride: tuple[int, ...], padding: Any,
                padding_mode: str) -> None:
    if groups <= 0:
        raise ValueError("groups must be a positive integer")
    if in_channels % groups != 0:
        raise ValueError("in_channels must be divisible by groups")
    if out_channels % groups != 0:
        raise ValueError("out_channels must be divisible by groups")
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f"Invalid padding string {padding!r}, should be one of {{'same', 'valid'}}")
        if padding == "same" and any(s != 1 for s in stride):
            raise ValueError("padding='same' is not supported for strided convolutions")
    if padding_mode not in _PADDING_MODES:
        raise ValueError(f"padding_mode must be one of {set(_PADDING_MODES)}, but got padding_mode='{padding_mode}'")


class _ConvNd(Module):
    """What all convolutions share: arguments, parameters, initial values and repr.

    Weight is ``(out_channels, in_channels / groups, *kernel)``, transposed ``(in_channels, out_channels / groups,
    *kernel)``; weight and bias start uniform on ``+-1/sqrt(fan_in)``.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_channels: int, out_channels: int, kernel_size: tuple[int, ...], stride: tuple[int, ...],
                 padding: Any, dilation: tuple[int, ...], transposed: bool, output_padding: tuple[int, ...],
                 groups: int, bias: bool, padding_mode: str, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        _check_conv(in_channels, out_channels, groups, stride, padding, padding_mode)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.transposed = transposed
        self.output_padding = output_padding
        self.groups = groups
        self.padding_mode = padding_mode
        self._reversed_padding_repeated_twice = self._explicit_padding()
        self.weight = empty_parameter(self._weight_shape(), device, dtype)
        self.register_parameter("bias", empty_parameter(out_channels, device, dtype) if bias else None)
        self.reset_parameters()

    def _weight_shape(self) -> tuple[int, ...]:
        if self.transposed:
            return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def _explicit_padding(self) -> list[int]:
        """Padding as ``F.pad`` takes it: last dimension first, before and after."""
        if not isinstance(self.padding, str):
            return list(reverse_repeat(self.padding, 2))
        padding = [0, 0] * len(self.kernel_size)
        if self.padding == "same":
            for i, (d, k) in enumerate(zip(reversed(self.dilation), reversed(self.kernel_size), strict=False)):
                total = d * (k - 1)
                padding[2 * i: 2 * i + 2] = total // 2, total - total // 2
        return padding

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init._calculate_fan_in_and_fan_out(self.weight)
            if fan_in != 0:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def _own_parameters(self) -> tuple[Any, Any]:
        params = self._parameters
        try:  # straight from the registry: attribute access would cost 0.4 us each
            return params["weight"], params["bias"]
        except KeyError:  # parametrized: an attribute computes the weight
            return self.weight, self.bias

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * len(self.padding):
            text += f", padding={self.padding}"
        if self.dilation != (1,) * len(self.dilation):
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * len(self.output_padding):
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class _Conv(_ConvNd):
    """A convolution over ``_dims`` spatial dimensions; subclasses say how many and give ``_function``."""

    _dims: int

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
                 dilation: Any = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
                 device: Any = None, dtype: Any = None) -> None:
        spread = ntuple(self._dims)
        super().__init__(in_channels, out_channels, spread(kernel_size), spread(stride),
                         padding if isinstance(padding, str) else spread(padding), spread(dilation), False,
                         spread(0), groups, bias, padding_mode, device, dtype)

    def _function(self, *args: Any) -> Tensor:
        raise NotImplementedError

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode == "zeros":
            return self._function(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        padded = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        return self._function(padded, weight, bias, self.stride, (0,) * self._dims, self.dilation, self.groups)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, *self._own_parameters())


class Conv1d(_Conv):
    """Cross-correlation of ``(N, C, L)`` or ``(C, L)`` with ``out_channels`` filters."""

    _dims = 1

    def _function(self, *args: Any) -> Tensor:
        return F.conv1d(*args)


class Conv2d(_Conv):
    """Cross-correlation of ``(N, C, H, W)`` or ``(C, H, W)`` with ``out_channels`` filters."""

    _dims = 2

    def _function(self, *args: Any) -> Tensor:
        return F.conv2d(*args)


class Conv3d(_Conv):
    """Cross-correlation of ``(N, C, D, H, W)`` or ``(C, D, H, W)`` with ``out_channels`` filters."""

    _dims = 3

    def _function(self, *args: Any) -> Tensor:
        return F.conv3d(*args)


class _ConvTransposeNd(_ConvNd):
    """The gradient of a convolution with respect to its input, as a layer."""

    _dims: int

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
                 output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1,
                 padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        spread = ntuple(self._dims)
        super().__init__(in_channels, out_channels, spread(kernel_size), spread(stride), spread(padding),
                         spread(dilation), True, spread(output_padding), groups, bias, padding_mode, device, dtype)

    def _function(self, *args: Any) -> Tensor:
        raise NotImplementedError

    def _output_padding(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        """What to add at the end of each dimension so that the result has ``output_size``."""
        if output_size is None:
            return self.output_padding
        dims = self._dims
        leading = 2 if input.dim() == dims + 2 else 1
        size = list(output_size)
        if len(size) == leading + dims:
            size = size[leading:]
        if len(size) != dims:
            raise ValueError(f"ConvTranspose{dims}D: for {input.dim()}D input, output_size must have {dims} or "
                             f"{leading + dims} elements (got {len(size)})")
        lowest = [(input.shape[leading + d] - 1) * self.stride[d] - 2 * self.padding[d]
                  + self.dilation[d] * (self.kernel_size[d] - 1) + 1 for d in range(dims)]
        highest = [low + stride - 1 for low, stride in zip(lowest, self.stride, strict=False)]
        if any(not low <= s <= high for low, s, high in zip(lowest, size, highest, strict=False)):
            raise ValueError(f"requested an output size of {size}, but valid sizes range from {lowest} to {highest} "
                             f"(for an input of {input.shape[2:]})")
        return tuple(s - low for s, low in zip(size, lowest, strict=False))

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        weight, bias = self._own_parameters()
        extra = self._output_padding(input, output_size)
        return self._function(input, weight, bias, self.stride, self.padding, extra, self.groups, self.dilation)


class ConvTranspose1d(_ConvTransposeNd):
    """Transposed convolution of ``(N, C, L)`` or ``(C, L)``."""

    _dims = 1

    def _function(self, *args: Any) -> Tensor:
        return F.conv_transpose1d(*args)


class ConvTranspose2d(_ConvTransposeNd):
    """Transposed convolution of ``(N, C, H, W)`` or ``(C, H, W)``."""

    _dims = 2

    def _function(self, *args: Any) -> Tensor:
        return F.conv_transpose2d(*args)


class ConvTranspose3d(_ConvTransposeNd):
    """Transposed convolution of ``(N, C, D, H, W)`` or ``(C, D, H, W)``."""

    _dims = 3

    def _function(self, *args: Any) -> Tensor:
        return F.conv_transpose3d(*args)


class _LazyConvMixin(LazyModuleMixin):
    """A convolution that takes ``in_channels`` from the first input. Constructor: the layer's, without it."""

    weight: Parameter
    bias: Parameter | None

    def __init__(self, out_channels: int, *args: Any, **kwargs: Any) -> None:
        given = self._named(args, kwargs)
        bias = given.get("bias", True)
        super().__init__(0, 0, **{**given, "bias": False})
        device, dtype = given.get("device"), given.get("dtype")
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        self.out_channels = out_channels
        lazy_bias(self, bias, device, dtype)

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Positional arguments by the names they have in this layer."""
        names = ["kernel_size", "stride", "padding", "dilation", "groups", "bias", "padding_mode", "device", "dtype"]
        if isinstance(self, _ConvTransposeNd):
            names = ["kernel_size", "stride", "padding", "output_padding", "groups", "bias", "dilation",
                     "padding_mode", "device", "dtype"]
        if len(args) > len(names):
            raise TypeError(f"{type(self).__name__}.__init__() takes at most {len(names) + 2} arguments")
        return {**dict(zip(names, args, strict=False)), **kwargs}

    def reset_parameters(self) -> None:
        if not self.has_uninitialized_params() and self.in_channels != 0:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        if not self.has_uninitialized_params():
            return
        self.in_channels = self._get_in_channels(input)
        if self.in_channels % self.groups != 0:
            raise ValueError("in_channels must be divisible by groups")
        for tensor, shape in ((self.weight, self._weight_shape()), (self.bias, (self.out_channels,))):
            if tensor is not None:
                tensor.materialize(shape)  # type: ignore[attr-defined]
        self.reset_parameters()

    def _get_in_channels(self, input: Tensor) -> int:
        unbatched = self._dims + 1
        if input.dim() not in (unbatched, unbatched + 1):
            raise RuntimeError(f"Expected {unbatched}D (unbatched) or {unbatched + 1}D (batched) input to "
                               f"{type(self).__name__}, but got input of size: {input.shape}")
        return input.shape[1] if input.dim() == unbatched + 1 else input.shape[0]


class LazyConv1d(_LazyConvMixin, Conv1d):
    """:class:`Conv1d` with ``in_channels`` from the first input."""

    cls_to_become = Conv1d


class LazyConv2d(_LazyConvMixin, Conv2d):
    """:class:`Conv2d` with ``in_channels`` from the first input."""

    cls_to_become = Conv2d


class LazyConv3d(_LazyConvMixin, Conv3d):
    """:class:`Conv3d` with ``in_channels`` from the first input."""

    cls_to_become = Conv3d


class LazyConvTranspose1d(_LazyConvMixin, ConvTranspose1d):
    """:class:`ConvTranspose1d` with ``in_channels`` from the first input."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyConvMixin, ConvTranspose2d):
    """:class:`ConvTranspose2d` with ``in_channels`` from the first input."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyConvMixin, ConvTranspose3d):
    """:class:`ConvTranspose3d` with ``in_channels`` from the first input."""

    cls_to_become = ConvTranspose3d
