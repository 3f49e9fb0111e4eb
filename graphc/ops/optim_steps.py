"""One optimizer step of one parameter, written in place. Formulas: ``graphc/ir/composites/optim.py``.

Hyper-parameters may be Python numbers (they become run-time slots: a schedule never changes the program), zero-dim
Tensors, or Values. An optimizer with many parameters puts them together once per group and step with :func:`sgd_hyper` or
:func:`adam_hyper` and hands them to :func:`sgd_apply` or :func:`adam_apply`.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..dtypes import dtype, float32, float64
from ..ir import build as P
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import Numbers, apply_each, scalar, state
from ..ir.tape import alias_value
from ..tensor import Tensor, wrap

Hyper = tuple[Value, ...] | Numbers
_NUMBERS = {bool, int, float}


def hyper_dtype(param: Tensor) -> dtype:
    """The dtype hyper-parameters of a step on ``param`` have: float64 for float64 parameters, else float32."""
    return float64 if param._v.aval.dtype is float64 else float32


def for_each(params: Sequence[Tensor], make: Callable[[dtype], Hyper]) -> list[Hyper]:
    """What ``make(dtype)`` gives for each parameter's hyper-parameters, made once a dtype."""
    kinds = {p._v.aval.dtype for p in params}
    if float64 not in kinds or len(kinds) == 1:
        return [make(float64 if float64 in kinds else float32)] * len(params)
    made = {dt: make(dt) for dt in (float32, float64)}
    return [made[hyper_dtype(p)] for p in params]


def _slot(x: Any, dt: dtype) -> Value:
    if isinstance(x, Tensor):
        x = x._read()
    return P.reshape(P.cast(x, dt), ()) if isinstance(x, Value) else scalar(x, dt)


def _number(x: Any) -> bool:
    return not isinstance(x, (Tensor, Value))


def _combine(fn: Any, dt: dtype, *xs: Any) -> Value:
    """``fn(*xs)``: in Python doubles when all are numbers (as PyTorch does), otherwise in the program, in float64."""
    if all(map(_number, xs)):
        return scalar(fn(*xs), dt)
    return P.cast(fn(*[_slot(x, float64) for x in xs]), dt)


def _sub1(x: Any) -> Any:
    return P.sub(1.0, x) if isinstance(x, Value) else 1.0 - x


def _div(a: Any, b: Any) -> Any:
    return P.div(a, b) if isinstance(a, Value) else a / b


def _decay_factor(lr: Any, weight_decay: Any) -> Any:
    return P.sub(1.0, P.mul(lr, weight_decay)) if isinstance(lr, Value) else 1.0 - lr * weight_decay


# ----------------------------------------------------------------------------------------------------------------- SGD
def sgd_hyper(dt: dtype, *, lr: Any, momentum: Any = 0.0, dampening: Any = 0.0, weight_decay: Any = 0.0) -> Hyper:
    """The hyper-parameters of an SGD step in the order the ``sgd_step`` op takes them."""
    if {lr.__class__, momentum.__class__, dampening.__class__, weight_decay.__class__} <= _NUMBERS:
        return Numbers(dt, (lr, momentum, 1.0 - dampening, weight_decay))
    return (_slot(lr, dt), _slot(momentum, dt), _combine(_sub1, dt, dampening), _slot(weight_decay, dt))


def _update(op: str, columns: Sequence[Sequence[Tensor]], grads: Sequence[Tensor], hypers: Sequence[Hyper],
            attrs: Any) -> list[list[Value]]:
    """Step op ``op`` on all parameters (``columns[0]``) with their state (the other columns), written in place; all results,
    in columns."""
    old = [_values(column) for column in columns]
    results = apply_each(OPS[op], (old[0], _values(grads), *old[1:]), hypers, attrs)
    region = state.region
    log, at = partial(list.append, region.writes), region.slots
    before, state.grad = state.grad, False
    try:
        for tensors, olds, news in zip(columns, old, results):
            for t, v, new in zip(tensors, olds, news):
                new.gfn = v.gfn  # what is written in place stays the leaf it was
                a = t._alias
                whole = v if a is None else a.storage.value
                if a is None and v.__class__ is Value and v.region is not region:  # what _write() comes to then
                    log((t, v, at))
                    t._v = new
                elif a is not None and not a.chain and whole.__class__ is Value and whole.region is not region:
                    log((a.storage, whole, at))  # and then
                    a.storage.value = new if whole.gfn is new.gfn else alias_value(new, whole.gfn)
                    a.storage.version += 1
                    t._v, a.version = new, a.storage.version
                else:
                    t._write(new)
    finally:
        state.grad = before
    return results


def _values(tensors: Sequence[Tensor]) -> list[Value]:
    """What the tensors hold now."""
    return [t._v if t._alias is None else t._own() for t in tensors]


def sgd_apply(params: Sequence[Tensor], grads: Sequence[Tensor], bufs: Sequence[Tensor | None], hypers: Sequence[Hyper], *,
              momentum_on: bool, decay_on: bool, nesterov: bool = False, maximize: bool = False) -> list[Tensor | None]:
    """Update parameters and momentum buffers in place, with the hyper-parameters of each; returns the buffers (new tensors at
    the first step). Either all parameters have a buffer or none."""
    has_buf = momentum_on and bufs[0] is not None
    columns: Any = (params, bufs) if has_buf else (params,)
    results = _update("sgd_step", columns, grads, hypers, (has_buf, momentum_on, nesterov, maximize, decay_on))
    if not momentum_on or has_buf:
        return list(bufs)
    return [wrap(v) for v in results[1]]


def _on(x: Any) -> bool:
    """Whether a hyper-parameter can have an effect (a tensor may, whatever it holds now)."""
    return not _number(x) or x != 0


def sgd_step(param: Tensor, grad: Tensor, buf: Tensor | None, *, lr: Any, momentum: Any = 0.0, dampening: Any = 0.0,
             weight_decay: Any = 0.0, nesterov: bool = False, maximize: bool = False) -> Tensor | None:
    """``torch.optim.SGD``'s update of one parameter in place; returns the momentum buffer to keep, or None."""
    hyper = sgd_hyper(hyper_dtype(param), lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
    return sgd_apply([param], [grad], [buf], [hyper], momentum_on=_on(momentum), decay_on=_on(weight_decay), nesterov=nesterov,
                     maximize=maximize)[0]


# ---------------------------------------------------------------------------------------------------------------- Adam
def adam_hyper(dt: dtype, *, lr: Any, beta1: Any, beta2: Any, eps: Any, weight_decay: Any, bias_correction1: Any,
               bias_correction2_sqrt: Any, decoupled: bool) -> Hyper:
    """The hyper-parameters of an Adam step in the order the ``adam_step`` op takes them."""
    if {x.__class__ for x in (lr, beta1, beta2, eps, weight_decay, bias_correction1, bias_correction2_sqrt)} <= _NUMBERS:
        decay = 1.0 - lr * weight_decay if decoupled else weight_decay
        return Numbers(dt, (lr / bias_correction1, 1.0 - beta1, beta2, 1.0 - beta2, bias_correction2_sqrt, eps, decay))
    decay = _combine(_decay_factor, dt, lr, weight_decay) if decoupled else _slot(weight_decay, dt)
    return (_combine(_div, dt, lr, bias_correction1), _combine(_sub1, dt, beta1), _slot(beta2, dt),
            _combine(_sub1, dt, beta2), _slot(bias_correction2_sqrt, dt), _slot(eps, dt), decay)


def adam_apply(params: Sequence[Tensor], grads: Sequence[Tensor], moments: Sequence[Sequence[Tensor]],
               hypers: Sequence[Hyper], *, decay_on: bool, decoupled: bool = False, amsgrad: bool = False,
               maximize: bool = False) -> None:
    """Update parameters and their moments (all exp_avg, all exp_avg_sq, with ``amsgrad`` all max_exp_avg_sq) in place."""
    _update("adam_step", (params, *moments), grads, hypers, (decoupled, amsgrad, maximize, decay_on))


def adam_step(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, max_exp_avg_sq: Tensor | None = None, *,
              lr: Any, beta1: Any, beta2: Any, eps: Any, weight_decay: Any = 0.0, bias_correction1: Any,
              bias_correction2_sqrt: Any, decoupled: bool = False, amsgrad: bool = False, maximize: bool = False) -> None:
    """``torch.optim.Adam``'s (``decoupled``: AdamW's) update of one parameter in place."""
    hyper = adam_hyper(hyper_dtype(param), lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay,
                       bias_correction1=bias_correction1, bias_correction2_sqrt=bias_correction2_sqrt,
                       decoupled=decoupled)
    moments = [exp_avg, exp_avg_sq]
    if amsgrad:
        if max_exp_avg_sq is None:
            raise TypeError("adam_step: amsgrad=True needs max_exp_avg_sq, got None")
        moments.append(max_exp_avg_sq)
    adam_apply([param], [grad], [[m] for m in moments], [hyper], decay_on=_on(weight_decay), decoupled=decoupled,
               amsgrad=amsgrad, maximize=maximize)
