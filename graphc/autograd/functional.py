"""``backward`` and ``grad`` over tensors. Derivatives of functions (``jacobian`` and so on) come from ``graphc.func``."""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ..errors import ArgumentTypeError, AutogradError
from ..ir import build as P
from ..ir.node import Value
from ..ir.tape import AccumulateGrad
from ..tensor import Tensor, accumulate_grad, value_of, wrap
from . import engine


def _listed(x: Any) -> list[Any]:
    """One tensor, or any iterable of them (a generator such as ``parameters()``, a ParameterList, ``dict.values()``)."""
    if x is None or isinstance(x, Tensor):
        return [x]
    return list(x.values() if type(x) is dict else x)


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
        elif not isinstance(g, Tensor):
            raise ArgumentTypeError(f"gradients can be either Tensors or None, not {type(g).__name__}")
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
    keep = create_graph if retain_graph is None else retain_graph
    grads = [None] * len(outs) if grad_tensors is None else _listed(grad_tensors)
    if inputs is None:
        roots: list[Any] = [t._read().gfn for t in outs]
        cots: Any = partial(_ones, outs)
        if grad_tensors is not None:
            roots, cots = _seeds(outs, grads)
        engine.deliver(engine.leaf_sums(roots, cots, keep=keep, create_graph=create_graph), accumulate_grad, create_graph)
        return
    roots, cots = _seeds(outs, grads)
    inputs = _listed(inputs)
    if not inputs:
        raise AutogradError("`inputs` argument to `backward()` cannot be empty.")
    wrt = [_edge_of(t) for t in inputs]
    w = engine.walk(roots, cots, keep=keep, create_graph=create_graph, wrt=wrt)
    for t, e in zip(inputs, wrt):
        g = w.leaves.get(e) if e.__class__ is AccumulateGrad else w.captured.get(engine.edge_key(e))
        if g is not None:
            accumulate_grad(t, g, create_graph)


def _ones(outs: Sequence[Tensor]) -> list[Value]:
    return _seeds(outs, [None] * len(outs))[1]


def _edge_of(t: Tensor) -> Any:
    if not isinstance(t, Tensor):
        raise AutogradError(f"all inputs have to be Tensors, but got {type(t).__name__}")
    edge = t._read().gfn
    if edge is None:
        raise AutogradError("One of the differentiated Tensors does not require grad")
    return edge


def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: bool | None = None,
         create_graph: bool = False, only_inputs: bool = True, allow_unused: bool | None = None,
         is_grads_batched: bool = False, materialize_grads: bool = False) -> Any:
    """Gradients of ``outputs`` with respect to ``inputs`` as a tuple of tensors (a dict when ``inputs`` is one); ``.grad``
    fields are untouched."""
    if materialize_grads and allow_unused is False:
        raise ValueError("Expected allow_unused to be True or not passed when materialize_grads=True, "
                         "but got: allow_unused=False.")
    outs, ins = _listed(outputs), _listed(inputs)
    if not ins:
        raise AutogradError("`inputs` argument to `grad()` cannot be empty.")
    if type(inputs) is dict:
        return dict(zip(inputs, grad(outs, ins, grad_outputs, retain_graph, create_graph, only_inputs, allow_unused,
                                     is_grads_batched, materialize_grads)))
    if is_grads_batched:
        return _batched(outs, ins, _listed(grad_outputs), retain_graph, create_graph, allow_unused, materialize_grads)
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


def _batched(outs: list[Any], ins: list[Any], grads: list[Any], retain: bool | None, create_graph: bool,
             allow_unused: bool | None, materialize: bool) -> tuple[Any, ...]:
    """One vector-Jacobian product per row of ``grads`` along their first dimension, stacked."""
    n = grads[0].shape[0]
    rows = [grad(outs, ins, [None if g is None else g[i] for g in grads], True if i + 1 < n else retain, create_graph, True,
                 allow_unused or None, False, materialize) for i in range(n)]
    return tuple([None if column[0] is None else wrap(P.concat(tuple([P.reshape(t._read(), (1, *t.shape)) for t in column]), 0))
                  for column in zip(*rows)])


def _leaf_hooks(acc: AccumulateGrad, g: Value) -> Value:
    for _, fn in list(acc.hooks.values()):
        new = fn(wrap(g))
        if new is not None:
            g = engine.replaced(g, value_of(new))
    return g


_OF_FUNCTIONS = frozenset(("hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"))


def __getattr__(name: str) -> Any:
    if name in _OF_FUNCTIONS:
        from . import front

        return getattr(front("_functional"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
