"""Batch normalisation folded into the layer before it, for evaluation."""
from __future__ import annotations

import copy
from typing import Any

from ...ops.creation import zeros_like
from ...tensor import Tensor
from ..parameter import Parameter

__all__ = ["fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights"]


def _folded(weight: Tensor, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float, gain: Tensor | None,
            shift: Tensor | None, channel: int) -> tuple[Parameter, Parameter]:
    """Parameters of the layer whose output is the normalised output: scaled by gain / sqrt(var + eps) per channel."""
    scale = (var + eps).rsqrt() if gain is None else gain * (var + eps).rsqrt()
    before = zeros_like(mean) if bias is None else bias
    after = (before - mean) * scale + (zeros_like(mean) if shift is None else shift)
    view = [1] * weight.ndim
    view[channel] = -1
    return (Parameter((weight * scale.reshape(view)).to(weight.dtype).detach(), weight.requires_grad),
            Parameter(after.to(weight.dtype).detach(), weight.requires_grad if bias is None else bias.requires_grad))


def fuse_conv_bn_weights(conv_w: Tensor, conv_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float,
                         bn_w: Tensor | None, bn_b: Tensor | None, transpose: bool = False) -> tuple[Parameter, Parameter]:
    """Weight and bias of a convolution with the normalisation after it folded in."""
    return _folded(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 1 if transpose else 0)


def fuse_linear_bn_weights(linear_w: Tensor, linear_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float,
                           bn_w: Tensor, bn_b: Tensor) -> tuple[Parameter, Parameter]:
    """Weight and bias of a linear layer with the normalisation after it folded in."""
    return _folded(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 0)


def _evaluated(layer: Any, bn: Any, transpose: bool) -> Any:
    if layer.training or bn.training:
        raise AssertionError("Fusion only for eval!")
    if bn.running_mean is None or bn.running_var is None:
        raise AssertionError("bn.running_mean and bn.running_var must not be None")
    fused = copy.deepcopy(layer)
    fused.weight, fused.bias = _folded(fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias,
                                       1 if transpose else 0)
    return fused


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A copy of ``conv`` that does what ``bn(conv(x))`` does in evaluation. AssertionError for modules in training."""
    return _evaluated(conv, bn, transpose)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """A copy of ``linear`` that does what ``bn(linear(x))`` does in evaluation."""
    if linear.out_features != bn.num_features and bn.num_features != 1:
        raise AssertionError("To fuse, linear.out_features == bn.num_features or bn.num_features == 1")
    return _evaluated(linear, bn, False)
