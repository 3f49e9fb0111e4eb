"""Muon: momentum whose matrices are orthogonalised (Jordan et al., 2024; learning rates after Liu et al., 2025)."""
from __future__ import annotations

import math
from typing import Any

from ..dtypes import float32
from ..ops.reduction import norm
from ..tensor import Tensor
from .optimizer import Optimizer, check_lr, positive, rate, zeros


def newton_schulz(m: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Approximately U V^T of the singular value decomposition U S V^T, by the iteration X <- a X + (b A + c A^2) X with
    A = X X^T. In float32 (PyTorch: bfloat16)."""
    if steps >= 100:
        raise ValueError("Number of steps must be less than 100 for computational efficiency")
    a, b, c = coefficients
    x = m.to(float32)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / norm(x, 2).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.T if tall else x


class Muon(Optimizer):
    """m = momentum*m + (1 - momentum)*g; p -= lr*weight_decay*p + lr*f*orthogonal(m), for matrices only. ``adjust_lr_fn``:
    "original" (f = sqrt(max(1, rows/columns))) or "match_rms_adamw" (f = 0.2*sqrt(max(rows, columns))).

    ValueError for values out of range and parameters that are no matrices."""

    def __init__(self, params: Any, lr: Any = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95, nesterov: bool = True,
                 ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315), eps: float = 1e-7, ns_steps: int = 5,
                 adjust_lr_fn: str | None = None):
        check_lr(lr)
        positive("momentum", momentum)
        positive("weight decay", weight_decay)
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov,
                                      ns_coefficients=ns_coefficients, eps=eps, ns_steps=ns_steps, adjust_lr_fn=adjust_lr_fn))
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim != 2:
                    raise ValueError(f"Muon only supports 2D parameters whereas we found a parameter with size: {p.size()}")

    def _update(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["momentum_buffer"] = zeros(p)
        g, m = p.grad, state["momentum_buffer"]
        assert g is not None
        m.lerp_(g, 1 - group["momentum"])
        direction = g.lerp(m, group["momentum"]) if group["nesterov"] else m
        update = newton_schulz(direction, group["ns_coefficients"], group["ns_steps"], group["eps"])
        lr = rate(group)
        rows, columns = p.shape
        if group["adjust_lr_fn"] == "match_rms_adamw":
            factor = 0.2 * math.sqrt(max(rows, columns))
        else:
            factor = math.sqrt(max(1, rows / columns))
        p.mul_(1 - lr * group["weight_decay"])
        p.sub_((update * (lr * factor)).to(p.dtype))
