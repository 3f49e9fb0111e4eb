"""Index expressions against brute force: every operation equals integer arithmetic at every point of its space, and what is
called canonical, covering, bounded or affine is so."""
from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from graphc.codegen import index
from graphc.codegen.index import Ix
from graphc.codegen.loop_ir import Guard
from graphc.codegen.verify import narrowed

SEEDS = range(400)


def points(ext: Sequence[int], data: dict[Any, int] | None = None) -> dict[Any, np.ndarray]:
    """All points of the space, and of the data atoms' values."""
    sizes = [*ext, *(data or {}).values()]
    grid = np.indices(sizes).reshape(len(sizes), -1) if sizes else np.zeros((0, 1), np.int64)
    return dict(zip([*range(len(ext)), *(data or {})], grid))


def value(a: Ix, at: dict[Any, np.ndarray]) -> np.ndarray:
    """The expression at all points; atoms are evaluated from what they mean."""
    total = np.asarray(a.const, np.int64)
    for atom, c in a.terms:
        if atom in at:
            v = at[atom]
        else:
            kind, inner, d = atom
            v = value(inner, at) // d if kind == "//" else value(inner, at) % d
        total = total + c * v
    return np.broadcast_to(total, next(iter(at.values())).shape) if at else np.atleast_1d(total)


def space(r: np.random.Generator, most: int = 4) -> tuple[int, ...]:
    return tuple([int(r.choice([1, 2, 3, 4, 5, 6, 7, 8, 12])) for _ in range(int(r.integers(1, most + 1)))])


def affine(r: np.random.Generator, ext: Sequence[int]) -> Ix:
    out = index.num(int(r.integers(-20, 30)))
    for d in range(len(ext)):
        if r.random() < .8:
            out = index.add(out, index.scale(index.var(d), int(r.choice([-7, -3, -2, -1, 1, 1, 2, 3, 4, 5, 6, 8, 12, 24, 36]))))
    return out


def tree(r: np.random.Generator, ext: Sequence[int], depth: int = 3) -> tuple[Ix, np.ndarray]:
    """A random expression and what it is at every point, computed apart."""
    at = points(ext)
    if depth == 0 or r.random() < .15:
        a = affine(r, ext)
        return a, value(a, at)
    way = int(r.integers(4))
    a, x = tree(r, ext, depth - 1)
    if way == 0:
        b, y = tree(r, ext, depth - 1)
        return index.add(a, b), x + y
    if way == 1:
        k = int(r.choice([-3, -1, 0, 1, 2, 4, 6]))
        return index.scale(a, k), x * k
    d = int(r.choice([1, 2, 3, 4, 6, 7, 8, 12, 24, 60]))
    return (index.floordiv(a, d, ext), x // d) if way == 2 else (index.mod(a, d, ext), x % d)


@pytest.mark.parametrize("seed", SEEDS)
def test_arithmetic(seed: int) -> None:
    """add, scale, floordiv, mod, and everything said about the result."""
    r = np.random.default_rng(seed)
    for _ in range(5):
        ext = space(r)
        a, want = tree(r, ext)
        np.testing.assert_array_equal(value(a, points(ext)), want)
        lo, hi = index.bounds(a, ext)
        assert lo <= want.min() and want.max() <= hi
        assert all(c != 0 for _, c in a.terms) and len({repr(t) for t, _ in a.terms}) == len(a.terms)
        stack = [t for t, _ in a.terms if not isinstance(t, int)]
        while stack:  # printers divide without sign
            _, inner, _ = stack.pop()
            assert index.bounds(inner, ext)[0] >= 0, index.text(a)
            stack += [t for t, _ in inner.terms if not isinstance(t, int)]
        found = index.variables(a)
        varying = {d for d in range(len(ext)) if not (np.diff(want.reshape(ext), axis=d) == 0).all()}
        assert varying <= found
        if index.is_affine(a):
            assert (lo, hi) == (want.min(), want.max())
            for d in range(len(ext)):
                c = index.coefficient(a, d)
                assert c is not None and (np.diff(want.reshape(ext), axis=d) == c).all()
        for d in range(len(ext)):
            c = index.coefficient(a, d)
            if c is not None:
                assert (np.diff(want.reshape(ext), axis=d) == c).all()
        n = int(r.integers(len(want)))
        assert eval(index.text(a), {f"i{d}": int(v[n]) for d, v in points(ext).items()}) == int(want[n])


@pytest.mark.parametrize("seed", range(200))
def test_flatten_and_unflatten_undo_each_other(seed: int) -> None:
    r = np.random.default_rng(seed)
    ext = space(r)
    shape = list(ext)
    flat = index.flatten([index.var(d) if n != 1 else index.ZERO for d, n in enumerate(ext)], ext)
    at = points(ext)
    np.testing.assert_array_equal(value(flat, at), np.arange(math.prod(ext)))
    for _ in range(3):  # regroup the axes at random
        k = int(r.integers(len(shape)))
        if r.random() < .5 and k + 1 < len(shape):
            shape[k:k + 2] = [shape[k] * shape[k + 1]]
        else:
            d = int(r.choice([d for d in range(1, shape[k] + 1) if shape[k] % d == 0]))
            shape[k:k + 1] = [d, shape[k] // d]
    parts = index.unflatten(flat, shape, ext)
    want = np.unravel_index(np.arange(math.prod(ext)), shape)
    for p, w in zip(parts, want):
        np.testing.assert_array_equal(value(p, at), w)
    assert index.flatten(parts, shape) == flat  # a reshape there and back leaves nothing behind


@pytest.mark.parametrize("seed", range(200))
def test_substitution(seed: int) -> None:
    """Replacing variables by expressions equals evaluating at the replaced values."""
    r = np.random.default_rng(seed)
    old = space(r, 3)
    a, _ = tree(r, old)
    ext = space(r, 3)
    new, values = {}, {}
    for d, n in enumerate(old):
        e, _ = tree(r, ext, 2)
        e = index.mod(e, n, ext)
        new[d], values[d] = e, value(e, points(ext))
    datum = index.datum(5, 7)
    a = index.add(a, index.scale(datum, 3))
    out = index.substitute(a, new, ext)
    (atom, _), = datum.terms
    at = points(ext, {atom: 7})
    inner = {d: np.repeat(v, 7) for d, v in values.items()} | {atom: at[atom]}
    np.testing.assert_array_equal(value(out, at), value(a, inner))
    assert index.data(out) == [5]


@pytest.mark.parametrize("seed", range(200))
def test_splitting_resolves_a_division(seed: int) -> None:
    """split_at names a variable and a divisor of its extent; after the split the value is the same."""
    r = np.random.default_rng(seed)
    for _ in range(10):
        ext = space(r, 3)
        a, want = tree(r, ext, 2)
        hit = index.split_at(a, ext)
        if hit is None:
            continue
        d, size = hit
        assert 1 < size < ext[d] and ext[d] % size == 0
        finer = (*ext[:d], ext[d] // size, size, *ext[d + 1:])
        new = {v: index.var(v if v < d else v + 1) for v in range(len(ext)) if v != d}
        new[d] = index.add(index.scale(index.var(d), size), index.var(d + 1))
        out = index.substitute(a, new, finer)
        np.testing.assert_array_equal(value(out, points(finer)), want)


@pytest.mark.parametrize("seed", range(200))
def test_covers(seed: int) -> None:
    """covers() is exactly "one to one onto 0 .. size-1" for affine expressions over all their axes."""
    r = np.random.default_rng(seed)
    for _ in range(10):
        ext = space(r, 3)
        order = [int(d) for d in r.permutation(len(ext))]
        a = index.flatten([index.var(d) for d in order], [ext[d] for d in order])
        if r.random() < .5:  # damage it
            k = int(r.integers(len(ext)))
            a = [index.add(a, index.num(1)), index.add(a, index.var(k)), index.add(a, index.scale(index.var(k), -1)),
                 index.scale(a, 2)][int(r.integers(4))]
        size = int(r.choice([math.prod(ext), math.prod(ext) + 1]))
        want = sorted(value(a, points(ext)).tolist()) == list(range(size))
        got = index.covers(a, range(len(ext)), ext, size)
        assert not got or want
        if want and all(c > 0 for _, c in a.terms) and a.const == 0:
            assert got


@pytest.mark.parametrize("seed", range(200))
def test_narrowed_ranges_contain_every_point_that_passes(seed: int) -> None:
    """Intervals under guards never lose a point (the verifier relies on it)."""
    r = np.random.default_rng(seed)
    ext = space(r, 3)
    guards = []
    for _ in range(int(r.integers(1, 4))):
        a = affine(r, ext) if r.random() < .7 else tree(r, ext, 2)[0]
        lo = int(r.integers(-10, 20))
        guards.append(Guard(a, lo, lo + int(r.integers(1, 15))))
    at = points(ext)
    ok = np.ones(math.prod(ext), bool)
    for g in guards:
        v = value(g.ix, at)
        ok &= (v >= g.lo) & (v < g.hi)
    found = narrowed(guards, ext)
    if found is None:
        assert not ok.any()
        return
    for d in range(len(ext)):
        lo, hi = found[d]
        assert not ok.any() or (lo <= at[d][ok].min() and at[d][ok].max() <= hi)


def test_divisions_that_can_be_resolved_are() -> None:
    """What reshapes of contiguous axes give has no division left."""
    ext = (6, 4)
    flat = index.add(index.scale(index.var(0), 4), index.var(1))
    assert index.floordiv(flat, 4, ext) == index.var(0)
    assert index.mod(flat, 4, ext) == index.var(1)
    assert index.floordiv(flat, 8, ext) == index.floordiv(index.var(0), 2, ext)
    assert index.mod(flat, 24, ext) == flat
    assert index.floordiv(flat, 24, ext) == index.ZERO
    q, m = index.floordiv(index.var(0), 5, ext), index.mod(index.var(0), 5, ext)
    assert not index.is_affine(q)
    assert index.add(index.scale(q, 5), m) == index.var(0)
    assert index.add(index.scale(q, 10), index.scale(m, 2)) == index.scale(index.var(0), 2)


def test_equal_values_are_equal_expressions() -> None:
    """Every order of adding terms gives the same expression (kernels are shared by it)."""
    parts = [index.var(0), index.scale(index.var(1), 3), index.floordiv(index.var(0), 5, (12, 4)), index.datum(2, 9), index.num(4)]
    first = None
    for order in itertools.permutations(parts):
        total = index.ZERO
        for p in order:
            total = index.add(total, p)
        first = total if first is None else first
        assert total == first
