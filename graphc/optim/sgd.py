"""Stochastic gradient descent with momentum."""
from __future__ import annotations

from typing import Any

from ..ops.optim_steps import hyper_dtype, sgd_apply, sgd_hyper
from ..tensor import Tensor
from .optimizer import Optimizer, check_fused, check_lr, positive


class SGD(Optimizer):
    """v = momentum*v + (1-dampening)*g; p -= lr*v (with Nesterov: lr*(g + momentum*v)). Sutskever et al., 2013.

    Raises ValueError for negative ``lr``, ``momentum`` or ``weight_decay`` and for Nesterov without plain momentum.
    """

    def __init__(self, params: Any, lr: Any = 1e-3, momentum: float = 0, dampening: float = 0, weight_decay: Any = 0,
                 nesterov: bool = False, *, maximize: bool = False, foreach: bool | None = None,
                 differentiable: bool = False, fused: bool | None = None):
        check_lr(lr)
        positive("momentum value", momentum)
        positive("weight_decay value", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(params, dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
                                      nesterov=nesterov, maximize=maximize, foreach=foreach, differentiable=differentiable,
                                      fused=fused))
        check_fused(fused, foreach, differentiable)

    def _update_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        momentum, decay = group["momentum"], group["weight_decay"]
        on = {"momentum_on": isinstance(momentum, Tensor) or momentum != 0,
              "decay_on": isinstance(decay, Tensor) or decay != 0,
              "nesterov": group["nesterov"], "maximize": group["maximize"]}
        hypers: dict[Any, Any] = {}
        for p in params:
            dt = hyper_dtype(p)
            if dt not in hypers:
                hypers[dt] = sgd_hyper(dt, lr=group["lr"], momentum=momentum, dampening=group["dampening"],
                                       weight_decay=decay)
            state = self.state[p] if on["momentum_on"] else {}
            buf = sgd_apply(p, p.grad, state.get("momentum_buffer"), hypers[dt], **on)  # type: ignore[arg-type]
            if on["momentum_on"]:
                state["momentum_buffer"] = buf
