"""Convolutions, their transposes, and sliding blocks (unfold, fold)."""
from __future__ import annotations

import math
from typing import Any

from ..errors import AutogradError, ShapeError
from ..ir import build as P
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply
from ..tensor import Tensor, wrap
from ._common import products, val


def tuple_of(x: Any, n: int, what: str) -> tuple[int, ...]:
    """An int repeated, or a sequence of n ints."""
    if isinstance(x, int):
        return (x,) * n
    t = tuple([int(i) for i in x])
    if len(t) == 1:
        return t * n
    if len(t) != n:
        raise AutogradError(f"expected {what} to be a single integer value or a list of {n} values to match the convolution "
                            f"dimensions, but got {what}={list(t)}")
    return t


def _padding(padding: Any, k: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Any:
    if padding == "valid":
        return (0,) * len(k), (0,) * len(k)
    if padding == "same":
        if any(s != 1 for s in stride):
            raise AutogradError("padding='same' is not supported for strided convolutions")
        total = [d * (m - 1) for d, m in zip(dilation, k)]
        return tuple([t // 2 for t in total]), tuple([t - t // 2 for t in total])
    if isinstance(padding, str):
        raise AutogradError(f"Invalid padding string: '{padding}'; should be one of 'same' and 'valid'")
    p = tuple_of(padding, len(k), "padding")
    if any(i < 0 for i in p):
        raise AutogradError("negative padding is not supported")
    return p, p


def _channel_bias(y: Value, bias: Tensor | None, n: int) -> Value:
    if bias is None:
        return y
    (b,) = products(val(bias, "bias"))
    if b.aval.shape != (y.aval.shape[1],):
        raise ShapeError(f"Given weight, expected bias to be 1-dimensional with {y.aval.shape[1]} elements, but got bias of "
                         f"size {list(b.aval.shape)} instead")
    return P.add(y, P.reshape(b, (b.aval.size, *([1] * n))))


def _batched(v: Value, n: int, name: str) -> tuple[Value, bool]:
    if v.aval.ndim == n + 1:
        return P.unsqueeze(v, 0), True
    if v.aval.ndim != n + 2:
        raise ShapeError(f"Expected {n + 1}D (unbatched) or {n + 2}D (batched) input to {name}, but got input of size: "
                         f"{list(v.aval.shape)}")
    return v, False


def _conv(n: int, input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
    x, single = _batched(val(input), n, f"conv{n}d")
    w = val(weight, "weight")
    st, di = tuple_of(stride, n, "stride"), tuple_of(dilation, n, "dilation")
    if any(s <= 0 for s in st):
        raise AutogradError("non-positive stride is not supported")
    if any(d <= 0 for d in di):
        raise AutogradError("dilation should be greater than zero")
    if w.aval.ndim != n + 2:
        raise ShapeError(f"expected {n + 2}-dimensional weight for conv{n}d, got {list(w.aval.shape)}")
    lo, hi = _padding(padding, w.aval.shape[2:], st, di)
    y = _channel_bias(apply(OPS["conv"], (x, w), (st, lo, hi, di, groups)), bias, n)
    return wrap(P.reshape(y, y.aval.shape[1:]) if single else y)


def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1) -> Tensor:
    """(N, C, L) with (O, C/groups, K)."""
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1) -> Tensor:
    """(N, C, H, W) with (O, C/groups, KH, KW)."""
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1) -> Tensor:
    """(N, C, D, H, W) with (O, C/groups, KD, KH, KW)."""
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def _conv_transpose(n: int, input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, output_padding: Any,
                    groups: int, dilation: Any) -> Tensor:
    x, single = _batched(val(input), n, f"conv_transpose{n}d")
    w = val(weight, "weight")
    st, di = tuple_of(stride, n, "stride"), tuple_of(dilation, n, "dilation")
    p, op = tuple_of(padding, n, "padding"), tuple_of(output_padding, n, "output_padding")
    if any(o >= max(s, d) for o, s, d in zip(op, st, di)):
        raise AutogradError("output padding must be smaller than either stride or dilation, but got output_padding "
                            f"{op}, stride {st}, dilation {di}")
    if x.aval.shape[1] != w.aval.shape[0]:
        raise ShapeError(f"Given transposed=1, weight of size {list(w.aval.shape)}, expected input{list(x.aval.shape)} to have "
                         f"{w.aval.shape[0]} channels, but got {x.aval.shape[1]} channels instead")
    spatial = tuple([(m - 1) * s - 2 * q + d * (k - 1) + o + 1
                     for m, s, q, d, k, o in zip(x.aval.shape[2:], st, p, di, w.aval.shape[2:], op)])
    # Output padding beyond the stride (a dilation allows it): first less cropping at the end, then zeros.
    more = tuple([o if o >= s else 0 for o, s in zip(op, st)])
    kept = tuple([min(o, q) for o, q in zip(more, p)])
    inner = tuple([m - o + a for m, o, a in zip(spatial, more, kept)])
    y = apply(OPS["conv_input_grad"], (x, w), (st, p, tuple([q - a for q, a in zip(p, kept)]), di, groups, inner))
    if inner != spatial:
        y = P.pad(y, (0,) * (n + 2), (0, 0, *[m - i for m, i in zip(spatial, inner)]))
    y = _channel_bias(y, bias, n)
    return wrap(P.reshape(y, y.aval.shape[1:]) if single else y)


def conv_transpose1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Tensor:
    """Transposed 1-D convolution; weight (C, O/groups, K)."""
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Tensor:
    """Transposed 2-D convolution; weight (C, O/groups, KH, KW)."""
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Tensor:
    """Transposed 3-D convolution."""
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """Sliding 2-D blocks as columns: (N, C, H, W) -> (N, C*KH*KW, L)."""
    x, single = _batched(val(input), 2, "unfold")
    k, d = tuple_of(kernel_size, 2, "kernel_size"), tuple_of(dilation, 2, "dilation")
    p, s = tuple_of(padding, 2, "padding"), tuple_of(stride, 2, "stride")
    x = P.pad(x, (0, 0, *p), (0, 0, *p))
    w = P.window(x, (2, 3), k, s, d)  # N, C, OH, OW, KH, KW
    n, c, oh, ow = w.aval.shape[:4]
    y = P.reshape(P.permute(w, (0, 1, 4, 5, 2, 3)), (n, c * k[0] * k[1], oh * ow))
    return wrap(P.reshape(y, y.aval.shape[1:]) if single else y)


def fold(input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """Sum of columns back into an image: the adjoint of :func:`unfold`."""
    v = val(input)
    single = v.aval.ndim == 2
    if single:
        v = P.unsqueeze(v, 0)
    size, k = tuple_of(output_size, 2, "output_size"), tuple_of(kernel_size, 2, "kernel_size")
    d, p, s = tuple_of(dilation, 2, "dilation"), tuple_of(padding, 2, "padding"), tuple_of(stride, 2, "stride")
    out = [(m + 2 * q - e * (j - 1) - 1) // t + 1 for m, q, e, j, t in zip(size, p, d, k, s)]
    n, ck, blocks = v.aval.shape
    if ck % math.prod(k) or blocks != math.prod(out):
        raise ShapeError(f"Given output_size={size}, kernel_size={k}, dilation={d}, padding={p}, stride={s}, expected input of "
                         f"{math.prod(k)}*C channels and {math.prod(out)} blocks, but got input of sizes {list(v.aval.shape)}")
    c = ck // math.prod(k)
    w = P.permute(P.reshape(v, (n, c, *k, *out)), (0, 1, 4, 5, 2, 3))
    padded = (n, c, *[m + 2 * q for m, q in zip(size, p)])
    y = P.fold(w, padded, (2, 3), k, s, d)
    starts = (0, 0, *p)
    y = P.slice_(y, starts, (n, c, *[q + m for q, m in zip(p, size)]), (1,) * 4)
    return wrap(P.reshape(y, y.aval.shape[1:]) if single else y)
