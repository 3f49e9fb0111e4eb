"""Integration, differences, covariance, integer divisors, parts of floating-point numbers."""
from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dtypes import bool_, float64, get_default_dtype, int64
from ..errors import ArgumentError, ArgumentTypeError, AutogradError, DTypeError, ShapeError
from ..ir import build as P
from ..tensor import Tensor, from_array, to_numpy, wrap
from . import joining, matmul, pointwise, reduction
from ._common import binary_values, norm_dim, norm_dims, to_out, val
from ._named import named_result as _named_result
from .complex_parts import abs, complex, imag, real
from .creation import as_tensor, ones_like
from .pointwise import sqrt


# ------------------------------------------------------------------------------------------------------------ integration
def _between(y: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """All but the last and all but the first along ``dim``."""
    n = y.shape[dim]
    return y.narrow(dim, 0, builtins.max(n - 1, 0)), y.narrow(dim, builtins.min(1, n), builtins.max(n - 1, 0))


def _panels(y: Tensor, x: Tensor | None, dx: Any, dim: int) -> Tensor:
    """Areas of the trapezoids between neighbours along ``dim``."""
    if x is not None and dx is not None:
        raise TypeError("trapezoid received both x and dx: give one of them")
    if y.dtype is bool_ or (x is not None and x.dtype is bool_):
        raise DTypeError("trapezoid: received a bool input for `x` or `y`, but bool is not supported")
    left, right = _between(y, dim)
    if x is None:
        return (left + right) * (0.5 * (1.0 if dx is None else dx))
    if x.ndim == 1 and y.ndim != 1:
        if x.shape[0] != y.shape[dim]:
            raise ShapeError(f"trapezoid: There must be one `x` value for each sample point: {x.shape[0]} and {y.shape[dim]}")
        x = x.reshape([-1 if d == dim else 1 for d in range(y.ndim)])
    low, high = _between(x, dim - y.ndim + x.ndim)
    return (high - low) * (left + right) / 2.0


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """Integral along ``dim`` by the trapezoidal rule, for sample points ``x`` or a spacing ``dx`` (default 1)."""
    d = norm_dim(dim, y.ndim)
    return _panels(y, x, dx, d).sum(d)


def trapz(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """Older name of :func:`trapezoid`."""
    return trapezoid(y, x, dx=dx, dim=dim)


def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """Running integral along ``dim``: one element fewer than ``y``."""
    d = norm_dim(dim, y.ndim)
    return _panels(y, x, dx, d).cumsum(d)


def _gradient_along(v: Tensor, d: int, h: Any, order: int) -> Tensor:
    """Central differences inside, one-sided ones of ``edge_order`` at the ends; ``h``: a number or the coordinates."""
    n = v.shape[d]
    if n < order + 1:
        raise ShapeError("torch.gradient expected each dimension size to be at least edge_order+1")

    def at(i: int) -> Tensor:
        return v.narrow(d, i, 1)

    view = [-1 if k == d else 1 for k in range(v.ndim)]
    if isinstance(h, Tensor):
        steps = (h[1:] - h[:-1]).reshape(view)
    else:
        steps = ones_like(v.narrow(d, 0, 1)) * 0 + h
        steps = steps.expand([n - 1 if k == d else s for k, s in enumerate(v.shape)])
    left, right = steps.narrow(d, 0, n - 2), steps.narrow(d, 1, n - 2)
    a, b, c = -right / (left * (left + right)), (right - left) / (left * right), left / (right * (left + right))
    inner = a * v.narrow(d, 0, n - 2) + b * v.narrow(d, 1, n - 2) + c * v.narrow(d, 2, n - 2)
    first, last = steps.narrow(d, 0, 1), steps.narrow(d, n - 2, 1)
    if order == 1:
        return joining.cat([(at(1) - at(0)) / first, inner, (at(n - 1) - at(n - 2)) / last], d)
    s1, s2 = steps.narrow(d, 1, 1), steps.narrow(d, n - 3, 1)
    start = (-(2 * first + s1) / (first * (first + s1)) * at(0) + (first + s1) / (first * s1) * at(1)
             - first / (s1 * (first + s1)) * at(2))
    end = (last / (s2 * (s2 + last)) * at(n - 3) - (s2 + last) / (s2 * last) * at(n - 2)
           + (2 * last + s2) / (last * (s2 + last)) * at(n - 1))
    return joining.cat([start, inner, end], d)


def gradient(input: Tensor, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1) -> tuple[Tensor, ...]:
    """Numerical derivative of samples along each of ``dim`` (second order inside): a tuple with one tensor per dimension."""
    if edge_order not in (1, 2):
        raise AutogradError("torch.gradient only supports edge_order=1 and edge_order=2.")
    v = input if input.is_floating_point() or input.is_complex() else input.to(get_default_dtype())
    dims = list(range(v.ndim)) if dim is None else [norm_dim(d, v.ndim) for d in ([dim] if isinstance(dim, int) else dim)]
    norm_dims(dims, v.ndim)  # refuses a dimension given twice
    spacing = 1 if spacing is None else spacing
    many = isinstance(spacing, (list, tuple))
    if many and len(spacing) != len(dims):
        raise ShapeError("torch.gradient expected spacing to be unspecified, a scalar or it's spacing and dim arguments to "
                         f"have the same length, but got a spacing argument of length {len(spacing)} and a dim argument of "
                         f"length {len(dims)}.")
    spaces = list(spacing) if many else [spacing] * len(dims)
    return tuple([_gradient_along(v, d, h, edge_order) for d, h in zip(dims, spaces)])


# ------------------------------------------------------------------------------------------------------------- statistics
def cov(input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None) -> Tensor:
    """Covariance of variables in rows, observations in columns, with frequency and importance weights."""
    if input.ndim > 2:
        raise ShapeError(f"cov(): expected input to have two or fewer dimensions but got an input with {input.ndim} dimensions")
    if input.dtype is bool_:
        raise DTypeError("cov(): bool dtype is not supported for input")
    x = input.reshape(1, -1) if input.ndim < 2 else input
    if not (x.is_floating_point() or x.is_complex()):
        x = x.to(get_default_dtype())
    _check_weights(x, fweights, aweights)
    w: Any = None
    if fweights is not None:
        w = fweights
    if aweights is not None:
        w = aweights if w is None else w * aweights
    n = x.shape[1]
    total = as_tensor(n, dtype=int64) if w is None else w.sum()
    mean = (x if w is None else x * w).sum(1, keepdim=True) / total
    if correction == 0 or w is None or aweights is None:
        norm = total - correction
    else:
        norm = total - correction * (w * aweights).sum() / total
    d = x - mean
    scaled = d if w is None else d * w
    c = matmul.matmul(scaled, d.mT.conj() if d.is_complex() else d.mT) / norm.clamp(min=0)
    return c.reshape(()) if c.numel() == 1 else c  # one variable: a number


def _check_weights(x: Tensor, fweights: Tensor | None, aweights: Tensor | None) -> None:
    for name, w in (("fweights", fweights), ("aweights", aweights)):
        if w is None:
            continue
        if w.ndim > 1:
            raise ShapeError(f"cov(): expected {name} to have one or fewer dimensions but got {name} with {w.ndim} dimensions")
        if w.dtype is bool_ or (w.is_floating_point() == (name == "fweights")) or w.is_complex():
            kind = "integral" if name == "fweights" else "floating point"
            raise DTypeError(f"cov(): expected {name} to have {kind} dtype but got {name} with {w.dtype.name} dtype")
        if w.numel() != x.shape[1]:
            raise ShapeError(f"cov(): expected {name} to have the same numel as there are observations in the input but got "
                             f"{w.numel()} != {x.shape[1]}")
        if bool((w < 0).any()):
            raise AutogradError(f"cov(): {name} cannot be negative")


def corrcoef(input: Tensor) -> Tensor:
    """Pearson correlation of variables in rows: covariances over standard deviations, clipped to [-1, 1]."""
    if input.ndim > 2:
        raise ShapeError(f"corrcoef(): expected input to have two or fewer dimensions but got an input with {input.ndim} "
                         "dimensions")
    c = cov(input)
    if c.ndim == 0:
        return c / c
    if c.is_complex():
        d = sqrt(real(c.diagonal()))
        r = c / d.unsqueeze(1) / d.unsqueeze(0)
        return complex(real(r).clamp(-1, 1), imag(r).clamp(-1, 1))
    s = sqrt(c.diagonal())
    return (c / s.unsqueeze(1) / s.unsqueeze(0)).clamp(-1, 1)


def renorm(input: Tensor, p: float, dim: int, maxnorm: float, *, out: Tensor | None = None) -> Tensor:
    """Slices along ``dim`` whose p-norm exceeds ``maxnorm`` scaled down to it."""
    if p <= 0:
        raise ArgumentError("renorm: non-positive-norm not supported")
    if maxnorm < 0:
        raise ArgumentError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}")
    d = norm_dim(dim, input.ndim)
    if input.ndim < 2:
        raise ShapeError(f"renorm: input needs at least 2 dimensions, got {input.ndim} dimensions")
    others = norm_dims([k for k in range(input.ndim) if k != d], input.ndim)
    size = reduction.vector_norm(abs(input), p, others, True)
    factor = pointwise.clamp(maxnorm / (size + 1e-7), max=1.0)
    return to_out(out, (input * factor)._read())


def pdist(input: Tensor, p: float = 2) -> Tensor:
    """p-norm distances between all pairs of rows i < j, in one dimension."""
    if input.ndim != 2:
        raise ShapeError(f"pdist only supports 2D tensors, got: {input.ndim}D")
    if not input.is_floating_point():
        raise DTypeError("pdist only supports floating-point dtypes")
    if p < 0:
        raise ArgumentError("pdist only supports non-negative p values")
    i, j = np.triu_indices(input.shape[0], 1)
    return reduction.vector_norm(input[from_array(i, dev=input.device)] - input[from_array(j, dev=input.device)], p, 1)


# --------------------------------------------------------------------------------------------- integers, bits of floats
def _on_host(name: str, ufunc: Any, doc: str, integers: bool) -> Any:
    def f(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
        val(input), val(other, "other")  # tensors both: numbers are refused
        a, b = binary_values(name, input, other)
        if (a.aval.dtype.category == 1) != integers:
            raise NotImplementedError(f"\"{name}\" not implemented for '{a.aval.dtype.name}'")
        x, y = to_numpy(wrap(a)), to_numpy(wrap(b))
        t = from_array(np.asarray(ufunc(x, y)).astype(a.aval.dtype.np), dev=a.aval.device)
        return t if out is None else to_out(out, t._read())

    f.__name__, f.__doc__ = name, doc + " Evaluated on the host."
    return f


gcd = _on_host("gcd", np.gcd, "Greatest common divisor.", True)
lcm = _on_host("lcm", np.lcm, "Least common multiple.", True)
nextafter = _on_host("nextafter", np.nextafter, "The next representable number after ``input`` towards ``other``.", False)


frexp_result: Any = _named_result("frexp", ["mantissa", "exponent"])


def frexp(input: Tensor, *, out: Any = None) -> Any:
    """``input = mantissa * 2^exponent`` with 0.5 <= \\|mantissa\\| < 1; the exponent is int32 (found on the host)."""
    if not input.is_floating_point():
        raise DTypeError(f"torch.frexp() only supports floating-point dtypes; got {input.dtype}")
    bits = np.frexp(to_numpy(input.detach()).astype(np.float64))[1].astype(np.int32)
    e = from_array(np.asarray(bits), dev=input.device)
    half = pointwise.floor_divide(e, 2)  # two factors: 2^-e itself may overflow
    dt = float64 if input.dtype is float64 else get_default_dtype()
    v = P.mul(P.mul(P.cast(val(input), dt), P.exp2(P.neg(P.cast(val(half), dt)))), P.exp2(P.cast(val(half - e), dt)))
    m = wrap(P.cast(v, input.dtype))
    if out is not None:
        return frexp_result(to_out(out[0], m._read()), to_out(out[1], e._read()))
    return frexp_result(m, e)


# ---------------------------------------------------------------------------------------------------------- small things
def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether the shapes are equal."""
    return tuple(input.shape) == tuple(other.shape)


def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """Sum over the dimensions that broadcasting from ``size`` would have made."""
    target = tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else tuple(size)
    have = tuple(self.shape)
    if len(target) > len(have) or any(t not in (1, h) for t, h in zip(target[::-1], have[::-1])):
        raise ShapeError(f"size {{{list(target)}}} is not expandable to size {{{list(have)}}}.")
    v = val(self)
    return wrap(P.sum_to(v if v.aval.dtype.category >= 2 else P.cast(v, int64), target))


def frobenius_norm(input: Tensor, dim: Any = None, keepdim: bool = False, *, out: Tensor | None = None) -> Tensor:
    """2-norm over ``dim``."""
    return reduction.vector_norm(input, 2.0, dim, keepdim, out=out)


def nuclear_norm(input: Tensor, dim: Any = (-2, -1), keepdim: bool = False, *, out: Tensor | None = None) -> Tensor:
    """Sum of singular values."""
    from .linalg_norm import matrix_norm

    return matrix_norm(input, "nuc", dim, keepdim, out=out)


def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1, out: Tensor | None = None) -> Tensor:
    """Indices of nonzero elements in exactly ``size`` rows: cut, or filled with ``fill_value``."""
    if size < 0:
        raise ArgumentTypeError(f"nonzero_static: 'size' must be an non-negative integer, got {size}")
    found = np.argwhere(to_numpy(input))[:size]
    rows = np.full((size, found.shape[1]), fill_value, np.int64)
    rows[:len(found)] = found
    return to_out(out, from_array(rows, dev=input.device)._read())


def unsafe_chunk(input: Tensor, chunks: int, dim: int = 0) -> Sequence[Tensor]:
    """:func:`chunk`: nothing is unsafe here."""
    return joining.chunk(input, chunks, dim)


def unsafe_split(input: Tensor, split_size: Any, dim: int = 0) -> Sequence[Tensor]:
    """:func:`split`: nothing is unsafe here."""
    return joining.split(input, split_size, dim)


unsafe_split_with_sizes = unsafe_split

NAMES = ["trapezoid", "trapz", "cumulative_trapezoid", "gradient", "cov", "corrcoef", "renorm", "pdist", "gcd", "lcm",
         "nextafter", "frexp", "is_same_size", "frobenius_norm", "nuclear_norm", "nonzero_static", "unsafe_chunk",
         "unsafe_split", "unsafe_split_with_sizes"]
METHODS = ["cov", "corrcoef", "renorm", "gcd", "lcm", "nextafter", "frexp", "is_same_size", "sum_to_size", "nonzero_static",
           "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes"]
IN_PLACE = ["renorm", "gcd", "lcm", "nextafter"]
