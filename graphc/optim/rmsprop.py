"""RMSprop (Tieleman and Hinton, 2012), optionally centered (Graves, 2013) and with momentum."""
from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from ._scalars import advance, scalar
from .optimizer import Optimizer, check_lr, descent, positive, rate, zeros


class RMSprop(Optimizer):
    """p -= lr * g / (sqrt(E[g^2]) + eps). Raises ValueError for negative hyper-parameters."""

    def __init__(self, params: Any, lr: Any = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0,
                 momentum: float = 0, centered: bool = False, capturable: bool = False, foreach: bool | None = None,
                 maximize: bool = False, differentiable: bool = False):
        check_lr(lr)
        for name, x in (("epsilon", eps), ("momentum", momentum), ("weight_decay", weight_decay), ("alpha", alpha)):
            positive(f"{name} value", x)
        super().__init__(params, dict(lr=lr, momentum=momentum, alpha=alpha, eps=eps, centered=centered,
                                      weight_decay=weight_decay, capturable=capturable, foreach=foreach,
                                      maximize=maximize, differentiable=differentiable))

    def _update(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["step"] = scalar(0.0)
            state["square_avg"] = zeros(p)
            if group["momentum"] > 0:
                state["momentum_buffer"] = zeros(p)
            if group["centered"]:
                state["grad_avg"] = zeros(p)
        advance(state)
        g = descent(p, group)
        alpha, square = group["alpha"], state["square_avg"]
        square.mul_(alpha).addcmul_(g, g, value=1 - alpha)
        if group["centered"]:
            mean = state["grad_avg"]
            mean.lerp_(g, 1 - alpha)
            avg = square.addcmul(mean, mean, value=-1).sqrt_()
        else:
            avg = square.sqrt()
        avg = avg.add_(group["eps"])
        if group["momentum"] > 0:
            buf = state["momentum_buffer"]
            buf.mul_(group["momentum"]).addcdiv_(g, avg)
            p.add_(buf, alpha=-rate(group))
        else:
            p.addcdiv_(g, avg, value=-rate(group))
