"""``grad``, ``vjp``, ``jvp``, ``linearize`` and the Jacobians, as transforms of functions.

Forward mode needs no rules of its own: a vjp is linear in the cotangent u, so differentiating u -> vjp(u) backwards gives
the jvp (Townsend, "A new trick for calculating Jacobian vector products", 2017). u's own value is used nowhere, and the
compiler drops what only led to it.
"""
from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ..ir import build as P
from ..ir.node import Value
from ..ir.recorder import state
from ..tensor import Tensor, wrap
from ..utils._pytree import tree_flatten, tree_unflatten
from ._levels import Level, enter_tree, leave_tree, outer_tape, pull

Argnums = Any  # int or tuple of ints


def _differentiable(v: Value) -> bool:
    return v.aval.dtype.is_floating_point or v.aval.dtype.is_complex


def _positions(argnums: Argnums, n: int) -> tuple[int, ...]:
    """``argnums`` as positions of ``n`` positional arguments. Raises RuntimeError (PyTorch's) when out of range."""
    if not isinstance(argnums, (int, tuple)):
        raise RuntimeError(f"argnums must be int or Tuple[int, ...], got: {type(argnums)}")
    nums = (argnums,) if isinstance(argnums, int) else argnums
    if not nums:
        raise RuntimeError("argnums must be non-empty")
    for a in nums:
        if not isinstance(a, int) or not -n <= a < n:
            raise RuntimeError(f"Got argnum={a}, but only {n} positional inputs")
    found = tuple([a % n for a in nums])
    if len(set(found)) != len(found):
        raise RuntimeError(f"argnums elements must be unique, got {argnums}")
    return found


def _selected(args: Sequence[Any], argnums: Argnums) -> Any:
    """The argument (int) or tuple of arguments to differentiate with respect to."""
    at = _positions(argnums, len(args))
    return args[at[0]] if isinstance(argnums, int) else tuple([args[i] for i in at])


def _with_selected(args: Sequence[Any], argnums: Argnums, new: Any) -> tuple[Any, ...]:
    at = _positions(argnums, len(args))
    out = list(args)
    for i, x in zip(at, (new,) if isinstance(argnums, int) else new):
        out[i] = x
    return tuple(out)


def _call(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """``func`` with gradients recorded: transforms do so inside ``no_grad``, too."""
    before, state.grad = state.grad, True
    try:
        return func(*args, **kwargs)
    finally:
        state.grad = before


def _split_aux(out: Any, has_aux: bool, name: str) -> tuple[Any, Any]:
    if not has_aux:
        return out, None
    if not (isinstance(out, tuple) and len(out) == 2):
        raise RuntimeError(f"{name}: output of function f should be a tuple: (output, aux) if has_aux is True")
    return out


def _or_zeros(found: Sequence[Value | None], like: Sequence[Value]) -> list[Value]:
    return [P.zeros_like(v) if g is None else g for g, v in zip(found, like)]


# -------------------------------------------------------------------------------------------------------------- reverse
def grad_and_value(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function returning (gradient, value) of ``func``, or (gradient, (value, aux)) with ``has_aux``.

    The gradient is a tree like the argument ``argnums`` (a tuple of them for a tuple). ``func`` must return a zero-dim
    floating tensor. Raises RuntimeError when it does not, ValueError for an argument with leaves that are no tensors.
    """

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        level = Level()
        entered, wrt, spec = _entered(level, args, argnums)
        for v in wrt:
            if not _differentiable(v):
                raise RuntimeError(f"only Tensors of floating point dtype can require gradients, got {v.aval.dtype.name}")
        out, aux = _split_aux(_call(func, entered, kwargs), has_aux, "grad_and_value(f)(*args)")
        value = _scalar_output(out)
        found = pull([value], [P.full_like(value, 1)], wrt, outer_tape(level, [value]))
        grads = tree_unflatten([wrap(level.leave(g)) for g in _or_zeros(found, wrt)], spec)
        result = wrap(level.leave(value))
        return (grads, (result, leave_tree(level, aux))) if has_aux else (grads, result)

    return wrapper


def _scalar_output(out: Any) -> Value:
    if not isinstance(out, Tensor):
        raise RuntimeError(f"grad_and_value(f)(*args): Expected f(*args) to return a Tensor, got {type(out)}")
    v = out._read()
    if v.aval.ndim:
        raise RuntimeError("grad_and_value(f)(*args): Expected f(*args) to return a scalar Tensor, got tensor with "
                           f"{v.aval.ndim} dims. Maybe you wanted to use the vjp or jacrev APIs instead?")
    if not v.aval.dtype.is_floating_point:
        raise RuntimeError(f"grad: the output of f must be real and floating, got {v.aval.dtype.name}")
    return v


def grad(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function returning the gradient of ``func``, or (gradient, aux) with ``has_aux``. See :func:`grad_and_value`."""
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        grads, out = both(*args, **kwargs)
        return (grads, out[1]) if has_aux else grads

    return wrapper


def value_and_grad(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """Like :func:`grad_and_value` with the value first, as other libraries order the two."""
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[::-1]

    return wrapper


def _tensor_outputs(out: Any, name: str) -> tuple[list[Value], Any]:
    leaves, spec = tree_flatten(out)
    if not leaves:
        raise RuntimeError(f"{name}: Expected f to be a function that has non-empty output (got output = {out})")
    for x in leaves:
        if not isinstance(x, Tensor):
            raise RuntimeError(f"{name}: expected f(*args) to return only tensors, got unsupported type {type(x)}")
    return [x._read() for x in leaves], spec


class Pullback:
    """The function a :func:`vjp` returns: cotangents of the outputs to cotangents of the inputs."""

    def __init__(self, level: Level, outs: list[Value], spec: Any, wrt: list[Value], in_spec: Any):
        self.level, self.outs, self.spec, self.wrt, self.in_spec = level, outs, spec, wrt, in_spec

    def flat(self, cots: Sequence[Value | None]) -> list[Value]:
        """The same on flat lists; a missing cotangent counts as zero."""
        entered = [c for c in cots if c is not None]
        taped = outer_tape(self.level, [*self.outs, *entered])
        found = pull(self.outs, cots, self.wrt, taped)
        return [self.level.leave(g) for g in _or_zeros(found, self.wrt)]

    def __call__(self, cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        given, spec = tree_flatten(cotangents)
        if spec != self.spec:
            raise RuntimeError(f"Expected pytree structure of cotangents to be the same as pytree structure of outputs to the "
                               f"function. cotangents: {spec}, primal output: {self.spec}")
        cots = []
        for c, o in zip(given, self.outs):
            v = c._read()
            if v.aval.shape != o.aval.shape:
                raise RuntimeError(f"Expected cotangents of shape {list(o.aval.shape)} for an output, got {list(v.aval.shape)}")
            cots.append(P.cast(v, o.aval.dtype))
        return tree_unflatten([wrap(v) for v in self.flat(cots)], self.in_spec)


def _entered(level: Level, args: Sequence[Any], argnums: Argnums | None) -> tuple[tuple[Any, ...], list[Value], Any]:
    """Enter the arguments ``argnums`` (None: all): (all arguments, the entered values, spec of what was entered)."""
    chosen, leaves, spec = enter_tree(level, tuple(args) if argnums is None else _selected(args, argnums))
    for x in leaves:
        if not isinstance(x, Tensor):
            raise ValueError(f"Thing passed to transform API must be Tensor, got {type(x)}")
    return chosen if argnums is None else _with_selected(args, argnums, chosen), [x._read() for x in leaves], spec


def pullback(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], argnums: Argnums | None, has_aux: bool,
             name: str) -> tuple[list[Value], Any, Pullback, Any]:
    """Run ``func`` in a level of its own: (flat outputs outside the level, their spec, pullback to the arguments
    ``argnums``, aux)."""
    level = Level()
    args, wrt, in_spec = _entered(level, args, argnums)
    out, aux = _split_aux(_call(func, args, kwargs), has_aux, name)
    outs, spec = _tensor_outputs(out, name)
    back = Pullback(level, outs, spec, wrt, in_spec)
    return [level.leave(v) for v in outs], spec, back, leave_tree(level, aux)


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """(outputs, vjp_fn) of ``func(*primals)``, and aux as a third with ``has_aux``.

    ``vjp_fn(cotangents)``, a tree like the outputs, gives a tuple with one cotangent per primal. It may be called any
    number of times, also inside :func:`vmap`.
    """
    outs, spec, back, aux = pullback(func, primals, {}, None, has_aux, "vjp(f, *primals)")
    out = tree_unflatten([wrap(v) for v in outs], spec)
    return (out, back, aux) if has_aux else (out, back)


# -------------------------------------------------------------------------------------------------------------- forward
class Pushforward:
    """Tangents of the inputs to tangents of the outputs, by the transpose of a pullback."""

    def __init__(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], argnums: Argnums | None,
                 has_aux: bool, name: str):
        level = Level()
        args, wrt, self.in_spec = _entered(level, args, argnums)
        out, aux = _split_aux(_call(func, args, kwargs), has_aux, name)
        values, self.spec = _tensor_outputs(out, name)
        self.aux = leave_tree(level, aux)
        self._transpose(level, values, wrt)

    @classmethod
    def of(cls, level: Level, values: list[Value], wrt: list[Value]) -> Pushforward:
        """The pushforward of a function that has been run already; only :meth:`flat` can be used."""
        push = cls.__new__(cls)
        push._transpose(level, values, wrt)
        return push

    def _transpose(self, level: Level, values: list[Value], wrt: list[Value]) -> None:
        self.level, self.values, self.in_avals = level, values, [v.aval for v in wrt]
        self.cots = [level.enter(P.zeros_like(v)) if _differentiable(v) else None for v in values]
        self.pulled = pull(values, self.cots, wrt, True)

    def outputs(self) -> Any:
        return tree_unflatten([wrap(self.level.leave(v)) for v in self.values], self.spec)

    def flat(self, tangents: Sequence[Value | None]) -> list[Value]:
        """Tangents of the outputs; a missing tangent counts as zero."""
        pairs = [(g, t) for g, t in zip(self.pulled, tangents) if g is not None and t is not None and g.gfn is not None]
        roots = [g for g, _ in pairs]
        seeds = [t for _, t in pairs]
        wrt = [c for c in self.cots if c is not None]
        found = iter(pull(roots, seeds, wrt, state.grad and outer_tape(self.level, [*roots, *seeds])))
        out = [next(found) if c is not None else None for c in self.cots]
        return [self.level.leave(v) for v in _or_zeros(out, self.values)]

    def check(self, tangents: Any, name: str) -> list[Value]:
        """Flat tangents that fit the primals. Raises RuntimeError otherwise."""
        given, spec = tree_flatten(tangents)
        if spec != self.in_spec:
            raise RuntimeError(f"{name}: Expected primals and tangents to have the same python structure. For example, if "
                               f"primals is a tuple of 3 tensors, tangents also must be. Got primals with structure "
                               f"{self.in_spec} and tangents with structure {spec}")
        out = []
        for t, av in zip(given, self.in_avals):
            if not isinstance(t, Tensor):
                raise RuntimeError(f"{name}: expected the tangents to be Tensors, got unsupported type {type(t)}")
            v = t._read()
            if v.aval.shape != av.shape:
                raise RuntimeError(f"{name}: expected a tangent of shape {list(av.shape)} for a primal of that shape, got "
                                   f"{list(v.aval.shape)}")
            out.append(P.cast(v, av.dtype))
        return out

    def __call__(self, *tangents: Any) -> Any:
        flat = self.flat(self.check(tangents, "linearize(f, *primals)"))
        return tree_unflatten([wrap(v) for v in flat], self.spec)


def jvp(func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> Any:
    """(outputs, tangents of the outputs) of ``func`` at the tuple ``primals`` in the direction ``tangents``, and aux as a
    third with ``has_aux``. ``strict`` refuses outputs that do not depend on the inputs. Raises RuntimeError.

    Tangents stop at ``no_grad`` and ``detach`` inside ``func``, as gradients do (PyTorch's pass through ``no_grad``)."""
    name = "jvp(f, primals, tangents)"
    for what, given in (("primals", primals), ("tangents", tangents)):
        if not isinstance(given, tuple):
            raise RuntimeError(f"{name}: Expected {what} to be a tuple. E.g. it should be valid to call f(*primals).")
        if not given:
            raise RuntimeError(f"{name}: Expected {what} to be non-empty")
    push = Pushforward(func, primals, {}, None, has_aux, name)
    flat = push.check(tangents, name)
    if strict and any(v.gfn is None for v in push.values):
        raise RuntimeError(f"{name}: the output of f is independent of the inputs, which strict=True forbids")
    result = tree_unflatten([wrap(v) for v in push.flat(flat)], push.spec)
    return (push.outputs(), result, push.aux) if has_aux else (push.outputs(), result)


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """(outputs, jvp_fn) of ``func(*primals)``: ``jvp_fn(*tangents)`` is the linear approximation, without running ``func``
    again."""
    push = Pushforward(func, primals, {}, None, False, "linearize(f, *primals)")
    return push.outputs(), push
