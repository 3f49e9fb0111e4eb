"""The op table: one complete row per operation, or the row is refused.

A primitive's columns are its kind, attribute names, shape/dtype rule, NumPy meaning, loop lowering, vjp, what the vjp
saves, and sample inputs that one parametrised test sweeps over every back end and through gradcheck. A composite has
an expansion into other ops instead of a NumPy meaning and a loop lowering.

``vjp(ctx, g)`` gets the :class:`~graphc.ir.tape.GradNode` as ``ctx`` (``ctx.ins`` holds the saved inputs, ``ctx.out``
the saved output, ``ctx.attrs``, ``ctx.in_avals``, ``ctx.needs``) and the cotangent Value (a tuple of Value-or-None for
ops with several outputs); it returns one Value or None per input. Non-differentiable ops say ``vjp=None``.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import VerifyError
from .infer import common_device
from .node import Aval

KINDS = ("leaf", "pointwise", "view", "reduce", "scan", "contract", "index", "sort", "random", "control", "opaque")
_MISSING: Any = object()


class Op:
    """Common columns of primitives and composites. Compared by identity."""

    __slots__ = ("name", "kind", "attrs", "infer", "vjp", "save_ins", "save_out", "samples", "n_out", "doc", "saves_any")

    is_composite = False

    def __init__(self, name: str, *, kind: str, attrs: tuple[str, ...], infer: Callable[..., Any],
                 vjp: Callable[..., Any] | None, saves: tuple[Any, ...], samples: Any, n_out: int, doc: str):
        if kind not in KINDS:
            raise VerifyError(f"op {name}: unknown kind {kind!r}")
        self.name, self.kind, self.attrs, self.infer, self.vjp = name, kind, attrs, infer, vjp
        self.save_out = "out" in saves
        self.save_ins: tuple[int, ...] | None = None if "ins" in saves else tuple(s for s in saves if s != "out")
        self.saves_any = bool(saves)
        self.samples, self.n_out, self.doc = samples, n_out, doc

    def infer_avals(self, attrs: Any, in_avals: tuple[Aval, ...]) -> tuple[Aval, ...]:
        """Output avals for these inputs; raises the user-facing error when they do not fit."""
        if len(in_avals) > 1 and any(a.device is not in_avals[0].device for a in in_avals):
            common_device(self.name, *in_avals)
        out = self.infer(attrs, *in_avals)
        return out if isinstance(out, tuple) else (out,)

    def __repr__(self) -> str:
        return f"<op {self.name}>"


class Prim(Op):
    """A primitive: has a NumPy meaning (the definition) and a loop lowering."""

    __slots__ = ("eval_np", "loop")

    def __init__(self, name: str, *, kind: str = _MISSING, attrs: tuple[str, ...] = _MISSING,
                 infer: Callable[..., Any] = _MISSING, eval_np: Callable[..., Any] = _MISSING, loop: Any = _MISSING,
                 vjp: Callable[..., Any] | None = _MISSING, saves: tuple[Any, ...] = _MISSING,
                 samples: Callable[[], Sequence[Any]] = _MISSING, n_out: int = 1, doc: str = ""):
        _require_columns(name, locals(), ("kind", "attrs", "infer", "eval_np", "loop", "vjp", "saves", "samples"))
        super().__init__(name, kind=kind, attrs=attrs, infer=infer, vjp=vjp, saves=saves, samples=samples, n_out=n_out,
                         doc=doc)
        self.eval_np, self.loop = eval_np, loop


class Composite(Op):
    """A named composition recorded as one node: ``expand(attrs, *values)`` gives its meaning in other ops."""

    __slots__ = ("expand", "kernel_tag")

    is_composite = True

    def __init__(self, name: str, *, attrs: tuple[str, ...] = _MISSING, infer: Callable[..., Any] = _MISSING,
                 expand: Callable[..., Any] = _MISSING, vjp: Callable[..., Any] | None = _MISSING,
                 saves: tuple[Any, ...] = _MISSING, samples: Callable[[], Sequence[Any]] = _MISSING,
                 n_out: int = 1, kind: str = "pointwise", kernel_tag: str = "", doc: str = ""):
        _require_columns(name, locals(), ("attrs", "infer", "expand", "vjp", "saves", "samples"))
        super().__init__(name, kind=kind, attrs=attrs, infer=infer, vjp=vjp, saves=saves, samples=samples, n_out=n_out,
                         doc=doc)
        self.expand, self.kernel_tag = expand, kernel_tag


def _require_columns(name: str, given: dict[str, Any], columns: tuple[str, ...]) -> None:
    missing = [c for c in columns if given[c] is _MISSING]
    if missing:
        raise VerifyError(f"op {name}: the row lacks {', '.join(missing)}")


OPS: dict[str, Op] = {}  # the table: op name -> row


def register(op: Op) -> Op:
    """Enter a row. A name can be taken once."""
    if op.name in OPS:
        raise VerifyError(f"op {op.name} is already in the table")
    OPS[op.name] = op
    return op


def prim(name: str, **columns: Any) -> Prim:
    """Register a primitive."""
    row = Prim(name, **columns)
    register(row)
    return row


def composite(name: str, **columns: Any) -> Composite:
    """Register a composite."""
    row = Composite(name, **columns)
    register(row)
    return row
