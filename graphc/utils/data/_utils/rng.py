"""Random numbers of the loader and the image transforms, drawn from graphc's generators.

They are the very numbers ``ops.rand``, ``ops.randint`` and ``ops.randperm`` give (tests compare them), worked out on the
host: a single number needs no recording, and does not make the program that is being recorded run.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .... import ops
from ....dtypes import float64
from ....ir.prims.random import philox
from ....ops.random import Generator, default_generator, manual_seed
from ....tensor import Tensor

_LOW = 0xFFFFFFFF


def _words(generator: Any) -> tuple[int, int]:
    """The first two 32-bit words of the generator's next block: Philox4x32-10 in Python integers."""
    g = default_generator if generator is None else generator
    offset, key = g.reserve(2), g._seed
    c0, c1, c2, c3 = offset & _LOW, offset >> 32, 0, 0
    k0, k1 = key & _LOW, key >> 32
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _LOW, (p0 >> 32) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return c0, c1


def unit(generator: Any = None) -> float:
    """``ops.rand(1)``: a number of [0, 1) with 24 random bits."""
    return (_words(generator)[0] >> 8) * 2.0**-24


def integer(low: int, high: int, generator: Any = None) -> int:
    """``ops.randint(low, high, (1,))``: an integer of [low, high)."""
    span = high - low
    if span <= 0:
        raise ValueError(f"no integer lies in [{low}, {high})")
    first, second = _words(generator)
    if span < 1 << 31:
        return low + (first * span >> 32)
    if span <= 1 << 32:
        return low + first % span
    return low + ((first & 0x7FFFFFFF) << 32 | second) % span


def permutation(n: int, generator: Any = None) -> list[int]:
    """``ops.randperm(n)``: range(n) in random order."""
    g = default_generator if generator is None else generator
    words = philox(g._seed, g.reserve(2 * n), 2 * n).reshape(n, 2).astype(np.int64)
    return np.argsort(words[:, 0] >> 1 << 32 | words[:, 1], kind="stable").tolist()


def integers(high: int, n: int, generator: Any = None) -> list[int]:
    """``ops.randint(0, high, (n,))`` for high < 2^31: ``n`` integers of range(high)."""
    if not 0 < high < 1 << 31:
        return ops.randint(0, high, (n,), generator=generator).tolist()
    g = default_generator if generator is None else generator
    return (philox(g._seed, g.reserve(n), n).astype(np.int64) * high >> 32).tolist()


def seed(generator: Any = None) -> int:
    """A fresh 63-bit seed."""
    return integer(0, (1 << 63) - 1, generator)


def generator(value: int) -> Generator:
    """A generator seeded with ``value``."""
    return Generator().manual_seed(value)


def seed_process(value: int) -> None:
    """Seed this process's default generator."""
    manual_seed(value)


def multinomial(weights: Tensor, n: int, replacement: bool, generator: Any) -> list[int]:
    """``n`` indices drawn with these weights."""
    if not bool(((weights >= 0) & (weights < float("inf"))).all()):
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    possible = int((weights > 0).sum().item())
    if possible == 0 or (not replacement and possible < n):
        raise RuntimeError(f"invalid multinomial distribution: {n} samples (with replacement={replacement}) need more than the "
                           f"{possible} non-zero weights")
    return ops.multinomial(weights, n, replacement, generator=generator).tolist()


def as_float64(x: Any) -> Tensor:
    """``as_tensor(x, dtype=float64)``."""
    return ops.as_tensor(x, dtype=float64)
