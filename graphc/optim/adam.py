"""Adam (Kingma and Ba, 2015) and AdamW (Loshchilov and Hutter, 2019)."""
from __future__ import annotations

import math
from typing import Any

from ..ops.optim_steps import adam_apply, adam_hyper, hyper_dtype
from ..tensor import Tensor
from .optimizer import Optimizer, positive, zeros


class Adam(Optimizer):
    """p -= lr * m_hat / (sqrt(v_hat) + eps) with bias-corrected moments; ``weight_decay`` is added to the gradient."""

    _decoupled = False

    def __init__(self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, amsgrad: bool = False, *, foreach: bool | None = None, maximize: bool = False,
                 capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
                 decoupled_weight_decay: bool = False):
        positive("learning rate", lr)
        positive("epsilon value", eps)
        for i, b in enumerate(betas):
            if not isinstance(b, Tensor) and not 0.0 <= b < 1.0:
                raise ValueError(f"Invalid beta parameter at index {i}: {b}")
        positive("weight_decay value", weight_decay)
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
                                      maximize=maximize, foreach=foreach, capturable=capturable,
                                      differentiable=differentiable, fused=fused,
                                      decoupled_weight_decay=decoupled_weight_decay or self._decoupled))

    def _update_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        hypers: dict[Any, Any] = {}
        for p in params:
            state = self.state[p]
            if not state:
                state["step"] = 0
                state["exp_avg"], state["exp_avg_sq"] = zeros(p), zeros(p)
                if group["amsgrad"]:
                    state["max_exp_avg_sq"] = zeros(p)
            state["step"] += 1
            t, dt = state["step"], hyper_dtype(p)
            hyper = hypers.get((dt, t))
            if hyper is None:
                hyper = hypers[dt, t] = adam_hyper(
                    dt, lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"], weight_decay=group["weight_decay"],
                    bias_correction1=1 - beta1**t, bias_correction2_sqrt=math.sqrt(1 - beta2**t),
                    decoupled=group["decoupled_weight_decay"])
            adam_apply(p, p.grad, state["exp_avg"], state["exp_avg_sq"],  # type: ignore[arg-type]
                       state.get("max_exp_avg_sq"), hyper, decay_on=group["weight_decay"] != 0,
                       decoupled=group["decoupled_weight_decay"], amsgrad=group["amsgrad"], maximize=group["maximize"])


class AdamW(Adam):
    """Adam with decoupled weight decay: p *= 1 - lr*weight_decay first."""

    _decoupled = True

    def __init__(self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False, foreach: bool | None = None,
                 capturable: bool = False, differentiable: bool = False, fused: bool | None = None):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize,
                         capturable=capturable, differentiable=differentiable, fused=fused)
