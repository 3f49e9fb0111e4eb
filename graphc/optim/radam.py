"""RAdam: Adam with a rectified variance of its step size (Liu et al., 2020)."""
from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from ._scalars import advance, scalar
from .optimizer import Optimizer, check_betas, check_lr, descent, positive, rate, zeros


class RAdam(Optimizer):
    """Plain momentum while the variance of 1/sqrt(v) is intractable (rho_t <= 5), rectified Adam after."""

    def __init__(self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
                 maximize: bool = False, capturable: bool = False, differentiable: bool = False):
        check_lr(lr)
        positive("epsilon value", eps)
        check_betas(betas)
        positive("weight_decay value", weight_decay)
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize,
                                      foreach=foreach, capturable=capturable,
                                      decoupled_weight_decay=decoupled_weight_decay, differentiable=differentiable))

    def _update(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["step"] = scalar(0.0)
            state["exp_avg"], state["exp_avg_sq"] = zeros(p), zeros(p)
        t = advance(state)
        g = descent(p, group)
        beta1, beta2 = group["betas"]
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(g, 1 - beta1)
        square.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        correction2 = 1 - beta2**t
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * t * beta2**t / correction2
        update = mean / (1 - beta1**t) * rate(group)
        if rho > 5.0:
            rect = ((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5
            update = update * (correction2**0.5 / square.sqrt().add_(group["eps"])) * rect
        p.add_(update, alpha=-1.0)
