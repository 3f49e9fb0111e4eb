"""The functions of ``torch.autograd.functional``, which hands them out: derivatives of a function at given inputs."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import AutogradError
from ..ir import build as P
from ..ir.node import Value
from ..ir.tape import alias_value
from ..tensor import Tensor, wrap
from ._derivatives import Pullback, Pushforward, pullback
from ._jacobians import reverse_rows
from ._levels import pull

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]


class _Taken:
    """A function run on marked inputs: what the functions below have in common."""

    def __init__(self, name: str, func: Callable[..., Any], inputs: Any, create_graph: bool):
        self.name, self.create_graph = name, create_graph
        self.single_in = isinstance(inputs, Tensor)
        given = self._tensors(inputs, "inputs given to", "given inputs has")
        if not create_graph:
            given = [t.detach() for t in given]
        self.single_out = True

        def run(*args: Any) -> Any:
            out = func(*args)
            self.single_out = isinstance(out, Tensor)
            return tuple(self._tensors(out, "outputs of the user-provided function given to",
                                       "given outputs of the user-provided function has"))

        _, _, self.back, _ = pullback(run, given, {}, None, False, name)
        self.level, self.outs, self.wrt = self.back.level, self.back.outs, self.back.wrt

    def _tensors(self, x: Any, what: str, which: str) -> list[Tensor]:
        if not isinstance(x, (Tensor, tuple)):
            raise TypeError(f"The {what} {self.name} must be either a Tensor or a tuple of Tensors but the {which} type "
                            f"{type(x)}.")
        listed = list(x) if isinstance(x, tuple) else [x]
        for i, t in enumerate(listed):
            if not isinstance(t, Tensor):
                raise TypeError(f"The {what} {self.name} must be either a Tensor or a tuple of Tensors but the value at index "
                                f"{i} of the {which} type {type(t)}.")
        return listed

    def result(self, v: Value) -> Tensor:
        """``v`` for the caller: with a history only if he asked for one."""
        return wrap(self.level.leave(v) if self.create_graph else alias_value(v))

    def per_output(self, items: Sequence[Any]) -> Any:
        return items[0] if self.single_out else tuple(items)

    def per_input(self, items: Sequence[Any]) -> Any:
        return items[0] if self.single_in else tuple(items)

    def require_outputs(self) -> None:
        """Strict mode: every output must depend on an input."""
        for i, v in enumerate(self.outs):
            if v.gfn is None:
                raise AutogradError(f"Output {i} of the user-provided function does not require gradients. The outputs must be "
                                    "computed in a differentiable manner from the input when running in strict mode.")

    def scalar(self) -> Value:
        if not self.single_out:
            raise AutogradError(f"The function given to {self.name} should return a single Tensor")
        if self.outs[0].aval.size != 1:
            raise AutogradError(f"The Tensor returned by the function given to {self.name} should contain a single element")
        return self.outs[0]

    def vector(self, v: Any, like: Sequence[Value], single: bool, what: str) -> list[Value]:
        """The vector ``v`` as Values that fit ``like``; None stands for 1 where there is a single element only."""
        if v is None:
            if len(like) != 1 or not single or like[0].aval.size != 1:
                raise AutogradError(f"The vector v can only be None if {what} a single Tensor with a single element.")
            return [P.full_like(like[0], 1)]
        listed = self._tensors(v, "vector v given to", "given v has")
        if len(listed) != len(like):
            raise AutogradError(f"v is a tuple of invalid length: should be {len(like)} but got {len(listed)}.")
        out = []
        for t, x in zip(listed, like):
            g = t._read()
            if g.aval.shape != x.aval.shape:
                raise AutogradError(f"v has invalid size: should be {wrap(x).size()} but got {t.size()}.")
            out.append(P.cast(g, x.aval.dtype))
        return out

    def gradient(self, strict: bool) -> list[Value]:
        """Gradients of the single output, differentiable again."""
        value = self.scalar()
        if strict:
            self.require_outputs()
        found = pull([value], [P.full_like(value, 1)], self.wrt, True)
        if strict:
            for i, g in enumerate(found):
                if g is None or g.gfn is None:
                    raise AutogradError(f"While computing the hessian, found that the jacobian of the user-provided function "
                                        f"with respect to input {i} is independent of the input. This is not allowed in strict "
                                        "mode.")
        return [P.zeros_like(v) if g is None else g for g, v in zip(found, self.wrt)]


def _check_strategy(name: str, strategy: str, vectorize: bool, strict: bool) -> None:
    if strategy not in ("forward-mode", "reverse-mode"):
        raise AssertionError('Expected strategy to be either "forward-mode" or "reverse-mode".')
    if strategy == "forward-mode" and not vectorize:
        raise NotImplementedError(f"torch.autograd.functional.{name}: forward mode is only implemented for `vectorize=True`.")
    if strict and vectorize:
        raise AutogradError(f"torch.autograd.functional.{name}: `strict=True` and `vectorized=True` are not supported together."
                            " Please either set `strict=False` or `vectorize=False`.")


def jacobian(func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
             strategy: str = "reverse-mode") -> Any:
    """Jacobian of ``func(*inputs)``, each part of shape (*output, *input): a tensor, or tuples over outputs and inputs where
    there are tuples of them. Rows are always computed together, so ``vectorize`` and ``strategy`` change nothing.

    ``create_graph`` makes the result differentiable; ``strict`` raises RuntimeError for an output independent of an input.
    """
    _check_strategy("jacobian", strategy, vectorize, strict)
    t = _Taken("jacobian", func, inputs, create_graph)
    if strict:
        t.require_outputs()
        _require_dependence(t)
    rows = [[t.result(v) for v in reverse_rows(t.back, k)] for k in range(len(t.outs))]
    return t.per_output([t.per_input(r) for r in rows])


def _require_dependence(t: _Taken) -> None:
    for k, v in enumerate(t.outs):
        for i, g in enumerate(pull([v], [P.zeros_like(v)], t.wrt, False)):
            if g is None:
                raise AutogradError(f"Output {k} of the user-provided function is independent of input {i}. This is not "
                                    "allowed in strict mode.")


def hessian(func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
            outer_jacobian_strategy: str = "reverse-mode") -> Any:
    """Hessian of ``func``, which must return one element: a tensor of shape (*input, *input), or a tuple of tuples for a
    tuple of inputs. The arguments are those of :func:`jacobian`."""
    _check_strategy("hessian", outer_jacobian_strategy, vectorize, strict)
    t = _Taken("hessian", func, inputs, create_graph)
    back = Pullback(t.level, t.gradient(strict), None, t.wrt, None)
    return t.per_input([t.per_input([t.result(v) for v in reverse_rows(back, k)]) for k in range(len(t.wrt))])


def vjp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """(outputs, v times the Jacobian of ``func`` at ``inputs``); ``v`` is shaped like the outputs (None: one element)."""
    t = _Taken("vjp", func, inputs, create_graph)
    if strict:
        t.require_outputs()
        _require_dependence(t)
    cots = t.vector(v, t.outs, t.single_out, "the user-provided function returns")
    grads = [t.result(g) for g in t.back.flat(list(cots))]
    return t.per_output([t.result(o) for o in t.outs]), t.per_input(grads)


def jvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """(outputs, the Jacobian of ``func`` at ``inputs`` times v); ``v`` is shaped like the inputs (None: one element)."""
    t = _Taken("jvp", func, inputs, create_graph)
    if strict:
        t.require_outputs()
        _require_dependence(t)
    tangents = t.vector(v, t.wrt, t.single_in, "the input to the user-provided function is")
    push = Pushforward.of(t.level, t.outs, t.wrt)
    found = push.flat(list(tangents))
    return t.per_output([t.result(o) for o in t.outs]), t.per_output([t.result(g) for g in found])


def vhp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """(output, v times the Hessian of ``func`` at ``inputs``) for a ``func`` that returns one element."""
    return _hessian_product("vhp", func, inputs, v, create_graph, strict)


def hvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """(output, the Hessian of ``func`` at ``inputs`` times v). The Hessian is symmetric: the same as :func:`vhp`."""
    return _hessian_product("hvp", func, inputs, v, create_graph, strict)


def _hessian_product(name: str, func: Callable[..., Any], inputs: Any, v: Any, create_graph: bool, strict: bool) -> Any:
    t = _Taken(name, func, inputs, create_graph)
    value = t.scalar()
    grads = t.gradient(strict)
    vector = t.vector(v, t.wrt, t.single_in, "the input to the user-provided function is")
    found = Pullback(t.level, grads, None, t.wrt, None).flat(list(vector))
    return t.result(value), t.per_input([t.result(g) for g in found])
