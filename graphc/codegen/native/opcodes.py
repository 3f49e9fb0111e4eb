"""The pointwise opcodes of the loop IR as LLVM instructions, for scalars and vectors of every dtype.

Registers hold: bool as i1, integers at their width, float16 and bfloat16 as float already rounded to 16 bits (every
operation rounds, so results do not depend on what was fused), float32 and float64 as themselves. Memory holds bool as
one byte and 16-bit floats as 16 bits; :func:`load_convert` and :func:`store_convert` go between the two.
"""
from __future__ import annotations

import math

from ...dtypes import bfloat16, bool_, dtype, float16, float32, float64
from . import integers, vmath
from .llvm import Function, const, is_float, lanes, scalar_of, vec

_MEMORY = {"bool": "i8", "uint8": "i8", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64", "uint32": "i32",
           "float16": "i16", "bfloat16": "i16", "float32": "float", "float64": "double"}


def memory_type(dt: dtype) -> str:
    """LLVM type of one element in memory."""
    return _MEMORY[dt.name]


def register_type(dt: dtype) -> str:
    """LLVM type of one value while computing."""
    return "i1" if dt is bool_ else "float" if dt in (float16, bfloat16) else _MEMORY[dt.name]


def is_half(dt: dtype) -> bool:
    """float16 or bfloat16."""
    return dt is float16 or dt is bfloat16


def _like(ty: str, scalar: str) -> str:
    return vec(lanes(ty), scalar)


def load_convert(f: Function, dt: dtype, ty: str, a: str) -> str:
    """Memory value ``a`` (vector or scalar of width of ``ty``) as a register value of type ``ty``."""
    w = lanes(ty)
    if dt is bool_:
        return f.cmp("ne", vec(w, "i8"), a, const(vec(w, "i8"), 0))
    if dt is bfloat16:
        wide = f.cast("zext", vec(w, "i16"), a, vec(w, "i32"))
        return f.cast("bitcast", vec(w, "i32"), f.op("shl", vec(w, "i32"), wide, const(vec(w, "i32"), 16)), ty)
    if dt is float16:
        return f.cast("fpext", vec(w, "half"), f.cast("bitcast", vec(w, "i16"), a, vec(w, "half")), ty)
    return a


def store_convert(f: Function, dt: dtype, ty: str, a: str) -> str:
    """Register value as its memory form."""
    w = lanes(ty)
    if dt is bool_:
        return f.cast("zext", ty, a, vec(w, "i8"))
    if dt is bfloat16:
        bits = f.cast("bitcast", ty, a, vec(w, "i32"))
        return f.cast("trunc", vec(w, "i32"), f.op("lshr", vec(w, "i32"), bits, const(vec(w, "i32"), 16)), vec(w, "i16"))
    if dt is float16:
        return f.cast("bitcast", vec(w, "half"), f.cast("fptrunc", ty, a, vec(w, "half")), vec(w, "i16"))
    return a


def rounded(f: Function, dt: dtype, ty: str, a: str) -> str:
    """A float32 result rounded (to nearest even) to a 16-bit dtype, still held as float; others unchanged."""
    w = lanes(ty)
    if dt is float16:
        return f.cast("fpext", vec(w, "half"), f.cast("fptrunc", ty, a, vec(w, "half")), ty)
    if dt is not bfloat16:
        return a
    i = vec(w, "i32")
    bits = f.cast("bitcast", ty, a, i)
    odd = f.op("and", i, f.op("lshr", i, bits, const(i, 16)), const(i, 1))
    up = f.op("add", i, f.op("add", i, bits, const(i, 0x7FFF)), odd)
    kept = f.op("and", i, up, const(i, -65536))
    nan = f.op("or", i, f.op("and", i, bits, const(i, -65536)), const(i, 0x400000))
    return f.cast("bitcast", i, f.select(i, f.cmp("uno", ty, a, a), nan, kept), ty)


def round_to_odd(f: Function, ty: str, a: str) -> str:
    """A double as float, inexact values to the neighbour with an odd last bit: rounding that once more equals rounding once.

    Boldo and Melquiond, "When double rounding is odd", IMACS 2005.
    """
    w = lanes(ty)
    flt, i = vec(w, "float"), vec(w, "i32")
    near = f.cast("fptrunc", ty, a, flt)
    back = f.cast("fpext", flt, near, ty)
    bits = f.cast("bitcast", flt, near, i)
    above = f.cast("zext", vec(w, "i1"), f.cmp("ogt", ty, f.math1("fabs", ty, back), f.math1("fabs", ty, a)), i)
    odd = f.op("or", i, f.op("sub", i, bits, above), const(i, 1))
    return f.cast("bitcast", i, f.select(i, f.cmp("one", ty, back, a), odd, bits), flt)


def cast(f: Function, src: dtype, ty: str, a: str, dst: dtype) -> str:
    """Conversion as C does it; to bool: != 0; out-of-range floats become the smallest int64, then wrap."""
    w = lanes(ty)
    to = vec(w, register_type(dst))
    if src is dst:
        return a
    if dst is bool_:
        return f.cmp("une" if is_float(ty) else "ne", ty, a, const(ty, 0))
    if is_float(ty):
        if dst is float16 and scalar_of(ty) == "double":
            return rounded(f, dst, to, round_to_odd(f, ty, a))
        if dst.is_floating_point:
            name = "fptrunc" if scalar_of(ty) == "double" and scalar_of(to) == "float" else "fpext"
            return rounded(f, dst, to, f.cast(name, ty, a, to))
        i64 = vec(w, "i64")
        ok = f.op("and", vec(w, "i1"), f.cmp("oge", ty, a, const(ty, -2.0 ** 63)), f.cmp("olt", ty, a, const(ty, 2.0 ** 63)))
        whole = f.cast("fptosi", ty, f.select(ty, ok, a, const(ty, 0)), i64)
        whole = f.select(i64, ok, whole, const(i64, -2 ** 63))
        return f.cast("trunc", i64, whole, to)
    unsigned = src is bool_ or not src.is_signed
    if dst.is_floating_point:
        return rounded(f, dst, to, f.cast("uitofp" if unsigned else "sitofp", ty, a, to))
    if src is bool_ or dst.itemsize > src.itemsize:
        return f.cast("zext" if unsigned else "sext", ty, a, to)
    return f.cast("trunc", ty, a, to)


_COMPARE = {"eq": ("oeq", "eq", "eq"), "ne": ("une", "ne", "ne"), "lt": ("olt", "slt", "ult"), "le": ("ole", "sle", "ule")}
_FLOAT2 = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT2 = {"add": "add", "sub": "sub", "mul": "mul", "bit_and": "and", "bit_or": "or", "bit_xor": "xor"}
_BOOL2 = {"add": "or", "mul": "and", "maximum": "or", "minimum": "and", "bit_and": "and", "bit_or": "or", "bit_xor": "xor"}
_ROUND = {"floor": "floor", "ceil": "ceil", "round": "rint", "trunc": "trunc"}
MATH = frozenset(("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
                  "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "erfinv", "lgamma", "digamma", "trigamma", "pow",
                  "atan2", "fmod", "remainder", "floordiv", "logaddexp"))


def emit(f: Function, op: str, src: dtype, ty: str, args: list[str], dst: dtype) -> str:
    """One pointwise opcode on register values of type ``ty`` (dtype ``src``: that of the last argument)."""
    if op == "where":
        return f.select(ty, args[0], args[1], args[2])
    if op == "cast":
        return cast(f, src, ty, args[0], dst)
    if op in _COMPARE:
        flt, signed, unsigned = _COMPARE[op]
        kind = flt if is_float(ty) else signed if src.is_signed and src is not bool_ else unsigned
        return f.cmp(kind, ty, args[0], args[1])
    if op in ("isnan", "isinf", "logical_not"):
        return _predicate(f, op, ty, args[0])
    if is_float(ty):
        return rounded(f, dst, ty, _float(f, op, ty, args))
    if src is bool_ and op in _BOOL2:
        return f.op(_BOOL2[op], ty, args[0], args[1])
    return _integer(f, op, src, ty, args)


def _predicate(f: Function, op: str, ty: str, a: str) -> str:
    if op == "logical_not":
        return f.cmp("oeq" if is_float(ty) else "eq", ty, a, const(ty, 0))
    if not is_float(ty):
        return const(_like(ty, "i1"), False)
    if op == "isnan":
        return f.cmp("uno", ty, a, a)
    return f.cmp("oeq", ty, f.math1("fabs", ty, a), const(ty, math.inf))


def _float(f: Function, op: str, ty: str, args: list[str]) -> str:
    a = args[0]
    if op in _FLOAT2:
        return f.op(_FLOAT2[op], ty, a, args[1], "contract")
    if op in MATH:
        return vmath.call(f, op, ty, *args)
    if op in ("maximum", "minimum"):
        return f.math2(op, ty, a, args[1])
    if op == "neg":
        return f.let(f"fneg {ty} {a}")
    if op == "abs":
        return f.math1("fabs", ty, a)
    if op == "sqrt":
        return f.math1("sqrt", ty, a)
    if op == "rsqrt":
        return f.op("fdiv", ty, const(ty, 1), f.math1("sqrt", ty, a))
    if op == "reciprocal":
        return f.op("fdiv", ty, const(ty, 1), a)
    if op in _ROUND:
        return f.math1(_ROUND[op], ty, a)
    if op == "sign":
        one = f.math2("copysign", ty, const(ty, 1), a)
        return f.select(ty, f.cmp("one", ty, a, const(ty, 0)), one, const(ty, 0))  # of -0 and NaN: +0
    raise NotImplementedError(op)


def _integer(f: Function, op: str, src: dtype, ty: str, args: list[str]) -> str:
    a = args[0]
    zero = const(ty, 0)
    if op in _INT2:
        return f.op(_INT2[op], ty, a, args[1])
    if op in ("maximum", "minimum"):
        return f.math2(("s" if src.is_signed else "u") + op[:3], ty, a, args[1])
    if op == "neg":
        return f.op("sub", ty, zero, a)
    if op == "bit_not":
        return f.op("xor", ty, a, const(ty, -1) if src is not bool_ else const(ty, True))
    if op == "abs":
        return f.select(ty, f.cmp("slt", ty, a, zero), f.op("sub", ty, zero, a), a) if src.is_signed and src is not bool_ else a
    if op == "sign":
        if src is bool_:
            return a
        pos = f.cast("zext", _like(ty, "i1"), f.cmp("sgt" if src.is_signed else "ugt", ty, a, zero), ty)
        return f.select(ty, f.cmp("slt", ty, a, zero), const(ty, -1), pos) if src.is_signed else pos
    if op in _ROUND:
        return a
    if op in ("shl", "shr") and src is bool_:  # shifted as a number, then != 0
        return a if op == "shl" else f.op("and", ty, a, f.op("xor", ty, args[1], const(ty, True)))
    if op in ("shl", "shr"):
        bits = const(ty, src.itemsize * 8)
        ok = f.cmp("ult", ty, args[1], bits)
        n = f.select(ty, ok, args[1], const(ty, 0))
        name = "shl" if op == "shl" else "ashr" if src.is_signed else "lshr"
        done = f.op(name, ty, a, n)
        over = f.op("ashr", ty, a, const(ty, src.itemsize * 8 - 1)) if name == "ashr" else zero
        return f.select(ty, ok, done, over)
    if op in ("floordiv", "remainder", "fmod") and src is not bool_:
        return integers.divide(f, op, src, ty, a, args[1])
    if op == "pow" and src is not bool_:
        return integers.power(f, src, ty, a, args[1])
    raise NotImplementedError(op)


# ---------------------------------------------------------------------------------------------------------- reductions
_START = {"add": (-0.0, 0, False), "mul": (1.0, 1, True), "max": (-math.inf, None, False), "min": (math.inf, None, True),
          "any": (0.0, 0, False), "all": (1.0, 1, True)}
_COMBINE = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum", "any": "bit_or", "all": "bit_and"}


def identity(kind: str, dt: dtype, ty: str) -> str:
    """The neutral element of a monoid."""
    flt, integer, boolean = _START[kind]
    if dt is bool_:
        return const(ty, boolean)
    if dt.is_floating_point:
        return const(ty, flt)
    if integer is None:
        bits = dt.itemsize * 8
        lo, hi = (-(1 << bits - 1), (1 << bits - 1) - 1) if dt.is_signed else (0, (1 << bits) - 1)
        integer = lo if kind == "max" else hi
    return const(ty, integer)


def combine(f: Function, kind: str, dt: dtype, ty: str, a: str, b: str) -> str:
    """One step of a monoid; 16-bit floats accumulate in float32."""
    acc = float32 if is_half(dt) else dt
    return emit(f, _COMBINE[kind], acc, ty, [a, b], acc)


def better(f: Function, kind: str, dt: dtype, ty: str, a: tuple[str, str], b: tuple[str, str]) -> tuple[str, str]:
    """The more extreme of two (value, position) pairs; NaN is the extreme, of equals the earlier position."""
    w = lanes(ty)
    i1, i64 = vec(w, "i1"), vec(w, "i64")
    flt = is_float(ty)
    sign = "" if flt else "s" if dt.is_signed and dt is not bool_ else "u"
    gt = f.cmp(("o" if flt else sign) + ("gt" if kind == "max" else "lt"), ty, b[0], a[0])
    same = f.cmp("oeq" if flt else "eq", ty, a[0], b[0])
    if flt:
        an, bn = f.cmp("uno", ty, a[0], a[0]), f.cmp("uno", ty, b[0], b[0])
        gt = f.op("or", i1, gt, f.op("and", i1, bn, f.op("xor", i1, an, const(i1, True))))
        same = f.op("or", i1, same, f.op("and", i1, an, bn))
    first = f.cmp("slt", i64, b[1], a[1])
    take = f.op("or", i1, gt, f.op("and", i1, same, first))
    return f.select(ty, take, b[0], a[0]), f.select(i64, take, b[1], a[1])


__all__ = ["MATH", "better", "cast", "combine", "emit", "float64", "identity", "is_half", "load_convert", "memory_type",
           "register_type", "rounded", "store_convert"]
