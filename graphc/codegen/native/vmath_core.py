"""Arithmetic on LLVM values with Python operators, and the registry of vmath's helper functions.

A :class:`V` is an SSA value of a :class:`~graphc.codegen.native.llvm.Function` under construction, scalar or vector; numbers
become literals of its type. No fast-math flag is ever set: the error-free transformations below depend on the exact order.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Union

from .llvm import Function, const, is_float, lanes, mangle, scalar_of, vec

Operand = Union["V", float, int]


class V:
    """One SSA value: ``name`` of LLVM type ``ty`` in function ``f``. Comparisons give i1 values."""

    __slots__ = ("f", "ty", "name")

    def __init__(self, f: Function, ty: str, name: str):
        self.f, self.ty, self.name = f, ty, name

    def lit(self, value: Operand) -> str:
        """An operand of this value's type: a value as it is, a number as a literal."""
        if isinstance(value, V):
            assert value.ty == self.ty, f"{value.ty} where {self.ty} is needed"
            return value.name
        return const(self.ty, value)

    def of(self, value: float | int) -> V:
        """A constant of the same type."""
        return V(self.f, self.ty, const(self.ty, value))

    def _op(self, flt: str, integer: str, a: Operand, b: Operand) -> V:
        name = flt if is_float(self.ty) else integer
        assert name, f"no such operation on {self.ty}"
        return V(self.f, self.ty, self.f.op(name, self.ty, self.lit(a), self.lit(b)))

    def __add__(self, o: Operand) -> V:
        return self._op("fadd", "add", self, o)

    def __radd__(self, o: Operand) -> V:
        return self._op("fadd", "add", o, self)

    def __sub__(self, o: Operand) -> V:
        return self._op("fsub", "sub", self, o)

    def __rsub__(self, o: Operand) -> V:
        return self._op("fsub", "sub", o, self)

    def __mul__(self, o: Operand) -> V:
        return self._op("fmul", "mul", self, o)

    def __rmul__(self, o: Operand) -> V:
        return self._op("fmul", "mul", o, self)

    def __truediv__(self, o: Operand) -> V:
        return self._op("fdiv", "", self, o)

    def __rtruediv__(self, o: Operand) -> V:
        return self._op("fdiv", "", o, self)

    def __neg__(self) -> V:
        return V(self.f, self.ty, self.f.let(f"fneg {self.ty} {self.name}"))

    def __and__(self, o: Operand) -> V:
        return self._op("", "and", self, o)

    def __or__(self, o: Operand) -> V:
        return self._op("", "or", self, o)

    def __xor__(self, o: Operand) -> V:
        return self._op("", "xor", self, o)

    def __invert__(self) -> V:
        return self ^ (True if scalar_of(self.ty) == "i1" else -1)

    def shl(self, n: int) -> V:
        """Shift left."""
        return self._op("", "shl", self, n)

    def lshr(self, n: int) -> V:
        """Shift right, filling with zeros."""
        return self._op("", "lshr", self, n)

    def ashr(self, n: int) -> V:
        """Shift right, filling with the sign."""
        return self._op("", "ashr", self, n)

    def cmp(self, pred: str, o: Operand) -> V:
        """icmp or fcmp, e.g. ``x.cmp("olt", 0)``."""
        return V(self.f, vec(lanes(self.ty), "i1"), self.f.cmp(pred, self.ty, self.name, self.lit(o)))

    def pick(self, a: V, b: Operand) -> V:
        """Of i1: ``a`` where it holds, else ``b``."""
        return V(self.f, a.ty, self.f.select(a.ty, self.name, a.name, a.lit(b)))

    def cast(self, how: str, scalar: str) -> V:
        """A conversion instruction to the type with elements ``scalar``."""
        to = vec(lanes(self.ty), scalar)
        return V(self.f, to, self.f.cast(how, self.ty, self.name, to))

    def bits(self) -> V:
        """Float as integer of the same width."""
        return self.cast("bitcast", "i64" if double(self) else "i32")

    def floats(self) -> V:
        """Integer bits as float."""
        return self.cast("bitcast", "double" if scalar_of(self.ty) == "i64" else "float")

    def wide(self) -> V:
        """float32 as float64 (exact)."""
        return self if double(self) else self.cast("fpext", "double")

    def like(self, o: V) -> V:
        """float64 rounded to the type of ``o``."""
        return self if double(o) else self.cast("fptrunc", "float")

    def math(self, intrinsic: str) -> V:
        """Unary intrinsic: sqrt, fabs, floor, ceil, trunc, rint."""
        return V(self.f, self.ty, self.f.math1(intrinsic, self.ty, self.name))

    def abs(self) -> V:
        """Magnitude."""
        return self.math("fabs")

    def sign_of(self, o: V) -> V:
        """This magnitude with the sign of ``o``."""
        return V(self.f, self.ty, self.f.math2("copysign", self.ty, self.name, o.name))

    def any(self) -> str:
        """Of i1: whether any lane holds, as a scalar i1."""
        if self.ty == "i1":
            return self.name
        return self.f.call(f"llvm.vector.reduce.or.{mangle(self.ty)}", "i1", (self.ty, self.name))

    def at_most(self, bound: float) -> V:
        """Smaller of value and bound; NaN stays NaN."""
        return V(self.f, self.ty, const(self.ty, bound)).cmp("olt", self).pick(self.of(bound), self)

    def at_least(self, bound: float) -> V:
        """Larger of value and bound; NaN stays NaN."""
        return V(self.f, self.ty, const(self.ty, bound)).cmp("ogt", self).pick(self.of(bound), self)


def double(x: V) -> bool:
    """Whether the elements are float64."""
    return scalar_of(x.ty) == "double"


def fma(a: V, b: Operand, c: Operand) -> V:
    """a * b + c, rounded once."""
    return V(a.f, a.ty, a.f.fma(a.ty, a.name, a.lit(b), a.lit(c)))


def poly(x: V, coefficients: Sequence[float]) -> V:
    """Horner's rule, lowest power first."""
    out = x.of(coefficients[-1])
    for c in coefficients[-2::-1]:
        out = fma(out, x, c)
    return out


def fast_two_sum(a: V, b: V) -> tuple[V, V]:
    """a + b as a rounded sum and its exact error; |a| >= |b| or a == 0."""
    s = a + b
    return s, b - (s - a)


def two_prod(a: V, b: Operand) -> tuple[V, V]:
    """a * b as a rounded product and its exact error."""
    p = a * b
    return p, fma(a, b, -p)


class Helper(NamedTuple):
    """A helper function: ``build(*operands)`` emits its body and returns the result."""

    arity: int
    build: Callable[..., V]
    inline: bool


HELPERS: dict[str, Helper] = {}  # the registry: helper name -> how its body is made


def helper(name: str, inline: bool = False) -> Callable[[Callable[..., V]], Callable[..., V]]:
    """Register the body of a helper under ``name``; inline ones become part of every caller's loop."""

    def enter(build: Callable[..., V]) -> Callable[..., V]:
        assert name not in HELPERS, name
        HELPERS[name] = Helper(build.__code__.co_argcount, build, inline)
        return build

    return enter


def symbol(name: str, ty: str) -> str:
    """The LLVM name of a helper for one type."""
    return f"gc_{name}_{mangle(ty)}"


def invoke(name: str, *args: V) -> V:
    """Call a helper on values of one type, and note in the function that its definition is needed."""
    x = args[0]
    callee = symbol(name, x.ty)
    x.f.helpers.add(callee)
    return V(x.f, x.ty, x.f.let(f"call {x.ty} @{callee}({', '.join(f'{a.ty} {a.name}' for a in args)})"))


def libm(name: str, *args: V) -> V:
    """The C library's function on float64, lane by lane."""
    f, ty = args[0].f, args[0].ty
    assert scalar_of(ty) == "double"
    if lanes(ty) == 1:
        return V(f, ty, f.call(name, "double", *[("double", a.name) for a in args]))
    out = "poison"
    for k in range(lanes(ty)):
        one = [("double", f.let(f"extractelement {ty} {a.name}, i64 {k}")) for a in args]
        y = f.call(name, "double", *one)
        out = f.let(f"insertelement {ty} {out}, double {y}, i64 {k}")
    return V(f, ty, out)


def rarely(condition: V, usual: V, name: str, *args: V) -> V:
    """``usual``, but helper ``name`` of ``args`` in the lanes where the condition holds; skipped by a branch if in none.

    The other lanes keep ``usual``: a result never depends on its neighbours.
    """
    f = usual.f
    n = f.fresh("rare")
    before = f.block
    f.emit(f"br i1 {condition.any()}, label %{n}, label %{n}end, !prof !{{!\"branch_weights\", i32 1, i32 2000}}")
    f.label(n)
    merged = condition.pick(invoke(name, *args), usual)
    f.emit(f"br label %{n}end")
    f.label(f"{n}end")
    return V(f, usual.ty, f.let(f"phi {usual.ty} [{usual.name}, %{before}], [{merged.name}, %{n}]"))
