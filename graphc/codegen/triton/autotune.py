"""``mode="max-autotune"``: block sizes by measurement, for the kernels where the model's order is only a guess.

Whoever builds a plan for a device may put a :class:`Tuner` in force (:func:`tuning`); the lowering then asks it wherever it
would take the model's first choice. The tuner prints the first few candidates of the model's order, has each one measured
and keeps the fastest. Choices are kept in the process and on disk, by the kernel's shape class, device and versions, so one
measurement decides for good and results repeat bit for bit afterwards. A candidate that does not compile or run is left out
without a word, and so is one whose results differ from the first one's; if none is left, the model's choice stands.

Sizes count by class: an eighth of a power of two up or down is the same class, as long as the choice is also usable there.
"""
from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from ...dtypes import dtype
from ...runtime.kernel_cache import KernelCache, default_directory, enabled
from ..loop_ir import Kernel
from ..native.contraction import Product
from . import tiling
from .compiler import Target, version
from .conv_problem import Problem
from .printer import Printed, print_kernel
from .tiling import Tile, Tiling

FORMAT = 1  # raise when kernels or what is stored change
TOP = 8  # candidates that are measured
CLOSE = 1.01  # times within this factor are equal: the model's order decides
MIN_POINTS = 1 << 16  # a loop-IR kernel over fewer points takes as long as its launch

class Memory(NamedTuple):
    """What the kernels of a choice touch: bytes by key, and the keys whose contents are no results (parts of sums)."""

    sizes: dict[Any, int]
    scratch: frozenset[Any] = frozenset()


Measure = Callable[[Sequence[Printed], Memory], float]  # seconds for kernels in their order; raises what goes wrong


class Tuner:
    """Choices for one device. ``stamp`` names the device and the driver; ``prepare`` is told all kernels of a choice at once,
    to compile them in parallel, and may fail. Safe to use from several threads."""

    def __init__(self, target: Target, measure: Measure, stamp: str, prepare: Callable[[Sequence[Printed]], Any] | None = None,
                 cache: KernelCache | None = None, top: int = TOP):
        self.target, self.measure, self.prepare, self.top = target, measure, prepare, top
        if cache is None and enabled():
            cache = KernelCache(default_directory(), f"tune {FORMAT} triton {version()} {target} {stamp}")
        self.cache = cache
        self.measured = self.reloaded = self.failed = 0  # counts, for tests and logs
        self._known: dict[str, str] = {}
        self._lock = threading.RLock()

    def pick(self, key: Hashable, candidates: Sequence[Any], make: Callable[[Any], Sequence[Printed]], memory: Memory) -> Any:
        """One of the candidates, which stand in the model's order; ``make`` prints the kernels of one. Candidates are told
        apart by their repr."""
        names = {repr(c): c for c in reversed(candidates)}
        with self._lock:
            text = repr(key)
            kept = self._known.get(text) or self._reload(text)
            if kept in names:
                self._known[text] = kept
                return names[kept]
            best = self._fastest(candidates[:self.top], make, memory)
            if best is None:
                return candidates[0]
            self._known[text] = repr(best[1])
            if self.cache is not None:
                found = {"choice": repr(best[1]), "seconds": best[0], "candidates": min(len(candidates), self.top)}
                self.cache.put(self.cache.key(text), json.dumps(found).encode())
            return best[1]

    def _reload(self, text: str) -> str:
        data = self.cache.get(self.cache.key(text)) if self.cache is not None else None
        try:
            choice = json.loads(data)["choice"] if data else ""
        except (ValueError, KeyError, TypeError):
            return ""
        self.reloaded += bool(choice)
        return choice if isinstance(choice, str) else ""

    def _fastest(self, candidates: Sequence[Any], make: Callable[[Any], Sequence[Printed]],
                 memory: Memory) -> tuple[float, Any] | None:
        """(seconds, candidate), or None if none runs."""
        if len(candidates) == 1:
            return 0.0, candidates[0]
        made = []
        for c in candidates:
            try:
                made.append((c, make(c)))
            except Exception:
                self.failed += 1
        if self.prepare is not None:
            try:
                self.prepare([p for _, printed in made for p in printed])
            except Exception:  # said again, and counted, where its candidate is measured
                pass
        best: tuple[float, Any] | None = None
        for c, printed in made:
            try:
                seconds = float(self.measure(printed, memory))
            except Exception:
                self.failed += 1
                continue
            self.measured += 1
            if seconds > 0 and math.isfinite(seconds) and (best is None or seconds * CLOSE < best[0]):
                best = seconds, c
        return best


# ------------------------------------------------------------------------------------------------------- what is in force
_State = threading.local()


def current() -> Tuner | None:
    """The tuner in force on this thread."""
    return getattr(_State, "tuner", None)


@contextmanager
def tuning(tuner: Tuner | None) -> Iterator[None]:
    """Let plans built inside be measured; None: let the model choose."""
    before = current()
    _State.tuner = tuner
    try:
        yield
    finally:
        _State.tuner = before


def wanted() -> bool:
    """Whether the program asked for measured choices: inside :func:`wanting`."""
    return bool(getattr(_State, "wanted", 0))


@contextmanager
def wanting() -> Iterator[None]:
    """What ``graphc.compile(mode="max-autotune")`` does around a call: plans for a device built inside are tuned."""
    _State.wanted = getattr(_State, "wanted", 0) + 1
    try:
        yield
    finally:
        _State.wanted -= 1


# ------------------------------------------------------------------------------------------------------- shape classes
def size_class(n: int) -> int:
    """A size rounded up to three leading bits."""
    step = 1 << max(0, n.bit_length() - 3)
    return -(-n // step) * step


def text_class(k: Kernel | None) -> str:
    """A digest of what a kernel computes, without sizes and places."""
    if k is None:
        return ""
    stmts = [(s.op, s.args, s.dtype.name, s.attr if s.op in ("reduce", "argreduce") else None) for s in k.stmts]
    buffers = [b.dtype.name for b in k.buffers]
    return hashlib.sha256(repr((stmts, buffers, [st.value for st in k.stores], k.kept)).encode()).hexdigest()[:16]


def product_class(p: Product, dt: dtype, target: Target, offsets: tuple[int, int], epilogue: Kernel | None, keep: bool,
                  descriptors: bool) -> Hashable:
    """What decides which tile of a product is fastest."""
    access = (descriptors, tiling.is_narrow(p, dt, offsets), tiling.has_descriptors(p, dt, target, offsets))
    return ("product", dt.name, size_class(math.prod(p.batch)), size_class(p.m), size_class(p.n), size_class(p.k),
            p.a[0] == 1, p.b[0] == 1, access, keep, text_class(epilogue))


# --------------------------------------------------------------------------------------------------------- the questions
def product_tile(p: Product, dt: dtype, target: Target, offsets: tuple[int, int], epilogue: Kernel | None, keep: bool,
                 keys: tuple[Any, Any, Any], partial: Any, descriptors: bool = True) -> Tile:
    """The tile of a product: the model's first, or the fastest if a tuner is in force. ``descriptors``: whether operands keep
    their alignment, which those that move from iteration to iteration need not."""
    from . import matmul

    tiles = [t for t in tiling.ranked(p, dt, target, offsets, epilogue=epilogue) if descriptors or not t.tma]
    tuner = current()
    if tuner is None or tuner.target != target or len(tiles) == 1:
        return tiles[0]
    size = dt.itemsize
    count = math.prod(p.batch) * p.m * p.n
    sizes: dict[Any, int] = {keys[2]: count * size, partial: max(t.parts for t in tiles) * count * max(4, size)}
    for key, offset, batch, strides, (rows, columns) in ((keys[0], offsets[0], p.batch_a, p.a, (p.m, p.k)),
                                                         (keys[1], offsets[1], p.batch_b, p.b, (p.k, p.n))):
        last = offset + sum((n - 1) * max(s, 0) for n, s in zip((*p.batch, rows, columns), (*batch, *strides)))
        sizes[key] = max(sizes.get(key, 0), (last + 1) * size)
    if epilogue is not None:
        for b in epilogue.buffers:
            sizes[b.slot] = max(sizes.get(b.slot, 0), b.size * b.dtype.itemsize)

    def make(tile: Tile) -> list[Printed]:
        return matmul.print_product(p, dt, keys, target, offsets, epilogue, keep, tile, partial)

    return tuner.pick(product_class(p, dt, target, offsets, epilogue, keep, descriptors), tiles, make,
                      Memory(sizes, frozenset((partial,))))


def conv_tile(c: Problem, dt: dtype, target: Target, epilogue: Kernel | None, keep: bool, keys: tuple[Any, Any, Any],
              partial: Any, operands: tuple[int, int]) -> Tile:
    """The tile of a convolution, as :func:`product_tile`; ``operands``: bytes of its two operands."""
    from . import conv

    tuner = current()
    if tuner is None or tuner.target != target:
        return conv.choose(c, dt, target, epilogue)
    tiles = conv.tiles(c, dt, target, epilogue)
    result = c.product.m * c.product.n * c.groups if c.kind == "conv_weight_grad_last" else c.levels[0][1] * c.rows
    sizes: dict[Any, int] = {keys[2]: result * dt.itemsize, partial: max(t.parts for t in tiles) * result * max(4, dt.itemsize)}
    for key, nbytes in zip(keys, operands):
        sizes[key] = max(sizes.get(key, 0), nbytes)
    if epilogue is not None:
        for b in epilogue.buffers:
            sizes[b.slot] = max(sizes.get(b.slot, 0), b.size * b.dtype.itemsize)
    geometry = (c.space, c.out, c.window, c.stride, c.pad, c.dilation)
    key = ("conv", c.kind, dt.name, size_class(c.images), c.groups, c.channels, c.outputs, geometry, keep, text_class(epilogue))
    return tuner.pick(key, tiles, lambda t: conv.print_conv(c, dt, keys, t, epilogue, keep, partial),
                      Memory(sizes, frozenset((partial,))))


def loop_tiling(k: Kernel) -> Tiling | None:
    """The tiling of a loop-IR kernel if a tuner is in force and the kernel is worth it; None: the model's."""
    tuner = current()
    if tuner is None or math.prod(k.extents) < MIN_POINTS:
        return None
    tilings = tiling.variants(k)
    if len(tilings) == 1:
        return None
    extents = tuple([size_class(n) for n in k.extents])
    accesses = [(a.buffer, [c for _, c in a.ix.terms][:8]) for a in tiling.accesses(k)]
    sizes = {b.slot: b.size * b.dtype.itemsize for b in k.buffers}
    key = ("loop", extents, text_class(k), hashlib.sha256(repr(accesses).encode()).hexdigest()[:16])
    return tuner.pick(key, tilings, lambda t: [print_kernel(k, t)], Memory(sizes))


__all__ = ["Measure", "Memory", "Tuner", "conv_tile", "current", "loop_tiling", "product_tile", "tuning", "wanted", "wanting"]
