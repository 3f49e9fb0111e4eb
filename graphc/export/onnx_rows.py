"""The table of ONNX forms: for each op one function that writes its node in ONNX operators (opset 18).

A row gets the writer, the node and the names of its inputs and returns the names of its outputs, or one name. A row may refuse
by :meth:`Writer.refuse`. Ops without a row are refused by the writer. Formulas that lose accuracy against graphc's own kernels:
expm1 and log1p (through exp and log) and erfc (1 - erf).
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.node import Node

if TYPE_CHECKING:
    from .onnx_writer import Writer

Row = Callable[["Writer", Node, list[str]], Any]
ROWS: dict[str, Row] = {}  # documented registry: op name -> row


def row(*names: str) -> Callable[[Row], Row]:
    """Enter a function as the row of these ops."""
    def enter(fn: Row) -> Row:
        for name in names:
            ROWS[name] = fn
        return fn

    return enter


def _is(n: Node, category: int, at: int = 0) -> bool:
    """Whether input ``at`` is bool (0), integer (1), float (2)."""
    return n.in_avals[at].dtype.category == category


# ---------------------------------------------------------------------------------------------------------------- pointwise
def _simple(op_type: str) -> Row:
    return lambda w, n, x: w.emit(op_type, x)


for _name, _type in {
    "neg": "Neg", "exp": "Exp", "log": "Log", "sin": "Sin", "cos": "Cos", "tan": "Tan", "asin": "Asin", "acos": "Acos",
    "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "tanh": "Tanh", "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh",
    "erf": "Erf", "sqrt": "Sqrt", "reciprocal": "Reciprocal", "abs": "Abs", "sign": "Sign", "isnan": "IsNaN", "isinf": "IsInf",
    "relu": "Relu", "sigmoid": "Sigmoid",
    "sub": "Sub", "div": "Div", "pow": "Pow", "eq": "Equal", "where": "Where", "copy": "Identity", "linalg_det": "Det",
}.items():
    ROWS[_name] = _simple(_type)


def _rounding(op_type: str) -> Row:
    return lambda w, n, x: w.emit(op_type, x) if _is(n, 2) else x[0]


ROWS.update({"floor": _rounding("Floor"), "ceil": _rounding("Ceil"), "round": _rounding("Round")})


def _typed(for_bool: str, for_numbers: str) -> Row:
    return lambda w, n, x: w.emit(for_bool if _is(n, 0) else for_numbers, x)


ROWS.update({"add": _typed("Or", "Add"), "mul": _typed("And", "Mul"), "maximum": _typed("Or", "Max"),
             "minimum": _typed("And", "Min"), "bit_and": _typed("And", "BitwiseAnd"), "bit_or": _typed("Or", "BitwiseOr"),
             "bit_xor": _typed("Xor", "BitwiseXor"), "bit_not": _typed("Not", "BitwiseNot")})


def _like(w: Writer, n: Node, number: float) -> str:
    return w.constant(np.asarray(number, n.in_avals[0].dtype.np))


@row("trunc")
def _trunc(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("Mul", [w.emit("Sign", x), w.emit("Floor", [w.emit("Abs", x)])]) if _is(n, 2) else x[0]


@row("rsqrt")
def _rsqrt(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("Reciprocal", [w.emit("Sqrt", x)])


@row("exp2")
def _exp2(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("Pow", [_like(w, n, 2), x[0]])


@row("expm1")
def _expm1(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("Sub", [w.emit("Exp", x), _like(w, n, 1)])


@row("log1p")
def _log1p(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("Log", [w.emit("Add", [x[0], _like(w, n, 1)])])


@row("log2", "log10")
def _log_base(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("Div", [w.emit("Log", x), _like(w, n, math.log(2 if n.op.name == "log2" else 10))])  # type: ignore[union-attr]


@row("erfc")
def _erfc(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("Sub", [_like(w, n, 1), w.emit("Erf", x)])


@row("logical_not")
def _logical_not(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("Not", x) if _is(n, 0) else w.emit("Equal", [x[0], _like(w, n, 0)])


@row("ne")
def _ne(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("Not", [w.emit("Equal", x)])


@row("lt", "le")
def _less(w: Writer, n: Node, x: list[str]) -> Any:
    if _is(n, 0):  # ONNX orders numbers only
        x = [w.cast(v, np.dtype(np.int32)) for v in x]
    return w.emit("Less" if n.op.name == "lt" else "LessOrEqual", x)  # type: ignore[union-attr]


@row("fmod")
def _fmod(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("Mod", x, fmod=1)


@row("remainder")
def _remainder(w: Writer, n: Node, x: list[str]) -> Any:
    if not _is(n, 2):
        return w.emit("Mod", x, fmod=0)
    return w.emit("Sub", [x[0], w.emit("Mul", [w.emit("Floor", [w.emit("Div", x)]), x[1]])])


@row("floordiv")
def _floordiv(w: Writer, n: Node, x: list[str]) -> Any:
    if _is(n, 2):
        return w.emit("Floor", [w.emit("Div", x)])
    return w.emit("Div", [w.emit("Sub", [x[0], w.emit("Mod", x, fmod=0)]), x[1]])


@row("shl", "shr")
def _shift(w: Writer, n: Node, x: list[str]) -> Any:
    if n.in_avals[0].dtype.is_signed:
        w.refuse(n, "ONNX shifts unsigned integers only")
    return w.emit("BitShift", x, direction="LEFT" if n.op.name == "shl" else "RIGHT")  # type: ignore[union-attr]


@row("cast")
def _cast(w: Writer, n: Node, x: list[str]) -> Any:
    return w.cast(x[0], n.attrs[0].np)


# ------------------------------------------------------------------------------------------------------------------- movement
@row("reshape")
def _reshape(w: Writer, n: Node, x: list[str]) -> Any:
    return w.reshape(x[0], n.attrs[0])


@row("permute")
def _permute(w: Writer, n: Node, x: list[str]) -> Any:
    return w.transpose(x[0], n.attrs[0])


@row("expand")
def _expand(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("Expand", [x[0], w.integers(n.attrs[0])])


@row("slice")
def _slice(w: Writer, n: Node, x: list[str]) -> Any:
    return w.cut(x[0], n.in_avals[0].shape, *n.attrs)


@row("slice_set")
def _slice_set(w: Writer, n: Node, x: list[str]) -> Any:
    """Positions over the axes up to the last one that is written in part; whole axes behind it come along."""
    shape = n.in_avals[0].shape
    ranges = [np.arange(d)[slice(a, b if s > 0 or b >= 0 else None, s)] for d, a, b, s in zip(shape, *n.attrs)]
    partly = [i for i, (r, d) in enumerate(zip(ranges, shape)) if not np.array_equal(r, np.arange(d))]
    if not partly:
        return x[1]
    at = np.stack(np.meshgrid(*ranges[:partly[-1] + 1], indexing="ij"), -1).astype(np.int64)
    return w.emit("ScatterND", [x[0], w.constant(at), x[1]])


@row("pad")
def _pad(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("Pad", [x[0], w.integers((*n.attrs[0], *n.attrs[1])), x[1]])


@row("concat")
def _concat(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("Concat", x, axis=n.attrs[0])


@row("window")
def _window(w: Writer, n: Node, x: list[str]) -> Any:
    """One Gather by a constant table per axis; the window axes are moved to the end."""
    axes, sizes, strides, dilations = n.attrs
    ndim = n.in_avals[0].ndim
    order = list(range(ndim))  # what the axes of the value so far stand for: axis d, or ndim + i for window i
    name = x[0]
    for i, (ax, k, s, d) in enumerate(zip(axes, sizes, strides, dilations)):
        at = order.index(ax)
        table = np.arange(n.avals[0].shape[ax])[:, None] * s + np.arange(k)[None, :] * d
        name = w.emit("Gather", [name, w.constant(table.astype(np.int64))], axis=at)
        order.insert(at + 1, ndim + i)
    return w.transpose(name, tuple([order.index(v) for v in range(ndim + len(axes))]))


# ----------------------------------------------------------------------------------------------------- reductions, products
_REDUCE = {"add": "ReduceSum", "mul": "ReduceProd", "max": "ReduceMax", "min": "ReduceMin", "any": "ReduceMax",
           "all": "ReduceMin"}


@row("reduce")
def _reduce(w: Writer, n: Node, x: list[str]) -> Any:
    kind, axes = n.attrs
    logical = kind in ("any", "all") or _is(n, 0)
    if logical:  # of bools: add and max are any, mul and min are all
        kind = {"add": "max", "mul": "min"}.get(kind, kind)
        x = [w.cast(w.cast(x[0], np.dtype(np.bool_)), np.dtype(np.int32))]
    out = w.emit(_REDUCE[kind], [x[0], w.integers(axes)], keepdims=0) if axes else x[0]
    return w.cast(out, np.dtype(np.bool_)) if logical else out


@row("argreduce")
def _argreduce(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("ArgMax" if n.attrs[0] == "max" else "ArgMin", x, axis=n.attrs[1], keepdims=0)


@row("scan")
def _scan(w: Writer, n: Node, x: list[str]) -> Any:
    kind, axis, reverse = n.attrs
    if kind != "add":
        w.refuse(n, f"ONNX has no running {kind}")
    return w.emit("CumSum", [x[0], w.constant(np.asarray(axis, np.int64))], reverse=int(reverse))


@row("contract")
def _contract(w: Writer, n: Node, x: list[str]) -> Any:
    """A product of matrices, or of stacks of them, between transposes and reshapes."""
    ba, bb, da, db = n.attrs
    a, b = n.in_avals
    fa = tuple([i for i in range(a.ndim) if i not in ba and i not in da])
    fb = tuple([i for i in range(b.ndim) if i not in bb and i not in db])
    k = math.prod([a.shape[i] for i in da])
    rows, cols = math.prod([a.shape[i] for i in fa]), math.prod([b.shape[i] for i in fb])
    if not ba and len(da) == 1 and b.ndim == 2 and _is(n, 2):  # a layer: rows times a matrix that is stored either way
        left = w.reshape(w.transpose(x[0], fa + da), (rows, k), (*[a.shape[i] for i in fa], k))
        out = w.emit("Gemm", [left, x[1]], transB=int(db[0] == 1))
        return w.reshape(out, n.avals[0].shape, (rows, cols))
    batch = tuple([a.shape[i] for i in ba])
    left = w.reshape(w.transpose(x[0], ba + fa + da), (*batch, rows, k), tuple([a.shape[i] for i in ba + fa + da]))
    right = w.reshape(w.transpose(x[1], bb + db + fb), (*batch, k, cols), tuple([b.shape[i] for i in bb + db + fb]))
    return w.reshape(w.emit("MatMul", [left, right]), n.avals[0].shape, (*batch, rows, cols))


@row("conv")
def _conv(w: Writer, n: Node, x: list[str]) -> Any:
    stride, lo, hi, dilation, groups = n.attrs
    return w.emit("Conv", x, strides=list(stride), pads=[*lo, *hi], dilations=list(dilation), group=groups,
                  kernel_shape=list(n.in_avals[1].shape[2:]))


@row("conv_input_grad")
def _conv_transpose(w: Writer, n: Node, x: list[str]) -> Any:
    stride, lo, hi, dilation, groups, spatial = n.attrs
    g, weight = n.in_avals
    extra = [m - ((i - 1) * s + d * (k - 1) + 1 - a - b)
             for m, i, s, d, k, a, b in zip(spatial, g.shape[2:], stride, dilation, weight.shape[2:], lo, hi)]
    if any(e < 0 or e >= max(s, d) for e, s, d in zip(extra, stride, dilation)):
        w.refuse(n, f"output padding {extra}")
    return w.emit("ConvTranspose", x, strides=list(stride), pads=[*lo, *hi], dilations=list(dilation), group=groups,
                  output_padding=extra, kernel_shape=list(weight.shape[2:]))


# ------------------------------------------------------------------------------------------------------------ index, sort
def _index(w: Writer, n: Node, name: str) -> str:
    """An index input as int64."""
    return name if n.in_avals[1].dtype.name == "int64" else w.cast(name, np.dtype(np.int64))


@row("take")
def _take(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("Gather", [x[0], _index(w, n, x[1])], axis=n.attrs[0])


@row("gather")
def _gather(w: Writer, n: Node, x: list[str]) -> Any:
    shape, idx, axis = n.in_avals[0].shape, n.in_avals[1].shape, n.attrs[0]
    if not idx:
        return x[0]
    stops = tuple([d if i == axis else m for i, (d, m) in enumerate(zip(shape, idx))])
    name = w.cut(x[0], shape, (0,) * len(shape), stops, (1,) * len(shape))
    return w.emit("GatherElements", [name, _index(w, n, x[1])], axis=axis)


_MODES = {"set": "none", "add": "add", "mul": "mul", "max": "max", "min": "min"}


@row("scatter")
def _scatter(w: Writer, n: Node, x: list[str]) -> Any:
    axis, mode = n.attrs
    idx, src = n.in_avals[1].shape, n.in_avals[2].shape
    if not idx:
        w.refuse(n, "scatter of zero-dim values")
    rows = w.cut(x[2], src, (0,) * len(src), idx, (1,) * len(src))
    return w.emit("ScatterElements", [x[0], _index(w, n, x[1]), rows], axis=axis, reduction=_MODES[mode])


@row("take_put")
def _take_put(w: Writer, n: Node, x: list[str]) -> Any:
    axis, mode, _ = n.attrs
    base, idx, src = n.in_avals
    front = (axis, *[i for i in range(base.ndim) if i != axis])
    middle = tuple(range(axis, axis + idx.ndim))
    moved = w.transpose(x[2], (*middle, *[i for i in range(src.ndim) if i not in middle]))
    at = w.reshape(_index(w, n, x[1]), (*idx.shape, 1))
    out = w.emit("ScatterND", [w.transpose(x[0], front), at, moved], reduction=_MODES[mode])
    return w.transpose(out, tuple([front.index(i) for i in range(base.ndim)]))


@row("sort", "topk")
def _sort(w: Writer, n: Node, x: list[str]) -> Any:
    axis = n.attrs[0]
    k, largest = (n.attrs[1], n.attrs[2]) if n.op.name == "topk" else (n.in_avals[0].shape[axis], n.attrs[1])  # type: ignore[union-attr]
    return w.emit("TopK", [x[0], w.integers((k,))], 2, axis=axis, largest=int(largest), sorted=1)


# ---------------------------------------------------------------------------------------------------------------- control
@row("loop_scan")
def _loop(w: Writer, n: Node, x: list[str]) -> Any:
    """ONNX Scan; what every step reads is taken from the graph around it by name."""
    body, n_carry, n_xs, length, reverse, _ = n.attrs
    carries, xs, consts = x[:n_carry], x[n_carry:n_carry + n_xs], x[n_carry + n_xs:]
    if not xs:  # Scan counts its steps by its inputs
        xs = [w.constant(np.arange(length, dtype=np.int64))]
    graph = w.subgraph(body, n_carry, n_xs, consts)
    way = int(reverse)
    return w.emit("Scan", [*carries, *xs], len(n.avals), body=graph, num_scan_inputs=len(xs),
                  scan_input_directions=[way] * len(xs), scan_output_directions=[way] * (len(n.avals) - n_carry))


# ------------------------------------------------------------- composites that have an operator of their own; others expand
@row("softmax", "log_softmax")
def _softmax(w: Writer, n: Node, x: list[str]) -> Any:
    return w.emit("Softmax" if n.op.name == "softmax" else "LogSoftmax", x, axis=n.attrs[0])  # type: ignore[union-attr]


@row("linear")
def _linear(w: Writer, n: Node, x: list[str]) -> Any:
    a, b = n.in_avals[:2]
    if b.ndim != 2 or not _is(n, 2):
        w.refuse(n, "a linear layer of these shapes")
    rows = math.prod(a.shape[:-1])
    out = w.emit("Gemm", [w.reshape(x[0], (rows, a.shape[-1]), a.shape), *x[1:]], transB=1)
    return w.reshape(out, n.avals[0].shape, (rows, b.shape[0]))


@row("batch_norm_eval")
def _batch_norm(w: Writer, n: Node, x: list[str]) -> Any:
    eps, has_weight, has_bias = n.attrs
    rest = x[3:]
    av = n.in_avals[1]
    scale = rest.pop(0) if has_weight else w.constant(np.ones(av.shape, av.dtype.np))
    bias = rest.pop(0) if has_bias else w.constant(np.zeros(av.shape, av.dtype.np))
    return w.emit("BatchNormalization", [x[0], scale, bias, x[1], x[2]], epsilon=float(eps))


@row("layer_norm")
def _layer_norm(w: Writer, n: Node, x: list[str]) -> Any:
    axes, eps, has_weight, has_bias = n.attrs
    av = n.in_avals[0]
    if not has_weight:
        x = [x[0], w.constant(np.ones(av.shape[av.ndim - axes:], av.dtype.np)), *x[1:]]
    return w.emit("LayerNormalization", x, axis=-axes, epsilon=float(eps))


@row("max_pool")
def _max_pool(w: Writer, n: Node, x: list[str]) -> Any:
    kernel, stride, lo, hi, dilation = n.attrs
    shape = n.in_avals[0].shape
    if len(shape) != len(kernel) + 2:  # ONNX wants batch and channels
        flat = (1, math.prod(shape[:len(shape) - len(kernel)]), *shape[len(shape) - len(kernel):])
        out = w.emit("MaxPool", [w.reshape(x[0], flat)], kernel_shape=list(kernel), strides=list(stride), pads=[*lo, *hi],
                     dilations=list(dilation))
        return w.reshape(out, n.avals[0].shape)
    return w.emit("MaxPool", x, kernel_shape=list(kernel), strides=list(stride), pads=[*lo, *hi], dilations=list(dilation))
