"""Steps of random programs that no loop says: products, running sums, sorting, scattering. They sit between kernels, and read
the movement results before them in place or copied."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import programs
from programs import FIXED, STEPS, Exact, Grower, Program, fits

from graphc.dtypes import bfloat16, bool_, float32, float64, int32, int64


def _times(e: Exact | None, f: Exact | None) -> Exact | None:
    return None if e is None or f is None or math.inf in (e.top, f.top) else Exact(e.top * f.top, e.bits + f.bits)


def contract(g: Grower) -> None:
    """A product over one or two pairs of axes, perhaps with a batch axis."""
    a = g.of(lambda v: 1 <= len(g.shape(v)) <= 4 and g.dt(v) is not bool_)
    if a is None:
        return
    dt, sa = g.dt(a), g.shape(a)
    b = g.of(lambda v: g.dt(v) is dt and 1 <= len(g.shape(v)) <= 4 and bool(set(g.shape(v)) & set(sa)))
    if b is None:
        return
    sb = g.shape(b)
    pairs = [(i, j) for i, n in enumerate(sa) for j, m in enumerate(sb) if n == m]
    chosen: list[tuple[int, int]] = []
    for k in g.rng.permutation(len(pairs)):
        i, j = pairs[int(k)]
        if len(chosen) < 3 and all(i != x and j != y for x, y in chosen) and (not chosen or g.chance(.5)):
            chosen.append((i, j))
    batch = [chosen.pop()] if len(chosen) > 1 and g.chance(.6) else []
    free = [n for i, n in enumerate(sa) if i not in [x for x, _ in (*chosen, *batch)]]
    free += [n for j, n in enumerate(sb) if j not in [y for _, y in (*chosen, *batch)]]
    shape = [sa[i] for i, _ in batch] + free
    depth = math.prod(sa[i] for i, _ in chosen)
    if len(shape) > 6 or math.prod(shape) > programs.LIMIT or math.prod(shape) * depth > 100 * programs.LIMIT:
        return
    e = _times(g.exact[a], g.exact[b])
    e = fits(Exact(e.top * depth, e.bits), dt) if e is not None and dt.is_floating_point else None
    g.emit("contract", (a, b), (tuple([i for i, _ in batch]), tuple([j for _, j in batch]), tuple([i for i, _ in chosen]),
                                tuple([j for _, j in chosen])), FIXED if not dt.is_floating_point else e)


def batched(g: Grower) -> None:
    """A product of the matrices of two stacks, or of one with itself, perhaps transposed."""
    a = g.of(lambda v: len(g.shape(v)) >= 3 and g.dt(v).is_floating_point)
    if a is None:
        return
    sa, dt = g.shape(a), g.dt(a)
    lead = tuple(range(len(sa) - 2))
    b = g.of(lambda v: g.dt(v) is dt and len(g.shape(v)) == len(sa) and g.shape(v)[:-2] == sa[:-2]
             and bool(set(g.shape(v)[-2:]) & set(sa[-2:])))
    assert b is not None  # a itself at least
    sb, n = g.shape(b), len(lead)
    i, j = g.pick([(i, j) for i in (n, n + 1) for j in (n, n + 1) if sa[i] == sb[j]])
    if math.prod(sa[:-2]) * sa[2 * n + 1 - i] * sb[2 * n + 1 - j] > programs.LIMIT or g.magnitude(a) > 1e4 or g.magnitude(b) > 1e4:
        return
    e = _times(g.exact[a], g.exact[b])
    g.emit("contract", (a, b), (lead, lead, (i,), (j,)), fits(Exact(e.top * sa[i], e.bits), dt) if e is not None else None)


def linear(g: Grower) -> None:
    """All rows of a stack times one matrix: its first."""
    a = g.of(lambda v: len(g.shape(v)) >= 3 and g.dt(v).is_floating_point)
    if a is None or g.magnitude(a) > 1e4:
        return
    sa, n, dt, e = g.shape(a), len(g.shape(a)), g.dt(a), g.exact[a]
    one = g.emit("slice", (a,), ((0,) * n, (*[1] * (n - 2), *sa[-2:]), (1,) * n), e)
    matrix = g.emit("reshape", (one,), (sa[-2:],), e)
    if math.prod(sa[:-1]) * sa[-2] <= programs.LIMIT:
        total = fits(Exact(e.top ** 2 * sa[-1], 2 * e.bits), dt) if e is not None and e.top < math.inf else None
        g.emit("contract", (a, matrix), ((), (), (n - 1,), (1,)), total)


def scan(g: Grower) -> None:
    """A running sum or extreme along an axis."""
    s = g.of(lambda v: len(g.shape(v)) > 0 and g.dt(v) is not bool_)
    if s is None:
        return
    dt, e, axis = g.dt(s), g.exact[s], int(g.rng.integers(len(g.shape(s))))
    kind = g.pick(("add", "add", "max", "min"))
    if kind == "add" and dt.is_floating_point:
        e = fits(Exact(e.top * g.shape(s)[axis], e.bits), dt) if e is not None and e.top < math.inf else None
    g.emit("scan", (s,), (kind, axis, g.chance(.4)), e)


def sort(g: Grower) -> None:
    """Sorted values and where they were; of exact values, since rounding may change places."""
    s = g.of(lambda v: len(g.shape(v)) > 0 and g.is_exact(v) and g.dt(v) is not bool_)
    if s is None:
        return
    axis = int(g.rng.integers(len(g.shape(s))))
    n = g.shape(s)[axis]
    out = g.emit("sort", (s,), (axis, g.chance(.5), True), g.exact[s])
    g.exact[out + 1] = Exact(float(n), 0)
    g.pool.append(out + 1)


def _index(g: Grower, shape: tuple[int, ...], n: int) -> int:
    """Integers 0 .. n-1 of a shape, computed from something of that shape or drawn by the generator's own words."""
    s = g.of(lambda v: g.shape(v) == shape and g.dt(v) is int64)
    if s is None:
        count = math.prod(shape)
        s = g.emit("reshape", (g.emit("iota", (), (count, int64, programs.CPU)),), (shape,))
        s = g.emit("mul", (s, g.const(int(g.rng.integers(1, 50)), int64)))
        s = g.emit("bit_and", (s, g.const(63, int64)))
    s = g.emit("minimum", (s, g.const(n - 1, int64)))
    return g.emit("maximum", (s, g.const(0, int64)))


def put(g: Grower) -> None:
    """take_put or scatter: adding where sums are exact, else setting at places that are all different."""
    s = g.of(lambda v: len(g.shape(v)) > 0 and g.is_exact(v) and g.dt(v) is not bool_)
    if s is None:
        return
    shape, dt = g.shape(s), g.dt(s)
    axis = int(g.rng.integers(len(shape)))
    n = shape[axis]
    some = int(g.pick((1, 2, n, 2 * n)))
    part = (*shape[:axis], some, *shape[axis + 1:])
    if math.prod(part) > programs.LIMIT or n == 0:
        return
    src = g.of(lambda v: g.dt(v) is dt and g.shape(v) == part and g.is_exact(v))
    if src is None:
        src = g.emit("cast", (g.emit("expand", (g.const(3, int64),), (part,)),), (dt,), Exact(3.0, 0))
    e, f = g.exact[s], g.exact[src]
    total = FIXED
    if dt.is_floating_point:
        both = None if e is None or f is None or math.inf in (e.top, f.top) else Exact(e.top + f.top * math.prod(part),
                                                                                        max(e.bits, f.bits))
        kept = fits(both, dt)
        if kept is None:
            return
        total = kept
    if g.chance(.5):
        g.emit("take_put", (s, _index(g, (some,), n), src), (axis, "add", False), total)
    else:
        g.emit("scatter", (s, _index(g, part, n), src), (axis, "add"), total)


LIBRARY_STEPS = (*STEPS, (contract, 2.0), (scan, 1.0), (sort, .7), (put, .8))
STACKS = ((6, 17, 9), (4, 3, 9, 8), (2, 2, 33, 4), (12, 5, 20), (3, 16, 16), (2, 5, 7, 7), (33, 5, 24), (3, 24, 10), (2, 2, 32, 8))
STACK_STEPS = ((batched, 4.0), (linear, 1.0), *[(step, w) for step, w in STEPS if step.__name__ not in ("arg", "indexing", "iota")])


def stacks(seed: int) -> Program:
    """A program with chains of batched products."""
    return programs.grow(seed, STACKS[seed % len(STACKS)], ((float32,), (float64,), (float32, bfloat16))[seed % 7 % 3],
                         steps=STACK_STEPS)


def magnitude_of_scan(x: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
    """The size rounding errors of a running sum are relative to."""
    wide = np.abs(x.astype(np.float64))
    wide = np.flip(wide, axis) if reverse else wide
    total = np.add.accumulate(wide, axis) * max(1.0, math.sqrt(x.shape[axis]) / 4)
    return np.flip(total, axis) if reverse else total


def forgiving(steps: tuple[tuple[Callable[[Grower], Any], float], ...]) -> tuple[tuple[Callable[[Grower], Any], float], ...]:
    """Steps that give up where a row refuses its operands (the maximum of nothing)."""
    def wrapped(step: Callable[[Grower], Any]) -> Callable[[Grower], Any]:
        def run(g: Grower) -> None:
            try:
                step(g)
            except (RuntimeError, IndexError, ValueError, TypeError, ZeroDivisionError):
                assert len(g.values) == len(g.b.avals)  # refused by inference, before anything was made

        return run

    return tuple([(wrapped(step), weight) for step, weight in steps])


# ------------------------------------------------------------------------------------------------------------------ loops
def _body(r: np.random.Generator, seed: int, dims: tuple[int, ...]) -> tuple[Program, int, int]:
    """A step of integers: carries, inputs of the step and constants in; new carries and some results out."""
    dts = (int64, int32)
    g = Grower(seed, dims, dts)
    shapes = [tuple([n for n in dims if r.random() < .7]) for _ in range(int(r.integers(2, 6)))]
    for shape in shapes:
        g.leaf(shape, g.pick(dts))
    n_carry = int(r.integers(1, len(shapes)))
    n_xs = int(r.integers(0, len(shapes) - n_carry + 1))
    weights = np.array([w for _, w in LIBRARY_STEPS])
    for _ in range(int(r.integers(2, 12))):
        LIBRARY_STEPS[int(r.choice(len(LIBRARY_STEPS), p=weights / weights.sum()))][0](g)
    outs = []
    for i in range(n_carry):
        same = [s for s in range(len(g.b.avals)) if g.av(s) is g.av(i)]
        outs.append(same[-1] if r.random() < .7 else int(r.choice(same)))
    exact = [s for s in range(len(g.b.avals)) if not g.dt(s).is_floating_point]
    outs += [int(s) for s in r.choice(exact, int(r.integers(0 if n_carry > 1 else 1, 4)))]
    return Program(g.b.graph(tuple(outs)), g.arrays, frozenset(exact)), n_carry, n_xs


def grow_loop(seed: int) -> Program:
    """A loop over time with a random body, between kernels that make its operands and read its results."""
    r = np.random.default_rng(seed)
    dims = tuple([int(r.choice((1, 2, 3, 5, 8, 17, 33))) for _ in range(int(r.integers(1, 4)))])
    body, n_carry, n_xs = _body(r, seed, dims)
    length = int(r.choice((1, 2, 3, 7)))
    g = Grower(seed, dims, (int64, int32))
    slots = []
    for k, node in enumerate(body.graph.inputs):
        av = node.avals[0]
        shape = (length, *av.shape) if n_carry <= k < n_carry + n_xs else av.shape
        slots.append((g.leaf(shape[::-1], av.dtype), g.chance(.4)))
    ins = []
    for s, changed in slots:
        s = g.emit("permute", (s,), (tuple(range(len(g.shape(s))))[::-1],))
        ins.append(g.emit("add", (s, s)) if changed else s)
    first = g.emit("loop_scan", tuple(ins), (body.graph, n_carry, n_xs, length, bool(r.random() < .4), 0))
    outs = list(range(first, first + len(body.graph.outputs)))
    g.pool += outs[1:]
    outs += [g.emit("bit_xor", (s, s)) if g.chance(.3) else g.emit("bit_not", (s,)) for s in outs if g.chance(.4)]
    return Program(g.b.graph(tuple(outs)), g.arrays, frozenset(range(len(g.b.avals))))
