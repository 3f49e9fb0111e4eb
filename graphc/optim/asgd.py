"""Averaged stochastic gradient descent (Polyak and Juditsky, 1992; schedule of Bottou's sgd)."""
from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from ._scalars import advance, number, scalar, store
from .optimizer import Optimizer, check_lr, descent, number_of, positive, zeros


class ASGD(Optimizer):
    """SGD with rate eta_t = lr / (1 + lambd*lr*t)^alpha; ``state[p]["ax"]`` averages the iterates from step ``t0`` on."""

    def __init__(self, params: Any, lr: Any = 1e-2, lambd: float = 1e-4, alpha: float = 0.75, t0: float = 1e6,
                 weight_decay: float = 0, foreach: bool | None = None, maximize: bool = False, differentiable: bool = False,
                 capturable: bool = False):
        check_lr(lr)
        positive("weight_decay value", weight_decay)
        super().__init__(params, dict(lr=lr, lambd=lambd, alpha=alpha, t0=t0, weight_decay=weight_decay, foreach=foreach,
                                      maximize=maximize, differentiable=differentiable, capturable=capturable))

    def _update(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr = number_of(group["lr"])
        if not state:
            state["step"], state["eta"], state["mu"] = scalar(0.0), scalar(lr), scalar(1.0)
            state["ax"] = zeros(p)
        t = advance(state)
        g = descent(p, group)
        eta, mu, lambd = number(state["eta"]), number(state["mu"]), group["lambd"]
        p.mul_(1 - lambd * eta)
        p.add_(g, alpha=-eta)
        if mu != 1:
            state["ax"].lerp_(p, mu)
        else:
            state["ax"].copy_(p)
        store(state, "eta", lr / (1 + lambd * lr * t) ** group["alpha"])
        store(state, "mu", 1 / max(1, t - group["t0"]))
