"""Adagrad (Duchi et al., 2011)."""
from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from ._scalars import advance, scalar
from .optimizer import Optimizer, check_fused, check_lr, descent, positive, rate, zeros


class Adagrad(Optimizer):
    """p -= lr_t * g / (sqrt(sum g^2) + eps), lr_t = lr / (1 + (t-1)*lr_decay). Raises ValueError for negative values."""

    def __init__(self, params: Any, lr: Any = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
                 initial_accumulator_value: float = 0, eps: float = 1e-10, foreach: bool | None = None, *,
                 maximize: bool = False, differentiable: bool = False, fused: bool | None = None):
        check_lr(lr)
        for name, x in (("lr_decay", lr_decay), ("weight_decay", weight_decay),
                        ("initial_accumulator_value", initial_accumulator_value), ("epsilon", eps)):
            positive(f"{name} value", x)
        super().__init__(params, dict(lr=lr, lr_decay=lr_decay, eps=eps, weight_decay=weight_decay,
                                      initial_accumulator_value=initial_accumulator_value, foreach=foreach,
                                      maximize=maximize, differentiable=differentiable, fused=fused))
        check_fused(fused, foreach, differentiable)
        for group in self.param_groups:
            for p in group["params"]:
                self._prepare(p, self.state[p])

    def _prepare(self, p: Tensor, state: dict[str, Any]) -> None:
        state["step"] = scalar(0.0)
        state["sum"] = zeros(p).add_(self.defaults["initial_accumulator_value"])

    def share_memory(self) -> None:
        """Accepted: state tensors move to shared memory when they are sent to another process."""

    def _update(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            self._prepare(p, state)
        t = advance(state)
        g = descent(p, group)
        total = state["sum"].addcmul_(g, g, value=1)
        p.addcdiv_(g, total.sqrt().add_(group["eps"]), value=-(rate(group) / (1 + (t - 1) * group["lr_decay"])))
