"""Forward mode by dual tensors: ``with dual_level(): out = f(make_dual(x, t)); unpack_dual(out).tangent``.

A dual tensor carries a gradient edge of the level; unpacking transposes the pullback to all duals of the level (see
``_derivatives.py``). So tangents stop where gradients do, at ``no_grad`` and ``detach``, and a dual tensor says that it
requires a gradient.
"""
from __future__ import annotations

import threading
from typing import NamedTuple

from ..ir.node import Value
from ..tensor import Tensor, wrap
from ._derivatives import Pushforward
from ._levels import Level

__all__ = ["UnpackedDualTensor", "dual_level", "enter_dual_level", "exit_dual_level", "make_dual", "unpack_dual"]


class UnpackedDualTensor(NamedTuple):
    """What :func:`unpack_dual` returns."""

    primal: Tensor
    tangent: Tensor | None


class _Duals:
    """The dual tensors of one level."""

    def __init__(self) -> None:
        self.level = Level()
        self.primals: list[Value] = []
        self.tangents: list[Value] = []


class _Stack(threading.local):
    """The level this thread is inside of."""

    def __init__(self) -> None:
        self.open: list[_Duals] = []


_stack = _Stack()


def enter_dual_level() -> int:
    """Open a level. RuntimeError inside of another one."""
    if _stack.open:
        raise RuntimeError("Nested forward mode AD is not supported at the moment")
    _stack.open.append(_Duals())
    return 0


def exit_dual_level(*, level: int | None = None) -> None:
    """Close the level; its tangents are gone. RuntimeError when there is none."""
    if not _stack.open:
        raise RuntimeError("Trying to exit a forward AD level, but none exists. Dual level must be a positive number.")
    if level not in (None, 0):
        raise RuntimeError("Trying to exit a forward AD level that was not the last one that was created.")
    _stack.open.pop()


class dual_level:
    """Context manager around :func:`enter_dual_level` and :func:`exit_dual_level`."""

    def __enter__(self) -> int:
        return enter_dual_level()

    def __exit__(self, *exc: object) -> None:
        exit_dual_level()


def _current(what: str) -> _Duals:
    if not _stack.open:
        raise RuntimeError(f"Trying to {what} for forward AD but no level exists, make sure to enter_dual_level() first.")
    return _stack.open[-1]


def make_dual(tensor: Tensor, tangent: Tensor, *, level: int | None = None) -> Tensor:
    """``tensor`` with ``tangent`` (same shape and dtype), for computing in the present level. Raises RuntimeError outside of
    a level or for a tangent that does not fit, ValueError for integers."""
    duals = _current("create a dual Tensor")
    v, t = tensor._read(), tangent._read()
    for which, x in (("primal", v), ("tangent", t)):
        if not (x.aval.dtype.is_floating_point or x.aval.dtype.is_complex):
            raise ValueError(f"Expected {which} to be floating point or complex, but got: {x.aval.dtype}")
    if v.aval.shape != t.aval.shape or v.aval.dtype is not t.aval.dtype:
        raise RuntimeError(f"Expected a tangent of shape {list(v.aval.shape)} and dtype {v.aval.dtype}, got "
                           f"{list(t.aval.shape)} and {t.aval.dtype}")
    entered = duals.level.enter(v)
    duals.primals.append(entered)
    duals.tangents.append(t)
    return wrap(entered)


def unpack_dual(tensor: Tensor, *, level: int | None = None) -> UnpackedDualTensor:
    """(primal, tangent) of a tensor computed from dual ones; the tangent is None where it depends on none."""
    if not _stack.open:
        return UnpackedDualTensor(tensor, None)
    duals = _current("unpack a dual Tensor")
    v = tensor._read()
    if v.gfn is None or not duals.primals:
        return UnpackedDualTensor(tensor, None)
    for p, t in zip(duals.primals, duals.tangents):
        if v.gfn is p.gfn:  # a dual itself
            return UnpackedDualTensor(wrap(duals.level.leave(v)), wrap(t))
    push = Pushforward.of(duals.level, [v], duals.primals)
    if all(g is None for g in push.pulled):
        return UnpackedDualTensor(tensor, None)
    return UnpackedDualTensor(wrap(duals.level.leave(v)), wrap(push.flat(list(duals.tangents))[0]))
