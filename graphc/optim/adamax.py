"""Adamax: Adam with the infinity norm (Kingma and Ba, 2015, section 7)."""
from __future__ import annotations

from typing import Any

from ..ops.pointwise import maximum
from ..tensor import Tensor
from ._scalars import advance, scalar
from .optimizer import Optimizer, check_betas, check_lr, descent, positive, rate, zeros


class Adamax(Optimizer):
    """u = max(beta2*u, |g| + eps); p -= lr/(1 - beta1^t) * m/u. ValueError for values out of range."""

    def __init__(self, params: Any, lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, foreach: bool | None = None, *, maximize: bool = False,
                 differentiable: bool = False, capturable: bool = False):
        check_lr(lr)
        positive("epsilon value", eps)
        check_betas(betas)
        positive("weight_decay value", weight_decay)
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, foreach=foreach,
                                      maximize=maximize, differentiable=differentiable, capturable=capturable))

    def _update(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["step"] = scalar(0.0)
            state["exp_avg"], state["exp_inf"] = zeros(p), zeros(p)
        t = advance(state)
        g = descent(p, group)
        beta1, beta2 = group["betas"]
        mean, norm = state["exp_avg"], state["exp_inf"]
        mean.lerp_(g, 1 - beta1)
        norm.copy_(maximum(norm.mul(beta2), g.abs().add_(group["eps"])))
        p.addcdiv_(mean, norm, value=-(rate(group) / (1 - beta1**t)))
