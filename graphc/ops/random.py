"""Random numbers: creation functions, sampling and in-place fillers. The generator is in ``_generator.py``, dropout in
``_dropout.py``; both are re-exported."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import dtypes
from ..device import require
from ..dtypes import bool_, float32, float64, int64
from ..dtypes import dtype as DType
from ..errors import AutogradError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply
from ..tensor import Tensor, from_array, to_numpy
from ._common import number, shape_arg, to_out, val
from ._dropout import alpha_dropout, dropout, dropout1d, dropout2d, dropout3d, feature_alpha_dropout
from ._generator import (
    Generator,
    bits,
    default_generator,
    exponential_value,
    fork_rng,
    get_rng_state,
    gumbel_value,
    initial_seed,
    manual_seed,
    normal_value,
    seed,
    set_rng_state,
    trunc_normal_value,
    uniform_value,
    word_pairs,
    work_dtype,
)

__all__ = [
    "Generator", "alpha_dropout", "bernoulli", "bernoulli_", "bits", "cauchy_", "default_generator", "dropout", "dropout1d",
    "dropout2d", "dropout3d", "exponential_", "exponential_value", "feature_alpha_dropout", "fork_rng", "geometric_",
    "get_rng_state", "gumbel_value", "initial_seed", "log_normal_", "manual_seed", "multinomial", "normal", "normal_",
    "normal_value", "poisson", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "random_", "randperm",
    "seed", "set_rng_state", "trunc_normal_value", "uniform_", "uniform_value"]


# ------------------------------------------------------------------------------------------------------------- creation
def _made(v: Value, device: Any, requires_grad: bool, out: Tensor | None) -> Tensor:
    t = to_out(out, P.to_device(v, require(device)))
    return t.requires_grad_(True) if requires_grad else t


def _float(dt: DType | None, what: str) -> DType:
    dt = dt or dtypes.get_default_dtype()
    if not dt.is_floating_point:
        raise DTypeError(f'"{what}" not implemented for \'{dt.name}\'; it needs a floating dtype')
    return dt


def _size(size: Any, kw: dict[str, Any]) -> tuple[int, ...]:
    if "size" in kw:
        size = (kw.pop("size"),)
    kw.pop("names", None)
    if kw:
        raise TypeError(f"got an unexpected keyword argument '{next(iter(kw))}'")
    shape = shape_arg(size) if size else ()
    if any(n < 0 for n in shape):
        raise ShapeError(f"Trying to create tensor with negative dimension {min(shape)}: {list(shape)}")
    return shape


def rand(*size: Any, generator: Generator | None = None, out: Tensor | None = None, dtype: DType | None = None,
         layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False, **kw: Any) -> Tensor:
    """Uniform in [0, 1)."""
    return _made(uniform_value(_size(size, kw), _float(dtype, "rand"), generator), device, requires_grad, out)


def randn(*size: Any, generator: Generator | None = None, out: Tensor | None = None, dtype: DType | None = None,
          layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False, **kw: Any) -> Tensor:
    """Standard normal; ``randn(n)`` is a prefix of ``randn(m)`` for n < m."""
    return _made(normal_value(_size(size, kw), _float(dtype, "randn"), generator), device, requires_grad, out)


def _integers(low: int, high: int, shape: tuple[int, ...], gen: Generator | None, dt: DType = int64) -> Value:
    """int64 in [low, high). The bias of taking 32 (or 63) random bits is below span / 2^32 (2^63)."""
    span = high - low
    if span <= 0:
        raise AutogradError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    _check_range(low, high, dt)
    size = number(span, int64)
    if span <= 1 << 32:
        w = P.cast(bits(shape, gen), int64)
        r = P.shr(P.mul(w, size), 32) if span < 1 << 31 else P.remainder(w, size)
    else:
        hi, lo = [P.cast(w, int64) for w in word_pairs(shape, gen)]
        whole = P.bit_or(P.shl(P.bit_and(hi, 0x7FFFFFFF), 32), lo)
        r = P.remainder(whole, size) if span < 1 << 63 else whole
    return P.add(r, number(low, int64))


def _check_range(low: int, high: int, dt: DType) -> None:
    """Both ends must be exact numbers of dtype ``dt``."""
    if dt is bool_:
        least, most = 0, 1
    elif dt.is_floating_point:
        most = 1 << {"float16": 11, "bfloat16": 8, "float32": 24}.get(dt.name, 53)
        least = -most
    else:
        info = dtypes.iinfo(dt)
        least, most = info.min, info.max
    if low < least or low > most:
        raise AutogradError(f"from is out of bounds for {dt.name}: {low} is not in [{least}, {most}]")
    if high - 1 > most or high - 1 < least:
        raise AutogradError(f"to - 1 is out of bounds for {dt.name}: {high - 1} is not in [{least}, {most}]")


def randint(low: int = 0, high: Any = None, size: Any = None, *, generator: Generator | None = None, out: Tensor | None = None,
            dtype: DType | None = None, layout: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Integers in [low, high)."""
    if size is None and isinstance(high, (tuple, list)):
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    for end in (low, high):
        if isinstance(end, (bool, float)) or not hasattr(end, "__index__"):
            raise TypeError(f"randint() received an invalid combination of arguments: the ends must be int, not "
                            f"{type(end).__name__}")
    if size is None:
        raise TypeError("randint() missing required argument 'size'")
    dt = dtype or int64
    v = P.cast(_integers(low.__index__(), high.__index__(), _size((size,), {}), generator, dt), dt)
    return _made(v, device, requires_grad, out)


def randperm(n: int, *, generator: Generator | None = None, out: Tensor | None = None, dtype: DType | None = None,
             layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """A random permutation of 0..n-1: the order of n random 62-bit keys."""
    n = n.__index__()
    if n < 0:
        raise ShapeError(f"n must be non-negative, got {n}: Trying to create tensor with negative dimension {n}: [{n}]")
    dt = dtype or int64
    if n:
        _check_range(0, n, dt)
    hi, lo = [P.cast(w, int64) for w in word_pairs((n,), generator)]
    _, order = P.sort(P.bit_or(P.shl(P.shr(hi, 1), 32), lo), 0)
    return _made(P.cast(order, dt), device, requires_grad, out)


def rand_like(input: Tensor, *, dtype: DType | None = None, layout: Any = None, device: Any = None,
              requires_grad: bool = False, memory_format: Any = None, generator: Generator | None = None,
              pin_memory: bool = False) -> Tensor:
    """Uniform in [0, 1) in the shape, dtype and device of ``input``."""
    return rand(tuple(input.shape), dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad,
                generator=generator)


def randn_like(input: Tensor, *, dtype: DType | None = None, layout: Any = None, device: Any = None,
               requires_grad: bool = False, memory_format: Any = None, generator: Generator | None = None,
               pin_memory: bool = False) -> Tensor:
    """Standard normal in the shape, dtype and device of ``input``."""
    return randn(tuple(input.shape), dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad,
                 generator=generator)


def randint_like(input: Tensor, low: int, high: int | None = None, *, dtype: DType | None = None, layout: Any = None,
                 device: Any = None, requires_grad: bool = False, memory_format: Any = None,
                 generator: Generator | None = None, pin_memory: bool = False) -> Tensor:
    """Integers in [low, high), or [0, low), in the shape, dtype and device of ``input``."""
    if high is None:
        low, high = 0, low
    return randint(low, high, tuple(input.shape), dtype=dtype or input.dtype, device=device or input.device,
                   requires_grad=requires_grad, generator=generator)


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None,
           out: Tensor | None = None, dtype: DType | None = None, device: Any = None, requires_grad: bool = False,
           layout: Any = None, pin_memory: bool = False) -> Tensor:
    """Normal with the given mean and standard deviation (numbers or tensors)."""
    if isinstance(std, (int, float)) and std < 0:
        raise AutogradError(f"normal expects std >= 0.0, but found std {std}")
    if size is not None:
        t = randn(size, generator=generator, dtype=dtype, device=device) * std + mean
        t = to_out(out, t._v)
        return t.requires_grad_(True) if requires_grad else t
    like = mean if isinstance(mean, Tensor) else std
    if not isinstance(like, Tensor):
        raise TypeError("normal(): give size= or a tensor mean or std")
    from .shape import broadcast_shapes

    shape = tuple(broadcast_shapes(*[tuple(x.shape) for x in (mean, std) if isinstance(x, Tensor)]))
    return to_out(out, (randn(shape, generator=generator, dtype=like.dtype, device=like.device) * std + mean)._v)


def _known(v: Value) -> np.ndarray | None:
    """The data of a value that is there already: what costs nothing to check is checked at once."""
    return v.buffer if v.region is None and isinstance(getattr(v, "buffer", None), np.ndarray) else None


def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None,
              out: Tensor | None = None) -> Tensor:
    """1 with the probability each element gives (or ``p``), else 0."""
    v = val(input)
    dt = v.aval.dtype
    if p is not None:
        _check_probability(p)
    elif not dt.is_floating_point:
        raise DTypeError(f'"bernoulli" not implemented for \'{dt.name}\'; probabilities must be floating')
    else:
        known = _known(v)
        if known is not None and not ((known >= 0) & (known <= 1)).all():
            raise AutogradError("Expected p_in >= 0 && p_in <= 1: bernoulli needs probabilities in [0, 1]")
    u = P.to_device(uniform_value(v.aval.shape, work_dtype(dt), generator), v.aval.device)
    prob = P.cast(v, u.aval.dtype) if p is None else number(p, u.aval.dtype)
    return to_out(out, P.cast(P.lt(u, prob), dt))


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise AutogradError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")


def _check_weights(w: Value) -> None:
    known = _known(w)
    if known is None or not known.size:
        return
    wide = known.astype(np.float64)
    if not ((wide >= 0) & (wide < np.inf)).all():
        raise AutogradError("probability tensor contains either `inf`, `nan` or element < 0")
    if not (wide.sum(-1) > 0).all():
        raise AutogradError("invalid multinomial distribution (sum of probabilities <= 0)")


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None,
                out: Tensor | None = None) -> Tensor:
    """Indices drawn with probability proportional to each row's weights: int64 (num_samples) or (rows, num_samples).

    With replacement: inverse of the cumulative sum. Without: order of exponential numbers divided by the weights
    (Efraimidis and Spirakis 2006).
    """
    w = val(input)
    if w.aval.ndim not in (1, 2):
        raise AutogradError(f"prob_dist must be 1 or 2 dim, got {w.aval.ndim}")
    if not w.aval.dtype.is_floating_point:
        raise DTypeError("multinomial only supports floating-point dtypes for input, got: " + w.aval.dtype.name)
    n = w.aval.shape[-1]
    if num_samples <= 0:
        raise AutogradError(f"cannot sample n_sample <= 0 samples, got {num_samples}")
    if not replacement and num_samples > n:
        raise AutogradError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
    _check_weights(w)
    last = w.aval.ndim - 1
    w = P.cast(w, float64)
    if replacement or num_samples == 1:
        c = P.scan("add", w, last)
        u = P.to_device(uniform_value((*w.aval.shape[:-1], num_samples), float64, generator), w.aval.device)
        u = P.mul(u, P.narrow(c, last, n - 1, 1))
        below = P.mul(P.narrow(c, last, n - 1, 1), 1 - 2.0**-53)  # rounding must not reach the total itself
        return to_out(out, apply(OPS["searchsorted"], (c, P.minimum(u, below)), (True,)))
    key = P.div(P.to_device(exponential_value(w.aval.shape, float64, generator), w.aval.device), w)
    key = P.where(P.eq(w, 0), P.full_like(key, math.inf), key)
    _, order = P.sort(key, last)
    return to_out(out, P.narrow(order, last, 0, num_samples))


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson with the rates of ``input`` (evaluates; drawn by NumPy from a Philox stream keyed by this generator)."""
    if not input.is_floating_point():
        raise DTypeError(f'"poisson_cpu" not implemented for \'{input.dtype.name}\'')
    g = generator or default_generator
    rates = to_numpy(input)
    if not (rates >= 0).all():
        raise AutogradError("invalid Poisson rate, expected rate to be non-negative")
    rng = np.random.Generator(np.random.Philox(key=[g._seed, g.reserve(4)]))
    return from_array(np.asarray(rng.poisson(rates.astype(np.float64))).astype(rates.dtype),
                      dev=input.device)


# ------------------------------------------------------------------------------------------------------------- in place
def _fill(t: Tensor, v: Value) -> Tensor:
    t._write(P.to_device(P.cast(v, t.dtype), t.device))
    return t


def _float_target(t: Tensor, name: str) -> DType:
    """The dtype to draw in for a floating tensor."""
    if not t.dtype.is_floating_point:
        raise DTypeError(f"{name} needs a tensor of a floating dtype, got {t.dtype.name}")
    return work_dtype(t.dtype)


def uniform_(self: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None, **kw: Any) -> Tensor:
    """Fill with uniform numbers in [a, b)."""
    a = kw.pop("from", a)
    b = kw.pop("to", b)
    if a > b:
        raise AutogradError(f"uniform_ expects to return a [from, to) range, but found from={a} > to={b}")
    dt = _float_target(self, "uniform_")
    u = uniform_value(tuple(self.shape), dt, generator)
    return _fill(self, P.add(P.mul(u, number(b - a, dt)), number(a, dt)))


def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with normal numbers."""
    if std < 0:
        raise AutogradError(f"normal_ expects std >= 0.0, but found std {std}")
    dt = _float_target(self, "normal_")
    z = normal_value(tuple(self.shape), dt, generator)
    return _fill(self, P.add(P.mul(z, number(std, dt)), number(mean, dt)))


def random_(self: Tensor, low: int = 0, high: int | None = None, *, generator: Generator | None = None, **kw: Any) -> Tensor:
    """Fill with integers in [low, high) (default: the dtype's non-negative range)."""
    low, high = kw.pop("from", low), kw.pop("to", high)
    if high is None:
        if low:
            low, high = 0, low
        else:
            d = self.dtype
            if d is bool_:
                high = 2
            elif d.is_floating_point:
                high = (1 << {"float16": 11, "bfloat16": 8, "float32": 24}.get(d.name, 53)) + 1
            else:
                high = dtypes.iinfo(d).max + (d is not int64)
    return _fill(self, _integers(int(low), int(high), tuple(self.shape), generator, self.dtype))


def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill with 0 and 1, 1 with probability ``p`` (a number, or a tensor that broadcasts)."""
    if not isinstance(p, Tensor):
        _check_probability(p)
    dt = p.dtype if isinstance(p, Tensor) and p.dtype is float64 else float32
    u = P.to_device(uniform_value(tuple(self.shape), dt, generator), self.device)
    prob = P.expand(P.cast(val(p), dt), tuple(self.shape)) if isinstance(p, Tensor) else number(p, dt)
    return _fill(self, P.cast(P.lt(u, prob), self.dtype))


def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with exponential numbers of rate ``lambd``."""
    if not lambd > 0:
        raise AutogradError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    dt = _float_target(self, "exponential_")
    return _fill(self, P.div(exponential_value(tuple(self.shape), dt, generator), number(lambd, dt)))


def log_normal_(self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with exp of normal numbers."""
    if not std > 0:
        raise AutogradError(f"log_normal_ expects std > 0.0, but found std={std}")
    dt = _float_target(self, "log_normal_")
    z = normal_value(tuple(self.shape), dt, generator)
    return _fill(self, P.exp(P.add(P.mul(z, number(std, dt)), number(mean, dt))))


def cauchy_(self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with Cauchy numbers."""
    if not sigma > 0:
        raise AutogradError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")
    dt = _float_target(self, "cauchy_")
    u = uniform_value(tuple(self.shape), dt, generator)
    return _fill(self, P.add(P.mul(P.tan(P.mul(P.sub(u, 0.5), math.pi)), number(sigma, dt)), number(median, dt)))


def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fill with the number of trials up to the first success."""
    if not 0 < p < 1:
        raise AutogradError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    dt = work_dtype(self.dtype)
    e = exponential_value(tuple(self.shape), dt, generator)
    return _fill(self, P.ceil(P.div(e, number(-math.log1p(-p), dt))))

for _f in (uniform_, normal_, random_, bernoulli_, exponential_, log_normal_, cauchy_, geometric_, bernoulli, multinomial):
    setattr(Tensor, _f.__name__, _f)
