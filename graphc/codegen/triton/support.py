"""Triton functions that generated kernels call, as source text. A kernel's module holds the ones it needs, each once."""
from __future__ import annotations

from collections.abc import Iterable

_EXTREME = """
@triton.jit
def {name}(a, b):
    \"\"\"The {word} of two; NaN if either is NaN.\"\"\"
    return tl.{name}imum(a, b, propagate_nan=tl.PropagateNan.ALL)
"""

_ARG = """
@triton.jit
def arg{name}(a, i, b, j):
    \"\"\"The {word} of two (value, position) pairs: NaN before all, of equals the earlier position.\"\"\"
    an, bn = a != a, b != b
    better = (b {sign} a) | (bn & (an == 0))
    same = (a == b) | (an & bn)
    take = better | (same & (j < i))
    return tl.where(take, b, a), tl.where(take, j, i)
"""

_PHILOX = """
@triton.jit
def philox(seed, offset, position):
    \"\"\"Word ``position`` of the Philox4x32-10 stream (seed, offset): counter offset + position // 4, word position % 4.

    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    \"\"\"
    counter = offset + (position.to(tl.int64) >> 2)
    a, b = counter.to(tl.uint32), (counter >> 32).to(tl.uint32)
    c, d = tl.zeros_like(a), tl.zeros_like(a)
    k, l = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        low_a, low_c = a, c
        a = tl.umulhi(low_c, tl.full([], 0xCD9E8D57, tl.uint32)) ^ b ^ k
        c = tl.umulhi(low_a, tl.full([], 0xD2511F53, tl.uint32)) ^ d ^ l
        b = low_c * tl.full([], 0xCD9E8D57, tl.uint32)
        d = low_a * tl.full([], 0xD2511F53, tl.uint32)
        k += tl.full([], 0x9E3779B9, tl.uint32)
        l += tl.full([], 0xBB67AE85, tl.uint32)
    word = (position & 3).to(tl.int32)
    return tl.where(word == 0, a, tl.where(word == 1, b, tl.where(word == 2, c, d)))
"""

_REMAINDER = """
@triton.jit
def remainder(a, b):
    \"\"\"a mod b with the sign of b (Python's rule).\"\"\"
    m = libdevice.fmod(a, b)
    m = tl.where((m != 0) & ((b < 0) != (m < 0)), m + b, m)
    return tl.where(m == 0, libdevice.copysign(m, b), m)
"""

_FLOORDIV = """
@triton.jit
def floordiv(a, b):
    \"\"\"Floor of a / b from the exact remainder, as NumPy; a / b where b is 0.\"\"\"
    m = libdevice.fmod(a, b)
    d = quotient(a - m, b)
    d = tl.where((m != 0) & ((b < 0) != (m < 0)), d - 1, d)
    q = tl.floor(d)
    q = tl.where(d - q > 0.5, q + 1, q)
    q = tl.where(d == 0, libdevice.copysign(tl.zeros_like(d), quotient(a, b)), q)
    return tl.where(b == 0, quotient(a, b), q)
"""

_QUOTIENT = """
@triton.jit
def quotient(a, b):
    \"\"\"a / b rounded to nearest.\"\"\"
    if a.dtype == tl.float32:
        return tl.div_rn(a, b)
    else:
        return a / b
"""

_ROOT = """
@triton.jit
def root(a):
    \"\"\"Square root rounded to nearest.\"\"\"
    if a.dtype == tl.float32:
        return tl.sqrt_rn(a)
    else:
        return tl.sqrt(a)
"""

_WHOLE = """
@triton.jit
def whole(a):
    \"\"\"A float as int64, towards zero; what does not fit (and NaN) gives the smallest int64.\"\"\"
    fits = (a >= -9223372036854775808.0) & (a < 9223372036854775808.0)
    return tl.where(fits, tl.where(fits, a, 0.0).to(tl.int64), tl.full([], -9223372036854775808, tl.int64))
"""

_SIGN = """
@triton.jit
def sign(a):
    \"\"\"-1, 0 or 1; zeros keep their sign, NaN gives 0.\"\"\"
    return tl.where(a > 0, 1.0, tl.where(a < 0, -1.0, tl.where(a == 0, a, 0.0))).to(a.dtype)
"""

# psi by recurrence up to x >= 10, then the asymptotic series (Abramowitz and Stegun 6.3.5, 6.3.18; 6.4.6, 6.4.12);
# negative arguments by reflection (6.3.7, 6.4.7).
_DIGAMMA = """
@triton.jit
def digamma(x):
    \"\"\"Derivative of log gamma; NaN at the negative integers, -inf or inf at the zeros.\"\"\"
    reflected = x < 0
    y = tl.where(reflected, 1 - x, x)
    total = tl.zeros_like(y)
    for _ in tl.static_range(10):
        small = y < 10
        total = tl.where(small, total - quotient(tl.full([], 1, y.dtype), y), total)
        y = tl.where(small, y + 1, y)
    r = quotient(tl.full([], 1, y.dtype), y)
    s = r * r
    series = s * (0.08333333333333333 - s * (0.008333333333333333 - s * (0.003968253968253968 - s * (
        0.004166666666666667 - s * (0.007575757575757576 - s * (0.021092796092796094 - s * 0.08333333333333333))))))
    total += libdevice.log(y) - 0.5 * r - series
    part = x - tl.floor(x)
    far = total - quotient(tl.full([], 3.141592653589793, y.dtype), libdevice.tan(3.141592653589793 * part))
    total = tl.where(reflected, tl.where(part == 0, float("nan"), far), total)
    return tl.where(x == 0, libdevice.copysign(tl.full([], float("inf"), y.dtype), -1.0 * x), total)
"""

_TRIGAMMA = """
@triton.jit
def trigamma(x):
    \"\"\"Second derivative of log gamma; inf at the poles.\"\"\"
    reflected = x <= 0
    y = tl.where(reflected, 1 - x, x)
    total = tl.zeros_like(y)
    for _ in tl.static_range(10):
        small = y < 10
        total = tl.where(small, total + quotient(tl.full([], 1, y.dtype), y * y), total)
        y = tl.where(small, y + 1, y)
    r = quotient(tl.full([], 1, y.dtype), y)
    s = r * r
    total += r + 0.5 * s + r * s * (0.16666666666666666 - s * (0.03333333333333333 - s * (0.023809523809523808 - s * (
        0.03333333333333333 - s * (0.07575757575757576 - s * (0.2531135531135531 - s * 1.1666666666666667))))))
    sine = libdevice.sin(3.141592653589793 * (x - tl.floor(x)))
    far = quotient(tl.full([], 9.869604401089358, y.dtype), sine * sine) - total
    return tl.where(reflected, tl.where(x == tl.floor(x), float("inf"), far), total)
"""

_LOGADDEXP = """
@triton.jit
def logaddexp(a, b):
    \"\"\"log(exp(a) + exp(b)) without overflow.\"\"\"
    top = tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
    low = tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
    return tl.where(a == b, a + 0.6931471805599453, top + libdevice.log1p(libdevice.exp(low - top)))
"""

_TIMES = """
@triton.jit
def times(a, b):
    \"\"\"Product, for reductions.\"\"\"
    return a * b
"""

_PLUS = """
@triton.jit
def plus(a, b):
    \"\"\"Sum, for running sums.\"\"\"
    return a + b
"""

TEXT = {
    "plus": _PLUS,
    "max": _EXTREME.format(name="max", word="larger"), "min": _EXTREME.format(name="min", word="smaller"),
    "argmax": _ARG.format(name="max", word="larger", sign=">"), "argmin": _ARG.format(name="min", word="smaller", sign="<"),
    "philox": _PHILOX, "remainder": _REMAINDER, "floordiv": _FLOORDIV, "quotient": _QUOTIENT, "root": _ROOT, "whole": _WHOLE,
    "sign": _SIGN, "digamma": _DIGAMMA, "trigamma": _TRIGAMMA, "logaddexp": _LOGADDEXP, "times": _TIMES,
}
_CALLS = {"floordiv": ("quotient",), "digamma": ("quotient",), "trigamma": ("quotient",)}


def module(body: str, helpers: Iterable[str]) -> str:
    """A whole module: imports, the helpers and what they call, the body."""
    wanted = set(helpers)
    for h in list(wanted):
        wanted.update(_CALLS.get(h, ()))
    head = "import triton\nimport triton.language as tl\nfrom triton.language.extra import libdevice\n"
    return head + "".join("\n" + TEXT[h] for h in TEXT if h in wanted) + "\n\n" + body
