"""Convolutions with one channel a group as loop code: products on tensor cores would multiply 15 zeros for every number.

All arrays are channels last (see :mod:`layout`). The forward product is a sum over windows, like average pooling with weights;
the input's gradient is the same over the cotangent, spread out by the stride, with the weight turned round; the weight's
gradient sums over images and pixels for every tap. Borders become guards on loads, and neighbours in memory are neighbouring
channels. Sums are made in float32 at least.
"""
from __future__ import annotations

import numpy as np

from ...dtypes import float32
from ...ir.node import GraphBuilder, Node
from ...ir.optable import OPS
from . import opcodes


def is_depthwise(node: Node) -> bool:
    """Whether every group has one channel in and one out, and no border is cut off."""
    a, b = node.in_avals
    stride, lo, hi, dilation, groups = node.attrs[:5]
    if groups == 1:
        return False
    if node.op.name == "conv":  # type: ignore[union-attr]
        return a.shape[1] == groups == b.shape[0] and min((*lo, *hi)) >= 0
    if node.op.name == "conv_weight_grad":  # type: ignore[union-attr]
        return a.shape[1] == groups == b.shape[1] and min((*lo, *hi)) >= 0
    window = b.shape[2:]
    return a.shape[1] == groups == b.shape[0] and b.shape[1] == 1 and all(
        d * (k - 1) >= p >= 0 for d, k, p in zip(dilation, window, lo))


class Depthwise:
    """Builds one convolution; ``a`` and ``b`` are its operands channels last."""

    def __init__(self, b: GraphBuilder, node: Node):
        self.b, self.node = b, node
        self.stride, self.lo, self.hi, self.dilation = node.attrs[:4]
        self.n = len(self.stride)
        self.half = opcodes.is_half(node.avals[0].dtype)

    def emit(self, name: str, ins: tuple[int, ...], *attrs: object) -> int:
        return self.b.emit(OPS[name], ins, attrs, self.node.loc)

    def build(self, a: int, b: int) -> int:
        """The result's slot, channels last."""
        kind = self.node.op.name  # type: ignore[union-attr]
        if kind == "conv":
            out = self.weighted(self.windows(a, self.lo, self.hi, self.shape(b)[1:-1], self.stride), b)
        elif kind == "conv_input_grad":
            out = self.input_grad(a, b)
        else:
            out = self.weight_grad(a, b)
        return self.emit("cast", (out,), self.node.avals[0].dtype) if self.half else out

    def wide(self, x: int) -> int:
        """As sums are made in; after all movement, so that memory is read as it is."""
        return self.emit("cast", (x,), float32) if self.half else x

    def shape(self, s: int) -> tuple[int, ...]:
        return self.b.avals[s].shape

    def padded(self, x: int, lo: tuple[int, ...], hi: tuple[int, ...]) -> int:
        """An array with a border of zeros."""
        dt = self.b.avals[x].dtype
        zero = self.emit("const", (), np.zeros((), dt.np).tobytes(), dt)
        return self.emit("pad", (x, zero), lo, hi)

    def windows(self, x: int, lo: tuple[int, ...], hi: tuple[int, ...], window: tuple[int, ...],
                stride: tuple[int, ...]) -> int:
        """(N, *out, C, *window) of an image with a border of zeros."""
        if any((*lo, *hi)):
            x = self.padded(x, (0, *lo, 0), (0, *hi, 0))
        return self.emit("window", (x,), tuple(range(1, self.n + 1)), window, stride, self.dilation)

    def weighted(self, x: int, w: int) -> int:
        """Windows times a weight (C, *K, 1), summed."""
        w = self.emit("reshape", (w,), self.shape(w)[:-1])
        axes = tuple(range(self.n + 2, 2 * self.n + 2))
        return self.emit("reduce", (self.emit("mul", (self.wide(x), self.wide(w))),), "add", axes)

    def input_grad(self, g: int, w: int) -> int:
        """Windows of the spread cotangent, times the weight turned round."""
        space, window = self.node.attrs[5], self.shape(w)[1:-1]
        shape = self.shape(g)
        if max(self.stride) > 1:  # a pixel, then stride - 1 zeros, per axis
            thin = [n for d in shape[1:-1] for n in (d, 1)]
            wide = [n for d, s in zip(shape[1:-1], self.stride) for n in (d, s)]
            hi = [n - m for n, m in zip(wide, thin)]
            g = self.emit("reshape", (g,), (shape[0], *thin, shape[-1]))
            g = self.padded(g, (0,) * len(self.shape(g)), (0, *hi, 0))
            g = self.emit("reshape", (g,), (shape[0], *[d * s for d, s in zip(shape[1:-1], self.stride)], shape[-1]))
        lo = tuple([d * (k - 1) - p for d, k, p in zip(self.dilation, window, self.lo)])
        rest = [n + d * (k - 1) - p - m for n, d, k, p, m in zip(space, self.dilation, window, lo, self.shape(g)[1:-1])]
        if min(rest) < 0:
            shape = self.shape(g)
            stop = (shape[0], *[n + min(0, r) for n, r in zip(shape[1:-1], rest)], shape[-1])
            g = self.emit("slice", (g,), (0,) * len(shape), stop, (1,) * len(shape))
        w = self.emit("slice", (w,), (0, *[k - 1 for k in window], 0), (self.shape(w)[0], *[-1] * self.n, 1),
                      (1, *[-1] * self.n, 1))
        return self.weighted(self.windows(g, lo, tuple([max(0, r) for r in rest]), window, (1,) * self.n), w)

    def weight_grad(self, x: int, g: int) -> int:
        """For every tap the sum of the shifted image times the cotangent: (C, *K, 1)."""
        n, out, window = self.n, self.shape(g)[1:-1], self.node.attrs[5]
        x = self.windows(x, self.lo, self.hi, window, self.stride)
        shape = self.shape(x)
        if shape[1:n + 1] != out:  # rows beyond the last whole step
            x = self.emit("slice", (x,), (0,) * len(shape), (shape[0], *out, *shape[n + 1:]), (1,) * len(shape))
        x = self.emit("permute", (x,), (*range(n + 1), *range(n + 2, 2 * n + 2), n + 1))  # (N, *out, *K, C)
        g = self.emit("reshape", (g,), (shape[0], *out, *[1] * n, shape[n + 1]))
        total = self.emit("reduce", (self.emit("mul", (self.wide(x), self.wide(g))),), "add", tuple(range(n + 1)))
        total = self.emit("permute", (total,), (n, *range(n)))
        return self.emit("reshape", (total,), (*self.shape(total), 1))


__all__ = ["Depthwise", "is_depthwise"]
