"""Random bits: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

Word ``i & 3`` of the block with counter ``offset + (i >> 2)`` (low word, high word, 0, 0) and key ``seed`` (low, high)
belongs to flat element ``i``: a pure function of seed, offset and index, the same whatever the layout, tiling, fusion or
device.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...device import CPU
from ...dtypes import uint32
from ..node import Aval, aval
from ..optable import prim

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)
_MASK = 0xFFFFFFFFFFFFFFFF
_CHUNK = 8192  # blocks worked on together: six arrays of 64 KiB stay in the cache


def _rounds(c: list[np.ndarray], p: list[np.ndarray], seed: int) -> None:
    """Ten Philox rounds on the counter words ``c`` in place; ``p`` is scratch."""
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        for mult, x, y, product, key in ((_M0, c[0], c[3], p[0], k1), (_M1, c[2], c[1], p[1], k0)):
            np.multiply(x, mult, product)
            np.right_shift(product, _S32, x)
            np.bitwise_xor(x, y, x)  # high half, xor the odd word, xor the key ...
            np.bitwise_xor(x, np.uint64(key), x)
            np.bitwise_and(product, _LOW, y)  # ... and the low half
        c[0], c[1], c[2], c[3] = c[2], c[1], c[0], c[3]
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF


def philox(seed: int, offset: int, n: int) -> np.ndarray:
    """The first ``n`` words (uint32) of the stream (seed, offset); both are taken modulo 2^64."""
    seed, offset = seed & _MASK, offset & _MASK
    blocks = -(-n // 4)
    out = np.empty((blocks, 4), np.uint32)
    for at in range(0, blocks, _CHUNK):
        m = min(_CHUNK, blocks - at)
        counter = np.arange(m, dtype=np.uint64) + np.uint64((offset + at) & _MASK)
        c = [counter & _LOW, counter >> _S32, np.zeros(m, np.uint64), np.zeros(m, np.uint64)]
        _rounds(c, [counter, np.empty(m, np.uint64)], seed)
        for k in range(4):
            out[at:at + m, k] = c[k]
    return out.reshape(-1)[:n]


def philox_words(seed: int, offset: int, at: np.ndarray) -> np.ndarray:
    """The words (uint32) at positions ``at`` (any shape) of the stream (seed, offset)."""
    flat = np.asarray(at, np.int64).reshape(-1).astype(np.uint64)
    counter = (flat >> np.uint64(2)) + np.uint64(offset & _MASK)
    c = [counter & _LOW, counter >> _S32, np.zeros(flat.size, np.uint64), np.zeros(flat.size, np.uint64)]
    _rounds(c, [np.empty_like(flat), np.empty_like(flat)], seed & _MASK)
    words = np.choose((flat & np.uint64(3)).astype(np.intp), c)
    return words.astype(np.uint32).reshape(np.shape(at))


def _rng_infer(attrs: Any, seed: Aval, offset: Aval) -> Aval:
    return aval(attrs[0], uint32, CPU)


def _rng_np(attrs: Any, seed: np.ndarray, offset: np.ndarray) -> Any:
    shape = attrs[0]
    return philox(int(seed), int(offset), math.prod(shape)).reshape(shape)


prim("rng_bits", kind="random", attrs=("shape",), infer=_rng_infer, eval_np=_rng_np, loop="rng", vjp=None, saves=(),
     samples=lambda: [((np.int64(7), np.int64(3)), ((3, 5),)), ((np.int64(-1), np.int64(-2)), ((),))],
     doc="Uniform 32-bit words from (seed, offset).")
