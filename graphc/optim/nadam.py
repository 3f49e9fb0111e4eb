"""NAdam: Adam with Nesterov momentum (Dozat, 2016)."""
from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from ._scalars import advance, number, scalar, store
from .optimizer import Optimizer, check_betas, check_lr, descent, positive, rate, zeros


class NAdam(Optimizer):
    """Adam whose momentum mu_t = beta1*(1 - 0.96^(t*momentum_decay)/2) looks one step ahead. ValueError out of range."""

    def __init__(self, params: Any, lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False, *,
                 foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
                 differentiable: bool = False):
        check_lr(lr)
        positive("epsilon value", eps)
        check_betas(betas)
        positive("weight_decay value", weight_decay)
        positive("momentum_decay value", momentum_decay)
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                                      momentum_decay=momentum_decay, decoupled_weight_decay=decoupled_weight_decay,
                                      maximize=maximize, foreach=foreach, capturable=capturable,
                                      differentiable=differentiable))

    def _update(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["step"], state["mu_product"] = scalar(0.0), scalar(1.0)
            state["exp_avg"], state["exp_avg_sq"] = zeros(p), zeros(p)
        t = advance(state)
        g = descent(p, group)
        beta1, beta2 = group["betas"]
        mu = beta1 * (1.0 - 0.5 * 0.96 ** (t * group["momentum_decay"]))
        mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((t + 1) * group["momentum_decay"]))
        product = store(state, "mu_product", number(state["mu_product"]) * mu)  # rounded as PyTorch's float32 tensor is
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(g, 1 - beta1)
        square.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        denom = square.div(1 - beta2**t).sqrt().add_(group["eps"])
        lr = rate(group)
        p.addcdiv_(g, denom, value=-lr * (1.0 - mu) / (1.0 - product))
        p.addcdiv_(mean, denom, value=-lr * mu_next / (1.0 - product * mu_next))
