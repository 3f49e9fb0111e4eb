"""Fits the polynomials of graphc/codegen/native/vmath_coeffs.py; run it to write that file anew (about a minute).

Each fit is a weighted least-squares fit at Chebyshev nodes in 60-digit arithmetic: the weight turns the error of the
polynomial into the relative error of the function built on it, and Chebyshev nodes bring least squares within a small
factor of the minimax error. Coefficients are rounded to the working precision one by one, lowest power first, and the rest
is fitted again after each rounding, so that rounding costs almost nothing. The reported error is the largest weighted one on a grid
ten times finer, with the rounded coefficients.
"""
from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mpmath as mp
import numpy as np

mp.mp.dps = 60
Fn = Callable[[Any], Any]


class Fit(NamedTuple):
    """One polynomial in u(x) for target(x) on [lo, hi]; the error is weighted by weight(x)."""

    name: str
    doc: str
    target: Fn
    u: Fn
    weight: Fn
    lo: Any
    hi: Any
    terms: int
    single: bool  # coefficients rounded to float32, else to float64


def nodes(lo: Any, hi: Any, n: int) -> np.ndarray:
    """Chebyshev nodes of an interval."""
    lo, hi = mp.mpf(lo), mp.mpf(hi)
    return np.array([(lo + hi) / 2 + (hi - lo) / 2 * mp.cos((2 * k + 1) * mp.pi / (2 * n)) for k in range(n)], object)


def rounded(c: Any, single: bool) -> Any:
    """A coefficient in the working precision."""
    return mp.mpf(float(np.float32(float(c)))) if single else mp.mpf(float(c))


def solve(columns: list[np.ndarray], rhs: np.ndarray) -> list[Any]:
    """Least squares by normal equations (60 digits leave room for their condition number)."""
    a = np.stack(columns, axis=1)
    return list(mp.lu_solve(mp.matrix((a.T @ a).tolist()), mp.matrix((a.T @ rhs).tolist())))


def fit(spec: Fit) -> tuple[list[float], float]:
    """Coefficients, lowest power first, and the largest weighted error."""
    x = nodes(spec.lo, spec.hi, 8 * spec.terms + 8)
    w = np.array([abs(spec.weight(v)) for v in x], object)
    u = np.array([spec.u(v) for v in x], object)
    rest = w * np.array([spec.target(v) for v in x], object)
    done: list[Any] = []
    for j in range(spec.terms):
        c = rounded(solve([w * u ** k for k in range(j, spec.terms)], rest)[0], spec.single)
        done.append(c)
        rest = rest - w * u ** j * c
    fine = nodes(spec.lo, spec.hi, 80 * spec.terms + 80)
    err = max(abs(spec.weight(v) * (mp.polyval(done[::-1], spec.u(v)) - spec.target(v))) for v in fine)
    return [float(c) for c in done], float(err)


def _square(x: Any) -> Any:
    return x * x


def _same(x: Any) -> Any:
    return x


def _odd(name: str, doc: str, fn: Fn, hi: Any, terms: int, single: bool) -> Fit:
    """fn(x) = x + x * z * P(z), z = x*x."""
    return Fit(name, doc, lambda x: (fn(x) / x - 1) / (x * x), _square, lambda x: x ** 3 / fn(x), 0, hi, terms, single)


def specs() -> list[Fit]:
    """Every polynomial."""
    out: list[Fit] = []
    third = mp.log(2) / 2 * mp.mpf("1.0005")
    for p, single, n in (("F32", True, 0), ("F64", False, 1)):
        out += [
            Fit(f"EXP_{p}", "(exp(r) - 1 - r) / r^2 in r, |r| <= log(2)/2", lambda r: (mp.expm1(r) - r) / r ** 2, _same,
                lambda r: r ** 2 / mp.exp(r), -third, third, (5, 10)[n], single),
            Fit(f"EXPM1_{p}", "(exp(r) - 1 - r) / r^2 in r, |r| <= log(2)/2, relative to exp(r) - 1",
                lambda r: (mp.expm1(r) - r) / r ** 2, _same, lambda r: r ** 2 / mp.expm1(r), -third, third, (6, 10)[n], single),
            Fit(f"EXP2_{p}", "(2^r - 1) / r in r, |r| <= 1/2", lambda r: mp.expm1(r * mp.log(2)) / r, _same,
                lambda r: r / mp.mpf(2) ** r, "-0.5001", "0.5001", (6, 12)[n], single),
            _odd(f"TANH_{p}", "tanh(x) = x + x z P(z), z = x^2 <= 0.625^2", mp.tanh, "0.6251", (5, 11)[n], single),
            Fit(f"ERF_{p}", "erf(x) = x + x P(z), z = x^2 <= 1", lambda x: mp.erf(x) / x - 1, _square,
                lambda x: x / mp.erf(x), 0, "1.0001", (7, 13)[n], single),
            Fit(f"ERFC_LOG_{p}", "-log(erfc(a)) in a, 1 <= a <= 4 (float32) or 6 (float64), relative to erf(a)",
                lambda a: -mp.log(mp.erfc(a)), _same, lambda a: mp.erfc(a) / mp.erf(a), 1, (4, 6)[n], (7, 18)[n], single),
            _odd(f"SIN_{p}", "sin(r) = r + r z P(z), z = r^2, |r| <= pi/4", mp.sin, "0.7860", (3, 6)[n], single),
            Fit(f"COS_{p}", "cos(r) = 1 - z/2 + z^2 P(z), z = r^2, |r| <= pi/4",
                lambda r: (mp.cos(r) - 1 + r * r / 2) / r ** 4, _square, lambda r: r ** 4 / mp.cos(r), 0, "0.7860", (3, 6)[n],
                single),
        ]
    out += [
        Fit("LOG_F32", "(log(1+f) - f + f^2/2) / f^3 in f, sqrt(1/2) <= 1+f <= sqrt(2)",
            lambda f: (mp.log1p(f) - f + f * f / 2) / f ** 3, _same, lambda f: f ** 3 / mp.log1p(f), "-0.2930", "0.4143", 9, True),
        Fit("LOG_F64", "log(1+f) = 2 s + s z P(z), s = f / (2 + f), z = s^2, sqrt(1/2) <= 1+f <= sqrt(2)",
            lambda s: (2 * mp.atanh(s) / s - 2) / (s * s), _square, lambda s: s ** 3 / (2 * mp.atanh(s)), 0, "0.17160", 7, False),
    ]
    return out + float32_specs()


def float32_specs() -> list[Fit]:
    """Polynomials evaluated in float64 for float32 results, or to start an iteration."""

    def erfinv(w: Any) -> Any:  # as a function of w = -log(1 - y^2), over y
        y = mp.sqrt(-mp.expm1(-w))
        return mp.erfinv(y) / y

    def erfcx(t: Any) -> Any:
        a = 2 / t - 2
        return mp.erfc(a) * mp.exp(a * a)

    return [
        _odd("ATAN_30", "atan(q) = q + q z P(z), z = q^2 <= 1", mp.atan, "1.0001", 10, False),
        Fit("ERFCX_30", "erfc(a) exp(a^2) in t = 2 / (2 + a), 1 <= a <= 11", erfcx, _same, lambda t: 1 / erfcx(t),
            mp.mpf(2) / 13, mp.mpf(2) / 3, 9, False),
        Fit("ERFINV_NEAR", "erfinv(y) / y in w = -log(1 - y^2) <= 6", erfinv, _same, lambda w: 1 / erfinv(w), 0, 6, 13, False),
        Fit("ERFINV_FAR", "erfinv(y) / y in sqrt(w), 6 <= w <= 37", lambda s: erfinv(s * s), _same, lambda s: 1 / erfinv(s * s),
            mp.sqrt(6), mp.sqrt(37), 17, False),
    ]


def parts(value: Any, bits: list[int]) -> list[float]:
    """``value`` as a sum of floats with so many significant bits each."""
    out: list[float] = []
    for b in bits:
        unit = mp.mpf(2) ** (int(mp.floor(mp.log(abs(value), 2))) + 1 - b)
        out.append(float(mp.nint(value / unit) * unit))
        value -= out[-1]
    return out


def constants() -> list[tuple[str, str, list[float]]]:
    """Constants in several parts."""
    out = []
    for p, full, short in (("F32", 24, 16), ("F64", 53, 42)):
        out += [
            (f"LN2_{p}", "log(2), full parts", parts(mp.log(2), [full] * 2)),
            (f"LN2_SHORT_{p}", "log(2), the first part so short that multiples by an exponent are exact",
             parts(mp.log(2), [short, full])),
            (f"LOG10_2_SHORT_{p}", "log10(2), likewise", parts(mp.log10(2), [short, full])),
            (f"LOG2E_{p}", "log2(e)", parts(1 / mp.log(2), [full] * 2)),
            (f"LOG10E_{p}", "log10(e)", parts(1 / mp.log(10), [full] * 2)),
            (f"HALF_PI_{p}", "pi/2", parts(mp.pi / 2, [full] * 3)),
        ]
    return out


def main() -> None:
    """Write the file, errors as comments."""
    path = Path(__file__).parent.parent / "graphc" / "codegen" / "native" / "vmath_coeffs.py"
    lines = ['"""Polynomial coefficients, lowest power first; written by tools/fit_polynomials.py, not by hand."""']
    for name, doc, values in constants():
        lines.append(f"\n# {doc}")
        lines.append(f"{name} = ({', '.join(repr(v) for v in values)})")
    for spec in specs():
        coefficients, err = fit(spec)
        print(f"{spec.name}: 2^{np.log2(err):.1f}", file=sys.stderr)
        lines.append(f"\n# {spec.doc}: error 2^{np.log2(err):.1f}")
        lines.append(f"{spec.name} = (\n" + "".join(f"    {c!r},\n" for c in coefficients) + ")")
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
