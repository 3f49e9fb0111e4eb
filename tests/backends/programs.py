"""Random programs: graphs of primitives grown node by node from a seed, evaluated while they grow.

Every value knows how exact it is. ``Exact(top, bits)`` means: a multiple of 2^-bits of magnitude at most ``top``, so a sum or
product that still fits the mantissa is exact in any order; ``FIXED`` means every back end must give the same bits but
arithmetic on it rounds; None means rounded. Jumps (comparisons, floor, casts to integers, argmax) are only taken of exact
values, so that no back end's rounding can send an element the other way.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from graphc import dtypes
from graphc.device import CPU
from graphc.dtypes import bool_, dtype, float16, float32, float64, int32, int64, uint8, uint32
from graphc.ir.interpret import run_node
from graphc.ir.node import Graph, GraphBuilder, aval
from graphc.ir.optable import OPS
from graphc.ir.recorder import LEAF, SCALAR

FLOATS = (float32, float64, float16, dtypes.bfloat16)
INTS = (int64, int32, uint8, dtypes.int8, dtypes.int16, uint32)
MANTISSA = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
SIZES = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 70, 96, 129, 200)
LIMIT = 6000  # elements of a value


class Exact(NamedTuple):
    """A multiple of 2^-bits, at most ``top`` in magnitude (infinities and NaN apart)."""

    top: float
    bits: int


FIXED = Exact(math.inf, 0)


def fits(e: Exact | None, dt: dtype) -> Exact | None:
    """``e`` if every such value is represented exactly in ``dt``, else None."""
    return e if e is not None and e.top * 2.0 ** e.bits <= 2.0 ** MANTISSA[dt.name] and e.bits <= 12 else None


class Program(NamedTuple):
    """A graph, its inputs, the slots that must come out bit for bit."""

    graph: Graph
    arrays: list[Any]
    exact: frozenset[int]


class Grower:
    """State of growing one program."""

    def __init__(self, seed: int, dims: tuple[int, ...] | None = None, dts: tuple[dtype, ...] | None = None):
        self.rng = r = np.random.default_rng(seed)
        self.b = GraphBuilder()
        self.values: list[np.ndarray] = []
        self.exact: list[Exact | None] = []
        self.arrays: list[Any] = []
        self.pool: list[int] = []  # slots new nodes may read
        self.dims = dims or self.draw_dims()
        some = [FLOATS[int(r.choice(4, p=(.55, .2, .125, .125)))] for _ in range(int(r.integers(1, 3)))]
        ints = [INTS[int(r.integers(len(INTS)))]] if r.random() < .6 else []
        self.dts = dts or (*dict.fromkeys(some + ints),)

    def draw_dims(self) -> tuple[int, ...]:
        """Axis sizes the program's values are made of."""
        r = self.rng
        n = int(r.integers(1, 5))
        while True:
            dims = tuple([int(r.choice(SIZES)) for _ in range(n)])
            if math.prod(dims) <= LIMIT:
                return dims

    # ------------------------------------------------------------------------------------------------------ small pieces
    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, xs: Any) -> Any:
        return xs[int(self.rng.integers(len(xs)))]

    def av(self, s: int) -> Any:
        return self.b.avals[s]

    def shape(self, s: int) -> tuple[int, ...]:
        return self.b.avals[s].shape

    def dt(self, s: int) -> dtype:
        return self.b.avals[s].dtype

    def is_exact(self, s: int) -> bool:
        return not self.dt(s).is_floating_point or self.exact[s] is not None

    def emit(self, name: str, ins: tuple[int, ...], attrs: Any = (), exact: Exact | None = FIXED) -> int:
        """Append a node and evaluate it. ``exact`` describes a float result."""
        s = self.b.emit(OPS[name], ins, attrs)
        with np.errstate(all="ignore"):
            out = run_node(self.b.nodes[-1], [self.values[i] for i in ins])
        for o in out:
            self.values.append(o)
            self.exact.append(exact)
        self.pool.append(s)
        return s

    def leaf(self, shape: tuple[int, ...], dt: dtype, array: np.ndarray | None = None, exact: Exact | None = None) -> int:
        """A new input; only before the first node."""
        if array is None:
            array, exact = self.draw(shape, dt)
        av = aval(shape, dt, CPU)
        s = self.b.add(LEAF, (), (av,), (av,))
        self.values.append(array)
        self.arrays.append(array)
        self.exact.append(exact)
        self.pool.append(s)
        return s

    def scalar(self, number: Any, dt: dtype, exact: Exact | None) -> int:
        """A run-time number."""
        av = aval((), dt, CPU)
        s = self.b.add(SCALAR, (), (av,), (av,))
        self.values.append(np.asarray(number, dt.np))
        self.arrays.append(np.asarray(number, dt.np))
        self.exact.append(exact)
        self.pool.append(s)
        return s

    def draw(self, shape: tuple[int, ...], dt: dtype) -> tuple[np.ndarray, Exact | None]:
        """Data of a dtype: small multiples of powers of two, general numbers, or special values."""
        r = self.rng
        if dt is bool_:
            return r.random(shape) < self.pick((.1, .5, .9)), None
        if dt.category == 1:
            lo, hi = np.iinfo(dt.np).min, np.iinfo(dt.np).max
            if self.chance(.6):
                lo, hi = max(lo, -9), 12
            a = r.integers(lo, hi, shape, dtype=dt.np, endpoint=True)
            if a.size and self.chance(.3):
                flat = a.reshape(-1)
                flat[r.integers(0, a.size, 3)] = r.choice(np.array([np.iinfo(dt.np).min, np.iinfo(dt.np).max, 0], dt.np), 3)
            return np.asarray(a, dt.np), None
        if self.chance(.6):
            a, e = r.integers(-16, 17, shape) / 8.0, Exact(2.0, 3)
        else:
            a, e = np.asarray(r.uniform(-2, 2, shape)), FIXED
        a = np.array(a).astype(dt.np)
        if a.size and self.chance(.15):
            flat = a.reshape(-1)
            with np.errstate(all="ignore"):
                specials = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-40, 1e37]).astype(dt.np)
            flat[r.integers(0, a.size, 4)] = specials[r.integers(0, len(specials), 4)]
            e = FIXED
        return a, e

    def const(self, number: Any, dt: dtype) -> int:
        a = np.asarray(number).astype(dt.np)
        exact = FIXED
        if dt.is_floating_point and np.isfinite(float(a)) and float(a) * 8 == int(float(a) * 8):
            exact = Exact(abs(float(a)), 3)
        return self.emit("const", (), (a.tobytes(), dt), exact)

    def of(self, test: Callable[[int], bool]) -> int | None:
        """A random value (recent ones preferred) that passes ``test``."""
        good = [s for s in self.pool if test(s)]
        if not good:
            return None
        return good[-1 - min(len(good) - 1, int(self.rng.exponential(2.5)))] if self.chance(.7) else self.pick(good)

    def cast(self, s: int, dt: dtype) -> int | None:
        """``s`` as ``dt``; None where that would jump."""
        src = self.dt(s)
        if src is dt:
            return s
        if not dt.is_floating_point and not self.is_exact(s):
            return None
        e: Exact | None = FIXED
        if src.is_floating_point and dt.is_floating_point:
            e = None if self.exact[s] is None else fits(self.exact[s], dt) or FIXED
        elif src is bool_ or src in (uint8, dtypes.int8):
            e = fits(Exact(255.0 if src is not bool_ else 1.0, 0), dt) or FIXED if dt.is_floating_point else FIXED
        return self.emit("cast", (s,), (dt,), e)

    def near(self, s: int, dt: dtype | None = None) -> int | None:
        """A value that broadcasts with ``s`` and has its dtype (or ``dt``)."""
        dt = dt or self.dt(s)

        def broadcasts(x: int) -> bool:
            try:
                return math.prod(np.broadcast_shapes(self.shape(s), self.shape(x))) <= LIMIT
            except ValueError:
                return False

        x = self.of(lambda v: self.dt(v) is dt and broadcasts(v))
        if x is None or self.chance(.15):
            y = self.of(broadcasts)
            x = self.cast(y, dt) if y is not None else x
        if x is None or self.chance(.05):
            x = self.const(self.pick((0.5, 1, 2, 3)), dt)
        return x

    def octaves(self, s: int, axes: tuple[int, ...]) -> float:
        """How far partial products of rows may stray from 1, in powers of two: beyond range the order would matter."""
        with np.errstate(all="ignore"):
            v = np.abs(np.log2(np.abs(self.values[s].astype(np.float64))))
        return float(np.max(np.sum(np.where(np.isfinite(v), v, 0), axes), initial=0.0))

    def magnitude(self, s: int) -> float:
        with np.errstate(all="ignore"):
            v = np.abs(self.values[s].astype(np.float64))
        v = v[np.isfinite(v)]
        return float(v.max()) if v.size else 0.0


# ----------------------------------------------------------------------------------------------------------------- moves
def unary(g: Grower) -> None:
    """An elementary function (rounded), or one without rounding."""
    s = g.of(lambda v: True)
    assert s is not None
    dt, e = g.dt(s), g.exact[s]
    if not dt.is_floating_point:
        if dt is bool_:
            g.emit(g.pick(("bit_not", "logical_not")), (s,))
        else:
            g.emit(g.pick(("neg", "abs", "sign", "bit_not", "logical_not", "isnan", "floor")), (s,))
        return
    if e is not None and g.chance(.3):
        name = g.pick(("floor", "ceil", "round", "trunc", "sign", "isnan", "isinf", "logical_not"))
        top = e.top + 1 if name != "sign" else 1.0
        g.emit(name, (s,), (), fits(Exact(top, 0), dt) or FIXED)
        return
    if g.chance(.25):
        g.emit(g.pick(("neg", "abs")), (s,), (), e)
        return
    m = g.magnitude(s)
    names = ["tanh", "sin", "cos", "erf", "atan", "asinh", "rsqrt", "sqrt", "log1p", "erfc"]
    if m < 10:
        names += ["exp", "expm1", "exp2", "sinh", "cosh", "reciprocal", "exp", "log", "log2"]
    if m < 1:
        names += ["asin", "acos", "atanh", "tan"]
    if m > 100:
        names = ["tanh", "atan", "asinh", "erf"]
    if name_needs_small(names[0]) and m > 1e4:
        names = ["atan"]
    g.emit(g.pick(names), (s,), (), None)


def name_needs_small(name: str) -> bool:
    """sin and cos of huge arguments amplify the noise beyond use."""
    return name in ("sin", "cos", "tan")


def binary(g: Grower) -> None:
    """Arithmetic on two values of one dtype."""
    s = g.of(lambda v: True)
    assert s is not None
    x = g.near(s)
    if x is None:
        return
    if g.chance(.5):
        s, x = x, s
    dt, a, b = g.dt(s), g.exact[s], g.exact[x]
    if dt is bool_:
        g.emit(g.pick(("bit_and", "bit_or", "bit_xor", "add", "mul", "maximum", "minimum")), (s, x))
        return
    if not dt.is_floating_point:
        g.emit(g.pick(("add", "sub", "mul", "bit_and", "bit_or", "bit_xor", "maximum", "minimum", "shl", "shr")), (s, x))
        return
    name = g.pick(("add", "add", "sub", "mul", "mul", "div", "maximum", "minimum", "atan2"))
    if name == "atan2" and (a is None or b is None):
        name = "maximum"  # rounded to either side of the negative axis, angles differ by a whole turn
    if name in ("maximum", "minimum"):
        e = None if a is None or b is None else Exact(max(a.top, b.top), max(a.bits, b.bits))
    elif a is None or b is None or a.top == math.inf or b.top == math.inf or name not in ("add", "sub", "mul"):
        e = None
    else:
        e = Exact(a.top * b.top, a.bits + b.bits) if name == "mul" else Exact(a.top + b.top, max(a.bits, b.bits))
        e = fits(e, dt)
    g.emit(name, (s, x), (), e)


def compare(g: Grower) -> None:
    """A comparison of exact values."""
    s = g.of(g.is_exact)
    x = g.near(s) if s is not None else None
    if x is not None and s is not None and g.is_exact(x):
        g.emit(g.pick(("eq", "ne", "lt", "le")), (s, x))


def select(g: Grower) -> None:
    """where on a bool."""
    c = g.of(lambda v: g.dt(v) is bool_)
    if c is None:
        compare(g)
        return
    a = g.near(c, g.pick((*g.dts, g.dt(g.pick(g.pool)))))
    b = g.near(a) if a is not None else None
    if a is None or b is None:
        return
    try:
        if math.prod(np.broadcast_shapes(g.shape(c), g.shape(a), g.shape(b))) > LIMIT:
            return
    except ValueError:
        return
    x, y = g.exact[a], g.exact[b]
    g.emit("where", (c, a, b), (), None if x is None or y is None else Exact(max(x.top, y.top), max(x.bits, y.bits)))


def convert(g: Grower) -> None:
    """A cast to some dtype."""
    s = g.of(lambda v: True)
    assert s is not None
    g.cast(s, g.pick((*g.dts, *g.dts, bool_, float32, int64, g.pick(FLOATS), g.pick(INTS))))


def reduction(g: Grower) -> None:
    """A monoid over some axes, often broadcast back."""
    s = g.of(lambda v: len(g.shape(v)) > 0)
    if s is None:
        return
    shape, dt, e = g.shape(s), g.dt(s), g.exact[s]
    axes = tuple([i for i in range(len(shape)) if g.chance(.5)]) or (int(g.rng.integers(len(shape))),)
    if g.chance(.3):
        axes = (len(shape) - 1,)
    width = math.prod([shape[a] for a in axes])
    kinds = ["add", "add", "max", "min"]
    if g.is_exact(s):
        kinds += ["any", "all"]
    if not dt.is_floating_point or g.octaves(s, axes) < 100:
        kinds.append("mul")
    kind = g.pick(kinds)
    out: Exact | None = FIXED
    if dt.is_floating_point and kind == "add":
        out = fits(Exact(e.top * width, e.bits), dt) if e is not None and e.top < math.inf else None
    elif dt.is_floating_point and kind == "mul":
        out = None
    elif kind in ("max", "min"):
        out = e
    r = g.emit("reduce", (s,), (kind, axes), out)
    if g.chance(.6):
        k = g.emit("reshape", (r,), (tuple([1 if i in axes else n for i, n in enumerate(shape)]),), out)
        if g.chance(.4):
            k = g.emit("expand", (k,), (shape,), out)
        if g.dt(k) is dt and dt is not bool_ and g.chance(.6):
            x = g.exact[k]
            both = FIXED if not dt.is_floating_point else None if e is None or x is None or math.inf in (x.top, e.top) else fits(
                Exact(x.top + e.top, max(x.bits, e.bits)), dt)
            g.emit("sub", (s, k), (), both)


def arg(g: Grower) -> None:
    """argmax or argmin of exact values, sometimes used as an index."""
    s = g.of(lambda v: len(g.shape(v)) > 0 and g.is_exact(v))
    if s is None:
        return
    axis = int(g.rng.integers(len(g.shape(s))))
    i = g.emit("argreduce", (s,), (g.pick(("max", "min")), axis))
    if g.chance(.4):
        shape = g.shape(s)
        i = g.emit("reshape", (i,), (tuple([1 if d == axis else n for d, n in enumerate(shape)]),))
        g.emit("gather", (s, i), (axis,), g.exact[s])


def movement(g: Grower) -> None:
    """One movement op (or slice_set) with random attributes."""
    s = g.of(lambda v: len(g.shape(v)) > 0)
    if s is None:
        return
    MOVES[int(g.rng.integers(len(MOVES)))](g, s)


def _permute(g: Grower, s: int) -> None:
    g.emit("permute", (s,), (tuple(map(int, g.rng.permutation(len(g.shape(s))))),), g.exact[s])


def _bounds(g: Grower, n: int) -> tuple[int, int, int]:
    """start, stop, step of a slice with at least one element."""
    if g.chance(.35):
        return (0, n, 1) if g.chance(.5) else (n - 1, -1, -1)
    step = int(g.pick((1, 1, 1, 2, 3, -1, -2)))
    a = int(g.rng.integers(n))
    b = int(g.rng.integers(a + 1, n + 1)) if step > 0 else int(g.rng.integers(-1, a))
    return a, b, step


def _slice(g: Grower, s: int) -> None:
    cut = [_bounds(g, n) for n in g.shape(s)]
    g.emit("slice", (s,), (tuple([c[0] for c in cut]), tuple([c[1] for c in cut]), tuple([c[2] for c in cut])), g.exact[s])


def _pad(g: Grower, s: int) -> None:
    shape, dt = g.shape(s), g.dt(s)
    lo = tuple([int(g.pick((0, 0, 1, 3))) for _ in shape])
    hi = tuple([int(g.pick((0, 0, 1, 4))) for _ in shape])
    if math.prod([n + a + b for n, a, b in zip(shape, lo, hi)]) > LIMIT:
        return
    v = g.of(lambda x: g.shape(x) == () and g.dt(x) is dt)
    if v is None or g.chance(.5):
        v = g.const(g.pick((0, 1, 2)), dt)
    a, b = g.exact[s], g.exact[v]
    g.emit("pad", (s, v), (lo, hi), None if a is None or b is None else Exact(max(a.top, b.top), max(a.bits, b.bits)))


def _expand(g: Grower, s: int) -> None:
    shape = g.shape(s)
    if g.chance(.6) and 1 in shape:
        new = tuple([int(g.pick(g.dims)) if n == 1 and g.chance(.7) else n for n in shape])
    else:
        new = (int(g.pick((1, 2, 3, 5, g.dims[0]))), *shape)
    if len(new) <= 6 and math.prod(new) <= LIMIT:
        g.emit("expand", (s,), (new,), g.exact[s])


def _reshape(g: Grower, s: int) -> None:
    shape = list(g.shape(s))
    for _ in range(int(g.rng.integers(1, 4))):
        i = int(g.rng.integers(len(shape))) if shape else 0
        way = g.rng.random()
        if way < .4 and len(shape) > 1 and i + 1 < len(shape):
            shape[i:i + 2] = [shape[i] * shape[i + 1]]
        elif way < .75 and shape and shape[i] > 1:
            d = int(g.pick([d for d in range(1, shape[i] + 1) if shape[i] % d == 0]))
            shape[i:i + 1] = [d, shape[i] // d]
        elif len(shape) < 5:
            shape.insert(i, 1)
    if len(shape) <= 6 and tuple(shape) != g.shape(s):
        g.emit("reshape", (s,), (tuple(shape),), g.exact[s])


def _concat(g: Grower, s: int) -> None:
    shape, dt = g.shape(s), g.dt(s)
    axis = int(g.rng.integers(len(shape)))
    parts, e = [s], g.exact[s]
    for _ in range(int(g.rng.integers(1, 5))):
        x = g.of(lambda v: g.dt(v) is dt and len(g.shape(v)) == len(shape)
                 and all(i == axis or a == b for i, (a, b) in enumerate(zip(g.shape(v), shape))))
        assert x is not None
        parts.append(x)
        e = None if e is None or g.exact[x] is None else Exact(max(e.top, g.exact[x].top), max(e.bits, g.exact[x].bits))  # type: ignore
    order = [parts[int(i)] for i in g.rng.permutation(len(parts))]
    if sum(g.shape(p)[axis] for p in order) * math.prod(shape) // max(1, shape[axis]) <= LIMIT:
        g.emit("concat", tuple(order), (axis,), e)


def _window(g: Grower, s: int) -> None:
    shape = g.shape(s)
    axes = [i for i, n in enumerate(shape) if n >= 3 and g.chance(.6)][:2]
    sizes = [int(g.pick((1, 2, 3))) for _ in axes]
    dil = [1 if k == 1 or shape[a] < 2 * k else int(g.pick((1, 1, 2))) for a, k in zip(axes, sizes)]
    if not axes or len(shape) + len(axes) > 6 or math.prod(shape) * math.prod(sizes) > 2 * LIMIT:
        return
    strides = [int(g.pick((1, 2, k))) for k in sizes]
    g.emit("window", (s,), (tuple(axes), tuple(sizes), tuple(strides), tuple(dil)), g.exact[s])


def _slice_set(g: Grower, s: int) -> None:
    shape, dt, r = g.shape(s), g.dt(s), g.rng
    starts, stops, steps = [], [], []
    for n in shape:
        a, b, step = _bounds(g, n)
        if g.chance(.8) and step != 1:
            a, b, step = int(r.integers(n)), n, 1
        starts.append(a)
        stops.append(b)
        steps.append(step)
    part = g.emit("slice", (s,), (tuple(starts), tuple(stops), tuple(steps)), g.exact[s])
    x = g.near(part, dt)
    if x is None:
        return
    if np.broadcast_shapes(g.shape(x), g.shape(part)) != g.shape(part):
        return
    if g.shape(x) != g.shape(part):
        x = g.emit("expand", (x,), (g.shape(part),), g.exact[x])
    a, b = g.exact[s], g.exact[x]
    g.emit("slice_set", (s, x), (tuple(starts), tuple(stops), tuple(steps)),
           None if a is None or b is None else Exact(max(a.top, b.top), max(a.bits, b.bits)))


MOVES = (_permute, _permute, _slice, _slice, _pad, _expand, _reshape, _reshape, _concat, _window, _slice_set)


def indexing(g: Grower) -> None:
    """take or gather with an index in range: computed, clamped, or made of iota."""
    s = g.of(lambda v: len(g.shape(v)) > 0)
    if s is None:
        return
    shape = g.shape(s)
    axis = int(g.rng.integers(len(shape)))
    n = shape[axis]
    i = g.of(lambda v: g.dt(v).category == 1 and g.dt(v) is not uint32 and g.values[v].size <= 400)
    if i is None or g.chance(.3):
        i = iota(g)
        if g.dt(i).category != 1:
            return
    wrap = g.chance(.5)
    dt = g.dt(i)
    if dt.itemsize == 1 and n > 127:
        i = g.cast(i, int64)
        assert i is not None
        dt = int64
    hi = g.emit("minimum", (i, g.const(n - 1, dt)))
    low = -n if wrap and dt.is_signed else 0
    i = g.emit("maximum", (hi, g.const(low, dt)))
    if g.chance(.6) or len(g.shape(i)) != len(shape):
        if math.prod(shape) // n * g.values[i].size <= LIMIT and len(shape) + len(g.shape(i)) <= 6:
            g.emit("take", (s, i), (axis, wrap), g.exact[s])
        return
    if low:
        i = g.emit("maximum", (i, g.const(0, dt)))
    if all(d == axis or a <= b for d, (a, b) in enumerate(zip(g.shape(i), shape))):
        g.emit("gather", (s, i), (axis,), g.exact[s])


def iota(g: Grower) -> int:
    """0 .. n-1 along an axis of the program."""
    n = int(g.pick(g.dims))
    dt = g.pick((int64, int64, int32, *g.dts))
    if dt.is_floating_point and n > 100 or dt.itemsize == 1 and n > 120:
        dt = int64
    s = g.emit("iota", (), (n, dt, CPU), Exact(float(n), 0))
    if g.chance(.4):
        s = g.emit("reshape", (s,), ((n, 1),), Exact(float(n), 0))
    elif g.chance(.5) and n > 3:  # its reversal, split or shifted: quotients of an index used as a value
        s = g.emit("slice", (s,), ((n - 1,), (-1,), (-1,)), Exact(float(n), 0))
        d = int(g.pick([d for d in range(1, n + 1) if n % d == 0]))
        s = g.emit("reshape", (s,), ((n // d, d),), Exact(float(n), 0))
        if g.chance(.5):
            s = g.emit("slice", (s,), ((n // d - 1, 0), (-1, d), (-1, 1)), Exact(float(n), 0))
    return s


def random_bits(g: Grower) -> None:
    """Philox words, often as uniform floats."""
    shape = g.shape(g.pick(g.pool))
    seed = g.of(lambda v: g.shape(v) == () and g.dt(v) is int64)
    offset = g.const(int(g.rng.integers(0, 2 ** 40)), int64)
    s = g.emit("rng_bits", (seed if seed is not None else offset, offset), (shape,))
    if g.chance(.7):
        s = g.emit("shr", (s, g.const(8, uint32)))
        f = g.emit("cast", (s,), (float32,), FIXED)
        g.emit("mul", (f, g.const(2.0 ** -24, float32)), (), FIXED)


STEPS: tuple[tuple[Callable[[Grower], Any], float], ...] = (
    (unary, 3), (binary, 5), (compare, 1), (select, 1.5), (convert, 1.2), (reduction, 3), (arg, .5), (movement, 4),
    (indexing, 1), (iota, .5), (random_bits, .35))


def grow(seed: int, dims: tuple[int, ...] | None = None, dts: tuple[dtype, ...] | None = None,
         nodes: tuple[int, int] = (3, 25), steps: tuple[tuple[Callable[[Grower], Any], float], ...] = STEPS) -> Program:
    """The program of a seed: 3 to 25 steps over a few inputs, one to six outputs."""
    g = Grower(seed, dims, dts)
    r = g.rng
    for _ in range(int(r.integers(1, 5))):
        order = list(g.dims) if g.chance(.75) else [int(x) for x in r.permutation(g.dims)]
        shape = tuple([1 if g.chance(.2) else n for n in order[int(r.integers(len(order))) if g.chance(.3) else 0:]])
        g.leaf(shape, bool_ if g.chance(.08) else g.pick(g.dts))
    if g.chance(.3):
        g.leaf((int(g.pick(g.dims)),), int64)
    if g.chance(.4):
        g.scalar(int(r.integers(-100, 100)) / 8.0, g.pick([d for d in g.dts if d.is_floating_point]), FIXED)
    if g.chance(.3):
        g.scalar(int(r.integers(0, 1000)), int64, None)
    weights = np.array([w for _, w in steps])
    target = len(g.b.nodes) + int(r.integers(*nodes))
    for _ in range(200):
        if len(g.b.nodes) >= target:
            break
        steps[int(r.choice(len(steps), p=weights / weights.sum()))][0](g)
    leaves = len(g.arrays)
    made = list(range(leaves, len(g.b.avals))) or list(range(leaves))
    used = {s for n in g.b.nodes for s in n.ins}
    outs = [s for s in made if s not in used][-4:]
    outs += [int(s) for s in r.choice(len(g.b.avals), int(r.integers(0, 3)))]
    exact = frozenset(s for s in range(len(g.b.avals)) if g.is_exact(s))
    return Program(g.b.graph(tuple(outs or made[-1:])), g.arrays, exact)
