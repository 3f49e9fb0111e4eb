"""Random numbers: a counter-based generator (Philox), creation functions, in-place fillers, dropout.

Seed and offset enter the program as run-time scalars, so drawing never recompiles; element ``i`` depends only on (seed,
offset, i): the same numbers eager, compiled, on any device.
"""
from __future__ import annotations

import contextlib
import math
import os
from typing import Any

import numpy as np

from .. import dtypes
from ..device import CPU, require
from ..dtypes import bool_, float32, float64, int64
from ..dtypes import dtype as DType
from ..errors import ArgumentError, AutogradError, DTypeError
from ..ir import build as P
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply, scalar, state
from ..tensor import Tensor, from_array, wrap
from ._common import number, shape_arg, to_out, val


class Generator:
    """A stream of random numbers: 16 bytes of state (seed, offset)."""

    def __init__(self, device: Any = "cpu"):
        self.device = require(device) if device != "cuda" else CPU
        self._seed, self._offset = 67280421310721, 0

    def manual_seed(self, seed: int) -> Generator:
        """Restart the stream."""
        self._seed, self._offset = int(seed) & 0xFFFFFFFFFFFFFFFF, 0
        return self

    def seed(self) -> int:
        """Restart from the operating system's randomness; returns the seed."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little") >> 1)
        return self._seed

    def initial_seed(self) -> int:
        return self._seed

    def get_state(self) -> Tensor:
        """uint8 tensor of 16 bytes."""
        return from_array(np.array([self._seed, self._offset], np.uint64).view(np.uint8).copy())

    def set_state(self, new_state: Tensor) -> Generator:
        raw = np.asarray(new_state.tolist(), np.uint8)
        if raw.size != 16:
            raise AutogradError(f"RNG state must be 16 bytes, got {raw.size}")
        self._seed, self._offset = (int(x) for x in raw.view(np.uint64))
        return self

    def clone_state(self) -> Generator:
        g = Generator()
        g._seed, g._offset = self._seed, self._offset
        return g

    def reserve(self, words: int) -> int:
        """Offset of ``words`` fresh words."""
        at = self._offset
        self._offset = (at + -(-words // 4)) & 0xFFFFFFFFFFFFFFFF
        return at


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the default generator."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    return default_generator.seed()


def initial_seed() -> int:
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    default_generator.set_state(new_state)


@contextlib.contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, **kw: Any) -> Any:
    """Restore the default generator at the end of the block."""
    saved = (default_generator._seed, default_generator._offset)
    try:
        yield
    finally:
        if enabled:
            default_generator._seed, default_generator._offset = saved


def _slots(words: int, gen: Generator | None) -> tuple[Value, Value]:
    g = gen or default_generator
    at = g.reserve(words)
    return scalar(g._seed, int64), scalar(at, int64)


def bits(shape: tuple[int, ...], gen: Generator | None) -> Value:
    """uint32 words."""
    return apply(OPS["rng_bits"], _slots(math.prod(shape), gen), (shape,))


def uniform_value(shape: tuple[int, ...], dt: DType, gen: Generator | None) -> Value:
    """Uniform in [0, 1): 24 random bits (53 for float64)."""
    if dt is float64:
        w = bits((*shape, 2), gen)
        n = len(shape)
        a = P.reshape(P.narrow(w, n, 0, 1), shape)
        b = P.reshape(P.narrow(w, n, 1, 1), shape)
        hi, lo = P.cast(P.shr(a, 5), float64), P.cast(P.shr(b, 6), float64)
        return P.mul(P.add(P.mul(hi, 67108864.0), lo), 1 / 9007199254740992.0)
    u = P.mul(P.cast(P.shr(bits(shape, gen), 8), float32), 2.0**-24)
    return u if dt is float32 else P.cast(u, dt)


def normal_value(shape: tuple[int, ...], dt: DType, gen: Generator | None) -> Value:
    """Standard normal by Box-Muller; element i uses words 2i and 2i+1."""
    wide = float64 if dt is float64 else float32
    w = bits((*shape, 2), gen)
    n = len(shape)
    a, b = P.reshape(P.narrow(w, n, 0, 1), shape), P.reshape(P.narrow(w, n, 1, 1), shape)
    if wide is float64:
        u1 = P.mul(P.add(P.cast(a, float64), 1.0), 2.0**-32)
        u2 = P.mul(P.cast(b, float64), 2.0**-32)
    else:
        u1 = P.mul(P.add(P.cast(P.shr(a, 8), float32), 1.0), 2.0**-24)
        u2 = P.mul(P.cast(P.shr(b, 8), float32), 2.0**-24)
    z = P.mul(P.sqrt(P.mul(P.log(u1), -2.0)), P.cos(P.mul(u2, 2 * math.pi)))
    return P.cast(z, dt)


# ------------------------------------------------------------------------------------------------------------- creation
def _made(v: Value, device: Any, requires_grad: bool, out: Tensor | None) -> Tensor:
    t = to_out(out, P.to_device(v, require(device)))
    return t.requires_grad_(True) if requires_grad else t


def _float(dt: DType | None, what: str) -> DType:
    dt = dt or dtypes.get_default_dtype()
    if not dt.is_floating_point:
        raise DTypeError(f'"{what}" not implemented for \'{dt.name}\'')
    return dt


def _size(size: Any, kw: dict[str, Any]) -> tuple[int, ...]:
    if "size" in kw:
        size = (kw.pop("size"),)
    return shape_arg(size) if size else ()


def rand(*size: Any, generator: Generator | None = None, out: Tensor | None = None, dtype: DType | None = None,
         layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False, **kw: Any) -> Tensor:
    """Uniform in [0, 1)."""
    return _made(uniform_value(_size(size, kw), _float(dtype, "rand"), generator), device, requires_grad, out)


def randn(*size: Any, generator: Generator | None = None, out: Tensor | None = None, dtype: DType | None = None,
          layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False, **kw: Any) -> Tensor:
    """Standard normal; ``randn(n)`` is a prefix of ``randn(m)`` for n < m."""
    return _made(normal_value(_size(size, kw), _float(dtype, "randn"), generator), device, requires_grad, out)


def _integers(low: int, high: int, shape: tuple[int, ...], gen: Generator | None) -> Value:
    span = high - low
    if span <= 0:
        raise AutogradError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    if span <= 1 << 32:  # high half of word * span: bias below span / 2^32
        w = P.cast(bits(shape, gen), int64)
        r = P.shr(P.mul(w, span), 32) if span < 1 << 31 else P.remainder(w, span)
    else:
        w2 = bits((*shape, 2), gen)
        n = len(shape)
        hi, lo = (P.cast(P.reshape(P.narrow(w2, n, k, 1), shape), int64) for k in (0, 1))
        r = P.remainder(P.bit_or(P.shl(P.bit_and(hi, 0x7FFFFFFF), 32), lo), span)
    return P.add(r, number(low, int64))


def randint(low: int, high: Any = None, size: Any = None, *, generator: Generator | None = None, out: Tensor | None = None,
            dtype: DType | None = None, layout: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Integers in [low, high)."""
    if size is None and isinstance(high, (tuple, list)):
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    v = P.cast(_integers(int(low), int(high), shape_arg((size,)), generator), dtype or int64)
    return _made(v, device, requires_grad, out)


def randperm(n: int, *, generator: Generator | None = None, out: Tensor | None = None, dtype: DType | None = None,
             layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """A random permutation of 0..n-1: the order of n random 62-bit keys."""
    w = bits((n, 2), generator)
    hi, lo = (P.cast(P.reshape(P.narrow(w, 1, k, 1), (n,)), int64) for k in (0, 1))
    key = P.bit_or(P.shl(P.shr(hi, 1), 32), lo)
    _, order = P.sort(key, 0)
    return _made(P.cast(order, dtype or int64), device, requires_grad, out)


def _like(fn: Any) -> Any:
    def f(input: Tensor, *args: Any, dtype: DType | None = None, layout: Any = None, device: Any = None,
          requires_grad: bool = False, memory_format: Any = None, generator: Generator | None = None, **kw: Any) -> Tensor:
        return fn(*args, tuple(input.shape), dtype=dtype or input.dtype, device=device or input.device,
                  requires_grad=requires_grad, generator=generator, **kw)

    f.__name__ = fn.__name__ + "_like"
    return f


rand_like, randn_like = _like(rand), _like(randn)


def randint_like(input: Tensor, low: int, high: int | None = None, *, dtype: DType | None = None, device: Any = None,
                 requires_grad: bool = False, generator: Generator | None = None, **kw: Any) -> Tensor:
    """Integers in the shape of ``input``."""
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
    return to_out(out, (randn(shape, generator=generator, dtype=like.dtype) * std + mean)._v)


def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None,
              out: Tensor | None = None) -> Tensor:
    """1 with the probability each element gives (or ``p``)."""
    v = val(input)
    u = uniform_value(v.aval.shape, float64 if v.aval.dtype is float64 else float32, generator)
    prob = P.cast(v, u.aval.dtype) if p is None else number(p, u.aval.dtype)
    return to_out(out, P.cast(P.lt(u, prob), v.aval.dtype))


def exponential_value(shape: tuple[int, ...], dt: DType, gen: Generator | None) -> Value:
    """-log(1 - u)."""
    u = uniform_value(shape, float64 if dt is float64 else float32, gen)
    return P.cast(P.neg(P.log(P.sub(1.0, u))), dt)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None,
                out: Tensor | None = None) -> Tensor:
    """Indices drawn with probability proportional to each row's weights.

    With replacement: inverse of the cumulative sum. Without: order of exponential keys divided by weights.
    """
    w = val(input)
    if w.aval.ndim not in (1, 2):
        raise AutogradError("prob_dist must be 1 or 2 dim")
    if not w.aval.dtype.is_floating_point:
        raise DTypeError("multinomial only supports floating-point dtypes for input, got: " + w.aval.dtype.name)
    n = w.aval.shape[-1]
    if num_samples <= 0:
        raise AutogradError(f"cannot sample n_sample <= 0 samples, got {num_samples}")
    if not replacement and num_samples > n:
        raise AutogradError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
    last = w.aval.ndim - 1
    w = P.cast(w, float64)
    if replacement or num_samples == 1:
        c = P.scan("add", w, last)
        total = P.narrow(c, last, n - 1, 1)
        u = P.mul(uniform_value((*w.aval.shape[:-1], num_samples), float64, generator), total)
        below = P.le(P.unsqueeze(c, last), P.unsqueeze(u, last + 1))
        idx = P.reduce("add", P.cast(below, int64), (last + 1,))
        return to_out(out, P.minimum(idx, n - 1))
    key = P.div(exponential_value(w.aval.shape, float64, generator), w)
    key = P.where(P.eq(w, 0), P.full_like(key, math.inf), key)
    _, order = P.sort(key, last)
    return to_out(out, P.narrow(order, last, 0, num_samples))


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson with the rates of ``input`` (evaluates; drawn from a NumPy Philox stream keyed by this generator)."""
    g = generator or default_generator
    rng = np.random.Generator(np.random.Philox(key=[g._seed, g.reserve(4)]))
    from ..tensor import to_numpy

    arr = to_numpy(input)
    return from_array(rng.poisson(arr).astype(arr.dtype))


# ------------------------------------------------------------------------------------------------------------- in place
def _fill(t: Tensor, v: Value) -> Tensor:
    before, state.grad = state.grad, state.grad
    t._write(P.cast(v, t.dtype))
    state.grad = before
    return t


def _work_dtype(t: Tensor) -> DType:
    return t.dtype if t.dtype in (float32, float64) else float32


def uniform_(self: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None, **kw: Any) -> Tensor:
    """Fill with uniform numbers in [a, b)."""
    a = kw.pop("from", a)
    b = kw.pop("to", b)
    if a > b:
        raise AutogradError(f"uniform_ expects to return a [from, to) range, but found from={a} > to={b}")
    dt = _work_dtype(self)
    u = uniform_value(tuple(self.shape), dt, generator)
    return _fill(self, P.add(P.mul(u, number(b - a, dt)), number(a, dt)))


def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with normal numbers."""
    if std < 0:
        raise AutogradError(f"normal_ expects std >= 0.0, but found std {std}")
    dt = _work_dtype(self)
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
            high = 2 if d is bool_ else (1 << (24 if d is float32 else 53 if d is float64 else 8)) + 1 \
                if d.is_floating_point else min(dtypes.iinfo(d).max, (1 << 62))
    return _fill(self, _integers(int(low), int(high), tuple(self.shape), generator))


def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill with 0 and 1, 1 with probability ``p``."""
    u = uniform_value(tuple(self.shape), float32, generator)
    prob = P.cast(val(p), float32) if isinstance(p, Tensor) else number(p, float32)
    return _fill(self, P.cast(P.lt(u, prob), self.dtype))


def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with exponential numbers of rate ``lambd``."""
    dt = _work_dtype(self)
    return _fill(self, P.div(exponential_value(tuple(self.shape), dt, generator), number(lambd, dt)))


def log_normal_(self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with exp of normal numbers."""
    dt = _work_dtype(self)
    z = normal_value(tuple(self.shape), dt, generator)
    return _fill(self, P.exp(P.add(P.mul(z, number(std, dt)), number(mean, dt))))


def cauchy_(self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with Cauchy numbers."""
    dt = _work_dtype(self)
    u = uniform_value(tuple(self.shape), dt, generator)
    return _fill(self, P.add(P.mul(P.tan(P.mul(P.sub(u, 0.5), math.pi)), number(sigma, dt)), number(median, dt)))


def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fill with the number of trials up to the first success."""
    if not 0 < p < 1:
        raise AutogradError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    dt = _work_dtype(self)
    e = exponential_value(tuple(self.shape), dt, generator)
    return _fill(self, P.ceil(P.div(e, number(-math.log1p(-p), dt))))


# -------------------------------------------------------------------------------------------------------------- dropout
def _check_p(p: float) -> None:
    if p < 0.0 or p > 1.0:
        raise ArgumentError(f"dropout probability has to be between 0 and 1, but got {p}")


def _drop(input: Tensor, p: float, mask_shape: tuple[int, ...], inplace: bool) -> Tensor:
    v = val(input)
    if p == 1:
        out = P.mul(v, 0)
    else:
        mask = P.cast(P.ge(uniform_value(mask_shape, float32, None), number(p, float32)), v.aval.dtype)
        out = P.mul(P.mul(v, mask), number(1 / (1 - p), v.aval.dtype))
    if inplace:
        input._write(out)
        return input
    return wrap(out)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero elements with probability ``p`` and scale the rest by 1/(1-p) (Srivastava et al., JMLR 2014)."""
    _check_p(p)
    if not training or p == 0:
        return input
    v = val(input)
    if p == 1 or inplace:
        return _drop(input, p, v.aval.shape, inplace)
    slots = _slots(v.aval.size, None)
    return wrap(apply(OPS["dropout"], (v, *slots, number(p, float32))))


def _channels(input: Tensor, keep: int) -> tuple[int, ...]:
    sh = tuple(input.shape)
    return (*sh[:-keep], *([1] * keep)) if keep else sh


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Drop whole channels of (N, C, L) or (C, L)."""
    _check_p(p)
    return _drop(input, p, _channels(input, 1), inplace) if training and p else input


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Drop whole channels of (N, C, H, W) or (C, H, W)."""
    _check_p(p)
    return _drop(input, p, _channels(input, 2), inplace) if training and p else input


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Drop whole channels of (N, C, D, H, W)."""
    _check_p(p)
    return _drop(input, p, _channels(input, 3), inplace) if training and p else input


def _alpha(input: Tensor, p: float, mask_shape: tuple[int, ...], inplace: bool) -> Tensor:
    alpha = -1.7580993408473766
    v = val(input)
    keep = P.ge(uniform_value(mask_shape, float32, None), number(p, float32))
    a = ((1 - p) * (1 + p * alpha**2)) ** -0.5 if p < 1 else 0.0
    dropped = P.where(P.expand(keep, v.aval.shape), v, P.full_like(v, alpha))
    dt = v.aval.dtype
    out = P.add(P.mul(dropped, number(a, dt)), number(-a * alpha * p, dt))
    if inplace:
        input._write(out)
        return input
    return wrap(out)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout that keeps mean and variance for SELU (Klambauer et al., 2017)."""
    _check_p(p)
    return _alpha(input, p, tuple(input.shape), inplace) if training and p else input


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """:func:`alpha_dropout` of whole channels."""
    _check_p(p)
    return _alpha(input, p, _channels(input, input.ndim - 2), inplace) if training and p else input


for _f in (uniform_, normal_, random_, bernoulli_, exponential_, log_normal_, cauchy_, geometric_, bernoulli, multinomial):
    setattr(Tensor, _f.__name__, _f)
