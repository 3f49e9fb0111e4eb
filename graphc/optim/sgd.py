"""Stochastic gradient descent with momentum."""
from __future__ import annotations

from typing import Any

from ..ops.optim_steps import for_each, sgd_apply, sgd_hyper
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
        momentum_on, decay_on = isinstance(momentum, Tensor) or momentum != 0, isinstance(decay, Tensor) or decay != 0
        on = {"momentum_on": momentum_on, "decay_on": decay_on, "nesterov": group["nesterov"], "maximize": group["maximize"]}
        hypers = for_each(params, lambda dt: sgd_hyper(dt, lr=group["lr"], momentum=momentum, dampening=group["dampening"],
                                                       weight_decay=decay))
        if not momentum_on:
            sgd_apply(params, [p._grad for p in params], [None] * len(params), hypers, **on)  # type: ignore[misc]
            return
        bufs = [self.state[p].get("momentum_buffer") for p in params]
        for first in {b is None for b in bufs}:  # parameters that step for the first time have no buffer yet
            some = [i for i, b in enumerate(bufs) if (b is None) == first]
            new = sgd_apply([params[i] for i in some], [params[i].grad for i in some],  # type: ignore[misc]
                            [bufs[i] for i in some], [hypers[i] for i in some], **on)
            if first:
                for i, b in zip(some, new):
                    self.state[params[i]]["momentum_buffer"] = b
