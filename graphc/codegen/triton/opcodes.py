"""The pointwise opcodes of the loop IR as Triton expressions.

Values while computing: bool as i1, integers at their width, float16 and bfloat16 as float32 already rounded to 16 bits
(every operation rounds, so results do not depend on what was fused), float32 and float64 as themselves. Memory holds
bool as one byte. ``helpers`` collects the names of :mod:`support` functions an expression calls.
"""
from __future__ import annotations

import math

from ...dtypes import bfloat16, bool_, dtype, float16, float32, float64, int64

_NAME = {"bool": "int1", "uint8": "uint8", "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
         "uint32": "uint32", "float16": "float16", "bfloat16": "bfloat16", "float32": "float32", "float64": "float64"}
_POINTER = {"bool": "*u8", "uint8": "*u8", "int8": "*i8", "int16": "*i16", "int32": "*i32", "int64": "*i64", "uint32": "*u32",
            "float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32", "float64": "*fp64"}
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<="}
_ARITH = {"add": "+", "sub": "-", "mul": "*", "bit_and": "&", "bit_or": "|", "bit_xor": "^"}
_BOOL = {"add": "|", "mul": "&", "maximum": "|", "minimum": "&", "bit_and": "&", "bit_or": "|", "bit_xor": "^"}
_LIBRARY = {"exp": "exp", "exp2": "exp2", "expm1": "expm1", "log": "log", "log2": "log2", "log10": "log10", "log1p": "log1p",
            "sin": "sin", "cos": "cos", "tan": "tan", "asin": "asin", "acos": "acos", "atan": "atan", "sinh": "sinh",
            "cosh": "cosh", "tanh": "tanh", "asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "erf": "erf",
            "erfc": "erfc", "erfinv": "erfinv", "lgamma": "lgamma", "pow": "pow", "atan2": "atan2", "fmod": "fmod",
            "round": "rint", "trunc": "trunc", "floor": "floor", "ceil": "ceil"}
_HELPER = {"remainder": "remainder", "floordiv": "floordiv", "digamma": "digamma", "trigamma": "trigamma",
           "logaddexp": "logaddexp", "div": "quotient", "sqrt": "root", "sign": "sign"}
INLINE = frozenset(("add", "sub", "mul", "eq", "ne", "lt", "le", "maximum", "minimum", "where"))  # take literal operands


def is_half(dt: dtype) -> bool:
    """float16 or bfloat16."""
    return dt is float16 or dt is bfloat16


def pointer_type(dt: dtype) -> str:
    """Triton's signature type of a pointer to elements of ``dt``."""
    return _POINTER[dt.name]


def register(dt: dtype) -> str:
    """Triton's dtype of a value while computing."""
    return "tl.float32" if is_half(dt) else "tl." + _NAME[dt.name]


def literal(value: float | int | bool, dt: dtype) -> str | None:
    """A number as it may stand inside an expression with a tensor of the same dtype, or None if it needs a type."""
    if dt is float32 or is_half(dt):
        return f'float("{value}")' if not math.isfinite(value) else repr(float(value))
    if dt.name in ("int32", "int64") and -2 ** 31 < value < 2 ** 31:
        return str(int(value))
    return None


def constant(value: float | int | bool, dt: dtype) -> str:
    """A number as a scalar of its own type."""
    text = literal(value, float32) if dt.is_floating_point else str(int(value))
    return f"tl.full([], {text}, {register(dt)})"


def loaded(dt: dtype, text: str) -> str:
    """A memory value as a register value."""
    return f"{text} != 0" if dt is bool_ else f"{text}.to(tl.float32)" if is_half(dt) else text


def stored(dt: dtype, text: str) -> str:
    """A register value as its memory form."""
    return f"{text}.to(tl.uint8)" if dt is bool_ else f"{text}.to(tl.{_NAME[dt.name]})" if is_half(dt) else text


def rounded(dt: dtype, text: str) -> str:
    """A float32 result rounded to a 16-bit dtype, still held as float32; others unchanged."""
    return f"({text}).to(tl.{dt.name}).to(tl.float32)" if is_half(dt) else text


def cast(src: dtype, a: str, dst: dtype, helpers: set[str]) -> str:
    """Conversion as C does it; to bool: != 0; out-of-range floats become the smallest int64, then wrap."""
    if src is dst:
        return a
    if dst is bool_:
        return f"{a} != 0"
    if src.is_floating_point and not dst.is_floating_point:
        helpers.add("whole")
        return f"whole({a})" if dst is int64 else f"whole({a}).to({register(dst)})"
    if is_half(dst):
        if src is float64 and dst is bfloat16:
            a = f"{a}.to(tl.float32)"
        elif not src.is_floating_point:
            a = f"{a}.to(tl.float32)"
        return f"{a}.to(tl.{dst.name}).to(tl.float32)"
    return a if register(src) == register(dst) else f"{a}.to({register(dst)})"


def emit(op: str, src: dtype, args: list[str], dst: dtype, helpers: set[str]) -> str:
    """One pointwise opcode; ``src`` is the dtype of the last argument. Raises NotImplementedError for unknown ones."""
    a = args[0]
    if op == "where":
        return f"tl.where({a}, {args[1]}, {args[2]})"
    if op == "cast":
        return cast(src, a, dst, helpers)
    if op in _COMPARE:
        if src is bool_:
            args = [f"{x}.to(tl.int32)" for x in args]
        return f"{args[0]} {_COMPARE[op]} {args[1]}"
    if op == "logical_not":
        return f"{a} == 0"
    if op in ("isnan", "isinf"):
        if not src.is_floating_point:
            return f"tl.zeros_like({a}) != 0"
        return f"{a} != {a}" if op == "isnan" else f'tl.abs({a}) == float("inf")'
    if src.is_floating_point:
        return rounded(dst, _float(op, args, helpers))
    if src is bool_:
        return _bool(op, args)
    return _integer(op, src, args)


def _float(op: str, args: list[str], helpers: set[str]) -> str:
    a = args[0]
    if op in _ARITH:
        return f"{a} {_ARITH[op]} {args[1]}"
    if op in ("maximum", "minimum"):
        return f"tl.{op}({a}, {args[1]}, propagate_nan=tl.PropagateNan.ALL)"
    if op in _LIBRARY:
        return f"libdevice.{_LIBRARY[op]}({', '.join(args)})"
    if op in _HELPER:
        helpers.add(_HELPER[op])
        return f"{_HELPER[op]}({', '.join(args)})"
    if op == "neg":
        return f"-1.0 * {a}"  # unary minus is 0 - x, which loses the sign of zero
    if op == "abs":
        return f"tl.abs({a})"
    if op in ("rsqrt", "reciprocal"):
        helpers.add("quotient")
        if op == "rsqrt":
            helpers.add("root")
            a = f"root({a})"
        return f"quotient(tl.full([], 1, {args[0]}.dtype), {a})"
    raise NotImplementedError(op)


def _bool(op: str, args: list[str]) -> str:
    if op in _BOOL:
        return f"{args[0]} {_BOOL[op]} {args[1]}"
    if op == "bit_not":
        return f"{args[0]} == 0"
    if op in ("abs", "sign", "floor", "ceil", "round", "trunc"):
        return args[0]
    raise NotImplementedError(op)


def _integer(op: str, src: dtype, args: list[str]) -> str:
    a = args[0]
    if op in _ARITH:
        return f"{a} {_ARITH[op]} {args[1]}"
    if op in ("maximum", "minimum"):
        return f"tl.{op}({a}, {args[1]})"
    if op == "neg":
        return f"tl.zeros_like({a}) - {a}"
    if op == "bit_not":
        return f"{a} ^ tl.full([], {-1 if src.is_signed else 2 ** (8 * src.itemsize) - 1}, {register(src)})"
    if op == "abs":
        return f"tl.abs({a})" if src.is_signed else a
    if op == "sign":
        below = f" - ({a} < 0).to({register(src)})" if src.is_signed else ""
        return f"({a} > 0).to({register(src)}){below}"
    if op in ("floor", "ceil", "round", "trunc"):
        return a
    if op in ("shl", "shr"):
        bits, n = src.itemsize * 8, args[1]
        fits = f"({n} < {bits})" if not src.is_signed else f"(({n} >= 0) & ({n} < {bits}))"
        by = f"tl.where({fits}, {n}, tl.zeros_like({n}))"
        sign = "<<" if op == "shl" else ">>"
        over = f"({a} >> tl.full([], {bits - 1}, {register(src)}))" if op == "shr" and src.is_signed else f"tl.zeros_like({a})"
        return f"tl.where({fits}, {a} {sign} {by}, {over})"
    raise NotImplementedError(op)


# ---------------------------------------------------------------------------------------------------------- reductions
_START = {"add": (-0.0, 0), "mul": (1.0, 1), "max": (-math.inf, None), "min": (math.inf, None)}


def accumulator(dt: dtype) -> dtype:
    """What a reduction of ``dt`` is computed in."""
    from ...dtypes import int32

    return float32 if is_half(dt) else int32 if dt is bool_ else dt


def identity(kind: str, dt: dtype) -> str:
    """The neutral element of a monoid as text, for an accumulator of ``dt``'s kind."""
    if dt is bool_:
        return "1" if kind in ("all", "mul", "min") else "0"
    flt, integer = _START[kind]
    if dt.is_floating_point:
        return literal(flt, float32) or ""
    if integer is None:
        bits = dt.itemsize * 8
        lo, hi = (-(1 << bits - 1), (1 << bits - 1) - 1) if dt.is_signed else (0, (1 << bits) - 1)
        integer = lo if kind == "max" else hi
    return str(integer)


def widened(dt: dtype, a: str) -> str:
    """A value as its accumulator type."""
    return f"{a}.to(tl.int32)" if dt is bool_ else a


def combine(kind: str, dt: dtype, a: str, b: str) -> str:
    """One elementwise step of a monoid on accumulators."""
    if dt is bool_:
        return f"{a} {'&' if kind in ('all', 'mul', 'min') else '|'} {b}"
    if kind in ("add", "mul"):
        return f"{a} {_ARITH[kind]} {b}"
    nan = ", propagate_nan=tl.PropagateNan.ALL" if dt.is_floating_point else ""
    return f"tl.{kind}imum({a}, {b}{nan})"


def reduce(kind: str, dt: dtype, a: str, helpers: set[str]) -> str:
    """The reduction of accumulators over axis 1, kept with size 1, in ``dt``'s register type."""
    if dt is bool_:
        return f"tl.{'min' if kind in ('all', 'mul', 'min') else 'max'}({a}, 1, keep_dims=True) != 0"
    if kind == "add":
        total = f"tl.sum({a}, 1, keep_dims=True)"
    elif kind == "mul":
        helpers.add("times")
        total = f"tl.reduce({a}, 1, times, keep_dims=True)"
    elif dt.is_floating_point:
        helpers.add(kind)
        total = f"tl.reduce({a}, 1, {kind}, keep_dims=True)"
    else:
        total = f"tl.{kind}({a}, 1, keep_dims=True)"
    if is_half(dt):
        return rounded(dt, total)
    return f"{total}.to({register(dt)})" if not dt.is_floating_point else total
