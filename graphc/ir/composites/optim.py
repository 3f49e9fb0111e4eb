"""One optimizer step of one parameter as one node. All hyper-parameters are zero-dim run-time inputs.

Arithmetic order is that of PyTorch's single-tensor loops. What PyTorch computes in Python doubles (``1 - beta2``,
``lr / bias_correction1``) comes in as an input of its own: in float32, ``1 - 0.999`` would be off by 1e-5 relative.
16-bit parameters are updated in float32 and rounded once.
"""
from __future__ import annotations

from typing import Any

from .. import build as P
from ..infer import require_float
from ..node import Aval, Value
from ..optable import composite
from ..samples import draw
from ._common import wide

SGD_HYPER = ("lr", "momentum", "dampening_left", "weight_decay")
ADAM_HYPER = ("step_size", "beta1_left", "beta2", "beta2_left", "bias_correction2_sqrt", "eps", "decay")


def _sgd(at: Any, *ins: Value) -> tuple[Value, ...]:
    has_buf, momentum_on, nesterov, maximize, decay_on = at
    param, grad = ins[0], ins[1]
    p, g = wide(param), wide(grad)
    lr, momentum, damp, decay = [P.cast(h, p.aval.dtype) for h in ins[-4:]]
    if maximize:
        g = P.neg(g)
    if decay_on:
        g = P.add(g, P.mul(p, decay))
    bufs: tuple[Value, ...] = ()
    if momentum_on:
        buf = P.add(P.mul(wide(ins[2]), momentum), P.mul(g, damp)) if has_buf else g
        bufs = (P.cast(buf, param.aval.dtype),)
        g = P.add(g, P.mul(buf, momentum)) if nesterov else buf
    return (P.cast(P.sub(p, P.mul(g, lr)), param.aval.dtype), *bufs)


def _sgd_infer(attrs: Any, param: Aval, grad: Aval, *rest: Aval) -> tuple[Aval, ...]:
    require_float("sgd_step", param)
    return (param, param) if attrs[1] else (param,)


def _sgd_samples() -> list[Any]:
    p, g, b = draw("p", 3, 4), draw("g", 3, 4), draw("b", 3, 4)
    h = tuple(draw(n, lo=0.1, hi=0.9) for n in SGD_HYPER)
    return [((p, g, *h), (False, False, False, False, False)), ((p, g, *h), (False, True, False, False, True)),
            ((p, g, b, *h), (True, True, True, True, True)), ((p, g, b, *h), (True, True, False, False, False))]


composite("sgd_step", attrs=("has_buf", "momentum_on", "nesterov", "maximize", "decay_on"), infer=_sgd_infer,
          expand=_sgd, vjp=None, saves=(), samples=_sgd_samples, n_out=2, kernel_tag="optimizer",
          doc="ins param, grad[, buf], lr, momentum, 1 - dampening, weight_decay; outs param'[, buf'].")


def _adam(at: Any, *ins: Value) -> tuple[Value, ...]:
    decoupled, amsgrad, maximize, decay_on = at
    dt = ins[0].aval.dtype
    p, g, m, v = [wide(x) for x in ins[:4]]
    step_size, left1, beta2, left2, correction, eps, decay = [P.cast(h, p.aval.dtype) for h in ins[-7:]]
    if maximize:
        g = P.neg(g)
    if decay_on:  # decoupled: `decay` is 1 - lr * weight_decay; otherwise weight_decay
        p, g = (P.mul(p, decay), g) if decoupled else (p, P.add(g, P.mul(p, decay)))
    m = P.add(m, P.mul(P.sub(g, m), left1))
    v = P.add(P.mul(v, beta2), P.mul(P.mul(g, g), left2))
    extra: tuple[Value, ...] = ()
    second = v
    if amsgrad:
        second = P.maximum(wide(ins[4]), v)
        extra = (P.cast(second, dt),)
    denom = P.add(P.div(P.sqrt(second), correction), eps)
    p = P.sub(p, P.div(P.mul(m, step_size), denom))
    return (P.cast(p, dt), P.cast(m, dt), P.cast(v, dt), *extra)


def _adam_infer(attrs: Any, param: Aval, grad: Aval, *rest: Aval) -> tuple[Aval, ...]:
    require_float("adam_step", param)
    return (param, *rest[:3 if attrs[1] else 2])


def _adam_samples() -> list[Any]:
    p, g, m = draw("p", 3, 4), draw("g", 3, 4), draw("m", 3, 4)
    v, top = draw("v", 3, 4, lo=0.1, hi=1), draw("t", 3, 4, lo=0.1, hi=1)
    h = tuple(draw(n, lo=0.1, hi=0.9) for n in ADAM_HYPER)
    return [((p, g, m, v, *h), (False, False, False, False)), ((p, g, m, v, *h), (True, False, False, True)),
            ((p, g, m, v, top, *h), (False, True, True, True))]


composite("adam_step", attrs=("decoupled", "amsgrad", "maximize", "decay_on"), infer=_adam_infer, expand=_adam,
          vjp=None, saves=(), samples=_adam_samples, n_out=3, kernel_tag="optimizer",
          doc="ins param, grad, exp_avg, exp_avg_sq[, max_exp_avg_sq], lr / bias_correction1, 1 - beta1, beta2, "
              "1 - beta2, bias_correction2_sqrt, eps, decay; outs param', exp_avg', exp_avg_sq'[, max'].")
