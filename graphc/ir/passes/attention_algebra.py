"""The algebra in which attention's softmax and its gradient are recognised, whatever their spelling.

Values of the scores' shape and values of one number a row are written as sums of monomials (Laurent polynomials) in

* ``P``, the softmax of x, and ``G``, the cotangent of the output times v^T: of the scores' shape;
* ``m`` (the maximum of a row of x), ``Z`` (the sum of exp(x - m)), sums of monomials over a row, logarithms, run-time
  numbers: constant along a row;
* opaque symbols for what nothing is known about, which may only appear in terms that cancel.

Rules: exp(x - m) = P Z; exp(x - m - log Z) = P; the sum of P over a row is 1; what is constant along a row leaves a sum.
So ``P G - P sum(P G)`` is the one normal form of the softmax's gradient, be it PyTorch's formula, that of log_softmax().exp(),
or exp, sum and division differentiated one by one (where the maximum's own gradient turns out to be a sum that is zero).
"""
from __future__ import annotations

from typing import NamedTuple

Symbol = tuple  # ("P",), ("G",), ("m",), ("Z",), ("sum", monomial), ("log", monomial), ("number", slot), ("opaque", slot)
Mono = tuple  # sorted ((symbol, exponent), ...)
Poly = dict  # monomial -> coefficient

ONE: Mono = ()
P: Symbol = ("P",)
G: Symbol = ("G",)
M: Symbol = ("m",)
Z: Symbol = ("Z",)
MAX_TERMS = 16


class Log(NamedTuple):
    """x plus what is constant along a row."""

    rows: Poly


def symbol(s: Symbol) -> Poly:
    """The polynomial of one symbol."""
    return {((s, 1),): 1.0}


def number(c: float) -> Poly:
    """A constant."""
    return {ONE: c} if c else {}


def is_matrix(mono: Mono) -> bool:
    """Whether a monomial varies along a row."""
    return any(s[0] in ("P", "G", "opaque") for s, _ in mono)


def times(a: Mono, b: Mono) -> Mono:
    """The product of two monomials."""
    exps = dict(a)
    for s, e in b:
        exps[s] = exps.get(s, 0) + e
    return tuple(sorted([(s, e) for s, e in exps.items() if e], key=repr))


def add(a: Poly, b: Poly, sign: float = 1.0) -> Poly:
    """a + sign * b."""
    out = dict(a)
    for mono, c in b.items():
        out[mono] = out.get(mono, 0.0) + sign * c
    return {mono: c for mono, c in out.items() if c}


def mul(a: Poly, b: Poly) -> Poly | None:
    """a * b, or None where it grows too long."""
    out: Poly = {}
    for x, c in a.items():
        for y, d in b.items():
            mono = times(x, y)
            out[mono] = out.get(mono, 0.0) + c * d
    return {mono: c for mono, c in out.items() if c} if len(out) <= MAX_TERMS else None


def inverse(a: Poly) -> Poly | None:
    """1 / a for a single term."""
    if len(a) != 1:
        return None
    ((mono, c),) = a.items()
    return {tuple([(s, -e) for s, e in mono]): 1.0 / c}


def row_sum(a: Poly, size: int) -> Poly:
    """The sum over a row of ``size`` elements."""
    out: Poly = {}
    for mono, c in a.items():
        inner = tuple([t for t in mono if is_matrix((t,))])
        outer = tuple([t for t in mono if not is_matrix((t,))])
        if inner == ((P, 1),):
            inner = ONE
        elif inner == ONE:
            c *= size
        else:
            inner = ((("sum", inner), 1),)
        out = add(out, {times(outer, inner): c})
    return out


def log(a: Poly) -> Poly | None:
    """The logarithm of a row's single term with coefficient 1."""
    if len(a) != 1:
        return None
    ((mono, c),) = a.items()
    return symbol(("log", mono)) if c == 1 and mono and not is_matrix(mono) else None


def exp(x: Log) -> Poly | None:
    """exp(x + rows): P Z times what logarithms give, if the rest is minus the maximum."""
    out: Mono = ((P, 1), (Z, 1))
    rest: Poly = {}
    for mono, c in x.rows.items():
        if len(mono) == 1 and mono[0][0][0] == "log" and mono[0][1] == 1 and c == int(c):
            out = times(out, tuple([(s, e * int(c)) for s, e in mono[0][0][1]]))
        else:
            rest[mono] = c
    return {times(ONE, out): 1.0} if rest == {((M, 1),): -1.0} else None


GRADIENT: Poly = add({times(((P, 1),), ((G, 1),)): 1.0},
                     {times(((P, 1),), ((("sum", times(((P, 1),), ((G, 1),))), 1),)): 1.0}, -1.0)  # of x
