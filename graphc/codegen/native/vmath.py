"""The vector math library: NumPy's elementary functions as LLVM code for scalars and vectors of float32 and float64.

:func:`call` emits a call of a helper function, ``gc_exp_v16f32`` for exp of 16 float32 lanes; :func:`definitions` gives the
text of the helpers a module needs. Special values (zeros, infinities, NaN, overflow, denormals) are those of NumPy's
functions and of graphc/ir/prims/special.py. ``MAX_ULP`` is what the tests hold every function to.
"""
from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from . import vmath_exp, vmath_gamma, vmath_log, vmath_rare, vmath_trig
from .llvm import Function, vec
from .vmath_core import HELPERS, V, invoke

_MODULES = (vmath_exp, vmath_gamma, vmath_log, vmath_rare, vmath_trig)  # importing them fills HELPERS

# function -> largest error in units of the last place: float32, float64
MAX_ULP: dict[str, tuple[float, float]] = {
    "exp": (0.9, 0.9), "exp2": (0.8, 0.8), "expm1": (1.5, 1.7), "log": (0.8, 0.9), "log2": (1.0, 1.0), "log10": (0.9, 1.0),
    "log1p": (1.5, 1.5), "sin": (1.6, 1.6), "cos": (1.6, 1.6), "tan": (0.51, 1.0), "asin": (0.6, 1.0), "acos": (0.6, 1.0),
    "atan": (0.6, 1.0), "sinh": (0.51, 2.5), "cosh": (0.51, 1.5), "tanh": (1.4, 1.4), "asinh": (0.51, 2.0),
    "acosh": (0.51, 2.0), "atanh": (0.51, 2.0), "erf": (1.1, 1.2), "erfc": (0.7, 5.0), "erfinv": (0.6, 4.0),
    "lgamma": (0.6, 4.0), "digamma": (0.6, 8.0), "trigamma": (0.51, 8.0),
    "pow": (0.51, 1.0), "atan2": (0.6, 1.0), "fmod": (0.0, 0.0), "remainder": (0.0, 0.0), "floordiv": (0.0, 0.0),
    "logaddexp": (0.6, 2.0),
}
# float64 functions whose sums cancel next to their zeros: below 1, their unit is that of 1
UNIT_OF_ONE = frozenset(("lgamma", "digamma", "logaddexp"))


def call(f: Function, name: str, ty: str, *args: str) -> str:
    """Emit function ``name`` of values of type ``ty`` (``float``, ``double`` or a vector of them); returns the result."""
    assert HELPERS[name].arity == len(args), f"{name} takes {HELPERS[name].arity} operands"
    return invoke(name, *[V(f, ty, a) for a in args]).name


def definitions(names: Iterable[str]) -> str:
    """Definitions of the helpers ``names`` (``Function.helpers``) and of those they call, with declarations of libm."""
    seen = set(names)
    todo = sorted(seen)
    texts: list[str] = []
    declares: set[str] = set()
    while todo:
        text, needs, outside = _definition(todo.pop())
        texts.append(text)
        declares |= outside
        todo += sorted(needs - seen)
        seen |= needs
    return "\n".join([*sorted(declares), *sorted(texts)])


@cache
def _definition(name: str) -> tuple[str, frozenset[str], frozenset[str]]:
    """One helper: its text, the helpers it calls, and declarations (intrinsics need none)."""
    base, kind = name[len("gc_"):].rsplit("_", 1)
    ty = _type(kind)
    row = HELPERS[base]
    params = [f"%a{k}" for k in range(row.arity)]
    f = Function(name, ", ".join(f"{ty} {p}" for p in params), f"internal {ty}",
                 ("alwaysinline" if row.inline else "noinline") + " nounwind")
    out = row.build(*[V(f, ty, p) for p in params])
    f.emit(f"ret {ty} {out.name}")
    return f.text(), frozenset(f.helpers), frozenset(d for d in f.declares if "@llvm." not in d)


def _type(kind: str) -> str:
    """The LLVM type of a suffix: ``v16f32`` is ``<16 x float>``."""
    width, bits = kind[1:].split("f") if kind[0] == "v" else ("1", kind[1:])
    return vec(int(width), "double" if bits == "64" else "float")
