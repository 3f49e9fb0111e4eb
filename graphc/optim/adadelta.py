"""Adadelta (Zeiler, 2012)."""
from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from ._scalars import advance, scalar
from .optimizer import Optimizer, check_lr, descent, positive, rate, zeros


class Adadelta(Optimizer):
    """Steps scaled by the ratio of the running RMS of updates and of gradients. ValueError for values out of range."""

    def __init__(self, params: Any, lr: Any = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0,
                 foreach: bool | None = None, *, capturable: bool = False, maximize: bool = False,
                 differentiable: bool = False):
        check_lr(lr)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        positive("epsilon value", eps)
        positive("weight_decay value", weight_decay)
        super().__init__(params, dict(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize,
                                      capturable=capturable, foreach=foreach, differentiable=differentiable))

    def _update(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["step"] = scalar(0.0)
            state["square_avg"], state["acc_delta"] = zeros(p), zeros(p)
        advance(state)
        g = descent(p, group)
        rho, eps, square, acc = group["rho"], group["eps"], state["square_avg"], state["acc_delta"]
        square.mul_(rho).addcmul_(g, g, value=1 - rho)
        delta = acc.add(eps).sqrt_().div_(square.add(eps).sqrt_()).mul_(g)
        acc.mul_(rho).addcmul_(delta, delta, value=1 - rho)
        p.add_(delta, alpha=-rate(group))
