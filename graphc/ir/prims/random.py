"""Random bits: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

Word ``i & 3`` of the block with counter ``offset + (i >> 2)`` and key ``seed`` belongs to flat element ``i``: a pure
function of seed, offset and index, the same whatever the layout, tiling, fusion or device.
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


def philox(seed: int, offset: int, n: int) -> np.ndarray:
    """The first ``n`` words (uint32) of the stream (seed, offset)."""
    blocks = -(-n // 4)
    counter = np.arange(blocks, dtype=np.uint64) + np.uint64(offset & 0xFFFFFFFFFFFFFFFF)
    c0, c1 = counter & _LOW, counter >> _S32
    c2 = c3 = np.zeros(blocks, np.uint64)
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = ((p1 >> _S32) ^ c1 ^ np.uint64(k0)), p1 & _LOW, ((p0 >> _S32) ^ c3 ^ np.uint64(k1)), p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], 1).astype(np.uint32).reshape(-1)[:n]


def _rng_infer(attrs: Any, seed: Aval, offset: Aval) -> Aval:
    return aval(attrs[0], uint32, CPU)


def _rng_np(attrs: Any, seed: np.ndarray, offset: np.ndarray) -> Any:
    shape = attrs[0]
    mask = 0xFFFFFFFFFFFFFFFF
    return philox(int(seed) & mask, int(offset) & mask, math.prod(shape)).reshape(shape)


prim("rng_bits", kind="random", attrs=("shape",), infer=_rng_infer, eval_np=_rng_np, loop="rng", vjp=None, saves=(),
     samples=lambda: [((np.int64(7), np.int64(3)), ((3, 5),))], doc="Uniform 32-bit words from (seed, offset).")
