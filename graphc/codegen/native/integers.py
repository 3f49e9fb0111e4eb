"""Division and powers of integers, for scalars and vectors. Divisors are not 0: who uses these looks at them before."""
from __future__ import annotations

from ...dtypes import dtype
from .llvm import Function, const, lanes, vec


def divide(f: Function, op: str, dt: dtype, ty: str, a: str, b: str) -> str:
    """``floordiv``, ``remainder`` (the divisor's sign) or ``fmod`` (the dividend's); the smallest integer over -1 is itself.

    Up to 32 bits the quotient is found in float64, where it is exact: two different quotients differ by more than its
    rounding error. Vectors have no 64-bit division; those are divided lane by lane.
    """
    w, i1 = lanes(ty), vec(lanes(ty), "i1")
    if dt.is_signed:  # x / -1 as -x / 1: no quotient overflows
        flip = f.cmp("eq", ty, b, const(ty, -1))
        a = f.select(ty, flip, f.op("sub", ty, const(ty, 0), a), a)
        b = f.select(ty, flip, const(ty, 1), b)
    if dt.itemsize == 8:
        q = f.op("sdiv" if dt.is_signed else "udiv", ty, a, b)
    else:
        wide, sign = vec(w, "double"), "s" if dt.is_signed else "u"
        x, y = [f.cast(f"{sign}itofp", ty, v, wide) for v in (a, b)]
        q = f.cast(f"fpto{sign}i", wide, f.op("fdiv", wide, x, y), ty)
    r = f.op("sub", ty, a, f.op("mul", ty, q, b))
    if op == "fmod":
        return r
    if not dt.is_signed:
        return q if op == "floordiv" else r
    crossed = f.op("and", i1, f.cmp("ne", ty, r, const(ty, 0)), f.cmp("slt", ty, f.op("xor", ty, r, b), const(ty, 0)))
    if op == "floordiv":
        return f.op("add", ty, q, f.cast("sext", i1, crossed, ty))
    return f.op("add", ty, r, f.select(ty, crossed, b, const(ty, 0)))


def power(f: Function, dt: dtype, ty: str, a: str, e: str) -> str:
    """a to the power e by squaring, wrapping around; for negative exponents 1 and -1 have inverses, all else gives 0."""
    w, i1 = lanes(ty), vec(lanes(ty), "i1")
    scalar = f"i{8 * dt.itemsize}"
    negative = f.cmp("slt", ty, e, const(ty, 0)) if dt.is_signed else const(i1, False)
    n = f.select(ty, negative, const(ty, 0), e)
    every = n if w == 1 else f.call(f"llvm.vector.reduce.or.v{w}{scalar}", scalar, (ty, n))
    bits = f.sub("64", f.call("llvm.ctlz.i64", "i64", ("i64", f.cast("zext", scalar, every, "i64")), ("i1", "false")))
    one = const(ty, 1)

    def square(_: str, result: str, base: str, left: str) -> tuple[str, str, str]:
        odd = f.cmp("ne", ty, f.op("and", ty, left, one), const(ty, 0))
        return (f.select(ty, odd, f.op("mul", ty, result, base), result), f.op("mul", ty, base, base),
                f.op("lshr", ty, left, one))

    result = f.loop("0", bits, square, [(ty, one), (ty, a), (ty, n)])[0]
    if not dt.is_signed:
        return result
    minus = const(ty, -1)
    even = f.cmp("eq", ty, f.op("and", ty, e, one), const(ty, 0))
    inverse = f.select(ty, f.cmp("eq", ty, a, minus), f.select(ty, even, one, minus), const(ty, 0))
    inverse = f.select(ty, f.cmp("eq", ty, a, one), one, inverse)
    return f.select(ty, negative, inverse, result)
