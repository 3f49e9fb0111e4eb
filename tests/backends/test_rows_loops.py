"""Every primitive row on its samples and on generated inputs: graph interpreter = loop IR by NumPy = native code.

Inputs are of every dtype a row accepts, of odd sizes, empty, of size 1, zero-dim, transposed, strided and flipped (by
movement in the graph), with NaN, infinities, signed zeros and denormals, and the extremes of integers. All cases of a row
and dtype are one graph, hence one compilation.
"""
from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import harness
import numpy as np
import pytest

import graphc
from graphc import dtypes
from graphc.codegen.native import program
from graphc.device import CPU
from graphc.dtypes import bool_, dtype, float32, float64, from_numpy, int32, int64, uint8, uint32
from graphc.errors import IndexOutOfRangeError
from graphc.ir.node import GraphBuilder, aval
from graphc.ir.optable import OPS
from graphc.ir.recorder import LEAF
from graphc.runtime import jit

FLOATS = (float32, float64, dtypes.float16, dtypes.bfloat16)
INTS = (int64, int32, uint8, dtypes.int8, dtypes.int16, uint32)
ALL = (*FLOATS, *INTS, bool_)
PRIMS = sorted(n for n, op in OPS.items() if not op.is_composite)
POINTWISE = [n for n in PRIMS if OPS[n].kind == "pointwise" and n not in ("const", "iota", "cast", "conj", "real", "imag", "complex",
                                                                          "magnitude")]
EXACT = frozenset(("neg", "abs", "sign", "floor", "ceil", "round", "trunc", "isnan", "isinf", "logical_not", "bit_not", "add", "sub",
                   "mul", "div", "maximum", "minimum", "fmod", "remainder", "floordiv", "eq", "ne", "lt", "le", "bit_and", "bit_or",
                   "bit_xor", "shl", "shr", "where", "sqrt", "reciprocal", "cast"))
ZERO_SIGN_FREE = frozenset(("maximum", "minimum", "remainder", "floordiv", "fmod"))  # of +0 and -0 either may come out
ROUGH = frozenset(("lgamma", "digamma", "trigamma", "erfinv", "pow"))  # tests/backends/test_vmath.py holds them to less


def rng_of(*key: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def specials(dt: dtype) -> np.ndarray:
    """Where arithmetic has corners."""
    if dt is bool_:
        return np.array([False, True])
    if dt.is_floating_point:
        info = {"float16": (6e-8, 65504.0, 1025.0), "bfloat16": (1e-39, 3.3e38, 129.0), "float32": (1e-44, 3.4e38, 8388609.0),
                "float64": (5e-324, 1.79e308, 4503599627370497.0)}[dt.name]
        tiny, huge, odd = info
        with np.errstate(all="ignore"):
            return np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, tiny, -tiny, huge, -huge, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5,
                             odd, -odd, 3.0, 100.25]).astype(dt.np)
    lo, hi = np.iinfo(dt.np).min, np.iinfo(dt.np).max
    return np.array([lo, lo + 1, hi, hi - 1, 0, 1, 2, 3, 7, 8, 31, 32, 63, 64, 100, *([-1, -2, -7] if dt.is_signed else [])], dt.np)


def general(dt: dtype, shape: Sequence[int], *key: object) -> np.ndarray:
    """Ordinary values of a dtype."""
    r = rng_of(dt.name, tuple(shape), key)
    if dt is bool_:
        return r.random(shape) < .5
    if dt.is_floating_point:
        return np.asarray(r.uniform(-4, 4, shape)).astype(dt.np)
    return r.integers(-9 if dt.is_signed else 0, 13, shape).astype(dt.np)


class Cases:
    """Cases of one graph: leaves first, then nodes, every result an output with a label."""

    def __init__(self) -> None:
        self.b = GraphBuilder()
        self.arrays: list[np.ndarray] = []
        self.todo: list[tuple[str, Callable[[], Sequence[int]]]] = []
        self.labels: list[str] = []

    def leaf(self, a: np.ndarray) -> int:
        av = aval(a.shape, from_numpy(a.dtype), CPU)
        self.arrays.append(np.ascontiguousarray(a).reshape(a.shape))
        return self.b.add(LEAF, (), (av,), (av,))

    def laid(self, a: np.ndarray, layout: str) -> Callable[[], int]:
        """The value ``a`` as a movement of some input."""
        n = a.ndim
        full = tuple([0] * n), a.shape, tuple([1] * n)
        if layout == "transposed" and n > 1:
            s = self.leaf(a.transpose())
            return lambda: self.b.emit(OPS["permute"], (s,), (tuple(range(n))[::-1],))
        if layout == "flipped" and n:
            s = self.leaf(a[..., ::-1])
            m = a.shape[-1]
            return lambda: self.b.emit(OPS["slice"], (s,), ((*full[0][:-1], m - 1), (*full[1][:-1], -1), (*full[2][:-1], -1)))
        if layout == "strided" and n:
            m = a.shape[-1]
            wide = np.zeros((*a.shape[:-1], 3 * m + 2), a.dtype)
            wide[..., 1:3 * m:3] = a
            s = self.leaf(wide)
            return lambda: self.b.emit(OPS["slice"], (s,), ((*full[0][:-1], 1), (*full[1][:-1], 3 * m), (*full[2][:-1], 3)))
        s = self.leaf(a)
        return lambda: s

    def case(self, label: str, name: str, operands: Sequence[np.ndarray], attrs: Any = (), layouts: Sequence[str] = ()) -> None:
        """``name`` applied to operands in given layouts."""
        slots = [self.laid(np.asarray(a), layouts[k] if k < len(layouts) else "plain") for k, a in enumerate(operands)]

        def emit() -> Sequence[int]:
            node_at = len(self.b.nodes)
            s = self.b.emit(OPS[name], tuple([f() for f in slots]), attrs)
            return [s + k for k in range(len(self.b.nodes[-1].avals))] if len(self.b.nodes) > node_at else [s]

        self.todo.append((label, emit))

    def run(self, compare: Callable[[str, np.ndarray, np.ndarray], str | None], bits: int) -> int:
        """Run every case on all back ends; returns how many results were compared."""
        outs: list[int] = []
        for label, emit in self.todo:
            for s in emit():
                outs.append(s)
                self.labels.append(label)
        graph = self.b.graph(tuple(outs))
        bindings = harness.bindings_of(graph, self.arrays)
        want = harness.reference(graph, bindings)
        got = [("loop IR", harness.run_loops(graph, bindings, 40))]
        if jit.available():
            with pytest.MonkeyPatch.context() as patch:
                width = min(bits, jit.vector_bits())
                patch.setattr(jit, "vector_bits", lambda: width)
                patch.setattr(program, "PARALLEL_WORK", 0)
                got.append((f"native, {width} bits", harness.native(graph)(bindings)))
        bad = []
        for who, results in got:
            for label, w, g in zip(self.labels, want, results):
                assert w.dtype == g.dtype and w.shape == g.shape, (who, label)
                why = compare(label, w, g)
                if why:
                    bad.append(f"{who}: {label}: {why}")
        assert not bad, "\n".join(bad[:20])
        return len(want)


def differs(w: np.ndarray, g: np.ndarray, ulps: float | None, absolute: float = 0.0, signs: bool = True) -> str | None:
    """Why two arrays differ: exactly (NaN = NaN, signs of zero as asked) or by more than ``ulps`` units in the last place."""
    if w.dtype.kind in "biu" or w.size == 0:
        bad = np.asarray(w != g)
    else:
        kind = np.float64 if w.dtype.kind != "c" else np.complex128
        a, b = w.astype(kind), g.astype(kind)
        with np.errstate(all="ignore"):
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            if signs and ulps is None and w.dtype.kind != "c":
                same &= np.isnan(a) | (np.signbit(a) == np.signbit(b))
            if ulps is not None:
                eps = 2 * harness.EPS.get(w.dtype.name, 2.0 ** -52 if w.dtype.itemsize == 16 else 2.0 ** -23)
                tiny = {"float16": 6e-8, "bfloat16": 1e-40, "float32": 2e-45}.get(w.dtype.name, 5e-324)
                same |= np.abs(a - b) <= ulps * (eps * np.abs(a) + tiny) + absolute
        bad = ~same
    if not bad.any():
        return None
    n = np.unravel_index(int(np.argmax(bad)), bad.shape)
    return f"{int(bad.sum())} of {bad.size} differ, first at {tuple(map(int, n))}: {g[n]!r} instead of {w[n]!r}"


def bits_of(*key: object) -> int:
    return 128 << zlib.crc32(repr(key).encode()) % 3


def accepts(name: str, dt: dtype, arity: int) -> bool:
    """Whether the row takes operands of a dtype: inference and the NumPy meaning both do."""
    ins = [np.ones((2,), dt.np) for _ in range(arity)]
    if name == "where":
        ins[0] = np.ones((2,), bool)
    try:
        OPS[name].infer_avals((), tuple([aval(a.shape, from_numpy(a.dtype), CPU) for a in ins]))
        with np.errstate(all="ignore"):
            OPS[name].eval_np((), *ins)  # type: ignore[attr-defined]
    except (TypeError, RuntimeError, ValueError):
        return False
    return True


# -------------------------------------------------------------------------------------------------------------- pointwise
def pointwise_cases(c: Cases, name: str, dt: dtype, arity: int) -> None:
    """Corners against corners, and ordinary values in every layout and kind of broadcast."""
    s = specials(dt)
    safe = name in ("fmod", "remainder", "floordiv") and dt.category == 1  # division by zero is an error, tested apart
    if name == "pow" and dt.category == 1:
        s = s[np.abs(s.astype(np.int64)) < 8]
    grids = [np.asarray(x) for x in np.meshgrid(*[s] * arity, indexing="ij")]
    grids = [g.reshape(-1) for g in grids]

    def fix(xs: list[np.ndarray]) -> list[np.ndarray]:
        if safe:
            xs[1] = np.where(xs[1] == 0, 1, xs[1]).astype(dt.np)
        if name == "where":
            xs[0] = np.asarray(xs[0] != 0)
        return xs

    c.case("corners", name, fix(grids))
    shapes = {"plain": ((67,),) * 3, "transposed": ((5, 33), (33,), (5, 1)), "flipped": ((3, 35), (3, 35), ()),
              "strided": ((70,), (70,), (1,)), "zero-dim": ((), (), ()), "of size 1": ((1, 1, 1), (1, 3, 1), (1,)),
              "empty": ((0, 3), (3,), (1, 1)), "broadcast": ((3, 1, 17), (2, 1), (17,)), "long": ((2, 300),) * 3}
    for label, sh in shapes.items():
        xs = fix([general(dt, sh[k], name, k) for k in range(arity)])
        layouts = [label if k != 1 or label == "flipped" else "plain" for k in range(arity)]
        c.case(label, name, xs, (), layouts)


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise(name: str) -> None:
    arity = len(OPS[name].samples()[0][0])
    taken = [dt for dt in ALL if accepts(name, dt, arity)]
    assert taken and (float64 not in taken or set(FLOATS) <= set(taken)), taken
    for dt in taken:
        exact = name in EXACT or not dt.is_floating_point
        ulps = None if exact else 1.0 if dt.itemsize == 2 else 300.0 if name in ROUGH else 8.0
        absolute = 0.0 if exact or name not in ROUGH else 400 * harness.EPS[dt.name]

        def compare(label: str, w: np.ndarray, g: np.ndarray) -> str | None:
            return differs(w, g, ulps, absolute, signs=name not in ZERO_SIGN_FREE)

        c = Cases()
        pointwise_cases(c, name, dt, arity)
        try:
            assert c.run(compare, bits_of(name, dt.name)) >= 10
        except AssertionError as error:
            pytest.fail(f"{name} of {dt}:\n{error}")


@pytest.mark.parametrize("dt", ALL, ids=lambda d: d.name)
def test_cast(dt: dtype) -> None:
    c = Cases()
    some = np.concatenate([specials(dt), general(dt, (45,), "cast")])
    if dt.is_floating_point:
        with np.errstate(all="ignore"):
            edges = np.array([2.0 ** 31, 2.0 ** 63, -2.0 ** 63, 2.0 ** 32 + 0.5, 255.9, 256.0, -128.9, 1e-30, 65519.0, 65520.0])
            some = np.concatenate([some, edges.astype(dt.np)])
    for to in ALL:
        c.case(f"to {to.name}", "cast", (some,), (to,))
        c.case(f"transposed to {to.name}", "cast", (some[:45].reshape(9, 5),), (to,), ("transposed",))
    assert c.run(lambda label, w, g: differs(w, g, None), bits_of("cast", dt.name)) == 2 * len(ALL)


@pytest.mark.parametrize("dt", ALL, ids=lambda d: d.name)
def test_constants_and_iota(dt: dtype) -> None:
    c = Cases()
    for x in specials(dt):
        c.case(f"const {x}", "const", (), (x.tobytes(), dt))
    for n in (0, 1, 7, 64, 127):
        c.case(f"iota {n}", "iota", (), (n, dt, CPU))
    assert c.run(lambda label, w, g: differs(w, g, None), bits_of("const", dt.name)) >= 7


# ------------------------------------------------------------------------------------------------------------- reductions
REDUCED: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((67,), (0,)), ((3, 129), (1,)), ((129, 3), (0,)), ((5, 7, 33), (0, 2)), ((5, 7, 33), (1,)), ((7, 1, 1), (1, 2)), ((3, 4), ()),
    ((), ()), ((1, 1), (0,)), ((2, 3, 5, 7), (1, 3)), ((1, 200), (0,)), ((16, 16), (1,)), ((2, 1, 34), (0, 1, 2)))


def compare_sums(label: str, w: np.ndarray, g: np.ndarray) -> str | None:
    """Sums of multiples of 1/8 are exact unless the case is of general numbers."""
    if "general" not in label:
        return differs(w, g, None, signs=False)
    return differs(w, g, 1.0 if w.dtype.itemsize == 2 and w.dtype.kind not in "iu" else 200.0, absolute=float(label.split()[-1]))


@pytest.mark.parametrize("kind", ["add", "mul", "max", "min", "any", "all"])
def test_reduce(kind: str) -> None:
    for dt in ALL:
        if kind in ("any", "all") and dt not in (bool_, float32, dtypes.float16, int64, uint8):
            continue
        c = Cases()
        for (shape, axes), layout in itertools.product(REDUCED, ("plain", "transposed", "flipped")):
            if layout != "plain" and (len(shape) < 2 or shape[-1] == 1):
                continue
            x = general(dt, shape, kind)
            if dt.is_floating_point:
                x = (np.sign(x.astype(np.float32)) * 2.0 ** np.round(x.astype(np.float32) / 8) if kind == "mul" else
                     np.round(x.astype(np.float32) * 8) / 8).astype(dt.np)
                if dt.itemsize == 2 and kind == "add":
                    x = np.sign(x.astype(np.float32)).astype(dt.np)  # sums of 231 multiples of 1/8 do not fit bfloat16
            c.case(f"{shape} over {axes}, {layout}", "reduce", (x,), (kind, axes), (layout,))
        if dt.category == 1:
            c.case("extremes", "reduce", (np.resize(specials(dt), (3, 71)),), (kind, (1,)))
            c.case("extremes by column", "reduce", (np.resize(specials(dt), (71, 3)),), (kind, (0,)))
        if dt.is_floating_point:
            bound = 4.0 * 70000 * harness.EPS["float32" if dt.itemsize == 2 else dt.name]
            if kind != "mul":
                c.case(f"general {bound}", "reduce", (general(dt, (70000,), "long"),), (kind, (0,)))
                c.case(f"general, leading axis {bound}", "reduce", (general(dt, (4096, 17), "long"),), (kind, (0,)))
            rows = np.full((5, 37), 1, dt.np)
            rows[0, 3], rows[1, 20], rows[2, 36], rows[3, 2], rows[3, 30] = np.nan, np.inf, -np.inf, np.inf, -np.inf
            c.case("not finite", "reduce", (rows,), (kind, (1,)))
            c.case("not finite by column", "reduce", (rows,), (kind, (0,)))
            c.case("zeros", "reduce", (np.full((3, 19), -0.0, dt.np),), (kind, (1,)))
        c.case("rows of nothing", "reduce", (np.zeros((0, 3), dt.np),), (kind, (1,)))
        if kind not in ("max", "min"):
            c.case("nothing", "reduce", (np.zeros((3, 0), dt.np),), (kind, (1,)))
        try:
            assert c.run(compare_sums, bits_of(kind, dt.name)) > 20
        except AssertionError as error:
            pytest.fail(f"{kind} of {dt}:\n{error}")


@pytest.mark.parametrize("kind", ["max", "min"])
def test_argreduce(kind: str) -> None:
    for dt in ALL:
        c = Cases()
        for shape, axis, layout in itertools.product(((67,), (5, 33), (33, 5), (2, 70, 3), (1, 1), (200, 1)), (0, 1),
                                                     ("plain", "transposed", "flipped")):
            if axis >= len(shape):
                continue
            x = general(dt, shape, kind) if not dt.is_floating_point else np.round(general(dt, shape, kind).astype(float)).astype(dt.np)
            c.case(f"{shape} along {axis}, {layout}", "argreduce", (x,), (kind, axis), (layout,))
        c.case("corners", "argreduce", (np.resize(specials(dt), (7, 41)),), (kind, 1))
        c.case("corners by column", "argreduce", (np.resize(specials(dt)[::-1], (41, 7)),), (kind, 0))
        c.case("all equal", "argreduce", (np.resize(specials(dt)[:1], (3, 40)),), (kind, 1))
        if dt.is_floating_point:
            c.case("only infinities", "argreduce", (np.resize(np.array([np.inf, -np.inf]).astype(dt.np), (3, 40)),), (kind, 1))
            c.case("worst", "argreduce", (np.full((3, 40), -np.inf if kind == "max" else np.inf).astype(dt.np),), (kind, 1))
        assert c.run(lambda label, w, g: differs(w, g, None), bits_of("arg", kind, dt.name)) > 25


# --------------------------------------------------------------------------------------------------- movement and indexing
MOVES: tuple[tuple[str, tuple[tuple[int, ...], ...], Any], ...] = (
    ("reshape", ((6, 35),), ((5, 42),)), ("reshape", ((1, 1),), ((),)), ("reshape", ((0, 4),), ((2, 0),)),
    ("reshape", ((2, 3, 4),), ((4, 3, 2),)), ("permute", ((3, 5, 33),), ((2, 0, 1),)), ("permute", ((33, 65),), ((1, 0),)),
    ("permute", ((2, 1, 3, 17),), ((3, 1, 0, 2),)), ("permute", ((),), ((),)), ("expand", ((3, 1),), ((2, 3, 37),)),
    ("expand", ((),), ((70,),)), ("expand", ((1, 5),), ((0, 5),)), ("slice", ((9, 40),), ((8, 1), (0, 39), (-2, 3))),
    ("slice", ((70,),), ((69,), (-1,), (-1,))), ("slice", ((5, 4),), ((3, 0), (3, 4), (1, 1))),
    ("slice", ((5, 67),), ((0, 2), (5, 66), (1, 2))), ("pad", ((5, 33), ()), ((1, 2), (0, 3))), ("pad", ((0, 3), ()), ((2, 0), (0, 1))),
    ("pad", ((), ()), ((), ())), ("pad", ((1, 1), ()), ((3, 0), (0, 40))), ("concat", ((2, 33), (2, 1), (2, 0), (2, 40)), (1,)),
    ("concat", ((3, 5), (1, 5), (2, 5), (7, 5), (1, 5), (1, 5)), (0,)), ("concat", ((0,), (0,)), (0,)), ("concat", ((5, 7),), (1,)),
    ("window", ((3, 20, 33),), ((1, 2), (3, 2), (2, 1), (1, 2))), ("window", ((37,),), ((0,), (5,), (5,), (1,))),
    ("slice_set", ((9, 40), (4, 37)), ((3, 1), (7, 38), (1, 1))), ("slice_set", ((9, 40), (5, 13)), ((8, 1), (-1, 40), (-2, 3))),
    ("slice_set", ((5, 4), (0, 4)), ((2, 0), (2, 4), (1, 1))), ("slice_set", ((), ()), ((), (), ())))


@pytest.mark.parametrize("dt", ALL, ids=lambda d: d.name)
def test_movement(dt: dtype) -> None:
    c = Cases()
    for name, shapes, attrs in MOVES:
        for layout in ("plain", "transposed", "strided"):
            c.case(f"{name} of {shapes} {attrs}, {layout}", name, [general(dt, s, name, k) for k, s in enumerate(shapes)], attrs,
                   (layout, "plain", layout))
    assert c.run(lambda label, w, g: differs(w, g, None), bits_of("move", dt.name)) == 3 * len(MOVES)


@pytest.mark.parametrize("dt", ALL, ids=lambda d: d.name)
def test_indexing(dt: dtype) -> None:
    c = Cases()
    r = rng_of("take", dt.name)
    x = general(dt, (7, 33), "take")
    for it in INTS:
        lows = -7 if it.is_signed else 0
        c.case(f"take rows by {it.name}", "take", (x, r.integers(lows, 7, (5, 3)).astype(it.np)), (0, True))
        c.case(f"take columns by {it.name}", "take", (x, r.integers(0, 33, (40,)).astype(it.np)), (1, False), ("transposed",))
        c.case(f"gather by {it.name}", "gather", (x, r.integers(0, 7, (4, 30)).astype(it.np)), (0,), ("flipped", "transposed"))
    c.case("take nothing", "take", (x, np.zeros((0, 2), np.int64)), (1, False))
    c.case("take one", "take", (x, np.array(-1)), (0, True))
    c.case("take from one", "take", (x[:1], np.zeros((35,), np.int64)), (0, True))
    c.case("gather along the last axis", "gather", (x, r.integers(0, 33, (7, 65))), (1,), ("strided",))
    assert c.run(lambda label, w, g: differs(w, g, None), bits_of("take", dt.name)) == 3 * len(INTS) + 4


@pytest.mark.parametrize("name,attrs,bad", [("take", (0, False), 7), ("take", (0, False), -1), ("take", (0, True), -8),
                                            ("gather", (0,), -1), ("gather", (0,), 7), ("take", (0, True), 2 ** 40)])
def test_index_out_of_range(name: str, attrs: Any, bad: int) -> None:
    """The native plan reports the same error as the interpreter, wherever in the vector the bad index sits."""
    if not jit.available():
        pytest.skip(jit.reason())
    for at in (0, 5, 69):
        index = np.zeros((70,) if name == "take" else (70, 1), np.int64)
        index.reshape(-1)[at] = bad
        c = Cases()
        c.case("", name, (np.ones((7, 33), np.float32), index), attrs)
        graph = c.b.graph(tuple(c.todo[0][1]()))
        bindings = harness.bindings_of(graph, c.arrays)
        with pytest.raises(IndexOutOfRangeError) as want:
            harness.reference(graph, bindings)
        plan = harness.native(graph)
        for _ in range(2):  # a reported error is forgotten afterwards
            with pytest.raises(IndexOutOfRangeError) as got:
                plan(bindings)
            assert str(got.value) == str(want.value)
        index.reshape(-1)[at] = 6
        good = harness.bindings_of(graph, [c.arrays[0], index])
        harness.same_bits(harness.reference(graph, good), plan(good), "after an error")


@pytest.mark.parametrize("name", ["fmod", "remainder", "floordiv"])
def test_integer_division_by_zero(name: str) -> None:
    if not jit.available():
        pytest.skip(jit.reason())
    for dt in (int64, int32, uint8):
        c = Cases()
        c.case("", name, (np.full((40,), 5, dt.np), np.arange(40).astype(dt.np)))
        graph = c.b.graph(tuple(c.todo[0][1]()))
        bindings = harness.bindings_of(graph, c.arrays)
        for run in (lambda: harness.reference(graph, bindings), lambda: harness.native(graph)(bindings)):
            with pytest.raises(ZeroDivisionError):
                run()


def test_random_bits() -> None:
    c = Cases()
    for k, (seed, offset) in enumerate(itertools.product((0, 1, -1, 2 ** 63 - 1, -2 ** 63, 12345678901234567), (0, 3, 2 ** 32 - 2, 2 ** 40))):
        shape = ((3, 5), (), (67,), (0, 2), (130,), (2, 1, 33))[k % 6]
        c.case(f"{seed} {offset} {shape}", "rng_bits", (np.array(seed), np.array(offset)), (shape,))
    assert c.run(lambda label, w, g: differs(w, g, None), 512) == 24


# ---------------------------------------------------------------------------------------------------------------- samples
@pytest.mark.parametrize("name", PRIMS)
def test_samples(name: str) -> None:
    """Every sample as it stands and, where it is of float64, in all other floats the row takes."""
    c = Cases()
    for k, (arrays, attrs) in enumerate(OPS[name].samples()):
        arrays = [np.asarray(a) for a in arrays]
        wide = any(a.dtype == np.float64 for a in arrays) and name not in ("const", "iota", "loop_scan")
        for dt in FLOATS if wide and not name.startswith("linalg") else (float64,):
            xs = [a.astype(dt.np) if a.dtype == np.float64 else a for a in arrays]
            try:
                OPS[name].infer_avals(attrs, tuple([aval(a.shape, from_numpy(a.dtype), CPU) for a in xs]))
                OPS[name].eval_np(attrs, *xs)  # type: ignore[attr-defined]
            except (TypeError, RuntimeError, ValueError):
                assert dt is not float64
                continue
            c.case(f"{name} sample {k} in {dt.name}", name, xs, attrs)

    def compare(label: str, w: np.ndarray, g: np.ndarray) -> str | None:
        return differs(w, g, 400.0 if w.dtype.itemsize > 2 else 2.0, absolute=400 * harness.EPS.get(w.dtype.name, 1e-7))

    assert c.run(compare, bits_of("samples", name)) >= 1


def test_threads_do_not_change_results() -> None:
    """Reductions, gathers and chains over enough rows for every thread, bit for bit."""
    if not jit.available():
        pytest.skip(jit.reason())
    x = general(float32, (301, 257), "threads")
    b = GraphBuilder()
    av = aval(x.shape, float32, CPU)
    s = b.add(LEAF, (), (av,), (av,))

    def e(name: str, ins: tuple[int, ...], attrs: Any = ()) -> int:
        return b.emit(OPS[name], ins, attrs)

    outs = [e("reduce", (s,), ("add", (0,))), e("reduce", (s,), ("add", (1,))), e("reduce", (e("exp", (s,)),), ("add", (0, 1))),
            e("permute", (e("tanh", (s,)),), ((1, 0),)), e("argreduce", (s,), ("max", 1))]
    graph = b.graph(tuple(outs))
    bindings = harness.bindings_of(graph, [x])
    want = None
    for n in (1, 2, 3, 7):
        graphc.set_num_threads(n)
        got = harness.native(graph)(bindings)
        if want is not None:
            harness.same_bits(want, got, f"{n} threads")
        want = got
