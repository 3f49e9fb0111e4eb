"""Relatives of Adam: Adamax (Kingma and Ba, 2015), NAdam (Dozat, 2016), RAdam (Liu et al., 2020)."""
from __future__ import annotations

import math
from typing import Any

from ..ops.pointwise import maximum
from ..tensor import Tensor
from .optimizer import Optimizer, positive, zeros


def _check(lr: Any, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
    positive("learning rate", lr)
    positive("epsilon value", eps)
    for i, b in enumerate(betas):
        if not 0.0 <= b < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {b}")
    positive("weight_decay value", weight_decay)


def _prepare(p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any], moments: tuple[str, ...]) -> Tensor:
    """First-step state, the step count, and the gradient with sign and weight decay applied."""
    if not state:
        state["step"] = 0
        for name in moments:
            state[name] = zeros(p)
    state["step"] += 1
    g = -grad if group["maximize"] else grad
    if group["weight_decay"] != 0:
        if group.get("decoupled_weight_decay"):
            p.mul_(1 - group["lr"] * group["weight_decay"])
        else:
            g = g.add(p, alpha=group["weight_decay"])
    return g


class Adamax(Optimizer):
    """Adam with the infinity norm."""

    def __init__(self, params: Any, lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, foreach: bool | None = None, *, maximize: bool = False,
                 differentiable: bool = False, capturable: bool = False):
        _check(lr, betas, eps, weight_decay)
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, foreach=foreach,
                                      maximize=maximize, differentiable=differentiable, capturable=capturable))

    def _update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        g = _prepare(p, grad, state, group, ("exp_avg", "exp_inf"))
        beta1, beta2 = group["betas"]
        state["exp_avg"].lerp_(g, 1 - beta1)
        state["exp_inf"].copy_(maximum(state["exp_inf"].mul(beta2), g.abs().add_(group["eps"])))
        p.addcdiv_(state["exp_avg"], state["exp_inf"], value=-group["lr"] / (1 - beta1 ** state["step"]))


class NAdam(Optimizer):
    """Adam with Nesterov momentum."""

    def __init__(self, params: Any, lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False, *,
                 foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
                 differentiable: bool = False):
        _check(lr, betas, eps, weight_decay)
        positive("momentum_decay value", momentum_decay)
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                                      momentum_decay=momentum_decay, decoupled_weight_decay=decoupled_weight_decay,
                                      maximize=maximize, foreach=foreach, capturable=capturable,
                                      differentiable=differentiable))

    def _update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        fresh = not state
        g = _prepare(p, grad, state, group, ("exp_avg", "exp_avg_sq"))
        if fresh:
            state["mu_product"] = 1.0
        beta1, beta2 = group["betas"]
        t = state["step"]
        mu = beta1 * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"]))
        mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * group["momentum_decay"]))
        product = float(state["mu_product"]) * mu
        state["mu_product"] = product
        state["exp_avg"].lerp_(g, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
        denom = state["exp_avg_sq"].div(1 - beta2**t).sqrt().add_(group["eps"])
        p.addcdiv_(g, denom, value=-group["lr"] * (1 - mu) / (1 - product))
        p.addcdiv_(state["exp_avg"], denom, value=-group["lr"] * mu_next / (1 - product * mu_next))


class RAdam(Optimizer):
    """Adam with a rectified variance of its step size."""

    def __init__(self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
                 maximize: bool = False, capturable: bool = False, differentiable: bool = False):
        _check(lr, betas, eps, weight_decay)
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize,
                                      foreach=foreach, capturable=capturable,
                                      decoupled_weight_decay=decoupled_weight_decay, differentiable=differentiable))

    def _update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        g = _prepare(p, grad, state, group, ("exp_avg", "exp_avg_sq"))
        beta1, beta2 = group["betas"]
        t = state["step"]
        state["exp_avg"].lerp_(g, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
        corrected = state["exp_avg"].div(1 - beta1**t)
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
        if rho > 5.0:
            rect = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            adaptive = math.sqrt(1 - beta2**t) / state["exp_avg_sq"].sqrt().add_(group["eps"])
            p.add_(corrected * group["lr"] * adaptive * rect, alpha=-1.0)
        else:
            p.add_(corrected * group["lr"], alpha=-1.0)
