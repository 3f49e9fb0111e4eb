"""``backward`` and ``grad`` over tensors; derivatives of functions (``torch.autograd.functional``)."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import AutogradError
from ..ir import build as P
from ..ir.node import Value
from ..ir.tape import AccumulateGrad
from ..tensor import Tensor, accumulate_grad, value_of, wrap
from . import engine


def _listed(x: Any) -> list[Any]:
    return list(x) if isinstance(x, (tuple, list)) else [x]


def _seeds(tensors: Sequence[Tensor], grads: Sequence[Any]) -> tuple[list[Any], list[Value]]:
    edges, cots = [], []
    for i, (t, g) in enumerate(zip(tensors, grads)):
        v = t._read()
        if v.gfn is None:
            raise AutogradError(f"element {i} of tensors does not require grad and does not have a grad_fn")
        if g is None:
            if v.aval.size != 1:
                raise AutogradError("grad can be implicitly created only for scalar outputs, got shape "
                                    f"{tuple(v.aval.shape)}; pass gradient= of that shape")
            cot = P.full_like(v, 1)
        else:
            cot = engine.check_cotangent(v, value_of(g), f"grad_output[{i}]")
        edges.append(v.gfn)
        cots.append(cot)
    return edges, cots


def backward(tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None, create_graph: bool = False,
             grad_variables: Any = None, inputs: Any = None) -> None:
    """Accumulate gradients of ``tensors`` into the ``.grad`` of every leaf (or of ``inputs`` only).

    Raises RuntimeError for a non-scalar without ``grad_tensors``, a tensor that needs no gradient, or a graph whose
    saved values were freed by an earlier backward.
    """
    outs = _listed(tensors)
    grads = _listed(grad_tensors) if grad_tensors is not None else [None] * len(outs)
    edges, cots = _seeds(outs, grads)
    keep = create_graph if retain_graph is None else retain_graph
    wrt = None
    if inputs is not None:
        wrt_tensors = _listed(inputs)
        if not wrt_tensors:
            raise AutogradError("'inputs' argument to backward() cannot be empty.")
        wrt = [_edge_of(t) for t in wrt_tensors]
    w = engine.walk(edges, cots, keep=keep, create_graph=create_graph, wrt=wrt)
    if wrt is None:
        engine.deliver(w, accumulate_grad, create_graph)
        return
    for t, e in zip(_listed(inputs), wrt):
        g = w.leaves.get(e) if e.__class__ is AccumulateGrad else w.captured.get(engine.edge_key(e))
        if g is not None:
            accumulate_grad(t, g, create_graph)


def _edge_of(t: Tensor) -> Any:
    edge = t._read().gfn
    if edge is None:
        raise AutogradError("One of the differentiated Tensors does not require grad")
    return edge


def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: bool | None = None,
         create_graph: bool = False, only_inputs: bool = True, allow_unused: bool | None = None,
         is_grads_batched: bool = False, materialize_grads: bool = False) -> tuple[Any, ...]:
    """Gradients of ``outputs`` with respect to ``inputs`` as a tuple of tensors; ``.grad`` fields are untouched."""
    outs, ins = _listed(outputs), _listed(inputs)
    grads = _listed(grad_outputs) if grad_outputs is not None else [None] * len(outs)
    edges, cots = _seeds(outs, grads)
    wrt = [_edge_of(t) for t in ins]
    keep = create_graph if retain_graph is None else retain_graph
    w = engine.walk(edges, cots, keep=keep, create_graph=create_graph, wrt=wrt)
    results: list[Any] = []
    for i, (t, e) in enumerate(zip(ins, wrt)):
        g = w.leaves.get(e) if e.__class__ is AccumulateGrad else w.captured.get(engine.edge_key(e))
        if g is None:
            if materialize_grads:
                g = P.zeros_like(t._read())
            elif not allow_unused:
                raise AutogradError(f"One of the differentiated Tensors (input {i}) appears to not have been used in the "
                                    "graph. Set allow_unused=True if this is the desired behavior.")
        elif e.__class__ is AccumulateGrad and e.hooks:
            g = _leaf_hooks(e, g)
        results.append(None if g is None else wrap(g))
    return tuple(results)


def _leaf_hooks(acc: AccumulateGrad, g: Value) -> Value:
    for _, fn in list(acc.hooks.values()):
        new = fn(wrap(g))
        if new is not None:
            g = value_of(new)
    return g


# -------------------------------------------------------------------------------------------- derivatives of functions
class _Taken:
    """A function run on marked inputs: what the functions below have in common."""

    def __init__(self, name: str, func: Callable[..., Any], inputs: Any, create_graph: bool):
        from ..func._derivatives import pullback

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
        from ..ir.tape import alias_value

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
        from ..func._levels import pull

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
    from ..func._jacobians import reverse_rows

    _check_strategy("jacobian", strategy, vectorize, strict)
    t = _Taken("jacobian", func, inputs, create_graph)
    if strict:
        t.require_outputs()
        _require_dependence(t)
    rows = [[t.result(v) for v in reverse_rows(t.back, k)] for k in range(len(t.outs))]
    return t.per_output([t.per_input(r) for r in rows])


def _require_dependence(t: _Taken) -> None:
    from ..func._levels import pull

    for k, v in enumerate(t.outs):
        for i, g in enumerate(pull([v], [P.zeros_like(v)], t.wrt, False)):
            if g is None:
                raise AutogradError(f"Output {k} of the user-provided function is independent of input {i}. This is not "
                                    "allowed in strict mode.")


def hessian(func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
            outer_jacobian_strategy: str = "reverse-mode") -> Any:
    """Hessian of ``func``, which must return one element: a tensor of shape (*input, *input), or a tuple of tuples for a
    tuple of inputs. The arguments are those of :func:`jacobian`."""
    from ..func._derivatives import Pullback
    from ..func._jacobians import reverse_rows

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
    from ..func._derivatives import Pushforward

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
    from ..func._derivatives import Pullback

    t = _Taken(name, func, inputs, create_graph)
    value = t.scalar()
    grads = t.gradient(strict)
    vector = t.vector(v, t.wrt, t.single_in, "the input to the user-provided function is")
    found = Pullback(t.level, grads, None, t.wrt, None).flat(list(vector))
    return t.result(value), t.per_input([t.result(g) for g in found])
