"""A linear layer and the cross entropy of what it gives, in one (``torch.nn.LinearCrossEntropyLoss``)."""
from __future__ import annotations

import dataclasses
import math
from typing import Any

from .. import ops
from ..dtypes import dtype as DType
from ..tensor import Tensor
from .linear import Linear
from .module import Module

__all__ = ["LinearCrossEntropyLoss", "LinearCrossEntropyOptions", "linear_cross_entropy"]


@dataclasses.dataclass
class LinearCrossEntropyOptions:
    """How PyTorch cuts the batch to save memory. Accepted: here the compiler decides what is kept."""

    allow_retain_graph: bool = False
    batch_chunk_size: int | None = None
    chunking_method: str | None = "auto"
    acc_policy: str = "auto"
    acc_dtype: DType | None = None


def linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Tensor, *, linear_bias: Tensor | None = None,
                         weight: Tensor | None = None, reduction: str = "mean", ignore_index: int | None = None,
                         label_smoothing: float = 0.0, options: LinearCrossEntropyOptions | None = None) -> Tensor:
    """``cross_entropy(linear(input, linear_weight, linear_bias), target, ...)``.

    input (N, in) or (in,); weight (C, in) or (C, d1, ..., in), of which the latter gives logits (N, C, d1, ...); target class
    numbers (N, d1, ...) or probabilities of the logits' shape.
    """
    classes, between = linear_weight.shape[0], tuple(linear_weight.shape[1:-1])
    flat = linear_weight.reshape(-1, linear_weight.shape[-1])
    logits = ops.linear(input, flat, None if linear_bias is None else linear_bias.reshape(-1))
    if between:
        logits = logits.reshape((*logits.shape[:-1], classes, *between))
    return ops.cross_entropy(logits, target, weight, ignore_index=-100 if ignore_index is None else ignore_index,
                             reduction=reduction, label_smoothing=label_smoothing)


class LinearCrossEntropyLoss(Module):
    """:func:`linear_cross_entropy` with a ``Linear`` layer of its own, of which rows are classes (times ``out_features``).

    RuntimeError for weights of another shape than (num_classes,), and a smoothing outside 0..1.
    """

    def __init__(self, in_features: int, num_classes: int, *, out_features: tuple[int, ...] = (), bias: bool = False,
                 device: Any = None, dtype: Any = None, reduction: str = "mean", weight: Tensor | None = None,
                 ignore_index: int | None = None, label_smoothing: float = 0.0,
                 options: LinearCrossEntropyOptions | None = None) -> None:
        if weight is not None and tuple(weight.shape) != (num_classes,):
            raise RuntimeError(f"expected weight shape to be {(num_classes,)}, got {tuple(weight.shape)}")
        if not 0 <= label_smoothing <= 1:
            raise RuntimeError(f"expected label_smoothing to be in range [0, 1], got {label_smoothing}")
        super().__init__()
        self.register_buffer("weight", weight)
        self.reduction, self.ignore_index = reduction, ignore_index
        self.num_classes, self.out_features = num_classes, tuple(out_features)
        self.label_smoothing, self.options = label_smoothing, options
        rows = math.prod(self.out_features, start=num_classes)
        self.linear = Linear(in_features, rows, bias=bias, device=device, dtype=dtype)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        shape = (self.num_classes, *self.out_features)
        bias = self.linear.bias
        return linear_cross_entropy(input, self.linear.weight.reshape((*shape, self.linear.in_features)), target,
                                    linear_bias=None if bias is None else bias.reshape(shape), weight=self.weight,
                                    reduction=self.reduction, ignore_index=self.ignore_index,
                                    label_smoothing=self.label_smoothing, options=self.options)

    def extra_repr(self) -> str:
        return (f"in_features={self.linear.in_features}, num_classes={self.num_classes}, out_features={self.out_features}, "
                f"bias={self.linear.bias is not None}, reduction={self.reduction}, ignore_index={self.ignore_index}, "
                f"label_smoothing={self.label_smoothing}, options={self.options}")
