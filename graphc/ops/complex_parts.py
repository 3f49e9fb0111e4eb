"""Complex numbers: their parts, conjugates, absolute values and angles; complex tensors from real ones and back.

Unlike PyTorch's, the results of ``real``, ``imag``, ``view_as_real`` and ``view_as_complex`` are copies when the input is
complex (or becomes so): writing into them does not change the input. ``conj`` is computed at once, so there is no conjugate
bit to resolve.
"""
from __future__ import annotations

import builtins
import math
from typing import Any

from ..dtypes import bool_, complex128, get_default_dtype
from ..errors import AutogradError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.prims.complex import direction, extend, refuse
from ..ir.recorder import apply
from ..tensor import Tensor, wrap
from . import matmul, pointwise, reduction, shape
from ._common import binary_values, number, to_out, val
from ._linalg_common import c_name


def real_value(v: Value) -> Value:
    """Real parts; a real value is its own."""
    return apply(OPS["real"], (v,)) if v.aval.dtype.is_complex else v


def imag_value(v: Value) -> Value:
    """Imaginary parts of a complex value."""
    return apply(OPS["imag"], (v,))


def join_value(re: Value, im: Value) -> Value:
    """re + i im."""
    return apply(OPS["complex"], (re, im))


def real(input: Tensor) -> Tensor:
    """Real parts; a real tensor itself."""
    v = val(input)
    return wrap(real_value(v)) if v.aval.dtype.is_complex else input


def imag(input: Tensor) -> Tensor:
    """Imaginary parts. RuntimeError for real tensors."""
    v = val(input)
    if not v.aval.dtype.is_complex:
        raise DTypeError("imag is not implemented for tensors with non-complex dtypes.")
    return wrap(imag_value(v))


def conj(input: Tensor) -> Tensor:
    """Complex conjugates; a real tensor itself."""
    v = val(input)
    return wrap(apply(OPS["conj"], (v,))) if v.aval.dtype.is_complex else input


def conj_physical(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Complex conjugates, a new tensor for real input, too."""
    v = val(input)
    return to_out(out, apply(OPS["conj"], (v,)) if v.aval.dtype.is_complex else apply(OPS["copy"], (v,), (v.aval.device,)))


def resolve_conj(input: Tensor) -> Tensor:
    """The tensor itself: conjugates are never pending."""
    return input


resolve_neg = resolve_conj


def is_conj(input: Tensor) -> bool:
    """False: conjugates are never pending."""
    return False


is_neg = is_conj


def adjoint(input: Tensor) -> Tensor:
    """Conjugate transpose of the last two dimensions."""
    return _adjoint(input, "tensor.adjoint()")


def _adjoint(input: Tensor, name: str) -> Tensor:
    if input.ndim < 2:
        raise AutogradError(f"{name} is only supported on matrices or batches of matrices. Got {input.ndim}-D tensor.")
    return conj(shape.mT(input))


def _mh(input: Tensor) -> Tensor:
    return _adjoint(input, "tensor.mH")


def _h(input: Tensor) -> Tensor:
    if input.ndim != 2:
        hint = " For batches of matrices, consider using tensor.mH" if input.ndim > 2 else ""
        raise AutogradError(f"tensor.H is only supported on matrices (2-D tensors). Got {input.ndim}-D tensor.{hint}")
    return conj(shape.mT(input))


def abs(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Absolute values, real for complex numbers; their gradient at 0 is 0."""
    v = val(input)
    return to_out(out, apply(OPS["magnitude"], (v,))) if v.aval.dtype.is_complex else pointwise.abs(input, out=out)


absolute = abs


def _in_place_abs(input: Tensor) -> Tensor:
    if input.dtype.is_complex:
        raise DTypeError("In-place abs is not supported for complex tensors.")
    input._write(P.abs(val(input)))
    return input


def sgn(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """z / |z| (0 at 0) of complex numbers, the sign of real ones."""
    v = val(input)
    return to_out(out, direction(v)) if v.aval.dtype.is_complex else pointwise.sign(input, out=out)


def sign(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """-1, 0 or 1. Refuses complex numbers."""
    if input.dtype.is_complex:
        raise NotImplementedError("Unlike NumPy, torch.sign is not intended to support complex numbers. Please use torch.sgn "
                                  "instead.")
    return pointwise.sign(input, out=out)


def angle(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Angle in radians in [-pi, pi]; of real numbers 0 or (below zero) pi. The gradient at 0 is 0."""
    v = val(input)
    if not v.aval.dtype.is_complex:
        x = v if v.aval.dtype.category >= 2 else P.cast(v, get_default_dtype())
        flat = P.where(P.lt(x, 0), P.full_like(x, math.pi), P.zeros_like(x))
        return to_out(out, P.where(P.isnan(x), x, flat))
    re, im = real_value(v), imag_value(v)
    if v.gfn is None:
        return to_out(out, P.atan2(im, re))
    flat = P.eq(P.add(P.mul(re, re), P.mul(im, im)), 0)  # where the derivative would divide by 0
    there = P.atan2(val(wrap(im).detach()), val(wrap(re).detach()))
    return to_out(out, P.where(flat, there, P.atan2(im, P.where(flat, P.full_like(re, 1), re))))


def isreal(input: Tensor) -> Tensor:
    """Whether the imaginary part is zero."""
    v = val(input)
    return wrap(P.eq(imag_value(v), 0) if v.aval.dtype.is_complex else P.full(v.aval.shape, True, bool_, v.aval.device))


def _pair(name: str, a: Tensor, b: Tensor, args: tuple[str, str]) -> tuple[Value, Value]:
    x, y = val(a, args[0]), val(b, args[1])
    if any(v.aval.dtype.name not in ("float32", "float64", "float16") for v in (x, y)):
        raise DTypeError(f"Expected both inputs to be Half, Float or Double tensors but got {c_name(x)} and {c_name(y)}")
    if x.aval.dtype is not y.aval.dtype:
        raise DTypeError(f"Expected object of scalar type {c_name(x)} but got scalar type {c_name(y)} for second argument")
    if x.aval.dtype.name == "float16":
        raise DTypeError(f"{name}: complex numbers of float16 are not supported")
    return x, y


def complex(real: Tensor, imag: Tensor, *, out: Tensor | None = None) -> Tensor:
    """real + i imag of two float32 or two float64 tensors."""
    return to_out(out, join_value(*_pair("complex", real, imag, ("real", "imag"))))


def polar(abs: Tensor, angle: Tensor, *, out: Tensor | None = None) -> Tensor:
    """abs (cos angle + i sin angle)."""
    r, t = _pair("polar", abs, angle, ("abs", "angle"))
    return to_out(out, join_value(P.mul(r, P.cos(t)), P.mul(r, P.sin(t))))


def view_as_real(input: Tensor) -> Tensor:
    """(...) complex as (..., 2) real: the real and the imaginary parts."""
    v = val(input)
    if not v.aval.dtype.is_complex:
        raise DTypeError("view_as_real is only supported for complex tensors")
    n = v.aval.ndim
    return wrap(P.concat((P.unsqueeze(real_value(v), n), P.unsqueeze(imag_value(v), n)), n))


def view_as_complex(input: Tensor) -> Tensor:
    """(..., 2) float32 or float64 as (...) complex."""
    v = val(input)
    if v.aval.dtype.name not in ("float32", "float64"):
        raise DTypeError("view_as_complex is only supported for half, float and double tensors, but got a tensor of scalar "
                         f"type: {c_name(v)}")
    n = v.aval.ndim - 1
    if n < 0:
        raise ShapeError("Input tensor must have one or more dimensions")
    if v.aval.shape[n] != 2:
        raise ShapeError("Tensor must have a last dimension of size 2")
    parts = [P.reshape(P.narrow(v, n, k, 1), v.aval.shape[:n]) for k in (0, 1)]
    return wrap(join_value(*parts))


# ---------------------------------------------------------------------- functions of other families, for complex tensors
def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: Tensor | None = None,
         dtype: Any = None) -> Tensor:
    """:func:`reduction.norm`, which for complex tensors is that of the absolute values."""
    if not input.dtype.is_complex or p == "nuc":
        return reduction.norm(input, p, dim, keepdim, out, dtype)
    return reduction.norm(abs(input), p, dim, keepdim, out, None if dtype is None else dtype.to_real())


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """p-norm of ``input - other``."""
    return norm(pointwise.sub(input, other), float(p))


def _spread(name: str) -> Any:
    """Variance and its relatives: a complex number's is the sum of its parts'."""
    plain = getattr(reduction, name)

    def f(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not input.dtype.is_complex:
            return plain(input, *args, **kwargs)
        out = kwargs.pop("out", None)
        fn = getattr(reduction, name.replace("std", "var"))
        both = [fn(part, *args, **kwargs) for part in (real(input), imag(input))]
        v = P.add(*[val(x[0] if name.endswith("_mean") else x) for x in both])
        spread = to_out(out, P.sqrt(v) if name.startswith("std") else v)
        return (spread, complex(both[0][1], both[1][1])) if name.endswith("_mean") else spread

    f.__name__, f.__doc__ = name, plain.__doc__
    return f


var, std, var_mean, std_mean = _spread("var"), _spread("std"), _spread("var_mean"), _spread("std_mean")


def vdot(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """sum of conj(input) * other of two vectors."""
    return to_out(out, val(matmul.dot(conj(input), other)))


def float_power(input: Any, exponent: Any, *, out: Tensor | None = None) -> Tensor:
    """Power in float64, or complex128 if one of the two is complex."""
    if not any(isinstance(x, builtins.complex) or isinstance(x, Tensor) and x.dtype.is_complex for x in (input, exponent)):
        return pointwise.float_power(input, exponent, out=out)
    a, b = (val(x.to(complex128)) if isinstance(x, Tensor) else number(x, complex128) for x in (input, exponent))
    return to_out(out, P.pow(a, b))


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """``|a - b| <= atol + rtol*|b|`` elementwise."""
    if not (val(input).aval.dtype.is_complex or val(other, "other").aval.dtype.is_complex):
        return pointwise.isclose(input, other, rtol, atol, equal_nan)
    a, b = binary_values("isclose", input, other)
    gap, size = (apply(OPS["magnitude"], (x,)) for x in (P.sub(a, b), b))
    near = P.bit_and(P.le(gap, P.add(P.mul(size, rtol), atol)), P.logical_not(P.bit_or(P.isinf(a), P.isinf(b))))
    same = P.bit_or(P.eq(a, b), near)
    return wrap(P.bit_or(same, P.bit_and(P.isnan(a), P.isnan(b))) if equal_nan else same)


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are close (a Python bool: evaluates)."""
    return bool(reduction.all(isclose(input, other, rtol, atol, equal_nan)).item())


extend(("sigmoid", "silu", "linear"))  # the derivative rows differentiate their expansions, which is right already
refuse(("relu", "leaky_relu", "hardtanh", "threshold", "hardsigmoid", "hardswish", "softshrink", "hardshrink", "gelu", "mish",
        "elu", "softplus", "log_sigmoid", "softmax", "log_softmax", "logsumexp", "clamp", "max_pool", "bce", "nll",
        "cross_entropy"))

NAMES = ["norm", "dist", "var", "std", "var_mean", "std_mean", "vdot", "float_power", "isclose", "allclose", "real", "imag",
         "conj", "conj_physical", "resolve_conj", "resolve_neg", "is_conj", "is_neg", "adjoint", "abs", "absolute", "sgn",
         "sign", "angle", "isreal", "complex", "polar", "view_as_real", "view_as_complex"]


def install() -> None:
    """Tensor methods and properties. Called once when ``graphc.ops`` is imported."""
    cls: Any = Tensor
    for name in NAMES:
        if name not in ("real", "imag", "complex", "polar", "view_as_real", "view_as_complex", "var_mean", "std_mean"):
            setattr(cls, name, globals()[name])
    cls.abs_ = cls.absolute_ = _in_place_abs
    cls.__abs__ = abs
    cls.real, cls.imag, cls.H, cls.mH = property(real), property(imag), property(_h), property(_mh)
