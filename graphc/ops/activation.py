"""Activation functions with PyTorch's names, signatures and values. Formulas: ``graphc/ir/composites/activation.py``."""
from __future__ import annotations

import warnings
from typing import Any

from .. import dtypes
from ..dtypes import dtype as DType
from ..errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply
from ..tensor import Tensor, wrap
from ._common import float_value, norm_dim, numpy_names, val, write

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def _done(input: Tensor, v: Value, inplace: bool, name: str) -> Tensor:
    return write(input, v, name) if inplace else wrap(v)


def _unary(input: Tensor, name: str, attrs: tuple[Any, ...] = (), inplace: bool = False) -> Tensor:
    v = apply(OPS[name], (val(input),), attrs)
    return write(input, v, name) if inplace else wrap(v)


# ------------------------------------------------------------------------------------------------------ piecewise linear
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """``max(0, x)``, any real dtype but bool."""
    v = val(input)
    if v.aval.dtype is dtypes.bool_:
        raise DTypeError("Boolean inputs not supported for relu")
    out = apply(OPS["relu"], (v,))
    return write(input, out, "relu_") if inplace else wrap(out)


def relu_(input: Tensor) -> Tensor:
    """In-place :func:`relu`."""
    return relu(input, True)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """``x`` clamped to ``[min_val, max_val]``; ValueError when the ends are swapped."""
    if min_val > max_val:
        raise ArgumentError("min_val cannot be greater than max_val")
    dt = val(input).aval.dtype
    if dt is dtypes.bool_:
        raise DTypeError("Bool inputs not supported for hardtanh")
    if dt.category == 1:
        min_val, max_val = int(min_val), int(max_val)
        if min_val < 0 and not dt.is_signed:
            raise DTypeError("cannot do hardtanh on an unsigned type with negative limits")
    return _unary(input, "hardtanh", (min_val, max_val), inplace)


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """In-place :func:`hardtanh`."""
    return hardtanh(input, min_val, max_val, True)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """``min(max(0, x), 6)``."""
    return hardtanh(input, 0.0, 6.0, inplace)


def relu6_(input: Tensor) -> Tensor:
    """In-place :func:`relu6`."""
    return relu6(input, True)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """``x`` where positive, else ``negative_slope * x``."""
    return _unary(input, "leaky_relu", (float(negative_slope),), inplace)


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """In-place :func:`leaky_relu`."""
    return leaky_relu(input, negative_slope, True)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """``x`` where above ``threshold``, else ``value``."""
    return _unary(input, "threshold", (threshold, value), inplace)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """In-place :func:`threshold`."""
    return _unary(input, "threshold", (threshold, value), True)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """Leaky ReLU with a learned slope: one, or one per channel (dimension 1; dimension 0 of a vector has none)."""
    x, w = val(input), val(weight, "weight")
    if x.aval.dtype is not w.aval.dtype:
        raise DTypeError(f"prelu: Type promoting not supported. Got {x.aval.dtype} and {w.aval.dtype}")
    n = w.aval.size
    if w.aval.ndim > 1:
        raise ShapeError(f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {w.aval.ndim}")
    if n != 1:
        channels = x.aval.shape[1] if x.aval.ndim > 1 else 1
        if not x.aval.ndim:
            raise ShapeError("Not allow zero-dim input tensor.")
        if channels != n:
            raise ShapeError(f"Mismatch of parameter numbers and input channel size. Found parameter numbers = {n} and "
                             f"channel size = {channels}.")
        w = P.reshape(w, (n, *[1] * (x.aval.ndim - 2)))
    else:
        w = P.reshape(w, ())
    return wrap(P.where(P.gt(x, 0), x, P.mul(x, w)))


def rrelu(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False,
          inplace: bool = False) -> Tensor:
    """Leaky ReLU whose slope is drawn per element from ``[lower, upper)`` in training, else is their mean."""
    if lower > upper:
        raise ArgumentError(f"Lower bound should be less than or equal to the upper bound, got {lower} and {upper}")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    x = val(input)
    slope = wrap(P.zeros_like(x))
    slope.uniform_(lower, upper)
    return _done(input, P.where(P.gt(x, 0), x, P.mul(x, val(slope))), inplace, "rrelu_")


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False) -> Tensor:
    """In-place :func:`rrelu`."""
    return rrelu(input, lower, upper, training, True)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``relu6(x + 3) / 6``."""
    return _unary(input, "hardsigmoid", (), inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * relu6(x + 3) / 6``."""
    return _unary(input, "hardswish", (), inplace)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """``x`` moved towards zero by ``lambd``, not past it; RuntimeError for a negative ``lambd``."""
    if lambd < 0:
        raise ShapeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return _unary(input, "softshrink", (float(lambd),))


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """``x`` where ``|x| > lambd``, else 0."""
    return _unary(input, "hardshrink", (float(lambd),))


# ---------------------------------------------------------------------------------------------------------------- smooth
def sigmoid(input: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))``; integers become the default floating dtype."""
    v = float_value(input)
    if v.aval.dtype.is_complex:
        return wrap(P.reciprocal(P.add(P.exp(P.neg(v)), 1)))
    return wrap(apply(OPS["sigmoid"], (v,)))


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return wrap(P.tanh(float_value(input)))


def logsigmoid(input: Tensor) -> Tensor:
    """``log(sigmoid(x))`` without cancellation."""
    return _unary(input, "log_sigmoid")


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * sigmoid(x)``."""
    return _unary(input, "silu", (), inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * tanh(softplus(x))``."""
    return _unary(input, "mish", (), inplace)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """``x * Phi(x)``; ``approximate="tanh"`` for the tanh form."""
    if approximate not in ("none", "tanh"):
        raise DTypeError("approximate argument must be either none or tanh.")
    return _unary(input, "gelu", (approximate,))


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``x`` where positive, else ``alpha * (exp(x) - 1)``."""
    return _unary(input, "elu", (float(alpha), 1.0, 1.0), inplace)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """In-place :func:`elu`."""
    return elu(input, alpha, True)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """Self-normalising ELU."""
    return _unary(input, "elu", (_SELU_ALPHA, _SELU_SCALE, 1.0), inplace)


def selu_(input: Tensor) -> Tensor:
    """In-place :func:`selu`."""
    return selu(input, True)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``max(0, x) + min(0, alpha * (exp(x / alpha) - 1))``; RuntimeError for ``alpha=0``."""
    if alpha == 0:
        raise ShapeError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return _unary(input, "elu", (float(alpha), 1.0, 1.0 / alpha), inplace)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """In-place :func:`celu`."""
    return celu(input, alpha, True)


def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """``log(1 + exp(beta * x)) / beta``; ``x`` where ``beta * x > threshold``."""
    return _unary(input, "softplus", (float(beta), float(threshold)))


def softsign(input: Tensor) -> Tensor:
    """``x / (1 + |x|)``."""
    x = float_value(input)
    return wrap(P.div(x, P.add(P.abs(x), 1)))


def tanhshrink(input: Tensor) -> Tensor:
    """``x - tanh(x)``."""
    x = float_value(input)
    return wrap(P.sub(x, P.tanh(x)))


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """``a * sigmoid(b)`` for the halves of dimension ``dim``, whose size must be even."""
    x = val(input)
    if not x.aval.ndim:
        raise ShapeError("glu does not support 0-dimensional tensors")
    d = norm_dim(dim, x.aval.ndim)
    n = x.aval.shape[d]
    if n % 2:
        raise ShapeError(f"Halving dimension must be even, but dimension {d} is size {n}")
    gate = apply(OPS["sigmoid"], (P.narrow(x, d, n // 2, n // 2),))
    return wrap(P.mul(P.narrow(x, d, 0, n // 2), gate))


# --------------------------------------------------------------------------------------------------------------- softmax
def _implicit_dim(name: str, ndim: int, stacklevel: Any) -> int:
    warnings.warn(f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an "
                  "argument.", stacklevel=(stacklevel if isinstance(stacklevel, int) else 3) + 1)
    return 0 if ndim in (0, 1, 3) else 1


def _softmax_like(name: str, public: str, input: Tensor, dim: Any, stacklevel: Any, dtype: DType | None) -> Tensor:
    if isinstance(stacklevel, DType):  # torch.softmax(input, dim, dtype) has no stacklevel in between
        dtype = stacklevel
    x = val(input)
    if dtype is not None:
        x = P.cast(x, dtype)
    if dim is None:
        dim = _implicit_dim(public, x.aval.ndim, stacklevel)
    if not isinstance(dim, int):
        raise ArgumentTypeError(f"{public}(): argument 'dim' must be int, not {type(dim).__name__}")
    return wrap(apply(OPS[name], (x,), (norm_dim(dim, x.aval.ndim),)))


@numpy_names
def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """``exp(x) / sum(exp(x))`` along ``dim``; ``dtype`` is converted to first."""
    return _softmax_like("softmax", "softmax", input, dim, _stacklevel, dtype)


@numpy_names
def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """``log(softmax(x))`` along ``dim``."""
    return _softmax_like("log_softmax", "log_softmax", input, dim, _stacklevel, dtype)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """Softmax of ``-x`` along ``dim``."""
    return _softmax_like("softmax", "softmin", wrap(P.neg(val(input))), dim, _stacklevel, dtype)


def logsumexp(input: Tensor, dim: Any, keepdim: bool = False, *, out: Tensor | None = None) -> Tensor:
    """``log(sum(exp(x)))`` over ``dim`` (an int or several); integers become the default floating dtype."""
    from ._common import norm_dims, to_out

    x = float_value(input)
    return to_out(out, apply(OPS["logsumexp"], (x,), (norm_dims(dim, x.aval.ndim), bool(keepdim))))


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """A sample of the Gumbel-softmax distribution; ``hard`` gives one-hot values with the soft gradient."""
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=2)
    x = val(logits)
    d = norm_dim(dim, x.aval.ndim)
    noise = wrap(P.zeros_like(x))
    noise.exponential_()
    gumbels = P.neg(P.log(val(noise)))
    from ._common import number

    scaled = P.div(P.add(x, gumbels), number(tau, x.aval.dtype))
    soft = apply(OPS["softmax"], (scaled,), (d,))
    if not hard:
        return wrap(soft)
    fixed = val(wrap(soft).detach())
    best = P.unsqueeze(P.argreduce("max", fixed, d), d)
    one_hot = P.cast(P.eq(P.iota_like(fixed, d, dtypes.int64), best), x.aval.dtype)
    return wrap(P.add(P.sub(one_hot, fixed), soft))
