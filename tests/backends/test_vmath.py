"""The vector math library against wider arithmetic: every function, float32 and float64, several widths and scalars."""
from __future__ import annotations

import ctypes
import functools
import math

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from graphc.codegen.native import opcodes, vmath
from graphc.codegen.native.llvm import Function, mangle, module, vec
from graphc.ir.optable import OPS
from graphc.ir.prims import special
from graphc.runtime import jit

pytestmark = pytest.mark.skipif(not jit.available(), reason="no native code here")

F32, F64, WIDE = np.float32, np.float64, np.longdouble
WIDTHS = [(F32, 16), (F32, 8), (F32, 1), (F64, 8), (F64, 4), (F64, 1)]
EXACT = ("fmod", "remainder", "floordiv")
BINARY = ("pow", "atan2", "logaddexp", *EXACT)
GAMMA = ("lgamma", "digamma", "trigamma")
NUMPY = {"asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
         "pow": np.power, "atan2": np.arctan2}


# ------------------------------------------------------------------------------------------------------------ native code
def kernel(name, dtype, width):
    """Symbol and text of a kernel that applies a function to arrays whose size is a multiple of the width."""
    ty = vec(width, "float" if dtype == F32 else "double")
    f = Function(f"{name}_{mangle(ty)}")
    n_in = 2 if name in BINARY else 1
    *ins, out = [f.arg(k, "ptr") for k in range(n_in + 1)]

    def body(i):
        args = [f.load(ty, f.at(ty, p, i)) for p in ins]
        f.store(ty, vmath.call(f, name, ty, *args), f.at(ty, out, i))

    f.loop("0", f.arg(n_in + 1), body, step=width)
    return f.name, module([f], vmath.definitions(f.helpers))


@functools.cache
def compiled(name, dtype, width):
    """The kernel as a C function."""
    symbol, text = kernel(name, dtype, width)
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(jit.engine().functions({symbol: text})[symbol])


def run(name, width, *xs):
    """The function by native code."""
    dtype, n = xs[0].dtype.type, xs[0].size
    padded = [np.concatenate([x, np.ones(-n % 16, dtype)]) for x in xs]
    out = np.empty_like(padded[0])
    words = (ctypes.c_int64 * (len(xs) + 2))(*[x.ctypes.data for x in padded], out.ctypes.data, out.size)
    compiled(name, dtype, width)(words, 0, 1)
    return out[:n]


# ---------------------------------------------------------------------------------------------------- samples, references
def specials(dtype):
    """Zeros, infinities, NaN, the ends of the ranges, and numbers at which formulas change."""
    i = np.finfo(dtype)
    ends = [0, np.inf, np.nan, i.max, i.tiny, i.smallest_subnormal, i.tiny / 2, i.eps, 2.0 ** 15, 2.0 ** 22, 2.0 ** 30, 2.0 ** 51,
            1, 2, 3, 8, 10, 100, 1000, 0.5, 0.25, 0.625, 0.46875, 1.5, 1.4616321449683622, 4, 6, 30, 88.72284, 88.72283, 89.41598,
            103.97208, 103.97283, 128, 127, 149, 150, 126, 709.782712893384, 710.4758600739439, 745.1332191019411, 1022, 1024,
            1074, 1075, np.pi, np.pi / 2, np.pi / 4, np.log(2) / 2, 1e5, 1e10, 1e22]
    with np.errstate(over="ignore"):
        a = np.array(ends).astype(dtype)
        a = np.concatenate([a, np.nextafter(a, dtype(np.inf)), np.nextafter(a, dtype(0))])
    return np.concatenate([a, -a])


def samples(dtype, n):
    """Special values, all bit patterns alike, and numbers of ordinary size."""
    rng = np.random.default_rng(n)
    ints = np.int32 if dtype == F32 else np.int64
    info = np.iinfo(ints)
    return np.concatenate([specials(dtype), rng.integers(info.min, info.max, n // 2, ints).view(dtype),
                           (rng.standard_normal(n // 4) * 3).astype(dtype), rng.uniform(-1, 1, n // 8).astype(dtype),
                           rng.uniform(-120, 120, n // 8).astype(dtype), rng.integers(-40, 40, n // 8).astype(dtype)])


def by_mpmath(name, x):
    """Reference by mpmath in 40 digits, at extended precision; special values by the NumPy meaning."""
    mpmath = pytest.importorskip("mpmath")
    fn = {"lgamma": lambda v: mpmath.re(mpmath.loggamma(v)), "digamma": mpmath.digamma, "trigamma": lambda v: mpmath.psi(1, v)}
    with np.errstate(all="ignore"):
        out = getattr(special, name)(x).astype(WIDE)
    with mpmath.workdps(40):
        for k, v in enumerate(x):
            pole = name in GAMMA and v <= 0 and v == np.rint(v)
            far = abs(v) >= (1 if name == "erfinv" else 1e3 if name in ("erf", "erfc") else np.inf)
            if np.isfinite(v) and v != 0 and not pole and not far:
                y = fn.get(name, getattr(mpmath, name, None))(mpmath.mpf(float(v)))
                high = float(y)
                out[k] = WIDE(high) + (WIDE(float(y - high)) if np.isfinite(high) else 0)
    return out


def reference(name, *xs):
    """The function in wider arithmetic than the operands'."""
    narrow = xs[0].dtype.type == F32
    with np.errstate(all="ignore"):
        if name in EXACT:
            return np.asarray(OPS[name].eval_np((), *xs))
        if hasattr(special, name):
            return getattr(special, name)(xs[0].astype(F64)) if narrow else by_mpmath(name, xs[0])
        return NUMPY.get(name, getattr(np, name, None))(*[x.astype(F64 if narrow else WIDE) for x in xs])


def ulp_errors(got, want, floor=0.0):
    """Distance from ``want`` in units of its last place; infinite where zeros' signs, infinities or NaN differ."""
    info = np.finfo(got.dtype)
    w = want.dtype.type
    with np.errstate(all="ignore"):
        near = want.astype(got.dtype)
        _, e = np.frexp(np.maximum(np.abs(want), max(w(info.tiny), w(floor))))
        err = np.abs(got.astype(w) - want) / np.ldexp(w(1), e - 1 - info.nmant)
        over = w(info.max) * (1 + 2 * w(info.eps))
    same = (got == near) & (np.signbit(got) == np.signbit(near)) | np.isnan(got) & np.isnan(near)
    finite = np.isfinite(got) & np.isfinite(near) & ~((got == 0) & (near == 0))
    limit = np.isinf(near) & (np.abs(got) == info.max) & (np.abs(want) < over)
    return np.where(finite, err, np.where(same | limit, 0, np.inf))


def check(name, width, *xs):
    """Compare native code with the reference, within MAX_ULP."""
    dtype = xs[0].dtype.type
    want = reference(name, *xs)
    got = run(name, width, *xs)
    err = ulp_errors(got, want, 1.0 if dtype == F64 and name in vmath.UNIT_OF_ONE else 0.0)
    worst = int(err.argmax())
    bound = vmath.MAX_ULP[name][dtype == F64]
    assert err[worst] <= bound, f"{name}{tuple(x[worst] for x in xs)} = {got[worst]!r}, want {want[worst]!r}: {err[worst]} ulp > {bound}"
    for dt, w in WIDTHS:  # the same bits at every width
        if dt == dtype and w != width:
            assert run(name, w, *xs).tobytes() == got.tobytes() or np.array_equal(run(name, w, *xs), got, equal_nan=True)


def operands(name, dtype):
    """Arrays to test a function on."""
    if name in BINARY:
        rng = np.random.default_rng(3)
        s, some = specials(dtype)[::3], samples(dtype, 8000)
        a, b = np.meshgrid(s, s)
        plain = rng.standard_normal(4000).astype(dtype)
        return (np.concatenate([a.ravel(), some, plain * 3, np.abs(plain)]),
                np.concatenate([b.ravel(), rng.permutation(some), plain[::-1], (rng.integers(-12, 12, 4000) / 2).astype(dtype)]))
    if dtype == F64 and hasattr(special, name):  # mpmath is slow
        x = np.concatenate([specials(dtype), np.random.default_rng(1).uniform(-6 if name not in GAMMA else -30, 30, 400),
                            np.random.default_rng(2).uniform(-2, 2, 300), np.geomspace(1e-300, 1e-1, 60)])
        far = (x < -1e3) & np.isfinite(x) if name in GAMMA else np.abs(x) < 0  # reflection there loses digits, and time
        return (x[~far & ~(np.abs(x) > 1e15)] if name in GAMMA else x,)
    return (samples(dtype, 300_000 if dtype == F32 else 80_000),)


# ------------------------------------------------------------------------------------------------------------------- tests
def test_the_table_covers_every_opcode():
    assert opcodes.MATH == set(vmath.MAX_ULP)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", vmath.MAX_ULP)
def test_error_and_special_values(name, dtype):
    check(name, 16 if dtype == F32 else 8, *operands(name, dtype))


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_large_angles(name):
    """Above the bound of the reduction: the C library, whatever the lanes next to it are; below: next to multiples of pi/2."""
    far = np.float64([1e22, 2.0 ** 1023, 5319372648326541 * 2.0 ** 60, 6381956970095103 * 2.0 ** 797, 2.0 ** 30 + 0.25])
    got = run(name, 8, np.insert(far, 1, 0.5))
    assert np.delete(got, 1).tolist() == [getattr(math, name)(v) for v in far]
    assert got[1] == run(name, 8, np.float64([0.5]))[0]
    k = np.random.default_rng(0).integers(1, 2 ** 29, 4000)
    check(name, 8, k * (np.pi / 2))
    check(name, 16, (np.concatenate([k % 20000, k]) * (np.pi / 2)).astype(F32))
    check(name, 16, np.float32([1e22, 3e38, 16367173 * 2.0 ** 72, 32768.5, 117435.992, 2.0 ** 30]))


@pytest.mark.parametrize("name,base", [("log2", 2.0), ("log10", 10.0)])
def test_logarithms_of_powers_are_exact(name, base):
    for dtype, width, top in ((F32, 16, 10), (F64, 8, 22)):
        k = np.arange(top + 1)
        assert np.array_equal(run(name, width, (dtype(base) ** k).astype(dtype)), k.astype(dtype))


def test_definitions_hold_each_helper_once_with_what_it_calls():
    f = Function("k")
    for name in ("logaddexp", "erfinv", "exp", "exp"):
        vmath.call(f, name, "<8 x double>", "zeroinitializer", *["zeroinitializer"] * (name == "logaddexp"))
    text = vmath.definitions(f.helpers)
    for helper in ("exp", "log1p", "log", "erf", "erfc", "erfinv", "logaddexp"):
        assert text.count(f"define internal <8 x double> @gc_{helper}_v8f64(") == 1
    assert text.count("declare double @erfc(double)") == 1
    assert text == vmath.definitions(reversed(sorted(f.helpers)))


def test_call_checks_the_number_of_operands():
    with pytest.raises(AssertionError, match="pow takes 2"):
        vmath.call(Function("k"), "pow", "float", "%a")
