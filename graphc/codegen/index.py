"""Integer index expressions over the iteration variables of a kernel, kept in a simplified canonical form.

An expression :class:`Ix` is ``const + sum(coef * atom)``. An atom is an iteration variable (its number), a quotient or
remainder ``(op, Ix, divisor)`` that could not be resolved, or ``("data", statement, size)``: an integer that the kernel
computes, known to lie in 0 .. size-1. Variables run from 0 to extent - 1, and ranges derived from
the extents decide what simplifies: movement ops compose into one such expression per axis, and in nearly all programs
every division goes away (or goes away once an axis is split, see :func:`split_at`).
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Atom = Any  # int: iteration variable; ("//" | "%", Ix, divisor); ("data", statement, size)


class Ix(NamedTuple):
    """const + sum of coef * atom; terms are sorted, coefficients are not zero."""

    const: int
    terms: tuple[tuple[Atom, int], ...]


ZERO = Ix(0, ())


def num(n: int) -> Ix:
    """The constant ``n``."""
    return Ix(n, ())


def var(d: int) -> Ix:
    """Iteration variable ``d``."""
    return Ix(0, ((d, 1),))


def _order(atom: Atom) -> tuple[int, Any]:
    return (0, atom) if isinstance(atom, int) else (1, repr(atom))


def _make(const: int, coefs: dict[Atom, int]) -> Ix:
    coefs = {a: c for a, c in coefs.items() if c}
    quotients = [a for a in coefs if not isinstance(a, int) and a[0] == "//"]
    for q in quotients:  # k*c*(e // c) + k*(e % c) = k*e
        rest = ("%", q[1], q[2])
        k = coefs.get(rest)
        if k is not None and coefs.get(q) == k * q[2]:
            del coefs[q], coefs[rest]
            const += k * q[1].const
            for a, c in q[1].terms:
                coefs[a] = coefs.get(a, 0) + k * c
            return _make(const, coefs)
    if len(coefs) < 2:
        return Ix(const, tuple(coefs.items()))
    return Ix(const, tuple(sorted(coefs.items(), key=lambda t: _order(t[0]))))


def add(a: Ix, b: Ix) -> Ix:
    """a + b."""
    if not b.terms:
        return Ix(a.const + b.const, a.terms)
    if not a.terms:
        return Ix(a.const + b.const, b.terms)
    coefs = dict(a.terms)
    for atom, c in b.terms:
        coefs[atom] = coefs.get(atom, 0) + c
    return _make(a.const + b.const, coefs)


def datum(stmt: int, size: int) -> Ix:
    """An integer computed by a statement, in 0 .. size-1."""
    return Ix(0, ((("data", stmt, size), 1),))


def scale(a: Ix, k: int) -> Ix:
    """k * a."""
    return ZERO if k == 0 else Ix(a.const * k, tuple([(t, c * k) for t, c in a.terms]))


def bounds(a: Ix, ext: Sequence[int]) -> tuple[int, int]:
    """Smallest and largest value over the iteration space (assumed not empty)."""
    lo = hi = a.const
    for atom, c in a.terms:
        if isinstance(atom, int):
            x, y = 0, ext[atom] - 1
        elif atom[0] in ("%", "data"):
            x, y = 0, atom[2] - 1
        else:
            x, y = bounds(atom[1], ext)
            x, y = x // atom[2], y // atom[2]
        lo, hi = (lo + c * x, hi + c * y) if c > 0 else (lo + c * y, hi + c * x)
    return lo, hi


def _divide(a: Ix, d: int, ext: Sequence[int]) -> tuple[Ix, Ix]:
    """(quotient, rest) with a = d * quotient + rest, moving out every term that divides evenly."""
    out: list[Any] = []
    left: list[Any] = []
    for t in a.terms:
        (out if t[1] % d == 0 else left).append(t)
    q = Ix(a.const // d, tuple([(t, c // d) for t, c in out]))
    return q, Ix(a.const % d, tuple(left))


def floordiv(a: Ix, d: int, ext: Sequence[int]) -> Ix:
    """a // d."""
    if d == 1:
        return a
    q, r = _divide(a, d, ext)
    lo, hi = bounds(r, ext)
    if lo // d == hi // d:
        return Ix(q.const + lo // d, q.terms)
    if lo < 0:  # printers divide without sign: what is divided must not be negative
        q, r = Ix(q.const + lo // d, q.terms), Ix(r.const - lo // d * d, r.terms)
    big, _, g = _coarse(r, d, ext)
    return add(q, floordiv(big, d // g, ext) if g == d else Ix(0, ((("//", big, d // g), 1),)))


def _coarse(r: Ix, d: int, ext: Sequence[int]) -> tuple[Ix, Ix, int]:
    """(big, small, g) with r = g * big + small, 0 <= small < g and g dividing d: division by d sees only ``big``."""
    terms = sorted(r.terms, key=lambda t: -abs(t[1]))
    g = d
    cuts = []
    for k, (_, c) in enumerate(terms):
        g = math.gcd(g, c)
        cuts.append((k + 1, g))
    for k, g in cuts:
        small = Ix(r.const % g, tuple(terms[k:]))
        lo, hi = bounds(small, ext)
        if 0 <= lo and hi < g:
            return _make(r.const // g, {t: c // g for t, c in terms[:k]}), _make(small.const, dict(small.terms)), g
    raise AssertionError("the last cut always fits")


def mod(a: Ix, d: int, ext: Sequence[int]) -> Ix:
    """a % d."""
    if d == 1:
        return ZERO
    _, r = _divide(a, d, ext)
    lo, hi = bounds(r, ext)
    if lo // d == hi // d:
        return Ix(r.const - (lo // d) * d, r.terms)
    if lo < 0:
        r = Ix(r.const - lo // d * d, r.terms)
    big, small, g = _coarse(r, d, ext)
    return small if g == d else add(small, Ix(0, ((("%", big, d // g), g),)))


def flatten(index: Sequence[Ix], shape: Sequence[int]) -> Ix:
    """C-order position of a multi-index."""
    out = ZERO
    stride = 1
    for i, n in zip(reversed(index), reversed(shape)):
        out = add(out, scale(i, stride))
        stride *= n
    return out


def unflatten(flat: Ix, shape: Sequence[int], ext: Sequence[int]) -> tuple[Ix, ...]:
    """Multi-index of a C-order position."""
    out = []
    rest = flat
    for k, n in zip(range(len(shape) - 1, -1, -1), reversed(shape)):  # from the last axis, so that flatten undoes it
        out.append(ZERO if n == 1 else rest if k == 0 else mod(rest, n, ext))
        rest = floordiv(rest, n, ext)
    return tuple(reversed(out))


def variables(a: Ix) -> frozenset[int]:
    """All iteration variables the expression depends on."""
    found: set[int] = set()
    stack = [a]
    while stack:
        for atom, _ in stack.pop().terms:
            if isinstance(atom, int):
                found.add(atom)
            elif atom[0] != "data":
                stack.append(atom[1])
    return frozenset(found)


def data(a: Ix) -> list[int]:
    """Statements whose values are part of the expression."""
    found: list[int] = []
    stack = [a]
    while stack:
        for atom, _ in stack.pop().terms:
            if not isinstance(atom, int):
                if atom[0] == "data":
                    found.append(atom[1])
                else:
                    stack.append(atom[1])
    return found


def is_affine(a: Ix) -> bool:
    """No unresolved division left."""
    return all(isinstance(t, int) for t, _ in a.terms)


def coefficient(a: Ix, d: int) -> int | None:
    """Stride of variable ``d``, or None when it also sits inside a division."""
    c = 0
    for atom, k in a.terms:
        if isinstance(atom, int):
            if atom == d:
                c = k
        elif atom[0] != "data" and d in variables(atom[1]):
            return None
    return c


def substitute(a: Ix, new: Mapping[int, Ix], ext: Sequence[int]) -> Ix:
    """Replace variables by expressions over variables whose extents are ``ext``."""
    out = num(a.const)
    for atom, c in a.terms:
        if isinstance(atom, int):
            e = new[atom]
        elif atom[0] == "data":
            e = Ix(0, ((atom, 1),))
        else:
            inner = substitute(atom[1], new, ext)
            e = floordiv(inner, atom[2], ext) if atom[0] == "//" else mod(inner, atom[2], ext)
        out = add(out, scale(e, c))
    return out


def split_at(a: Ix, ext: Sequence[int]) -> tuple[int, int] | None:
    """(variable, divisor) whose splitting resolves a division inside the expression, if there is one.

    ``(x + k*y) // d`` with y's extent e and k*e a multiple of d: split y at d/k.
    """
    stack = [a]
    while stack:
        for atom, _ in stack.pop().terms:
            if isinstance(atom, int) or atom[0] == "data":
                continue
            stack.append(atom[1])
            inner, d = atom[1], atom[2]
            for v, c in inner.terms:
                if isinstance(v, int) and c > 0 and d % c == 0 and 1 < d // c < ext[v] and ext[v] % (d // c) == 0:
                    return v, d // c
    return None


def covers(a: Ix, dims: Sequence[int], ext: Sequence[int], size: int) -> bool:
    """Whether the expression maps the points of ``dims`` one to one onto 0 .. size-1."""
    if not is_affine(a) or a.const != 0:
        return False
    live = [d for d in dims if ext[d] > 1]
    if {t for t, _ in a.terms if ext[t] > 1} != set(live):
        return False
    stride = 1
    for d, c in sorted([(t, c) for t, c in a.terms if ext[t] > 1], key=lambda t: t[1]):
        if c != stride:
            return False
        stride *= ext[d]
    return stride == size


def text(a: Ix, names: Sequence[str] | None = None) -> str:
    """Readable form, e.g. ``64*i0 + i1``."""
    parts = []
    for atom, c in a.terms:
        if isinstance(atom, int):
            s = names[atom] if names else f"i{atom}"
        elif atom[0] == "data":
            s = f"%{atom[1]}"
        else:
            inner = text(atom[1], names)
            s = f"({f'({inner})' if ' + ' in inner else inner} {atom[0]} {atom[2]})"
        parts.append(s if c == 1 else f"{c}*{s}")
    if a.const or not parts:
        parts.append(str(a.const))
    return " + ".join(parts)
