"""The counter-based generator and random Values made from it.

Seed and offset enter the program as run-time scalars, so drawing never recompiles; element ``i`` depends only on (seed,
offset, i): the same numbers eager, compiled, on any device.
"""
from __future__ import annotations

import contextlib
import math
import os
import struct
from operator import index
from typing import Any

import numpy as np

from .. import dtypes
from ..device import require
from ..dtypes import dtype as DType
from ..dtypes import float32, float64, int64
from ..errors import AutogradError
from ..ir import build as P
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply, scalar
from ..tensor import Tensor, from_array
from ._common import number


class Generator:
    """A stream of random numbers: 16 bytes of state (seed, offset)."""

    def __init__(self, device: Any = "cpu"):
        self.device = require(device)
        self._seed, self._offset = 67280421310721, 0

    def manual_seed(self, seed: int) -> Generator:
        """Restart the stream. Negative seeds stand for their 64-bit pattern."""
        seed = int(seed)
        if not -(1 << 63) <= seed < 1 << 64:
            raise ValueError(f"Overflow when unpacking long long: the seed must fit 64 bits, got {seed}")
        self._seed, self._offset = seed & 0xFFFFFFFFFFFFFFFF, 0
        return self

    def seed(self) -> int:
        """Restart from the operating system's randomness; returns the seed."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little") >> 1)
        return self._seed

    def initial_seed(self) -> int:
        """The seed the stream started from."""
        return self._seed

    def get_state(self) -> Tensor:
        """uint8 tensor of 16 bytes."""
        return from_array(np.frombuffer(struct.pack("<QQ", self._seed, self._offset), np.uint8).copy())

    def set_state(self, new_state: Tensor) -> Generator:
        """Continue where :meth:`get_state` was called."""
        if not isinstance(new_state, Tensor) or new_state.dtype is not dtypes.uint8:
            raise TypeError("RNG state must be a torch.ByteTensor")
        if new_state.numel() != 16:
            raise AutogradError(f"RNG state is wrong size: expected 16 bytes, got {new_state.numel()}")
        self._seed, self._offset = struct.unpack("<QQ", bytes(new_state.tolist()))
        return self

    def clone_state(self) -> Generator:
        """An independent generator at the same place."""
        g = Generator(self.device)
        g._seed, g._offset = self._seed, self._offset
        return g

    def reserve(self, words: int) -> int:
        """Offset of ``words`` fresh words."""
        at = self._offset
        self._offset = (at + -(-index(words) // 4)) & 0xFFFFFFFFFFFFFFFF
        return at

    def __repr__(self) -> str:
        return f"<Generator on {self.device}: seed {self._seed}, offset {self._offset}>"


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the default generator."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seed the default generator from the operating system's randomness."""
    return default_generator.seed()


def initial_seed() -> int:
    """Seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """State of the default generator, uint8."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Set the state of the default generator."""
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


# ----------------------------------------------------------------------------------------------------- as Values
def rng_slots(words: int, gen: Generator | None) -> tuple[Value, Value]:
    g = gen or default_generator
    at = g.reserve(words)
    return scalar(g._seed, int64), scalar(at, int64)


def bits(shape: tuple[int, ...], gen: Generator | None) -> Value:
    """uint32 words."""
    return apply(OPS["rng_bits"], rng_slots(math.prod(shape), gen), (shape,))


def word_pairs(shape: tuple[int, ...], gen: Generator | None) -> tuple[Value, Value]:
    """Words 2i and 2i+1 for element i: the first n elements do not depend on how many there are."""
    w = bits((*shape, 2), gen)
    n = len(shape)
    return P.reshape(P.narrow(w, n, 0, 1), shape), P.reshape(P.narrow(w, n, 1, 1), shape)


def work_dtype(dt: DType) -> DType:
    """The dtype numbers of dtype ``dt`` are made in."""
    return float64 if dt is float64 else float32


def uniform_value(shape: tuple[int, ...], dt: DType, gen: Generator | None) -> Value:
    """Uniform in [0, 1): the upper 24 bits of a word (float64: 53 of two)."""
    if dt is float64:
        a, b = word_pairs(shape, gen)
        hi, lo = P.cast(P.shr(a, 5), float64), P.cast(P.shr(b, 6), float64)
        return P.mul(P.add(P.mul(hi, 67108864.0), lo), 1 / 9007199254740992.0)
    u = P.mul(P.cast(P.shr(bits(shape, gen), 8), float32), 2.0**-24)
    if dt is float32 or not dt.is_floating_point:
        return u
    keep = 11 if dt is dtypes.float16 else 8  # rounding to 16 bits could give 1: cut to the bits it holds
    return P.cast(P.mul(P.floor(P.mul(u, 2.0**keep)), 2.0**-keep), dt)


def _open_unit(words: Value, dt: DType) -> Value:
    """Words as numbers of (0, 1], down to 2^-32, for logarithms."""
    return P.mul(P.add(P.cast(words, dt), 1.0), 2.0**-32)


def normal_value(shape: tuple[int, ...], dt: DType, gen: Generator | None) -> Value:
    """Standard normal by Box-Muller (Box and Muller 1958); element i uses words 2i and 2i+1, |z| < 6.67."""
    a, b = word_pairs(shape, gen)
    work = work_dtype(dt)
    radius = P.sqrt(P.mul(P.log(_open_unit(a, work)), -2.0))
    turn = P.mul(P.cast(b, work), 2.0**-32) if work is float64 else P.mul(P.cast(P.shr(b, 8), work), 2.0**-24)
    return P.cast(P.mul(radius, P.cos(P.mul(turn, 2 * math.pi))), dt)


def exponential_value(shape: tuple[int, ...], dt: DType, gen: Generator | None) -> Value:
    """Exponential of rate 1, never zero: its logarithm must be finite."""
    if dt is float64:
        e = P.neg(P.log(P.sub(1.0, uniform_value(shape, dt, gen))))
        return P.maximum(e, 2.0**-54)
    e = P.neg(P.log(_open_unit(bits(shape, gen), float32)))
    return P.cast(P.maximum(e, 2.0**-25 if dt is not dtypes.float16 else 2.0**-24), dt)


def gumbel_value(shape: tuple[int, ...], dt: DType, gen: Generator | None) -> Value:
    """Standard Gumbel: minus the logarithm of exponentials."""
    return P.cast(P.neg(P.log(exponential_value(shape, work_dtype(dt), gen))), dt)


def trunc_normal_value(shape: tuple[int, ...], dt: DType, lo: float, hi: float, gen: Generator | None) -> Value:
    """Standard normal restricted to [lo, hi], by the inverse of the distribution function."""
    work = work_dtype(dt)
    a, b = math.erf(lo / math.sqrt(2)), math.erf(hi / math.sqrt(2))
    u = P.add(P.mul(uniform_value(shape, work, gen), number(b - a, work)), number(a, work))
    z = P.mul(P.erfinv(u), math.sqrt(2))
    return P.cast(P.minimum(P.maximum(z, number(lo, work)), number(hi, work)), dt)
